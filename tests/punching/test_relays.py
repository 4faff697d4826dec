"""The relays of a punch: when they are joined, what is made of whom is met, and what is said of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from punchtunnel.address import Place
from punchtunnel.errors import NoHoleError, RejectedError
from punchtunnel.protocol.hello import Role
from punchtunnel.punching.callers import DECISION_TIMEOUT, RELAY_PATIENCE, Callers, Connection
from punchtunnel.punching.helper import Meeting, MeetingNews, Met, PortMapper, RouterNews, Way
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.relays import JOIN_DELAY, NEVER, Relays
from punchtunnel.punching.settings import Relay, Settings
from punchtunnel.reporting.events import Event, Joining, RelayTrouble
from punchtunnel.words import peer, reach

LONG = 30.0
SECRET = b"correct-horse-battery-staple-17"
PLACE, OTHER = Place("relay.example.org", 4001), Place("192.0.2.7", 443)
CARRIES, ONLY_MEETS = Relay(PLACE, True), Relay(PLACE, False)


class Waiting:
    """A meeting at which the test lets somebody be met (helper.Meeting)."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._news = MeetingNews()
        self.started = self.closed = 0
        self.returned: list[Met] = []
        self.again_called = threading.Event()

    def tell(self, *met: Met, trouble: str = "") -> None:
        self._news = MeetingNews(met, trouble)
        self._there.send(b"!")

    def fileno(self) -> int:
        return self._here.fileno()

    def start(self) -> None:
        self.started += 1

    def take(self) -> MeetingNews:
        self._here.recv(64)
        news, self._news = self._news, MeetingNews((), self._news.trouble)
        return news

    def again(self, met: Met) -> None:
        self.returned.append(met)
        met.sock.close()
        self.again_called.set()

    def close(self) -> None:
        self.closed += 1
        self._here.close()
        self._there.close()


class Gathering:
    """Has a meeting for each relay, unless there is no descriptor for it."""

    def __init__(self, *meetings: Waiting | OSError) -> None:
        self.told: set[str] = set()
        self._meetings = list(meetings)

    def mapper(self) -> PortMapper:
        raise AssertionError("no router is asked")

    def meeting(self, relay: Place) -> Meeting:
        one = self._meetings.pop(0)
        if isinstance(one, OSError):
            raise one
        return one

    def heard(self) -> RouterNews | None:
        return None

    def recall(self) -> Mapping[str, Sequence[str]]:
        return {}

    def remember(self, names: Mapping[str, Sequence[str]], way: Way) -> None:
        raise AssertionError("a relayed hole is no way to remember")

    def failed(self) -> None: ...


class Play:
    """The relays of a punch of which nothing else is there."""

    def __init__(self, gathering: Gathering, *relays: Relay, peers: tuple[str, ...] = ()) -> None:
        self.told: list[Event] = []
        self.employed: list[object] = []
        self.admitted: list[tuple[Connection, bytes]] = []
        self._uses: list[Callable[[MeetingNews], None]] = []
        settings = Settings(peers, secret=SECRET, relays=relays)

        def employ(helper: object, use: Callable[[MeetingNews], None]) -> None:
            self.employed.append(helper)
            self._uses.append(use)

        self.relays = Relays(
            settings, gathering, 100.0, employ, lambda *one: self.admitted.append(one), self.told.append
        )

    def use(self, news: MeetingNews, number: int = 0) -> None:
        self._uses[number](news)


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    one = Waiting()
    yield one
    if not one.closed:
        one.close()


@pytest.fixture
def pipe() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = socket.create_connection(listener.getsockname())
        there, _ = listener.accept()
    with here, there:
        yield here, there


@pytest.mark.parametrize(("peers", "due"), [((), 100.0), (("192.0.2.1",), 100.0 + JOIN_DELAY)])
def test_they_are_joined_once_and_late_if_there_is_an_address_to_dial(
    waiting: Waiting, peers: tuple[str, ...], due: float
) -> None:
    play = Play(Gathering(waiting), CARRIES, peers=peers)
    assert play.relays.due == due
    play.relays.start(due - 0.1)
    assert (waiting.started, play.relays.why_not()) == (0, reach.NOT_JOINED)
    play.relays.start(due)
    play.relays.start(due + 9.0)
    assert (waiting.started, play.relays.due, play.employed) == (1, NEVER, [waiting])
    assert play.told == [Joining(relays="relay.example.org:4001")]
    assert play.relays.why_not() == reach.nobody_at(PLACE)


def test_whoever_asks_to_try_now_joins_them_now(waiting: Waiting) -> None:
    play = Play(Gathering(waiting), CARRIES, peers=("192.0.2.1",))
    play.relays.start_over(101.0)
    assert play.relays.due == 101.0
    play.relays.start(101.0)
    play.relays.start_over(102.0)
    assert play.relays.due == NEVER


@pytest.mark.parametrize("relay", [CARRIES, ONLY_MEETS])
def test_whom_they_meet_becomes_a_connection_and_the_next_one_is_met_when_it_is_of_no_use(
    waiting: Waiting, pipe: tuple[socket.socket, socket.socket], relay: Relay
) -> None:
    play = Play(Gathering(waiting), relay)
    play.relays.start(100.0)
    met = Met(pipe[0], b"hello", PLACE)
    play.use(MeetingNews((met,)))
    ((connection, unread),) = play.admitted
    assert (connection.remote, connection.relay, connection.held, unread) == (
        "the peer through the relay relay.example.org:4001",
        "relay.example.org:4001",
        not relay.carries,
        b"hello",
    )
    connection.fault = peer.STRANGER
    assert connection.give_back is not None
    connection.give_back()
    assert waiting.returned == [met]
    assert play.relays.why_not() == reach.met_nobody(PLACE, peer.STRANGER)


def test_trouble_is_told_once_in_a_run_and_is_why_there_is_no_hole() -> None:
    one, other = Waiting(), Waiting()
    play = Play(Gathering(one, other), CARRIES, Relay(OTHER, True))
    play.relays.start(100.0)
    for _ in range(3):
        play.use(MeetingNews((), "no meeting at the relay"), 0)
        play.use(MeetingNews((), ""), 0)
    play.use(MeetingNews((), "no meeting at the relay"), 0)
    assert play.told[1:] == [RelayTrouble(reason="no meeting at the relay")]
    assert play.relays.why_not() == f"no meeting at the relay; {reach.nobody_at(OTHER)}"
    one.close()
    other.close()


def test_a_relay_for_which_there_is_no_descriptor_keeps_nothing_from_the_others(waiting: Waiting) -> None:
    play = Play(Gathering(OSError(24, "Too many open files"), waiting), Relay(OTHER, True), CARRIES)
    play.relays.start(100.0)
    assert waiting.started == 1
    assert "cannot join the relay 192.0.2.7:443: Too many open files" in play.relays.why_not()


def test_a_hello_is_waited_for_longer_than_elsewhere_and_has_tries_of_its_own(
    pipe: tuple[socket.socket, socket.socket],
) -> None:
    callers = Callers("192.0.2.1")
    connection = Connection(pipe[0], "the peer through the relay r:1", "", scheduled=False, relay="r:1")
    callers.admit(1, connection, 0.0, 0.0)
    assert callers.next_expiry() == RELAY_PATIENCE
    assert callers.is_invited(1)
    assert not callers.is_known(1)
    assert callers.who(1).source == "the peer through the relay r:1"
    assert not callers.busy
    connection.greet(4.0)
    assert callers.next_expiry() == 4.0 + DECISION_TIMEOUT


# ---- whole punches


def punch(gathering: Gathering, role: Role = Role.STDIO, wait: float = LONG) -> Hole:
    settings = Settings((), wait=wait, secret=SECRET, role=role, relays=(CARRIES,))
    return open_hole(settings, gathering=gathering)


def test_two_sides_that_meet_there_have_a_hole_through_it(pipe: tuple[socket.socket, socket.socket]) -> None:
    sides = Waiting(), Waiting()
    for sock in pipe:
        sock.setblocking(False)
    with ThreadPoolExecutor() as threads:
        punches = [threads.submit(punch, Gathering(one)) for one in sides]
        for one, sock in zip(sides, pipe, strict=True):
            one.tell(Met(sock, b"", PLACE))
        holes = [one.result(LONG) for one in punches]
    assert {hole.relay for hole in holes} == {"relay.example.org:4001"}
    assert [one.closed for one in sides] == [1, 1]
    assert not any(one.returned for one in sides)
    for hole in holes:
        hole.sock.close()


def test_two_clients_of_one_service_that_meet_each_other_go_on_and_say_so_at_the_end(
    pipe: tuple[socket.socket, socket.socket],
) -> None:
    """Both know the secret: by another way that would end the punch at once."""
    sides = Waiting(), Waiting()
    for sock in pipe:
        sock.setblocking(False)
    with ThreadPoolExecutor() as threads:
        punches = [threads.submit(punch, Gathering(one), Role.LISTEN, 3.0) for one in sides]
        for one, sock in zip(sides, pipe, strict=True):
            one.tell(Met(sock, b"", PLACE))
        assert all(one.again_called.wait(LONG) for one in sides)
        for done in punches:
            with pytest.raises(RejectedError, match="both sides listen"):
                done.result(LONG)


def test_nobody_came_is_all_there_is_to_say() -> None:
    with pytest.raises(NoHoleError) as caught:
        punch(Gathering(Waiting()), wait=0.2)
    assert str(caught.value) == f"no hole in 0.2 s: {reach.nobody_at(PLACE)}"
