"""Pairs that meet nowhere without an appointment, behind real routers; luck decides where ports are guessed."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from punchtunnel.protocol.offers import Offer, PortUse
from punchtunnel.punching.appointed import Plan
from punchtunnel.punching.guesses import dial_count, hold_count

from .appointments import NAMES
from .conftest import LIMIT_SECONDS, needs_clinic, once, say

pytestmark = [needs_clinic, pytest.mark.timeout(LIMIT_SECONDS + 10)]

Runs = list[dict[str, Any]]

# What each side's router does, as the servers show it.
USES = {
    "same for each x drop": ("INDEPENDENT", "PRESERVING"),
    "same for each x reset": ("INDEPENDENT", "PRESERVING"),
    "same for each x same for each": ("INDEPENDENT", "INDEPENDENT"),
    "same for each x drop that asks nobody": ("INDEPENDENT", "UNKNOWN"),
    "sequential x drop": ("SEQUENTIAL", "PRESERVING"),
    "block of 512 x drop": ("WINDOW", "PRESERVING"),
    "random x drop": ("RANDOM", "PRESERVING"),
}
DIRECT = [name for name in USES if NAMES[name].plan is Plan.DIRECT]
GUESS = [name for name in USES if NAMES[name].plan is Plan.GUESS]


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Runs]:
    """Return what came of two runs of each of these rows."""
    arguments = ["--runs", "2", *USES]
    played = once(tmp_path_factory, "appointments", partial(say, "appointments", arguments=arguments))
    found: dict[str, Runs] = json.loads(played.read_text())
    return found


def has_met(run: dict[str, Any]) -> bool:
    return not (run["left"]["failed"] or run["right"]["failed"])


@pytest.mark.parametrize("name", USES)
def test_each_side_offers_what_its_router_does(name: str, kept: dict[str, Runs]) -> None:
    for run in kept[name]:
        assert (run["left"]["port_use"], run["right"]["port_use"]) == USES[name]
        plans = ["direct", "guess"] if name in GUESS else ["direct"]
        assert run["left"]["plans"] == run["right"]["plans"] == plans


@pytest.mark.parametrize("name", DIRECT)
def test_a_port_that_is_the_same_for_everybody_is_met_each_time(name: str, kept: dict[str, Runs]) -> None:
    """Behind such a router, most carriers' kind, no pair met."""
    assert [(run["left"]["failed"], run["right"]["failed"]) for run in kept[name]] == [("", "")] * 2


@pytest.mark.parametrize("name", ["sequential x drop", "block of 512 x drop"])
def test_a_port_of_a_sequence_or_a_block_is_met(name: str, kept: dict[str, Runs]) -> None:
    # Of the block 40 dials miss 128 holds once in 100,000 runs; both runs would have to.
    assert any(map(has_met, kept[name])), kept[name]


HARD = {"sequential x drop": PortUse.SEQUENTIAL, "block of 512 x drop": PortUse.WINDOW, "random x drop": PortUse.RANDOM}


@pytest.mark.parametrize("name", GUESS)
def test_nobody_is_scanned_and_no_router_filled(name: str, kept: dict[str, Runs]) -> None:
    offer = Offer(1, port_use=HARD[name])
    for run in kept[name]:
        easy, hard = run["packets"]["right"], run["packets"]["left"]
        # No hold arrives at the other router, whether it has met a dial or not.
        assert easy["SYNs that arrived"] == 0
        assert (easy["from ports"], easy["to ports"] <= hold_count(offer)) == (1, True)
        assert 0 < hard["from ports"] <= dial_count(offer)
        assert hard["to ports"] == 1
