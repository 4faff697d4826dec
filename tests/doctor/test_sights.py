"""What --doctor makes of how STUN servers see it: the router's class, the public address, the command."""

from __future__ import annotations

from dataclasses import replace

import pytest

from punchtunnel.address import Place
from punchtunnel.doctor import findings, sights
from punchtunnel.doctor.facts import Facts, Sight
from punchtunnel.doctor.findings import Level
from punchtunnel.reach.portclass import Kind
from punchtunnel.system.routes import Route

BOTH = {4: Route("eth0", "192.168.1.1"), 6: Route("eth0", "fe80::1")}
HOME = Facts(BOTH, "192.168.1.2", ["2001:db8::2"])
SEEN4, SEEN6 = "203.0.113.1", "2001:db8::2"


def sight(seen: int | str, own: int = 12345, server: str = "stun.example") -> Sight:
    """Return how an IPv4 server sees a port, or a place."""
    place = Place(SEEN4, seen) if isinstance(seen, int) else Place(seen, own)
    return Sight(server, Place("192.168.1.2", own), place)


def sight6(*, silent: bool = False, seen: str = SEEN6) -> Sight:
    own = Place(SEEN6, 12345)
    if silent:
        return Sight("stun.example", own, reason="no answer", version=6, silent=True)
    return Sight("stun.example", own, Place(seen, 12345), version=6)


def row(*seen: int) -> list[Sight]:
    """Return the sights of the first ports of the punch's range by one server."""
    return [sight(port, own) for own, port in enumerate(seen, 10240)]


# ---- the class of the router

MAPPINGS: list[tuple[list[Sight], str, Level, str, str]] = [
    ([sight(12345), sight(12345)], "mapping_kept", Level.OK, "verdict_kept", ""),
    ([sight(12345)], "mapping_kept_once", Level.OK, "verdict_kept", ""),
    ([sight(12345), sight(4711)], "mapping_kept_first", Level.WARN, "verdict_kept", ""),
    ([sight(12345), sight(4711), sight(9, 9)], "mapping_kept_first", Level.WARN, "verdict_kept", ""),
    ([sight(12345), sight("203.0.113.2")], "mapping_wanders", Level.WARN, "verdict_kept", ""),
    # Each port is kept, but the address depends on the connection.
    ([sight(12345), sight("203.0.113.2", 9)], "mapping_wanders", Level.WARN, "verdict_kept", ""),
    ([sight("192.168.1.2"), sight("192.168.1.2")], "mapping_none", Level.OK, "verdict_public", ""),
    # Somebody else behind the router had the first port.
    ([sight(1), sight(2), sight(9, 9), sight(9, 9)], "mapping_kept", Level.OK, "verdict_kept", ""),
    ([sight(4711)], "mapping_rewritten_once", Level.BAD, "verdict_rewritten", "is not known"),
    ([sight(4711), sight(4712)], "mapping_rewritten_once", Level.BAD, "verdict_rewritten", ", differently for each"),
    ([sight(4711), sight(4711)], "mapping_rewritten", Level.BAD, "verdict_rewritten", "the same one for each"),
    (row(1025, 1026, 1027, 1028), "mapping_sequential", Level.BAD, "verdict_rewritten", "4 connections got 1025 to"),
    (row(1025, 1026, 1027), "mapping_sequential", Level.BAD, "verdict_rewritten", "is not known"),
    (row(4000, 2000, 3000), "mapping_window", Level.BAD, "verdict_rewritten", "3 connections got 2000 to 4000"),
    (row(40000, 2000, 3000), "mapping_random", Level.BAD, "verdict_rewritten", "2000 and 40000; whether"),
    ([*row(40000, 2000), *row(3000)], "mapping_random", Level.BAD, "verdict_rewritten", ", differently for each"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "name", "level", "verdict", "part"), MAPPINGS, ids=[f"{one[1]} {i}" for i, one in enumerate(MAPPINGS)]
)
def test_mapping(seen: list[Sight], name: str, level: Level, verdict: str, part: str) -> None:
    found = sights.of_sights(HOME, seen)
    assert (found[-1].check, found[-1].name, found[-1].level) == ("mapping", name, level)
    assert part in found[-1].sentence
    assert bool(found[-1].remedy.startswith("use IPv6 or a port mapping")) is (level is Level.BAD)
    assert [one.check for one in found[:-1]] == ["stun"] * len(seen)
    assert findings.verdict(found, "").name == verdict


def test_programs_are_told_the_class_too() -> None:
    (*_, mapping) = sights.of_sights(HOME, row(1025, 1026, 1027, 1028))
    assert mapping.fields["kind"] == Kind.SEQUENTIAL


def test_ipv4_decides_where_both_are_seen() -> None:
    (*_, mapping) = sights.of_sights(HOME, [*row(40000, 2000, 3000), sight6()])
    assert mapping.name == "mapping_random"
    (*_, mapping) = sights.of_sights(HOME, [sight6()])
    assert mapping.name == "mapping_none"


def test_a_server_that_does_not_answer_says_nothing_about_the_router() -> None:
    assert sights.of_sights(HOME, []) == []
    mute = Sight("stun.example:3478", Place("192.168.1.2", 12345), reason="no answer")
    (found,) = sights.of_sights(HOME, [mute])
    assert (found.level, found.name) == (Level.UNKNOWN, "unseen")
    assert findings.verdict([found], "").name == "verdict_open"
    assert len(sights.of_sights(HOME, [mute, sight(12345)])) == 3


def test_a_server_that_is_deaf_at_every_port_is_told_once() -> None:
    mute = [Sight("one", Place("192.168.1.2", own), reason="no answer") for own in range(4)]
    refusing = Sight("one", Place("192.168.1.2", 7), reason="Connection refused")
    found = sights.of_questions([sight(1, 1), *mute, refusing, sight(2, 2), replace(mute[0], server="two")])
    assert [one.fields["reason"] or one.fields["seen"] for one in found] == [
        f"{SEEN4}:1", "no answer", "Connection refused", f"{SEEN4}:2", "no answer",
    ]  # fmt: skip


# ---- IPv6 that is a black hole

SILENT: list[tuple[Facts, list[Sight], bool]] = [
    (HOME, [sight(12345), sight6(silent=True)], True),
    (HOME, [sight(12345), sight6()], False),
    # Another server has answered by IPv6: it works.
    (HOME, [sight(12345), sight6(silent=True), sight6()], False),
    # Refused: an answer came.
    (HOME, [sight(12345), replace(sight6(silent=True), silent=False)], False),
    # The server may be down as a whole.
    (HOME, [sight6(silent=True)], False),
    (HOME, [replace(sight(12345), seen=None), sight6(silent=True)], False),
    (HOME, [sight(12345, server="another"), sight6(silent=True)], False),
    # Without a route nothing else is to be expected.
    (replace(HOME, routes={4: Route("eth0")}), [sight(12345), sight6(silent=True)], False),
]


@pytest.mark.parametrize(("facts", "seen", "told"), SILENT)
def test_ipv6_with_a_route_and_without_answers_is_told(facts: Facts, seen: list[Sight], told: bool) -> None:
    found = [one for one in sights.of_sights(facts, seen) if one.name == "ipv6_silent"]
    assert len(found) == told
    for one in found:
        assert one.level is Level.WARN
        assert one.sentence == "IPv6 has a route, but no answer came by it; stun.example answers by IPv4"


# ---- the public address

PUBLIC = replace(HOME, address4="198.51.100.9", addresses6=[])
ADDRESSES: list[tuple[Facts, list[Sight], list[str], str]] = [
    (HOME, [sight(12345), sight6()], [SEEN4, SEEN6], "public_seen"),
    (HOME, [sight6(), sight(12345)], [SEEN4, SEEN6], "public_seen"),
    # An IPv6 address that is public by itself need not be asked for.
    (HOME, [sight(12345)], [SEEN4, SEEN6], "public_seen"),
    # But it is worth nothing where IPv6 leads nowhere.
    (HOME, [sight(12345), sight6(silent=True)], [SEEN4], "public_seen"),
    (HOME, [sight(12345), sight("203.0.113.2")], [SEEN4, "203.0.113.2", SEEN6], "public_seen"),
    (HOME, [sight("10.0.0.1"), sight("127.0.0.1"), sight("0.0.0.0"), sight("224.0.0.1")], [SEEN6], "public_ipv6_only"),
    (HOME, [], [SEEN6], "public_ipv6_only"),
    (replace(HOME, addresses6=["fd00::2"]), [], [], "public_unknown"),
    (replace(HOME, routes={4: Route("eth0")}), [], [], "public_unknown"),
    (replace(HOME, address4=""), [], [SEEN6], "public_own"),
    (PUBLIC, [], ["198.51.100.9"], "public_own"),
    (PUBLIC, [replace(sight(12345), seen=None)], [], "public_unknown"),
    (replace(HOME, routes={}), [], ["192.168.1.2"], "public_local"),
    (Facts({}, addresses6=["fd00::2", "fd00::3"]), [], ["fd00::2"], "public_local"),
    (Facts(), [], [], "public_unknown"),
]


@pytest.mark.parametrize(
    ("facts", "seen", "addresses", "name"), ADDRESSES, ids=[f"{one[3]} {i}" for i, one in enumerate(ADDRESSES)]
)
def test_public_address(facts: Facts, seen: list[Sight], addresses: list[str], name: str) -> None:
    assert sights.addresses(facts, seen) == addresses
    found = sights.of_addresses(facts, seen)
    assert found.name == name
    assert (found.level is Level.UNKNOWN) is ("--stun" in found.remedy)
    for address in addresses:
        assert address in found.sentence
    for text in (found.sentence, found.remedy):
        assert "{" not in text
