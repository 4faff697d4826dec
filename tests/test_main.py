"""The first milliseconds of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def printed_by(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_until_the_signals_are_set_nothing_else_is_loaded() -> None:
    """Ctrl-C in the first hundredths of a second showed a traceback of whatever was being imported."""
    needed = printed_by("import signal, sys; print(*sys.modules)")
    loaded = printed_by("import punchtunnel.__main__, sys; print(*sys.modules)")
    assert loaded - needed == {"punchtunnel", "punchtunnel.__main__"}


def test_until_the_command_has_its_own_handlers_ctrl_c_ends_it_as_any_program() -> None:
    program = "import punchtunnel.__main__, signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_DFL)"
    assert printed_by(program) == {"True"}


def test_what_sessions_leave_is_not_kept_for_ever() -> None:
    """Each punch of a service declared all garbage of its sessions to be of use: 1.1 MB each."""
    program = (
        "import gc; from punchtunnel.cli import run; run._load_session(); before = gc.get_freeze_count();"
        "cycle = []; cycle.append(cycle); del cycle; run._load_session(); print(before, gc.get_freeze_count())"
    )
    assert len(printed_by(program)) == 1
