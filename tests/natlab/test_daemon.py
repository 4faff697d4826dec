"""daemon.py: what each kind of daemon answers to the packets of each protocol, and who comes in then."""

from __future__ import annotations

from typing import Any

import pytest

from .asking import NATPMP, PCP, PCP6, PORTS, ROWS, UPNP
from .conftest import LIMIT_SECONDS, needs_mapper

pytestmark = [needs_mapper, pytest.mark.timeout(LIMIT_SECONDS + 10)]

PUBLIC4, PUBLIC6 = "11.0.0.10", "2001:db8:1:1::2"
MAPPED = {
    protocol: [0, PUBLIC6 if protocol == PCP6 else PUBLIC4, PORTS[protocol]] for protocol in (NATPMP, PCP, PCP6, UPNP)
}


def mapped_by(*protocols: str) -> dict[str, list[object]]:
    """Return the answers of a daemon that speaks these protocols, and does as it is asked."""
    return {protocol: MAPPED[protocol] for protocol in protocols}


@pytest.mark.parametrize(
    ("row", "protocols"),
    [
        ("mapper", [NATPMP, PCP, PCP6, UPNP]),
        ("mapper, reset", [NATPMP, PCP, PCP6, UPNP]),
        ("mapper, UPnP", [UPNP]),
        ("mapper, NAT-PMP", [NATPMP]),
        ("mapper, PCP", [PCP, PCP6]),
    ],
)
def test_a_port_that_is_mapped_by_a_protocol_lets_the_other_side_in(
    row: str, protocols: list[str], mappings: dict[str, Any]
) -> None:
    assert mappings[row]["answers"] == mapped_by(*protocols)
    assert mappings[row]["reached"] == protocols


def test_a_daemon_that_denies_says_so_in_each_protocol_but_gives_pinholes(mappings: dict[str, Any]) -> None:
    results = {protocol: result for protocol, (result, _, _) in mappings["mapper denies"]["answers"].items()}
    # RFC 6886 §3.5 and RFC 6887 §7.4: not authorized; WANIPConnection:1: action not authorized.
    assert results == {NATPMP: 2, PCP: 2, PCP6: 0, UPNP: 606}
    assert mappings["mapper denies"]["reached"] == [PCP6]


def test_a_daemon_that_allows_other_ports_gives_one_of_them_or_an_error(mappings: dict[str, Any]) -> None:
    answers = mappings["mapper, other ports"]["answers"]
    assert [answers[protocol][0] for protocol in (NATPMP, PCP, UPNP)] == [0, 0, 606]
    assert all(1024 <= answers[protocol][2] < 10240 for protocol in (NATPMP, PCP))


def test_a_daemon_behind_a_carriers_nat_maps_nothing_that_leads_here(mappings: dict[str, Any]) -> None:
    found = mappings["mapper behind a carrier"]
    # Network failure, no resources, action failed.
    assert [found["answers"][protocol][0] for protocol in (NATPMP, PCP, UPNP)] == [3, 8, 501]
    assert found["reached"] == []


def test_a_daemon_that_starts_anew_has_forgotten_everything(mappings: dict[str, Any]) -> None:
    assert [mappings[row]["reached_anew"] for row in ROWS] == [[]] * len(ROWS)
