"""What tests of several modules need."""

from __future__ import annotations

import signal
import socket
import struct
from collections.abc import Iterator

import pytest

from punchtunnel.ends import SocketEnd

# asm-generic/socket.h
SO_MAX_PACING_RATE = 47

# A shell starts what it has put behind `&` with SIGINT ignored, nohup with SIGHUP;
# the tool respects that, and every process of a test would inherit it.
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


class Unspliceable(SocketEnd):
    """A socket that is spliced by way of another descriptor: one that refuses, as files of some systems do."""

    def __init__(self, sock: socket.socket, other: int) -> None:
        super().__init__(sock)
        self._other = other

    @property
    def spliced_source(self) -> int | None:
        return self._other

    @property
    def spliced_sink(self) -> int | None:
        return self._other


@pytest.fixture
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection over loopback, neither of which blocks."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        yield near, far


def rate_limit(sock: socket.socket) -> int | None:
    """Return the bytes a second that the kernel sends at most."""
    (rate,) = struct.unpack("@l", sock.getsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, struct.calcsize("@l")))
    return None if rate == -1 else int(rate)
