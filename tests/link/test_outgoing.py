"""Frames go out whole and in order, by every path, and are as long as the hole's rate allows."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.link.outgoing import (
    COMPANY,
    FIRST_FRAME,
    FRAME_TIME,
    INTERVALS,
    LONGEST_FRAME,
    LONGEST_INTERVAL,
    PREFIX,
    SETTLED,
    SHORTEST_FRAME,
    Outgoing,
)
from punchtunnel.protocol.agreement import OVERHEAD, Opener, Sealer
from punchtunnel.system import tcp
from punchtunnel.system.pipes import Pipe

from ..conftest import rate_limit

KEY = bytes(32)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def hole(tcp_pair: tuple[socket.socket, socket.socket]) -> tuple[socket.socket, socket.socket]:
    return tcp_pair


@pytest.fixture
def source() -> Iterator[tuple[SocketEnd, socket.socket]]:
    ours, theirs = socket.socketpair()
    end = SocketEnd(ours)
    with theirs:
        yield end, theirs
    end.close()


def fill(outgoing: Outgoing) -> None:
    """Send until the hole takes no more."""
    while not outgoing.waits:
        outgoing.send(memoryview(bytes(FIRST_FRAME)))


def empty(outgoing: Outgoing, far: socket.socket) -> None:
    """Receive until nothing waits to be sent."""
    while outgoing.waits:
        far.recv(1 << 20)
        outgoing.send_on()


def everything(outgoing: Outgoing, far: socket.socket, size: int) -> bytes:
    """Send on and receive until `size` bytes have come."""
    received = bytearray()
    while len(received) < size:
        if outgoing.waits:
            outgoing.send_on()
        try:
            received += far.recv(1 << 20)
        except BlockingIOError:
            assert outgoing.waits, f"{len(received)} of {size} bytes came, and nothing waits"
    return bytes(received)


def test_copied_payload_follows_its_prefix(
    hole: tuple[socket.socket, socket.socket], source: tuple[SocketEnd, socket.socket]
) -> None:
    outgoing = Outgoing(hole[0], None, None)
    end, theirs = source
    theirs.sendall(b"payload")
    assert outgoing.load_copied(end, 100) == 7
    outgoing.send_loaded(b"before")
    assert everything(outgoing, hole[1], 13) == b"beforepayload"
    assert outgoing.load_copied(end, 100) is None
    theirs.close()
    assert outgoing.load_copied(end, 100) == 0
    outgoing.close()


def test_end_that_is_near_is_found_with_the_last_payload(
    hole: tuple[socket.socket, socket.socket], source: tuple[SocketEnd, socket.socket]
) -> None:
    outgoing = Outgoing(hole[0], None, None)
    end, theirs = source
    theirs.sendall(b"last words")
    assert outgoing.load_copied(end, 100, to_end=True) == 10
    assert not outgoing.found_end
    theirs.sendall(b"more")
    theirs.close()
    assert outgoing.load_copied(end, 4, to_end=True) == 4
    assert not outgoing.found_end, "there was no room left to look"
    assert outgoing.load_copied(end, 4, to_end=True) == 0
    outgoing.close()


def test_end_and_failure_behind_the_last_payload_are_told_apart(hole: tuple[socket.socket, socket.socket]) -> None:
    """A socket that was reset says so once, and then reads as if it had ended well."""
    for lingers, failure in ((False, None), (True, errno.ECONNRESET)):
        with socket.create_server(("127.0.0.1", 0)) as server:
            theirs = socket.create_connection(server.getsockname())
            end = SocketEnd(server.accept()[0])
        outgoing = Outgoing(hole[0], None, None)
        theirs.sendall(b"last words")
        if lingers:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # The loopback has delivered it all before close() returns.
        theirs.close()
        count = outgoing.load_copied(end, 100, to_end=True)
        assert (count, outgoing.found_end) == (10, True)
        assert getattr(outgoing.failure, "errno", None) == failure
        end.close()
        outgoing.close()


def test_spliced_payload_follows_its_prefix_through_a_hole_that_is_full(
    hole: tuple[socket.socket, socket.socket], source: tuple[SocketEnd, socket.socket]
) -> None:
    near, far = hole
    outgoing = Outgoing(near, None, Pipe())
    end, theirs = source
    assert end.spliced_source is not None
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sent = b""
    while not outgoing.waits:
        data = os.urandom(100_000)
        theirs.sendall(data)
        count = outgoing.load_spliced(end.spliced_source, len(data))
        assert count
        outgoing.send_loaded(b"before")
        sent += b"before" + data[:count]
        if count < len(data):
            rest = os.read(end.spliced_source, len(data))
            assert rest == data[count:]
    assert everything(outgoing, far, len(sent)) == sent
    outgoing.close()


def test_sealed_frame_with_its_prefix_is_one_record(
    hole: tuple[socket.socket, socket.socket], source: tuple[SocketEnd, socket.socket]
) -> None:
    outgoing = Outgoing(hole[0], Sealer(KEY, True), None)
    source[1].sendall(b"payload")
    assert outgoing.load_copied(source[0], 100) == 7
    outgoing.send_loaded(b"before")
    record = everything(outgoing, hole[1], 13 + OVERHEAD)
    assert bytes(Opener(KEY, True).open(memoryview(record))) == b"beforepayload"
    outgoing.close()


def test_the_longest_frame_with_the_longest_prefix_fits_into_a_record(
    hole: tuple[socket.socket, socket.socket], source: tuple[SocketEnd, socket.socket]
) -> None:
    outgoing = Outgoing(hole[0], Sealer(KEY, True), None)
    source[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    source[1].sendall(bytes(LONGEST_FRAME))
    count = outgoing.load_copied(source[0], LONGEST_FRAME)
    assert count
    outgoing.send_loaded(bytes(PREFIX))
    record = everything(outgoing, hole[1], PREFIX + count + OVERHEAD)
    assert bytes(Opener(KEY, True).open(memoryview(record))) == bytes(PREFIX + count)
    outgoing.close()


def test_frames_grow_where_the_hole_takes_all(hole: tuple[socket.socket, socket.socket]) -> None:
    clock = Clock()
    outgoing = Outgoing(hole[0], None, None, clock)
    assert outgoing.frame_limit == FIRST_FRAME
    for _ in range(1000):
        outgoing.send(memoryview(bytes(FIRST_FRAME)))
        everything(outgoing, hole[1], FIRST_FRAME)
        clock.now += 0.001
    assert outgoing.frame_limit == LONGEST_FRAME
    outgoing.close()


def test_frames_of_a_slow_hole_are_a_few_milliseconds_long(hole: tuple[socket.socket, socket.socket]) -> None:
    near, far = hole
    clock = Clock()
    outgoing = Outgoing(near, None, None, clock)
    rate = 10_000_000
    sent = received = 0
    for _ in range(6000):
        if not outgoing.waits:
            outgoing.send(memoryview(bytes(100_000)))
            sent += 100_000
        else:
            outgoing.send_on()
        clock.now += 0.001
        step = min(rate // 1000, sent - received)
        while step:
            try:
                count = len(far.recv(step))
            except BlockingIOError:
                break
            step -= count
            received += count
    assert SHORTEST_FRAME < outgoing.frame_limit < 4 * rate * FRAME_TIME
    outgoing.close()


def test_bursts_with_pauses_between_them_do_not_shorten_the_frames(hole: tuple[socket.socket, socket.socket]) -> None:
    """The rate of slow start used to count: frames and queue became too short for the hole to grow faster."""
    near, far = hole
    clock = Clock()
    outgoing = Outgoing(near, None, None, clock)
    for step in range(5000):
        if not outgoing.waits:
            outgoing.send(memoryview(bytes(100_000)))
        else:
            outgoing.send_on()
        clock.now += 0.001
        if step % 600 < 40:
            with contextlib.suppress(BlockingIOError):
                far.recv(1 << 20)
    assert outgoing.frame_limit >= FIRST_FRAME
    outgoing.close()


def test_frames_of_a_very_slow_hole_are_short_too(hole: tuple[socket.socket, socket.socket]) -> None:
    """Of 64 kB/s the kernel takes nothing for seconds: that was taken for pauses, and frames stayed a second long."""
    near, far = hole
    clock = Clock()
    outgoing = Outgoing(near, None, None, clock)
    for _ in range(INTERVALS + 1):
        fill(outgoing)
        clock.now += 2 * LONGEST_INTERVAL
        left = 2 * 64_000
        with contextlib.suppress(BlockingIOError):
            while left:
                left -= len(far.recv(left))
        outgoing.send_on()
    assert outgoing.frame_limit == SHORTEST_FRAME
    outgoing.close()


def test_a_pause_says_nothing_about_the_rate(hole: tuple[socket.socket, socket.socket]) -> None:
    near, far = hole
    clock = Clock()
    outgoing = Outgoing(near, None, None, clock)
    for _ in range(INTERVALS + 1):
        fill(outgoing)
        empty(outgoing, far)
        clock.now += 2 * LONGEST_INTERVAL
        outgoing.send(memoryview(bytes(10)))
    assert outgoing.frame_limit == FIRST_FRAME
    outgoing.close()


@pytest.mark.skipif(sys.platform != "linux", reason="no other system paces a socket")
def test_a_full_hole_is_paced_while_small_messages_share_it(
    hole: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    progress = tcp.Progress(0.04, 1e6, SETTLED)
    monkeypatch.setattr(tcp, "progress", lambda sock: progress)
    outgoing = Outgoing(hole[0], None, None, clock)

    def run(seconds: float) -> int | None:
        for _ in range(round(seconds / 0.05)):
            if not outgoing.waits:
                outgoing.send(memoryview(bytes(FIRST_FRAME)))
            else:
                outgoing.send_on()
            clock.now += 0.05
        return rate_limit(hole[0])

    while not outgoing.waits:
        outgoing.send(memoryview(bytes(FIRST_FRAME)))
    assert run(1) is None
    progress = tcp.Progress(0.14, 1e6, SETTLED)
    assert run(1) is None
    outgoing.shared_at = clock.now
    limit = run(1)
    assert limit is not None
    assert 0.5e6 < limit < 1e6
    # Also where the hole takes something every other second only.
    clock.now += COMPANY
    outgoing.send_on()
    assert rate_limit(hole[0]) is None
    outgoing.close()


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells of a round trip")
def test_the_first_estimates_of_a_round_trip_are_not_believed(
    hole: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SYNs have crossed they are too small: there would seem to be a queue for ever."""
    clock = Clock()
    progress = tcp.Progress(0.002, 1e6, SETTLED - 1)
    monkeypatch.setattr(tcp, "progress", lambda sock: progress)
    outgoing = Outgoing(hole[0], None, None, clock)
    while not outgoing.waits:
        outgoing.send(memoryview(bytes(FIRST_FRAME)))
    for now_known in (progress, tcp.Progress(0.04, 1e6, SETTLED)):
        progress = now_known
        for _ in range(10):
            outgoing.shared_at = clock.now
            outgoing.send_on()
            clock.now += 0.3
    assert rate_limit(hole[0]) is None
    outgoing.close()
