"""Reads of what cannot be polled, in a thread: a file on storage that stands still holds nobody else up.

    ask ----> thread --read--> [ piece ] --> take
                told <------------ a piece, an error, or the end

The counterpart of writer.py.

Rule 1: nothing is read that was not asked for, so the pieces that wait are as
        many as the caller wants.
Rule 2: pieces are taken in the order in which they were read.
Rule 3: one thing crosses at a time, by a queue, so that no lock is needed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

# Bytes of one read at most.
PIECE = 1024 * 1024

# Reads into a buffer, from an offset or, if that is None, from where the descriptor stands.
Read = Callable[[int, memoryview, int | None], int]
_NOTHING = memoryview(b"")


def read_at(fd: int, view: memoryview, offset: int | None) -> int:
    """Read as long as it takes.  With an offset, the descriptor's own is neither moved nor locked."""
    return os.readv(fd, [view]) if offset is None else os.preadv(fd, [view], offset)


class Reader:
    """Pieces of what a descriptor leads to, and the thread that reads them; it starts with the first one.

    Args:
        fd: Where to read; owned by the caller, who keeps it open.
        told: Called in the thread when there is something to take.
        read: Reads, for as long as that takes.

    Attributes:
        offset: Where the next piece begins; to be changed only while nothing is coming.  None: where the descriptor
            stands.
    """

    def __init__(self, fd: int, told: Callable[[], None], read: Read = read_at) -> None:
        self._fd = fd
        self._told = told
        self._read = read
        self.offset: int | None = None
        self._thread: threading.Thread | None = None
        # Buffers to be filled; None ends the thread.
        self._asked: SimpleQueue[memoryview | None] = SimpleQueue()
        # Buffers that were filled, and how far, or what has happened instead.
        self._done: SimpleQueue[tuple[memoryview, int | OSError]] = SimpleQueue()
        self._coming = 0
        self._spare: list[memoryview] = []
        # The piece that is being taken: its buffer, and what is left of it.
        self._buffer = self._left = _NOTHING
        self._closed = False
        self._last: Callable[[], None] | None = None

    @property
    def coming(self) -> int:
        """Pieces that were asked for and not begun to be taken."""
        return self._coming

    @property
    def is_empty(self) -> bool:
        """Nothing is left to take, and nothing is coming."""
        return not (self._left or self._coming)

    def ask(self) -> None:
        """Have one more piece read."""
        self._coming += 1
        buffer = self._spare.pop() if self._spare else memoryview(bytearray(PIECE))
        if self._starts():
            self._asked.put(buffer)
        else:
            # The system allows no thread: better held up than lost.
            self._fill(buffer)

    def take(self, view: memoryview) -> int | None:
        """Take what `view` has room for, and return its bytes; 0 is EOF, None: `told` will be called.

        Raises:
            OSError: It could not be read.
        """
        if not self._left:
            try:
                self._buffer, found = self._done.get_nowait()
            except Empty:
                return None
            self._coming -= 1
            if isinstance(found, OSError):
                raise found
            self._left = self._buffer[:found]
        count = min(len(view), len(self._left))
        view[:count] = self._left[:count]
        self._left = self._left[count:]
        if not self._left:
            self._spare.append(self._buffer)
        return count

    def close(self, last: Callable[[], None]) -> None:
        """Forget what was not taken, without waiting for a read.

        Args:
            last: Called when the thread is done with the descriptor: in the thread if a read hangs.
        """
        if self._thread is None:
            last()
            return
        self._closed, self._last = True, last
        self._asked.put(None)
        if not self._coming:
            self._thread.join()

    def _starts(self) -> bool:
        """Start the thread, unless it runs; False if there can be none."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="reader", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    # ---- the thread

    def _run(self) -> None:
        while (buffer := self._asked.get()) is not None:
            if not self._closed:
                self._fill(buffer)
        assert self._last is not None
        self._last()

    def _fill(self, buffer: memoryview) -> None:
        found: int | OSError
        try:
            found = self._read(self._fd, buffer, self.offset)
            if self.offset is not None:
                self.offset += found
        except OSError as error:
            found = error
        self._done.put((buffer, found))
        self._told()
