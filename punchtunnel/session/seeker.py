"""Looks for the next hole of one session in a thread, while the session's loop goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from punchtunnel.protocol.resume import Ticket
from punchtunnel.reporting import events
from punchtunnel.session.background import Background
from punchtunnel.session.comeback import Return
from punchtunnel.system.loop import Loop
from punchtunnel.system.signals import Wake

if TYPE_CHECKING:
    from punchtunnel.punching.hole import Hole
    from punchtunnel.session.arranging import Ways

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


class Leads(Protocol):
    """What makes that which leads to a direct hole: session.holes.Holes."""

    @property
    def meets(self) -> bool:
        """Tell whether this side has named a relay: only then is anything dialled that its peer offers."""

    def ways(self, ticket: Ticket, report: events.Report) -> Ways:
        """Return it for a session."""

    def goes_another_way(self, hole: Hole) -> bool:
        """Tell whether what is sent to the peer of a direct hole would leave this machine from another address now."""


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
        self._background = Background[Return](loop, "seek", lambda found: found.hole.sock.close())

    def start(self, ticket: Ticket, received: int, seconds: float, found: Callable[[Result], None]) -> None:
        """Seek for so many seconds, and call `found` in the loop with a hole, or with why there is none.

        Raises:
            RuntimeError: No thread is to be had.
            OSError: No descriptor is.
        """
        deadline = time.monotonic() + seconds

        def report(event: events.Event) -> None:
            self._loop.call_soon_threadsafe(self._report, event)

        self._background.start(lambda wake: self._holes.again(ticket, received, deadline, wake, report), found)

    def hurry(self) -> None:
        """Forget every wait."""
        self._background.hurry()

    def stop(self) -> None:
        """Seek no more; return when the thread has ended and nothing is left of it."""
        self._background.stop()
