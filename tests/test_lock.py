"""requirements-dev.txt has everything that development installs, in one version, by its hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WANTED = [
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["dev"],
]
TEXT = (ROOT / "requirements-dev.txt").read_text()
# A requirement goes on after a backslash.
LINES = [line for line in re.sub(r"#.*", "", TEXT).replace("\\\n", " ").splitlines() if line.strip()]
LOCKED = [Requirement(line.partition(" --hash")[0]) for line in LINES]


@pytest.mark.parametrize("wanted", WANTED)
def test_what_is_wanted_is_locked_in_a_version_that_fits(wanted: str) -> None:
    requirement = Requirement(wanted)
    found = [one for one in LOCKED if canonicalize_name(one.name) == canonicalize_name(requirement.name)]
    assert found, "run `make lock`"
    for one in found:
        (pin,) = one.specifier
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), "run `make lock`"


def test_each_locked_package_has_a_hash_and_no_host_is_named() -> None:
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", line) for line in LINES)
    assert "//" not in TEXT


def test_the_virtual_environment_is_made_of_it() -> None:
    recipe = (ROOT / "Makefile").read_text()
    assert "--require-hashes --requirement requirements-dev.txt" in recipe
    assert recipe.count("pip install") == recipe.count("--require-hashes") + recipe.count("--no-deps")
