"""What is kept, what is acknowledged, and who may come back: docs/PROTOCOL.md, "Resuming"."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.errors import PeerError
from punchtunnel.protocol.frames import HEADER, Kind, decode_header
from punchtunnel.protocol.records import MAX_PLAINTEXT
from punchtunnel.protocol.resume import (
    ACKNOWLEDGE_AFTER,
    CONTROL_KEPT,
    COPY_BELOW,
    KEPT_AT_LEAST,
    KEPT_NEARBY,
    MANY_ACKNOWLEDGMENTS,
    MOST_KEPT,
    RESUME_SIZE,
    Buffer,
    Journal,
    Ticket,
    decode_resume,
    is_proved,
    most_kept,
    prove,
)
from tests.protocol.test_agreement import VECTORS

TICKET = Ticket(bytes.fromhex(VECTORS["session"]), bytes.fromhex(VECTORS["session secret"]))
VERIFIER = bytes.fromhex(VECTORS["verifier"])


def kept(journal: Journal, *pieces: bytes) -> Journal:
    for piece in pieces:
        journal.keep(memoryview(piece))
    return journal


def text_of(pieces: deque[memoryview]) -> bytes:
    return b"".join(pieces)


# ---- who may come back


@pytest.mark.parametrize(
    ("leads", "received", "name"),
    [(True, 5, "leader's RESUME, 5 bytes received"), (False, 7, "follower's RESUME, 7 bytes received")],
)
def test_words_are_those_of_the_vectors(leads: bool, received: int, name: str) -> None:
    word = prove(TICKET, VERIFIER, leads, received)
    assert word.encode().hex() == VECTORS[name]
    assert decode_resume(word.encode()) == word
    assert is_proved(word, TICKET, VERIFIER, leads)


def test_an_empty_word_knows_of_no_session() -> None:
    assert decode_resume(b"") is None


@given(st.binary(max_size=RESUME_SIZE + 8))
def test_garbage_is_no_proof(garbage: bytes) -> None:
    try:
        word = decode_resume(garbage)
    except PeerError:
        assert len(garbage) not in (0, RESUME_SIZE)
    else:
        assert word is None or not is_proved(word, TICKET, VERIFIER, True)


@pytest.mark.parametrize("changed", range(RESUME_SIZE))
def test_each_byte_of_a_proof_counts(changed: int) -> None:
    data = bytearray(prove(TICKET, VERIFIER, True, 5).encode())
    data[changed] ^= 1
    word = decode_resume(bytes(data))
    assert word is not None
    assert not is_proved(word, TICKET, VERIFIER, True)


def test_a_proof_is_good_for_one_hole_and_one_side_alone() -> None:
    """Who records it on one hole cannot use it on another, nor send it back."""
    word = prove(TICKET, VERIFIER, True, 5)
    assert not is_proved(word, TICKET, bytes(20), True)
    assert not is_proved(word, TICKET, VERIFIER, False)
    assert not is_proved(word, TICKET._replace(secret=bytes(32)), VERIFIER, True)


def test_a_ticket_does_not_show_its_secret() -> None:
    assert repr(TICKET.secret)[2:-1] not in f"{TICKET} {TICKET!r}"


# ---- what is kept


def test_the_rest_is_what_the_peer_lacks() -> None:
    journal = kept(Journal(), b"abc", b"defg", b"hi")
    assert journal.sent == 9
    journal.acknowledge(3)
    assert text_of(journal.rest(3)) == b"defghi"
    assert text_of(journal.rest(5)) == b"fghi"
    # That it has the fifth is known now.
    with pytest.raises(PeerError):
        journal.rest(4)
    assert text_of(journal.rest(9)) == b""
    assert journal.held == 0


@pytest.mark.parametrize("position", [10, 2**47 - 1])
def test_what_was_not_sent_cannot_be_acknowledged(position: int) -> None:
    journal = kept(Journal(), b"abc", b"defghi")
    with pytest.raises(PeerError):
        journal.acknowledge(position)
    with pytest.raises(PeerError):
        journal.rest(position)


def test_an_old_acknowledgment_that_comes_again_changes_nothing() -> None:
    journal = kept(Journal(), b"abc", b"def")
    journal.acknowledge(6)
    journal.acknowledge(3)
    assert journal.acknowledged == 6


def test_positions_go_on_beyond_what_a_frame_can_tell() -> None:
    journal = Journal()
    journal.sent = journal.acknowledged = journal._begin = 2**48 - 2
    kept(journal, b"abcd")
    journal.acknowledge(1)
    assert journal.acknowledged == 2**48 + 1
    assert text_of(journal.rest(2**48 + 1)) == b"d"


@given(
    st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=8),
    st.lists(st.integers(0, 72), max_size=5).map(sorted),
)
def test_whatever_is_acknowledged_the_rest_is_what_follows(pieces: list[bytes], positions: list[int]) -> None:
    journal = kept(Journal(), *pieces)
    everything = b"".join(pieces)
    for position in positions:
        if position > len(everything):
            break
        journal.acknowledge(position)
        assert text_of(journal.rest(position)) == everything[position:]
        assert journal.held == 0 or position < len(everything)


def test_short_pieces_leave_their_buffer_and_long_ones_take_it_until_they_are_acknowledged() -> None:
    journal = Journal()
    whole = memoryview(bytearray(COPY_BELOW))
    buffer = Buffer(whole, whole[16:])
    assert not journal.keep(whole[:100], buffer)
    whole[:3] = b"new"
    assert text_of(journal.rest(0)) == bytes(100)
    assert journal.keep(whole, buffer)
    assert journal.buffer() is None
    journal.acknowledge(100 + COPY_BELOW)
    assert journal.buffer() is buffer


@pytest.mark.parametrize("size", [64, 4096, 40_000, COPY_BELOW - 1, COPY_BELOW, MAX_PLAINTEXT])
def test_the_peer_acknowledges_before_the_sources_stop(size: int) -> None:
    """A program that wrote 40 kB at a time filled the buffers before that, and waited for ACKNOWLEDGE_DELAY."""
    journal, whole = Journal(), memoryview(bytearray(MAX_PLAINTEXT))
    while journal.held < KEPT_NEARBY:
        journal.keep(whole[:size], Buffer(whole, whole))
    assert journal.sent >= ACKNOWLEDGE_AFTER


@pytest.mark.parametrize(
    ("windows", "near", "limit"),
    [
        (0, False, MOST_KEPT),
        (40 * 2**20, False, 24 * 2**20),
        (2**30, False, KEPT_AT_LEAST),
        (0, True, KEPT_NEARBY),
    ],
)
def test_what_is_kept_and_what_may_come_fit_into_the_memory_of_a_link(windows: int, near: bool, limit: int) -> None:
    assert most_kept(windows, near=near) == limit


# ---- what was received


def test_acknowledgments_alone_are_not_acknowledged() -> None:
    journal = kept(Journal(), b"abc")
    journal.received += HEADER.size
    journal.acknowledge(2)
    assert journal.owed() == 0
    journal.received += 5
    assert journal.owed() == 5
    assert journal.report() == HEADER.size + 5
    assert journal.owed() == 0


def test_a_frame_tells_a_position() -> None:
    header = decode_header(bytes.fromhex("000500010000000040000001"))
    assert (header.kind, header.length) == (Kind.RECEIVED, 5 * 2**30 + 1)


def test_acknowledgments_that_are_many_are_acknowledged() -> None:
    """A side that sent a byte now and then kept every answer to it, until its own sources had to stop."""
    journal = kept(Journal(), b"12345")
    for _ in range(MANY_ACKNOWLEDGMENTS // HEADER.size):
        journal.received += HEADER.size
        journal.acknowledge(5)
        assert journal.owed() == 0
    journal.received += HEADER.size
    journal.acknowledge(5)
    assert journal.owed() == journal.received
    journal.report()
    assert journal.owed() == 0


def test_a_peer_that_acknowledges_nothing_of_what_answers_it_is_found_out() -> None:
    journal = Journal()
    piece = bytes(HEADER.size)
    while journal.held <= MOST_KEPT + CONTROL_KEPT:
        journal.check()
        journal.keep(memoryview(piece))
    with pytest.raises(PeerError, match="acknowledges nothing"):
        journal.check()
