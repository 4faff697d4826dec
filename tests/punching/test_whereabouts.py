"""Where the peer is: what names led to before stands in until the name server has answered."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import selectors
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from punchtunnel.address import Peer, Place
from punchtunnel.errors import NoHoleError, UsageError
from punchtunnel.protocol.hello import NONCE_SIZE, Hello, Role
from punchtunnel.protocol.verdicts import Won
from punchtunnel.punching import whereabouts
from punchtunnel.punching.callers import Connection
from punchtunnel.punching.candidates import Candidate, Kind
from punchtunnel.punching.helper import Meeting, PortMapper, RouterNews, Way
from punchtunnel.punching.nomination import Winner
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.resolver import Resolver
from punchtunnel.punching.settings import Settings
from punchtunnel.punching.whereabouts import Whereabouts
from punchtunnel.reporting import events
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address

V4, V6 = socket.AF_INET, socket.AF_INET6
OLD, NEW = Address(V4, "198.51.100.7"), Address(V4, "198.51.100.8")
OLD6 = Address(V6, "2001:db8::7")
NAME = "home.example"
SECRET = b"tiger"
LONG = 60


class NameServer:
    """Answers when it is told to, with addresses or with an error."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.error = 0
        self.answers = threading.Event()

    def __call__(self, peer: str, *_: object) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        if peer != NAME:
            return [(V4, socket.SOCK_STREAM, 6, "", (peer, 0))]
        assert self.answers.wait(LONG)
        if self.error:
            raise socket.gaierror(self.error, "it failed")
        return [(V6 if ":" in host else V4, socket.SOCK_STREAM, 6, "", (host, 0)) for host in self.hosts]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    made = NameServer()
    monkeypatch.setattr(whereabouts, "Resolver", functools.partial(Resolver, look_up=made))
    yield made
    made.answers.set()


class Table:
    def __init__(self, settings: Settings, server: NameServer, recalled: Mapping[str, Sequence[str]]) -> None:
        self.told: list[events.Event] = []
        self.server = server
        self.where = Whereabouts(settings, self.told.append, lambda: recalled)
        self.where.begin(0.0)

    def answer(self, *hosts: str, error: int = 0) -> tuple[Address, ...]:
        """Let the name server answer, and return the addresses then."""
        self.server.hosts, self.server.error = list(hosts), error
        self.server.answers.set()
        assert select.select([self.where.resolver], [], [], LONG)[0]
        self.where.take(1.0, self.where.resolver.take())
        return self.where.addresses

    def close(self) -> None:
        self.where.resolver.close()


@contextlib.contextmanager
def table(
    server: NameServer, settings: Settings, recalled: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Table]:
    known = {NAME: [OLD6.host, OLD.host]} if recalled is None else recalled
    with contextlib.closing(Table(settings, server, known)) as made:
        yield made


def test_what_a_name_led_to_is_dialled_until_the_answer_takes_its_place(server: NameServer) -> None:
    with table(server, Settings([NAME], secret=SECRET)) as made:
        assert made.where.addresses == (OLD6, OLD)
        assert made.told == [events.Recalled(hosts=f"{OLD6.host}, {OLD.host}")]
        assert made.answer(NEW.host, OLD6.host) == (OLD6, NEW), "what has led there before comes first"
        assert made.where.names == {NAME: (NEW.host, OLD6.host)}


@pytest.mark.parametrize("error", [socket.EAI_AGAIN, socket.EAI_NONAME])
def test_a_name_that_cannot_be_resolved_just_now_keeps_what_it_led_to(server: NameServer, error: int) -> None:
    with table(server, Settings([NAME], secret=SECRET)) as made:
        assert made.answer(error=error) == (OLD6, OLD)
    with table(server, Settings([NAME], secret=SECRET), recalled={}) as made, contextlib.ExitStack() as stack:
        if error == socket.EAI_NONAME:
            stack.enter_context(pytest.raises(UsageError))
        assert made.answer(error=error) == ()


def test_without_a_secret_nothing_is_recalled(server: NameServer) -> None:
    with table(server, Settings([NAME])) as made:
        assert made.where.addresses == ()
        assert made.told == []


def test_what_is_recalled_obeys_the_options(server: NameServer) -> None:
    with table(server, Settings([NAME], secret=SECRET, family=V6)) as made:
        assert made.where.addresses == (OLD6,)
    with table(server, Settings([NAME], secret=SECRET, bind="127.0.0.1")) as made:
        assert made.where.addresses == (OLD,)
    literal = Settings([NEW.host, NAME], secret=SECRET, forwarded=(Peer(NAME, 40022), Peer(NEW.host, 40023)))
    with table(server, literal) as made:
        assert made.where.addresses == (NEW, OLD6, OLD)
        assert made.where.forwarded == (Place(NEW.host, 40023), Place(OLD6.host, 40022), Place(OLD.host, 40022))
    # That of this machine tells nothing of the peer.
    with table(server, Settings([NAME], secret=SECRET), recalled={NAME: ["127.0.0.9"]}) as made:
        assert made.where.addresses == ()


class Gathering:
    """Recalls one name, and notes what it is to remember."""

    def __init__(self, recalled: Mapping[str, Sequence[str]]) -> None:
        self.told: set[str] = set()
        self.recalled = recalled
        self.noted: list[object] = []

    def mapper(self) -> PortMapper:
        raise AssertionError("nobody is asked")

    def meeting(self, relay: Place) -> Meeting:
        raise AssertionError("no relay is named")

    def heard(self) -> RouterNews | None:
        return RouterNews()

    def recall(self) -> Mapping[str, Sequence[str]]:
        return self.recalled

    def remember(self, names: Mapping[str, Sequence[str]], way: Way) -> None:
        self.noted.append((dict(names), way.host))

    def failed(self) -> None:
        self.noted.append("failed")


def test_the_wait_for_a_name_takes_no_processor_time(server: NameServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an address no router was asked, and the loop went round and round because that was due."""
    hurried = []

    class Selector(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            hurried.append(timeout == 0)
            return super().select(timeout)

    monkeypatch.setattr(selectors, "DefaultSelector", Selector)
    with pytest.raises(NoHoleError, match="name server has not answered"):
        open_hole(Settings([NAME], wait=0.5, maps=True), gathering=Gathering({}))
    assert hurried.count(True) <= 1, "the last look before the end may be one"


def test_a_hole_opens_while_the_name_server_does_not_answer_and_is_remembered(server: NameServer) -> None:
    here, there = "127.0.0.1", "127.0.0.2"
    channel = f"test {os.urandom(8).hex()}"
    gathering = Gathering({NAME: [there]})
    named = Settings([NAME], channel, wait=LONG, bind=here, secret=SECRET)
    other = Settings([here], channel, wait=LONG, bind=there, secret=SECRET)
    with ThreadPoolExecutor(2) as two:
        holes = two.submit(open_hole, named, gathering=gathering), two.submit(open_hole, other)
        for hole in holes:
            hole.result().sock.close()
    assert gathering.noted == [({NAME: [there]}, there)]


@pytest.mark.parametrize(
    ("dialled", "mapped", "kind"), [(True, False, "same port"), (False, True, "mapped"), (False, False, "listener")]
)
def test_a_way_can_be_told_when_the_peer_has_gone_already(dialled: bool, mapped: bool, kind: str) -> None:
    """A hole that was cut the moment it opened ended the punch with ENOTCONN, and its socket was lost."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        peer, _ = listener.accept()
        port = listener.getsockname()[1]
        tcp.close_with_reset(peer)
        with contextlib.suppress(ConnectionResetError):
            sock.recv(1)
        candidate = Candidate(Kind.SAME_PORT, Address(V4, "127.0.0.1"), port, port) if dialled else None
        connection = Connection(sock, f"127.0.0.1:{port}", "127.0.0.1", scheduled=True, candidate=candidate)
        winner = Winner(connection, Won(1, b"", True, Hello(bytes(NONCE_SIZE), bytes(8), Role.STDIO)))
        assert winner.way(mapped=mapped) == Way(kind, "127.0.0.1", port, sock.getsockname()[1])
