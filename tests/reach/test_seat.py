"""One connection to a relay: real sockets on the loopback, a fake relay and a fake clock."""

from __future__ import annotations

import contextlib
import selectors
import socket
import sys
from collections.abc import Callable, Iterator
from random import Random

import pytest

from punchtunnel.address import Place
from punchtunnel.punching.callers import MOST_UNPROVED
from punchtunnel.punching.helper import Met
from punchtunnel.punching.resolver import GetAddrInfo
from punchtunnel.reach import joining
from punchtunnel.reach.seat import Seat, first_of_each_family

LINE = b"please relay %s for side %s\n" % (b"ab" * 32, b"cd" * 8)
# Seconds after which something hangs.
HUNG = 20.0
IPV4, IPV6 = socket.AF_INET, socket.AF_INET6


def read(sock: socket.socket, size: int) -> bytes:
    """Return so many bytes, or what there is before the end."""
    sock.settimeout(HUNG)
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


class FakeRelay:
    """Listens on the loopback, and says what the test wants."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = IPV6 if ":" in host else IPV4
        self.server = socket.create_server((host, 0), family=family)
        self.server.settimeout(HUNG)
        self.port = self.server.getsockname()[1]
        self.conns: list[socket.socket] = []

    def accept(self, line: bytes = LINE) -> socket.socket:
        """Return a connection on which the line was read."""
        conn, _ = self.server.accept()
        conn.settimeout(HUNG)
        self.conns.append(conn)
        assert read(conn, len(line)) == line
        return conn

    def close(self) -> None:
        for sock in (self.server, *self.conns):
            sock.close()


def answers(*targets: tuple[str, int]) -> GetAddrInfo:
    """Return a look-up that finds these."""
    return lambda *_: [
        (IPV6 if ":" in host else IPV4, socket.SOCK_STREAM, 0, "", (host, port)) for host, port in targets
    ]


class Stage:
    """A seat, the selector that it is in, and a clock that goes on by itself only when something is due."""

    def __init__(self, relay: Place, look_up: GetAddrInfo) -> None:
        self.now = 5000.0
        self.woken, self.waker = socket.socketpair()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.woken, selectors.EVENT_READ)
        self.seat = Seat(relay, LINE, self.now, self.selector, look_up, self.wake, Random(1))

    def wake(self) -> None:
        # A look-up may outlive the test.
        with contextlib.suppress(OSError):
            self.waker.send(b"!")

    def run(self, until: Callable[[], object]) -> None:
        """Go on until it is true, without the clock."""
        while True:
            self.seat.step(self.now)
            if until():
                return
            self.turn()

    def turn(self) -> None:
        """Handle what comes next."""
        ready = self.selector.select(HUNG)
        assert ready, "hung"
        for key, _ in ready:
            if key.data is None:
                self.woken.recv(64)
            else:
                key.data(self.now)

    def skip(self) -> float:
        """Go on to what is due next; return how long that was."""
        waited = self.seat.due - self.now
        self.now = self.seat.due
        return waited

    def is_waiting(self) -> bool:
        return self.due_in() > joining.DIAL_WITHIN

    def due_in(self) -> float:
        return self.seat.due - self.now

    def meet(self) -> Met:
        self.run(lambda: self.seat.met)
        assert self.seat.met is not None
        return self.seat.met

    def close(self) -> None:
        self.seat.close()
        assert len(self.selector.get_map()) == 1, "a socket was left behind"
        self.selector.close()
        self.woken.close()
        self.waker.close()


@pytest.fixture
def relay() -> Iterator[FakeRelay]:
    with contextlib.closing(FakeRelay()) as relay:
        yield relay


@pytest.fixture
def stage(relay: FakeRelay) -> Iterator[Stage]:
    with contextlib.closing(Stage(Place("127.0.0.1", relay.port), socket.getaddrinfo)) as stage:
        yield stage


# ---- meeting


def test_the_line_is_sent_and_what_follows_the_ok_is_handed_over(relay: FakeRelay, stage: Stage) -> None:
    stage.run(stage.is_waiting)
    conn = relay.accept()
    conn.sendall(b"ok\nhello")
    met = stage.meet()
    assert (met.unread, met.relay) == (b"hello", Place("127.0.0.1", relay.port))
    stage.seat.taken(stage.now)
    with met.sock as sock:
        sock.sendall(b"mine")
        assert read(conn, 4) == b"mine"
        assert stage.due_in() == float("inf")


def test_an_answer_that_drips_is_read(relay: FakeRelay, stage: Stage) -> None:
    stage.run(stage.is_waiting)
    conn = relay.accept()
    for byte in (b"o", b"k"):
        conn.sendall(byte)
        stage.turn()
        assert stage.seat.met is None
    conn.sendall(b"\n")
    assert stage.meet().unread == b""


def test_a_peer_that_has_gone_at_once_is_met_all_the_same(relay: FakeRelay, stage: Stage) -> None:
    """What the other side has said is there, and whoever takes the connection reads the end of it."""
    stage.run(stage.is_waiting)
    conn = relay.accept()
    conn.sendall(b"ok\nhello")
    conn.close()
    met = stage.meet()
    assert met.unread + met.sock.recv(10) == b"hello"


def test_no_more_is_read_of_what_is_said_at_once_than_of_any_stranger(relay: FakeRelay, stage: Stage) -> None:
    stage.run(stage.is_waiting)
    relay.accept().sendall(b"ok\n" + (said := bytes(range(256)) * 32))
    met = stage.meet()
    assert len(met.unread) < MOST_UNPROVED < len(said)
    assert met.unread + read(met.sock, len(said) - len(met.unread)) == said


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other options")
def test_the_kernel_looks_after_a_connection_that_waits(relay: FakeRelay, stage: Stage) -> None:
    stage.run(stage.is_waiting)
    (sock,) = stage.seat._socks
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [30, 10, 3, 60_000]


def test_after_a_useless_meeting_the_same_line_is_sent_after_a_short_pause(relay: FakeRelay, stage: Stage) -> None:
    stage.run(stage.is_waiting)
    relay.accept().sendall(b"ok\n")
    met = stage.meet()
    stage.seat.taken(stage.now)
    met.sock.close()
    stage.seat.rejoin(stage.now, useless=True)
    assert 0.2 <= stage.skip() <= 2.0
    stage.run(stage.is_waiting)
    relay.accept().sendall(b"ok\n")
    assert stage.meet().unread == b""


def test_what_nobody_takes_is_closed_after_five_seconds(relay: FakeRelay, stage: Stage) -> None:
    stage.run(stage.is_waiting)
    conn = relay.accept()
    conn.sendall(b"ok\n")
    met = stage.meet()
    assert stage.skip() == joining.HELLO_WITHIN
    stage.seat.step(stage.now)
    assert stage.seat.met is None
    assert met.sock.fileno() == -1
    assert conn.recv(1) == b""


def test_asking_again_for_what_was_not_met_changes_nothing(relay: FakeRelay, stage: Stage) -> None:
    stage.run(stage.is_waiting)
    stage.seat.rejoin(stage.now, useless=True)
    assert stage.is_waiting()


# ---- trouble


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (b"bad handshake\n", "does not understand"),
        (b"impatient\n", "too early"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no transit relay"),
        (bytes(10_000), "no transit relay"),
    ],
)
def test_a_relay_that_refuses_is_told_of_and_asked_later(
    relay: FakeRelay, stage: Stage, said: bytes, sentence: str
) -> None:
    stage.run(stage.is_waiting)
    conn = relay.accept()
    conn.sendall(said)
    stage.run(lambda: stage.seat.trouble)
    assert stage.seat.trouble.startswith(f"no meeting at the relay 127.0.0.1:{relay.port}: ")
    assert sentence in stage.seat.trouble
    assert 0.75 <= stage.skip() <= 1.0
    stage.run(stage.is_waiting)
    assert stage.seat.trouble == ""
    relay.accept()


def test_a_connection_that_ends_before_the_ok_is_replaced_at_once(relay: FakeRelay, stage: Stage) -> None:
    stage.run(stage.is_waiting)
    relay.accept().close()
    stage.run(lambda: not stage.is_waiting())
    assert stage.seat.trouble == ""
    stage.run(stage.is_waiting)
    relay.accept().close()
    stage.run(lambda: stage.seat.trouble)
    assert "ends the connection" in stage.seat.trouble
    assert 0.75 <= stage.skip() <= 1.0
    stage.run(stage.is_waiting)
    relay.accept()


def test_a_silent_relay_is_asked_anew_every_ten_minutes(relay: FakeRelay, stage: Stage) -> None:
    stage.run(stage.is_waiting)
    before = relay.accept()
    assert stage.skip() == joining.REJOIN
    stage.run(stage.is_waiting)
    assert before.recv(1) == b""
    relay.accept()


def test_a_relay_that_is_not_there_is_told_of(relay: FakeRelay, stage: Stage) -> None:
    relay.server.close()
    stage.run(lambda: stage.seat.trouble)
    assert "Connection refused" in stage.seat.trouble


def test_a_name_without_an_address_is_told_of_and_looked_up_again() -> None:
    asked: list[object] = []

    def look_up(*arguments: object) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        asked.append(arguments[0])
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with contextlib.closing(Stage(Place("relay.example", 4001), look_up)) as stage:
        stage.run(lambda: stage.seat.trouble)
        assert "'relay.example' cannot be resolved: Name or service not known" in stage.seat.trouble
        stage.skip()
        stage.run(lambda: len(asked) == 2)


def test_a_look_up_that_hangs_is_given_up_and_not_started_twice(relay: FakeRelay) -> None:
    began, release = socket.socketpair()
    asked: list[object] = []

    def look_up(*arguments: object) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        asked.append(arguments[0])
        began.recv(1)
        return [(IPV4, socket.SOCK_STREAM, 0, "", ("127.0.0.1", relay.port))]

    with began, release, contextlib.closing(Stage(Place("relay.example", 4001), look_up)) as stage:
        stage.seat.step(stage.now)
        assert stage.skip() == joining.DIAL_WITHIN
        stage.seat.step(stage.now)
        assert "no connection to it opens" in stage.seat.trouble
        stage.skip()
        stage.seat.step(stage.now)
        release.send(b"!")
        stage.run(stage.is_waiting)
        relay.accept()
        assert asked == ["relay.example"]


# ---- several addresses


def test_the_first_address_of_each_family_is_dialled_and_at_the_next_attempt_another() -> None:
    one, two, three = ((IPV6, ("::1", 1)), (IPV6, ("::1", 2)), (IPV4, ("127.0.0.1", 3)))
    assert first_of_each_family([one, two, three], 0) == [one, three]
    assert first_of_each_family([one, two, three], 1) == [two, three]
    assert first_of_each_family([three, one], 4) == [three, one]
    assert first_of_each_family([], 3) == []


@pytest.fixture
def deaf() -> Iterator[int]:
    """Return a port of 127.0.0.1 that answers no SYN: its queue is full."""
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):
            sock = opened.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_the_other_family_is_dialled_after_a_quarter_of_a_second_and_the_first_that_opens_wins(deaf: int) -> None:
    with contextlib.closing(FakeRelay("::1")) as relay:
        look_up = answers(("127.0.0.1", deaf), ("::1", relay.port))
        with contextlib.closing(Stage(Place("relay.example", 4001), look_up)) as stage:
            stage.run(lambda: stage.seat._socks)
            assert stage.skip() == 0.25
            stage.run(stage.is_waiting)
            relay.accept()
            assert len(stage.seat._socks) == 1


def test_the_other_family_is_dialled_at_once_when_the_first_is_refused(relay: FakeRelay) -> None:
    with socket.create_server(("::1", 0), family=IPV6) as server:
        closed = server.getsockname()[1]
    look_up = answers(("::1", closed), ("127.0.0.1", relay.port))
    with contextlib.closing(Stage(Place("relay.example", 4001), look_up)) as stage:
        stage.run(stage.is_waiting)
        relay.accept()


def test_a_relay_that_no_connection_leads_to_is_given_up(deaf: int) -> None:
    with contextlib.closing(Stage(Place("127.0.0.1", deaf), socket.getaddrinfo)) as stage:
        stage.run(lambda: stage.seat._socks)
        assert stage.skip() == joining.DIAL_WITHIN
        stage.seat.step(stage.now)
        assert "no connection to it opens" in stage.seat.trouble
        assert not stage.seat._socks
