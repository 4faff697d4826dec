"""The state of a run at this moment, as its events have told it.

    events ──> State ──> line.py ──> a line of a terminal

No clock: times come with the events.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from punchtunnel.reporting import events
from punchtunnel.reporting.events import Event

# Seconds over which a rate is measured: long enough not to flicker.
RATE_SPAN = 3.0


@dataclass(slots=True)
class Flow:
    """One direction of the link.

    Attributes:
        size: Bytes so far.
        expected: Bytes in all, if that is known.
        rate: Bytes a second over the last RATE_SPAN seconds.
        average: Bytes a second since the beginning.
    """

    size: int = 0
    expected: int | None = None
    rate: float = 0.0
    average: float = 0.0

    @property
    def is_used(self) -> bool:
        """Tell whether anything has moved in this direction, or is announced."""
        return bool(self.size or self.expected)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until `expected` is reached at the average rate; None if that cannot be known."""
        if self.expected is None or not self.average:
            return None
        return max(self.expected - self.size, 0) / self.average


@dataclass(slots=True)
class State:
    """What the events of a run have told so far; sizes, rates and streams are those of the sessions that are up."""

    peer: str = ""
    via: str = ""
    ports: int = 0
    waited_s: float = 0.0
    met: str = ""
    local: str = ""
    remote: str = ""
    rtt_s: float | None = None
    sealed: bool = False
    authenticated: bool = False
    streams: int = 0
    elapsed_s: float = 0.0
    inward: Flow = field(default_factory=Flow)
    outward: Flow = field(default_factory=Flow)
    # What each session that is up has told last, by its number.
    _sessions: dict[int, events.Traffic] = field(default_factory=dict)
    # Those of them that have lost their hole, and when, in their own seconds.
    _lost: dict[int, float] = field(default_factory=dict)
    # (seconds, bytes in, bytes out) of the last RATE_SPAN seconds.
    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)

    def take(self, event: Event) -> None:
        """Take in one event; most change nothing."""
        match event:
            case events.Punching():
                self.peer, self.ports = event.peer, event.port_count
            case events.ViaStarted():
                self.via = f"by {event.remote}"
            case events.Joining():
                self.via = f"at the relay {event.relays}"
            case events.Waiting():
                self.waited_s, self.met = event.waited_s, event.met
            case events.Lost():
                self._lost[event.session] = self._elapsed(event.session)
            case events.Resumed():
                self.local, self.remote = event.local, event.remote
                self._lost.pop(event.session, None)
            case events.Moved() | events.Direct():
                # Shorter than that of the relayed one.
                self.local, self.remote, self.rtt_s = event.local, event.remote, None
            case events.HoleOpened() if any(self._sessions):
                # Of a service: what the others have moved goes on.
                self.local, self.remote, self.rtt_s = event.local, event.remote, event.rtt_s
            case events.HoleOpened():
                self.local, self.remote, self.rtt_s = event.local, event.remote, event.rtt_s
                self.sealed = self.authenticated = False
                self.streams, self.elapsed_s = 0, 0.0
                self.inward, self.outward = Flow(), Flow()
                self._samples.clear()
                self._sessions.clear()
                self._lost.clear()
            case events.Sealed():
                self.sealed, self.authenticated = True, event.authenticated
            case events.RoundTrip():
                # The smallest is the path's own: larger ones contain queues, or a peer that was busy.
                self.rtt_s = event.rtt_s if self.rtt_s is None else min(event.rtt_s, self.rtt_s)
            case events.Announced():
                (self.inward if event.direction == "in" else self.outward).expected = event.bytes
            case events.Traffic():
                self._sessions[event.session] = event
                self._sum_up()
            case events.LinkEnded():
                over = events.Traffic(event.elapsed_s, event.bytes_in, event.bytes_out, 0)
                self._sessions[event.session] = over
                self._sum_up()
                del self._sessions[event.session]
                if self._sessions:
                    self._lost.pop(event.session, None)

    @property
    def may_meet(self) -> bool:
        """Tell whether anything at the other machine can help: what is dialled is not stopped on this one."""
        stopped_here = self.met in ("unreachable", "no_nat64", "forbidden", "unusable", "starved")
        return bool(self.peer or self.via) and not stopped_here

    @property
    def lost_s(self) -> float | None:
        """Seconds for which every session has been without a hole; None if one has a hole."""
        if not self._lost or self._sessions.keys() - self._lost.keys():
            return None
        return min(max(self._elapsed(session) - since, 0.0) for session, since in self._lost.items())

    def _elapsed(self, session: int) -> float:
        last = self._sessions.get(session)
        # Of the last one, what it has told at its end.
        return last.elapsed_s if last is not None else self.elapsed_s

    @property
    def moves(self) -> bool:
        """Tell whether either direction is used."""
        return self.inward.is_used or self.outward.is_used

    def _sum_up(self) -> None:
        """Add up what the sessions have told last."""
        last = self._sessions.values()
        self.streams = sum(one.streams for one in last)
        elapsed = max(one.elapsed_s for one in last)
        self._measure(elapsed, sum(one.bytes_in for one in last), sum(one.bytes_out for one in last))

    def _measure(self, elapsed: float, bytes_in: int, bytes_out: int) -> None:
        self.elapsed_s, self.inward.size, self.outward.size = elapsed, bytes_in, bytes_out
        self._samples.append((elapsed, bytes_in, bytes_out))
        # At least two samples stay, however far apart they are.
        while len(self._samples) > 2 and elapsed - self._samples[1][0] >= RATE_SPAN:
            self._samples.popleft()
        since, was_in, was_out = self._samples[0]
        for flow, size, was in ((self.inward, bytes_in, was_in), (self.outward, bytes_out, was_out)):
            flow.average = size / elapsed if elapsed > 0 else 0.0
            flow.rate = (size - was) / (elapsed - since) if elapsed > since else flow.average
