"""How fast to send where small messages share the hole with a stream that fills it.

    sender --> [ queue of the slowest line ] --> receiver
                 every message waits behind
                 what bulk has put there

A congestion control that goes by losses, as Linux's usual one, fills that
queue before it slows down.  In front of a home's uplink it is as long as half
a second, and what is lost when it is full comes a round trip later still.

Rule 1: the queue is what the round trip has above the path's own.  While that
        is too long, the hole is paced below what the line takes, until it is
        short enough; while it is shorter, a little above.
Rule 2: only while small messages share the hole.  Bulk alone takes what TCP
        gives it, against everybody else's bulk too.
Rule 3: a queue that somebody else fills gets no shorter by our holding back.
        So bulk keeps half of what it has without a limit, and if the queue is
        not gone in the time that our own would need, it is left alone for a
        while, and for twice as long each time that it comes to that again.
        A line that has become much slower looks the same, and is found out
        in that while.

The principle is LEDBAT's (RFC 6817: the delay tells of a queue before a loss
does), with a rate instead of a window: SO_MAX_PACING_RATE is for every user,
another congestion control only for those that the administrator has allowed.

Pure: numbers in, a number out.
"""

from __future__ import annotations

from collections import deque

# Seconds of queue that are accepted, and as a share of the path's own round
# trip: a longer path varies more.
QUEUE = 0.015
QUEUE_SHARE = 1 / 8
# Seconds, and round trips, until a change of the rate shows in what is measured.
SHORTEST_STEP = 0.2
ROUND_TRIPS = 2.0
# Steps in which a queue that is too long is to be gone, and the smallest share of
# the rate for that.
DRAIN = 2.0
SLOWEST = 0.75
# The growth of a step while there is next to no queue: less than a quarter.
GROWTH = 1.1
# Looks of which the best tells what the line takes: one alone may have met a
# loss, or a radio that fell silent.
LOOKS = 3
# Of the limit.  Whoever reaches it would send more; below, the line is slow.
REACHED = 0.95
# What is left of a look while the queue is too long: the line may be a little
# slower than it was.
FORGET = 0.95
# Of what bulk has without a limit.
FLOOR = 0.5
# Bytes a second.  Slower, and the hole would not tell in time that it is not.
LEAST = 64 * 1024.0
# Seconds, and more for each second of queue, in which our own is gone.
PATIENCE = 4.0
PATIENCE_WITH_QUEUE = 6.0
# A queue that is too long or too short by this share counts fully for patience,
# one between for less: about what is accepted it is on either side in turn.
CLEARLY = 0.25
# Seconds until what was taken for somebody else's queue is tried again.
RETRY = 5.0
LONGEST_RETRY = 320.0
# Looks in a row without a queue that is clearly too long, after which earlier tries
# are forgotten.
CALM = 40


class Pacer:
    """Finds the rate at which the queue stays short; `limit` is in bytes/s, None: whatever TCP gives."""

    def __init__(self) -> None:
        self.limit: float | None = None
        # What the line seemed to take, at the last looks.
        self._line: deque[float] = deque(maxlen=LOOKS)
        # The most that bulk had without a limit, or with one and a short queue.
        self._free = 0.0
        # The shortest round trip that was seen.
        self._own = float("inf")
        self._next_look = float("-inf")
        # Seconds for which the queue was too long, less those for which it was not; the most that there may be.
        self._strain = self._patience = 0.0
        self._calm = 0
        self._retry = RETRY
        self._retry_at = float("-inf")

    def update(self, now: float, round_trip: float, rate: float, *, full: bool, company: bool) -> None:
        """Take note of how the hole does; a few times a second.

        Args:
            now: Any steady time in seconds.
            round_trip: Smoothed, in seconds, of the last moments.
            rate: Bytes a second that arrived lately, and were sent in no less time.
            full: The hole takes no more at once.
            company: Small messages share it.
        """
        self._own = min(self._own, round_trip)
        holds = company and now >= self._retry_at
        if not holds:
            self.limit, self._strain = None, 0.0
        if full and rate and now >= self._next_look:
            step = max(SHORTEST_STEP, ROUND_TRIPS * round_trip)
            self._next_look = now + step
            queue, accepted = round_trip - self._own, QUEUE + self._own * QUEUE_SHARE
            self._look(rate, queue <= accepted)
            if holds:
                self._adjust(now, queue, accepted, step)

    def _look(self, rate: float, is_short: bool) -> None:
        """Take note of what the line takes."""
        if self.limit is not None and rate >= self.limit * REACHED:
            rate = max(rate, max(self._line) * (1 if is_short else FORGET))
        self._line.append(rate)
        if self.limit is None:
            self._free = max(self._line)
        elif is_short:
            self._free = max(self._free, rate)

    def _adjust(self, now: float, queue: float, accepted: float, step: float) -> None:
        excess = queue / accepted - 1
        self._strain = max(self._strain + step * min(max(excess / CLEARLY, -1), 1), 0.0)
        self._patience = max(self._patience, PATIENCE + PATIENCE_WITH_QUEUE * queue) if self._strain else 0.0
        self._calm = 0 if excess > CLEARLY else self._calm + 1
        if self._calm >= CALM:
            self._retry = RETRY
        change = max(1 - excess * accepted / (DRAIN * step), SLOWEST)
        if self._strain > self._patience:
            self.limit = None
            self._retry_at = now + self._retry
            self._retry = min(2 * self._retry, LONGEST_RETRY)
        elif excess > 0:
            self.limit = max(max(self._line) * change, self._free * FLOOR, LEAST)
        elif self.limit is not None:
            if queue < accepted / 4:
                change = max(change, GROWTH)
            # Never lower: a rate without a queue says how much was sent, not how much could be.
            self.limit = max(self.limit, max(self._line) * change)
