"""The pings of a link that are under way, and its round trip: pure, each time is an argument in seconds."""

from __future__ import annotations

# Unanswered pings whose time is remembered.
MAX_PINGS = 4


class Pings:
    """Those of one side.

    Attributes:
        rtt: The smallest round trip that one has had, in seconds; None before that.
    """

    def __init__(self) -> None:
        self.rtt: float | None = None
        self._asked: dict[int, float] = {}
        self._count = 0

    def ask(self, now: float) -> int:
        """Take note of a ping, and return its value."""
        self._count = (self._count + 1) & 0xFFFFFFFF
        self._asked[self._count] = now
        if len(self._asked) > MAX_PINGS:
            del self._asked[next(iter(self._asked))]
        return self._count

    def answered(self, value: int, now: float) -> float | None:
        """Return the round trip of the ping with this value; None if it is not known, or was answered before."""
        asked = self._asked.pop(value, None)
        if asked is None:
            return None
        rtt = max(now - asked, 0.0)
        # The smallest is the path's own; larger ones waited in a queue.
        self.rtt = rtt if self.rtt is None else min(self.rtt, rtt)
        return rtt
