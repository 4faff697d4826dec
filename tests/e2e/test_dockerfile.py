"""docs/examples/Dockerfile: small, without root, and what is built by its steps works."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from punchtunnel import __version__

from . import dockerfile
from .conftest import on_one_path
from .ends import ROOT, Lab, environment
from .flows import WAIT, echo
from .programs import needs
from .test_life import assert_works

TEXT = dockerfile.PAGE.read_text()


def last_stage() -> list[tuple[str, str]]:
    steps = dockerfile.instructions(TEXT)
    return steps[max(number for number, (word, _) in enumerate(steps) if word == "FROM") :]


def test_the_image_has_no_root_and_only_what_the_first_stage_has_made() -> None:
    steps = dict(last_stage())
    assert [word for word, _ in last_stage()] == ["FROM", "COPY", "ENV", "USER", "ENTRYPOINT"]
    user, _, group = steps["USER"].partition(":")
    assert int(user) > 0 < int(group)
    assert steps["COPY"].startswith("--from=build ")


def test_all_that_is_copied_is_in_the_checkout() -> None:
    copied = dockerfile.sources(TEXT)
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []


@on_one_path
@pytest.mark.exhaustive
def test_what_its_steps_build_runs_as_nobody_and_meets_the_other_side(lab: Lab, tmp_path: Path) -> None:
    needs("unshare", "chroot")
    if os.geteuid() != 0:
        pytest.skip("a file system of its own takes root")
    index = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path / "index"), "hatchling"]
    if (got := subprocess.run(index, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"the package index cannot be reached: {got.stderr.strip().splitlines()[-1]}")
    version, image = tmp_path / "version", tmp_path / "image"
    image.mkdir()
    words = [*lab.towards_right, "-k", "--to", str(lab.serve(echo)), "--no-secret"]
    with (tmp_path / "built").open("wb") as built:
        container = lab.program(
            *dockerfile.played(TEXT, image, version), *words, stdout=built, stderr=built, env=environment()
        )
    right = lab.start_right("-L", "0", "-w", "100")
    right.wait_for("link_up")
    assert_works(right.port)
    assert version.read_text() == f"punchtunnel {__version__}\n"
    status = Path(f"/proc/{container.pid}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534" in status
    container.terminate()
    assert container.wait(WAIT) == 143
    image.rmdir()
