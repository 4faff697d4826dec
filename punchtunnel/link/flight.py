"""How much may be under way at once where a relay joins two connections.

    source --> [ our kernel ] --> [ relay: 10 MB and more ] --> [ its kernel ] --> peer
                    a queue in any of them delays every message behind it
           <------------ RECEIVED: position, and when its last byte came -----------

What our kernel knows of the round trip ends at the relay, and the relay takes
whatever the first half carries.  So the frames' own acknowledgments tell of
queues: they say when a byte came by the peer's clock, and the queue is what its
way took longer than the shortest way.  What is wrong with the two clocks is the
same for both.  A queue on the way back is the peer's: its frames make it.

Rule 1: at most `window` bytes are sent and not acknowledged.  With a queue of
        TARGET it would be (round trip - queue + TARGET) / round trip of what it
        is; each round goes half of the way there (FAST TCP, Jin et al. 2004).
Rule 2: a window that was not reached never grows.
Rule 3: while there is next to no queue, the window grows by GAIN each round.
Rule 4: every PROBE_EVERY seconds the queue is let run dry, and the way is then
        the shortest one from now on: the path may have changed, clocks drift, and
        a queue that stays is somebody else's.  The sessions of one machine do so
        at the same time (they have one clock), or each would take the others'
        queue for the path's own.
Rule 5: small messages wait neither for the window nor for rule 7, only for what is
        under way.
Rule 6: frames take a few milliseconds of what the path carries.
Rule 7: bulk goes at little more than the rate at which the peer receives.  The relay
        uses Nagle's algorithm: it sends one acknowledgment in a round trip of this
        half, with all that have come since, and what they admit would be a burst.

This replaces what tempo.py and pacing.py decide by our kernel's round trip: a
relayed hole has no other rule for its speed.  Pure: numbers in, numbers out.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from punchtunnel.link.tempo import Tempo
from punchtunnel.protocol.resume import Journal

# Seconds of queue that keep the path busy while acknowledgments come in lumps.
TARGET = 0.03
# The share of it below which there is next to no queue, and above which there is one.
LITTLE, MUCH = 0.25, 0.5
# Targets of queue that are so far off that a round is not waited for.
FAR = 3.0
# Growth of a round without a queue.  That the window is too large is seen a round trip
# later: twofold would be a whole round trip of queue.
GAIN = 1.5
# The same when the path takes more than it did, and rounds without a queue that tell so.
GAIN_AGAIN = 1.25
CALM_ROUNDS = 3
# The window grows by this share of what is acknowledged: a leap would be a queue by itself.
SHARE = 0.5
# Samples in a row of which the least tells of a queue: one may tell of a late process.
SAMPLES = 4
# Bytes.  An eighth of a second at 1 Mbit/s.
FIRST_WINDOW = 16 * 1024
# Bytes of payload.  More than link.source.SPARSE, so that bulk is not taken for small
# messages; at 1 Mbit/s it takes 37 ms.
SHORTEST_FRAME = 4608
# Below protocol.resume.COPY_BELOW, with all that goes before it: what is kept of a frame is as long as it is, and not
# a whole buffer.
LONGEST_FRAME = 30 * 1024
# Seconds of the path's rate that one frame may take.
FRAME_TIME = 0.005
# Two frames: while one is acknowledged, the next is under way.
LEAST_WINDOW = 2 * SHORTEST_FRAME
# Windows that small messages may fill: a peer that opens streams for ever gets no more.
SPARE = 2
# Bulk is sent at so many times the rate at which the peer receives, and while the window
# grows by GAIN.
PACE, FAST_PACE = 1.25, 2.0
# Rounds of which the best rate counts.
RATES = 4
# Seconds that a timer may be late without a loss of rate.
SLACK = 0.004
# Seconds that a frame waits at most, whatever the peer's clock says.
LONGEST_WAIT = 0.1
# Seconds.
PROBE_EVERY = 10.0
# Share of what fits into the path that is under way while the queue runs dry.
DRAINED = 0.5

_MICROSECONDS = 1e6
_WRAP = 1 << 32
_NEVER = float("inf")


class Sample(NamedTuple):
    """What an acknowledgment tells, in seconds.

    Attributes:
        way: From here to the peer, but for a constant.
        round_trip: Until the acknowledgment came.
    """

    way: float
    round_trip: float


NO_SAMPLE = Sample(_NEVER, _NEVER)


def stamp(at: float) -> int:
    """Return a steady time in seconds as a RECEIVED frame says it."""
    return int(at * _MICROSECONDS) % _WRAP


class Flight:
    """The window of one relayed hole.

    Args:
        journal: Knows how much was sent and acknowledged.
        tempo: Of the hole's outgoing half; from now on it decides nothing by itself.

    Attributes:
        window: Bytes.
        due: When bulk may send its next frame.
    """

    def __init__(self, journal: Journal, tempo: Tempo) -> None:
        self._journal = journal
        self._tempo = tempo
        tempo.next_update, tempo.frame_limit = _NEVER, SHORTEST_FRAME
        # What the window grows to, as something is acknowledged.
        self.window = self._aim = FIRST_WINDOW
        self._acknowledged = journal.acknowledged
        # Positions and when they were sent; the last of them.
        self._under_way: deque[tuple[int, float]] = deque()
        self._sent = journal.sent
        # What the ways are counted from, in microseconds; and the shortest of them.
        self._zero: int | None = None
        self._base = _NEVER
        # The last of this round, and the least of all of them.
        self._samples: deque[Sample] = deque(maxlen=SAMPLES)
        self._least = NO_SAMPLE
        # Where the first and the last acknowledgments of this round were, and when by the peer's clock.
        self._first: tuple[int, float] | None = None
        self._last: deque[tuple[int, float]] = deque(maxlen=SAMPLES)
        # Bytes a second that the peer received, of the last rounds.
        self._rates: deque[float] = deque(maxlen=RATES)
        self.due = 0.0
        self._round_ends = journal.sent
        # A source had to wait in this round.
        self._was_reached = False
        # The window has changed in a leap, and this round's samples tell of the one before.
        self._settles = False
        # What the path takes is not known: the window grows by this.  And rounds without a queue.
        self._searches, self._gain, self._calm = True, GAIN, 0
        # The queue is let run dry; and the window after it.
        self._is_probing, self._usual = False, FIRST_WINDOW
        # Of the clock, in which that was done last.
        self._period: float | None = None

    def admits(self, now: float, *, sparse: bool) -> bool:
        """Tell whether a stream may send its next frame; `sparse`: it sends small messages."""
        under_way = self._journal.sent - self._journal.acknowledged
        if under_way < self.window:
            return sparse or now >= self.due
        self._was_reached = True
        return sparse and under_way < SPARE * self.window

    def sent(self, now: float) -> None:
        """Something may have been sent; then it is in the journal."""
        position = self._journal.sent
        if position > self._sent:
            if self._rates:
                rate = max(self._rates) * (FAST_PACE if self._searches else PACE)
                due = max(self.due, now - SLACK) + (position - self._sent) / rate
                self.due = min(due, now + LONGEST_WAIT)
            self._sent = position
            self._under_way.append((position, now))

    def acknowledged(self, now: float, came_at: int) -> None:
        """Take in an acknowledgment, which the journal knows already.

        Args:
            now: The time.
            came_at: What the RECEIVED frame says: `stamp` of the peer's clock, any number.
        """
        position, under_way, sent_at = self._journal.acknowledged, self._under_way, None
        if self.window < self._aim:
            self.window = min(self.window + int((position - self._acknowledged) * SHARE), self._aim)
        self._acknowledged = position
        while under_way and under_way[0][0] <= position:
            sent_at = under_way.popleft()[1]
        if sent_at is None:
            return
        way = self._way(sent_at, came_at)
        self._last.append((position, sent_at + way))
        self._first = self._first or self._last[0]
        self._take(Sample(way, now - sent_at))
        if position >= self._round_ends:
            rate = _rate(self._first, self._last[-1])
            # Less than what is known tells of the path only if the window was reached.
            if rate and (self._was_reached or rate > max(self._rates, default=_NEVER)):
                self._rates.append(rate)
            self._end_round(now)
        elif not self._settles and len(self._samples) == SAMPLES:
            self._look(_least(*self._samples))

    # ---- samples

    def _way(self, sent_at: float, came_at: int) -> float:
        """Return the seconds of a byte's way, but for a constant."""
        way = came_at - stamp(sent_at)
        if self._zero is None:
            self._zero = way
        return ((way - self._zero + _WRAP // 2) % _WRAP - _WRAP // 2) / _MICROSECONDS

    def _take(self, sample: Sample) -> None:
        self._base = min(self._base, sample.way)
        self._least = _least(self._least, sample)
        self._samples.append(sample)

    def _without_queue(self, sample: Sample) -> float:
        """Return the round trip without our own queue, as a share of what it was."""
        queue = sample.way - self._base
        return max(sample.round_trip - queue, 0.0) / max(sample.round_trip, 1 / _MICROSECONDS)

    def _fitting(self, sample: Sample) -> float:
        """Return the share of the window that would have had a queue of TARGET."""
        return self._without_queue(sample) + TARGET / max(sample.round_trip, 1 / _MICROSECONDS)

    # ---- rounds

    def _begin_round(self) -> None:
        self._round_ends = self._journal.sent
        self._least, self._first = NO_SAMPLE, None
        self._last.clear()
        self._was_reached = False
        self._samples.clear()

    def _settle(self) -> None:
        """Wait until everything is acknowledged that was sent with another window."""
        self._settles = True
        self._begin_round()

    def _end_round(self, now: float) -> None:
        least, period = self._least, now // PROBE_EVERY
        if self._settles:
            # From now on the samples tell of this window.
            self._settles = False
            self._begin_round()
        elif self._is_probing:
            self._is_probing = False
            # What others queue, or the path, has changed: what it takes may have, too.
            self._searches = self._searches or least.way > self._base + TARGET
            self._base, self._aim = least.way, self._usual
            if not self._was_reached:
                # Nothing would fill it at once, and little is acknowledged with which it could grow.
                self.window = self._aim
            self._settle()
        else:
            self._adjust(least)
            self._begin_round()
        self._period = period if self._period is None else self._period
        if period != self._period and not self._is_probing:
            self._period, self._is_probing, self._usual = period, True, self._aim
            self.window = self._aim = max(int(self.window * DRAINED * self._without_queue(least)), 1)
            self._settle()

    # ---- the window

    def _look(self, sample: Sample) -> None:
        """Act on the last samples alone, if they tell enough."""
        queue = sample.way - self._base
        if queue > TARGET * FAR and self.window > LEAST_WINDOW:
            factor = min(self._fitting(sample), 1.0)
            if rate := _rate(self._last[0], self._last[-1]):
                # While there is a queue, it is what the path takes.
                self._rates = deque([rate], maxlen=RATES)
                factor = min(factor, rate * factor * sample.round_trip / self.window)
            self._set(factor)
        elif self._searches and queue > TARGET * MUCH:
            # It may be a burst of the growth alone: the next round tells.
            self._set(1.0)
        else:
            return
        self._searches, self._gain = False, GAIN_AGAIN
        self._settle()

    def _adjust(self, least: Sample) -> None:
        """Fit the window to a round, and the frames."""
        is_calm = self._was_reached and least.way - self._base < TARGET * LITTLE
        self._calm = self._calm + 1 if is_calm else 0
        self._searches = self._searches or self._calm >= CALM_ROUNDS
        factor = self._gain if self._searches else min((1 + self._fitting(least)) / 2, self._gain)
        if self._was_reached or factor < 1:
            self._set(factor)
        limit = int(self.window * FRAME_TIME / max(least.round_trip, FRAME_TIME))
        self._tempo.frame_limit = max(SHORTEST_FRAME, min(limit, LONGEST_FRAME))

    def _set(self, factor: float) -> None:
        self._aim = max(int(self.window * factor), LEAST_WINDOW)
        self.window = min(self.window, self._aim)


def _rate(begin: tuple[int, float], end: tuple[int, float]) -> float:
    """Return the bytes a second between two positions; 0.0 if there is no telling."""
    return (end[0] - begin[0]) / (end[1] - begin[1]) if end[0] > begin[0] and end[1] > begin[1] else 0.0


def _least(*samples: Sample) -> Sample:
    return Sample(min(one.way for one in samples), min(one.round_trip for one in samples))
