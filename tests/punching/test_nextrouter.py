"""What is refused from next door, over loopback; tests/natlab has the routers."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterator

import pytest

from punchtunnel.punching import nextrouter
from punchtunnel.punching.nextrouter import NextRouter
from punchtunnel.punching.settings import Settings
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address, is_behind_router

HERE, THERE = Address(socket.AF_INET, "127.0.0.1"), Address(socket.AF_INET, "127.0.0.2")


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as one:
        yield one
        assert not one.get_map()


@pytest.fixture
def port() -> Iterator[int]:
    """Yield a port at which both addresses refuse, as long as nobody listens on it."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def distances(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put everybody behind a router, and return the TTLs that are set."""
    seen: list[int] = []
    monkeypatch.setattr(nextrouter, "is_behind_router", lambda address, interface: True)
    monkeypatch.setattr(tcp, "set_time_to_live", lambda _, ttl: seen.append(ttl))
    return seen


def answer(selector: selectors.BaseSelector) -> None:
    """Wait for the answer to the question that is under way."""
    ((key, _),) = selector.select(30)
    key.data()


def test_an_address_that_refuses_what_comes_no_further_than_one_hop_is_the_routers(
    selector: selectors.BaseSelector, port: int, distances: list[int]
) -> None:
    router = NextRouter(Settings(["home"]), selector)
    for address in (HERE, THERE):
        router.ask({HERE: port, THERE: port})
        answer(selector)
        assert address in router.refusing
    router.ask({HERE: port, THERE: port})
    assert distances == [1, 1], "each is asked about once"
    router.forget()
    assert not router.refusing
    router.ask({HERE: port})
    answer(selector)
    assert distances == [1, 1, 1]


def test_one_question_is_under_way_at_a_time_and_none_is_left(
    selector: selectors.BaseSelector, port: int, distances: list[int]
) -> None:
    router = NextRouter(Settings(["home"]), selector)
    router.ask({HERE: port, THERE: port})
    router.ask({HERE: port, THERE: port})
    assert distances == [1]
    assert len(selector.get_map()) == 1
    router.close()


def test_an_answer_is_no_refusal(selector: selectors.BaseSelector, distances: list[int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        router = NextRouter(Settings(["home"]), selector)
        router.ask({HERE: server.getsockname()[1]})
        answer(selector)
    assert (distances, router.refusing) == ([1], set())


@pytest.mark.parametrize(
    "address", [HERE, HERE._replace(own=True), Address(socket.AF_INET6, "::1"), Address(socket.AF_INET, "192.0.2.1")]
)
def test_what_no_router_is_on_the_way_to_is_not_asked_about(
    selector: selectors.BaseSelector, port: int, address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    if address.host == "192.0.2.1":
        monkeypatch.setattr("punchtunnel.system.addresses.source_towards", lambda *_: None)
    assert not is_behind_router(address)
    NextRouter(Settings(["home"]), selector).ask({address: port})


def test_a_port_that_cannot_be_had_costs_a_sentence_and_nothing_else(
    selector: selectors.BaseSelector, port: int, distances: list[int]
) -> None:
    router = NextRouter(Settings(["home"], bind="192.0.2.1"), selector)
    router.ask({HERE: port})
    assert (distances, router.refusing) == ([], set())
