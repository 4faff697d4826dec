"""Between two holes of one session: what is said, how long it is waited for, and what comes of it.

    UP --lost--> SEEKING --found--> UP
                    └── too late, or the peer knows nothing of the session --> given up

comeback.py has the words, and a seeker finds the hole on which they are said.
"""

from __future__ import annotations

import contextlib
import time
from typing import Protocol

from punchtunnel import words
from punchtunnel.errors import LinkError, LostError, NoHoleError
from punchtunnel.link.carrier import Carrier
from punchtunnel.protocol.resume import Journal, Ticket
from punchtunnel.reporting import events
from punchtunnel.session.comeback import RestartedError, Return
from punchtunnel.session.seeker import Result, Seeks
from punchtunnel.system.changes import Changes
from punchtunnel.system.loop import GuardedLoop, Timers

# Seconds in which changes of addresses and routes are taken together.
CHANGES_SETTLE = 0.5


class Host(Protocol):
    """What is needed of session.session.Session."""

    loop: GuardedLoop
    timers: Timers
    report: events.Report

    def go_on(self, carrier: Carrier, unread: bytes) -> None:
        """A hole carries the session from now on; `unread` came with it."""

    def not_back(self, error: LinkError) -> None:
        """There will be no other hole."""

    def ask_now(self) -> None:
        """An address or a route of this machine has changed."""

    def broke(self, error: BaseException) -> None:
        """A bug."""


class Resuming:
    """Lets one session go on over another hole.

    Args:
        host: The session.
        ticket: Its own.
        seconds: How long a hole is sought.
        seeker: Seeks it.

    Attributes:
        journal: Of the session.
    """

    def __init__(self, host: Host, ticket: Ticket, seconds: float, seeker: Seeks) -> None:
        self.journal = Journal()
        self._host = host
        self._ticket = ticket
        self._seconds = seconds
        self._seeker = seeker
        self._changes: Changes | None = None
        with contextlib.suppress(OSError):
            self._changes = Changes()
            host.loop.add_reader(self._changes.fileno(), self._on_change)
        # Why and when the last hole was lost.
        self._why = ""
        self._lost_at = 0.0

    def seek(self, error: LinkError, streams: int, until_noticed: float) -> bool:
        """Look for another hole: the present one is lost, and all that came by it is taken in.

        Args:
            error: Why.
            streams: How many wait.
            until_noticed: Seconds until the other side can be expected to look for one, too.

        Returns:
            Another one may come.
        """
        try:
            self._seeker.start(self._ticket, self.journal.report(), until_noticed + self._seconds, self._found)
        except (RuntimeError, OSError):
            # No thread is to be had, or no descriptor.
            return False
        self._why, self._lost_at = str(error), time.monotonic()
        self._host.report(events.Lost(reason=words.without_lost(self._why), streams=streams))
        return True

    def stop(self) -> None:
        """Seek no more, and watch nothing."""
        self._seeker.stop()
        if self._changes is not None:
            self._host.loop.remove_reader(self._changes.fileno())
            self._changes.close()
            self._changes = None

    def _on_change(self) -> None:
        """An address or a route has changed: many such changes come together."""
        assert self._changes is not None
        self._changes.drain()
        if "changes" not in self._host.timers:
            self._host.timers.later("changes", CHANGES_SETTLE, self._host.ask_now)

    def hurry(self) -> None:
        """Seek without any pause."""
        self._seeker.hurry()

    def _found(self, result: Result) -> None:
        match result:
            case Return(hole, seals, received, unread):
                try:
                    again = self.journal.rest(received)
                except LinkError as error:
                    hole.sock.close()
                    self._host.not_back(error)
                    return
                lost_s = time.monotonic() - self._lost_at
                self._host.report(events.Resumed(local=hole.local, remote=hole.remote, lost_s=lost_s))
                self._host.go_on(Carrier(hole.sock, seals, self.journal, again), unread)
            case RestartedError():
                self._host.not_back(result)
            case NoHoleError():
                self._host.not_back(LostError(words.not_back(self._why, time.monotonic() - self._lost_at)))
            case _:
                self._host.broke(result)
