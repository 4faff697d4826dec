"""How fast to send where small messages share the hole with a stream that fills it.

    sender --> [ queue of the bottleneck ] --> receiver
                 every message waits behind
                 what bulk has put there

A congestion control that goes by losses, such as Linux's default one, fills
that queue before it slows down.  In front of a home's uplink the queue is as
long as half a second, and what is lost when it is full arrives a round trip
later still.

Rule 1: the queuing delay is what the round trip has above the shortest one,
        the path's own.  While it is above the target, the hole is paced below
        what the bottleneck takes; while it is below, faster and faster.
Rule 2: this is done only while small messages share the hole.  Bulk alone
        takes what TCP gives it, in competition with all other bulk.
Rule 3: a queue that other traffic fills gets no shorter when we hold back.
        So bulk keeps half of what it had without a limit.  A queue that is
        too long for longer than our own would be is left alone for a while,
        and for twice as long if that soon happens again.  A bottleneck that
        has become slower may look the same, and is found out in that while.
Rule 4: a rate without a queue lowers nothing: it says how much was sent, not
        how much could be.

The principle is LEDBAT's (RFC 6817: a delay tells of a queue before a loss
does), with a rate in place of a window: every user may set
SO_MAX_PACING_RATE, but another congestion control only if the administrator
has allowed it.

Pure: numbers in, a number out.
"""

from __future__ import annotations

from collections import deque

# The target: seconds of queuing delay, and more as a share of the path's own round
# trip, because a longer path varies more.
TARGET = 0.015
TARGET_SHARE = 1 / 8
# A delay that is above the target by this share is clearly too long.  Half of that
# counts for nothing, because our own delay is above and below the target in turn.
CLEARLY = 0.25
# Seconds, and round trips, until a change of the rate shows in what is measured.
SHORTEST_STEP = 0.2
LONGEST_STEP = 2.0
ROUND_TRIPS = 2.0
# Steps in which a queue that is too long is to reach the target, and the smallest
# share of the rate for that.
DRAIN = 2.0
SLOWEST = 0.75
# The growth of a step while there is next to no queue, and the samples below the
# target after which it is as fast: the queue may be that of other traffic.
GROWTH = 0.1
SAMPLES_TO_GROWTH = 40
# Samples of which the best tells what the bottleneck takes: one alone may have met a
# loss, or a radio that fell silent.
SAMPLES = 3
# Share of the limit at which it is reached: the sender would send more.  Below, the
# bottleneck is slow, or TCP.
REACHED = 0.95
# Share of an estimate that is left after a sample at which the limit was reached and
# the queue too long: the bottleneck may be a little slower than it was.
FORGET = 0.95
# Share of what bulk had without a limit that it keeps, and share of that estimate that
# is left a second later.
FLOOR = 0.5
FADE = 0.96
# Bytes a second.  Slower, and the hole would not tell in time that it is not.
LEAST = 64 * 1024.0
# Seconds, and more for each second of queuing delay, in which our own queue reaches
# the target.
PATIENCE = 4.0
PATIENCE_WITH_QUEUE = 6.0
LONGEST_QUEUE = 2.0
# Seconds until what was taken for the queue of other traffic is tried again.
RETRY = 5.0
LONGEST_RETRY = 320.0
# Samples in a row without an excess after which earlier tries are forgotten, and the
# seconds of excess that are none.
CALM_SAMPLES = 40
NO_EXCESS = 1.0


class Pacer:
    """Finds the rate at which the queue stays short.

    Attributes:
        limit: Bytes a second; None: whatever TCP gives.
        shortest: The shortest round trip that was seen, in seconds.
    """

    def __init__(self) -> None:
        self.limit: float | None = None
        # What the bottleneck seemed to take, in the last samples.
        self._capacity: deque[float] = deque(maxlen=SAMPLES)
        # What bulk had without a limit, or with one and a short queue.
        self._unlimited = 0.0
        self.shortest = float("inf")
        self._sampled_at = float("-inf")
        # Samples in a row below the target.
        self._below_target = 0
        # Seconds for which the delay was above the target, less those for which it was below; the most that may be.
        self._excess = self._patience = 0.0
        self._calm = 0
        self._retry = RETRY
        self._retry_at = float("-inf")

    def update(self, now: float, round_trip: float, rate: float, *, full: bool, interactive: bool) -> None:
        """Take note of how the hole does; a few times a second.

        Args:
            now: Any steady time in seconds.
            round_trip: Smoothed, in seconds, of the last moments.
            rate: Bytes a second that arrived lately, and were sent in no less time.
            full: The hole takes no more at once.
            interactive: Small messages share it.
        """
        self.shortest = min(self.shortest, round_trip)
        limits = interactive and now >= self._retry_at
        if not limits:
            self.limit = None
        step = min(max(SHORTEST_STEP, ROUND_TRIPS * round_trip), LONGEST_STEP)
        elapsed = now - self._sampled_at
        if full and rate and elapsed >= step:
            self._sampled_at = now
            delay, target = round_trip - self.shortest, TARGET + self.shortest * TARGET_SHARE
            self._sample(rate, delay, target, elapsed)
            if limits:
                self._adjust(delay, target, step)
                self._judge(now, delay, target, min(elapsed, LONGEST_STEP))

    def _sample(self, rate: float, delay: float, target: float, elapsed: float) -> None:
        """Take note of what the bottleneck takes."""
        self._below_target = self._below_target + 1 if delay <= target else 0
        if self.limit is None:
            self._capacity.append(rate)
            self._unlimited = max(*self._capacity, self._unlimited * FADE**elapsed)
            return
        if rate >= self.limit * REACHED:
            rate = max(rate, max(self._capacity) * (FORGET if delay > target * (1 + CLEARLY) else 1))
        self._capacity.append(rate)
        if self._below_target:
            self._unlimited = max(self._unlimited, rate)

    def _adjust(self, delay: float, target: float, step: float) -> None:
        aim = max(self._capacity) * max(1 - (delay - target) / (DRAIN * step), SLOWEST)
        if not self._below_target:
            self.limit = max(aim, self._unlimited * FLOOR, LEAST)
        elif self.limit is not None:
            gain = 1.0 if delay < target / 4 else min(self._below_target / SAMPLES_TO_GROWTH, 1.0) ** 2
            self.limit = max(aim, self.limit * (1 + GROWTH * gain))

    def _judge(self, now: float, delay: float, target: float, elapsed: float) -> None:
        """Give up for a while if the delay is too long for longer than our own would be (rule 3)."""
        share = min(max((delay / target - 1) / CLEARLY - 0.5, -1.0), 1.0)
        patience = PATIENCE + PATIENCE_WITH_QUEUE * min(delay, LONGEST_QUEUE)
        self._patience = max(self._patience, patience) if self._excess else patience
        self._excess = max(self._excess + elapsed * share, 0.0)
        self._calm = self._calm + 1 if self._excess < NO_EXCESS else 0
        if self._calm >= CALM_SAMPLES:
            self._retry = RETRY
        if self._excess > self._patience:
            self.limit, self._excess = None, 0.0
            self._retry_at = now + self._retry
            self._retry = min(2 * self._retry, LONGEST_RETRY)
