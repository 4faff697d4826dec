"""What two sides that have met dial of each other, and that both come to the same."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import pytest

from punchtunnel.address import Place
from punchtunnel.errors import NoHoleError
from punchtunnel.protocol import schedule
from punchtunnel.protocol.hello import NO_TRAITS, Role
from punchtunnel.protocol.offers import Offer, Offered, PortUse, Source
from punchtunnel.punching.appointed import (
    MOST_PAIRS,
    AppointedPorts,
    Appointment,
    Plan,
    addresses_of,
    forwarded_places,
    outside4,
    plans_of,
)
from punchtunnel.punching.candidates import Candidate, Kind
from punchtunnel.punching.choice import strategy_for
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.rota import MOST as MOST_HOSTS
from punchtunnel.punching.settings import Settings, settings_from
from punchtunnel.punching.strategy import ScheduledPorts
from punchtunnel.system.addresses import Address

A, B = "127.0.0.1", "127.0.0.2"
OURS, THEIRS, THEIRS6 = "203.0.113.5", "203.0.113.9", "2001:db8::9"
WALL, START = 1e9, 1000.0


def host(text: str) -> Offered:
    return Offered(Source.HOST, text)


def seen(place: str, *ports: int) -> list[Offered]:
    return [Offered(Source.OBSERVED, place, port) for port in ports]


def offer(*candidates: Offered, use: PortUse = PortUse.UNKNOWN) -> Offer:
    return Offer(1, port_use=use, candidates=candidates)


def address(text: str, *, own: bool = False) -> Address:
    return Address(socket.AF_INET6 if ":" in text else socket.AF_INET, text, own=own)


# ---- which hosts


def test_hosts_in_the_internet_may_be_dialled_and_no_others() -> None:
    bad = ["192.168.1.2", "127.0.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "169.254.1.1", "100.64.0.1"]
    bad += ["::1", "::", "fe80::1", "ff02::1", "fd00::2", "::ffff:192.0.2.1"]
    theirs = offer(*map(host, bad), host(THEIRS), *seen(THEIRS, 4000), *seen(THEIRS6, 4000))
    assert addresses_of(offer(host(OURS)), theirs) == [THEIRS, THEIRS6]


def test_two_sides_behind_one_router_dial_each_other_in_their_network() -> None:
    theirs = offer(host("192.168.1.2"), host("fd00::2"), host("127.0.0.1"), host("169.254.1.1"), *seen(OURS, 4000))
    assert addresses_of(offer(*seen(OURS, 5000)), theirs) == ["192.168.1.2", "fd00::2", OURS]
    assert addresses_of(offer(*seen(THEIRS, 5000)), theirs) == [OURS]


def test_a_port_that_somebody_has_seen_inside_is_no_reason_to_dial_there() -> None:
    theirs = offer(*seen("192.168.1.2", 4000), *seen(OURS, 4000))
    assert addresses_of(offer(*seen(OURS, 5000)), theirs) == [OURS]


def test_no_more_hosts_are_dialled_than_one_turn_takes() -> None:
    theirs = offer(*(host(f"203.0.113.{number}") for number in range(16)))
    assert addresses_of(offer(), theirs) == [f"203.0.113.{number}" for number in range(MOST_HOSTS)]


# ---- which plans


@pytest.mark.parametrize(("mine", "theirs"), list(product(PortUse, PortUse)))
def test_a_guess_needs_one_router_whose_next_port_is_unknown_and_one_whose_port_is_known(
    mine: PortUse, theirs: PortUse
) -> None:
    ours, others = offer(*seen(OURS, 4000), use=mine), offer(host(THEIRS), use=theirs)
    guess = (Plan.GUESS,) if mine.is_hard != theirs.is_hard else ()
    assert plans_of(ours, others) == plans_of(others, ours) == (Plan.DIRECT, *guess)


@pytest.mark.parametrize("missing", [offer(use=PortUse.RANDOM), offer(*seen(THEIRS6, 4000), use=PortUse.RANDOM)])
def test_where_a_side_has_no_public_ipv4_address_nothing_is_guessed(missing: Offer) -> None:
    assert plans_of(offer(host(OURS)), missing) == plans_of(missing, offer(host(OURS))) == (Plan.DIRECT,)


def test_the_port_that_was_seen_tells_more_than_an_address_alone() -> None:
    assert outside4(offer(host(OURS), *seen(OURS, 4000, 4001))) == seen(OURS, 4000)[0]
    assert outside4(offer(*seen("192.168.1.2", 4000), *seen(OURS, 80), host(OURS))) == host(OURS)
    assert outside4(offer(*seen(THEIRS6, 4000))) is None


# ---- which ports


def pairs(mine: Offer, theirs: Offer, own_ports: Sequence[int], *addresses: Address) -> list[tuple[int, str, int]]:
    """Return what is dialled: own port, host, far port."""
    strategy = AppointedPorts(Appointment(mine, theirs, tuple(own_ports)), "pairs", random.Random(1), START)
    candidates = strategy.candidates(addresses, WALL)
    assert all(one.kind is Kind.OBSERVED for one in candidates)
    return [(one.own_port, one.address.host, one.far_port) for one in candidates]


@pytest.mark.parametrize(("ours", "others"), list(product(range(4), range(4))))
def test_each_side_dials_from_the_port_that_the_other_dials_and_the_other_way_round(ours: int, others: int) -> None:
    """Where one side expects another port than the other dials from, neither router lets the other in."""
    mine = offer(host(OURS), *seen(OURS, *range(4000, 4000 + ours)))
    theirs = offer(host(THEIRS), *seen(THEIRS, *range(5000, 5000 + others)))
    # Our router has made 4000 of 14000; one without a port that was seen keeps ports.
    here = pairs(mine, theirs, range(14000, 14000 + ours), address(THEIRS))
    there = pairs(theirs, mine, range(15000, 15000 + others), address(OURS))
    outside = {(own - 10000 if ours else own, far) for own, _, far in here}
    assert outside == {(far, own - 10000 if others else own) for own, _, far in there}
    assert len(outside) == (min(max(ours, others), 2) if ours or others else 0)


@pytest.mark.parametrize("seed", range(8))
def test_of_a_pair_one_side_holds_first_and_of_the_next_pair_the_other(seed: int) -> None:
    here, there = offer(*seen(OURS, 4001, 4002)), offer(*seen(THEIRS, 5001, 5002))
    holds = []
    for mine, theirs, peer in ((here, there, THEIRS), (there, here, OURS)):
        side = AppointedPorts(Appointment(mine, theirs, (12001, 12002)), "lab", random.Random(seed), 0.0)
        found = [one for one in side.candidates([address(peer)], 0.0) if one.kind is Kind.OBSERVED]
        holds.append([side.begin(one, 0.0) is not None for one in found])
    assert sorted(holds) == [[False, True], [True, False]]


def test_ipv4_and_ipv6_are_paired_each_for_itself() -> None:
    mine = offer(*seen(OURS, 4000, 4001), *seen("2001:db8::5", 14000))
    theirs = offer(*seen(THEIRS6, 5000, 5001), *seen(THEIRS, 5002))
    assert pairs(mine, theirs, (14000, 14001, 14000), address(THEIRS6), address(THEIRS)) == [
        (14000, THEIRS, 5002), (14001, THEIRS, 5002), (14000, THEIRS6, 5000), (14000, THEIRS6, 5001),
    ]  # fmt: skip


def test_only_addresses_that_are_dialled_anyway_are_dialled() -> None:
    mine, theirs = offer(*seen(OURS, 4000)), offer(*seen(THEIRS, 5000))
    assert pairs(mine, theirs, (14000,)) == []
    assert pairs(mine, theirs, (14000,), address("203.0.113.77"), address(THEIRS, own=True)) == []


def test_no_port_of_a_server_is_dialled_and_none_is_dialled_from() -> None:
    assert pairs(offer(*seen(OURS, 4000)), offer(*seen(THEIRS, 22, 5000)), (14000,), address(THEIRS)) == [
        (14000, THEIRS, 5000)
    ]
    assert pairs(offer(), offer(*seen(THEIRS, 443)), (), address(THEIRS)) == []
    assert forwarded_places(offer(Offered(Source.MAPPED, THEIRS, 25), Offered(Source.MAPPED, THEIRS, 1024))) == (
        Place(THEIRS, 1024),
    )


def test_a_peer_that_offers_much_gets_few_dials() -> None:
    hosts = [f"203.0.113.{number}" for number in range(16)]
    mine = offer(*seen(OURS, *range(4000, 4016)))
    assert len(pairs(mine, offer(*map(host, hosts)), range(14000, 14016), *map(address, hosts))) == MOST_PAIRS
    much = offer(*(one for text in hosts for one in seen(text, 5000)))
    assert len(pairs(mine, much, range(14000, 14016), *map(address, hosts))) == 2


def test_a_pair_is_dialled_on_when_another_address_has_its_turn() -> None:
    appointment = Appointment(offer(*seen(OURS, 4000)), offer(*seen(THEIRS, 5000)), (14000,))
    strategy = AppointedPorts(appointment, "turns", random.Random(1), START)
    first = strategy.candidates((address(THEIRS),), WALL)
    assert strategy.candidates((address(THEIRS6),), WALL + 4) == first != []


def test_the_first_own_port_of_each_family_is_listened_on() -> None:
    mine = offer(*seen(OURS, 4000, 4001), *seen("2001:db8::5", 4002, 4003))
    strategy = AppointedPorts(Appointment(mine, offer(), (14000, 14001, 14002, 14003)), "x", random.Random(1), START)
    assert list(strategy.listening((), WALL)) == [
        (socket.AF_INET, "", 1, [14000]), (socket.AF_INET6, "", 1, [14002]),
    ]  # fmt: skip


def test_without_an_address_of_the_peer_both_families_are_listened_in_and_nothing_is_dialled() -> None:
    strategy = ScheduledPorts("nobody", random.Random(1), START)
    assert strategy.candidates((), WALL) == []
    found = list(strategy.listening((), WALL))
    assert {family for family, *_ in found} == {socket.AF_INET, socket.AF_INET6}
    dialled = {one.far_port for one in strategy.candidates((address(THEIRS),) * 1, WALL)}
    for _, _, count, numbers in found:
        assert count == schedule.LISTENERS_PER_BUCKET
        # Whatever number of addresses the peer dials, it dials these.
        assert set(numbers[:count]) <= dialled


# ---- the race


def settings(peers: Sequence[str], bind: str | None, channel: str, appointment: Appointment, wait: float) -> Settings:
    made = settings_from(peers, channel, wait, bind, 0, 0, Role.RAW, NO_TRAITS, b"both have it")
    return replace(made, appointment=appointment)


def test_offered_and_forwarded_ports_are_dialled_beside_those_of_the_schedule() -> None:
    theirs = offer(Offered(Source.MAPPED, THEIRS, 6000), *seen(THEIRS, 5000))
    appointment = Appointment(offer(*seen(OURS, 4000)), theirs, (14000,))
    choice = strategy_for(settings([THEIRS], None, "race", appointment, 1), random.Random(1), START)
    candidates = choice.strategy.candidates((address(THEIRS),), WALL)
    assert Candidate(Kind.OBSERVED, address(THEIRS), 14000, 5000) in candidates
    assert Candidate(Kind.FORWARDED, address(THEIRS), 0, 6000) in candidates
    alone = ScheduledPorts("race", random.Random(1), START).candidates((address(THEIRS),), WALL)
    assert [one for one in candidates if one.kind is Kind.SAME_PORT] == alone != []
    for one in candidates:
        choice.strategy.begin(one, START)


# ---- over real sockets


@pytest.fixture
def channel() -> str:
    return f"appointed {os.urandom(8).hex()}"


def both(one: Callable[[], Hole], other: Callable[[], Hole]) -> tuple[Hole, Hole]:
    with ThreadPoolExecutor(2) as two:
        futures = two.submit(one), two.submit(other)
        return futures[0].result(), futures[1].result()


def test_a_side_that_has_no_address_of_its_peer_is_found_by_it(channel: str) -> None:
    waits = Appointment(offer(), offer(), ())
    finds = Appointment(offer(), offer(host(A)), ())
    one, other = both(
        lambda: open_hole(settings([], A, channel, waits, 30)), lambda: open_hole(settings([A], B, channel, finds, 30))
    )
    with one.sock, other.sock:
        assert (one.local, one.remote) == (other.remote, other.local)
        assert one.counts.dials == 0


def test_two_sides_meet_by_the_ports_that_were_seen_alone(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScheduledPorts, "_made_of", lambda *_: {})
    monkeypatch.setattr(ScheduledPorts, "listening", lambda *_: iter(()))
    with socket.socket() as first, socket.socket() as second:
        # Kept from others by sockets that are bound to another address.
        first.bind(("127.0.0.3", 0))
        second.bind(("127.0.0.3", 0))
        here, there = first.getsockname()[1], second.getsockname()[1]
        mine, theirs = offer(*seen(A, here)), offer(*seen(B, there))
        one, other = both(
            lambda: open_hole(settings([B], A, channel, Appointment(mine, theirs, (here,)), 30)),
            lambda: open_hole(settings([A], B, channel, Appointment(theirs, mine, (there,)), 30)),
        )
        with one.sock, other.sock:
            assert one.local == other.remote == f"{A}:{here}"
            assert one.remote == other.local == f"{B}:{there}"


def test_an_address_of_a_family_that_this_side_lacks_is_none(channel: str) -> None:
    made = settings([], A, channel, Appointment(offer(), offer(host(THEIRS6)), ()), 0.3)
    with pytest.raises(NoHoleError):
        open_hole(replace(made, peers=[THEIRS6]))


def test_if_nobody_came_and_nobody_could_be_dialled_the_last_line_says_so(channel: str) -> None:
    with pytest.raises(NoHoleError, match="the peer told no address that can be dialled"):
        open_hole(settings([], A, channel, Appointment(offer(), offer(), ()), 0.3))
