"""SIGINT, SIGTERM and SIGHUP as something that a loop can wait for.

An exception raised by a handler can strike between any two steps of the code
it interrupts, and leave half of each behind.  Here the handler only takes a
note and makes a descriptor readable; the loops look at it where they can stop.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType

from punchtunnel.errors import SignalError

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Handles the signals while it is open; use it as a context manager.

    A signal that was ignored from the start (nohup, a background job of a
    script) stays ignored.
    """

    def __init__(self) -> None:
        self._caught: list[int] = []
        self._here, self._there = os.pipe()
        os.set_blocking(self._here, False)
        os.set_blocking(self._there, False)
        self._before = {number: signal.getsignal(number) for number in HANDLED}

    def __enter__(self) -> Signals:
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._here)
        os.close(self._there)

    def fileno(self) -> int:
        """Return the descriptor that is readable after a signal, until `take`."""
        return self._here

    def take(self) -> int | None:
        """Return the oldest signal that was not taken yet."""
        if not self._caught:
            with contextlib.suppress(BlockingIOError):
                os.read(self._here, 64)
        return self._caught.pop(0) if self._caught else None

    def check(self) -> None:
        """Raise SignalError if a signal has come."""
        if (number := self.take()) is not None:
            raise SignalError(number)

    def sleep(self, seconds: float) -> None:
        """Wait; raise SignalError as soon as a signal comes."""
        select.select([self], [], [], seconds)
        self.check()

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._caught.append(number)
        # Full means that it is readable already.
        with contextlib.suppress(OSError):
            os.write(self._there, b"!")
