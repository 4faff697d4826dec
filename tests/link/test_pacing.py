"""The rate at which small messages do not wait behind bulk, over lines that are made up."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from punchtunnel.link.pacing import FLOOR, LEAST, LONGEST_RETRY, RETRY, SAMPLES, TARGET, TARGET_SHARE, Pacer
from punchtunnel.link.tempo import INTERACTIVE_TIME

# Seconds of the model, and between two looks at it.
TICK = 0.01
LOOK = 0.25
# Bytes a second of 100 Mbit/s.
CAPACITY = 12.5e6


def nobody(now: float) -> float:
    """Somebody else's queue where there is nobody else."""
    return 0.0


def as_it_is(rate: float, round_trip: float) -> tuple[float, float]:
    """A rate and a round trip, measured without error."""
    return rate, round_trip


@dataclass
class Line:
    """A slow line with a queue, and bulk that goes as fast as the pacer lets it.

    Attributes:
        own: The round trip without a queue, in seconds.
        longest: The most that the queue takes, in seconds.
        capacity: Bytes a second.
        others: Seconds of queue that somebody else's bulk keeps there, at a
            time; it then has half of the line, and what we leave.
        measured: What a rate and a round trip look like to the sender.
    """

    own: float = 0.04
    longest: float = 0.5
    capacity: float = CAPACITY
    others: Callable[[float], float] = nobody
    measured: Callable[[float, float], tuple[float, float]] = as_it_is
    queue: float = 0.0
    now: float = 1000.0
    next_look: float = 0.0
    pacer: Pacer = field(default_factory=Pacer)
    # What the sender will see, a round trip later: when, rate, round trip.
    seen: deque[tuple[float, float, float]] = field(default_factory=deque)
    limits: list[float | None] = field(default_factory=list)

    @property
    def target(self) -> float:
        """The queuing delay that is aimed at, in seconds."""
        return TARGET + self.own * TARGET_SHARE

    @property
    def held_back(self) -> float:
        """The seconds for which there was a limit."""
        return sum(limit is not None for limit in self.limits) * LOOK

    def run(self, seconds: float, *, interactive: bool = True, full: bool = True) -> tuple[float, float]:
        """Return the mean rate as a share of what is ours, and the longest queue."""
        steps = [self._step(interactive, full) for _ in range(round(seconds / TICK))]
        return sum(rate for rate, _ in steps) / len(steps), max(queue for _, queue in steps)

    def _step(self, interactive: bool, full: bool) -> tuple[float, float]:
        others = self.others(self.now)
        ours = self.capacity / 2 if others else self.capacity
        sent = (self.pacer.limit or 2 * self.capacity) if full else 1000.0
        arrived = min(ours, sent) if others or not self.queue else ours
        if not others:
            self.queue = min(max(self.queue + (sent / ours - 1) * TICK, 0.0), self.longest)
        round_trip = self.own + self.queue + others
        # As tcp_rate.c has it: by the longer of the times that sending and arriving took.
        self.seen.append((self.now + round_trip, *self.measured(min(sent, arrived), round_trip)))
        self.now += TICK
        while len(self.seen) > 1 and self.seen[1][0] <= self.now:
            self.seen.popleft()
        if self.now >= self.next_look:
            self.next_look = self.now + LOOK
            _, rate, round_trip = self.seen[0]
            self.pacer.update(self.now, round_trip, rate, full=full, interactive=interactive)
            self.limits.append(self.pacer.limit)
        return arrived / ours, self.queue


def line_at_rest(own: float = 0.04, longest: float = 0.5) -> Line:
    """Return a line over which little has gone for a second."""
    line = Line(own, longest)
    line.run(1, full=False)
    return line


def shared_line(own: float = 0.04, longest: float = 0.5) -> Line:
    """Return a line that bulk and small messages have shared for a while."""
    line = line_at_rest(own, longest)
    line.run(12)
    assert line.pacer.limit is not None
    return line


def test_bulk_alone_is_never_held_back() -> None:
    line = line_at_rest()
    assert line.run(20, interactive=False) == (1, line.longest)
    assert not line.held_back


@pytest.mark.parametrize("own", [0.001, 0.04, 0.3])
@pytest.mark.parametrize("longest", [0.1, 0.5, 2])
def test_a_message_does_not_wait_behind_bulk(own: float, longest: float) -> None:
    line = line_at_rest(own, longest)
    _, before = line.run(2 + longest, interactive=False)
    assert before == longest
    # To empty the queue, and to find the rate.
    line.run(6 * longest + 40 * own + 2)
    rate, queue = line.run(30)
    assert queue < 1.5 * line.target
    assert rate > 0.98


def test_bulk_goes_on_as_before_when_the_small_messages_have_gone() -> None:
    line = shared_line()
    line.run(2 * LOOK, interactive=False)
    assert line.pacer.limit is None


def test_a_short_pause_of_bulk_does_not_bring_the_queue_back() -> None:
    line = shared_line()
    for _ in range(5):
        line.run(0.6, full=False)
        _, queue = line.run(2)
        assert queue < 2 * line.target


@pytest.mark.parametrize("change", [0.25, 0.6, 0.85, 0.95, 1.05, 1.3, 4])
def test_the_rate_follows_the_line(change: float) -> None:
    line = shared_line()
    line.capacity *= change
    line.run(60)
    rate, queue = line.run(20)
    assert rate > 0.98
    assert queue < 1.5 * line.target


@pytest.mark.parametrize("change", [0.6, 0.95, 1.05, 1.3, 4])
def test_it_follows_without_giving_up(change: float) -> None:
    line = shared_line()
    line.limits.clear()
    line.capacity *= change
    line.run(10)
    rate, queue = line.run(20)
    assert None not in line.limits
    assert rate > 0.98
    assert queue < 1.5 * line.target


def test_a_line_that_gets_much_faster_is_used_soon() -> None:
    line = shared_line()
    line.capacity *= 4
    rate, _ = line.run(10)
    assert rate > 0.75


def test_a_hole_that_is_not_full_says_nothing_of_the_line() -> None:
    line = shared_line()
    before = line.pacer.limit
    line.run(20, full=False)
    assert line.pacer.limit == before


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_one_rate_that_is_wrong_changes_nothing(share: float) -> None:
    line = shared_line()
    before = line.pacer.limit
    line.measured = lambda rate, round_trip: (rate * share, round_trip)
    line.run(LOOK)
    line.measured = as_it_is
    rate, queue = line.run(5)
    assert line.pacer.limit == pytest.approx(before, rel=0.05)
    assert rate > 0.98
    assert queue < 1.5 * line.target


def test_a_rate_without_a_queue_lowers_no_limit() -> None:
    """It says how much was sent: TCP starts slowly again after a pause."""
    line = shared_line()
    before = line.pacer.limit
    line.run(1, full=False)
    line.measured = lambda rate, round_trip: (rate / 10, 0.04)
    line.run(2)
    assert line.pacer.limit is not None
    assert before is not None
    assert line.pacer.limit >= before


@pytest.mark.parametrize("low", [0.6, 0.8, 0.9])
def test_rates_that_vary_cost_little(low: float) -> None:
    rng = random.Random(1)
    line = line_at_rest()
    line.measured = lambda rate, round_trip: (rate * rng.uniform(low, 1), round_trip)
    rate, _ = line.run(240)
    assert rate > 0.94


@pytest.mark.parametrize("jitter", [0.01, 0.03, 0.05, 0.1, 0.2])
def test_round_trips_that_vary_cost_little(jitter: float) -> None:
    rng = random.Random(1)
    line = line_at_rest()
    line.measured = lambda rate, round_trip: (rate, round_trip + rng.uniform(0, jitter))
    rate, _ = line.run(240)
    assert rate > 0.94


@pytest.mark.parametrize("more", [0.01, 0.02, 0.025, 0.03, 0.04, 0.06, 0.1])
def test_a_round_trip_that_has_become_longer_costs_little(more: float) -> None:
    """By another route, or a radio that is slower under load: no queue of ours, and it never goes."""
    line = line_at_rest()
    line.measured = lambda rate, round_trip: (rate, round_trip + more)
    rate, _ = line.run(300)
    assert rate > 0.94


@pytest.mark.parametrize(
    ("low", "high", "period"),
    [
        *((0.02, 0.02, 1), (0.03, 0.03, 1), (0.2, 0.2, 1), (0.14, 0.2, 5), (0.05, 0.2, 8)),
        *((0, 0.1, 5), (0, 0.04, 2), (0, 0.04, 10), (0, 0.3, 60), (0.015, 0.06, 1), (0.02, 0.1, 1)),
    ],
)
def test_somebody_elses_queue_is_not_fought(low: float, high: float, period: float) -> None:
    """Held back for ever, bulk would get less and less while the queue stays, or comes again and again."""
    line = line_at_rest()
    line.others = lambda now: low + (high - low) * (now % period) / period + 1e-9
    rate, _ = line.run(600)
    assert rate > 0.96


@pytest.mark.parametrize("low", [0.6, 0.9])
def test_nor_is_it_where_rates_vary(low: float) -> None:
    rng = random.Random(1)
    line = line_at_rest()
    line.others = lambda now: 0.2
    line.measured = lambda rate, round_trip: (rate * rng.uniform(low, 1), round_trip)
    rates = [line.run(60)[0] for _ in range(10)]
    assert sum(rates) / len(rates) > 0.94
    assert min(rates) > FLOOR


def test_bulk_keeps_half_of_what_it_had() -> None:
    line = line_at_rest()
    line.others = lambda now: 0.2
    line.run(120)
    assert min(limit for limit in line.limits if limit is not None) >= FLOOR * line.capacity / 2


@pytest.mark.parametrize("grown", [False, True])
def test_bulk_keeps_half_also_where_every_rate_is_lower_than_the_last(grown: bool) -> None:
    pacer, now, rate = Pacer(), 0.0, 1e6
    if grown:
        # With a limit from a time when the line was slow.
        pacer.update(now, 0.04, 1e5, full=True, interactive=True)
        pacer.update(now + 1, 0.08, 1e5, full=True, interactive=True)
        while (pacer.limit or 0) < rate:
            now += 1
            pacer.update(now + 1, 0.04, pacer.limit or 0, full=True, interactive=True)
    else:
        pacer.update(now, 0.04, rate, full=True, interactive=True)
    limits = []
    for step in range(8):
        pacer.update(now + 2 + step * 0.3, 0.1, rate, full=True, interactive=True)
        limits.append(pacer.limit)
        rate = (pacer.limit or 0) / 2
    assert limits[0] is not None
    assert limits[-1] == pytest.approx(FLOOR * 1e6, rel=0.15)


def test_what_was_left_alone_is_tried_again_later_and_later() -> None:
    line = line_at_rest()
    line.others = lambda now: 0.2
    begins = []
    for _ in range(round(4 * LONGEST_RETRY)):
        before = line.pacer.limit
        line.run(1)
        if before is None and line.pacer.limit is not None:
            begins.append(line.now)
    pauses = [later - earlier for earlier, later in itertools.pairwise(begins)]
    assert len(pauses) >= 8
    assert all(later > 1.2 * earlier for earlier, later in itertools.pairwise(pauses[:7]))
    assert pauses[7] == pytest.approx(LONGEST_RETRY, rel=0.1)


def test_after_somebody_else_has_gone_the_queue_is_ours_again() -> None:
    line = line_at_rest()
    line.others = lambda now: 0.2
    line.run(60)
    line.others, line.queue = nobody, 0.2
    line.run(2 * line.pacer._retry)
    _, queue = line.run(30)
    assert queue < 1.5 * line.target
    assert line.pacer._retry == RETRY


def test_small_messages_that_come_and_go_leave_nothing_behind() -> None:
    line = line_at_rest()
    for _ in range(20):
        line.run(INTERACTIVE_TIME + 1)
        line.run(3, interactive=False)
        assert line.pacer.limit is None
    line.run(6)
    rate, queue = line.run(30)
    assert queue < 1.5 * line.target
    assert rate > 0.98


@pytest.mark.parametrize("more", [0, 0.008, 0.016, 0.019, 0.024])
@pytest.mark.parametrize("share", [0.94, 1])
def test_a_line_that_was_slow_for_a_moment_is_used_again(more: float, share: float) -> None:
    """Also where the path has become longer meanwhile, and the rate looks smaller than it is."""
    line = line_at_rest()
    line.measured = lambda rate, round_trip: (rate * share, round_trip + more)
    line.run(10)
    line.capacity /= 50
    line.run(8)
    line.capacity *= 50
    line.run(30)
    rates = [line.run(30)[0] for _ in range(5)]
    assert min(rates) > 0.75


def test_small_messages_again_and_again_do_not_make_somebody_elses_queue_ours() -> None:
    line = line_at_rest()
    line.others = lambda now: 1.5
    rates = []
    for _ in range(30):
        rates += [line.run(10)[0], line.run(2, interactive=False)[0]]
    assert min(rates) > FLOOR
    assert sum(rates) / len(rates) > 0.95


@pytest.mark.parametrize(("seconds", "span", "least"), [(3, 2 * LOOK, 0.9), (20, 2 * LOOK, 0.9), (20, 3, 0.8)])
def test_a_round_trip_that_took_very_long_once_is_forgotten(seconds: float, span: float, least: float) -> None:
    line = line_at_rest()
    line.others = lambda now: 0.05
    line.run(3)
    line.measured = lambda rate, round_trip: (rate, round_trip + seconds)
    line.run(span)
    line.measured = as_it_is
    rates = [line.run(30)[0] for _ in range(10)]
    assert min(rates) > least


def test_a_pause_is_no_time_with_too_long_a_queue() -> None:
    pacer = Pacer()
    for now, round_trip in ((0.0, 0.04), (1.0, 0.1), (101.0, 0.1)):
        pacer.update(now, round_trip, 1e6, full=True, interactive=True)
    assert pacer.limit is not None


def test_a_line_that_is_slower_than_the_least_is_left_alone() -> None:
    line = line_at_rest()
    line.capacity = LEAST / 4
    line.run(120)
    assert min(limit for limit in line.limits if limit is not None) == LEAST
    assert line.pacer.limit is None


def test_a_rate_that_is_not_known_is_no_limit() -> None:
    pacer = Pacer()
    pacer.update(1.0, 0.04, 0.0, full=False, interactive=False)
    for step in range(2 * SAMPLES):
        pacer.update(2.0 + step, 0.2, 0.0, full=True, interactive=True)
    assert pacer.limit is None
