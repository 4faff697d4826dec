"""What a session does by the clock: it keeps the hole alive, notices that it is dead, and ends what is idle."""

from __future__ import annotations

import time
from typing import Protocol

from punchtunnel import words
from punchtunnel.errors import Exit, LinkError, LostError
from punchtunnel.link.carrier import Carrier
from punchtunnel.reporting import events
from punchtunnel.session import silence
from punchtunnel.session.silence import Silence
from punchtunnel.system.addresses import is_own_literal
from punchtunnel.system.loop import Timers
from punchtunnel.words import ending

# Seconds.
TICK = 2.0
SHORTEST_TICK = 0.1
# Seconds for a sign of life that was asked for, by SIGHUP or because this machine's addresses
# or routes have changed: several round trips of the longest paths, with a loss.
PROBE_TIMEOUT = 5.0
# After these a person wants to know how much had arrived.  ssh ends its ProxyCommand by SIGHUP when all is well.
CUT = frozenset({Exit.LOST, Exit.INTERRUPTED, Exit.TERMINATED})


class Link(Protocol):
    """What is needed of link.link.Link."""

    payload_at: float
    bytes_in: int
    bytes_out: int
    carrier: Carrier | None

    @property
    def stream_count(self) -> int:
        """See link.link.Link."""

    @property
    def is_open(self) -> bool:
        """See link.link.Link."""

    def ping(self, size: int = 0) -> int:
        """See link.link.Link."""


class Host(Protocol):
    """What is needed of session.session.Session."""

    timers: Timers

    @property
    def link(self) -> Link:
        """See above."""

    def die(self, error: LinkError) -> None:
        """The hole is dead."""

    def cut_rest(self, error: LinkError) -> None:
        """A program here does not read what came before the hole's end."""

    def end_idle(self, error: LinkError) -> None:
        """Nothing has passed for too long."""


class Pulse:
    """Ticks as long as the session lives.

    Args:
        host: The session.
        idle: Seconds without payload after which it ends; 0: never.
        patient: What a program here has not read when the hole has ended is waited for without a limit: there is
            nobody else who waits for the next hole.
        resumes: The session can go on over another hole.
    """

    def __init__(self, host: Host, idle: float, *, patient: bool, resumes: bool) -> None:
        self._host = host
        self._link = host.link
        self._timers = host.timers
        self._idle = idle
        self._patient = patient
        # This side has given the hole up by itself.
        self._is_alone = False
        self._dead_after = silence.LOST_AFTER if resumes else None
        self._began = time.monotonic()

    def start(self, carrier: Carrier) -> None:
        """Begin, with the first hole or with another one."""
        self._carrier = carrier
        self._silence = Silence(carrier, self._link.ping, self._timers.later, self._die, dead_after=self._dead_after)
        self._is_alone = False
        self._timers.later("tick", TICK, self._tick)

    @property
    def elapsed(self) -> float:
        """Seconds since the session began."""
        return time.monotonic() - self._began

    def tell_traffic(self, report: events.Report, every: float) -> None:
        """Report the traffic now, and again whenever so many seconds have passed."""
        link = self._link
        self._timers.later("traffic", every, lambda: self.tell_traffic(report, every))
        report(events.Traffic(self.elapsed, link.bytes_in, link.bytes_out, link.stream_count))

    def tell_end(self, report: events.Report, status: Exit, reason: str, *, of_stdio: bool) -> None:
        """Report that the session is over, and of a pipe that was cut how much had arrived."""
        link, elapsed = self._link, self.elapsed
        if of_stdio and status in CUT and (link.bytes_in or link.bytes_out):
            report(events.Warned(ending.cut(elapsed, link.bytes_in, link.bytes_out)))
        report(events.LinkEnded(reason, elapsed, link.bytes_in, link.bytes_out, int(status)))

    def ask_now(self, *, path_only: bool) -> None:
        """Ask the peer for a sign of life; the hole is dead if none comes soon, or if its address is gone from here."""
        carrier = self._link.carrier
        if carrier is not None and carrier.local_host and not is_own_literal(carrier.local_host):
            self._die(LostError(words.ADDRESS_GONE))
        else:
            self._silence.expect(PROBE_TIMEOUT, path_only=path_only)

    @property
    def until_noticed(self) -> float:
        """Seconds until the peer's side, too, has noticed that the hole is lost: its kernel may tell it nothing."""
        if not self._is_alone:
            return 0.0
        return max(silence.HEARTBEAT + silence.LOST_AFTER - (time.monotonic() - self._carrier.heard_at), 0.0)

    def _die(self, error: LinkError) -> None:
        self._is_alone = True
        self._host.die(error)

    @property
    def swallows(self) -> bool:
        """Tell whether the way swallows long packets while it carries short ones."""
        return self._silence.swallows

    def why(self, error: LinkError | None = None) -> LinkError:
        """Return why the hole is lost; see `Silence.why`."""
        return self._silence.why(error)

    def _tick(self) -> None:
        link, idle = self._link, self._idle
        self._timers.later("tick", max(SHORTEST_TICK, min(TICK, idle or TICK)), self._tick)
        now = time.monotonic()
        if has_slept := self._silence.has_slept(3 * TICK):
            # What has arrived since then is not read yet.
            self._carrier.heard_at = link.payload_at = now
        if not link.is_open:
            if not self._patient and now - link.payload_at >= silence.DEAD_AFTER:
                self._host.cut_rest(LinkError(words.unread_rest(silence.DEAD_AFTER)))
        elif link.carrier is not None:
            if has_slept:
                self._silence.expect(silence.WAKE_TIMEOUT)
            else:
                self._silence.look()
        if idle and now - link.payload_at >= idle:
            self._host.end_idle(LinkError(words.idle_link(idle)))
