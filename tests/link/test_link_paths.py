"""The ways of bytes through a link: spliced or copied, and what a sink does not take."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import socket
from collections.abc import Callable, Iterable

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.ends.stdio import StdioEnd
from punchtunnel.link import splicing
from punchtunnel.link.incoming import RECEIVE_SIZE, Incoming
from punchtunnel.link.stream import Broken
from punchtunnel.protocol.credit import INITIAL_WINDOW
from punchtunnel.protocol.events import Reset
from punchtunnel.protocol.frames import Flag, Header, Kind, Reason
from punchtunnel.system import pipes
from punchtunnel.system.pipes import Pipe

from ..conftest import Unspliceable
from .links import LONG, Case, connect, opened_by_hand, receive_all, received, send, two_sides

pytestmark = pytest.mark.usefixtures("data_path")


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
    monkeypatch.setattr(splicing, "PATIENCE", 0.2)

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
            assert await asyncio.wait_for(left.ended.get(), LONG) == (number, Reset(Reason.NOT_TAKEN, True))
            near.close()
            os.close(write_end)

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
