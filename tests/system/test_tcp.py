"""What the kernel does with the options and ways to close that tcp.py offers, over loopback."""

from __future__ import annotations

import select
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from punchtunnel.system import tcp

from ..conftest import rate_limit

A, B = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((B, 0)) as sock:
        yield sock


def connect(listener: socket.socket, port: int = 0) -> tuple[socket.socket, socket.socket]:
    sock = socket.create_connection(listener.getsockname(), source_address=(A, port))
    return sock, listener.accept()[0]


def test_close_with_reset_tells_an_end_before_the_reset(listener: socket.socket) -> None:
    """Without the FIN a Linux router refused the peer's SYN on these ports for ten seconds and more."""
    sock, other = connect(listener)
    with other:
        sock.sendall(b"last words")
        tcp.close_with_reset(sock)
        assert other.recv(100) == b"last words"
        assert other.recv(100) == b""
        # Linux says so of a connection that was reset after its end.
        with pytest.raises(BrokenPipeError):
            other.sendall(b"too late")


def test_close_with_reset_leaves_the_ports_free(listener: socket.socket) -> None:
    sock, other = connect(listener)
    port = sock.getsockname()[1]
    for _ in range(3):
        tcp.close_with_reset(sock)
        other.close()
        sock, other = connect(listener, port)
    sock.close()
    other.close()


def test_abort_is_never_taken_for_an_end(listener: socket.socket) -> None:
    sock, other = connect(listener)
    with other:
        tcp.abort(sock)
        with pytest.raises(ConnectionResetError):
            other.recv(100)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems give no such room")
def test_open_receive_window_makes_room_and_tells_of_every_byte(listener: socket.socket) -> None:
    most = int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[2])
    size = min(1024 * 1024, most // 2)
    sock, other = connect(listener)
    with sock, other:
        tcp.open_receive_window(other, size)
        assert other.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= size
        sock.sendall(b"x")
        readable, _, _ = select.select([other], [], [], 10)
        assert readable == [other]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell less of a connection")
def test_progress_is_what_the_kernel_saw(listener: socket.socket) -> None:
    sock, other = connect(listener)
    with sock, other:
        before = tcp.progress(sock)
        for _ in range(100):
            sock.sendall(b"x")
            other.recv(1)
            other.sendall(b"y")
            sock.recv(1)
        after = tcp.progress(sock)
        assert before is not None
        assert after is not None
        assert after.samples - before.samples == 100
        assert after.rate > 0
        assert after.round_trip == tcp.round_trip(sock)


@pytest.mark.skipif(sys.platform != "linux", reason="no other system paces a socket")
@pytest.mark.parametrize(("rate", "kernels"), [(123456.7, 123456), (1e15, 2**31), (None, None)])
def test_a_limit_of_the_rate_is_the_kernels(listener: socket.socket, rate: float | None, kernels: int | None) -> None:
    sock, other = connect(listener)
    with sock, other:
        tcp.limit_rate(sock, 1000.0)
        tcp.limit_rate(sock, rate)
        assert rate_limit(sock) == kernels


class Informed:
    """Stands for a socket of which the kernel tells this; TCP_INFO of Linux 5.4 and later has 232 bytes at least."""

    def __init__(self, options: int, window: int, size: int = 280) -> None:
        self._info = bytearray(size)
        self._info[5] = options
        struct.pack_into("=I", self._info, 228, window)

    def getsockopt(self, _level: int, _option: int, size: int) -> bytes:
        return bytes(self._info[:size])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell less of a connection")
@pytest.mark.parametrize(
    ("options", "window", "narrow"),
    [
        # What Linux 6.18 told at the side that does not scale: 1 timestamps, 2 SACK, 4 scaling.
        (3, 63, 63),
        (3, 502, 502),
        (0, 502, 502),
        (3, 64204, 0),
        # A buffer that is small, or full, and known to be.
        (7, 1024, 0),
        (7, 63, 0),
    ],
)
def test_a_window_is_narrow_that_its_side_takes_for_a_large_one(options: int, window: int, narrow: int) -> None:
    sock: Any = Informed(options, window)
    assert tcp.narrow_window(sock) == narrow


def test_an_older_kernel_tells_no_window() -> None:
    old: Any = Informed(3, 63)
    old.getsockopt = lambda *_: bytes(224)
    assert tcp.narrow_window(old) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell less of a connection")
def test_no_connection_over_loopback_is_narrow(listener: socket.socket) -> None:
    sock, other = connect(listener)
    with sock, other:
        other.sendall(b"x")
        assert sock.recv(1) == b"x"
        assert tcp.narrow_window(sock) == 0


def test_what_is_no_tcp_tells_nothing() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert tcp.progress(ours) is None
        assert tcp.narrow_window(ours) == 0
        tcp.limit_rate(ours, 1000.0)


@pytest.mark.skipif(sys.platform != "linux", reason="the option is Linux's")
def test_a_dial_over_ipv6_leaves_from_the_address_that_stays() -> None:
    """It left from a temporary one, which no firewall of a peer expected."""
    with socket.socket(socket.AF_INET6) as sock, socket.socket(socket.AF_INET) as other:
        before = sock.getsockopt(socket.IPPROTO_IPV6, tcp._IPV6_ADDR_PREFERENCES)
        for one in (sock, other):
            tcp.prefer_lasting_source(one)
        after = sock.getsockopt(socket.IPPROTO_IPV6, tcp._IPV6_ADDR_PREFERENCES)
        assert (before & tcp._PREFER_SRC_PUBLIC, after & tcp._PREFER_SRC_PUBLIC) == (0, tcp._PREFER_SRC_PUBLIC)
