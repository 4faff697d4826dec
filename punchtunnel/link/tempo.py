"""How long frames are, how much waits in the kernel, and how fast it is sent: the tempo of one hole.

    bytes sent, a few times a second --> rate --> frame limit --> unsent limit
    round trip, small messages ------> pacing.py ---------------> rate limit

Rule 1: a byte that waits cannot be overtaken by another stream's.  So frames,
        and what the kernel keeps unsent, take a few milliseconds each at the
        rate of the hole.
Rule 2: a rate that is not known yet, or was not reached, shortens nothing.
Rule 3: while small messages share the hole, the path's own queue is kept
        short too.

Pure: numbers in, numbers out; outgoing.py tells the kernel.
"""

from __future__ import annotations

from collections import deque

from punchtunnel.link.pacing import Pacer
from punchtunnel.system.tcp import Progress

FIRST_FRAME = 64 * 1024
SHORTEST_FRAME = 8 * 1024
# Seconds of the hole's rate that one frame may take.
FRAME_TIME = 0.005
# Frames that may wait unsent in the kernel.  When it runs dry, the congestion
# control takes that for our rate and stays slow: with a quarter of this BBR
# stayed at half the rate of a hole of 200 Mbit/s and 300 ms.
UNSENT_FRAMES = 4
# Bytes, until the rate is known.
FIRST_UNSENT = 1024 * 1024
# Seconds over which the rate is taken: the kernel takes half its queue at a time.
# An interval longer than LONGEST_INTERVAL says nothing, because there were pauses in
# it; unless the hole was full to its end, as slow ones are, which take that long.
INTERVAL = 0.25
LONGEST_INTERVAL = 1.0
# The best of so many intervals counts.  TCP in slow start, or after a loss, sends in
# bursts with pauses of a round trip between them.
INTERVALS = 8
# Seconds for which a stream that has sent a small message may soon send another:
# people pause.
INTERACTIVE_TIME = 10.0
# Measurements until the kernel's round trip is the path's.  Where SYNs have crossed, the first is too small
# (callers.py); the next ones are too large, because both sides compute before they answer.  Measured on loopback, a
# hole begins with anything from 13 µs to 6 ms.  Each measurement counts for an eighth less with the next.
MIN_SAMPLES = 50


class Tempo:
    """Decides by what it is told of the hole.

    Args:
        now: Any steady time in seconds.
        longest_frame: The most payload of one frame.

    Attributes:
        frame_limit: Bytes of payload that the next frame may have.
        unsent_limit: Bytes that may wait unsent in the kernel.
        next_update: When `update` is due.
        interactive_at: When a small message last went out while another stream had something to send.
        round_trip: The path's, in seconds: the shortest so far, with what queue it had then; None: the kernel's is not
            the path's yet.
    """

    def __init__(self, now: float, longest_frame: int) -> None:
        self.frame_limit = FIRST_FRAME
        self.unsent_limit = FIRST_UNSENT
        self.interactive_at = float("-inf")
        self.round_trip: float | None = None
        self.next_update = now + INTERVAL
        self._longest_frame = longest_frame
        self._updated = now
        self._rates: deque[float] = deque(maxlen=INTERVALS)
        self._pacer = Pacer()

    @property
    def rate_limit(self) -> float | None:
        """Bytes a second that may be sent; None: as many as TCP allows."""
        return self._pacer.limit

    def update(self, now: float, sent: int, *, filled: bool, waited: bool, progress: Progress | None) -> None:
        """Decide anew.

        Args:
            now: The time, at least `next_update`.
            sent: Bytes that the hole has taken since the last update.
            filled: At some time since then it took no more.
            waited: It had been full until now.
            progress: What the kernel knows of it.
        """
        elapsed = now - self._updated
        if waited or elapsed < LONGEST_INTERVAL:
            self._fit(sent / elapsed, filled)
        if progress is not None and progress.samples >= MIN_SAMPLES:
            interactive = now - self.interactive_at < INTERACTIVE_TIME
            self._pacer.update(now, progress.round_trip, progress.rate, full=filled, interactive=interactive)
            self.round_trip = self._pacer.shortest
        self._updated, self.next_update = now, now + INTERVAL
        unsent = UNSENT_FRAMES * self.frame_limit
        # Not for every small change: each costs a system call.
        if not self.unsent_limit / 2 < unsent < self.unsent_limit * 2:
            self.unsent_limit = unsent

    def _fit(self, rate: float, filled: bool) -> None:
        """Fit the frame limit to the rate at which the hole takes bytes."""
        self._rates.append(rate)
        limit = int(max(self._rates) * FRAME_TIME)
        if len(self._rates) < INTERVALS or not filled:
            # The rate is not known yet, or is this at least.
            limit = max(limit, self.frame_limit)
        self.frame_limit = max(SHORTEST_FRAME, min(limit, self._longest_frame))
