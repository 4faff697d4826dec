"""Two sides part: nobody takes for delivered what may be lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.protocol.goodbye import TRANSITIONS, Parting, State, Word


def test_leader_closes_when_its_goodbye_was_read() -> None:
    leader = Parting(leads=True)
    leader.say(ping=7)
    assert leader.hear(0)
    assert leader.state is State.PARTED
    assert not leader.may_close
    leader.pong(7)
    assert leader.may_close


def test_answer_to_an_earlier_ping_proves_nothing() -> None:
    leader = Parting(leads=True)
    leader.pong(7)
    leader.say(ping=8)
    leader.hear(0)
    leader.pong(7)
    assert not leader.may_close


def test_follower_never_closes_first() -> None:
    follower = Parting(leads=False)
    follower.say(ping=1)
    follower.hear(0)
    follower.pong(1)
    assert follower.state is State.PARTED
    assert not follower.may_close


def test_only_the_first_goodbye_counts() -> None:
    side = Parting(leads=True)
    assert side.hear(3)
    assert not side.hear(0)
    assert side.heard == 3


@pytest.mark.parametrize("resumes", [True, False])
def test_a_follower_whose_goodbye_may_be_lost_with_the_hole_waits_for_the_next_one(resumes: bool) -> None:
    """It ended with 0, and the leader looked for it for a minute and ended with 1."""
    follower = Parting(leads=False, resumes=resumes)
    follower.hear(0)
    follower.say(ping=1)
    assert follower.is_over is not resumes
    follower.pong(1)
    assert follower.is_over


EVENTS = st.sampled_from(["say", "hear", "pong", "old pong"])


@given(leads=st.booleans(), events=st.lists(EVENTS, max_size=8))
def test_nobody_closes_before_both_have_spoken_and_the_own_word_was_read(leads: bool, events: list[str]) -> None:
    side = Parting(leads)
    happened: list[str] = []
    for event in events:
        if event == "say" and side.said:
            continue
        match event:
            case "say":
                side.say(ping=2)
            case "hear":
                side.hear(0)
            case "pong":
                side.pong(2)
            case _:
                side.pong(1)
        happened.append(event)
    read = "say" in happened and "pong" in happened[happened.index("say") :]
    assert (side.state is State.PARTED) == ({"say", "hear"} <= set(happened))
    assert side.may_close == (leads and side.state is State.PARTED and read)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("word", Word)
def test_no_word_is_taken_back(state: State, word: Word) -> None:
    """Each state tells who has spoken, and each word adds to that."""
    spoken = {
        State.OPEN: set[Word](),
        State.LEAVING: set[Word](),
        State.HEARD: {Word.HEAR},
        State.SAID: {Word.SAY},
        State.PARTED: {Word.SAY, Word.HEAR},
    }
    after = TRANSITIONS.get((state, word), state)
    assert spoken[after] == spoken[state] | ({word} - {Word.LEAVE})
    assert after is not State.OPEN


def test_a_side_that_leaves_or_is_left_says_goodbye_when_its_streams_are_over() -> None:
    leaving, left = Parting(leads=True), Parting(leads=True)
    leaving.leave()
    left.hear(0)
    assert leaving.is_due
    assert left.is_due
    leaving.say(1)
    assert not leaving.is_due
