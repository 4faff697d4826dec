"""What the hole brings reaches the sink whole and in order, by pipe, by backlog or at once."""

from __future__ import annotations

import os
import random
import select
import socket
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.link.sink import PIECE, Backlog, Delivery
from punchtunnel.system.pipes import CAPACITY, Pool

from ..conftest import Unspliceable

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture
def sink() -> Iterator[tuple[SocketEnd, socket.socket]]:
    """An end, and where what was written to it comes out."""
    ours, theirs = socket.socketpair()
    end = SocketEnd(ours)
    theirs.setblocking(False)
    with theirs:
        yield end, theirs
    end.close()


def came(theirs: socket.socket) -> bytes:
    """Return what has come out by now."""
    found = bytearray()
    while True:
        try:
            piece = theirs.recv(1 << 20)
        except BlockingIOError:
            return bytes(found)
        if not piece:
            return bytes(found)
        found += piece


@given(st.lists(st.one_of(st.binary(max_size=9), st.integers(-3 * PIECE, 0)), max_size=30))
def test_backlog_gives_back_what_it_was_given(steps: list[bytes | int]) -> None:
    """Bytes are kept; a negative number is how many a sink takes then, and with 0 something older comes."""
    backlog, kept, found = Backlog(), bytearray(), bytearray()

    def take(data: memoryview) -> int:
        found.extend(data[:room])
        return min(room, len(data))

    for number, step in enumerate(steps):
        if isinstance(step, bytes):
            # Sizes around a piece's too.
            data = step if number % 2 else step * (PIECE // 8)
            backlog.append(memoryview(data))
            kept += data
        elif not step:
            older = bytes([number]) * number
            if older:
                backlog.prepend(older)
            kept[len(found) : len(found)] = older
        else:
            room = -step
            while backlog.pieces and room:
                room -= backlog.write_to(take)
    room = len(kept)
    while backlog.pieces:
        backlog.write_to(take)
    assert found == kept


def test_backlog_takes_little_more_room_than_its_bytes() -> None:
    """A peer that sends a byte a frame, or is served until little is left, must not make 60 MB out of one."""
    count = 100_000
    tracemalloc.start()
    try:
        slow = Backlog()
        for _ in range(count):
            slow.append(memoryview(b"x"))
        of_single_bytes, _ = tracemalloc.get_traced_memory()
        served = [Backlog() for _ in range(count // 1000)]
        for each in served:
            each.append(memoryview(bytes(PIECE)))
            each.write_to(lambda data: len(data) - 1000)
        of_what_is_left = tracemalloc.get_traced_memory()[0] - of_single_bytes
    finally:
        tracemalloc.stop()
    assert of_single_bytes < 2 * count
    assert of_what_is_left < 4 * count


def test_what_comes_before_the_sink_is_known_waits_for_it(pool: Pool, sink: tuple[SocketEnd, socket.socket]) -> None:
    delivery = Delivery(pool)
    assert delivery.deliver(memoryview(b"early, ")) == 0
    assert not delivery.splices
    delivery.join(sink[0], splice=True)
    assert delivery.deliver(memoryview(b"and in ")) == 0, "not past what waits"
    assert delivery.drain() == 14
    assert delivery.deliver(memoryview(b"order")) == 5
    assert came(sink[1]) == b"early, and in order"
    assert not delivery.waits


@pytest.mark.parametrize("seed", range(8))
def test_every_byte_comes_once_and_in_order(
    pool: Pool, tcp_pair: Pair, sink: tuple[SocketEnd, socket.socket], seed: int
) -> None:
    """Spliced, copied, held up and read slowly, by chance."""
    rng = random.Random(seed)
    far, hole = tcp_pair
    end, theirs = sink
    delivery, sent, found, taken = Delivery(pool), bytearray(), bytearray(), 0
    delivery.join(end, splice=True)
    for _ in range(100):
        piece = rng.randbytes(rng.choice([1, 100, 20_000, 200_000]))
        try:
            size = far.send(piece)
        except BlockingIOError:
            size = 0
        missing = size
        while missing:
            # The loopback delivers what was sent before send() returns, but for what has no room.
            if rng.random() < 0.7 and (delivery.splices or delivery.is_piped):
                count = delivery.fill(hole.fileno(), missing)
                if count is None and rng.random() < 0.5:
                    delivery.lose_patience()
            else:
                data = bytearray(min(missing, rng.randrange(1, 50_000)))
                try:
                    count = hole.recv_into(data)
                except BlockingIOError:
                    count = None
                if count:
                    taken += delivery.deliver(memoryview(data)[:count])
            missing -= count or 0
            if rng.random() < 0.3 or not count:
                found += came(theirs)
                delivery.ready = True
                taken += delivery.drain()
        sent += piece[:size]
    while delivery.waits:
        found += came(theirs)
        delivery.ready = True
        taken += delivery.drain()
    found += came(theirs)
    assert found == sent
    assert taken == len(sent)


def fill_all(delivery: Delivery, hole: socket.socket, size: int) -> None:
    """Splice so many bytes in, which are under way."""
    while size:
        size -= delivery.fill(hole.fileno(), size) or 0


def test_full_pipe_holds_up_until_patience_is_lost(
    pool: Pool, tcp_pair: Pair, sink: tuple[SocketEnd, socket.socket]
) -> None:
    far, hole = tcp_pair
    end, theirs = sink
    delivery, sent, filled = Delivery(pool), 0, 0
    delivery.join(end, splice=True)
    delivery.ready = False
    while filled == sent:
        sent += far.send(bytes(65536))
        while count := delivery.fill(hole.fileno(), CAPACITY):
            filled += count
    assert delivery.is_piped
    assert not delivery.keeps_pace
    assert hole.recv(1, socket.MSG_PEEK), "more is there, but no room"
    assert delivery.fill(hole.fileno(), CAPACITY) is None
    delivery.lose_patience()
    assert not delivery.splices
    assert delivery.deliver(memoryview(b"behind")) == 0
    found = b""
    while delivery.waits:
        delivery.ready = True
        delivery.drain()
        found += came(theirs)
    assert found == bytes(filled) + b"behind"
    assert delivery.splices, "an empty pipe can be used again"


def test_patience_is_not_lost_with_an_empty_pipe(pool: Pool, sink: tuple[SocketEnd, socket.socket]) -> None:
    delivery = Delivery(pool)
    delivery.join(sink[0], splice=True)
    delivery.lose_patience()
    assert delivery.splices


def test_sink_that_cannot_be_spliced_to_is_written_to(pool: Pool, tcp_pair: Pair) -> None:
    far, hole = tcp_pair
    ours, theirs = socket.socketpair()
    with theirs, select.epoll() as other:
        theirs.setblocking(False)
        end = Unspliceable(ours, other.fileno())
        delivery = Delivery(pool)
        delivery.join(end, splice=True)
        data = os.urandom(50_000)
        far.sendall(data)
        fill_all(delivery, hole, len(data))
        assert delivery.drain() == len(data)
        assert came(theirs) == data
        assert not delivery.splices
        end.close()


def test_broken_sink_is_an_error_whatever_waits(pool: Pool, tcp_pair: Pair) -> None:
    far, hole = tcp_pair
    ours, theirs = socket.socketpair()
    end, delivery = SocketEnd(ours), Delivery(pool)
    delivery.join(end, splice=True)
    far.sendall(bytes(50_000))
    fill_all(delivery, hole, 50_000)
    theirs.close()
    with pytest.raises(BrokenPipeError):
        delivery.drain()
    delivery.close()
    assert not delivery.waits
    assert not delivery.splices
    end.close()


def test_without_a_pipe_copying_has_to_tell(tcp_pair: Pair, sink: tuple[SocketEnd, socket.socket]) -> None:
    class NoPipes(Pool):
        def take(self) -> None:
            return None

    delivery = Delivery(NoPipes())
    delivery.join(sink[0], splice=True)
    tcp_pair[0].sendall(b"here")
    assert delivery.fill(tcp_pair[1].fileno(), 4) == 0
    assert not delivery.waits
