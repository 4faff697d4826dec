"""The service manager is told of every change, and costs nothing where there is none."""

from __future__ import annotations

import contextlib
import io
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from punchtunnel.reporting import notify
from punchtunnel.reporting.events import Exited, HoleOpened, LinkUp, Punching, PunchingAgain, RoundTrip
from punchtunnel.reporting.output import Output
from punchtunnel.reporting.status import Status

HOLE = HoleOpened("192.0.2.1:10240", "203.0.113.7:10240", None, "-L", leads=True, waited_s=0.1, dials=3)


@pytest.fixture(params=["a path", "an abstract name"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """What NOTIFY_SOCKET would have, and the socket behind it."""
    address = str(tmp_path / "notify") if request.param == "a path" else f"@{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        sock.settimeout(5)
        yield address, sock


def test_each_state_is_one_datagram_and_ready_comes_with_the_link(manager: tuple[str, socket.socket]) -> None:
    address, sock = manager
    report = Status(-1, None, manager=notify.teller(address))
    report(Punching("203.0.113.7", 20, [10240]))
    assert sock.recv(4096) == b"STATUS=punching towards 203.0.113.7 on 20 ports"
    report(HOLE)
    assert sock.recv(4096) == b"STATUS=connected, 192.0.2.1:10240 to 203.0.113.7:10240"
    report(LinkUp("uvloop", "leading"))
    assert sock.recv(4096) == b"READY=1"
    report(RoundTrip(0.1))
    report(PunchingAgain("link lost"))
    assert sock.recv(4096) == b"STATUS=link lost; punching again"
    report(Exited(143, ""))
    assert sock.recv(4096) == b"STOPPING=1\nSTATUS="


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_manager_nobody_is_told(address: str | None) -> None:
    assert notify.teller(address) is None


@pytest.mark.parametrize("address", ["/nowhere/notify", "@nobody", "vsock:2:1", "/" + "x" * 200])
def test_a_manager_that_is_gone_or_odd_ends_nothing(address: str) -> None:
    lines = io.StringIO()
    Status(0, Output(lines), manager=notify.teller(address))(Exited(3, "no hole"))
    assert lines.getvalue() == "punchtunnel: no hole\n"


def test_a_manager_that_does_not_read_does_not_hold_up_the_tunnel(
    manager: tuple[str, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify, "PATIENCE", 0.01)
    address, sock = manager
    report = Status(-1, None, manager=notify.teller(address))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                filler.sendto(b"!", address.replace("@", "\0"))
    report(LinkUp("uvloop", "leading"))
    assert sock.recv(4096) == b"!"
