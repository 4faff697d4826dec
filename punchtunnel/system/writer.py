"""Writes to what cannot be polled, in a thread: a file on storage that stands still holds nobody else up.

    put --> [ ring ] --> thread --write--> file
              told <----- room again, an error, or the end

Rule 1: the ring is all that waits.  What does not fit is not taken.
Rule 2: bytes are written in order.  After an error nothing more is written
        until the caller has been told of it.
Rule 3: one side adds to `_put`, the other to `_written`; both numbers only
        grow, so that no lock is needed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

# Bytes of one write: room is made step by step.
PIECE = 1024 * 1024
# Seconds between two looks of `wait`.
LOOK_EVERY = 0.001


def _nobody() -> None:
    """Stand in for a caller that need not be told, or asked."""


class Writer:
    """A bounded queue of bytes before a descriptor, and the thread that writes them; it starts with the first byte.

    Args:
        fd: Where to write; owned by the caller, who keeps it open.
        size: Bytes of the ring.
        told: Called in the thread when there is room again after `put` took less than all, after an error, and
            when `finish` is done.
        before: Called in the thread before each write.
    """

    def __init__(
        self, fd: int, size: int, told: Callable[[], None] = _nobody, before: Callable[[], None] | None = None
    ) -> None:
        self._fd = fd
        self._size = size
        self._told = told
        self._before = before or _nobody
        self._ring = memoryview(b"")
        self._put = self._written = 0
        self._wants_room = False
        self._error: OSError | None = None
        self._thread: threading.Thread | None = None
        # The thread waits for a token, or is about to.
        self._sleeps = False
        self._tokens: SimpleQueue[None] = SimpleQueue()
        # What ends the work, called in the thread once everything is written.
        self._last: Callable[[], None] | None = None
        self._is_done = False
        # Called in the thread when it ends; the caller no longer waits for it.
        self._abandoned: Callable[[], None] | None = None

    @property
    def held(self) -> int:
        """Bytes that are not written yet."""
        return self._put - self._written

    @property
    def room(self) -> int:
        """Bytes that `put` takes now."""
        return self._size - self.held

    def put(self, data: memoryview) -> int:
        """Take as much as there is room for, and return the bytes taken; `told` will be called if that is not all.

        Raises:
            OSError: An earlier write has failed; told once.
        """
        self._raise_error()
        if not data:
            return 0
        if not self._starts():
            # The system allows no thread: better held up than lost.
            return os.write(self._fd, data)
        taken = min(len(data), self.room)
        if taken < len(data):
            self._wants_room = True
            # The thread may have made room just before it could see that.
            taken = min(len(data), self.room)
        begin = self._put % self._size
        first = min(taken, self._size - begin)
        self._ring[begin : begin + first] = data[:first]
        self._ring[: taken - first] = data[first:taken]
        self._put += taken
        self._wake()
        return taken

    def finish(self, last: Callable[[], None]) -> bool:
        """Write what is held, then call `last` in the thread; True once that is done, False: `told` will be called.

        Raises:
            OSError: Something could not be written, or `last` has failed.
        """
        if self._last is None:
            self._raise_error()
            self._last = last
            if not self._starts():
                last()
                return True
            self._wake()
        if not self._is_done:
            return False
        if self._thread is not None:
            self._thread.join()
        self._raise_error()
        return True

    def wait(self, seconds: float, size: int = 0) -> bool:
        """Wait until at most `size` bytes are held; False if that takes longer."""
        deadline = time.monotonic() + seconds
        while self.held > size:
            if time.monotonic() >= deadline:
                return False
            time.sleep(LOOK_EVERY)
        return True

    def abandon(self, seconds: float, last: Callable[[], None]) -> None:
        """Write what can be written within `seconds`, and forget the rest.

        Args:
            seconds: How long this call may wait.
            last: Called when the thread is done, in the thread if that takes longer.
        """
        if self._thread is None or self._is_done:
            last()
            return
        self.wait(seconds)
        self._abandoned = last
        self._wake()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _starts(self) -> bool:
        """Start the thread, unless it runs; False if there can be none."""
        if self._thread is None:
            self._ring = memoryview(bytearray(self._size))
            thread = threading.Thread(target=self._run, name="writer", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def _wake(self) -> None:
        if self._sleeps:
            self._sleeps = False
            self._tokens.put(None)

    # ---- the thread

    def _run(self) -> None:
        while self._abandoned is None:
            if self._error is not None:
                # What came after it is not written; the caller may not know yet.
                self._written = self._put
            if self.held:
                self._write()
            elif self._last is not None:
                self._end(self._last)
                return
            else:
                self._sleep()
        self._abandoned()

    def _write(self) -> None:
        begin = self._written % self._size
        end = min(begin + min(self.held, PIECE), self._size)
        try:
            self._before()
            self._written += os.write(self._fd, self._ring[begin:end])
        except OSError as error:
            self._error = error
        if self._wants_room or self._error is not None:
            self._wants_room = False
            self._told()

    def _sleep(self) -> None:
        self._sleeps = True
        # Only now does the other side see that it has to wake this one.
        if not self.held and self._last is None and self._abandoned is None:
            self._tokens.get()
        self._sleeps = False

    def _end(self, last: Callable[[], None]) -> None:
        if self._error is None:
            try:
                last()
            except OSError as error:
                self._error = error
        self._is_done = True
        self._told()
