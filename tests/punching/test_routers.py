"""What a punch asks of this machine's routers, when, and what it tells of their answers."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest

from punchtunnel.address import Place
from punchtunnel.protocol.schedule import CLOCK_FREE, CLOCK_FREE_PORTS, bucket_ports
from punchtunnel.punching import routers
from punchtunnel.punching.callers import Connection
from punchtunnel.punching.helper import Meeting, PortMapping, RouterNews
from punchtunnel.punching.hole import Counts
from punchtunnel.punching.listeners import Listeners
from punchtunnel.punching.routers import LOOK_EVERY, MOST_TOLD, NEVER, Routers
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting import events
from punchtunnel.system.addresses import LOOPBACK, Address

V4, V6 = socket.AF_INET, socket.AF_INET6
FAR = Address(V4, "198.51.100.7")
FAR6 = Address(V6, "2001:db8::7")
NEAR6 = Address(V6, "fe80::7", scope=2)
OURSELVES = Address(V4, LOOPBACK, own=True)
START = 1000.0


class Mapper:
    """Notes what it is asked for, and brings what it is told."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self.asked: list[object] = []
        self._news = RouterNews()

    def fileno(self) -> int:
        return self._here.fileno()

    def start(self) -> None:
        self.asked.append("start")

    def want(self, ports: Mapping[socket.AddressFamily, Sequence[int]]) -> None:
        self.asked.append({family: list(numbers) for family, numbers in ports.items()})

    def take(self) -> RouterNews:
        self._here.recv(16)
        return self.heard()

    def heard(self) -> RouterNews:
        return self._news

    def bring(self, news: RouterNews) -> None:
        self._news = news
        self._there.send(b"!")

    def release(self) -> None:
        self.asked.append("release")

    def close(self) -> None:
        self._here.close()
        self._there.close()


class Gathering:
    def __init__(self) -> None:
        self.told: set[str] = set()
        self.made = Mapper()
        self.count = 0

    def mapper(self) -> Mapper:
        self.count += 1
        return self.made

    def meeting(self, relay: Place) -> Meeting:
        raise AssertionError("no relay is named")

    def heard(self) -> RouterNews:
        return self.made.heard() if self.count else RouterNews()

    def recall(self) -> dict[str, list[str]]:
        raise AssertionError("no name is looked up here")

    def remember(self, *_: object) -> None:
        raise AssertionError("no hole opens here")

    def failed(self) -> None:
        raise AssertionError("no hole is waited for here")


class Table:
    """Routers with a mapper that plays, and a listener on the first port that needs no clock."""

    def __init__(self, settings: Settings, gathering: Gathering) -> None:
        self.selector = selectors.DefaultSelector()
        self.reported: list[events.Event] = []
        self.listeners = Listeners(self.selector, Counts(), events.unreported, _unexpected, open_to_all=False)
        self.gathering = gathering
        self.numbers = bucket_ports(settings.channel, CLOCK_FREE, CLOCK_FREE_PORTS)
        self.routers = Routers(settings, gathering, self.selector, self.listeners, self.reported.append)
        self.due = 0.0

    def listen(self, number: int) -> None:
        self.listeners.open(V4, LOOPBACK, number, pair=False)

    def ask(self, now: float, *addresses: Address, busy: bool = False) -> list[object]:
        """Return what the mapper was asked for."""
        del self.gathering.made.asked[:]
        self.due = self.routers.ask(now, addresses or (FAR,), busy=busy)
        return list(self.gathering.made.asked)

    def bring(self, news: RouterNews) -> list[events.Event]:
        """Return what was reported of it."""
        del self.reported[:]
        self.gathering.made.bring(news)
        for key, _ in self.selector.select(10):
            key.data()
        return list(self.reported)


def _unexpected(_: Connection) -> None:
    raise AssertionError("nobody connects here")


Made = Callable[..., Table]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    monkeypatch.setattr(routers, "is_behind_router", lambda address, _: address == FAR)
    with contextlib.ExitStack() as stack:

        def make(*, gathering: Gathering | None = None) -> Table:
            gathering = gathering or Gathering()
            stack.callback(gathering.made.close)
            made = Table(Settings([FAR.host], os.urandom(8).hex()), gathering)
            stack.callback(made.selector.close)
            stack.callback(made.listeners.keep, ())
            made.listen(made.numbers[0])
            return made

        yield make


def test_routers_are_asked_for_what_is_listened_on_while_nobody_is_on_a_connection(table: Made) -> None:
    made = table()
    assert made.ask(START, busy=True) == []
    assert made.due == START + LOOK_EVERY
    assert made.ask(START) == ["start", {V4: [made.numbers[0]]}]
    assert made.ask(START) == []
    made.listen(made.numbers[1])
    assert made.ask(START) == [{V4: made.numbers[:2]}]
    assert made.gathering.count == 1


def test_only_a_peer_beyond_a_router_needs_one(table: Made) -> None:
    made = table()
    assert made.ask(START + 5, OURSELVES, NEAR6, Address(V4, "192.168.1.3")) == []
    assert made.ask(START + 10, OURSELVES, FAR6) != []


def test_what_routers_say_is_told_once_in_a_run(table: Made) -> None:
    gathering = Gathering()
    made = table(gathering=gathering)
    made.ask(START)
    own = made.numbers[0]
    kept = PortMapping(V4, own, Place("203.0.113.5", own), "PCP")
    assert made.bring(RouterNews((kept,))) == [events.PortMapped(port=own, external=f"203.0.113.5:{own}", by="PCP")]
    assert RouterNews((kept,)).leads_to(V4, own)
    assert not RouterNews((kept,)).leads_to(V6, own)
    assert RouterNews((kept,)).externals == {"203.0.113.5"}
    other = PortMapping(V4, own, Place("203.0.113.5", 1024), "NAT-PMP")
    assert made.bring(RouterNews((kept,))) == []
    assert made.bring(RouterNews((other,))) == [
        events.MappedElsewhere(port=own, external="203.0.113.5:1024", by="NAT-PMP")
    ]
    # The next punch of the same run.
    made = table(gathering=gathering)
    made.ask(START)
    assert made.bring(RouterNews((other,))) == []


def test_a_router_that_always_says_something_else_fills_no_log(table: Made) -> None:
    made = table()
    made.ask(START)
    told = [
        event
        for number in range(2 * MOST_TOLD)
        for event in made.bring(RouterNews((PortMapping(V4, 16049, Place("203.0.113.5", 1024 + number), "PCP"),)))
    ]
    assert len(told) == len(made.gathering.told) == MOST_TOLD


@pytest.mark.parametrize(
    ("news", "reason"),
    [
        (RouterNews(behind=("100.64.1.2",)), "100.64.1.2, is none of the Internet: another NAT follows"),
        (RouterNews(refusals=("the router 192.168.1.1 does not allow it",)), "does not allow it"),
        (RouterNews(silent=True), "no router here answers"),
    ],
)
def test_why_nothing_is_forwarded_is_told(table: Made, news: RouterNews, reason: str) -> None:
    made = table()
    made.ask(START)
    (event,) = made.bring(news)
    assert isinstance(event, events.NotMapped)
    assert reason in event.reason
    assert news.externals == set(news.behind)


def test_without_a_descriptor_for_it_the_punch_goes_on(table: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made = table()

    def refuse() -> Mapper:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(made.gathering, "mapper", refuse)
    assert made.ask(START) == []
    assert made.due == NEVER


def test_another_network_is_asked_anew(table: Made) -> None:
    made = table()
    made.routers.start_over()
    made.ask(START)
    del made.gathering.made.asked[:]
    made.routers.start_over()
    assert made.gathering.made.asked == ["start"]
