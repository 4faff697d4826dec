"""The states of a connection in an election."""

from __future__ import annotations

import pytest

from punchtunnel.protocol.contender import TRANSITIONS, Contender, Input, State


def ways(state: State) -> set[tuple[Input, ...]]:
    """Return every way from a state to the win."""
    if state is State.WON:
        return {()}
    return {(word, *rest) for (before, word), after in TRANSITIONS.items() if before is state for rest in ways(after)}


def test_these_are_all_ways_to_win() -> None:
    """A leader picks, a follower is asked; then a sealed link needs keys and a proof, a plain one nothing more."""
    assert (
        ways(State.OPENED)
        == ways(State.LISTENING)
        == {
            (Input.HELLO, Input.PICK, Input.KEYS, Input.PROOF),
            (Input.HELLO, Input.ASK, Input.KEYS, Input.PROOF),
            (Input.HELLO, Input.PICK, Input.AGREE),
            (Input.HELLO, Input.ASK, Input.AGREE),
        }
    )


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("word", Input)
def test_a_step_that_is_not_in_the_table_is_a_bug(state: State, word: Input) -> None:
    contender = Contender(state)
    if (state, word) in TRANSITIONS:
        contender.move(word)
        assert contender.state is TRANSITIONS[state, word]
    else:
        with pytest.raises(KeyError):
            contender.move(word)
