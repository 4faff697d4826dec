"""When a relay is asked again: the table, and how long each state lasts."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.reach import joining
from punchtunnel.reach.joining import STEPS, Event, Joining, State


class Longest(Random):
    """Draws the longest of all pauses."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


class Place:
    """Joins at one relay, with a clock."""

    def __init__(self, rng: Random | None = None) -> None:
        self.now = 1000.0
        self.joining = Joining(self.now, rng or Longest())

    def happens(self, *events: Event) -> float:
        """Return how long the state lasts that follows."""
        for event in events:
            if event is Event.DUE:
                self.now = self.joining.until
            self.joining.happens(event, self.now)
        return self.joining.until - self.now


CONNECTED = (Event.DUE, Event.CONNECTED)
MET = (*CONNECTED, Event.MET, Event.TAKEN)


def test_the_first_connection_is_due_at_once() -> None:
    place = Place()
    assert (place.joining.state, place.joining.until) == (State.RESTING, place.now)


def test_a_connection_that_waits_is_replaced_at_once_every_ten_minutes() -> None:
    place = Place()
    for _ in range(20):
        assert place.happens(*CONNECTED) == 600.0
        assert place.happens(Event.DUE) == 0.0


def test_a_relay_that_cannot_be_reached_is_dialled_after_pauses_that_double_up_to_a_minute() -> None:
    place = Place()
    assert [place.happens(Event.DUE, Event.FAILED) for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert [place.happens(Event.DUE, Event.FAILED) for _ in range(2000)][-1] == 60


def test_pauses_are_spread() -> None:
    pauses = {round(Place(Random(seed)).happens(Event.DUE, Event.FAILED), 6) for seed in range(20)}
    assert len(pauses) == 20
    assert all(0.75 <= pause <= 1.0 for pause in pauses)


def test_a_connection_that_ends_is_replaced_at_once_and_the_next_ones_after_pauses_that_double() -> None:
    place = Place()
    assert [place.happens(*CONNECTED, Event.ENDED) for _ in range(5)] == [0, 1, 2, 4, 8]


def test_a_connection_that_has_waited_for_a_minute_makes_failures_forgotten() -> None:
    place = Place()
    for _ in range(5):
        place.happens(Event.DUE, Event.FAILED)
    place.happens(*CONNECTED)
    place.now += joining.SETTLED
    assert place.happens(Event.ENDED) == 0.0
    assert place.happens(Event.DUE, Event.FAILED) == 2.0


def test_a_relay_that_refuses_is_asked_after_pauses_that_double() -> None:
    place = Place()
    assert [place.happens(*CONNECTED, Event.FAILED) for _ in range(4)] == [1, 2, 4, 8]


def test_after_a_useless_meeting_the_pause_is_short_and_random() -> None:
    pauses = [Place(Random(seed)).happens(*MET, Event.AGAIN) for seed in range(50)]
    assert all(0.2 <= pause <= 2.0 for pause in pauses)
    assert max(pauses) - min(pauses) > 1.0


def test_many_useless_meetings_in_a_row_cost_pauses_that_double() -> None:
    """They would otherwise let a stranger with the token have a try every second."""
    place = Place()
    assert [place.happens(*MET, Event.AGAIN) for _ in range(12)] == [2, 2, 2, 2, 2, 4, 8, 16, 32, 60, 60, 60]
    assert place.happens(*MET, Event.ANEW) == 0.0
    assert place.happens(*MET, Event.AGAIN) == 2


def test_what_nobody_takes_is_of_no_use_after_five_seconds() -> None:
    place = Place()
    assert place.happens(*CONNECTED, Event.MET) == 5.0
    assert place.happens(Event.DUE) == 2.0


def test_what_is_taken_lasts_until_somebody_says_so() -> None:
    assert Place().happens(*MET) == float("inf")


@pytest.mark.parametrize("state", State)
def test_each_state_can_be_left_and_entered(state: State) -> None:
    assert [event for before, event in STEPS if before is state]
    assert state in STEPS.values()


@given(st.data(), st.randoms(use_true_random=False))
def test_whatever_happens_no_pause_is_longer_than_a_minute(data: st.DataObject, rng: Random) -> None:
    place = Place(rng)
    for _ in range(data.draw(st.integers(0, 40))):
        before = place.joining.state
        lasts = place.happens(data.draw(st.sampled_from([event for state, event in STEPS if state is before])))
        assert place.joining.state is not State.RESTING or 0 <= lasts <= 60
