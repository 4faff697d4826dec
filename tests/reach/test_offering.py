"""How this side can be met: addresses and routers that are the test's."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from punchtunnel.address import Place
from punchtunnel.errors import SignalError
from punchtunnel.protocol.offers import MAX_CANDIDATES, Offered, PortUse, Source
from punchtunnel.protocol.schedule import CLOCK_FREE, CLOCK_FREE_PORTS, LISTENERS_PER_BUCKET, bucket_ports
from punchtunnel.punching.helper import PortMapping, RouterNews
from punchtunnel.punching.settings import Settings
from punchtunnel.reach import offering
from punchtunnel.system.signals import Wake

SETTINGS = Settings((), channel="of the pair", maps=True)
OPEN = bucket_ports("of the pair", CLOCK_FREE, CLOCK_FREE_PORTS)[:LISTENERS_PER_BUCKET]
HOSTS = ["127.0.0.1", "192.168.1.2", "203.0.113.9", "::1", "fe80::1%eth0", "fd00::2", "2001:db8::9", "169.254.3.4"]


class Router:
    """A mapper whose router answers what the test says (helper.PortMapper)."""

    def __init__(self, news: RouterNews) -> None:
        self._news, self._told = news, RouterNews()
        self._here, self._there = socket.socketpair()
        self.wanted: Mapping[socket.AddressFamily, Sequence[int]] = {}

    def fileno(self) -> int:
        return self._here.fileno()

    def start(self) -> None:
        self._there.send(b"!")

    def take(self) -> RouterNews:
        self._here.recv(64)
        self._told = self._news
        return self._told

    def heard(self) -> RouterNews:
        return self._told

    def want(self, ports: Mapping[socket.AddressFamily, Sequence[int]]) -> None:
        self.wanted = ports

    def close(self) -> None:
        self._here.close()
        self._there.close()


class Gathering:
    def __init__(self, mapper: Router) -> None:
        self._mapper = mapper

    def mapper(self) -> Router:
        return self._mapper


@pytest.fixture
def wake() -> Iterator[Wake]:
    with Wake() as one:
        yield one


@pytest.fixture(autouse=True)
def hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offering, "own_addresses", lambda: HOSTS)


def gathered(news: RouterNews, wake: Wake, settings: Settings = SETTINGS) -> tuple[offering.Offering, Router]:
    router = Router(news)
    gathering: Any = Gathering(router)
    try:
        return offering.gather(settings, gathering, wake), router
    finally:
        router.close()


def hosts_of(found: offering.Offering) -> list[str]:
    return [str(one.host) for one in found.offer.candidates if one.source is Source.HOST]


def test_addresses_that_others_may_dial_are_told_public_ones_first(wake: Wake) -> None:
    found = offering.gather(replace(SETTINGS, maps=False), None, wake)
    assert hosts_of(found) == ["203.0.113.9", "2001:db8::9", "192.168.1.2", "fd00::2"]
    assert found.offer.port_use is PortUse.PRESERVING


def test_where_this_side_punches_from_one_address_that_one_is_told(wake: Wake) -> None:
    found = offering.gather(replace(SETTINGS, maps=False, bind="192.168.1.2"), None, wake)
    assert hosts_of(found) == ["192.168.1.2"]
    assert found.offer.port_use is PortUse.UNKNOWN


@pytest.mark.parametrize(
    ("family", "told"),
    [(socket.AF_INET, ["203.0.113.9", "192.168.1.2"]), (socket.AF_INET6, ["2001:db8::9", "fd00::2"])],
)
def test_only_the_family_that_this_side_punches_in_is_told(
    wake: Wake, family: socket.AddressFamily, told: list[str]
) -> None:
    assert hosts_of(offering.gather(replace(SETTINGS, maps=False, family=family), None, wake)) == told


def test_a_router_s_address_is_told_and_a_port_that_it_gives_under_another_number(wake: Wake) -> None:
    kept = PortMapping(socket.AF_INET, OPEN[0], Place("198.51.100.7", OPEN[0]), "PCP")
    other = PortMapping(socket.AF_INET, OPEN[1], Place("198.51.100.7", 50001), "PCP")
    found, router = gathered(RouterNews((kept, other)), wake)
    assert found.offer.candidates[0] == Offered(Source.MAPPED, "198.51.100.7", 50001)
    assert "198.51.100.7" in hosts_of(found)
    assert router.wanted == {socket.AF_INET: OPEN, socket.AF_INET6: OPEN}


@pytest.mark.parametrize("news", [RouterNews(silent=True), RouterNews(refusals=("no",))], ids=["silent", "refuses"])
def test_a_router_that_maps_nothing_is_not_waited_for(wake: Wake, news: RouterNews, monkeypatch: Any) -> None:
    monkeypatch.setattr(offering, "GATHERING", 3600.0)
    found, _ = gathered(news, wake)
    assert len(hosts_of(found)) == 4


def test_a_router_that_does_not_answer_costs_its_time_alone(wake: Wake, monkeypatch: Any) -> None:
    monkeypatch.setattr(offering, "GATHERING", 0.01)
    found, _ = gathered(RouterNews(), wake)
    assert len(hosts_of(found)) == 4


def test_no_more_is_told_than_there_is_room_for(wake: Wake, monkeypatch: Any) -> None:
    monkeypatch.setattr(offering, "own_addresses", lambda: [f"203.0.113.{number}" for number in range(1, 99)])
    found = offering.gather(replace(SETTINGS, maps=False), None, wake)
    assert len(found.offer.candidates) == MAX_CANDIDATES


def test_a_signal_ends_it(wake: Wake) -> None:
    wake.note(signal.SIGINT)
    with pytest.raises(SignalError):
        gathered(RouterNews(), wake)
