"""A PICK and an ACCEPT that fill a packet: their bytes, in any pieces, and what is not taken for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.protocol.agreement import Agreement
from punchtunnel.protocol.contender import PADDING
from punchtunnel.protocol.election import ACCEPT, PICK, Election
from punchtunnel.protocol.hello import NO_TRAITS, Hello, Role, Trait
from punchtunnel.protocol.verdicts import Action, Drop, Send, Why, Won
from punchtunnel.punching.ports import LONGEST_SEGMENT

TAG = bytes.fromhex("fcc196b49cd34045")
LOW = Hello(b"\x01" * 16, TAG, Role.STDIO, Trait.PADS)
HIGH = Hello(b"\x02" * 16, TAG, Role.STDIO, Trait.PADS)


def opened(mine: Hello, *, pads: bool = True, sealed: bool = False) -> Election:
    election = Election(mine, (lambda: Agreement(b"", TAG, lambda count: mine.nonce[:1] * count)) if sealed else None)
    election.pads = pads
    election.opened(1)
    return election


def sent(actions: list[Action]) -> bytes:
    return b"".join(action.data for action in actions if isinstance(action, Send))


def test_the_bytes_are_those_of_the_protocol_document_and_fill_a_segment() -> None:
    assert PADDING[:4] == bytes.fromhex("50 41 44 44")
    assert PADDING[4:] == bytes(1216)
    assert len(PADDING) >= LONGEST_SEGMENT


@pytest.mark.parametrize("pads", [True, False])
@pytest.mark.parametrize("mine", [Trait.PADS, NO_TRAITS])
@pytest.mark.parametrize("theirs", [Trait.PADS, NO_TRAITS])
def test_only_a_leader_that_wants_it_pads_and_only_for_a_peer_that_takes_it(
    pads: bool, mine: Trait, theirs: Trait
) -> None:
    leader = opened(HIGH._replace(traits=mine), pads=pads)
    actions = leader.received(1, LOW._replace(traits=theirs).encode())
    is_padded = pads and mine == theirs == Trait.PADS
    assert actions == [Send(1, PADDING + PICK if is_padded else PICK)]
    assert leader.waits_padded(1) is is_padded


@pytest.mark.parametrize("padding", [PADDING, PADDING[:4] + b"\xff" * 1216, b""])
@pytest.mark.parametrize("pads", [True, False])
def test_a_follower_pads_its_answer_just_if_the_question_was(padding: bytes, pads: bool) -> None:
    follower = opened(LOW, pads=pads)
    actions = follower.received(1, HIGH.encode() + padding + PICK)
    assert actions == [Send(1, PADDING[: len(padding)] + ACCEPT), Won(1, b"", False, HIGH)]


def test_a_leader_takes_an_answer_without_padding() -> None:
    leader = opened(HIGH)
    leader.received(1, LOW.encode())
    assert leader.received(1, ACCEPT + b"rest") == [Won(1, b"rest", True, LOW)]


@given(cuts=st.lists(st.integers(1, 1400), max_size=8), sealed=st.booleans())
def test_in_any_pieces_both_sides_come_to_the_same_end(cuts: list[int], sealed: bool) -> None:
    sides = {True: opened(HIGH, sealed=sealed), False: opened(LOW, sealed=sealed)}
    towards = {True: LOW.encode(), False: HIGH.encode()}
    won: dict[bool, Won] = {}
    sizes = iter(cuts)
    while any(towards.values()):
        for leads, election in sides.items():
            size = next(sizes, 4096)
            data, towards[leads] = towards[leads][:size], towards[leads][size:]
            for action in election.received(1, data) if data else []:
                assert isinstance(action, Send | Won)
                if isinstance(action, Won):
                    won[leads] = action
                else:
                    towards[not leads] += action.data
    assert {leads: (one.unread, one.leads) for leads, one in won.items()} == {True: (b"", True), False: (b"", False)}
    assert sealed == all(one.keys for one in won.values())


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        # Nobody has asked yet: the leader waits for its turn with the first one.
        (HIGH, LOW, [PADDING + PADDING]),
        (HIGH, LOW, [PADDING + PICK]),
        (LOW, HIGH, [PADDING + PADDING + PICK]),
        (LOW, HIGH, [PADDING + ACCEPT]),
        (LOW, HIGH, [b"PADX"]),
        (LOW, HIGH._replace(traits=NO_TRAITS), [b"PA"]),
        (LOW._replace(traits=NO_TRAITS), HIGH, [PADDING + PICK]),
        # The leader has not padded, so no answer is padded.
        (HIGH, LOW._replace(traits=NO_TRAITS), [PADDING + ACCEPT]),
    ],
)
def test_padding_where_it_must_not_be_costs_the_connection(mine: Hello, theirs: Hello, said: list[bytes]) -> None:
    election = opened(mine)
    election.received(1, theirs.encode())
    actions = [action for data in said for action in election.received(1, data)]
    assert actions == [Drop(1, Why.STRANGER)]


def test_padding_before_the_pick_of_this_side_is_too_early() -> None:
    leader = opened(HIGH)
    leader.opened(2)
    leader.received(1, LOW.encode())
    leader.received(2, LOW.encode())
    assert leader.received(2, PADDING[:1]) == [Drop(2, Why.STRANGER)]


@given(garbage=st.binary(max_size=60), padded=st.booleans())
def test_garbage_costs_the_connection_or_is_waited_out(garbage: bytes, padded: bool) -> None:
    follower = opened(LOW)
    follower.received(1, HIGH.encode())
    actions = follower.received(1, PADDING * padded + garbage)
    assert actions in ([], [Drop(1, Why.STRANGER)]) or garbage.startswith(PICK)
