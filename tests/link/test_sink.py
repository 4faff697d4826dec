"""What the hole brings reaches the sink whole and in order, at once or by backlog."""

from __future__ import annotations

import errno
import os
import socket
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.link.sink import PIECE, Backlog, Sink


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


def joined(end: SocketEnd) -> Sink:
    sink = Sink()
    sink.join(end)
    return sink


def test_what_comes_before_the_end_is_known_waits_for_it(end: tuple[SocketEnd, socket.socket]) -> None:
    sink = Sink()
    assert sink.deliver(memoryview(b"early, ")) == 0
    sink.join(end[0])
    assert sink.deliver(memoryview(b"and in ")) == 0, "not past what waits"
    assert sink.drain() == 14
    assert sink.deliver(memoryview(b"order")) == 5
    assert came(end[1]) == b"early, and in order"
    assert not sink.waits


def test_what_the_end_does_not_take_waits_until_it_is_ready(end: tuple[SocketEnd, socket.socket]) -> None:
    sink, theirs = joined(end[0]), end[1]
    data = os.urandom(4 << 20)
    taken = sink.deliver(memoryview(data))
    assert 0 < taken < len(data)
    assert (sink.ready, sink.waits) == (False, True)
    found = came(theirs)
    assert sink.drain() == 0, "it is not known to be ready"
    while sink.waits:
        sink.ready = True
        taken += sink.drain()
        found += came(theirs)
    assert (found, taken) == (data, len(data))


def test_that_the_end_takes_no_more_is_told_once(end: tuple[SocketEnd, socket.socket]) -> None:
    sink, theirs, full = Sink(), end[1], list[int]()
    sink.join(end[0], full.append)
    sink.deliver(memoryview(b"little"))
    assert not full
    for _ in range(2):
        sink.deliver(memoryview(bytes(4 << 20)))
        assert full == [end[0].sink_fd]
        came(theirs)
        sink.ready = True


def test_what_an_end_follows_at_once_arrives_before_it(end: tuple[SocketEnd, socket.socket]) -> None:
    sink, theirs = joined(end[0]), end[1]
    assert sink.deliver(memoryview(b"last words"), is_last=True) == 10
    end[0].finish_writing()
    assert came(theirs) == b"last words"


def test_the_rest_of_what_an_end_follows_waits(end: tuple[SocketEnd, socket.socket]) -> None:
    sink, theirs = joined(end[0]), end[1]
    data = os.urandom(4 << 20)
    taken = sink.deliver(memoryview(data), is_last=True)
    assert 0 < taken < len(data)
    found = came(theirs)
    while sink.waits:
        sink.ready = True
        taken += sink.drain()
        found += came(theirs)
    assert (found, taken) == (data, len(data))
    sink.ready = False
    assert sink.deliver(memoryview(b"more"), is_last=True) == 0


def test_a_closed_sink_takes_everything_to_nowhere(end: tuple[SocketEnd, socket.socket]) -> None:
    sink = joined(end[0])
    sink.ready = False
    assert sink.deliver(memoryview(b"waits")) == 0
    sink.close()
    assert not sink.waits
    assert sink.deliver(memoryview(b"gone")) == 4
    assert came(end[1]) == b""


def test_a_broken_end_is_an_error(end: tuple[SocketEnd, socket.socket]) -> None:
    sink = joined(end[0])
    end[1].close()
    with pytest.raises(OSError, match="Broken pipe") as caught:
        sink.deliver(memoryview(b"x"))
    assert caught.value.errno == errno.EPIPE
