"""relay.py: the relay and the STUN server of the laboratory, met by hand."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import LIMIT_SECONDS, needs_relay

pytestmark = [needs_relay, pytest.mark.timeout(LIMIT_SECONDS + 10)]

MET = "ok\nok\nhello"


def test_two_hosts_behind_routers_meet_by_one_family_or_two(rendezvous: dict[str, Any]) -> None:
    assert rendezvous["met"] == {"4": MET, "6": MET}


def test_a_stun_server_sees_what_the_routers_make_of_a_port(rendezvous: dict[str, Any]) -> None:
    first, again, right = rendezvous["seen"]
    assert first == again
    assert first.startswith("198.51.100.10:")
    assert first != "198.51.100.10:20000"
    assert right == "198.51.100.20:20000"


def test_a_relay_that_is_killed_is_gone_until_it_may_come_back(rendezvous: dict[str, Any]) -> None:
    assert (rendezvous["away"], rendezvous["back"]) == ("refused", MET)
