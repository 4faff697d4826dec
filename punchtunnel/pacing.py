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
        If it is not gone in the time that our own would need, the line may
        have become a little slower, and we hold back from what arrives now;
        if it is still there then, it is left alone for a minute, and for
        twice as long each time that it comes to that again.

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
# The growth of a step while there is next to no queue.
GROWTH = 1.1
# Looks of which the best tells what the line takes: one alone may have met a
# loss, or a radio that fell silent.
LOOKS = 3
# Of the limit.  Whoever reaches it would send more; below, the line is slow.
REACHED = 0.95
# What is left of a look while the queue is a little too long: the line may be a
# little slower.
FORGET = 0.99
# Bytes a second.  Slower, and the hole would not tell in time that it is not.
LEAST = 64 * 1024.0
# Steps, and seconds for each second of queue, in which our own queue is gone.
PATIENCE_STEPS = 6
PATIENCE = 6.0
# Seconds until what was taken for somebody else's queue is tried again.
RETRY = 60.0
LONGEST_RETRY = 960.0
# Seconds without too long a queue after which earlier ones are forgotten; somebody
# else's comes and goes more often.
CALM = 10.0


class Pacer:
    """Finds the rate at which the queue stays short; `limit` is in bytes/s, None: whatever TCP gives."""

    def __init__(self) -> None:
        self.limit: float | None = None
        # What the line took, at the last looks.
        self._line: deque[float] = deque(maxlen=LOOKS)
        # The shortest round trip that was seen.
        self._own = float("inf")
        self._next_look = float("-inf")
        # When a queue that is there now must have gone, if it is ours and the line as we think.
        self._deadline: float | None = None
        self._doubted = False
        # When it was there last.
        self._strained_at = float("-inf")
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
        if not company or now < self._retry_at:
            self.limit = self._deadline = None
        if full and rate and now >= self._next_look:
            queue, step = round_trip - self._own, max(SHORTEST_STEP, ROUND_TRIPS * round_trip)
            self._next_look = now + step
            self._look(now, queue, rate)
            if company and now >= self._retry_at:
                self._adjust(now, queue, rate, step)

    @property
    def _accepted(self) -> float:
        return QUEUE + self._own * QUEUE_SHARE

    def _look(self, now: float, queue: float, rate: float) -> None:
        """Take note of what the line takes, and how long it has done so without too long a queue."""
        line = max(self._line, default=0.0)
        if self.limit is not None and rate >= self.limit * REACHED:
            self._line.append(max(rate, line if queue <= self._accepted else line * FORGET))
        else:
            self._line.append(rate)
            if max(self._line) < line:
                # It has become slower: that queue may well be ours.
                self._deadline = None
        if queue > 2 * self._accepted:
            self._strained_at = now
        elif now - self._strained_at > CALM:
            self._doubted, self._retry = False, RETRY

    def _adjust(self, now: float, queue: float, rate: float, step: float) -> None:
        accepted = self._accepted
        if queue <= 2 * accepted:
            self._deadline = None
        elif self._deadline is None:
            self._deadline = now + PATIENCE_STEPS * step + PATIENCE * queue
        elif now > self._deadline:
            self._lose_patience(now, rate)
        if now < self._retry_at or (self.limit is None and queue <= accepted):
            return
        change = GROWTH if queue < accepted / 4 else 1 + (accepted - queue) / (DRAIN * step)
        self.limit = max(max(self._line) * max(change, SLOWEST), LEAST)

    def _lose_patience(self, now: float, rate: float) -> None:
        """A queue did not go in time: first doubt what the line takes, then that the queue is ours (rule 3)."""
        self._deadline = None
        if self._doubted:
            self.limit, self._doubted = None, False
            self._retry_at = now + self._retry
            self._retry = min(2 * self._retry, LONGEST_RETRY)
        else:
            self._doubted = True
            self._line.clear()
            self._line.append(rate)
