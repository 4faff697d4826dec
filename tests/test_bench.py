"""The bench: its congestion control stays in its own namespaces, and its counts are what the hops do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import congestion, machine, startup, syscalls
from bench.measures import BACK50, BACK_MOST, FIRST50, FIRST_MOST
from bench.stage import LOOPBACK, Stage
from bench.subjects import PLAIN

from .natlab.conftest import needs_lab

ROOT = Path(__file__).parent.parent
SETTING = Path("/proc/sys/net/ipv4/tcp_congestion_control")
# Every kernel has it, whatever its administrator allows.
RENO = "reno"


def in_a_sandbox(program: str) -> str:
    """Run a program in private namespaces as root of the bench does, and return what it prints."""
    prepared = (
        "import subprocess, sys\nfrom bench import congestion, hole\nfrom tests.natlab import sandbox\n"
        "sandbox.enter()\nsubprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", prepared + program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_lab
def test_connections_of_the_bench_use_what_it_has_chosen_and_the_machine_keeps_its_own() -> None:
    before = SETTING.read_text()
    assert in_a_sandbox(f"congestion.use({RENO!r})\nprint(congestion.in_use())") == f"{RENO}\n"
    assert SETTING.read_text() == before


@needs_lab
def test_hosts_of_a_path_use_what_the_bench_uses_or_what_the_path_names() -> None:
    """A new namespace has the machine's, and would take only what every user may use."""
    machines_own = congestion.in_use()
    program = (
        f"congestion.use({RENO!r})\n"
        f"for name in ('', {machines_own!r}):\n"
        "    with hole.hosts(hole.Path(100, 0.001, 0.1, congestion_control=name)):\n"
        "        for host in hole.NAMES:\n"
        "            with sandbox.inside(host):\n"
        "                print(congestion.in_use())\n"
    )
    assert in_a_sandbox(program).split() == [RENO, RENO, machines_own, machines_own]


def test_a_congestion_control_that_no_kernel_has_is_not_usable() -> None:
    assert congestion.is_usable(congestion.in_use())
    assert not congestion.is_usable("no-such-thing")


def test_it_stands_above_the_figures_when_it_is_not_the_usual_one() -> None:
    facts = {"tool": "", "when": "", "kernel": "", "processor": "", "cores": 2, "versions": {}, "load_before": 0.0}
    assert "TCP bbr, not cubic as usual" in "\n".join(machine.lines(facts | {"congestion_control": "bbr"}))
    assert "TCP cubic\n" in "\n".join(machine.lines(facts | {"congestion_control": "cubic"}))


@pytest.mark.parametrize("what", syscalls.WORKS)
def test_function_calls_are_those_of_one_at_each_hop(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "COUNT", 32)
    work, kind = syscalls.WORKS[what]
    for calls in syscalls.profiled(PLAIN, work, kind).values():
        # There and back, perhaps in one event where many come at a time; a message opens no socket.
        assert 0.1 < syscalls.each(calls)["system/poller.py Poller._on_events"] < 20
        assert ("ends/sockets.py SocketEnd.__init__" in syscalls.each(calls)) == (kind == "answer")


def test_system_calls_are_those_that_strace_has_counted() -> None:
    table = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000120           1       120           sendto
 40.00    0.000080           1        80         3 recvfrom
------ ----------- ----------- --------- --------- ----------------
100.00    0.000200           1       200         3 total
"""
    assert syscalls.counts_in(table) == {"sendto": 120, "recvfrom": 80}


def test_a_start_is_measured_until_a_byte_is_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "STARTS", 1)
    monkeypatch.setattr(startup, "LATER", 0.1)
    with Stage(LOOPBACK, tmp_path, ROOT) as stage:
        found = startup.tool(sealed=True)(stage).measure(1.0)
    # The later side has to load Python first, and the earlier one does not count.
    took = found[FIRST50.name]
    assert isinstance(took, float)
    assert took > 10
    assert found[FIRST_MOST.name] == took


@needs_lab
def test_a_hole_between_hosts_is_cut_and_comes_back() -> None:
    """The client connected where the bench is, and nobody listened there."""
    program = (
        "import pathlib, tempfile\nfrom bench import measures\nfrom bench.rows import ROUND_TRIP_PATH\n"
        "from bench.stage import Stage, in_namespaces\nfrom bench.subjects import SEALED, STARTS\n"
        f"root, place = pathlib.Path({str(ROOT)!r}), in_namespaces(hole.LEFT, hole.RIGHT)\n"
        "with tempfile.TemporaryDirectory() as folder, hole.hosts(ROUND_TRIP_PATH):\n"
        "    with Stage(place, pathlib.Path(folder), root) as stage:\n"
        "        forwarder = STARTS[SEALED][0](stage, stage.target('work'))\n"
        "        print(*measures.comeback(stage, forwarder, 0.1))\n"
    )
    assert in_a_sandbox(program) == f"{BACK50.name} {BACK_MOST.name}\n"
