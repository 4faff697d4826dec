"""The line that asks a relay for the peer, and what a relay can answer."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.errors import PeerError
from punchtunnel.protocol.hello import Role
from punchtunnel.reach.transit import Answer, request, side

KEY, TOKEN = bytes(range(32)), bytes(range(32, 64))


def test_the_line_is_that_of_the_protocol_document() -> None:
    token = bytes.fromhex("6a69ee5bd77c1bf6b5af0dfb783b180ba5ebd845b51a70dc1dac8c4324064f07")
    line = f"please relay {token.hex()} for side 0001020304050607\n"
    assert request(token, bytes(range(8))) == line.encode()


def test_a_side_is_the_same_in_each_run_and_another_one_for_all_else() -> None:
    mine = side(KEY, TOKEN, Role.STDIO)
    assert mine == side(KEY, TOKEN, Role.STDIO)
    assert len(mine) == 8
    others = {side(KEY, TOKEN, Role.TO), side(KEY, KEY, Role.STDIO), side(TOKEN, TOKEN, Role.STDIO)}
    assert len(others | {mine}) == 4


@given(st.binary(max_size=40), st.lists(st.integers(1, 5), max_size=20))
def test_what_follows_the_ok_is_the_peers_in_any_pieces(follows: bytes, sizes: list[int]) -> None:
    rest = b"ok\n" + follows
    machine = Answer()
    for size in [*sizes, len(rest)]:
        piece, rest = rest[:size], rest[size:]
        if (unread := machine.feed(piece)) is not None:
            assert unread + rest == follows
            return
    pytest.fail("the ok was not read")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"bad handshake\n", "does not understand"),
        (b"impatient\n", "too early"),
        (b"impatient\nmore", "too early"),
        (b"HTTP/1.1 400 Bad Request\r\n", "no transit relay"),
        (b"ok \n", "no transit relay"),
        (b"OK\n", "no transit relay"),
        (b"\n", "no transit relay"),
        (b"x" * 100_000, "no transit relay"),
    ],
)
def test_a_relay_that_refuses_or_is_none_is_told_by_a_sentence(line: bytes, sentence: str) -> None:
    with pytest.raises(PeerError, match=sentence):
        Answer().feed(line)
    machine = Answer()

    def drip() -> None:
        for at in range(len(line)):
            assert machine.feed(line[at : at + 1]) is None

    with pytest.raises(PeerError, match=sentence):
        drip()


def test_an_answer_that_is_not_whole_is_waited_for() -> None:
    for line in (b"ok\n", b"bad handshake\n", b"impatient\n"):
        for size in range(len(line)):
            assert Answer().feed(line[:size]) is None


@given(st.lists(st.binary(max_size=20)))
def test_garbage_gives_the_peers_bytes_or_peer_error_and_is_not_kept(pieces: list[bytes]) -> None:
    machine = Answer()
    taken = 0
    with contextlib.suppress(PeerError):
        for piece in pieces:
            if machine.feed(piece) is not None:
                return
            taken += len(piece)
            assert taken < 14
