"""A stdin that is a file: what is in memory is read at once, and what is not holds nobody up."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchtunnel.ends import filesource
from punchtunnel.ends.filesource import STRIDE, FileSource
from punchtunnel.ends.stdio import StdioEnd
from punchtunnel.system import proc
from punchtunnel.system.reader import PIECE

from .storage import LONG, Storage

DATA = bytes(range(251)) * 12_000


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    """A file of DATA, of which another program has read the first line of 100 bytes."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    fd = os.open(path, os.O_RDONLY)
    assert os.read(fd, 100) == DATA[:100]
    yield fd
    os.close(fd)


@pytest.fixture(params=[errno.EAGAIN, errno.EOPNOTSUPP], ids=["cold", "cannot tell"])
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """Storage that stands still, and has nothing in memory, or cannot tell."""
    storage = Storage(request.param, monkeypatch)
    yield storage
    storage.goes.set()
    storage.join()


@pytest.fixture
def end(file: int) -> Iterator[StdioEnd]:
    end = StdioEnd(file, None)
    yield end
    end.close()


def read(end: StdioEnd, size: int) -> bytes | None:
    buffer = bytearray(size)
    count = end.read_into(memoryview(buffer))
    return None if count is None else bytes(buffer[:count])


class Waiting:
    """Waits for what an end tells, edge-triggered as the poller is."""

    def __init__(self, end: StdioEnd) -> None:
        self._epoll = select.epoll()
        assert end.source_fd is not None
        self._epoll.register(end.source_fd, select.EPOLLIN | select.EPOLLET)
        assert self._epoll.poll(0), "the first look is free"

    def read(self, end: StdioEnd, size: int = 100_000) -> bytes:
        while (data := read(end, size)) is None:
            assert self._epoll.poll(LONG)
        return data

    def close(self) -> None:
        self._epoll.close()


@pytest.fixture
def waiting(end: StdioEnd) -> Iterator[Waiting]:
    waiting = Waiting(end)
    yield waiting
    waiting.close()


def test_what_is_in_memory_is_read_at_once_and_the_position_moves(file: int) -> None:
    end = StdioEnd(file, None)
    assert read(end, 1000) == DATA[100:1100]
    assert os.lseek(file, 0, os.SEEK_CUR) == 1100
    os.lseek(file, -10, os.SEEK_END)
    assert read(end, 1000) == DATA[-10:]
    assert read(end, 1000) == b""
    end.close()
    assert "reader" not in {thread.name for thread in threading.enumerate()}


def test_storage_that_stands_still_holds_nobody_up(
    storage: Storage, end: StdioEnd, waiting: Waiting, file: int
) -> None:
    assert read(end, 1000) is None
    storage.wait_for_reads(1)
    assert read(end, 1000) is None
    assert os.lseek(file, 0, os.SEEK_CUR) == 100, "nothing was taken"
    storage.goes.set()
    assert waiting.read(end, 1000) == DATA[100:1100]
    assert os.lseek(file, 0, os.SEEK_CUR) == 1100, "what was read ahead belongs to who reads on"


def test_every_byte_comes_in_order_and_then_the_end(
    storage: Storage, end: StdioEnd, waiting: Waiting, file: int
) -> None:
    storage.goes.set()
    got = bytearray()
    while piece := waiting.read(end):
        got += piece
    assert got == DATA[100:]
    assert os.lseek(file, 0, os.SEEK_CUR) == len(DATA)


def test_what_is_in_memory_again_is_read_at_once_again(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesource, "PIECES", 1)
    storage = Storage(errno.EAGAIN, monkeypatch)
    storage.goes.set()
    end = StdioEnd(file, None)
    waiting = Waiting(end)
    assert waiting.read(end, PIECE) == DATA[100 : 100 + PIECE]
    storage.error = 0
    assert read(end, 1000) == DATA[100 + PIECE : 1100 + PIECE]
    assert storage.reads == 1
    waiting.close()
    end.close()


def test_no_more_is_read_ahead_than_two_pieces(storage: Storage, end: StdioEnd, waiting: Waiting) -> None:
    storage.goes.set()
    assert waiting.read(end, 1)
    storage.wait_for_reads(2)
    for _ in range(10):
        assert waiting.read(end, 1)
    assert storage.reads == 2


def test_an_error_comes_after_the_bytes_before_it(storage: Storage, end: StdioEnd, waiting: Waiting) -> None:
    storage.breaks_at = 100 + PIECE
    storage.goes.set()
    got = bytearray()
    while len(got) < PIECE:
        got += waiting.read(end)
    assert got == DATA[100 : 100 + PIECE]
    with pytest.raises(OSError, match="Input/output"):
        waiting.read(end)


def test_closing_while_a_read_hangs_waits_for_nothing(storage: Storage, file: int) -> None:
    end = StdioEnd(file, None)
    told = end.source_fd
    assert told is not None
    assert read(end, 1000) is None
    storage.wait_for_reads(1)
    end.close()
    assert os.fstat(told), "the thread would tell a stranger's descriptor"
    storage.goes.set()
    storage.join()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(told)


def test_closing_between_two_reads_leaves_nothing(storage: Storage, file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesource, "PIECES", 1)
    storage.error = errno.EAGAIN
    storage.goes.set()
    end = StdioEnd(file, None)
    told = end.source_fd
    assert told is not None
    waiting = Waiting(end)
    assert waiting.read(end)
    waiting.close()
    end.close()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(told)
    assert "reader" not in {thread.name for thread in threading.enumerate()}


def test_without_a_thread_it_reads_by_itself(
    storage: Storage, end: StdioEnd, file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    storage.goes.set()
    got = bytearray()
    while piece := read(end, 100_000):
        got += piece
    assert got == DATA[100:]


def test_a_file_without_a_position_is_read_as_it_comes() -> None:
    """As trace_pipe is, which is a regular file for stat(2)."""
    here, there = os.pipe()
    source = FileSource(here)
    buffer = memoryview(bytearray(100))
    try:
        assert source.read_into(buffer) is None
        os.write(there, b"traced")
        assert select.select([source.wait_fd], [], [], LONG)[0]
        while (count := source.read_into(buffer)) is None:
            os.sched_yield()
        assert bytes(buffer[:count]) == b"traced"
        os.close(there)
        while (count := source.read_into(buffer)) is None:
            os.sched_yield()
        assert count == 0
    finally:
        source.close()
        os.close(here)


@pytest.mark.parametrize("missing", [None, 0, STRIDE, 3 * STRIDE - 1])
def test_a_file_is_spliced_while_it_is_in_memory(
    file: int, monkeypatch: pytest.MonkeyPatch, missing: int | None
) -> None:
    """splice(2) waits for the storage."""

    def read_now(fd: int, view: memoryview, offset: int) -> int:
        if missing is not None and offset // STRIDE == (100 + missing) // STRIDE:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.preadv(fd, [view], offset)

    monkeypatch.setattr(filesource, "read_now", read_now)
    end = StdioEnd(file, None)
    assert end.spliced_source == file
    assert end.is_at_hand(3 * STRIDE) is (missing is None)
    assert os.lseek(file, 0, os.SEEK_CUR) == 100
    end.close()


def test_what_reaches_beyond_the_end_is_not_spliced(file: int) -> None:
    end = StdioEnd(file, None)
    os.lseek(file, -STRIDE, os.SEEK_END)
    assert end.is_at_hand(STRIDE)
    assert not end.is_at_hand(STRIDE + 1)
    end.close()


def test_a_file_system_in_memory_needs_no_thread(file: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """/tmp is one on many machines, and cannot tell that; by the thread it cost a sixth of the speed."""
    storage = Storage(errno.EOPNOTSUPP, monkeypatch)
    monkeypatch.setattr(proc, "file_system", lambda _: "tmpfs")
    end = StdioEnd(file, None)
    assert read(end, 1000) == DATA[100:1100]
    assert end.is_at_hand(STRIDE)
    os.lseek(file, 0, os.SEEK_END)
    assert read(end, 1000) == b""
    assert storage.reads == 0
    end.close()


def test_nothing_is_spliced_past_what_the_thread_has(storage: Storage, end: StdioEnd, waiting: Waiting) -> None:
    storage.goes.set()
    assert waiting.read(end, 1)
    storage.error = 0
    assert not end.is_at_hand(1)
