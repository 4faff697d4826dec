"""--doctor behind real routers: what it finds, and what it sends."""

from __future__ import annotations

from typing import Any

import pytest

from .clinic import CONSULTATIONS, SECOND, SERVER, Consultation
from .conftest import LIMIT_SECONDS, needs_clinic

pytestmark = [needs_clinic, pytest.mark.timeout(LIMIT_SECONDS + 10)]

# Consultations that end with 1: something speaks against punching from there.
BAD = {
    "rewrites ports", "rewrites ports in a row", "rewrites ports the same way for each", "no route",
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
    first, second = of(found, "stun")
    assert first["fields"]["server"] == f"{SERVER}:3478"
    # RFC 5780: the other address and the other port.
    assert second["fields"]["server"] == f"{SECOND}:3479"
    assert [one["finding"] for one in of(found, "mapping")] == ["mapping_kept"]


def test_the_public_address_and_the_port_are_those_of_the_router(consultations: dict[str, Any]) -> None:
    for one in of(consultations["keeps ports"], "stun"):
        assert one["fields"]["seen"] == f"198.51.100.10:{one['fields']['port']}"


def test_a_router_that_rewrites_is_told_after_a_second_port(consultations: dict[str, Any]) -> None:
    sights = of(consultations["rewrites ports"], "stun")
    assert len({one["fields"]["port"] for one in sights}) == 2
    assert len({one["fields"]["seen"] for one in sights}) == 4


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
