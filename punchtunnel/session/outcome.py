"""How a session has ended: plain values, which import nothing of the session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from punchtunnel.errors import Exit


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """What -z has measured, in seconds."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> RoundTrips:
        """Sum up at least one round trip."""
        times = sorted(seconds)
        count = len(times)
        return cls(times[0], (times[(count - 1) // 2] + times[count // 2]) / 2, times[-1])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended.

    Attributes:
        status: The exit status.
        reason: The sentence that explains it, or "".
        round_trips: With -z.
        met: The peer was on the hole; if not, nothing was begun on it, and nothing is lost.
    """

    status: Exit
    reason: str
    round_trips: RoundTrips | None = None
    met: bool = True
