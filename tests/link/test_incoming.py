"""What the hole yields comes in order and whole, opened where it is sealed."""

from __future__ import annotations

import os
import random
import select
import socket
import sys
from collections.abc import Iterator

import pytest

from punchtunnel.errors import PeerError
from punchtunnel.link.incoming import RECEIVE_SIZE, SHORT_RECORDS, Incoming
from punchtunnel.protocol.records import HEADER, MAX_PLAINTEXT, MAX_RECORD, Opener, Sealer
from punchtunnel.system import tcp

KEY = bytes(32)
# A test that waits so long is hung.
LONG_MS = 30_000


@pytest.fixture
def hole() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        yield near, far


def records(sizes: list[int]) -> tuple[list[bytes], list[bytes]]:
    """Return plaintexts of these sizes, and their records."""
    sealer, record = Sealer(KEY, True), memoryview(bytearray(MAX_RECORD))
    plain = [os.urandom(size) for size in sizes]
    return plain, [bytes(record[: sealer.seal_into(memoryview(each), record)]) for each in plain]


def take(incoming: Incoming, limit: int = RECEIVE_SIZE) -> list[bytes] | None:
    pieces = incoming.receive(limit)
    return None if pieces is None else [bytes(piece) for piece in pieces]


def test_plain_bytes_come_as_they_are_and_no_more_than_was_asked_for(
    hole: tuple[socket.socket, socket.socket],
) -> None:
    incoming = Incoming(hole[0], None)
    assert take(incoming) is None
    hole[1].sendall(b"header and payload")
    incoming.readable = True
    assert take(incoming, 6) == [b"header"]
    assert bool(incoming.readable), "there may be more"
    assert take(incoming) == [b" and payload"]
    assert (incoming.readable, incoming.ended) == (False, False), "a short read means that there is no more"
    hole[1].close()
    incoming.readable = True
    assert take(incoming) == [b""]
    assert incoming.ended


def test_end_behind_a_short_read_is_found(hole: tuple[socket.socket, socket.socket]) -> None:
    incoming = Incoming(hole[0], None)
    hole[1].sendall(b"last words")
    hole[1].close()
    incoming.hung_up = True
    assert take(incoming) == [b"last words"]
    assert incoming.readable
    take(incoming)
    assert incoming.ended


@pytest.mark.parametrize("seed", range(8))
def test_records_of_any_size_in_any_pieces_come_whole(hole: tuple[socket.socket, socket.socket], seed: int) -> None:
    rng = random.Random(seed)
    edges = [0, 1, SHORT_RECORDS - 20, SHORT_RECORDS - 19, SHORT_RECORDS, MAX_PLAINTEXT]
    sizes = [rng.choice([rng.randrange(100), rng.randrange(MAX_PLAINTEXT), *edges]) for _ in range(30)]
    plain, sealed = records(sizes)
    incoming, found, stream = Incoming(hole[0], Opener(KEY, True)), list[bytes](), b"".join(sealed)
    hole[1].setblocking(False)
    while stream or len(found) < len(plain):
        try:
            sent = hole[1].send(stream[: rng.randrange(1, 300_000)]) if stream else 0
        except BlockingIOError:
            sent = 0
        stream = stream[sent:]
        incoming.readable = True
        while incoming.readable:
            found += take(incoming) or []
    assert found == plain
    assert incoming.between_records


def test_what_came_with_the_hole_comes_first(hole: tuple[socket.socket, socket.socket]) -> None:
    plain, sealed = records([10, 2000, 30])
    stream = b"".join(sealed)
    incoming = Incoming(hole[0], Opener(KEY, True))
    assert [bytes(piece) for piece in incoming.begin(stream[:50])] == plain[:1]
    assert not incoming.between_records
    hole[1].sendall(stream[50:])
    assert take(incoming) == plain[1:]


def test_long_record_is_read_to_its_end_and_the_next_header(hole: tuple[socket.socket, socket.socket]) -> None:
    plain, sealed = records([MAX_PLAINTEXT, MAX_PLAINTEXT])
    incoming, reads = Incoming(hole[0], Opener(KEY, True)), 0
    hole[1].setblocking(False)
    stream = b"".join(sealed)
    sent = hole[1].send(stream[: SHORT_RECORDS + HEADER.size])
    assert take(incoming) == []
    found: list[bytes] = []
    while len(found) < 2:
        try:
            sent += hole[1].send(stream[sent:])
        except BlockingIOError:
            reads += 1
        found += take(incoming) or []
    assert found == plain
    assert incoming.between_records


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell of every part")
def test_rest_of_a_long_record_is_told_of_once_it_has_come(tcp_pair: tuple[socket.socket, socket.socket]) -> None:
    far, near = tcp_pair
    plain, sealed = records([MAX_PLAINTEXT, 10, 20])
    incoming, poll = Incoming(near, Opener(KEY, True)), select.poll()
    poll.register(near, select.POLLIN)
    far.sendall(sealed[0][:100_000])
    found: list[bytes] = []
    while incoming.readable:
        found += take(incoming) or []
    far.sendall(sealed[0][100_000:150_000])
    assert not poll.poll(0)
    far.sendall(sealed[0][150_000:])
    while not found:
        assert poll.poll(LONG_MS)
        incoming.readable = True
        found += take(incoming) or []
    for record in sealed[1:]:
        far.sendall(record)
        assert poll.poll(LONG_MS), "a short one is told of at once"
        incoming.readable = True
        while incoming.readable:
            found += take(incoming) or []
    assert found == plain


def test_impossible_length_is_refused_before_anything_is_waited_for(
    hole: tuple[socket.socket, socket.socket],
) -> None:
    incoming = Incoming(hole[0], Opener(KEY, True))
    heard = incoming.heard_at
    hole[1].sendall(HEADER.pack(1 << 24 | MAX_PLAINTEXT + 1))
    with pytest.raises(PeerError, match="impossible"):
        take(incoming)
    assert incoming.heard_at == heard, "only what is authenticated is a sign of life"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems give no such room")
@pytest.mark.parametrize(("round_trip", "opens"), [(0.3, True), (0.0005, False)])
def test_a_far_peer_may_send_ahead_from_the_start(
    tcp_pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, round_trip: float, opens: bool
) -> None:
    monkeypatch.setattr(tcp, "round_trip", lambda _: round_trip)
    before = tcp_pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    Incoming(tcp_pair[0], None)
    assert (tcp_pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > before) == opens
    assert tcp_pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1
