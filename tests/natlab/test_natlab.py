"""The short list of the matrix, run for real, and proof that nothing of it is left.

One laboratory runs all cells of the short list, two at a time, and each cell
is a test of its own that looks at what came out; `make lab` runs the same
cells more often, and all others.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path as FilePath

import pytest

from .cells import Cell
from .conftest import (
    LIMIT_SECONDS,
    LOSSES,
    LOSSES_LIMIT_SECONDS,
    SHORT,
    needs_lab,
    needs_mapper,
    needs_relay,
    start_lab,
)
from .ends import ROOT
from .judge import Result

# How long a killed laboratory may take to be gone: the kernel takes namespaces
# away in its own time, but processes at once.
GONE_SECONDS = 10


def marks_of(cell: Cell) -> list[pytest.MarkDecorator]:
    """Return why a cell may have to be left out."""
    return [mark for mark, needed in ((needs_mapper, cell.maps_ports), (needs_relay, cell.relay)) if needed]


@needs_lab
@pytest.mark.timeout(LIMIT_SECONDS + 10)
@pytest.mark.parametrize(
    "cell",
    [pytest.param(cell, marks=marks_of(cell)) for cell in SHORT],
    ids=lambda cell: cell.title,
)
def test_cell_comes_out_as_it_must(cell: Cell, results: dict[str, list[Result]]) -> None:
    runs = results[cell.title]
    assert [run.why for run in runs] == [""] * len(runs)


@needs_lab
@pytest.mark.exhaustive
@pytest.mark.timeout(LOSSES_LIMIT_SECONDS + 10)
@pytest.mark.parametrize("cell", LOSSES, ids=lambda cell: cell.title)
def test_a_session_comes_out_of_what_happens_to_it_as_it_must(cell: Cell, losses: dict[str, list[Result]]) -> None:
    runs = losses[cell.title]
    assert [run.why for run in runs] == [""] * len(runs)


def everything() -> dict[str, set[str]]:
    """Return what a laboratory could leave on this machine, except processes."""
    return {
        "namespaces": set(subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout.split()),
        "devices": set(os.listdir("/sys/class/net")),
        "mounts": set(FilePath("/proc/self/mounts").read_text().splitlines()),
        "scratch": {str(file) for place in ("/run", "/tmp") for file in FilePath(place).glob("*natlab*")},
    }


def processes_in(namespace: str) -> set[int]:
    """Return the processes that share a process namespace."""
    found = set()
    for process in FilePath("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "ns/pid") == namespace:
                found.add(int(process.name))
        except OSError:
            continue
    return found


def sandbox_of(lab: int) -> str:
    """Return the process namespace of a laboratory's process 1, or "" before there is one."""
    own = os.readlink("/proc/self/ns/pid")
    with contextlib.suppress(OSError):
        for child in FilePath(f"/proc/{lab}/task/{lab}/children").read_text().split():
            if (space := os.readlink(f"/proc/{child}/ns/pid")) != own:
                return space
    return ""


def wait_until(what: str, question: Callable[[], object]) -> None:
    """Ask again and again until the answer is yes."""
    deadline = time.monotonic() + GONE_SECONDS
    while not question():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@needs_lab
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_nothing_is_left_of_a_laboratory_that_a_signal_ends(number: signal.Signals) -> None:
    before = everything()
    with start_lab("--baseline", "--cells", "peer absent behind drop", "--runs", "2") as lab:
        wait_until("the laboratory starts", lambda: sandbox_of(lab.pid))
        space = sandbox_of(lab.pid)
        # Process 1, and an internet and an end for each of the two runs.
        wait_until("both runs are under way", lambda: len(processes_in(space)) >= 5)
        lab.send_signal(number)
        lab.communicate(timeout=GONE_SECONDS)
    wait_until("all processes are gone", lambda: not processes_in(space))
    assert everything() == before


@needs_lab
def test_nothing_is_left_when_whoever_started_the_laboratory_is_killed() -> None:
    before = everything()
    program = (
        "from tests.natlab.test_natlab import start_lab\n"
        "lab = start_lab('--baseline', '--cells', 'peer absent behind drop')\n"
        "print(lab.pid, flush=True)\n"
        "lab.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        lab = int(starter.stdout.readline())
        wait_until("the laboratory starts", lambda: sandbox_of(lab))
        space = sandbox_of(lab)
        wait_until("a run is under way", lambda: len(processes_in(space)) >= 3)
        starter.kill()
    wait_until("all processes are gone", lambda: not processes_in(space))
    assert everything() == before


@needs_lab
def test_two_laboratories_at_once_do_not_see_each_other() -> None:
    arguments = ("--baseline", "--cells", "pairs: drop x drop", "--runs", "1")
    with start_lab(*arguments) as one, start_lab(*arguments) as other:
        outputs = [lab.communicate(timeout=LIMIT_SECONDS)[0] for lab in (one, other)]
    assert [lab.returncode for lab in (one, other)] == [0, 0], outputs


@needs_lab
def test_the_kernel_opens_a_hole_by_crossing_syns_through_two_masquerades(tmp_path: FilePath) -> None:
    with start_lab("--baseline", "--cells", "pairs: drop x drop", "--runs", "1", "--logs", str(tmp_path)) as lab:
        lab.communicate(timeout=LIMIT_SECONDS)
    [log] = [file.read_text() for file in tmp_path.iterdir()]
    events = [json.loads(line.replace("'", '"')) for line in log.splitlines() if line.startswith("{'time_s'")]
    assert [event["event"] for event in events].count("hole") == 2
    sent = {site: f"{site:>8} > " for site in ("left", "right")}
    syns = {
        site: [line for line in log.splitlines() if start in line and "  S  " in line] for site, start in sent.items()
    }
    syn_acks = [line for line in log.splitlines() if "  S. " in line]
    assert syns["left"]
    assert syns["right"]
    # RFC 9293 §3.5: each side answers the other's SYN with a SYN-ACK.
    assert syn_acks
