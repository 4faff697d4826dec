"""Which of many addresses are dialled when."""

from __future__ import annotations

import socket

import pytest

from punchtunnel.punching.rota import FEW, MAX_ADDRESSES, MOST, TURN, Rota, likely_first
from punchtunnel.system.addresses import Address

V4, V6 = socket.AF_INET, socket.AF_INET6


def addresses(count: int) -> list[Address]:
    return [Address(V4, f"198.51.100.{number}") for number in range(count)]


def test_families_alternate_and_keep_the_resolvers_order_within_each() -> None:
    given = [Address(V6, "::a"), Address(V6, "::b"), Address(V4, "192.0.2.1"), Address(V6, "::c")]
    assert likely_first(given) == (given[0], given[2], given[1], given[3])
    assert likely_first([]) == ()


@pytest.mark.parametrize("count", [1, 2, FEW])
def test_few_addresses_are_always_dialled(count: int) -> None:
    rota = Rota()
    for now in range(100):
        assert rota.dialled(addresses(count), now, busy=False) == addresses(count)


@pytest.mark.parametrize("count", [FEW + 1, 8, 9, MAX_ADDRESSES])
def test_all_have_a_turn_with_most_ports_within_half_a_minute(count: int) -> None:
    """With 8 addresses of few ports each, a router that takes ports had all of them; a ninth was never tried."""
    rota, everyone = Rota(), addresses(count)
    assert rota.dialled(everyone, 0.0, busy=False) == everyone[:MOST]
    turns = [tuple(rota.dialled(everyone, float(now), busy=False)) for now in range(1, 29)]
    assert {address for turn in turns if len(turn) <= FEW for address in turn} == set(everyone)
    assert all(0 < len(turn) <= MOST for turn in turns)


def test_a_turn_lasts_while_somebody_is_on_a_connection() -> None:
    rota, everyone = Rota(), addresses(8)
    first = rota.dialled(everyone, 0.0, busy=False)
    assert rota.dialled(everyone, 10 * TURN, busy=True) == first
    assert rota.dialled(everyone, 10 * TURN, busy=False) == everyone[:FEW]
    assert rota.dialled(everyone, 11 * TURN - 0.1, busy=False) == everyone[:FEW]


def test_further_ways_join_the_turn_of_all_and_push_no_address_out() -> None:
    rota, known = Rota(), addresses(FEW)
    further = [address._replace(interface="eth1") for address in known]
    first = rota.dialled(known, 0.0, busy=False, further=further)
    assert first == [*known, *further]
    turns = [rota.dialled(known, float(now), busy=False, further=further) for now in range(1, 29)]
    assert all(set(known) <= set(turn) for turn in turns)
    assert any(list(turn) == known for turn in turns)


def test_one_address_is_always_dialled_by_all_its_ways() -> None:
    rota, (known,) = Rota(), addresses(1)
    further = [known._replace(interface=name) for name in ("eth1", "eth2")]
    for now in range(100):
        assert rota.dialled([known], now, busy=False, further=further) == [known, *further]


def test_many_addresses_leave_no_room_for_further_ways() -> None:
    rota, known = Rota(), addresses(MOST)
    assert rota.dialled(known, 0.0, busy=False, further=[known[0]._replace(interface="eth1")]) == known
