"""Looks for the next hole of one session in a thread, while the session's loop goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Protocol

from punchtunnel.protocol.resume import Ticket
from punchtunnel.reporting import events
from punchtunnel.session.comeback import Return
from punchtunnel.system.loop import Loop
from punchtunnel.system.signals import TRY_NOW, Wake

Result = Return | Exception


class Again(Protocol):
    """What is needed of session.holes.Holes."""

    def again(self, ticket: Ticket, received: int, deadline: float, signals: Wake, report: events.Report) -> Return:
        """See session.holes.Holes."""


class Seeks(Protocol):
    """What finds the next hole of a session."""

    def start(self, ticket: Ticket, received: int, seconds: float, found: Callable[[Result], None]) -> None:
        """Seek for so many seconds, and call `found` once, later; see Seeker.start."""

    def hurry(self) -> None:
        """Forget every wait."""

    def stop(self) -> None:
        """Seek no more."""


Seekers = Callable[[Loop, events.Report], Seeks]


def seekers(holes: Again) -> Seekers:
    """Return what makes the seeker of a session that punches for itself."""
    return lambda loop, report: Seeker(holes, loop, report)


class Seeker:
    """Seeks at most one hole at a time.

    Args:
        holes: Where they come from.
        loop: Where what is found is told.
        report: Where the events of the punch go, in the loop.
    """

    def __init__(self, holes: Again, loop: Loop, report: events.Report) -> None:
        self._holes = holes
        self._loop = loop
        self._report = report
        self._thread: threading.Thread | None = None
        self._wake: Wake | None = None
        # What the thread has found and nobody has taken.
        self._result: Result | None = None

    def start(self, ticket: Ticket, received: int, seconds: float, found: Callable[[Result], None]) -> None:
        """Seek for so many seconds, and call `found` in the loop with a hole, or with why there is none.

        Raises:
            RuntimeError: No thread is to be had.
        """
        self.stop()
        wake = Wake()
        deadline = time.monotonic() + seconds

        def report(event: events.Event) -> None:
            self._loop.call_soon_threadsafe(self._report, event)

        def seek() -> None:
            try:
                self._result = self._holes.again(ticket, received, deadline, wake, report)
            except Exception as error:
                self._result = error
            self._loop.call_soon_threadsafe(tell)

        def tell() -> None:
            if wake is self._wake and (result := self._result) is not None:
                self._result = None
                self.stop()
                found(result)

        thread = threading.Thread(target=seek, name="seek")
        try:
            thread.start()
        except RuntimeError:
            wake.close()
            raise
        self._thread, self._wake = thread, wake

    def hurry(self) -> None:
        """Forget every wait."""
        if self._wake is not None:
            self._wake.note(TRY_NOW)

    def stop(self) -> None:
        """Seek no more; return when the thread has ended and nothing is left of it."""
        if self._wake is None or self._thread is None:
            return
        self._wake.note(signal.SIGINT)
        self._thread.join()
        self._wake.close()
        if isinstance(self._result, Return):
            self._result.hole.sock.close()
        self._thread = self._wake = self._result = None
