"""Whether the router forwards ports, as --doctor tells it."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence

import pytest

from punchtunnel.address import Place
from punchtunnel.doctor import findings, forwarding, sights
from punchtunnel.doctor.facts import Bind, Facts
from punchtunnel.doctor.findings import Finding, Level
from punchtunnel.punching.helper import PortMapping, RouterNews
from punchtunnel.system.routes import Gateway, Route

V4, V6 = socket.AF_INET, socket.AF_INET6
HOST, HOST6 = "203.0.113.5", "2001:db8::7"
PORT = 16049
MAPPED = PortMapping(V4, PORT, Place(HOST, PORT), "PCP")
PINHOLE = PortMapping(V6, PORT, Place(HOST6, PORT), "PCP")
ELSEWHERE = PortMapping(V4, PORT, Place(HOST, 1024), "UPnP")
INSIDE = RouterNews(behind=("100.64.1.2",))
DENIED = RouterNews(refusals=("the router 192.168.1.1 does not allow it",))
SILENT = RouterNews(silent=True)
REWRITTEN = Finding("mapping", Level.BAD, "mapping_rewritten_once", {"depends": ""})


class Mapper:
    """Brings one piece of news after the other."""

    def __init__(self, *news: RouterNews) -> None:
        self._here, self._there = socket.socketpair()
        self._news = list(news)
        self.wanted: Mapping[socket.AddressFamily, Sequence[int]] = {}
        self.closed = False

    def make(self, key: bytes, interface: str, bind: str | None) -> Mapper:
        assert (len(key), interface, bind) == (forwarding.KEY_SIZE, "eth0", None)
        return self

    def fileno(self) -> int:
        return self._here.fileno()

    def start(self) -> None:
        self._there.send(b"!")

    def want(self, ports: Mapping[socket.AddressFamily, Sequence[int]]) -> None:
        self.wanted = ports

    def take(self) -> RouterNews:
        return self._news.pop(0)

    def heard(self) -> RouterNews:
        raise AssertionError("what it says is taken")

    def release(self) -> None:
        raise AssertionError("it is closed")

    def close(self) -> None:
        self.closed = True
        self._here.close()
        self._there.close()


@pytest.mark.parametrize("last", [RouterNews((MAPPED,)), INSIDE, DENIED, SILENT])
def test_one_port_is_mapped_until_the_router_has_answered_and_then_given_back(last: RouterNews) -> None:
    mapper = Mapper(RouterNews(), RouterNews((PINHOLE,)), last, RouterNews())
    assert forwarding.ask(Bind(interface="eth0"), mapper.make) == last
    assert mapper.closed
    assert mapper.wanted[V4] == mapper.wanted[V6]
    assert len(mapper.wanted[V4]) == 1


def test_the_port_that_is_mapped_leads_to_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the port was that of another program, the Internet could reach that for a moment."""
    with socket.socket() as program, socket.socket() as free:
        program.bind(("127.0.0.1", 0))
        program.listen()
        free.bind(("127.0.0.3", 0))
        taken, unused = program.getsockname()[1], free.getsockname()[1]
        free.close()
        numbers = iter([taken, unused])
        monkeypatch.setattr(random.SystemRandom, "randint", lambda *_: next(numbers))

        class Watching(Mapper):
            def start(self) -> None:
                with socket.socket() as late, pytest.raises(OSError, match="in use"):
                    late.bind(("127.0.0.1", unused))
                super().start()

        mapper = Watching(DENIED)
        assert forwarding.ask(Bind(interface="eth0"), mapper.make) == DENIED
    assert mapper.wanted == {V4: [unused], V6: [unused]}


def test_a_router_that_never_decides_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "PATIENCE", 0.0)
    mapper = Mapper()
    assert forwarding.ask(Bind(interface="eth0"), mapper.make) == RouterNews()
    assert mapper.closed


@pytest.mark.parametrize(
    ("gateways", "facts", "asked"),
    [
        ([Gateway(V4, "eth0", "192.168.1.1")], Facts(address4="192.168.1.2"), True),
        ([Gateway(V4, "eth0", "203.0.113.1")], Facts(address4="203.0.113.9"), False),
        ([Gateway(V6, "eth0", "fe80::1")], Facts(address4="203.0.113.9", addresses6=[HOST6]), True),
        ([Gateway(V4, "eth0", "192.168.1.1")], Facts(), False),
        ([], Facts(address4="192.168.1.2"), False),
    ],
)
def test_a_machine_that_no_router_translates_asks_none(
    gateways: list[Gateway], facts: Facts, asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forwarding, "gateways", lambda: gateways)
    assert forwarding.has_router(facts) is asked


@pytest.mark.parametrize(
    ("news", "level", "sentence"),
    [
        (RouterNews((MAPPED,)), Level.OK, f"{HOST}:{PORT} would lead here"),
        (RouterNews((ELSEWHERE,)), Level.WARN, f"but another one: {HOST}:1024 for {PORT}"),
        (INSIDE, Level.WARN, "100.64.1.2, is none of the Internet"),
        (DENIED, Level.WARN, "does not allow it"),
        (SILENT, Level.UNKNOWN, "no router here answers"),
        (RouterNews(), Level.UNKNOWN, "no router here answers"),
    ],
)
def test_each_answer_has_a_sentence(news: RouterNews, level: Level, sentence: str) -> None:
    (finding,) = forwarding.of_news(news)
    assert finding.level is level
    assert sentence in finding.sentence
    assert "{" not in finding.sentence + finding.remedy
    assert bool(finding.remedy) == (level is not Level.OK)


def test_where_the_router_forwards_a_port_rewriting_is_no_hindrance() -> None:
    forwards = forwarding.of_news(RouterNews((MAPPED,)))
    assert findings.verdict([REWRITTEN, *forwards], "").name == "verdict_forwarded"
    assert findings.verdict(forwards, "").name == "verdict_forwarded"
    kept = Finding("mapping", Level.OK, "mapping_kept")
    assert findings.verdict([kept, *forwards], "").name == "verdict_kept"
    for news in (RouterNews((ELSEWHERE,)), RouterNews((PINHOLE,)), INSIDE, DENIED, SILENT):
        assert findings.verdict([REWRITTEN, *forwarding.of_news(news)], "").name == "verdict_rewritten"


def test_the_routers_address_is_the_one_for_the_other_machine_unless_a_server_has_seen_one() -> None:
    facts = Facts(routes={4: Route("eth0", "192.168.1.1")}, address4="192.168.1.2", addresses6=[])
    forwarded = forwarding.addresses(RouterNews((PINHOLE, MAPPED)))
    assert forwarded == [HOST, HOST6]
    assert sights.addresses(facts, (), forwarded) == forwarded
    assert sights.of_addresses(facts, (), forwarded).name == "public_forwarded"
    assert sights.of_addresses(facts, ()).name == "public_unknown"
