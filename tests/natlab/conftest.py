"""What several tests look at is played once: the short list, and the consultations of the doctor."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import pytest

from . import daemon, relay, report, sandbox
from .cells import LOSSES as LOSSES_BLOCK
from .ends import ROOT
from .judge import Result
from .table import CELLS

# Every cell once took 154 s on two cores that were very busy; four minutes are the promise.
RUNS = 1
LIMIT_SECONDS = 240
SHORT = [cell for cell in CELLS if cell.short]
# Sessions that lose their holes: most of the time is waiting for a silence to be noticed.
LOSSES = [cell for cell in CELLS if cell.block == LOSSES_BLOCK and not cell.short]
LOSSES_LIMIT_SECONDS = 1500

REASON = sandbox.missing()
needs_lab = pytest.mark.skipif(REASON is not None, reason=str(REASON))
MAPPER_REASON = REASON or daemon.missing()
needs_mapper = pytest.mark.skipif(MAPPER_REASON is not None, reason=str(MAPPER_REASON))
RELAY_REASON = REASON or relay.missing()
needs_relay = pytest.mark.skipif(RELAY_REASON is not None, reason=str(RELAY_REASON))
CLINIC_REASON = MAPPER_REASON or next(
    (
        f"the consultations need {program} (Debian package {package})"
        for program, package in (("turnserver", "coturn"), ("iptables", "iptables"))
        if shutil.which(program) is None
    ),
    None,
)
needs_clinic = pytest.mark.skipif(CLINIC_REASON is not None, reason=str(CLINIC_REASON))


def start_lab(*arguments: str, module: str = "tests.natlab") -> subprocess.Popen[str]:
    """Start a laboratory that dies with this process."""
    command = [sys.executable, "-m", module, "--tied", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def once(factory: pytest.TempPathFactory, name: str, play: Callable[[FilePath], None]) -> FilePath:
    """Return the file that `play` writes, whichever test asks for it first in whichever worker."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    done = shared / f"{name}.json"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            growing = done.with_suffix(".growing")
            play(growing)
            growing.rename(done)
    return done


def _play_short_list(growing: FilePath) -> None:
    with start_lab("--short", "--runs", str(RUNS), "--json", str(growing)) as lab:
        out, errors = lab.communicate(timeout=LIMIT_SECONDS)
    assert lab.returncode in (0, 1), out + errors


def _play_losses(growing: FilePath) -> None:
    with start_lab("--cells", f"^{LOSSES_BLOCK}: ", "--runs", str(RUNS), "--json", str(growing)) as lab:
        out, errors = lab.communicate(timeout=LOSSES_LIMIT_SECONDS)
    assert lab.returncode in (0, 1), out + errors


def say(module: str, growing: FilePath, arguments: Sequence[str] = ()) -> None:
    """Run a module of the laboratory that prints what came out as JSON."""
    with start_lab(*arguments, module=f"tests.natlab.{module}") as lab:
        out, errors = lab.communicate(timeout=LIMIT_SECONDS)
    assert lab.returncode == 0, out + errors
    growing.write_text(out)


def _by_cell(played: FilePath) -> dict[str, list[Result]]:
    runs: dict[str, list[Result]] = {}
    for result in report.load(played):
        runs.setdefault(result.cell, []).append(result)
    return runs


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    """Return what came out of every cell of the short list."""
    return _by_cell(once(tmp_path_factory, "natlab", _play_short_list))


@pytest.fixture(scope="session")
def losses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Result]]:
    """Return what came out of every session that something has happened to."""
    return _by_cell(once(tmp_path_factory, "losses", _play_losses))


@pytest.fixture(scope="session")
def consultations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what came out of every consultation: clinic.Outcome as JSON."""
    played: dict[str, Any] = json.loads(once(tmp_path_factory, "clinic", partial(say, "clinic")).read_text())
    return played


@pytest.fixture(scope="session")
def mappings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what came out of every port-mapping daemon that was asked: asking.Found as JSON."""
    played: dict[str, Any] = json.loads(once(tmp_path_factory, "asking", partial(say, "asking")).read_text())
    return played


@pytest.fixture(scope="session")
def rendezvous(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what came out of meeting by hand: rendezvous.Found as JSON."""
    played: dict[str, Any] = json.loads(once(tmp_path_factory, "rendezvous", partial(say, "rendezvous")).read_text())
    return played


@pytest.fixture(scope="session")
def own_relay(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what went wrong with each line of docs/RELAY.md."""
    played: dict[str, Any] = json.loads(once(tmp_path_factory, "own_relay", partial(say, "own_relay")).read_text())
    return played
