"""One piece of blocking work at a time, in a thread beside a session's loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from punchtunnel.system.loop import Loop
from punchtunnel.system.signals import TRY_NOW, Wake

T = TypeVar("T")


class Background(Generic[T]):
    """Does it, and tells the loop what came of it.

    Args:
        loop: Where that is told.
        name: Of the thread.
        discard: Gives back what has come of work that was stopped.
    """

    def __init__(self, loop: Loop, name: str, discard: Callable[[T], None]) -> None:
        self._loop = loop
        self._name = name
        self._discard = discard
        self._thread: threading.Thread | None = None
        self._wake: Wake | None = None
        # What has come of it, until that is told.
        self._results: list[T | Exception] = []

    def start(self, work: Callable[[Wake], T], done: Callable[[T | Exception], None]) -> None:
        """Do this, instead of what is being done, and call `done` in the loop once, later.

        Args:
            work: Ends soon after its argument is noted a signal, by an exception.
            done: Takes what it has returned, or raised.

        Raises:
            RuntimeError: No thread is to be had.
            OSError: No descriptor is.
        """
        self.stop()
        wake = Wake()

        def run() -> None:
            result: T | Exception
            try:
                result = work(wake)
            except Exception as error:
                result = error
            self._results.append(result)
            self._loop.call_soon_threadsafe(tell)

        def tell() -> None:
            if wake is self._wake and self._results:
                result = self._results.pop()
                self.stop()
                done(result)

        thread = threading.Thread(target=run, name=self._name)
        try:
            thread.start()
        except RuntimeError:
            wake.close()
            raise
        self._thread, self._wake = thread, wake

    @property
    def is_busy(self) -> bool:
        """Something is being done."""
        return self._thread is not None

    def hurry(self) -> None:
        """Forget every wait."""
        if self._wake is not None:
            self._wake.note(TRY_NOW)

    def end_soon(self) -> None:
        """End it, and wait for nothing."""
        if self._wake is not None:
            self._wake.note(signal.SIGINT)

    def stop(self) -> None:
        """End it; return when the thread has ended and nothing is left of it."""
        if self._wake is None or self._thread is None:
            return
        self._wake.note(signal.SIGINT)
        self._thread.join()
        self._wake.close()
        self._thread = self._wake = None
        results, self._results = self._results, []
        for result in results:
            if not isinstance(result, Exception):
                self._discard(result)
