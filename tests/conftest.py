"""What tests of several modules need, and the tiers of the tests.

    make quick             neither played nor exhaustive: pure and unit tests
    make test              not exhaustive: and real processes, programs, the laboratory's short list
    make test-exhaustive   exhaustive: the rest

A test is played because of where it is (PLAYED).  It is exhaustive by its mark,
and so may be single parameters of a test; then another of its parameters, or
another test, shows the same behaviour in `make test`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from hypothesis import HealthCheck, settings

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.system import pipes

from .link.links import Case

HERE = Path(__file__).parent
PLAYED = {"e2e", "natlab", "test_bench.py", "test_install.py"}

# asm-generic/socket.h
SO_MAX_PACING_RATE = 47

# A machine that is busy with something else makes no test fail.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

# Programs that tests start have stdout as users have it: what stays in its buffer fails at exit.
os.environ.pop("PYTHONUNBUFFERED", None)

# No run remembers another one, and none writes into the home of whoever runs the tests.
os.environ["XDG_STATE_HOME"] = "/dev/null"
os.environ.pop("STATE_DIRECTORY", None)

# A shell starts what it has put behind `&` with SIGINT ignored, nohup with SIGHUP;
# the tool respects that, and every process of a test would inherit it.
for _number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is played, and begin with the laboratory: its short list is the longest wait."""
    places = {item: item.path.relative_to(HERE).parts[0] for item in items}
    for item, place in places.items():
        if place in PLAYED:
            item.add_marker(pytest.mark.played)
    items.sort(key=lambda item: places[item] != "natlab")


@pytest.fixture(params=["spliced", "copied"])
def data_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run everything with splice, and as on a system without it."""
    if request.param == "copied":
        monkeypatch.setenv(pipes.VARIABLE, "1")
    return str(request.param)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Case], None]:
    """Run a coroutine function on one of the two loops."""

    def run(case: Case) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(case())

    return run


class Unspliceable(SocketEnd):
    """A socket that is spliced by way of another descriptor: one that refuses, as files of some systems do."""

    def __init__(self, sock: socket.socket, other: int) -> None:
        super().__init__(sock)
        self.spliced_source = self.spliced_sink = other


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
