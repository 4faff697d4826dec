"""What `make dist` makes: the date, the order and the modes of what it packs, and whom the one file is for."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from release import __main__ as dist
from release import preamble, pyz

ROOT = Path(__file__).parents[1]
FINE = ("cpython", "3.12", "linux x86_64", "glibc 2.36")


def test_the_date_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    assert dist.date() == 1234567890


def test_the_date_of_an_unpacked_sdist_is_that_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setattr(dist, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    os.utime(tmp_path / "pyproject.toml", (5, 1234567890))
    assert dist.date() == 1234567890


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_date_is_that_of_the_last_commit_and_what_is_not_in_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setattr(dist, "ROOT", tmp_path)
    for name in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{name}_NAME", "somebody")
        monkeypatch.setenv(f"{name}_EMAIL", "somebody@example.org")
    monkeypatch.setenv("GIT_AUTHOR_DATE", "1000000000 +0000")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "1234567890 +0900")
    for words in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "the last"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    assert dist.date() == 1234567890
    assert capsys.readouterr().err == ""
    (tmp_path / "stray").touch()
    assert dist.date() == 1234567890
    assert "not as in the last commit" in (said := capsys.readouterr().err)
    assert "?? stray\n" in said


def test_entries_are_sorted_and_have_one_date_and_one_mode(tmp_path: Path) -> None:
    made = []
    for order, mode, year in (("ab", 0o600, 2001), ("ba", 0o777, 2002)):
        path = tmp_path / f"{order}.pyz"
        with path.open("wb") as file:
            file.write(b"#!/usr/bin/env python3\n")
            with zipfile.ZipFile(file, "w") as archive:
                for name in order:
                    entry = zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0))
                    entry.external_attr = (stat.S_IFREG | mode) << 16
                    archive.writestr(entry, f"contents of {name}")
        pyz.tidy(path, 1234567890)
        assert path.stat().st_mode & 0o777 == 0o755
        made.append(path.read_bytes())
    assert made[0] == made[1]
    assert made[0].startswith(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(tmp_path / "ab.pyz") as archive:
        assert [(info.filename, info.date_time) for info in archive.infolist()] == [
            ("a", (2009, 2, 13, 23, 31, 30)),
            ("b", (2009, 2, 13, 23, 31, 30)),
        ]
        assert archive.read("b") == b"contents of b"


LOCK = """# made by hand
one==1.0 ; sys_platform == 'linux' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
Two.Words==2 \\
    --hash=sha256:cc
three==3 \\
    --hash=sha256:dd
"""


def test_what_is_packed_is_pinned_by_its_hashes() -> None:
    assert pyz.pinned(LOCK, {"one", "two-words"}) == (
        "one==1.0 --hash=sha256:aa --hash=sha256:bb\nTwo.Words==2 --hash=sha256:cc\n"
    )


def test_what_is_not_pinned_is_not_packed() -> None:
    with pytest.raises(SystemExit, match="make lock"):
        pyz.pinned(LOCK, {"one", "four"})


def test_what_is_needed_is_found_in_turn_and_for_the_python_that_runs_it() -> None:
    names = pyz.needed(["cryptography>=47", "hypothesis; python_version < '3.12'"], "3.12")
    assert names >= {"cryptography", "cffi", "pycparser"}
    assert "hypothesis" not in names
    assert "hypothesis" in pyz.needed(["hypothesis; python_version < '3.12'"], "3.11")


@pytest.mark.parametrize("version", preamble.PYTHONS)
def test_the_file_runs_where_its_modules_can_be_loaded(version: str) -> None:
    assert preamble.trouble("cpython", version, "linux x86_64", "glibc 2.28") is None


@pytest.mark.parametrize(
    ("number", "other"),
    [
        (0, "pypy"),
        (1, "3.10"),
        (1, "3.99"),
        (2, "linux aarch64"),
        (2, "darwin x86_64"),
        (3, "glibc 2.27"),
        (3, ""),
    ],
)
def test_elsewhere_one_sentence_says_what_it_is_for_and_what_this_is(number: int, other: str) -> None:
    assert preamble.trouble(*FINE) is None
    kind, version, machine, library = (other if place == number else fine for place, fine in enumerate(FINE))
    said = preamble.trouble(kind, version, machine, library)
    assert said is not None
    assert "\n" not in said
    assert f"this is {kind} {version} on {machine}" in said
    assert (other or "no glibc") in said.partition("this is ")[2]


def test_what_this_machine_is_can_be_asked() -> None:
    kind, version, machine, _ = preamble.here()
    assert kind
    assert re.fullmatch(r"3\.\d+", version)
    assert " " in machine


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "docs/PACKAGES.md"])
def test_documents_name_the_same_pythons(name: str) -> None:
    text = " ".join((ROOT / name).read_text().split())
    assert f"{', '.join(preamble.PYTHONS[:-1])} or {preamble.PYTHONS[-1]}" in text
