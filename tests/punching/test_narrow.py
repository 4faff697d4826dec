"""Connections that would carry next to nothing, because the peer's window is misread: which are closed, over loopback.

The kernel makes such a window only where one machine does not scale windows; that is the laboratory's
("distance: one side does not scale windows").
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest

from punchtunnel import words
from punchtunnel.protocol.hello import Trait
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.nomination import NARROW_PATIENCE
from punchtunnel.punching.puncher import open_hole
from punchtunnel.reporting.events import Dropped, Warned
from punchtunnel.system import tcp

from .test_callers import ELSEWHERE, SECRET, Heard, hello, prove
from .test_punch import LONG, A, B, channel, dial_first_port, settings, two

# Fixtures.
__all__ = ["channel", "two"]

Punch = Callable[[Heard], "Future[Hole]"]


class Steps:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Steps:
    return Steps()


@pytest.fixture
def punch(two: ThreadPoolExecutor, channel: str, clock: Steps) -> Iterator[Punch]:
    """Yield what begins a punch with a secret from A to B."""
    secret = replace(settings(B, A, channel), secret=SECRET)
    yield lambda heard: two.submit(open_hole, secret, monotonic=clock, report=heard)
    # One that has failed would wait for ever.
    clock.now = 1000.0


def windows(monkeypatch: pytest.MonkeyPatch, *sizes: int, then: int) -> None:
    """Let the first connections that are looked at have these windows, and all others `then`."""
    rest = iter(sizes)
    monkeypatch.setattr(tcp, "narrow_window", lambda _sock: next(rest, then))


def is_closed(peer: socket.socket, said: bytes) -> bool:
    """Say something, and tell whether the connection is closed for it."""
    peer.settimeout(LONG)
    peer.sendall(said)
    try:
        while peer.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_narrow_connection_is_closed_and_a_wide_one_wins(
    monkeypatch: pytest.MonkeyPatch, punch: Punch, channel: str
) -> None:
    """Where SYNs had crossed, a hole was elected that carried 200 bytes a second."""
    windows(monkeypatch, 63, 502, then=0)
    end = punch(heard := Heard())
    for _ in range(2):
        with dial_first_port(channel, B) as peer:
            assert is_closed(peer, hello(channel, Trait(0)))
            heard.next(Dropped)
    with dial_first_port(channel, B) as peer:
        prove(peer, channel)()
        with end.result(LONG).sock as sock:
            assert sock.getpeername() == peer.getsockname()
    assert not heard.any(Warned)


def test_a_narrow_connection_is_better_than_none_and_is_told(
    monkeypatch: pytest.MonkeyPatch, punch: Punch, channel: str, clock: Steps
) -> None:
    windows(monkeypatch, then=63)
    end = punch(heard := Heard())
    with dial_first_port(channel, B) as peer:
        assert is_closed(peer, hello(channel, Trait(0)))
        heard.next(Dropped)
    # Round trips over loopback are far less than a second.
    clock.now = NARROW_PATIENCE + 1
    with dial_first_port(channel, B) as peer:
        prove(peer, channel)()
        end.result(LONG).sock.close()
    assert heard.any(Warned) == [Warned(words.narrow_hole(63))]


def test_a_stranger_is_not_looked_at(monkeypatch: pytest.MonkeyPatch, punch: Punch, channel: str) -> None:
    """Its window would use up the patience; one who proves the secret from there is taken as it is."""
    windows(monkeypatch, then=63)
    end = punch(heard := Heard())
    with dial_first_port(channel, ELSEWHERE) as peer:
        peer.sendall(hello(channel, Trait(0)))
        assert peer.recv(1)
    with dial_first_port(channel, B) as peer:
        assert is_closed(peer, hello(channel, Trait(0)))
        heard.next(Dropped)
    with dial_first_port(channel, ELSEWHERE) as peer:
        prove(peer, channel)()
        end.result(LONG).sock.close()
