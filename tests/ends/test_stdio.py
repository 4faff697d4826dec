"""Descriptors of every kind are read and written without blocking and without touching inherited flags."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchtunnel.ends.stdio import StdioEnd


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    pair = os.pipe()
    yield pair
    for fd in pair:
        with contextlib.suppress(OSError):
            os.close(fd)


def read(end: StdioEnd, size: int = 100) -> bytes | None:
    buffer = bytearray(size)
    count = end.read_into(memoryview(buffer))
    return None if count is None else bytes(buffer[:count])


@pytest.fixture(params=["reopened", "polled"])
def no_proc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with /proc, and as on a system without it."""
    if request.param == "polled":
        real = os.open

        def refuse(path: str, *arguments: int) -> int:
            if path.startswith("/proc/"):
                raise FileNotFoundError(path)
            return real(path, *arguments)

        monkeypatch.setattr(os, "open", refuse)
    return str(request.param)


def test_pipe_is_read_without_blocking_and_keeps_its_flags(pipe: tuple[int, int], no_proc: str) -> None:
    flags = fcntl.fcntl(pipe[0], fcntl.F_GETFL)
    end = StdioEnd(pipe[0], None)
    assert read(end) is None
    os.write(pipe[1], b"hello")
    assert read(end) == b"hello"
    assert read(end) is None
    os.close(pipe[1])
    assert read(end) == b""
    assert fcntl.fcntl(pipe[0], fcntl.F_GETFL) == flags
    end.close()


def test_full_pipe_takes_no_more_and_does_not_block(pipe: tuple[int, int], no_proc: str) -> None:
    flags = fcntl.fcntl(pipe[1], fcntl.F_GETFL)
    end = StdioEnd(None, pipe[1])
    data = memoryview(bytes(100_000))
    taken = 0
    while count := end.write(data):
        taken += count
    assert taken >= 4096
    assert len(os.read(pipe[0], 4096)) == 4096
    assert fcntl.fcntl(pipe[1], fcntl.F_GETFL) == flags
    end.close()


def test_eof_reaches_the_reader_of_the_pipe(pipe: tuple[int, int], no_proc: str) -> None:
    end = StdioEnd(None, pipe[1])
    assert end.write(memoryview(b"last")) == 4
    end.finish_writing()
    assert os.read(pipe[0], 100) == b"last"
    assert os.read(pipe[0], 100) == b""
    # The number stays occupied, so that no socket can take its place.
    assert os.fstat(pipe[1]).st_rdev == os.stat(os.devnull).st_rdev
    end.close()


def test_eof_is_kept_back_when_more_sessions_follow(pipe: tuple[int, int]) -> None:
    end = StdioEnd(None, pipe[1], keep_open=True)
    end.finish_writing()
    end.close()
    os.write(pipe[1], b"next session")
    assert os.read(pipe[0], 100) == b"next session"


def test_broken_pipe_is_told(pipe: tuple[int, int], no_proc: str) -> None:
    end = StdioEnd(None, pipe[1])
    os.close(pipe[0])
    with pytest.raises(BrokenPipeError):
        end.write(memoryview(b"x"))
    end.close()


def test_socket_as_stdin_and_stdout_keeps_its_flags() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        flags = fcntl.fcntl(ours, fcntl.F_GETFL)
        end = StdioEnd(ours.fileno(), os.dup(ours.fileno()))
        assert read(end) is None
        theirs.sendall(b"in")
        assert read(end) == b"in"
        assert end.write(memoryview(b"out")) == 3
        assert fcntl.fcntl(ours, fcntl.F_GETFL) == flags
        end.finish_writing()
        assert theirs.recv(100) == b"out"
        assert theirs.recv(100) == b""
        end.close()


def test_terminal_is_read_line_by_line() -> None:
    master, slave = pty.openpty()
    try:
        flags = fcntl.fcntl(slave, fcntl.F_GETFL)
        end = StdioEnd(slave, None)
        assert end.stdin_is_terminal
        assert read(end) is None
        os.write(master, b"typed\n")
        assert read(end) == b"typed\n"
        assert fcntl.fcntl(slave, fcntl.F_GETFL) == flags
        end.close()
    finally:
        os.close(master)
        os.close(slave)


def test_regular_file_and_null_are_read_and_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as source, open(os.devnull, "wb") as sink:
        end = StdioEnd(source.fileno(), sink.fileno())
        assert end.sink_fd is None
        assert read(end, 4) == b"cont"
        assert read(end) == b"ent"
        assert read(end) == b""
        assert end.write(memoryview(b"gone")) == 4
        end.close()


def test_whatever_can_block_is_waited_for() -> None:
    """An eventfd is neither pipe nor terminal; it stopped the whole process, signals and all."""
    fd = os.eventfd(0)
    try:
        end = StdioEnd(fd, None)
        assert end.source_fd == fd
        assert read(end) is None
        os.eventfd_write(fd, 1)
        assert read(end) == (1).to_bytes(8, sys.byteorder)
        end.close()
    finally:
        os.close(fd)


def test_file_in_append_mode_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old ")
    with path.open("ab") as sink:
        end = StdioEnd(None, sink.fileno())
        assert end.write(memoryview(b"new")) == 3
        end.close()
    assert path.read_bytes() == b"old new"


def test_closed_stdin_is_eof_and_closed_stdout_an_error_at_the_first_byte() -> None:
    end = StdioEnd(None, None)
    assert read(end) == b""
    with pytest.raises(OSError, match="closed") as caught:
        end.write(memoryview(b"x"))
    assert caught.value.errno == errno.EBADF
    end.finish_writing()
    end.close()


def test_discarding_end_takes_everything() -> None:
    assert StdioEnd(None, None, discard=True).write(memoryview(bytes(1000))) == 1000


def test_directory_as_stdin_is_an_error_of_the_source(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(IsADirectoryError):
            read(StdioEnd(fd, None))
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", ["null", "file", "pipe", "terminal"])
def test_stdin_that_is_open_for_writing_only_is_empty_and_said_once(tmp_path: Path, kind: str) -> None:
    """nohup leaves such a stdin, and a transfer that only received ended with "cannot read stdin"."""
    master, slave = pty.openpty()
    inner, outer = os.pipe()
    os.write(outer, b"for the reader of the pipe")
    paths = {"null": os.devnull, "file": str(tmp_path / "file"), "terminal": os.ttyname(slave)}
    fd = os.dup(outer) if kind == "pipe" else os.open(paths[kind], os.O_WRONLY | os.O_CREAT | os.O_NOCTTY)
    told: list[OSError] = []
    end = StdioEnd(fd, None, unreadable=told.append)
    assert end.source_fd is None
    assert end.spliced_source is None
    assert read(end) == b""
    assert [error.errno for error in told] == [errno.EBADF]
    end.close()
    assert os.read(inner, 100) == b"for the reader of the pipe"
    for one in (fd, master, slave, inner, outer):
        os.close(one)


@pytest.mark.parametrize("kind", ["terminal", "file"])
def test_eio_ends_a_terminal_and_is_an_error_of_a_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A background job may not read the terminal of a shell that has gone; of a file, bytes would be missing."""

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "readv", fail)
    monkeypatch.setattr(os, "preadv", fail)
    path = tmp_path / "file"
    path.touch()
    master, slave = pty.openpty()
    fd = slave if kind == "terminal" else os.open(path, os.O_RDONLY)
    end = StdioEnd(fd, None)
    if kind == "terminal":
        assert read(end) == b""
    else:
        with pytest.raises(OSError, match="Input/output"):
            read(end)
        os.close(fd)
    end.close()
    os.close(slave)
    os.close(master)


def test_eof_reaches_the_reader_where_there_is_no_null_device(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every byte was there, and yet a bare container ended with "cannot write stdout"."""
    monkeypatch.setattr(os, "devnull", "/dev/there/is/none")
    end = StdioEnd(None, pipe[1])
    assert end.write(memoryview(b"last")) == 4
    end.finish_writing()
    assert os.read(pipe[0], 100) == b"last"
    assert os.read(pipe[0], 100) == b""
    # The number stays occupied, so that no socket can take its place.
    assert os.fstat(pipe[1])
    end.close()
