"""--doctor --forget: nothing of peers is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import punchtunnel
from punchtunnel.reach.memory import Memory
from punchtunnel.reach.remembered import Remembered


@pytest.mark.parametrize("options", [["--doctor", "--forget"], ["--forget", "--json"]])
def test_all_that_is_remembered_is_deleted_and_counted(options: list[str], tmp_path: Path) -> None:
    memory = Memory(tmp_path / "punchtunnel", lambda: 1000.0)
    for peer in ("one.example", "two.example"):
        memory.remember([peer], "", Remembered(1000.0))
    done = subprocess.run(
        [sys.executable, "-m", "punchtunnel", *options],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=Path(punchtunnel.__file__).parent.parent,
        env={key: value for key, value in os.environ.items() if key != "STATE_DIRECTORY"}
        | {"XDG_STATE_HOME": str(tmp_path)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    if "--json" in options:
        assert json.loads(done.stdout) == {"forgotten": 2}
    else:
        assert done.stdout == "forgotten: 2 peers\n"
        assert done.stderr == ""
    assert list((tmp_path / "punchtunnel").iterdir()) == []
