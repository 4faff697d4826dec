"""Two links joined by a socket, on asyncio's loop and on uvloop's: the lives of their streams."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
import struct
from collections.abc import Callable

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.errors import LinkError, PeerError
from punchtunnel.link.carrier import Carrier
from punchtunnel.link.outgoing import PREFIX
from punchtunnel.link.stream import Broken, Stream
from punchtunnel.protocol.credit import INITIAL_WINDOW
from punchtunnel.protocol.events import Reset
from punchtunnel.protocol.frames import HEADER, Flag, Goodbye, Header, Kind, Reason
from punchtunnel.protocol.mux import LAST_STREAM, Mux

from .links import LONG, Case, connect, make_side, receive_all, received, send, two_sides

pytestmark = pytest.mark.usefixtures("data_path")


@pytest.mark.parametrize("buffer", [None, 4608], ids=["default buffers", "tiny buffers"])
def test_every_byte_arrives_in_both_directions_at_once(run: Callable[[Case], None], buffer: int | None) -> None:
    async def case() -> None:
        async with two_sides(buffer) as (left, right):
            near, far = await connect(left, right)
            there, back = os.urandom(3_000_000), os.urandom(2_000_000)
            with near, far:
                _, _, got_there, got_back = await asyncio.gather(
                    send(near, there), send(far, back), receive_all(far), receive_all(near)
                )
            assert got_there == there
            assert got_back == back
            for side in (left, right):
                assert await asyncio.wait_for(side.ended.get(), LONG) == (1, None)
                assert side.link.stream_count == 0

    run(case)


def test_one_direction_goes_on_after_the_other_has_ended(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        async with two_sides() as (left, right):
            near, far = await connect(left, right)
            with near, far:
                near.shutdown(socket.SHUT_WR)
                assert await receive_all(far) == b""
                await send(far, b"late reply")
                assert await receive_all(near) == b"late reply"

    run(case)


async def receive_in_fits(sock: socket.socket, rng: random.Random) -> bytes:
    """Read in pieces of any size, and not at all for many turns of the loop."""
    data = bytearray()
    while True:
        try:
            piece = sock.recv(rng.choice([1, 100, 5_000, 300_000]))
        except BlockingIOError:
            await asyncio.sleep(0.001)
            continue
        if not piece:
            return bytes(data)
        data += piece
        for _ in range(rng.choice([0, 0, 0, 30])):
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(3))
def test_readers_that_stall_at_any_place_get_every_byte_in_order(run: Callable[[Case], None], seed: int) -> None:
    async def case() -> None:
        rng = random.Random(seed)
        async with two_sides(1 << 19) as (left, right):
            pairs = [await connect(left, right) for _ in range(4)]
            whole = [rng.randbytes(rng.choice([10, 70_000, 1_500_000])) for _ in pairs]
            sending = [asyncio.create_task(send(near, data)) for (near, _), data in zip(pairs, whole, strict=True)]
            got = await asyncio.wait_for(asyncio.gather(*(receive_in_fits(far, rng) for _, far in pairs)), LONG)
            await asyncio.gather(*sending)
            for near, far in pairs:
                near.close()
                far.close()
            assert got == whole

    run(case)


def test_slow_sink_stops_its_own_writer_and_nobody_else(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        async with two_sides() as (left, right):
            slow_near, slow_far = await connect(left, right)
            near, far = await connect(left, right)
            with slow_near, slow_far, near, far:
                data = os.urandom(8 * INITIAL_WINDOW)
                stuck = asyncio.create_task(send(slow_near, data))
                other = os.urandom(2_000_000)
                _, got = await asyncio.gather(send(near, other), receive_all(far))
                assert got == other
                assert not stuck.done()
                assert left.link.bytes_out - len(other) <= INITIAL_WINDOW + 1_000_000
                assert await receive_all(slow_far) == data
                await stuck

    run(case)


def test_reset_of_a_client_reaches_the_far_end_as_a_reset(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        async with two_sides() as (left, right):
            with socket.create_server(("127.0.0.1", 0)) as server:
                client = socket.create_connection(server.getsockname())
                accepted, _ = server.accept()
                far = socket.create_connection(server.getsockname())
                far_end, _ = server.accept()
            with far:
                left.link.open(SocketEnd(accepted))
                right.link.join(await asyncio.wait_for(right.opened.get(), LONG), SocketEnd(far_end))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                _, failure = await asyncio.wait_for(left.ended.get(), LONG)
                assert isinstance(failure, Broken)
                assert failure.error.errno == errno.ECONNRESET
                assert await asyncio.wait_for(right.ended.get(), LONG) == (1, Reset(Reason.RESET, True, given_up=True))
                far.setblocking(False)
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(asyncio.get_running_loop().sock_recv(far, 1), LONG)

    run(case)


class Cut(SocketEnd):
    """A target that answers, and resets its connection, when something is written to it."""

    def __init__(self, sock: socket.socket, target: socket.socket) -> None:
        super().__init__(sock)
        self._target = target

    def write(self, data: memoryview) -> int:
        self._target.sendall(ANSWER)
        raise ConnectionResetError(errno.ECONNRESET, "reset")


ANSWER = bytes(range(256)) * 10


@pytest.mark.parametrize("found", ["by reading", "by writing"])
def test_what_was_sent_before_a_reset_arrives_before_it(run: Callable[[Case], None], found: str) -> None:
    """A server that answers and closes before it has read all resets the connection: its answer was thrown away."""

    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with two_sides() as (left, right):
            with socket.create_server(("127.0.0.1", 0)) as server:
                near = socket.create_connection(server.getsockname())
                near_end, _ = server.accept()
                target = socket.create_connection(server.getsockname())
                target_end, _ = server.accept()
            with near, target:
                near.setblocking(False)
                left.link.open(SocketEnd(near_end))
                number = await asyncio.wait_for(right.opened.get(), LONG)
                end = SocketEnd(target_end) if found == "by reading" else Cut(target_end, target)
                right.link.join(number, end)
                await loop.sock_sendall(near, b"request")
                if found == "by reading":
                    target.setblocking(False)
                    assert await asyncio.wait_for(loop.sock_recv(target, 1), LONG) == b"r"
                    target.sendall(ANSWER)
                    target.close()
                answer = b""
                while len(answer) < len(ANSWER):
                    answer += await asyncio.wait_for(loop.sock_recv(near, 1 << 16), LONG)
                assert answer == ANSWER
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(loop.sock_recv(near, 1), LONG)
                _, failure = await asyncio.wait_for(right.ended.get(), LONG)
                assert isinstance(failure, Broken)
                assert failure.error.errno == errno.ECONNRESET

    run(case)


def test_refused_stream_ends_with_its_reason(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        async with two_sides() as (left, right):
            near, near_end = socket.socketpair()
            with near:
                left.link.open(SocketEnd(near_end))
                right.link.refuse(await asyncio.wait_for(right.opened.get(), LONG), Reason.REFUSED)
                assert await asyncio.wait_for(left.ended.get(), LONG) == (1, Reset(Reason.REFUSED, False))
                assert near.recv(1) == b""

    run(case)


def test_early_data_waits_until_the_stream_is_joined(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        async with two_sides() as (left, right):
            near, near_end = socket.socketpair()
            far, far_end = socket.socketpair()
            near.setblocking(False)
            far.setblocking(False)
            with near, far:
                left.link.open(SocketEnd(near_end))
                await send(near, b"early")
                number = await asyncio.wait_for(right.opened.get(), LONG)
                await received(right, 5)
                right.link.join(number, SocketEnd(far_end))
                assert await receive_all(far) == b"early"

    run(case)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", PeerError),
        (Header(Kind.DATA, Flag(0), 1, 10).encode() + b"cut", LinkError),
        (Header(Kind.PING, Flag.SYN, 0, 1).encode()[:5], LinkError),
        (b"", type(None)),
    ],
    ids=["another protocol", "end inside a payload", "end inside a header", "end between frames"],
)
def test_end_of_the_hole_is_told_for_what_it_is(run: Callable[[Case], None], said: bytes, kind: type) -> None:
    async def case() -> None:
        peer, hole = socket.socketpair()
        side = make_side(hole, True)
        with peer:
            peer.sendall(said)
            peer.shutdown(socket.SHUT_WR)
            assert isinstance(await asyncio.wait_for(side.lost.get(), LONG), kind)
        side.poller.close()

    run(case)


def test_protocol_error_is_told_to_the_peer(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        peer, hole = socket.socketpair()
        side = make_side(hole, True)
        with peer:
            peer.sendall(b"\xff" * 12)
            await asyncio.wait_for(side.lost.get(), LONG)
            assert peer.recv(100) == Header(Kind.GO_AWAY, Flag(0), 0, Goodbye.PROTOCOL_ERROR).encode()
        side.poller.close()

    run(case)


def test_frames_that_wait_leave_room_for_an_acknowledgment_before_a_payload(
    run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 84 pings that were to be answered, and an acknowledgment, a payload had no room: a traceback."""

    def acknowledge(_self: Carrier, mux: Mux[Stream], _worth: int) -> None:
        """Say as much; what it acknowledges, only sessions that can resume understand."""
        mux.control += Header(Kind.WINDOW, Flag(0), LAST_STREAM, 0).encode()

    monkeypatch.setattr(Carrier, "acknowledge", acknowledge)

    async def case() -> None:
        async with two_sides() as (left, right):
            near, far = await connect(left, right)
            with near, far:
                for count in range(PREFIX // HEADER.size - 4, PREFIX // HEADER.size + 2):
                    near.sendall(b"x")
                    for _ in range(count):
                        left.link.ping()
                    got = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(far, 10), LONG)
                    assert got == b"x"

    run(case)


def test_thousand_streams_come_and_go(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        async with two_sides() as (left, right):
            for _ in range(10):
                pairs = [await connect(left, right) for _ in range(100)]
                await asyncio.gather(*(send(near, str(index).encode()) for index, (near, _) in enumerate(pairs)))
                for index, (near, far) in enumerate(pairs):
                    with near, far:
                        assert await receive_all(far) == str(index).encode()
                        far.shutdown(socket.SHUT_WR)
                        assert await receive_all(near) == b""
            assert left.link.stream_count == 0

    run(case)
