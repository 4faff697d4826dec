"""Storage that stands still holds its own stream up, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from punchtunnel.ends import stdio
from punchtunnel.ends.filesink import FileSink
from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.ends.stdio import StdioEnd
from punchtunnel.link.stream import Broken
from punchtunnel.protocol.frames import Goodbye

from ..ends.storage import Storage
from .links import LONG, Case, Side, connect, receive_all, received, send, two_sides

# More than the ring and a pipe take, less than a window that has not grown.
SIZE = 200_000


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """A pipe that is written as a file is: each write to it blocks until it is read."""
    monkeypatch.setattr(stdio, "_sink_of", FileSink)
    monkeypatch.setattr("punchtunnel.ends.filesink.ROOM", 4096)
    here, there = os.pipe()
    yield here, there
    os.close(here)
    os.close(there)


async def to_storage(left: Side, right: Side, fd: int) -> tuple[int, asyncio.Task[None]]:
    """Open a stream to stdout there, and send SIZE bytes on it, and EOF."""
    near, near_end = socket.socketpair()
    near.setblocking(False)
    number = left.link.open(SocketEnd(near_end))
    assert await asyncio.wait_for(right.opened.get(), LONG) == number
    right.link.join(number, StdioEnd(None, fd))

    async def feed() -> None:
        with near:
            await send(near, bytes(range(250)) * (SIZE // 250))
            assert await receive_all(near) == b""

    return number, asyncio.create_task(feed())


async def read_storage(fd: int) -> bytes:
    """Read until there is EOF, without holding the loop up."""
    data = bytearray()
    while piece := await asyncio.to_thread(os.read, fd, 65536):
        data += piece
    return bytes(data)


def test_other_streams_go_on_and_every_byte_arrives_in_the_end(
    run: Callable[[Case], None], storage: tuple[int, int]
) -> None:
    """A disk that stood still for 50 s cut the link after 40 s."""

    async def case() -> None:
        async with two_sides() as (left, right):
            number, feeding = await to_storage(left, right, storage[1])
            await received(right, SIZE)
            near, far = await connect(left, right)
            with near, far:
                _, got = await asyncio.gather(send(near, b"alive"), receive_all(far))
                assert got == b"alive"
                far.close()
            assert await asyncio.wait_for(right.ended.get(), LONG) != (number, None)
            assert right.link.stream_count == 1, "not over before it is written"
            assert await read_storage(storage[0]) == bytes(range(250)) * (SIZE // 250)
            assert await asyncio.wait_for(right.ended.get(), LONG) == (number, None)
            assert right.link.stream_count == 0
            await feeding

    run(case)


def test_a_link_that_ends_well_waits_for_the_storage(run: Callable[[Case], None], storage: tuple[int, int]) -> None:
    """Exit status 0 means that it is written."""

    async def case() -> None:
        async with two_sides() as (left, right):
            number, feeding = await to_storage(left, right, storage[1])
            await received(right, SIZE)
            await feeding
            left.link.go_away(Goodbye.NORMAL)
            await asyncio.sleep(0)
            left.link.close(reset=False)
            while right.link.is_open:  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0)
            assert right.lost.empty()
            assert len(await read_storage(storage[0])) == SIZE
            assert await asyncio.wait_for(right.ended.get(), LONG) == (number, None)
            assert await asyncio.wait_for(right.lost.get(), LONG) is None
            assert not right.link.cut

    run(case)


def test_a_file_has_every_byte_when_its_stream_is_over(run: Callable[[Case], None], tmp_path: Path) -> None:
    path = tmp_path / "file"

    async def case() -> None:
        async with two_sides() as (left, right):
            with path.open("wb", buffering=0) as file:
                number, feeding = await to_storage(left, right, file.fileno())
                assert await asyncio.wait_for(right.ended.get(), LONG) == (number, None)
                assert path.read_bytes() == bytes(range(250)) * (SIZE // 250)
                assert os.fstat(file.fileno()).st_rdev == os.stat(os.devnull).st_rdev
                await feeding

    run(case)


def test_an_error_of_the_storage_breaks_the_stream_though_no_more_bytes_come(
    run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A disk that is full is told when it is, not with the next byte."""
    monkeypatch.setattr(stdio, "_sink_of", FileSink)
    (tmp_path / "file").touch()

    async def case() -> None:
        async with two_sides() as (left, right):
            with (tmp_path / "file").open("rb") as unwritable:
                near, near_end = socket.socketpair()
                with near:
                    number = left.link.open(SocketEnd(near_end))
                    assert await asyncio.wait_for(right.opened.get(), LONG) == number
                    right.link.join(number, StdioEnd(None, unwritable.fileno(), keep_open=True))
                    near.send(b"a few")
                    ended, failure = await asyncio.wait_for(right.ended.get(), LONG)
                    assert ended == number
                    assert isinstance(failure, Broken)
                    assert not failure.reading

    run(case)


# ---- a stdin


@pytest.fixture(params=[errno.EAGAIN, errno.EOPNOTSUPP], ids=["cold", "cannot tell"])
def still(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """Storage that gives nothing until it `goes`."""
    storage = Storage(request.param, monkeypatch)
    yield storage
    storage.goes.set()
    storage.join()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "source"
    path.write_bytes(bytes(range(250)) * (SIZE // 250))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


async def from_storage(left: Side, right: Side, fd: int) -> tuple[int, socket.socket]:
    """Open a stream from stdin here, and return the socket that it leads to."""
    number = left.link.open(StdioEnd(fd, None, discard=True))
    assert await asyncio.wait_for(right.opened.get(), LONG) == number
    far, far_end = socket.socketpair()
    far.setblocking(False)
    right.link.join(number, SocketEnd(far_end))
    return number, far


def test_other_streams_go_on_while_a_read_stands_still(
    run: Callable[[Case], None], still: Storage, file: int, data_path: str
) -> None:
    """The loop stood still with it, so that the peer heard nothing and gave the link up after 40 s."""

    async def case() -> None:
        async with two_sides() as (left, right):
            number, stalled = await from_storage(left, right, file)
            await asyncio.to_thread(still.wait_for_reads, 1)
            near, far = await connect(left, right)
            with near, far, stalled:
                _, got = await asyncio.gather(send(near, b"alive"), receive_all(far))
                assert got == b"alive"
                still.goes.set()
                assert await receive_all(stalled) == bytes(range(250)) * (SIZE // 250)
                stalled.close()
                far.close()
                ended = {await asyncio.wait_for(left.ended.get(), LONG) for _ in range(2)}
            assert (number, None) in ended

    run(case)


def test_a_read_that_fails_late_breaks_its_stream(run: Callable[[Case], None], still: Storage, file: int) -> None:
    still.breaks_at = 0

    async def case() -> None:
        async with two_sides() as (left, right):
            number, far = await from_storage(left, right, file)
            with far:
                await asyncio.to_thread(still.wait_for_reads, 1)
                still.goes.set()
                ended, failure = await asyncio.wait_for(left.ended.get(), LONG)
            assert ended == number
            assert isinstance(failure, Broken)
            assert failure.reading
            assert failure.error.errno == errno.EIO

    run(case)


def test_a_link_ends_at_once_while_a_read_stands_still(run: Callable[[Case], None], still: Storage, file: int) -> None:
    async def case() -> None:
        async with two_sides() as (left, right):
            _, far = await from_storage(left, right, file)
            with far:
                await asyncio.to_thread(still.wait_for_reads, 1)
                left.link.close(reset=True)
                assert not left.link.is_open

    run(case)
