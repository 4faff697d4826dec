"""-z: a few pings through the hole, one after another, and how long their answers took.

The first one, which does not count, follows a full packet in each direction: where the way swallows
long packets, it is never answered.
"""

from __future__ import annotations

from collections.abc import Callable

from punchtunnel.session.outcome import RoundTrips
from punchtunnel.system.loop import Timers

# Pings that are measured, and seconds from an answer to the next ping.  One more
# ping goes before them and does not count: a peer that is still starting answers late.
PINGS = 10
PING_EVERY = 0.1
# Seconds after which a peer that only checks the path must have left.
CHECK_LIMIT = 30.0
# Bytes: more than a segment has room for where a router is on the way (ports.LONGEST_SEGMENT).
FULL_PACKET = 1400


class Check:
    """Measures the round trip; the session sends the first ping.

    Args:
        ping: Sends one ping.
        timers: Those of the session.
        tell: Called once, with what was found.

    Attributes:
        found: None until all pings are answered.
    """

    def __init__(self, ping: Callable[[], object], timers: Timers, tell: Callable[[RoundTrips], object]) -> None:
        self._ping = ping
        self._timers = timers
        self._tell = tell
        self._seconds: list[float] = []
        self.found: RoundTrips | None = None

    def pong(self, rtt: float) -> None:
        """Take in one round trip in seconds, and ask for the next one."""
        self._seconds.append(rtt)
        if len(self._seconds) <= PINGS:
            self._timers.later("ping", PING_EVERY, self._ping)
        else:
            self.found = RoundTrips.of(self._seconds[1:])
            self._tell(self.found)
