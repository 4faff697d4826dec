"""Both sides agree on one connection, whatever the order, the losses and the strangers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from punchtunnel.errors import PeerError
from punchtunnel.protocol.election import ACCEPT, PICK, Election
from punchtunnel.protocol.hello import (
    HELLO_SIZE,
    MAGIC,
    NO_TRAITS,
    VERSION,
    Hello,
    Role,
    Trait,
    decode_hello,
    roles_fit,
)
from punchtunnel.protocol.verdicts import Action, Drop, Reject, Send, Why, Won

TAG = bytes.fromhex("fcc196b49cd34045")
LOW = Hello(b"\x01" * 16, TAG, Role.STDIO)
HIGH = Hello(b"\x02" * 16, TAG, Role.STDIO)
HIGHEST = Hello(b"\x03" * 16, TAG, Role.STDIO)

# ---- literal bytes


def test_a_hello_is_36_bytes_as_the_protocol_document_has_them() -> None:
    hello = Hello(bytes(range(16)), TAG, Role.LISTEN | Role.TO, Trait.NO_RECEIVE)
    assert hello.encode() == bytes.fromhex(
        "f0 50 55 4e 43 48 0d 0a"  # magic
        "02 06 01 00"  # version, role: -L and --to, traits: takes nothing, reserved
        "fc c1 96 b4 9c d3 40 45"  # channel tag
        "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f"  # nonce
    )
    assert HELLO_SIZE == 36 == len(hello.encode())


def test_words_and_bits_are_those_of_the_protocol_document() -> None:
    assert (PICK, ACCEPT) == (b"PICK", b"ACPT")
    assert {role.name: role.value for role in Role} == {"STDIO": 1, "LISTEN": 2, "TO": 4, "RAW": 8}
    assert {trait.name: trait.value for trait in Trait} == {
        "NO_RECEIVE": 1,
        "PLAIN": 2,
        "FAST_AES": 4,
        "CHECK": 8,
        "PADS": 16,
        "RESUME": 32,
        "RESUMING": 64,
        "SERVICE": 128,
    }


@given(nonce=st.binary(min_size=16, max_size=16), role=st.integers(1, 15), traits=st.integers(0, 255))
def test_a_hello_is_decoded_from_its_own_bytes(nonce: bytes, role: int, traits: int) -> None:
    hello = Hello(nonce, TAG, Role(role), Trait(traits))
    assert decode_hello(hello.encode()) == hello


def test_role_bits_and_the_reserved_byte_of_later_versions_are_ignored() -> None:
    data = bytearray(LOW.encode())
    data[9], data[11] = 0xF1, 0xFF
    assert decode_hello(bytes(data)) == LOW


@given(st.binary(max_size=40) | st.binary(max_size=40).map(MAGIC.__add__))
def test_garbage_gives_a_hello_or_peer_error(garbage: bytes) -> None:
    try:
        hello = decode_hello(garbage)
    except PeerError:
        return
    assert garbage.startswith(MAGIC + bytes([VERSION]))
    assert len(hello.nonce) == 16


# ---- roles

S, L, T, R = Role.STDIO, Role.LISTEN, Role.TO, Role.RAW
LEGAL = {frozenset(pair) for pair in [(S,), (S, T), (S, L), (L, T), (L | T,), (L | T, L), (L | T, T), (R,)]}


@pytest.mark.parametrize("theirs", range(16))
@pytest.mark.parametrize("mine", [S, L, T, L | T, R])
def test_only_legal_pairs_of_roles_fit_and_both_sides_say_the_same(mine: Role, theirs: int) -> None:
    fits = frozenset((mine, Role(theirs))) in LEGAL
    assert roles_fit(mine, Role(theirs)) is fits
    assert roles_fit(Role(theirs), mine) is fits


@pytest.mark.parametrize("theirs", [S, L, T, L | T, R])
@pytest.mark.parametrize("mine", [S, L, T, L | T, R])
@pytest.mark.parametrize("checking", ["here", "there", "both"])
def test_a_side_that_only_checks_fits_every_role_but_the_library(mine: Role, theirs: Role, checking: str) -> None:
    ours = HIGH._replace(role=mine, traits=Trait.CHECK if checking != "there" else NO_TRAITS)
    hello = LOW._replace(role=theirs, traits=Trait.CHECK if checking != "here" else NO_TRAITS)
    actions = received_by(ours, hello)
    if R in (mine, theirs):
        assert actions == [Reject(1, VERSION, hello)]
    else:
        assert actions == [Send(1, PICK)]


def test_sides_that_only_check_must_agree_on_sealing_all_the_same() -> None:
    ours = HIGH._replace(traits=Trait.CHECK | Trait.PLAIN)
    hello = LOW._replace(traits=Trait.CHECK)
    assert received_by(ours, hello) == [Reject(1, VERSION, hello)]


def received_by(ours: Hello, hello: Hello) -> list[Action]:
    election = Election(ours)
    election.opened(1)
    return election.received(1, hello.encode())


# ---- one side


def met(mine: Hello, *hellos: Hello) -> Election:
    """Return an election that has heard these hellos on connections 1, 2, 3 …"""
    election = Election(mine)
    for conn, hello in enumerate(hellos, 1):
        assert election.opened(conn) == [Send(conn, mine.encode())]
        election.received(conn, hello.encode())
    return election


def test_the_leader_picks_where_it_first_heard_a_hello_and_wins_with_the_accept() -> None:
    leader = Election(HIGH)
    for conn in (1, 2):
        leader.opened(conn)
    assert leader.received(2, LOW.encode()) == [Send(2, PICK)]
    assert leader.received(1, LOW.encode()) == []
    assert leader.received(2, ACCEPT) == [Won(2, b"", True, LOW)]


def test_the_follower_never_picks_but_answers_a_pick_at_once() -> None:
    follower = met(LOW, HIGH, HIGH)
    assert follower.lost(1) == []
    assert follower.received(2, PICK) == [Send(2, ACCEPT), Won(2, b"", False, HIGH)]


def test_the_leader_hands_over_bytes_that_arrive_behind_the_accept() -> None:
    assert met(HIGH, LOW).received(1, ACCEPT + b"first bytes") == [Won(1, b"first bytes", True, LOW)]


def test_the_follower_hands_over_bytes_that_arrive_behind_the_pick() -> None:
    assert met(LOW, HIGH).received(1, PICK + b"more") == [Send(1, ACCEPT), Won(1, b"more", False, HIGH)]


def test_the_next_pick_follows_only_a_loss() -> None:
    leader = met(HIGH, LOW, LOW, LOW)
    assert leader.received(2, ACCEPT) == [Drop(2, Why.STRANGER)], "nobody asked for it"
    assert leader.lost(1) == [Send(3, PICK)]
    assert leader.lost(3) == []


@pytest.mark.parametrize("accepted", [True, False])
def test_a_pick_waits_while_an_own_pick_is_outstanding_with_a_third_party(accepted: bool) -> None:
    middle = met(HIGH, LOW, HIGHEST)
    assert middle.received(2, PICK) == []
    if accepted:
        assert middle.received(1, ACCEPT) == [Won(1, b"", True, LOW)]
    else:
        assert middle.lost(1) == [Send(2, ACCEPT), Won(2, b"", False, HIGHEST)]


def test_whoever_did_not_answer_a_pick_is_picked_last() -> None:
    leader = met(HIGHEST, LOW, LOW, HIGH)
    assert leader.lost(1) == [Send(3, PICK)]
    assert leader.lost(3) == [Send(2, PICK)]
    assert leader.received(2, ACCEPT) == [Won(2, b"", True, LOW)]


def test_an_accept_that_could_not_be_sent_is_a_loss_like_any_other() -> None:
    """The election was over by then, and punching ended with a traceback."""
    follower = met(LOW, HIGH, HIGH)
    follower.received(1, PICK)
    assert follower.lost(1) == []
    assert follower.received(2, PICK) == [Send(2, ACCEPT), Won(2, b"", False, HIGH)]
    middle = met(HIGH, HIGHEST)
    middle.received(1, PICK)
    middle.opened(2)
    assert middle.received(2, LOW.encode()) == []
    assert middle.lost(1) == [Send(2, PICK)]


def test_a_connection_to_oneself_is_dropped() -> None:
    election = met(LOW)
    election.opened(1)
    assert election.received(1, LOW.encode()) == [Drop(1, Why.MYSELF)]


def test_another_channel_costs_only_the_connection() -> None:
    election = met(LOW, HIGH)
    election.opened(2)
    assert election.received(2, HIGH._replace(channel_tag=b"8 bytes.").encode()) == [Drop(2, Why.OTHER_CHANNEL)]


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_another_version_is_rejected_at_its_first_byte(version: int) -> None:
    election = Election(LOW)
    election.opened(1)
    assert election.received(1, MAGIC) == []
    assert election.received(1, bytes([version])) == [Reject(1, version, None)]


def test_a_role_that_does_not_fit_is_rejected_with_what_the_peer_said() -> None:
    listener, other = LOW._replace(role=Role.LISTEN), HIGH._replace(role=Role.LISTEN)
    election = Election(listener)
    election.opened(1)
    assert election.received(1, other.encode()) == [Reject(1, VERSION, other)]


def test_two_sides_that_receive_nothing_reject_each_other() -> None:
    mine, theirs = LOW._replace(traits=Trait.NO_RECEIVE), HIGH._replace(traits=Trait.NO_RECEIVE)
    election = Election(mine)
    election.opened(1)
    assert election.received(1, theirs.encode()) == [Reject(1, VERSION, theirs)]
    assert met(LOW, theirs).has_hello(1)


@pytest.mark.parametrize("stranger", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\xf0PUNCH\n", b"\x00", b"\xf0P\r\n"])
def test_a_stranger_is_dropped_at_its_first_wrong_byte(stranger: bytes) -> None:
    election = Election(LOW)
    election.opened(1)
    assert election.received(1, stranger) == [Drop(1, Why.STRANGER)]
    assert election.received(1, stranger) == []
    assert not election.has_hello(1)


@pytest.mark.parametrize(
    ("mine", "peer", "message"),
    [(HIGH, LOW, PICK), (HIGH, LOW, b"ACPX"), (LOW, HIGH, ACCEPT), (LOW, HIGH, b"P1"), (LOW, HIGH, b"\0")],
)
def test_a_wrong_word_behind_the_hello_costs_only_the_connection(mine: Hello, peer: Hello, message: bytes) -> None:
    election = met(mine, peer, peer)
    assert election.received(1, message)[0] == Drop(1, Why.STRANGER)
    word = ACCEPT if mine is HIGH else PICK
    assert isinstance(election.received(2, word)[-1], Won)


# ---- any split, any garbage

TALK = st.sampled_from([b"PICK", b"ACPT", b"link", b"\xf0", b"P", b"A", b"\0", HIGH.encode(), LOW.encode()])
BEGINNING = st.sampled_from([HIGH.encode(), LOW.encode(), HIGHEST.encode(), MAGIC, b""])
PEER_BYTES = st.tuples(BEGINNING, st.lists(TALK, max_size=4).map(b"".join), st.binary(max_size=20)).map(b"".join)


def outcome(election: Election, conn: int, pieces: Sequence[bytes]) -> list[Action]:
    """Return all actions; what follows the win is part of what it hands over."""
    actions: list[Action] = []
    for piece in pieces:
        if actions and isinstance(won := actions[-1], Won):
            actions[-1] = won._replace(unread=won.unread + piece)
        else:
            actions += election.received(conn, piece)
    return actions


@settings(max_examples=250)
@example(data=HIGHEST.encode() + PICK + b"link", cuts=[HELLO_SIZE + 4], waiting=True)
@given(data=PEER_BYTES, cuts=st.lists(st.integers(0, 60), max_size=6), waiting=st.booleans())
def test_any_split_of_the_stream_gives_the_same_result(data: bytes, cuts: list[int], waiting: bool) -> None:
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in pairwise(borders)]
    results = []
    for split in ([data], pieces):
        election = met(HIGH, LOW) if waiting else Election(HIGH)
        election.opened(2)
        actions = outcome(election, 2, split)
        # The third party goes; a PICK that had to wait is answered now.
        results.append(actions + (election.lost(1) if waiting else []))
    assert results[0] == results[1]


@settings(max_examples=200)
@given(pieces=st.lists(st.binary(max_size=50) | TALK, max_size=12))
def test_garbage_gives_drop_or_reject_or_nothing_and_costs_only_its_connection(pieces: list[bytes]) -> None:
    election = met(LOW)
    election.opened(1)
    data = b"".join(pieces)
    actions = outcome(election, 1, pieces)
    if not data.startswith(MAGIC + bytes([VERSION])):
        assert all(isinstance(action, Drop | Reject) for action in actions)
        assert len(actions) <= 1
    if any(isinstance(action, Won) for action in actions):
        return
    election.opened(2)
    election.received(2, HIGH.encode())
    assert election.received(2, PICK) == [Send(2, ACCEPT), Won(2, b"", False, HIGH)]


def test_a_peer_that_says_more_than_it_may_is_not_listened_to() -> None:
    """What came in one piece with a PICK that had to wait was kept, whatever its length."""
    middle = met(HIGH, LOW, HIGHEST)
    assert middle.received(2, PICK + bytes(100_000)) == [Drop(2, Why.STRANGER)]
