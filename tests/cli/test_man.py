"""The man page says what the tool says, and two readers of man pages find nothing wrong with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from punchtunnel.cli import command
from punchtunnel.errors import Exit

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "punchtunnel.1"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | {"LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def needs(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian package {package})")


def test_page_is_what_the_options_and_the_words_make_of_it() -> None:
    assert run(sys.executable, str(ROOT / "docs" / "man.py")).stdout == PAGE.read_text(), "run `make docs`"


def test_what_the_help_hides_the_page_does_not_have() -> None:
    """--stdio-service, which --stdio=NAME becomes, stood there without a word."""
    hidden = [one.opts[0] for one in typer.main.get_command(command.app).params if getattr(one, "hidden", False)]
    assert hidden
    page = PAGE.read_text().replace("\\-", "-")
    assert [name for name in hidden if name in page] == []


def test_mandoc_finds_nothing_to_complain_about() -> None:
    needs("mandoc", "mandoc")
    done = run("mandoc", "-T", "lint", str(PAGE))
    assert (done.returncode, done.stdout) == (0, "")


def test_man_shows_every_option_of_the_help_and_every_exit_status() -> None:
    needs("man", "man-db")
    done = run("man", "--warnings", "-l", str(PAGE))
    assert (done.returncode, done.stderr) == (0, "")
    shown = re.sub(r".\x08", "", done.stdout)
    helped = run(sys.executable, "-m", "punchtunnel", "--help").stdout
    options = set(re.findall(r"(?<![\w-])--?[A-Za-z0-9][\w-]*", helped.partition("Options:")[2]))
    assert len(options) > 20
    listed = shown.partition("\nOPTIONS\n")[2].partition("\nEXIT STATUS\n")[0]
    for option in options:
        assert re.search(rf"^ {{7}}.*(?<![\w-]){option}\b", listed, re.MULTILINE), option
    statuses = shown.partition("\nEXIT STATUS\n")[2].partition("\nSIGNALS\n")[0]
    for status in Exit:
        assert re.search(rf"\b{int(status)}\b", statuses), status


@pytest.mark.parametrize("title", ["ROLES", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES", "SECURITY", "SEE ALSO"])
def test_page_has_the_sections_that_people_look_for(title: str) -> None:
    assert f".SH {title}\n" in PAGE.read_text()
