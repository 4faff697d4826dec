"""Build all that is published of the last commit into dist/: `python -m release`, or `make dist`.

    checkout --> sdist --> wheel --> punchtunnel.pyz        and SHA256SUMS of the three

The same commit gives the same bytes: its date is the date of every file, the
order is by name, modes are fixed, and the tools are those of requirements-dev.txt.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from release import pyz

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"


def git(*words: str) -> str:
    """Return what git says about the checkout."""
    return subprocess.run(["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout


def date() -> int:
    """Return the date that all files get: as the environment says, of the last commit, or of an unpacked sdist."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    if not (ROOT / ".git").exists():
        return int((ROOT / "pyproject.toml").stat().st_mtime)
    if changed := git("status", "--porcelain"):
        print(
            f"dist: these are not as in the last commit, and are packed as they are:\n{changed}",
            end="",
            file=sys.stderr,
        )
    return int(git("log", "-1", "--format=%ct"))


def main() -> None:
    """Replace dist/ by new packages."""
    epoch = date()
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    shutil.rmtree(DIST, ignore_errors=True)
    # Without isolation: the tools that are pinned and not the newest.
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST, ROOT], check=True)
    (wheel,) = DIST.glob("*.whl")
    with tempfile.TemporaryDirectory() as work:
        pyz.build(ROOT, wheel, Path(work), DIST / "punchtunnel.pyz", epoch)
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(DIST.iterdir())]
    (DIST / "SHA256SUMS").write_text("".join(sums))
    print("".join(sums), end="")


if __name__ == "__main__":
    main()
