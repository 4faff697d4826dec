"""README's first section, as it stands: a paired, named ssh through two NATs, which outlives its hole."""

from __future__ import annotations

import json

import pytest

from tests.e2e.programs import needs

from .conftest import LIMIT_SECONDS, needs_lab, start_lab
from .newcomer import LINES, SIDES, lines


def test_each_side_is_told_each_thing_that_it_needs() -> None:
    told = lines()
    assert {machine for machine, _ in told} == SIDES.keys()
    assert [command.split()[1] for _, command in told[:2]] == ["--pair", "--pair"]
    assert told[-1][1].startswith("ssh ")


@needs_lab
@pytest.mark.timeout(LIMIT_SECONDS + 10)
def test_the_first_ten_minutes_lead_to_ssh_that_loses_nothing_when_its_hole_is_cut() -> None:
    needs("sshd", "ssh", "ssh-keygen")
    with start_lab(module="tests.natlab.newcomer") as lab:
        out, errors = lab.communicate(timeout=LIMIT_SECONDS)
    assert lab.returncode == 0, errors
    played = json.loads(out)
    said = played["said"]
    assert played["paired"] == [0, 0], said
    assert played["answers"] == [f"answer {number}" for number in range(LINES)], said
    assert played["status"] == 0, said
    for machine in SIDES:
        assert "reconnecting" in said[machine]
        assert "back after" in said[machine]
