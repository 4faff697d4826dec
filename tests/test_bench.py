"""The bench's congestion control: in its own namespaces it is the one that was asked for, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench import congestion, machine

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
