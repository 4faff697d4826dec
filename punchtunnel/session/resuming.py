"""Between two holes of one session: what is said, how long it is waited for, and what comes of it.

    UP --lost--> SEEKING --found--> UP
                    └── too late, or the peer knows nothing of the session --> given up

comeback.py has the words, and a seeker finds the hole on which they are said.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

from punchtunnel import words
from punchtunnel.errors import LinkError, LostError, NoHoleError
from punchtunnel.link.carrier import Carrier
from punchtunnel.protocol.resume import Journal, Ticket
from punchtunnel.punching.hole import Hole
from punchtunnel.reporting import events
from punchtunnel.session.comeback import RestartedError, Return
from punchtunnel.session.seeker import Leads, Result, Seeks
from punchtunnel.system.changes import Changes
from punchtunnel.system.loop import GuardedLoop, Timers

if TYPE_CHECKING:
    from punchtunnel.session import moving
    from punchtunnel.session.moving import Moving

# Seconds before a hole is sought again where the last one has brought nothing.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
# What a hole has to bring for that, in bytes, unless it lives for so many seconds.
WORTH_A_HOLE = 64 * 1024
SHORT_LIVED = 2.0
# Seconds in which changes of addresses and routes are taken together.
CHANGES_SETTLE = 0.5


class Host(Protocol):
    """What is needed of session.session.Session."""

    loop: GuardedLoop
    timers: Timers
    report: events.Report

    @property
    def link(self) -> moving.Link:
        """See link.link.Link."""

    def let_pass(self) -> None:
        """Payload may pass from now on."""

    def lost(self, error: LinkError) -> None:
        """There is no carrier any more: look for another hole, or end."""

    def go_on(self, hole: Hole, carrier: Carrier, unread: bytes) -> None:
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
        leads: Makes what leads from a relay to a direct hole, if one is named; None: a relayed hole stays one.

    Attributes:
        journal: Of the session.
    """

    def __init__(self, host: Host, ticket: Ticket, seconds: float, seeker: Seeks, leads: Leads | None = None) -> None:
        self.journal = Journal()
        self._host = host
        self._ticket = ticket
        self._seconds = seconds
        self._seeker = seeker
        self._changes: Changes | None = None
        with contextlib.suppress(OSError):
            self._changes = Changes()
            host.loop.add_reader(self._changes.fileno(), self._on_change)
        self._moving: Moving | None = None
        if leads is not None and leads.meets:
            # Imported late: few sessions have a relay.
            from punchtunnel.session.moving import Moving

            self._moving = Moving(host, ticket, self, leads)
        # When the session has gone on over the last hole, bytes of both directions when that before it was lost,
        # whether a relay had it, and how many such holes in a row have brought nothing.
        self._back_at, self._moved, self._was_relayed = float("-inf"), 0, False
        self._fruitless = 0
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
        self._why, self._lost_at = str(error), time.monotonic()
        seconds, pause = until_noticed + self._seconds, self._pause()
        if pause:
            self._host.timers.later("seek", pause, lambda: self._seek_later(seconds))
        elif not self._start(seconds):
            return False
        self._host.report(events.Lost(reason=words.without_lost(self._why), streams=streams))
        return True

    def _pause(self) -> float:
        """Return the seconds until a hole is sought: none, unless the last ones have brought nothing.

        A relay that spoils each hole would have the two sides meet there many times a second; a direct one takes
        a punch, which has limits of its own.
        """
        moved = self.journal.received + self.journal.acknowledged
        brought_nothing = moved - self._moved < WORTH_A_HOLE and time.monotonic() - self._back_at < SHORT_LIVED
        self._fruitless = self._fruitless + 1 if self._was_relayed and brought_nothing else 0
        self._moved = moved
        return min(FIRST_PAUSE * 2.0 ** (self._fruitless - 1), LONGEST_PAUSE) if self._fruitless else 0.0

    def expect(self, error: LinkError) -> bool:
        """The peer is about to come back, and its hole was given up: let neither a move nor a pause be in its way.

        Args:
            error: Why, if the session has no hole because of a move.

        Returns:
            The session waits for it.
        """
        if self._moving is not None:
            self._moving.give_up(error)
        if "seek" in self._host.timers:
            self._host.timers.drop("seek")
            self._seek_later(self._seconds)
        return self._host.link.is_open and self._host.link.carrier is None

    def _start(self, seconds: float) -> bool:
        try:
            self._seeker.start(self._ticket, self.journal.report(), seconds, self._found)
        except (RuntimeError, OSError):
            # No thread is to be had, or no descriptor.
            return False
        return True

    def _seek_later(self, seconds: float) -> None:
        if not self._start(seconds):
            self._host.not_back(LostError(words.not_back(self._why, time.monotonic() - self._lost_at)))

    def stop(self) -> None:
        """Seek no more, and watch nothing."""
        if self._moving is not None:
            self._moving.stop()
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

    def use(self, hole: Hole) -> None:
        """Let payload pass over a hole, or look for a direct one first if a relay carries it."""
        if self._moving is None:
            self._host.let_pass()
        else:
            self._moving.use(hole)

    def measured(self, round_trip: float) -> None:
        """Take note of a round trip of the link in seconds."""
        if self._moving is not None:
            self._moving.measured(round_trip)

    def offered(self, data: bytes) -> None:
        """Take in how the peer can be met without the relay.

        Raises:
            PeerError: It says nonsense.
        """
        if self._moving is not None:
            self._moving.offered(data)

    def hurry(self) -> None:
        """Seek without any pause, or try for a direct hole now."""
        self._seeker.hurry()
        if self._moving is not None:
            self._moving.hurry()

    def pause(self) -> None:
        """Seek no more: another hole has been found."""
        self._host.timers.drop("seek")
        self._seeker.stop()

    def go_on(self, back: Return, event: events.Event) -> None:
        """Let the session go on over a hole by which its peer has come back, and report this event."""
        hole = back.hole
        try:
            again = self.journal.rest(back.received)
        except LinkError as error:
            hole.sock.close()
            self._host.not_back(error)
            return
        self._host.report(event)
        self._back_at, self._was_relayed = time.monotonic(), bool(hole.relay)
        self._host.go_on(
            hole, Carrier(hole.sock, back.seals, self.journal, again, relayed=bool(hole.relay)), back.unread
        )

    def _found(self, result: Result) -> None:
        match result:
            case Return(hole):
                lost_s = time.monotonic() - self._lost_at
                self.go_on(result, events.Resumed(local=hole.local, remote=hole.remote, lost_s=lost_s))
            case RestartedError():
                self._host.not_back(result)
            case NoHoleError():
                self._host.not_back(LostError(words.not_back(self._why, time.monotonic() - self._lost_at)))
            case _:
                self._host.broke(result)
