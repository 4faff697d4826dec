"""Two links joined by a socket, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import random
import select
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop

from punchtunnel import link, pipes
from punchtunnel.ends import SocketEnd, StdioEnd
from punchtunnel.errors import LinkError, PeerError
from punchtunnel.frames import HEADER, Flag, Header, Kind
from punchtunnel.incoming import RECEIVE_SIZE, Incoming
from punchtunnel.link import Broken, Link
from punchtunnel.mux import INITIAL_WINDOW, Goodbye, Reason, Reset
from punchtunnel.outgoing import FIRST_FRAME
from punchtunnel.pipes import WORTH_SPLICING, Pipe
from punchtunnel.poller import READ, Poller
from punchtunnel.supply import SPARSE

from .conftest import Unspliceable

# A test that waits so long is hung.
LONG = 30.0


@dataclass
class Side:
    """One link and what its owner was told."""

    poller: Poller
    link: Link = field(init=False)
    opened: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    ended: asyncio.Queue[tuple[int, Reset | Broken | None]] = field(default_factory=asyncio.Queue)
    lost: asyncio.Queue[LinkError | None] = field(default_factory=asyncio.Queue)
    codes: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def stream_opened(self, number: int) -> None:
        self.opened.put_nowait(number)

    def stream_ended(self, number: int, failure: Reset | Broken | None) -> None:
        self.ended.put_nowait((number, failure))

    def source_ended(self, number: int) -> None: ...

    def sized(self, number: int, size: int) -> None:
        self.sizes.append((number, size))

    def ponged(self, value: int, rtt: float) -> None: ...

    def gone_away(self, code: int) -> None:
        self.codes.append(code)

    def link_ended(self, error: LinkError | None) -> None:
        self.lost.put_nowait(error)


def make_side(sock: socket.socket, leads: bool) -> Side:
    loop = asyncio.get_running_loop()
    side = Side(Poller(loop))
    side.link = Link(loop, side.poller, sock, leads, side)
    side.link.start(b"")
    return side


@contextlib.asynccontextmanager
async def two_sides(buffer: int | None = None) -> AsyncIterator[tuple[Side, Side]]:
    sockets = socket.socketpair()
    if buffer:
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    sides = make_side(sockets[0], True), make_side(sockets[1], False)
    try:
        yield sides
    finally:
        for side in sides:
            side.link.close(reset=False)
            side.poller.close()


async def connect(left: Side, right: Side) -> tuple[socket.socket, socket.socket]:
    """Open a stream and return the two local sockets that it joins."""
    near, near_end = socket.socketpair()
    far, far_end = socket.socketpair()
    left.link.open(SocketEnd(near_end))
    number = await asyncio.wait_for(right.opened.get(), LONG)
    right.link.join(number, SocketEnd(far_end))
    for sock in (near, far):
        sock.setblocking(False)
    return near, far


async def received(side: Side, count: int) -> None:
    """Wait until a side has received so many bytes of payload."""
    async with asyncio.timeout(LONG):
        while side.link.bytes_in < count:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


async def receive_all(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while piece := await asyncio.wait_for(loop.sock_recv(sock, 65536), LONG):
        data += piece
    return bytes(data)


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, data), LONG)
    sock.shutdown(socket.SHUT_WR)


Case = Callable[[], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True, params=["spliced", "copied"])
def data_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run everything with splice, and as on a system without it."""
    if request.param == "copied":
        monkeypatch.setenv(pipes.VARIABLE, "1")
    return str(request.param)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Case], None]:
    """Run a coroutine function on one of the two loops."""

    def run(case: Case) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(case())

    return run


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


def test_long_frames_are_spliced_where_that_is_possible(
    run: Callable[[Case], None], data_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = []
    fill = Pipe.fill

    def counted(pipe: Pipe, source: int, limit: int) -> int | None:
        passed.append(count := fill(pipe, source, limit))
        return count

    monkeypatch.setattr(Pipe, "fill", counted)

    async def case() -> None:
        async with two_sides(1 << 20) as (left, right):
            near, far = await connect(left, right)
            data = os.urandom(8_000_000)
            with near, far:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                _, got = await asyncio.gather(send(near, data), receive_all(far))
            assert got == data

    run(case)
    assert (sum(count or 0 for count in passed) > 1_000_000) == (data_path == "spliced")


def test_what_cannot_be_spliced_is_copied(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        # epoll descriptors refuse with EINVAL, as files of some systems do.
        with contextlib.closing(select.epoll()) as other:
            async with two_sides(1 << 20) as (left, right):
                near, near_end = socket.socketpair()
                far, far_end = socket.socketpair()
                left.link.open(Unspliceable(near_end, other.fileno()))
                number = await asyncio.wait_for(right.opened.get(), LONG)
                right.link.join(number, Unspliceable(far_end, other.fileno()))
                data = os.urandom(4_000_000)
                with near, far:
                    near.setblocking(False)
                    far.setblocking(False)
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                    _, got = await asyncio.gather(send(near, data), receive_all(far))
                assert got == data

    run(case)


@contextlib.asynccontextmanager
async def opened_by_hand(count: int) -> AsyncIterator[tuple[Side, socket.socket, list[int]]]:
    """A link whose peer is a bare socket that has opened some streams."""
    hole, raw = socket.socketpair()
    raw.setblocking(False)
    side = make_side(hole, leads=True)
    numbers = [2 * number for number in range(1, count + 1)]
    try:
        with raw:
            for number in numbers:
                raw.sendall(Header(Kind.WINDOW, Flag.SYN, number, 0).encode())
                assert await asyncio.wait_for(side.opened.get(), LONG) == number
            yield side, raw, numbers
    finally:
        side.link.close(reset=True)
        side.poller.close()


def test_eof_behind_a_short_payload_goes_with_it(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(0) as (side, raw, _):
            ours, theirs = socket.socketpair()
            with theirs:
                number = side.link.open(SocketEnd(ours))
                syn = Header(Kind.WINDOW, Flag.SYN, number, 0).encode()
                assert await asyncio.wait_for(loop.sock_recv(raw, 1000), LONG) == syn
                theirs.sendall(b"last words")
            last = Header(Kind.DATA, Flag.FIN, number, 10).encode() + b"last words"
            assert await asyncio.wait_for(loop.sock_recv(raw, 1000), LONG) == last
            raw.sendall(Header(Kind.WINDOW, Flag.FIN, number, 0).encode())
            assert await asyncio.wait_for(side.ended.get(), LONG) == (number, None)

    run(case)


def test_ack_goes_with_the_answer(run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "ACK_DELAY", LONG * 2)

    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(1) as (side, raw, _):
            ours, theirs = socket.socketpair()
            with theirs:
                side.link.join(2, SocketEnd(ours))
                for _ in range(10):
                    await asyncio.sleep(0)
                theirs.sendall(b"hello")
                ack, answer = Header(Kind.WINDOW, Flag.ACK, 2, 0), Header(Kind.DATA, 0, 2, 5)
                expected = ack.encode() + answer.encode() + b"hello"
                assert await asyncio.wait_for(loop.sock_recv(raw, 1000), LONG) == expected

    run(case)


def test_a_target_that_speaks_first_is_read(run: Callable[[Case], None], tmp_path: Path) -> None:
    """A target is read when the poller tells of it; a file, of which it tells nothing, at once."""
    text = tmp_path / "text"
    text.write_bytes(b"hello")

    async def case() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs, text.open("rb") as file:
            theirs.sendall(b"hello")
            for end in (SocketEnd(ours), StdioEnd(file.fileno(), None)):
                async with opened_by_hand(1) as (side, raw, _):
                    side.link.join(2, end)
                    came = b""
                    while b"hello" not in came:
                        came += await asyncio.wait_for(loop.sock_recv(raw, 1000), LONG)

    run(case)


def test_ack_goes_alone_after_a_while(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(1) as (side, raw, _):
            ours, theirs = socket.socketpair()
            with theirs:
                began = loop.time()
                side.link.join(2, SocketEnd(ours))
                ack = Header(Kind.WINDOW, Flag.ACK, 2, 0).encode()
                assert await asyncio.wait_for(loop.sock_recv(raw, 1000), LONG) == ack
                # A loop's time is taken when it wakes up: a little early.
                assert loop.time() - began > link.ACK_DELAY / 2

    run(case)


def test_a_hundred_acks_that_wait_do_not_keep_data_waiting(
    run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no room before a payload."""
    monkeypatch.setattr(link, "ACK_DELAY", LONG * 2)

    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(100) as (side, raw, numbers):
            with contextlib.ExitStack() as targets:
                for number in numbers:
                    ours, theirs = socket.socketpair()
                    targets.enter_context(theirs)
                    side.link.join(number, SocketEnd(ours))
                theirs.sendall(b"last")
                acks = b"".join(Header(Kind.WINDOW, Flag.ACK, number, 0).encode() for number in numbers)
                expected = acks + Header(Kind.DATA, 0, numbers[-1], 4).encode() + b"last"
                came = b""
                while len(came) < len(expected):
                    came += await asyncio.wait_for(loop.sock_recv(raw, 10_000), LONG)
                assert came == expected

    run(case)


def test_short_frames_behind_a_long_one_are_read_many_at_a_time(
    run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []
    real = Incoming.receive

    def counted(self: Incoming, limit: int = RECEIVE_SIZE) -> Iterable[memoryview] | None:
        reads.append(limit)
        return real(self, limit)

    monkeypatch.setattr(Incoming, "receive", counted)

    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(1) as (side, raw, _):
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            with theirs:
                side.link.join(2, SocketEnd(ours))
                long, short = os.urandom(60_000), os.urandom(100)
                header = Header(Kind.DATA, 0, 2, len(long)).encode()
                frames = 1000 * (Header(Kind.DATA, 0, 2, len(short)).encode() + short)
                # The second one comes in two parts: the first can be spliced, the rest is too short for that.
                await loop.sock_sendall(raw, header + long + header + long[:50_000])
                await received(side, 110_000)
                rest = long[50_000:] + frames + Header(Kind.WINDOW, Flag.FIN, 2, 0).encode()
                sending = asyncio.create_task(loop.sock_sendall(raw, rest))
                assert await receive_all(theirs) == 2 * long + 1000 * short
                await sending
        assert len(reads) < 300

    run(case)


def test_full_pipe_of_one_stream_keeps_no_other_waiting(
    run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happened to another stream gave the stuck one new time, and the hole stayed unread."""

    def shrink(fd: int) -> int:
        # Room for one piece, of whatever size.
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 4096)
        return pipes.LEAST_CAPACITY

    monkeypatch.setattr(pipes, "grow", shrink)
    monkeypatch.setattr(link, "PATIENCE", 0.2)

    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(2) as (side, raw, (stuck, urgent)):
            joined: dict[int, socket.socket] = {}
            with contextlib.ExitStack() as targets:
                for number in (stuck, urgent):
                    ours, joined[number] = socket.socketpair()
                    targets.enter_context(joined[number]).setblocking(False)
                    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                    side.link.join(number, SocketEnd(ours))
                data, answered = os.urandom(2 * pipes.LEAST_CAPACITY), asyncio.Event()

                async def come_and_go() -> None:
                    while not answered.is_set():
                        near, far = socket.socketpair()
                        side.link.refuse(side.link.open(SocketEnd(near)), Reason.RESET)
                        far.close()
                        await asyncio.sleep(0.001)

                going = asyncio.create_task(come_and_go())
                # Alone, so that nothing of the payload is read with it.
                await loop.sock_sendall(raw, Header(Kind.DATA, 0, stuck, len(data)).encode())
                for _ in range(10):
                    await asyncio.sleep(0)
                word = Header(Kind.DATA, 0, urgent, 6).encode() + b"urgent"
                end = Header(Kind.WINDOW, Flag.FIN, stuck, 0).encode()
                sending = asyncio.create_task(loop.sock_sendall(raw, data + word + end))
                assert await asyncio.wait_for(loop.sock_recv(joined[urgent], 100), LONG) == b"urgent"
                answered.set()
                await going
                await sending
                assert await receive_all(joined[stuck]) == data

    run(case)


def test_streams_reset_with_bytes_in_their_pipes_leave_no_descriptor(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        before = len(os.listdir("/proc/self/fd"))
        async with two_sides(1 << 20) as (left, right):
            pairs = [await connect(left, right) for _ in range(3)]
            sending = [asyncio.create_task(send(near, bytes(2_000_000))) for near, _ in pairs]
            await received(right, 3 * INITIAL_WINDOW)
            right.link.refuse_all(Reason.CLOSING)
            await asyncio.gather(*sending, return_exceptions=True)
            for near, far in pairs:
                near.close()
                far.close()
        assert len(os.listdir("/proc/self/fd")) == before

    run(case)


def test_sink_that_breaks_with_a_full_pipe_and_a_backlog_ends_its_stream_only_once(
    run: Callable[[Case], None],
) -> None:
    """A backlog that could not be written used to be cut, or written twice: an exception ended the tool."""

    async def case() -> None:
        async with two_sides(1 << 20) as (left, right):
            near, near_end = socket.socketpair()
            read_end, write_end = os.pipe()
            left.link.open(SocketEnd(near_end))
            number = await asyncio.wait_for(right.opened.get(), LONG)
            right.link.join(number, StdioEnd(None, write_end))
            near.setblocking(False)
            loop = asyncio.get_running_loop()
            # What stdout takes, what its pipe holds, and a small frame behind both.
            goal = 0
            for size in (pipes.grow(write_end), 100_000, 10):
                goal += size
                await loop.sock_sendall(near, bytes(size))
                await received(right, goal)
            os.close(read_end)
            assert isinstance((await asyncio.wait_for(right.ended.get(), LONG))[1], Broken)
            assert await asyncio.wait_for(left.ended.get(), LONG) == (number, Reset(number, Reason.RESET, True))
            near.close()
            os.close(write_end)

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
                assert await asyncio.wait_for(right.ended.get(), LONG) == (1, Reset(1, Reason.RESET, True))
                far.setblocking(False)
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(asyncio.get_running_loop().sock_recv(far, 1), LONG)

    run(case)


@pytest.mark.parametrize("before", [b"\xff\xf4", bytes(1 << 20)], ids=["a few bytes", "bulk"])
def test_bytes_behind_urgent_ones_are_not_held_back(run: Callable[[Case], None], before: bytes) -> None:
    """A read ends at TCP's urgent mark, which was taken for "no more"; an FTP client's ABOR hung."""

    async def case() -> None:
        async with two_sides() as (left, right):
            with socket.create_server(("127.0.0.1", 0)) as server:
                client = socket.create_connection(server.getsockname())
                accepted, _ = server.accept()
            far, far_end = socket.socketpair()
            with client, far:
                far.setblocking(False)
                left.link.open(SocketEnd(accepted))
                right.link.join(await asyncio.wait_for(right.opened.get(), LONG), SocketEnd(far_end))
                await asyncio.to_thread(client.sendall, before)
                # Marked is the last byte.
                client.send(b"\xff\xf2", socket.MSG_OOB)
                client.send(b"ABOR\r\n")
                wanted = before + b"\xff\xf2ABOR\r\n"
                got = b""
                while len(got) < len(wanted):
                    got += await asyncio.wait_for(asyncio.get_running_loop().sock_recv(far, 1 << 20), LONG)
                assert got == wanted

    run(case)


def test_bytes_behind_a_passed_descriptor_are_not_held_back(run: Callable[[Case], None]) -> None:
    """A read of a Unix socket ends before a message with one."""

    async def case() -> None:
        async with two_sides() as (left, right):
            near, far = await connect(left, right)
            with near, far:
                near.send(b"a")
                socket.send_fds(near, [b"b"], [near.fileno()])
                near.send(b"cccc")
                got = b""
                while len(got) < 6:
                    got += await asyncio.wait_for(asyncio.get_running_loop().sock_recv(far, 10), LONG)
                assert got == b"abcccc"

    run(case)


def test_a_protocol_error_while_a_stream_waits_to_send_ends_the_link(run: Callable[[Case], None]) -> None:
    """What was thrown out of the ring did not know it, and was taken out once more: a traceback, also under -k."""

    async def case() -> None:
        here, there = socket.socketpair()
        loop = asyncio.get_running_loop()
        side = Side(Poller(loop))
        side.link = Link(loop, side.poller, here, True, side)
        near, near_end = socket.socketpair()
        with there, near:
            near.send(b"something to send")
            side.link.open(SocketEnd(near_end))
            # Before its first turn.
            side.link.start(b"\xff" * HEADER.size)
            assert isinstance(await asyncio.wait_for(side.lost.get(), LONG), PeerError)
            side.link.close(reset=True)
            side.poller.close()

    run(case)


def test_a_sandbox_without_splice_costs_no_link(run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    async def case() -> None:
        async with two_sides() as (left, right):
            near, far = await connect(left, right)
            with near, far:
                data = os.urandom(3_000_000)
                _, got = await asyncio.gather(send(near, data), receive_all(far))
            assert got == data

    monkeypatch.setattr(os, "splice", unknown)
    run(case)


def test_streams_that_are_reset_while_the_hole_is_full_leave_nothing(run: Callable[[Case], None]) -> None:
    """They stayed in the ring, out of which nothing was taken: a peer could fill the memory with them."""

    async def case() -> None:
        here, there = socket.socketpair()
        loop = asyncio.get_running_loop()
        side = Side(Poller(loop))
        side.link = Link(loop, side.poller, here, True, side)
        with there:
            there.setblocking(False)
            side.link.start(b"")
            bulk, bulk_end = socket.socketpair()
            with bulk:
                bulk.setblocking(False)
                number = side.link.open(SocketEnd(bulk_end))
                # Credit without end, and nobody who reads: the hole is full.
                await loop.sock_sendall(there, Header(Kind.WINDOW, Flag.ACK, number, 1 << 30).encode())
                feeding = asyncio.ensure_future(loop.sock_sendall(bulk, bytes(16 << 20)))
                while not side.link._outgoing.waits:  # noqa: ASYNC110 - the kernel sets no event
                    await asyncio.sleep(0.001)
                for theirs in range(2, 100, 2):
                    await loop.sock_sendall(there, Header(Kind.WINDOW, Flag.SYN, theirs, 0).encode())
                    assert await asyncio.wait_for(side.opened.get(), LONG) == theirs
                    near, near_end = socket.socketpair()
                    with near:
                        side.link.join(theirs, SocketEnd(near_end))
                        near.send(b"an answer")
                        await loop.sock_sendall(there, Header(Kind.WINDOW, Flag.RST, theirs, 0).encode())
                        await asyncio.wait_for(side.ended.get(), LONG)
                assert side.link.stream_count == 1
                assert len(side.link._ring) <= 1
                feeding.cancel()
                side.link.close(reset=True)
                side.poller.close()

    run(case)


def test_refused_stream_ends_with_its_reason(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        async with two_sides() as (left, right):
            near, near_end = socket.socketpair()
            with near:
                left.link.open(SocketEnd(near_end))
                right.link.refuse(await asyncio.wait_for(right.opened.get(), LONG), Reason.REFUSED)
                assert await asyncio.wait_for(left.ended.get(), LONG) == (1, Reset(1, Reason.REFUSED, False))
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


def test_a_small_message_shares_the_hole_where_another_stream_waits(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        async with two_sides(4608) as (left, right):
            near, far = await connect(left, right)
            bulk, bulk_far = await connect(left, right)
            with near, far, bulk, bulk_far:
                for sock in (near, bulk):
                    sock.send(b"1")
                await received(right, 2)
                count = 2 + bulk.send(bytes(SPARSE + 1))
                await received(right, count)
                # The short rest of what was longer, while another stream waits.
                count += near.send(bytes(2 * FIRST_FRAME))
                await received(right, count - 2 * FIRST_FRAME + 1)
                count += bulk.send(b"2")
                await received(right, count)
                assert left.link._outgoing.shared_at == float("-inf")
                # Until it is known again as one of small messages.
                count += near.send(b"3")
                await received(right, count)
                count += bulk.send(bytes(2 * FIRST_FRAME))
                await received(right, count - 2 * FIRST_FRAME + 1)
                count += near.send(b"4")
                await received(right, count)
                assert left.link._outgoing.shared_at > float("-inf")
                assert right.link._outgoing.shared_at == float("-inf")

    run(case)


def test_the_poller_spins_for_small_messages_only(run: Callable[[Case], None]) -> None:
    """Behind one message it spun for all the bulk that was spliced, and for the loop while that had work of ours."""

    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(1) as (side, raw, (number,)):
            ours, theirs = socket.socketpair()

            def spins() -> bool:
                return side.poller.may_spin

            with theirs:
                theirs.setblocking(False)
                side.link.join(number, SocketEnd(ours))
                await loop.sock_sendall(raw, Header(Kind.DATA, Flag(0), number, 10).encode() + bytes(10))
                await received(side, 10)
                assert spins()
                half = Header(Kind.DATA, Flag(0), number, 4 * WORTH_SPLICING).encode() + bytes(2 * WORTH_SPLICING)
                await loop.sock_sendall(raw, half)
                await received(side, 10 + 2 * WORTH_SPLICING)
                assert not spins()
                before = side.link.bytes_out
                await loop.sock_sendall(theirs, b"!")
                async with asyncio.timeout(LONG):
                    while side.link.bytes_out == before:  # noqa: ASYNC110 - there is no event to wait for
                        await asyncio.sleep(0)
                assert spins()
                side.link.announce(number, 1)
                assert not spins()

    run(case)


def test_who_sent_little_goes_before_who_sends_much(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        async with opened_by_hand(3) as (side, _, numbers):
            pairs = [socket.socketpair() for _ in numbers]
            with contextlib.ExitStack() as stack:
                for number, (ours, theirs) in zip(numbers, pairs, strict=True):
                    stack.enter_context(theirs)
                    side.link.join(number, SocketEnd(ours))
                async with asyncio.timeout(LONG):
                    while side.link._ring:  # noqa: ASYNC110 - there is no event to wait for
                        await asyncio.sleep(0)
                streams = side.link._streams
                # No turn comes: the hole takes nothing.
                side.link._outgoing.writable = False
                streams[numbers[0]].supply.sparse = streams[numbers[1]].supply.sparse = False
                for number in numbers:
                    side.link._on_source(streams[number], READ)
                assert [stream.number for stream in side.link._ring] == [numbers[2], *numbers[:2]]

    run(case)
