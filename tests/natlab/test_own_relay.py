"""docs/RELAY.md: every line of it that is for a shell is run, and does what the page says."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import LIMIT_SECONDS, needs_relay
from .own_relay import lines

pytestmark = [needs_relay, pytest.mark.timeout(LIMIT_SECONDS + 10)]


@pytest.mark.parametrize("line", lines())
def test_a_line_does_what_it_is_for(line: str, own_relay: dict[str, Any]) -> None:
    assert own_relay[line] == ""


@pytest.mark.parametrize("what", ["is_configured", "relays_for_nobody", "takes_port_443", "has_ipv4_only"])
def test_what_the_page_says_besides_is_so(what: str, own_relay: dict[str, Any]) -> None:
    assert own_relay[what] == ""
