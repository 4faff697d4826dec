"""--doctor behind real routers: what it finds, and what it sends."""

from __future__ import annotations

from typing import Any

import pytest

from .clinic import CONSULTATIONS, SECOND, SERVER, Consultation
from .conftest import LIMIT_SECONDS, needs_clinic

pytestmark = [needs_clinic, pytest.mark.timeout(LIMIT_SECONDS + 10)]

# Consultations that end with 1: something speaks against punching from there.
BAD = {
    "rewrites ports", "rewrites ports in a row", "rewrites ports in a block", "rewrites ports the same way for each",
    "rewrites ports the same way, one server with one address", "no route",
    "own firewall drops all that comes", "own firewall drops what is sent", "clock far too slow",
}  # fmt: skip


def of(found: dict[str, Any], check: str) -> list[dict[str, Any]]:
    """Return the findings of one check."""
    return [one for one in found["findings"] if one["check"] == check]


@pytest.mark.parametrize("one", CONSULTATIONS, ids=lambda one: one.name)
def test_a_consultation_ends_with_its_status_and_says_no_word_besides(
    one: Consultation, consultations: dict[str, Any]
) -> None:
    found = consultations[one.name]
    assert found["words"] == []
    assert found["status"] == (one.name in BAD)
    assert found["findings"][-1]["check"] == "verdict"
    assert (found["findings"][-1]["level"] == "bad") is (one.name in BAD)


def test_not_one_packet_leaves_unless_a_server_is_named(consultations: dict[str, Any]) -> None:
    silent = [one.name for one in CONSULTATIONS if not one.options]
    assert len(silent) > 3
    assert [consultations[name]["packets"] for name in silent] == [0] * len(silent)
    assert consultations["keeps ports"]["packets"] > 0


def test_a_server_with_two_addresses_is_asked_at_both(consultations: dict[str, Any]) -> None:
    found = consultations["keeps ports, one server with two addresses"]
    # RFC 5780: the other address and the other port, from the first two ports.
    servers = [one["fields"]["server"] for one in of(found, "stun")]
    assert servers == [f"{SERVER}:3478"] * 4 + [f"{SECOND}:3479"] * 2
    assert [one["finding"] for one in of(found, "mapping")] == ["mapping_kept"]


def test_the_public_address_and_the_port_are_those_of_the_router(consultations: dict[str, Any]) -> None:
    for one in of(consultations["keeps ports"], "stun"):
        assert one["fields"]["seen"] == f"198.51.100.10:{one['fields']['port']}"


def test_the_router_is_judged_by_four_ports_two_of_them_towards_both_servers(consultations: dict[str, Any]) -> None:
    sights = of(consultations["rewrites ports"], "stun")
    ports = [one["fields"]["port"] for one in sights]
    assert sorted(ports.count(port) for port in set(ports)) == [1, 1, 2, 2]
    assert len({one["fields"]["seen"] for one in sights}) == 6


CLASSES = {
    "keeps ports": "mapping_kept",
    "keeps ports, one server with one address": "mapping_kept_once",
    "rewrites ports": "mapping_random",
    "rewrites ports in a row": "mapping_sequential",
    "rewrites ports in a block": "mapping_window",
    "rewrites ports the same way for each": "mapping_rewritten",
    # Nobody can know it.
    "rewrites ports the same way, one server with one address": "mapping_random",
    "public": "mapping_none",
    "two NATs": "mapping_kept",
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_rule_of_a_router_is_recognised(name: str, consultations: dict[str, Any]) -> None:
    (mapping,) = of(consultations[name], "mapping")
    assert mapping["finding"] == CLASSES[name]
    assert ("is not known" in mapping["sentence"] + mapping["remedy"]) is (
        name == "rewrites ports the same way, one server with one address"
    )


FORWARDING = {
    "the router forwards ports": ["forwards"],
    "rewrites ports, and forwards one": ["forwards"],
    "the router forwards ports to nobody": ["forwards_not"],
    "forwards ports behind a carrier": ["forwards_not"],
    "forwards ports, and is not asked": [],
    "keeps ports": ["forwards_not"],
    "public": [],
}


@pytest.mark.parametrize("name", FORWARDING)
def test_the_router_is_asked_to_forward_a_port(name: str, consultations: dict[str, Any]) -> None:
    # IPv6, which needs no forwarding but a hole in the firewall, may have been answered before or not.
    found = [one for one in of(consultations[name], "forwarding") if one["fields"].get("version") != 6]
    assert [one["finding"] for one in found] == FORWARDING[name]


COMMANDS = {
    "the router forwards ports": "punchtunnel 11.0.0.10 2001:db8:1:1::2",
    "keeps ports": "punchtunnel 198.51.100.10 2001:db8:1:1::2",
    "rewrites ports": "punchtunnel 198.51.100.10 2001:db8:1:1::2",
    "IPv4 and IPv6": "punchtunnel 198.51.100.10 2001:db8:1:1::2",
    "IPv6 leads nowhere": "punchtunnel 198.51.100.10",
    "behind a NAT64": "punchtunnel 198.51.100.10 2001:db8:1:1::2",
    "behind the carrier's NAT only": "punchtunnel 198.51.100.10 2001:db8:1:f1::2",
    "IPv6": "punchtunnel 2001:db8:1:1::2",
    "nothing is asked": "punchtunnel 2001:db8:1:1::2",
    "own firewall drops what is unexpected": "punchtunnel 198.51.100.10 2001:db8:1:1::2",
    "own network only": "punchtunnel 192.168.1.2",
    "no route": "punchtunnel <address of this machine>",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_verdict_has_the_command_for_the_other_machine(name: str, consultations: dict[str, Any]) -> None:
    verdict = consultations[name]["findings"][-1]
    assert verdict["fields"]["command"] == COMMANDS[name]
    assert (f"`{COMMANDS[name]}`" in verdict["remedy"]) is (verdict["finding"] != "verdict_mend")


def test_ipv6_that_leads_nowhere_is_told_and_ipv4_judged(consultations: dict[str, Any]) -> None:
    found = consultations["IPv6 leads nowhere"]
    assert [one["finding"] for one in of(found, "ipv6")] == ["ipv6", "ipv6_silent"]
    assert [one["finding"] for one in of(found, "mapping")] == ["mapping_kept"]
    assert [one["finding"] for one in of(consultations["IPv4 and IPv6"], "ipv6")] == ["ipv6"]


def test_each_way_out_is_shown_and_one_can_be_judged_alone(consultations: dict[str, Any]) -> None:
    (both,) = of(consultations["a VPN beside"], "uplinks")
    assert both["fields"]["ways"] == "by eth0 from 192.168.1.2 and 2001:db8:1:1::2; by tun0 from 10.8.0.2"
    bound = consultations["a VPN beside, bound to the other way"]
    assert of(bound, "uplinks")[0]["fields"]["ways"] == "by eth0 from 192.168.1.2 and 2001:db8:1:1::2"
    assert of(bound, "route")[0]["sentence"].startswith("for IPv4 by eth0 through 192.168.1.1")
    assert [one["finding"] for one in of(bound, "mapping")] == ["mapping_kept"]
    # The routers on the way were asked by that way, too: by the VPN none answers.
    assert [one["finding"] for one in of(bound, "nat")] == ["nat_single"]


def test_over_ipv6_nothing_is_translated_behind_the_same_router(consultations: dict[str, Any]) -> None:
    found = consultations["IPv6"]
    assert [one["finding"] for one in of(found, "mapping")] == ["mapping_none"]
    assert of(found, "address")[0]["finding"] == "address_private"


def test_ipv4_servers_are_asked_through_a_nat64(consultations: dict[str, Any]) -> None:
    found = consultations["behind a NAT64"]
    assert of(found, "nat64")[0]["fields"] == {"prefix": "64:ff9b::/96"}
    assert [one["finding"] for one in of(found, "mapping")] == ["mapping_kept"]
    for one in of(found, "stun"):
        assert one["fields"]["seen"] == f"198.51.100.10:{one['fields']['port']}"


def test_a_clock_is_compared_as_exactly_as_is_said(consultations: dict[str, Any]) -> None:
    for name, offset_s in (("clock a little wrong", 0.25), ("clock far too slow", 30.0)):
        (clock,) = of(consultations[name], "clock")
        assert clock["fields"]["offset_s"] == pytest.approx(offset_s, abs=clock["fields"]["error_s"] + 1e-5)
