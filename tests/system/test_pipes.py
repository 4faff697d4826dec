"""Pipes move bytes between descriptors, say what they hold, and are never lent without bound."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchtunnel.system import pipes
from punchtunnel.system.pipes import CAPACITY, MOST_PIPES, Pipe, Pool, available, cannot_splice, grow


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_bytes_go_in_and_out_in_order(pipe: Pipe, tcp_pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = tcp_pair
    data = os.urandom(100_000)
    near.sendall(data)
    left, right = socket.socketpair()
    with left, right:
        received = b""
        while len(received) < len(data):
            if pipe.fill(far.fileno(), CAPACITY):
                while pipe.held:
                    assert pipe.drain(left.fileno())
                    received += right.recv(len(data))
        assert received == data


def test_nothing_there_is_none_and_eof_is_0(pipe: Pipe, tcp_pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = tcp_pair
    assert pipe.fill(far.fileno(), 10) is None
    near.shutdown(socket.SHUT_WR)
    far.setblocking(True)
    assert far.recv(1, socket.MSG_PEEK) == b""
    far.setblocking(False)
    assert pipe.fill(far.fileno(), 10) == 0
    assert pipe.held == 0


def test_full_sink_takes_nothing_and_the_pipe_keeps_it(pipe: Pipe) -> None:
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    try:
        os.write(write_end, bytes(grow(write_end)))
        source, other = os.pipe()
        os.write(other, b"kept")
        assert pipe.fill(source, 100) == 4
        assert pipe.drain(write_end) == 0
        assert pipe.held == 4
        assert pipe.read() == b"kept"
        assert pipe.held == 0
        os.close(source)
        os.close(other)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_descriptor_that_must_be_copied_says_so(pipe: Pipe, tmp_path: Path) -> None:
    source, other = os.pipe()
    os.write(other, b"x")
    pipe.fill(source, 1)
    with (tmp_path / "log").open("ab") as log, pytest.raises(OSError, match="Invalid") as caught:
        pipe.drain(log.fileno())
    assert cannot_splice(caught.value)
    assert not cannot_splice(BrokenPipeError(32, "Broken pipe"))
    os.close(source)
    os.close(other)


def test_pipe_is_grown_and_never_shrunk() -> None:
    read_end, write_end = os.pipe()
    assert grow(write_end) == CAPACITY
    assert grow(read_end) == CAPACITY
    os.close(read_end)
    os.close(write_end)


def test_pool_lends_so_many_and_takes_them_back() -> None:
    pool = Pool()
    lent = [pool.take() for _ in range(MOST_PIPES)]
    assert all(lent)
    assert pool.take() is None
    for pipe in lent:
        assert pipe is not None
        pool.give_back(pipe)
    again = [pool.take() for _ in range(MOST_PIPES)]
    assert set(again) == set(lent)
    for pipe in again:
        assert pipe is not None
        pool.give_back(pipe)
    pool.close()


def test_pipe_that_comes_back_with_bytes_is_closed_and_another_may_be_lent() -> None:
    pool = Pool()
    before = len(os.listdir("/proc/self/fd"))
    pipe = pool.take()
    assert pipe is not None
    source, other = os.pipe()
    os.write(other, b"of a stream that was reset")
    assert pipe.fill(source, 100)
    os.close(source)
    os.close(other)
    pool.give_back(pipe)
    assert len(os.listdir("/proc/self/fd")) == before
    fresh = pool.take()
    assert fresh is not None
    assert fresh.held == 0
    pool.give_back(fresh)
    pool.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_pipes_that_come_back_to_a_closed_pool_are_closed() -> None:
    pool = Pool()
    before = len(os.listdir("/proc/self/fd"))
    lent = [pool.take() for _ in range(2)]
    pool.close()
    assert pool.take() is None
    for pipe in lent:
        assert pipe is not None
        pool.give_back(pipe)
    assert len(os.listdir("/proc/self/fd")) == before


def test_pool_lends_none_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ordinary user's 65th large pipe used to get 8 KiB, and every splice with it."""
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(pipes, "grow", lambda fd: 8192)
    assert Pool().take() is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_everything_is_copied_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available()
    monkeypatch.setenv(pipes.VARIABLE, "1")
    assert not available()
    assert Pool().take() is None
