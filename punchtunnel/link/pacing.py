"""How fast to send where small messages share the hole with a stream that fills it.

    sender --> [ queue of the slowest line ] --> receiver
                 every message waits behind
                 what bulk has put there

A congestion control that goes by losses, as Linux's usual one, fills that
queue before it slows down.  In front of a home's uplink it is as long as half
a second, and what is lost when it is full comes a round trip later still.

Rule 1: the queue is what the round trip has above the path's own.  While that
        is not short, the hole is paced below what the line takes; while it
        is, faster and faster.
Rule 2: only while small messages share the hole.  Bulk alone takes what TCP
        gives it, against everybody else's bulk too.
Rule 3: a queue that somebody else fills gets no shorter by our holding back.
        So bulk keeps half of what it had without a limit, and a queue that is
        too long for longer than our own would be is left alone for a while,
        and for twice as long if it soon comes to that again.  A line that has
        become slower may look the same, and is found out in that while.
Rule 4: a rate without a queue lowers nothing: it says how much was sent, not
        how much could be.

The principle is LEDBAT's (RFC 6817: the delay tells of a queue before a loss
does), with a rate instead of a window: SO_MAX_PACING_RATE is for every user,
another congestion control only for those that the administrator has allowed.

Pure: numbers in, a number out.
"""

from __future__ import annotations

from collections import deque

# Seconds of queue that are short, and as a share of the path's own round trip: a
# longer path varies more.
SHORT = 0.015
SHORT_SHARE = 1 / 8
# By this share longer: too long.  Half of that counts for nothing, because our own
# is on either side of what is short in turn.
CLEARLY = 0.25
# Seconds, and round trips, until a change of the rate shows in what is measured.
SHORTEST_STEP = 0.2
LONGEST_STEP = 2.0
ROUND_TRIPS = 2.0
# Steps in which a queue that is too long is to be short, and the smallest share of
# the rate for that.
DRAIN = 2.0
SLOWEST = 0.75
# The growth of a step while there is next to no queue, and the looks at a short one
# after which it is as fast: the queue may be somebody else's.
GROWTH = 0.1
LOOKS_TO_GROWTH = 40
# Looks of which the best tells what the line takes: one alone may have met a
# loss, or a radio that fell silent.
LOOKS = 3
# Of the limit.  Whoever reaches it would send more; below, it is the line that is
# slow, or TCP.
REACHED = 0.95
# What is left of a look at which the limit was reached and the queue too long: the
# line may be a little slower than it was.
FORGET = 0.95
# Of what bulk had without a limit, and what is left of that a second later.
FLOOR = 0.5
FADE = 0.96
# Bytes a second.  Slower, and the hole would not tell in time that it is not.
LEAST = 64 * 1024.0
# Seconds, and more for each second of queue, in which our own is short.
PATIENCE = 4.0
PATIENCE_WITH_QUEUE = 6.0
LONGEST_QUEUE = 2.0
# Seconds until what was taken for somebody else's queue is tried again.
RETRY = 5.0
LONGEST_RETRY = 320.0
# Looks in a row without strain after which earlier tries are forgotten, and the
# seconds of strain that are none.
CALM = 40
NO_STRAIN = 1.0


class Pacer:
    """Finds the rate at which the queue stays short; `limit` is in bytes/s, None: whatever TCP gives."""

    def __init__(self) -> None:
        self.limit: float | None = None
        # What the line seemed to take, at the last looks.
        self._line: deque[float] = deque(maxlen=LOOKS)
        # What bulk had without a limit, or with one and a short queue.
        self._free = 0.0
        # The shortest round trip that was seen.
        self._own = float("inf")
        self._looked_at = float("-inf")
        # Looks in a row at a short queue.
        self._short = 0
        # Seconds for which the queue was too long, less those for which it was short; the most that there may be.
        self._strain = self._patience = 0.0
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
        self._own = min(self._own, round_trip)
        holds = interactive and now >= self._retry_at
        if not holds:
            self.limit = None
        step = min(max(SHORTEST_STEP, ROUND_TRIPS * round_trip), LONGEST_STEP)
        elapsed = now - self._looked_at
        if full and rate and elapsed >= step:
            self._looked_at = now
            queue, short = round_trip - self._own, SHORT + self._own * SHORT_SHARE
            self._look(rate, queue, short, elapsed)
            if holds:
                self._adjust(queue, short, step)
                self._judge(now, queue, short, min(elapsed, LONGEST_STEP))

    def _look(self, rate: float, queue: float, short: float, elapsed: float) -> None:
        """Take note of what the line takes."""
        self._short = self._short + 1 if queue <= short else 0
        if self.limit is None:
            self._line.append(rate)
            self._free = max(*self._line, self._free * FADE**elapsed)
            return
        if rate >= self.limit * REACHED:
            rate = max(rate, max(self._line) * (FORGET if queue > short * (1 + CLEARLY) else 1))
        self._line.append(rate)
        if self._short:
            self._free = max(self._free, rate)

    def _adjust(self, queue: float, short: float, step: float) -> None:
        aim = max(self._line) * max(1 - (queue - short) / (DRAIN * step), SLOWEST)
        if not self._short:
            self.limit = max(aim, self._free * FLOOR, LEAST)
        elif self.limit is not None:
            haste = 1.0 if queue < short / 4 else min(self._short / LOOKS_TO_GROWTH, 1.0) ** 2
            self.limit = max(aim, self.limit * (1 + GROWTH * haste))

    def _judge(self, now: float, queue: float, short: float, elapsed: float) -> None:
        """Give up for a while if the queue is too long for longer than our own would be (rule 3)."""
        share = min(max((queue / short - 1) / CLEARLY - 0.5, -1.0), 1.0)
        patience = PATIENCE + PATIENCE_WITH_QUEUE * min(queue, LONGEST_QUEUE)
        self._patience = max(self._patience, patience) if self._strain else patience
        self._strain = max(self._strain + elapsed * share, 0.0)
        self._calm = self._calm + 1 if self._strain < NO_STRAIN else 0
        if self._calm >= CALM:
            self._retry = RETRY
        if self._strain > self._patience:
            self.limit, self._strain = None, 0.0
            self._retry_at = now + self._retry
            self._retry = min(2 * self._retry, LONGEST_RETRY)
