"""How long frames are, how much waits in the kernel, and when the rate is limited: numbers in, numbers out."""

from __future__ import annotations

import pytest

from punchtunnel.link.outgoing import LONGEST_FRAME
from punchtunnel.link.tempo import (
    FIRST_FRAME,
    FIRST_UNSENT,
    FRAME_TIME,
    INTERACTIVE_TIME,
    INTERVAL,
    INTERVALS,
    LONGEST_INTERVAL,
    MIN_SAMPLES,
    SHORTEST_FRAME,
    UNSENT_FRAMES,
    Tempo,
)
from punchtunnel.system.tcp import Progress


class Hole:
    """A hole that takes `rate` bytes a second, and what its tempo makes of that."""

    def __init__(self, longest_frame: int = LONGEST_FRAME) -> None:
        self.now = 100.0
        self.tempo = Tempo(self.now, longest_frame)

    def take(
        self,
        rate: float,
        *,
        seconds: float = INTERVAL,
        times: int = 1,
        filled: bool = True,
        waited: bool = True,
        progress: Progress | None = None,
    ) -> None:
        for _ in range(times):
            self.now += seconds
            sent = int(rate * seconds)
            self.tempo.update(self.now, sent, filled=filled, waited=waited, progress=progress)


def test_nothing_is_decided_before_something_is_known() -> None:
    tempo = Hole().tempo
    assert (tempo.frame_limit, tempo.unsent_limit, tempo.rate_limit) == (FIRST_FRAME, FIRST_UNSENT, None)


def test_an_update_is_due_after_an_interval() -> None:
    hole = Hole()
    assert hole.tempo.next_update == hole.now + INTERVAL
    hole.take(1e6)
    assert hole.tempo.next_update == hole.now + INTERVAL


@pytest.mark.parametrize("longest", [LONGEST_FRAME, 900_000])
def test_frames_of_a_fast_hole_are_as_long_as_they_may_be(longest: int) -> None:
    hole = Hole(longest)
    hole.take(1e9, filled=False)
    assert hole.tempo.frame_limit == longest


def test_a_frame_takes_so_many_seconds_of_a_slow_hole_once_that_is_known() -> None:
    hole, rate = Hole(), 4e6
    hole.take(rate, times=INTERVALS - 1)
    assert hole.tempo.frame_limit == FIRST_FRAME, "it may have begun slowly"
    hole.take(rate)
    assert hole.tempo.frame_limit == pytest.approx(rate * FRAME_TIME, abs=1)


def test_frames_have_a_least_length() -> None:
    hole = Hole()
    hole.take(1000.0, times=INTERVALS)
    assert hole.tempo.frame_limit == SHORTEST_FRAME


def test_the_best_interval_counts_and_is_forgotten() -> None:
    hole = Hole()
    hole.take(20e6)
    hole.take(4e6, times=INTERVALS - 1)
    assert hole.tempo.frame_limit == pytest.approx(20e6 * FRAME_TIME, abs=1)
    hole.take(4e6)
    assert hole.tempo.frame_limit == pytest.approx(4e6 * FRAME_TIME, abs=1)


def test_a_rate_that_the_hole_was_not_asked_for_shortens_nothing() -> None:
    hole = Hole()
    hole.take(1000.0, times=2 * INTERVALS, filled=False)
    assert hole.tempo.frame_limit == FIRST_FRAME


@pytest.mark.parametrize("waited", [True, False])
def test_a_long_interval_counts_only_if_the_hole_was_full_to_its_end(waited: bool) -> None:
    hole = Hole()
    hole.take(1000.0, seconds=LONGEST_INTERVAL, times=INTERVALS, waited=waited)
    assert hole.tempo.frame_limit == (SHORTEST_FRAME if waited else FIRST_FRAME)


def test_the_unsent_limit_is_some_frames_and_stays_for_small_changes() -> None:
    hole = Hole()
    hole.take(1000.0)
    assert hole.tempo.unsent_limit == UNSENT_FRAMES * FIRST_FRAME
    hole.take(1.5 * FIRST_FRAME / FRAME_TIME, filled=False)
    assert hole.tempo.frame_limit == pytest.approx(1.5 * FIRST_FRAME, abs=1)
    assert hole.tempo.unsent_limit == UNSENT_FRAMES * FIRST_FRAME
    hole.take(2 * FIRST_FRAME / FRAME_TIME, filled=False)
    assert hole.tempo.unsent_limit == pytest.approx(UNSENT_FRAMES * 2 * FIRST_FRAME, abs=UNSENT_FRAMES)


def queued(hole: Hole, samples: int = MIN_SAMPLES) -> None:
    """Let a path of 40 ms have a queue of 100 ms for a while."""
    hole.take(1e6, times=4, progress=Progress(0.04, 1e6, samples))
    hole.take(1e6, times=4, progress=Progress(0.14, 1e6, samples))


def test_the_rate_is_limited_while_small_messages_share_the_hole() -> None:
    hole = Hole()
    limits = []
    queued(hole)
    limits.append(hole.tempo.rate_limit)
    hole.tempo.interactive_at = hole.now
    queued(hole)
    limits.append(hole.tempo.rate_limit)
    # Nobody has sent a small message for a long time.
    hole.take(1e6, seconds=INTERACTIVE_TIME, progress=Progress(0.14, 1e6, MIN_SAMPLES))
    limits.append(hole.tempo.rate_limit)
    before, limit, after = limits
    assert before is None
    assert limit is not None
    assert 0.5e6 < limit < 1e6
    assert after is None


def test_a_round_trip_of_few_measurements_is_not_believed() -> None:
    hole = Hole()
    hole.tempo.interactive_at = hole.now
    queued(hole, MIN_SAMPLES - 1)
    assert hole.tempo.rate_limit is None
    assert hole.tempo.round_trip is None


def test_the_path_has_the_shortest_round_trip_without_a_queue() -> None:
    hole = Hole()
    queued(hole)
    assert hole.tempo.round_trip == 0.04


def test_without_a_kernel_that_tells_no_rate_is_limited() -> None:
    hole = Hole()
    hole.tempo.interactive_at = hole.now
    hole.take(1e6, times=20)
    assert hole.tempo.rate_limit is None
