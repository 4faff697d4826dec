"""Frames go out whole and in order, by every path, and are as long as the hole's rate allows."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

import pytest

from punchtunnel.link.outgoing import LONGEST_FRAME, PREFIX, Outgoing
from punchtunnel.link.tempo import (
    FIRST_FRAME,
    FRAME_TIME,
    INTERACTIVE_TIME,
    INTERVALS,
    LONGEST_INTERVAL,
    MIN_SAMPLES,
    SHORTEST_FRAME,
)
from punchtunnel.protocol.records import OVERHEAD, Opener, Sealer
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


def load(outgoing: Outgoing, payload: bytes) -> int:
    """Put a payload where copied payload is read to."""
    outgoing.room[: len(payload)] = payload
    return len(payload)


def test_copied_payload_follows_its_prefix(hole: tuple[socket.socket, socket.socket]) -> None:
    outgoing = Outgoing(hole[0], None)
    outgoing.send_loaded(b"before", load(outgoing, b"payload"))
    assert everything(outgoing, hole[1], 13) == b"beforepayload"
    outgoing.close()


def test_spliced_payload_follows_its_prefix_through_a_hole_that_is_full(
    hole: tuple[socket.socket, socket.socket],
) -> None:
    near, far = hole
    pipe = Pipe()
    outgoing = Outgoing(near, None, pipe)
    source, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sent = b""
    with source, theirs:
        while not outgoing.waits:
            data = os.urandom(100_000)
            theirs.sendall(data)
            count = pipe.fill(source.fileno(), len(data))
            assert count
            outgoing.send_loaded(b"before", count)
            sent += b"before" + data[:count]
            if count < len(data):
                assert source.recv(len(data)) == data[count:]
        assert everything(outgoing, far, len(sent)) == sent
    outgoing.close()
    pipe.close()


def test_sealed_frame_with_its_prefix_is_one_record(hole: tuple[socket.socket, socket.socket]) -> None:
    outgoing = Outgoing(hole[0], Sealer(KEY, True))
    outgoing.send_loaded(b"before", load(outgoing, b"payload"))
    record = everything(outgoing, hole[1], 13 + OVERHEAD)
    assert bytes(Opener(KEY, True).open(memoryview(record))) == b"beforepayload"
    outgoing.close()


def test_the_longest_frame_with_the_longest_prefix_fits_into_a_record(
    hole: tuple[socket.socket, socket.socket],
) -> None:
    outgoing = Outgoing(hole[0], Sealer(KEY, True))
    outgoing.send_loaded(bytes(PREFIX), load(outgoing, bytes(LONGEST_FRAME)))
    record = everything(outgoing, hole[1], PREFIX + LONGEST_FRAME + OVERHEAD)
    assert bytes(Opener(KEY, True).open(memoryview(record))) == bytes(PREFIX + LONGEST_FRAME)
    outgoing.close()


def test_frames_grow_where_the_hole_takes_all(hole: tuple[socket.socket, socket.socket]) -> None:
    clock = Clock()
    outgoing = Outgoing(hole[0], None, monotonic=clock)
    assert outgoing.tempo.frame_limit == FIRST_FRAME
    for _ in range(1000):
        outgoing.send(memoryview(bytes(FIRST_FRAME)))
        everything(outgoing, hole[1], FIRST_FRAME)
        clock.now += 0.0005
    assert outgoing.tempo.frame_limit == LONGEST_FRAME
    outgoing.close()


def test_frames_of_a_slow_hole_are_a_few_milliseconds_long(hole: tuple[socket.socket, socket.socket]) -> None:
    near, far = hole
    clock = Clock()
    outgoing = Outgoing(near, None, monotonic=clock)
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
    assert SHORTEST_FRAME < outgoing.tempo.frame_limit < 4 * rate * FRAME_TIME
    outgoing.close()


def test_bursts_with_pauses_between_them_do_not_shorten_the_frames(hole: tuple[socket.socket, socket.socket]) -> None:
    """The rate of slow start used to count: frames and queue became too short for the hole to grow faster."""
    near, far = hole
    clock = Clock()
    outgoing = Outgoing(near, None, monotonic=clock)
    for step in range(5000):
        if not outgoing.waits:
            outgoing.send(memoryview(bytes(100_000)))
        else:
            outgoing.send_on()
        clock.now += 0.001
        if step % 600 < 40:
            with contextlib.suppress(BlockingIOError):
                far.recv(1 << 20)
    assert outgoing.tempo.frame_limit >= FIRST_FRAME
    outgoing.close()


def test_frames_of_a_very_slow_hole_are_short_too(hole: tuple[socket.socket, socket.socket]) -> None:
    """Of 64 kB/s the kernel takes nothing for seconds: that was taken for pauses, and frames stayed a second long."""
    near, far = hole
    clock = Clock()
    outgoing = Outgoing(near, None, monotonic=clock)
    for _ in range(INTERVALS + 1):
        fill(outgoing)
        clock.now += 2 * LONGEST_INTERVAL
        left = 2 * 64_000
        with contextlib.suppress(BlockingIOError):
            while left:
                left -= len(far.recv(left))
        outgoing.send_on()
    assert outgoing.tempo.frame_limit == SHORTEST_FRAME
    outgoing.close()


def test_a_pause_says_nothing_about_the_rate(hole: tuple[socket.socket, socket.socket]) -> None:
    near, far = hole
    clock = Clock()
    outgoing = Outgoing(near, None, monotonic=clock)
    for _ in range(INTERVALS + 1):
        fill(outgoing)
        empty(outgoing, far)
        clock.now += 2 * LONGEST_INTERVAL
        outgoing.send(memoryview(bytes(10)))
    assert outgoing.tempo.frame_limit == FIRST_FRAME
    outgoing.close()


@pytest.mark.skipif(sys.platform != "linux", reason="no other system paces a socket")
def test_a_full_hole_is_paced_while_small_messages_share_it(
    hole: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    progress = tcp.Progress(0.04, 1e6, MIN_SAMPLES)
    monkeypatch.setattr(tcp, "progress", lambda sock: progress)
    outgoing = Outgoing(hole[0], None, monotonic=clock)

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
    progress = tcp.Progress(0.14, 1e6, MIN_SAMPLES)
    assert run(1) is None
    outgoing.tempo.interactive_at = clock.now
    limit = run(1)
    assert limit is not None
    assert 0.5e6 < limit < 1e6
    # Also where the hole takes something every other second only.
    clock.now += INTERACTIVE_TIME
    outgoing.send_on()
    assert rate_limit(hole[0]) is None
    outgoing.close()


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells of a round trip")
def test_the_first_estimates_of_a_round_trip_are_not_believed(
    hole: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SYNs have crossed they are too small: there would seem to be a queue for ever."""
    clock = Clock()
    progress = tcp.Progress(0.002, 1e6, MIN_SAMPLES - 1)
    monkeypatch.setattr(tcp, "progress", lambda sock: progress)
    outgoing = Outgoing(hole[0], None, monotonic=clock)
    while not outgoing.waits:
        outgoing.send(memoryview(bytes(FIRST_FRAME)))
    for now_known in (progress, tcp.Progress(0.04, 1e6, MIN_SAMPLES)):
        progress = now_known
        for _ in range(10):
            outgoing.tempo.interactive_at = clock.now
            outgoing.send_on()
            clock.now += 0.3
    assert rate_limit(hole[0]) is None
    outgoing.close()
