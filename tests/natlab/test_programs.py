"""programs.py: ssh and rsync through -L and --to do not notice that holes are lost."""

from __future__ import annotations

import json

import pytest

from tests.e2e.programs import needs

from .conftest import needs_lab, start_lab
from .programs import CASES, LINES, PATIENCE

QUICK = CASES[0].name
# Seconds for the scene and the way to its end.
AROUND = 60.0


@needs_lab
@pytest.mark.timeout(PATIENCE + 2 * AROUND)
@pytest.mark.parametrize(
    "name", [pytest.param(one.name, marks=[] if one.name == QUICK else pytest.mark.exhaustive) for one in CASES]
)
def test_ssh_and_rsync_lose_no_byte(name: str) -> None:
    needs("sshd", "ssh", "ssh-keygen", "rsync")
    with start_lab(f"^{name}$", module="tests.natlab.programs") as lab:
        out, errors = lab.communicate(timeout=PATIENCE + AROUND)
    assert lab.returncode == 0, errors
    played = json.loads(out)[name]
    assert played["late"], "the programs were through before it happened"
    assert played["statuses"] == [0, 0], played["said"]
    assert played["same"]
    assert played["answers"] == [f"answer {number}" for number in range(LINES)]
    if name == QUICK:
        assert min(played["resumed"]) >= 2
