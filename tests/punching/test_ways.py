"""A way that swallows full packets loses to one that does not, over loopback: the kernel's word is made up."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from punchtunnel.protocol.contender import PADDING
from punchtunnel.protocol.election import ACCEPT, PICK
from punchtunnel.protocol.hello import HELLO_SIZE, Trait
from punchtunnel.punching.callers import PICK_TIMEOUT
from punchtunnel.punching.nomination import Nomination
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.settings import Settings
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address

from .test_callers import hello, take
from .test_narrow import Steps
from .test_punch import LONG, A, B, channel, dial_first_port, settings, two

# Fixtures.
__all__ = ["channel", "two"]

PADDED = len(PADDING + PICK)


@pytest.fixture
def clock() -> Steps:
    return Steps()


@pytest.fixture
def plain(channel: str, clock: Steps) -> Iterator[Settings]:
    """Yield settings of A."""
    yield replace(settings(B, A, channel), traits=Trait.PLAIN)
    # A punch that has failed would wait for ever.
    clock.now = 1000.0


@pytest.fixture
def both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the peer have an address that is not dialled here."""
    compare = Nomination.compare
    known = (Address(socket.AF_INET, B), Address(socket.AF_INET6, "2001:db8::1"))
    monkeypatch.setattr(Nomination, "compare", lambda nomination, _addresses: compare(nomination, known))


def kernel_says(monkeypatch: pytest.MonkeyPatch, acknowledged: int) -> None:
    monkeypatch.setattr(tcp, "delivery", lambda _sock: tcp.Delivery(1, 0.1, 1280, acknowledged))


def greet(peer: socket.socket, channel: str, traits: Trait = Trait.PLAIN | Trait.PADS) -> None:
    """Say the hello of one that follows, from before anybody's start."""
    peer.sendall(hello(channel, traits, nonce=bytes(16)))


def is_closed(peer: socket.socket) -> bool:
    peer.settimeout(LONG)
    try:
        return peer.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.usefixtures("both_families")
def test_a_way_that_swallows_a_padded_pick_is_left_and_the_next_pick_is_short(
    monkeypatch: pytest.MonkeyPatch, two: ThreadPoolExecutor, channel: str, plain: Settings, clock: Steps
) -> None:
    """Where IPv6 opened first and carried no full packet, the link was lost after 40 s."""
    kernel_says(monkeypatch, HELLO_SIZE + 1)
    end = two.submit(open_hole, plain, monotonic=clock)
    with dial_first_port(channel, B) as first:
        greet(first, channel)
        assert take(first, HELLO_SIZE + PADDED).endswith(PADDING + PICK)
        with dial_first_port(channel, B) as second:
            # What it hears is said after the moment of the PICK was noted.
            take(second, HELLO_SIZE)
            clock.now = PICK_TIMEOUT - 1
            assert is_closed(first)
            # It came the same way.
            assert is_closed(second)
    with dial_first_port(channel, B) as peer:
        greet(peer, channel)
        assert take(peer, HELLO_SIZE + len(PICK)).endswith(PICK)
        peer.sendall(ACCEPT)
        end.result(LONG).sock.close()


@pytest.mark.usefixtures("both_families")
def test_a_slow_process_has_all_the_time_of_a_pick(
    monkeypatch: pytest.MonkeyPatch, two: ThreadPoolExecutor, channel: str, plain: Settings, clock: Steps
) -> None:
    kernel_says(monkeypatch, HELLO_SIZE + PADDED)
    end = two.submit(open_hole, plain, monotonic=clock)
    with dial_first_port(channel, B) as peer:
        greet(peer, channel)
        take(peer, HELLO_SIZE + PADDED)
        with dial_first_port(channel, B) as later:
            take(later, HELLO_SIZE)
            clock.now = PICK_TIMEOUT - 1
            # Its hello was due long ago.
            assert is_closed(later)
        peer.sendall(PADDING + ACCEPT)
        end.result(LONG).sock.close()


def short_pick(two: ThreadPoolExecutor, channel: str, plain: Settings, clock: Steps, traits: Trait) -> None:
    end = two.submit(open_hole, plain, monotonic=clock)
    with dial_first_port(channel, B) as peer:
        greet(peer, channel, traits)
        assert take(peer, HELLO_SIZE + len(PICK)).endswith(PICK)
        peer.sendall(ACCEPT)
        end.result(LONG).sock.close()


@pytest.mark.usefixtures("both_families")
def test_an_earlier_version_hears_a_pick_that_it_knows(
    two: ThreadPoolExecutor, channel: str, plain: Settings, clock: Steps
) -> None:
    short_pick(two, channel, plain, clock, Trait.PLAIN)


def test_a_pick_is_short_where_all_ways_are_of_one_kind(
    two: ThreadPoolExecutor, channel: str, plain: Settings, clock: Steps
) -> None:
    short_pick(two, channel, plain, clock, Trait.PLAIN | Trait.PADS)
