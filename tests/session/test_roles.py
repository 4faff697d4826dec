"""Clients of -L, and what an error of this system is for the far side."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from punchtunnel.ends.end import End
from punchtunnel.protocol.frames import Reason
from punchtunnel.session.roles import Host, Listener, Ports, why_unreachable


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), Reason.REFUSED),
        (FileNotFoundError(errno.ENOENT, ""), Reason.REFUSED),
        (TimeoutError(), Reason.TIMED_OUT),
        (OSError(errno.EHOSTUNREACH, ""), Reason.UNREACHABLE),
        (OSError(errno.EMFILE, ""), Reason.NO_RESOURCES),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), Reason.NO_SUCH_NAME),
    ],
)
def test_failed_target_becomes_a_reason_for_the_far_side(error: OSError, reason: Reason) -> None:
    assert why_unreachable(error)[1] is reason


def test_the_first_client_is_on_its_way_while_the_others_are_accepted() -> None:
    did: list[str] = []
    accept: list[Callable[[int], None]] = []

    def open_stream(end: End, _service: str) -> int:
        did.append("open")
        end.abort()
        return 1

    host = SimpleNamespace(
        poller=SimpleNamespace(
            register=lambda _, callback: accept.append(callback), catch_up=lambda: did.append("catch up")
        ),
        link=SimpleNamespace(stream_count=0),
        report=lambda _: None,
        takes_clients=True,
        open=open_stream,
    )
    here, there = zip(*(socket.socketpair() for _ in range(3)), strict=True)
    waiting = list(here)

    def accept_next() -> tuple[socket.socket, None]:
        if not waiting:
            raise BlockingIOError
        return waiting.pop(), None

    listener = SimpleNamespace(accept=accept_next, fileno=lambda: 0, setblocking=lambda _: None)
    ports = Ports([Listener(cast(socket.socket, listener))])
    ports.attach(cast(Host, host))
    ports.begin()
    accept[0](0)
    for sock in there:
        sock.close()
    assert did == ["open", "catch up", "open", "open"]
