"""What may be under way through a relay, over halves that are made up (relayed.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.link import flight
from punchtunnel.link.flight import FIRST_WINDOW, LEAST_WINDOW, SHORTEST_FRAME, SPARE, Flight, stamp
from punchtunnel.link.outgoing import LONGEST_FRAME, PREFIX
from punchtunnel.link.source import SPARSE
from punchtunnel.link.tempo import Tempo
from punchtunnel.protocol.resume import COPY_BELOW, RELAYED_AFTER, Journal

from .relayed import MEGABIT, Clock, Hop, Sender, pair, watch

# Seconds that a small message may wait behind bulk, nearly always.
PATIENCE = 0.1


@pytest.mark.parametrize("half", [0, 1])
@pytest.mark.parametrize(
    ("rate", "round_trip", "share"), [(100, 0.002, 0.95), (10, 0.04, 0.9), (10, 0.001, 0.95), (300, 0.02, 0.9)]
)
def test_a_message_waits_little_and_bulk_fills_the_path(
    rate: float, round_trip: float, share: float, half: int
) -> None:
    rates = [4 * rate, 4 * rate]
    rates[half] = rate
    clock, hops = pair((rates[0], rates[1]), round_trip)
    sender = Sender(clock, hops)
    first = watch(clock, sender, rate * MEGABIT, 3)
    seen = watch(clock, sender, rate * MEGABIT, 30)
    assert max(first.late, seen.late) < PATIENCE
    assert seen.median < 0.06
    assert seen.share > share


@pytest.mark.parametrize("half", [0, 1])
def test_on_a_slow_long_path_a_message_waits_for_a_few_frames(half: int) -> None:
    clock, hops = pair((1, 4) if half == 0 else (4, 1), 0.2)
    sender = Sender(clock, hops)
    clock.run(5)
    seen = watch(clock, sender, MEGABIT, 30)
    assert seen.late < 4 * SHORTEST_FRAME / MEGABIT
    assert seen.share > 0.75


def test_a_fast_long_path_is_filled_in_the_end() -> None:
    clock, hops = pair((100, 400), 0.2)
    sender = Sender(clock, hops)
    clock.run(6)
    seen = watch(clock, sender, 100 * MEGABIT, 30)
    assert seen.late < PATIENCE
    assert seen.share > 0.9


def test_without_a_window_the_relay_keeps_seconds() -> None:
    """What the model is good for: a window that limits nothing."""
    clock, hops = pair((1000, 10), 0.04)
    sender = Sender(clock, hops, window=10_000_000)
    assert watch(clock, sender, 10 * MEGABIT, 20).late > 5


@pytest.mark.parametrize(("before", "after"), [(10, 1), (100, 5), (1, 10), (10, 100)])
def test_a_path_that_gets_slower_or_faster_is_followed(before: float, after: float) -> None:
    clock, hops = pair((before, 1000), 0.04)
    sender = Sender(clock, hops)
    clock.run(10)
    hops[0].rate = after * MEGABIT
    clock.run(6)
    seen = watch(clock, sender, after * MEGABIT, 20)
    assert seen.median < 0.07
    assert seen.share > 0.8


def test_a_path_that_gets_longer_is_no_queue_for_long() -> None:
    clock, hops = pair((10, 1000), 0.04)
    sender = Sender(clock, hops)
    clock.run(10)
    hops[1].delay += 0.2
    clock.run(flight.PROBE_EVERY + 5)
    seen = watch(clock, sender, 10 * MEGABIT, 20)
    assert seen.median < PATIENCE
    assert seen.share > 0.85


@pytest.mark.parametrize(("up", "down", "round_trip"), [(5, 50, 0.1), (10, 10, 0.04), (2, 10, 0.04), (100, 100, 0.002)])
def test_both_directions_are_filled(up: float, down: float, round_trip: float) -> None:
    """A round trip cannot tell in which direction the queue is: one direction took 3 % of its line."""
    clock = Clock()
    there = [Hop(clock, down * MEGABIT, round_trip / 4), Hop(clock, 1000 * MEGABIT, round_trip / 4)]
    back = [Hop(clock, 1000 * MEGABIT, round_trip / 4), Hop(clock, up * MEGABIT, round_trip / 4)]
    one, other = Sender(clock, there, back=back), Sender(clock, back, back=there)
    clock.run(5)
    delivered = other.delivered
    seen = watch(clock, one, down * MEGABIT, 10)
    assert seen.share > 0.7
    assert (other.delivered - delivered) / (10 * up * MEGABIT) > 0.7
    assert seen.late < 2 * PATIENCE


def repeat(clock: Clock, every: float, call: Callable[[], None]) -> None:
    call()
    clock.later(every, lambda: repeat(clock, every, call))


def test_bulk_takes_what_steady_traffic_leaves() -> None:
    clock, hops = pair((10, 1000), 0.04)
    sender = Sender(clock, hops)
    repeat(clock, 1500 / (5 * MEGABIT), lambda: hops[0].send(1500, lambda: None))
    clock.run(5)
    seen = watch(clock, sender, 5 * MEGABIT, 20)
    assert seen.late < PATIENCE
    assert seen.share > 0.9


def test_beside_traffic_that_fills_the_queue_bulk_goes_on() -> None:
    """TCP of somebody else keeps 200 ms of queue: that is no reason to send nothing."""
    clock, hops = pair((10, 1000), 0.04)
    sender = Sender(clock, hops)

    def again() -> None:
        hops[0].send(1500, again)

    for _ in range(int(0.2 * 10 * MEGABIT) // 1500):
        again()
    clock.run(15)
    assert watch(clock, sender, 10 * MEGABIT, 20).share > 0.08


def test_two_sessions_of_one_machine_do_not_take_each_other_for_the_path() -> None:
    """The queue of each became the other's base: it would grow without an end."""
    clock, hops = pair((10, 1000), 0.04)
    sender, other = Sender(clock, hops), Sender(clock, hops)
    clock.run(100)
    delivered = other.delivered
    seen = watch(clock, sender, 10 * MEGABIT, 30)
    assert seen.late < PATIENCE
    assert seen.share + (other.delivered - delivered) / (30 * 10 * MEGABIT) > 0.9


# ---- by hand


class Made:
    """A flight whose clock and acknowledgments the test has."""

    def __init__(self) -> None:
        self.journal, self.tempo = Journal(), Tempo(0.0, LONGEST_FRAME)
        self.flight = Flight(self.journal, self.tempo)

    def send(self, size: int, now: float = 0.0) -> None:
        self.journal.keep(memoryview(bytes(size)))
        self.flight.sent(now)

    def acknowledge(self, position: int, now: float, came_at: int) -> None:
        self.journal.acknowledge(position)
        self.flight.acknowledged(now, came_at)


def test_a_small_message_goes_beyond_the_window_but_not_for_ever() -> None:
    made = Made()
    made.send(FIRST_WINDOW - 1)
    assert made.flight.admits(0.0, sparse=False)
    made.send(1)
    assert not made.flight.admits(0.0, sparse=False)
    assert made.flight.admits(0.0, sparse=True)
    made.send((SPARE - 1) * FIRST_WINDOW)
    assert not made.flight.admits(0.0, sparse=True)


def test_the_kernels_round_trip_decides_nothing_any_more() -> None:
    """It ends at the relay, and pacing.py would fight."""
    assert Made().tempo.next_update == float("inf")


def test_a_frame_is_longer_than_a_message_and_shorter_than_what_keeps_its_buffer() -> None:
    assert SPARSE < RELAYED_AFTER + PREFIX <= SHORTEST_FRAME + PREFIX
    assert flight.LONGEST_FRAME + PREFIX < COPY_BELOW


def test_a_window_that_was_not_reached_does_not_change_for_long() -> None:
    """It shrank with each probe: what small messages acknowledge is too little for it to grow again."""
    made, windows = Made(), []
    for turn in range(100):
        made.send(100, turn)
        made.flight.admits(turn, sparse=True)
        made.acknowledge(made.journal.sent, turn + 0.01, stamp(turn + 0.005))
        windows.append(made.flight.window)
    assert max(windows) == FIRST_WINDOW
    assert windows.count(FIRST_WINDOW) > 70


numbers = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(st.integers(1, 60_000), st.floats(0, 100), st.floats(0, 1), numbers)))
def test_whatever_the_peers_clock_says_bulk_goes_on_soon(said: Sequence[tuple[int, float, float, int]]) -> None:
    made, now = Made(), 1000.0
    for size, pause, share, came_at in said:
        made.send(size, now)
        made.flight.admits(now, sparse=False)
        now += pause
        under_way = made.journal.sent - made.journal.acknowledged
        made.acknowledge(made.journal.acknowledged + int(under_way * share), now, came_at)
        assert made.flight.window > 0
        assert made.flight.due <= now + flight.LONGEST_WAIT
        assert SHORTEST_FRAME <= made.tempo.frame_limit <= flight.LONGEST_FRAME
    # Two rounds later no probe is left.
    for _ in range(8):
        made.send(SHORTEST_FRAME, now)
        now += 0.01
        made.acknowledge(made.journal.sent, now, 0)
    now += flight.LONGEST_WAIT
    assert made.flight.admits(now, sparse=False)


def test_the_least_window_keeps_two_frames_under_way() -> None:
    made = Made()
    now = 0.0
    # Each way is longer than the one before.
    for turn in range(60):
        made.send(SHORTEST_FRAME, now)
        now += 0.1 + turn
        made.acknowledge(made.journal.sent, now, stamp(now))
    assert made.flight.window <= FIRST_WINDOW
    assert LEAST_WINDOW == 2 * SHORTEST_FRAME
