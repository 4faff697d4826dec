"""SIGINT, SIGTERM and SIGHUP as something that a loop can wait for.

An exception raised by a handler can strike between any two steps of the code
it interrupts, and leave a step half done.  Here the handler only notes the
signal and makes a descriptor readable; the loops look at it where they can
stop.

    SIGINT, SIGTERM     end; the second one at once
    SIGHUP              end as well; but a service (-k) tries at once
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType
from typing import Self

from punchtunnel.errors import SignalError

# No signal: it asks the loop of a `Wake` to try at once.
TRY_NOW = 0
HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Wake:
    """Numbers of signals on their way to a loop; use it as a context manager.

    `note` may be called from a signal handler or from another thread.
    """

    def __init__(self) -> None:
        self._noted: list[int] = []
        self._here, self._there = os.pipe()
        os.set_blocking(self._here, False)
        os.set_blocking(self._there, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._here)
        os.close(self._there)

    def fileno(self) -> int:
        """Return the descriptor that is readable from a signal until `take`."""
        return self._here

    def note(self, number: int) -> None:
        """Add a signal, and make the descriptor readable."""
        self._noted.append(number)
        # A full pipe is readable already.
        with contextlib.suppress(OSError):
            os.write(self._there, b"!")

    def take(self) -> int | None:
        """Return the oldest signal that was not taken yet, or None."""
        if not self._noted:
            with contextlib.suppress(BlockingIOError):
                os.read(self._here, 64)
        return self._noted.pop(0) if self._noted else None

    def means_try_now(self, number: int) -> bool:
        """Tell whether a signal that was taken asks to try at once, and not to end."""
        return number == TRY_NOW

    def check(self) -> bool:
        """Take all signals, and return whether one of them asks to try at once.

        Raises:
            SignalError: One of them asks to end.
        """
        asked = False
        while (number := self.take()) is not None:
            if not self.means_try_now(number):
                raise SignalError(number)
            asked = True
        return asked

    def sleep(self, seconds: float) -> None:
        """Wait for so long, or until a signal; raise SignalError if that asks to end."""
        select.select([self], [], [], seconds)
        self.check()


class Signals(Wake):
    """Handles the signals of this process while it is entered.

    A signal that was ignored from the start (nohup, a background job of a
    script) stays ignored.

    Args:
        service: SIGHUP asks to try at once, unless it was sent because the
            terminal is gone: a closed window ends what ran in it.
    """

    def __init__(self, service: bool = False) -> None:
        super().__init__()
        self._service = service
        self._had_terminal = _has_terminal()
        self._before = {number: signal.getsignal(number) for number in HANDLED}

    def __enter__(self) -> Self:
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        super().__exit__()

    def forget_terminal(self) -> None:
        """Take note that this process has left its terminal: no hang-up comes from there."""
        self._had_terminal = False

    def means_try_now(self, number: int) -> bool:
        """See Wake."""
        return number == signal.SIGHUP and self._service and (not self._had_terminal or _has_terminal())

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self.note(number)


def _has_terminal() -> bool:
    """Tell whether this process has a controlling terminal; after a hang-up it has none."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
