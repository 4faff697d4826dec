"""Two sides part: nobody takes for delivered what may be lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.protocol.goodbye import Parting


def test_leader_closes_when_its_goodbye_was_read() -> None:
    leader = Parting(leads=True)
    leader.say(ping=7)
    assert leader.hear(0)
    assert leader.over
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
    assert follower.over
    assert not follower.may_close


def test_only_the_first_goodbye_counts() -> None:
    side = Parting(leads=True)
    assert side.hear(3)
    assert not side.hear(0)
    assert side.heard == 3


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
    assert side.over == ({"say", "hear"} <= set(happened))
    assert side.may_close == (leads and side.over and read)
