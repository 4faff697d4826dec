"""The completion files are what the tool prints, and three real shells take them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = ROOT / "completions"
SHELLS = ("bash", "zsh", "fish")


def tool(*arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "punchtunnel", *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout


@pytest.fixture
def shell_environment(tmp_path: Path) -> dict[str, str]:
    """A PATH on which `punchtunnel` is this checkout, and a home without settings."""
    command = tmp_path / "punchtunnel"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m punchtunnel "$@"\n')
    command.chmod(0o755)
    return os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "TERM": "dumb",
    }


def run_shell(shell: str, script: str, environment: dict[str, str]) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    arguments = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [path, *arguments, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_file_is_what_the_tool_prints(shell: str) -> None:
    printed = tool(_PUNCHTUNNEL_COMPLETE=f"source_{shell}")
    assert (FILES / f"punchtunnel.{shell}").read_text() == printed.lstrip("\n"), "run `make completions`"


def test_bash_completes_options(shell_environment: dict[str, str]) -> None:
    script = f"""
        source {FILES}/punchtunnel.bash
        complete -p punchtunnel >/dev/null
        COMP_WORDS=(punchtunnel --s); COMP_CWORD=1
        _punchtunnel_completion punchtunnel
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert {"--stdio", "--send-only"} <= set(run_shell("bash", script, shell_environment).split())


def test_zsh_completes_options(shell_environment: dict[str, str]) -> None:
    # compadd only works inside a completion; a stand-in shows what would be offered.
    script = f"""
        autoload -U compinit && compinit -D
        source {FILES}/punchtunnel.zsh
        [[ $_comps[punchtunnel] == _punchtunnel_completion ]] || exit 1
        _arguments() {{ print -r -- "$@" }}
        words=(punchtunnel --s); CURRENT=2
        _punchtunnel_completion
    """
    offered = run_shell("zsh", script, shell_environment)
    assert "--stdio" in offered
    assert "--send-only" in offered


def test_fish_completes_options(shell_environment: dict[str, str]) -> None:
    script = f"source {FILES}/punchtunnel.fish; complete --do-complete 'punchtunnel --s'"
    offered = [line.split("\t")[0] for line in run_shell("fish", script, shell_environment).splitlines()]
    assert {"--stdio", "--send-only"} <= set(offered)
