"""hostile_relay.py and harm.py: it pairs as the real one does, and does the harm that it is told."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from ..reach.test_seat import HUNG, read
from .flows import noise
from .harm import NONE, Harm, Tampering, first
from .hostile_relay import MET, ROOM, HostileRelay, dead_port
from .test_transit_relay import needs_relay
from .test_transit_relay import relay as real

Ask = Callable[..., socket.socket]
DATA = bytes(range(100))
# The fixture is found by its name.
__all__ = ["real"]


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as opened:
        yield opened


def ask(opened: contextlib.ExitStack, port: int, token: str = "a", side: str = "1", more: bytes = b"") -> socket.socket:
    """Connect, and ask for the peer."""
    sock = opened.enter_context(socket.create_connection(("127.0.0.1", port), HUNG))
    sock.sendall(f"please relay {token * 64} for side {side * 16}\n".encode() + more)
    return sock


def pair(opened: contextlib.ExitStack, relay: HostileRelay) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a pair: the one that has asked first, and the other one."""
    before, talks = relay.pairs, len(relay.talks)
    one = ask(opened, relay.port)
    relay.wait_until(lambda relay: len(relay.talks) > talks)
    other = ask(opened, relay.port, side="2")
    relay.wait_until(lambda relay: relay.pairs > before)
    assert (read(one, 3), read(other, 3)) == (MET, MET)
    return one, other


@pytest.fixture(params=["played", pytest.param("real", marks=needs_relay)])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """Return the port of this relay, and of the one that it plays."""
    if request.param == "real":
        yield request.getfixturevalue("real").port
    else:
        with HostileRelay() as relay:
            yield relay.port


def test_two_of_one_token_and_different_sides_are_joined(port: int, opened: contextlib.ExitStack) -> None:
    one, other = ask(opened, port, "b"), ask(opened, port, "b", "2")
    assert (read(one, 3), read(other, 3)) == (MET, MET)
    one.sendall(DATA)
    other.sendall(DATA[::-1])
    assert (read(other, 100), read(one, 100)) == (DATA, DATA[::-1])
    one.shutdown(socket.SHUT_WR)
    assert (read(other, 1), read(one, 1)) == (b"", b"")


def test_one_side_and_another_token_meet_nobody(port: int, opened: contextlib.ExitStack) -> None:
    one, same = ask(opened, port, "c"), ask(opened, port, "c")
    elsewhere = ask(opened, port, "d", "2")
    other = ask(opened, port, "c", "2")
    assert read(other, 3) == MET
    assert sorted([read(one, 3), read(same, 3)]) == [b"", MET]
    elsewhere.settimeout(0)
    with pytest.raises(BlockingIOError):
        elsewhere.recv(1)


@pytest.mark.parametrize(
    ("line", "answer"),
    [(b"GET / HTTP/1.1\r\n\r\n", b"bad handshake\n"), (b"please relay %s\nearly" % (b"e" * 64), b"impatient\n")],
)
def test_what_does_not_keep_the_rules_is_told_so(
    port: int, opened: contextlib.ExitStack, line: bytes, answer: bytes
) -> None:
    sock = opened.enter_context(socket.create_connection(("127.0.0.1", port), HUNG))
    sock.sendall(line)
    assert read(sock, 100) == answer


@pytest.mark.parametrize(
    ("harm", "passed"),
    [
        (NONE, DATA),
        (Harm(flips=42), DATA[:42] + bytes([43]) + DATA[43:]),
        (Harm(cut_at=42), DATA[:42]),
        (Harm(repeats=(30, 50)), DATA[:50] + DATA[30:]),
        (Harm(leaves_out=(30, 50)), DATA[:30] + DATA[50:]),
        (Harm(repeats=(10, 20), flips=15, leaves_out=(90, 100)), DATA[:15] + b"\x0e" + DATA[16:20] + DATA[10:90]),
    ],
    ids=lambda one: "" if isinstance(one, bytes) else str(one),
)
@pytest.mark.parametrize("size", [1, 7, 100])
def test_harm_does_not_depend_on_how_the_bytes_come(harm: Harm, passed: bytes, size: int) -> None:
    tampering = Tampering(harm)
    out = b""
    for at in range(0, 100, size):
        if not tampering.is_cut:
            out += tampering.feed(DATA[at : at + size])
    assert out == passed
    assert tampering.is_cut is (harm.cut_at is not None)


def test_harm_is_done_to_one_direction_of_some_pairs(opened: contextlib.ExitStack) -> None:
    with HostileRelay(first(1, Harm(flips=0), Harm(cut_at=2))) as relay:
        one, other = pair(opened, relay)
        one.sendall(b"aa")
        assert read(other, 2) == b"`a"
        other.sendall(b"abc")
        assert (read(one, 100), read(other, 100)) == (b"ab", b"")
        one, other = pair(opened, relay)
        one.sendall(b"aa")
        assert read(other, 2) == b"aa"
        assert [(talk.pair, bytes(talk.said)) for talk in relay.talks] == [
            (0, b"aa"),
            (0, b"abc"),
            (1, b"aa"),
            (1, b""),
        ]
        assert relay.heard.count(b"a" * 64 + b" " + b"1" * 16) == 2
        assert relay.carried == 7


def test_a_direction_that_is_held_passes_everything_later_and_takes_little_meanwhile(
    opened: contextlib.ExitStack,
) -> None:
    data = noise(16 << 20)
    with HostileRelay(lambda number: (Harm(held=number != 1), NONE)) as relay:
        one, other = pair(opened, relay)
        other.sendall(b"back")
        assert read(one, 4) == b"back"
        sender = threading.Thread(target=one.sendall, args=[data])
        sender.start()
        relay.wait_until(lambda relay: relay.carried >= ROOM)
        # Each turn of its loop, it could take more.
        near, far = pair(opened, relay)
        for _ in range(100):
            near.sendall(b"?")
            assert read(far, 1) == b"?"
        relay.release()
        assert read(other, len(data)) == data
        sender.join(HUNG)
        assert relay.most_waiting < 2 * ROOM
        near, far = pair(opened, relay)
        near.sendall(b"!")
        assert read(far, 1) == b"!"


def test_what_is_delayed_comes_in_order(opened: contextlib.ExitStack) -> None:
    with HostileRelay(first(1, Harm(delay_s=0.05))) as relay:
        one, other = pair(opened, relay)
        for byte in DATA:
            one.sendall(bytes([byte]))
        assert read(other, 100) == DATA


def test_strangers_are_joined_and_a_recording_is_played(opened: contextlib.ExitStack) -> None:
    with HostileRelay(crosses=True) as relay:
        one = ask(opened, relay.port, "a")
        relay.wait_until(lambda relay: len(relay.talks) == 1)
        other = ask(opened, relay.port, "b")
        assert (read(one, 3), read(other, 3)) == (MET, MET)
    with HostileRelay(replays=(1, DATA)) as relay:
        one = ask(opened, relay.port)
        assert read(one, 103) == MET + DATA
        one.sendall(b"hello")
        relay.wait_until(lambda relay: relay.carried == 5)
        pair(opened, relay)


def test_all_that_is_there_can_be_cut_and_nothing_is_left(opened: contextlib.ExitStack) -> None:
    with HostileRelay() as relay:
        ends = [*pair(opened, relay), ask(opened, relay.port, "c")]
        relay.wait_until(lambda relay: len(relay.talks) == 3)
        relay.cut()
        assert [read(end, 1) for end in ends] == [b"", b"", b""]
        port = relay.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), HUNG)
    with dead_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), HUNG)


@pytest.mark.parametrize("answer", [b"impatient\n", b"bad handshake\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_something_else_can_be_answered(opened: contextlib.ExitStack, answer: bytes) -> None:
    with HostileRelay(ok=answer) as relay:
        assert read(ask(opened, relay.port), 100) == answer
