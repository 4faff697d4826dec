"""Every test gets a laboratory of its own, and nothing of it is left behind.

A test runs sealed, and where that makes a difference on every data path; the
other paths of all other tests are exhaustive.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from punchtunnel.system import pipes

from .ends import Lab

PATHS = ["sealed", "spliced", "copied"]
on_one_path = pytest.mark.parametrize("data_path", PATHS[:1], indirect=True)
on_every_path = pytest.mark.parametrize("data_path", PATHS, indirect=True)


@pytest.fixture(params=[PATHS[0], *(pytest.param(path, marks=pytest.mark.exhaustive) for path in PATHS[1:])])
def data_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the options with which bytes take this path; a module may say that one is enough."""
    if request.param == "copied":
        monkeypatch.setenv(pipes.VARIABLE, "1")
    return [] if request.param == "sealed" else ["--plain"]


@pytest.fixture
def lab(tmp_path: Path, data_path: list[str]) -> Iterator[Lab]:
    """Start processes, servers and threads that end with the test, also when it fails."""
    with Lab(tmp_path, data_path) as lab:
        yield lab


@pytest.fixture
def without_resuming(lab: Lab) -> None:
    """A session ends with its hole: what follows then is not to be waited for."""
    lab.options = [*lab.options, "--resume", "0"]
