"""Which connections are let in, how long each may take, and which makes room: without a socket."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from punchtunnel.punching.callers import (
    DECISION_TIMEOUT,
    EVERYBODY_ELSE,
    HELLO_ROUND_TRIPS,
    HELLO_TIMEOUT,
    LONGEST_HELLO_TIMEOUT,
    MAX_CONNECTIONS,
    NEVER,
    PICK_TIMEOUT,
    Caller,
    Callers,
    Connection,
)
from punchtunnel.system.addresses import Address

PEER, OTHER = "198.51.100.7", "198.51.100.8"
START = 100.0
NO_SOCKET: Any = None


def callers() -> Callers:
    made = Callers(PEER)
    made.addresses = (Address(socket.AF_INET, PEER),)
    return made


def admit(
    table: Callers, conn: int, *, host: str = PEER, scheduled: bool = True, now: float = START, round_trip: float = 0.0
) -> Connection:
    connection = Connection(NO_SOCKET, f"{host}:9", host, scheduled)
    table.admit(conn, connection, now, round_trip)
    return connection


@pytest.mark.parametrize(
    ("host", "scheduled", "caller"),
    [
        (PEER, True, Caller(PEER, f"{PEER}:9", True)),
        (PEER, False, Caller(PEER, f"{PEER}:9", False)),
        (OTHER, True, Caller(EVERYBODY_ELSE, f"{OTHER}:9", False)),
    ],
)
def test_a_connection_from_elsewhere_is_a_strangers_and_never_expected(
    host: str, scheduled: bool, caller: Caller
) -> None:
    table = callers()
    admit(table, 1, host=host, scheduled=scheduled)
    assert table.who(1) == caller


def test_all_addresses_of_the_peer_are_one_source() -> None:
    """A name with eight addresses gave eight times as many tries at the secret."""
    table = Callers("home.example")
    table.addresses = (Address(socket.AF_INET, PEER), Address(socket.AF_INET, OTHER))
    admit(table, 1, host=PEER)
    admit(table, 2, host=OTHER)
    admit(table, 3, host="198.51.100.9")
    assert [table.who(conn).source for conn in (1, 2, 3)] == ["home.example", "home.example", EVERYBODY_ELSE]


@pytest.mark.parametrize(
    ("round_trip", "seconds"),
    [(0.0, HELLO_TIMEOUT), (0.3, HELLO_TIMEOUT + HELLO_ROUND_TRIPS * 0.3), (60.0, LONGEST_HELLO_TIMEOUT)],
)
def test_a_hello_must_come_within_some_round_trips(round_trip: float, seconds: float) -> None:
    table = callers()
    admit(table, 1, round_trip=round_trip)
    assert table.next_expiry() == START + seconds
    assert table.expired(START + seconds - 0.01) is None
    assert table.expired(START + seconds) == 1


def test_a_hello_gives_time_to_be_decided_and_a_pick_gives_its_own() -> None:
    connection = admit(table := callers(), 1)
    connection.greeted = True
    assert table.next_expiry() == START + DECISION_TIMEOUT
    connection.picked = START + DECISION_TIMEOUT - 1
    assert table.next_expiry() == connection.picked + PICK_TIMEOUT


def test_the_next_expiry_is_the_first_of_all() -> None:
    table = callers()
    assert table.next_expiry() == NEVER
    admit(table, 1, round_trip=1.0)
    admit(table, 2)
    assert table.next_expiry() == START + HELLO_TIMEOUT
    assert table.expired(START + HELLO_TIMEOUT) == 2


def test_there_is_room_for_so_many_and_then_for_one_more_when_one_goes() -> None:
    table = callers()
    for conn in range(MAX_CONNECTIONS):
        assert table.least() is None
        admit(table, conn)
    assert table.least() == 0
    del table.connections[0]
    assert table.least() is None


def test_strangers_make_room_before_the_unexpected_the_silent_and_the_old_but_never_what_is_being_tried() -> None:
    table = callers()
    tried = admit(table, 0, host=OTHER)
    tried.picked = START
    by_worth = [
        (OTHER, True, False),
        (OTHER, True, True),
        (PEER, False, False),
        (PEER, False, True),
        (PEER, True, False),
    ]
    for conn, (host, scheduled, greeted) in enumerate(by_worth, 1):
        admit(table, conn, host=host, scheduled=scheduled).greeted = greeted
    for conn in range(len(by_worth) + 1, MAX_CONNECTIONS):
        admit(table, conn).greeted = True
    order = []
    while (least := table.least()) is not None:
        order.append(least)
        del table.connections[least]
        admit(table, MAX_CONNECTIONS + len(order)).greeted = True
        if len(order) == MAX_CONNECTIONS - 1:
            break
    assert order == list(range(1, MAX_CONNECTIONS))
