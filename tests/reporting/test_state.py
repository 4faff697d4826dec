"""A run as its events tell it: no clock, no terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from punchtunnel.reporting.events import RoundTrip
from punchtunnel.reporting.state import RATE_SPAN

from .runs import HOLE, MIB, SEALED, punching, told, traffic


def test_rates_are_of_the_last_seconds_and_averages_of_all() -> None:
    state = told(HOLE, *(traffic(float(second), second * MIB, 0) for second in range(100)))
    assert (state.inward.rate, state.inward.average) == (MIB, MIB)
    for second in range(100, 110):
        state.take(traffic(float(second), 99 * MIB, 10 * MIB))
    assert state.inward.rate == 0.0
    assert state.inward.average == pytest.approx(99 * MIB / 109)
    assert state.outward.average == pytest.approx(10 * MIB / 109)


@pytest.mark.parametrize("step", [0.5, RATE_SPAN, 10.0])
def test_a_rate_is_right_however_seldom_it_is_asked_for(step: float) -> None:
    state = told(HOLE, *(traffic(count * step, int(count * step * 1000), 0) for count in range(20)))
    assert state.inward.rate == pytest.approx(1000)


def test_nothing_is_divided_by_no_time() -> None:
    state = told(HOLE, traffic(0.0, 5, 5), traffic(0.0, 5, 5))
    assert (state.inward.rate, state.inward.average, state.inward.seconds_left) == (0.0, 0.0, None)


def test_the_round_trip_is_the_smallest_that_was_seen() -> None:
    """The first ping of a peer that was still loading its loop read 127 ms on loopback."""
    state = told(HOLE, RoundTrip(0.127))
    assert state.rtt_s == 0.0241
    state.take(RoundTrip(0.02))
    assert state.rtt_s == 0.02


def test_another_hole_begins_from_nothing() -> None:
    state = told(*punching(3.0), HOLE, SEALED, traffic(5.0, 7, 8, streams=3), RoundTrip(0.001))
    state.take(replace(HOLE, rtt_s=None))
    fresh = told(*punching(3.0), replace(HOLE, rtt_s=None))
    assert state == fresh
    assert (state.sealed, state.rtt_s, state.streams, state.inward.size) == (False, None, 0, 0)
