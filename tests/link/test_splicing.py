"""Long frames reach the sink past this process: whole, in order, and held up by a slow sink for a moment only."""

from __future__ import annotations

import os
import random
import select
import socket
from collections.abc import Iterator

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.link.incoming import RECEIVE_SIZE, Incoming
from punchtunnel.link.outgoing import BULK
from punchtunnel.link.sink import Sink
from punchtunnel.link.splicing import SplicedSink, Splicing
from punchtunnel.protocol.frames import HEADER
from punchtunnel.system import pipes
from punchtunnel.system.pipes import CAPACITY

from ..conftest import Unspliceable
from .test_sink import came

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def splicing(tcp_pair: Pair) -> Iterator[Splicing]:
    """A carrier's, whose hole is the second of the two sockets."""
    splicing = Splicing.start(tcp_pair[1], Incoming(tcp_pair[1], None))
    assert splicing is not None
    yield splicing
    splicing.close()


def joined(end: SocketEnd, splicing: Splicing) -> tuple[Sink, SplicedSink]:
    sink = Sink()
    sink.join(end)
    way = sink.by_splicing(splicing)
    assert way is not None
    return sink, way


@pytest.mark.parametrize("seed", range(8))
def test_every_byte_comes_once_and_in_order(
    splicing: Splicing, tcp_pair: Pair, end: tuple[SocketEnd, socket.socket], seed: int
) -> None:
    """Spliced, copied, held up and read slowly, by chance."""
    rng = random.Random(seed)
    far, hole = tcp_pair
    (sink, _), theirs = joined(end[0], splicing), end[1]
    sent, found, taken = bytearray(), bytearray(), 0
    for _ in range(100):
        piece = rng.randbytes(rng.choice([1, 100, 20_000, 200_000]))
        try:
            size = far.send(piece)
        except BlockingIOError:
            size = 0
        missing = size
        while missing:
            # The loopback delivers what was sent before send() returns, but for what has no room.
            way = sink.by_splicing(splicing)
            if rng.random() < 0.7 and way is not None:
                count = way.fill(hole.fileno(), missing)
                if count is None and rng.random() < 0.5:
                    way.lose_patience()
            else:
                data = bytearray(min(missing, rng.randrange(1, 50_000)))
                try:
                    count = hole.recv_into(data)
                except BlockingIOError:
                    count = None
                if count:
                    taken += sink.deliver(memoryview(data)[:count])
            missing -= count or 0
            if rng.random() < 0.3 or not count:
                found += came(theirs)
                sink.ready = True
                taken += sink.drain()
        sent += piece[:size]
    while sink.waits:
        found += came(theirs)
        sink.ready = True
        taken += sink.drain()
    found += came(theirs)
    assert found == sent
    assert taken == len(sent)


def fill_all(way: SplicedSink, hole: socket.socket, size: int) -> None:
    """Splice so many bytes in, which are in flight."""
    while size:
        size -= way.fill(hole.fileno(), size) or 0


def test_full_pipe_holds_up_until_patience_is_lost(
    splicing: Splicing, tcp_pair: Pair, end: tuple[SocketEnd, socket.socket]
) -> None:
    far, hole = tcp_pair
    (sink, way), theirs = joined(end[0], splicing), end[1]
    sent = filled = 0
    sink.ready = False
    while filled == sent:
        sent += far.send(bytes(65536))
        while count := way.fill(hole.fileno(), CAPACITY):
            filled += count
    assert way.held == filled
    assert not way.keeps_pace
    assert hole.recv(1, socket.MSG_PEEK), "more is there, but no room"
    assert way.fill(hole.fileno(), CAPACITY) is None
    way.lose_patience()
    assert sink.by_splicing(splicing) is None
    assert sink.deliver(memoryview(b"after it")) == 0
    found = b""
    while sink.waits:
        sink.ready = True
        sink.drain()
        found += came(theirs)
    assert found == bytes(filled) + b"after it"
    assert sink.by_splicing(splicing) is way, "an empty pipe can be used again"


def test_patience_is_not_lost_with_an_empty_pipe(splicing: Splicing, end: tuple[SocketEnd, socket.socket]) -> None:
    sink, way = joined(end[0], splicing)
    way.lose_patience()
    assert sink.by_splicing(splicing) is way


def test_what_waits_in_the_backlog_is_not_passed(splicing: Splicing, end: tuple[SocketEnd, socket.socket]) -> None:
    sink = Sink()
    assert sink.by_splicing(splicing) is None, "it leads nowhere yet"
    sink.deliver(memoryview(b"early"))
    sink.join(end[0])
    assert sink.by_splicing(splicing) is None
    sink.drain()
    assert sink.by_splicing(splicing) is not None
    sink.close()
    assert sink.by_splicing(splicing) is None


def test_sink_that_cannot_be_spliced_to_is_written_to(splicing: Splicing, tcp_pair: Pair) -> None:
    far, hole = tcp_pair
    ours, theirs = socket.socketpair()
    with theirs, select.epoll() as other:
        theirs.setblocking(False)
        end = Unspliceable(ours, other.fileno())
        sink, way = joined(end, splicing)
        data = os.urandom(50_000)
        far.sendall(data)
        fill_all(way, hole, len(data))
        assert sink.drain() == len(data)
        assert came(theirs) == data
        assert sink.by_splicing(splicing) is None
        end.close()


def test_broken_sink_is_an_error_whatever_waits(splicing: Splicing, tcp_pair: Pair) -> None:
    far, hole = tcp_pair
    ours, theirs = socket.socketpair()
    end = SocketEnd(ours)
    sink, way = joined(end, splicing)
    far.sendall(bytes(50_000))
    fill_all(way, hole, 50_000)
    theirs.close()
    with pytest.raises(BrokenPipeError):
        sink.drain()
    sink.close()
    assert not sink.waits
    assert sink.by_splicing(splicing) is None
    end.close()


def test_without_a_pipe_reading_has_to_tell(
    splicing: Splicing, tcp_pair: Pair, end: tuple[SocketEnd, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink, way = joined(end[0], splicing)
    monkeypatch.setattr(splicing.pool, "take", lambda: None)
    tcp_pair[0].sendall(b"here")
    assert way.fill(tcp_pair[1].fileno(), 4) == 0
    assert splicing.receive(way, 4) is None
    assert not sink.waits


def test_a_carrier_without_a_large_pipe_splices_nothing(tcp_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipes, "grow", lambda fd: 8192)
    assert Splicing.start(tcp_pair[1], Incoming(tcp_pair[1], None)) is None


def test_a_hole_is_read_up_to_the_end_of_a_header_while_long_frames_come(
    splicing: Splicing, tcp_pair: Pair, end: tuple[SocketEnd, socket.socket]
) -> None:
    _, way = joined(end[0], splicing)
    assert splicing.read_limit(0) == 2 * BULK
    assert splicing.read_limit(RECEIVE_SIZE + 1) == RECEIVE_SIZE
    tcp_pair[0].sendall(bytes(BULK))
    fill = splicing.receive(way, BULK)
    assert fill
    assert splicing.read_limit(0) == HEADER.size
    splicing.has_read(BULK)
    assert splicing.read_limit(100) == 100 + HEADER.size, "the short rest, and the next header"
    splicing.has_read(0)
    assert splicing.read_limit(0) == HEADER.size
    splicing.has_read(BULK - 1)
    assert splicing.read_limit(0) == 2 * BULK, "a short frame: there may be many"


def test_what_a_pipe_holds_goes_to_its_sink_after_its_carrier_has_gone(
    tcp_pair: Pair, end: tuple[SocketEnd, socket.socket]
) -> None:
    far, hole = tcp_pair
    before = len(os.listdir("/proc/self/fd"))
    one, other = (Splicing.start(hole, Incoming(hole, None)) for _ in range(2))
    assert one is not None
    assert other is not None
    sink, way = joined(end[0], one)
    far.sendall(b"last words")
    fill_all(way, hole, 10)
    one.close()
    assert sink.by_splicing(other) is None, "not before what is older"
    assert sink.drain() == 10
    assert came(end[1]) == b"last words"
    assert sink.by_splicing(other) is not None
    other.close()
    assert len(os.listdir("/proc/self/fd")) == before
