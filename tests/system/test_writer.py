"""A thread that writes: bytes in order, a bound, errors that are told, and an end that is waited for."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchtunnel.system.writer import Writer

LONG = 30.0
SIZE = 1000


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Storage that stands still until it is read."""
    here, there = os.pipe()
    yield here, there
    os.close(here)
    os.close(there)


class Told(threading.Event):
    """Waits for the thread."""

    def once(self) -> None:
        assert self.wait(LONG)
        self.clear()


def put_all(writer: Writer, data: bytes, told: Told) -> None:
    view = memoryview(data)
    while view:
        view = view[writer.put(view) :]
        if view:
            told.once()


def test_all_bytes_arrive_in_order_whatever_their_pieces(tmp_path: Path) -> None:
    data = bytes(range(251)) * 400
    told = Told()
    with (tmp_path / "file").open("wb", buffering=0) as file:
        writer = Writer(file.fileno(), SIZE, told.set)
        for begin in range(0, len(data), 777):
            put_all(writer, data[begin : begin + 777], told)
        while not writer.finish(lambda: os.fsync(file.fileno())):
            told.once()
    assert (tmp_path / "file").read_bytes() == data


def test_what_stands_still_takes_a_bounded_number_of_bytes_and_holds_nobody_up(pipe: tuple[int, int]) -> None:
    here, there = pipe
    told = Told()
    writer = Writer(there, SIZE, told.set)
    data, taken = memoryview(bytes(1 << 20)), 0
    while writer.wait(0.2, SIZE - 1):
        taken += writer.put(data)
    assert taken <= 65536 + SIZE
    assert not writer.finish(lambda: None), "not before all is written"
    read = 0
    while read < taken:
        read += len(os.read(here, 65536))
    told.once()
    while not writer.finish(lambda: None):
        told.once()


def test_an_error_is_told_once_and_what_came_after_it_is_not_written(tmp_path: Path) -> None:
    told = Told()
    with (tmp_path / "file").open("wb", buffering=0) as file, (tmp_path / "file").open("rb") as unwritable:
        writer = Writer(unwritable.fileno(), SIZE, told.set)
        writer.put(memoryview(b"one"))
        told.once()
        with pytest.raises(OSError, match="Bad file descriptor"):
            writer.put(memoryview(b"two"))
        assert writer.wait(LONG)
        assert file.tell() == 0
        assert (tmp_path / "file").read_bytes() == b""


def test_the_end_tells_what_could_not_be_written(tmp_path: Path) -> None:
    told = Told()
    (tmp_path / "file").touch()
    with (tmp_path / "file").open("rb") as unwritable:
        writer = Writer(unwritable.fileno(), SIZE, told.set)
        writer.put(memoryview(b"all"))
        told.once()
        with pytest.raises(OSError, match="Bad file"):
            writer.finish(lambda: None)


def test_the_end_tells_what_could_not_be_kept(tmp_path: Path) -> None:
    """A full disk is known at close only, on NFS."""
    told = Told()

    def last() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (tmp_path / "file").open("wb", buffering=0) as file:
        writer = Writer(file.fileno(), SIZE, told.set)
        writer.put(memoryview(b"all"))
        assert not writer.finish(last)
        told.once()
        with pytest.raises(OSError, match="No space"):
            writer.finish(last)


def test_who_gives_up_waits_no_longer_than_told_and_the_thread_ends_later(pipe: tuple[int, int]) -> None:
    here, there = pipe
    gone = threading.Event()
    writer = Writer(there, 1 << 20)
    assert writer.put(memoryview(bytes(1 << 20))) == 1 << 20
    writer.abandon(0.01, gone.set)
    assert not gone.is_set(), "it writes still"
    os.read(here, 1 << 20)
    while not gone.wait(0.01):
        os.set_blocking(here, False)
        try:
            os.read(here, 1 << 20)
        except BlockingIOError:
            continue


def test_without_a_thread_it_writes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ended = []
    with (tmp_path / "file").open("wb", buffering=0) as file:
        writer = Writer(file.fileno(), SIZE)
        assert writer.put(memoryview(b"all")) == 3
        assert writer.finish(lambda: ended.append(True))
    assert (tmp_path / "file").read_bytes() == b"all"
    assert ended == [True]
