"""Other interpreters for the rows by Python: Debian's, of releases that this machine does not run.

    python -m bench.pythons FOLDER      prints the --python options

A release's packages are unpacked into a folder, its interpreter is pointed at
its own C library, and a virtual environment gets the packages that the bench
runs with.  Nothing is installed.  Needs root, mmdebstrap and patchelf.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

MIRROR = "http://deb.debian.org/debian"
RELEASES = {"trixie": "python3.13", "forky": "python3.14"}
PACKAGES = ("typer", "rich", "cryptography", "spake2", "uvloop")


def unpacked(release: str, name: str, folder: Path) -> Path:
    """Return the interpreter of a release; its packages are unpacked if they are not there."""
    root = folder / release
    python = root / "usr" / "bin" / name
    if not python.exists():
        packages = f"--include={name},{name}-venv"
        # A mirror that is behind is good enough here; signatures count all the same.
        freshness = '--aptopt=Acquire::Check-Valid-Until "false"'
        run("mmdebstrap", "--variant=extract", freshness, packages, release, str(root), MIRROR)
        libraries = root / "usr" / "lib" / "x86_64-linux-gnu"
        loader = root / "usr" / "lib64" / "ld-linux-x86-64.so.2"
        run("patchelf", "--set-interpreter", str(loader), "--force-rpath", "--set-rpath", str(libraries), str(python))
        compiled(python, root / "usr" / "lib" / name)
    return python


def environment(python: Path, folder: Path) -> Path:
    """Return the interpreter of a virtual environment that has what the tool needs, in the bench's versions."""
    run(str(python), "-m", "venv", "--without-pip", "--clear", str(folder))
    own = folder / "bin" / "python"
    wanted = [f"{name}=={metadata.version(name)}" for name in PACKAGES]
    run(sys.executable, "-m", "pip", "--python", str(own), "install", "--quiet", *wanted)
    compiled(own, folder / "lib")
    return own


def compiled(python: Path, folder: Path) -> None:
    """Have Python files compiled, as an installation has; some of a library's tests are no Python, on purpose."""
    subprocess.run([str(python), "-m", "compileall", "-qq", str(folder)], check=False)


def run(*command: str) -> None:
    """Run a command; what it says goes to stderr."""
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    place = Path(sys.argv[1]).resolve()
    place.mkdir(parents=True, exist_ok=True)
    made = [environment(unpacked(*one, place), place / f"environment-{one[1]}") for one in RELEASES.items()]
    print(*(f"--python {python}" for python in made))
