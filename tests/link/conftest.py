"""What the tests of sinks share."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from punchtunnel.ends.sockets import SocketEnd


@pytest.fixture
def end() -> Iterator[tuple[SocketEnd, socket.socket]]:
    """An end, and where what was written to it comes out."""
    ours, theirs = socket.socketpair()
    end = SocketEnd(ours)
    theirs.setblocking(False)
    with theirs:
        yield end, theirs
    end.close()
