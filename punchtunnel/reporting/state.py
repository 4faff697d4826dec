"""What a run looks like at this moment: the sum of its events so far.

    events ──> State ──> words.display ──> a line of a terminal

No clock: times come with the events.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

# Seconds over which a rate is taken: long enough not to flicker.
RATE_SPAN = 3.0


@dataclass(slots=True)
class Flow:
    """One direction of the link.

    Attributes:
        size: Bytes so far.
        expected: Bytes in all, if that is known.
        rate: Bytes a second, lately.
        average: Bytes a second, from the beginning.
    """

    size: int = 0
    expected: int | None = None
    rate: float = 0.0
    average: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until everything is there, as it went so far; None if nobody knows."""
        if self.expected is None or not self.average:
            return None
        return max(self.expected - self.size, 0) / self.average


@dataclass(slots=True)
class State:
    """A run, as far as its events have told."""

    peer: str = ""
    ports: int = 0
    waited_s: float = 0.0
    local: str = ""
    remote: str = ""
    rtt_s: float | None = None
    sealed: bool = False
    authenticated: bool = False
    streams: int = 0
    elapsed_s: float = 0.0
    inward: Flow = field(default_factory=Flow)
    outward: Flow = field(default_factory=Flow)
    # (seconds, bytes in, bytes out) of the last RATE_SPAN seconds.
    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)

    def take(self, event: str, fields: dict[str, object]) -> None:
        """Take in one event; unknown ones and fields that are missing change nothing."""
        match event, fields:
            case "punching", {"peer": str(peer), "port_count": int(ports)}:
                self.peer, self.ports = peer, ports
            case "waiting", {"waited_s": float(waited)}:
                self.waited_s = waited
            case "hole", {"local": str(local), "remote": str(remote), "rtt_s": rtt}:
                self.local, self.remote = local, remote
                self.rtt_s = rtt if isinstance(rtt, float) else None
                self.sealed = self.authenticated = False
                self.streams, self.elapsed_s = 0, 0.0
                self.inward, self.outward = Flow(), Flow()
                self._samples.clear()
            case "sealed", {"authenticated": bool(authenticated)}:
                self.sealed, self.authenticated = True, authenticated
            case "rtt", {"rtt_s": float(rtt)}:
                # The smallest is the path's own; larger ones waited, also for a peer that was busy.
                self.rtt_s = rtt if self.rtt_s is None else min(rtt, self.rtt_s)
            case "announced", {"direction": str(direction), "bytes": int(size)}:
                (self.inward if direction == "in" else self.outward).expected = size
            case (
                ("traffic" | "link_ended"),
                {
                    "elapsed_s": float(elapsed),
                    "bytes_in": int(bytes_in),
                    "bytes_out": int(bytes_out),
                },
            ):
                streams = fields.get("streams", 0)
                self.streams = streams if isinstance(streams, int) else 0
                self._measure(elapsed, bytes_in, bytes_out)

    def _measure(self, elapsed: float, bytes_in: int, bytes_out: int) -> None:
        self.elapsed_s, self.inward.size, self.outward.size = elapsed, bytes_in, bytes_out
        self._samples.append((elapsed, bytes_in, bytes_out))
        # The last two are enough, however far apart.
        while len(self._samples) > 2 and elapsed - self._samples[1][0] >= RATE_SPAN:
            self._samples.popleft()
        since, was_in, was_out = self._samples[0]
        for flow, size, was in ((self.inward, bytes_in, was_in), (self.outward, bytes_out, was_out)):
            flow.average = size / elapsed if elapsed > 0 else 0.0
            flow.rate = (size - was) / (elapsed - since) if elapsed > since else flow.average
