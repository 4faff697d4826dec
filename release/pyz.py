"""punchtunnel.pyz: the package, all that it imports, and shiv's code that unpacks them, in one file.

    requirements-dev.txt --names, hashes--> pip download --> wheels, unpacked over one another
    wheel of this package ------------------------------------------^        |
                                                         shiv --> sorted, one date, one mode

A compiled module's name says which Python loads it, so those for several
versions lie in one folder beside the same *.py files.
"""

from __future__ import annotations

import importlib.metadata
import re
import stat
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from release import preamble

# Named, and not this machine's, so that a newer machine makes the same file as an older one.
PLATFORMS = [f"manylinux_{preamble.GLIBC[0]}_{preamble.GLIBC[1]}", "manylinux_2_17", "manylinux2014"]


def environment(python: str) -> dict[str, str]:
    """Return what markers of requirements ask for, as a version of PYTHONS would answer."""
    return {
        "extra": "",
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": preamble.MACHINE,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


def needed(requirements: list[str], python: str) -> set[str]:
    """Return the names of what the requirements need to run, in turn, as it is installed beside this code."""
    found = set[str]()
    left = list(requirements)
    while left:
        one = Requirement(left.pop())
        name = canonicalize_name(one.name)
        if name not in found and (one.marker is None or one.marker.evaluate(environment(python))):
            found.add(name)
            left += importlib.metadata.requires(name) or []
    return found


def pinned(lock: str, names: set[str]) -> str:
    """Return the lines of a lock file that pin these names, without their markers.

    pip would ask the markers of the Python that it runs in.
    """
    kept = []
    for block in re.findall(r"^[^#\s].*(?:\n[ \t].*)*", lock, re.MULTILINE):
        requirement, *hashes = block.split("\\\n")
        one = Requirement(requirement)
        if canonicalize_name(one.name) in names:
            kept.append(" ".join([f"{one.name}{one.specifier}", *(line.strip() for line in hashes)]))
    if len(kept) != len(names):
        raise SystemExit(f"requirements-dev.txt has {len(kept)} of {sorted(names)}: run `make lock`")
    return "\n".join(kept) + "\n"


def download(root: Path, folder: Path) -> None:
    """Put the wheels of all dependencies, for each Python, into a folder."""
    dependencies = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    lock = (root / "requirements-dev.txt").read_text()
    for python in preamble.PYTHONS:
        wanted = folder / f"requirements-{python}.txt"
        wanted.write_text(pinned(lock, needed(dependencies, python)))
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
        command += [word for name in PLATFORMS for word in ("--platform", f"{name}_{preamble.MACHINE}")]
        command += ["--require-hashes", "--requirement", str(wanted), "--dest", str(folder)]
        subprocess.run(command, check=True)


def tidy(path: Path, epoch: int) -> None:
    """Write a zipapp again, with the same contents: entries sorted, one date, and the mode 0644.

    shiv takes its own files in the order and with the modes that they happen to have where it is installed.
    """
    first, _, _ = path.read_bytes().partition(b"\n")
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in sorted(archive.namelist())}
    with path.open("wb") as file:
        file.write(first + b"\n")
        with zipfile.ZipFile(file, "w") as archive:
            for name, contents in entries.items():
                entry = zipfile.ZipInfo(name, time.gmtime(epoch)[:6])
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                archive.writestr(entry, contents, zipfile.ZIP_DEFLATED)
    path.chmod(0o755)


def build(root: Path, wheel: Path, work: Path, result: Path, epoch: int) -> None:
    """Make the .pyz of a wheel.

    Args:
        root: The checkout, for what it pins.
        wheel: Of this package.
        work: An empty folder, which is left full.
        result: The file to write.
        epoch: The date of all entries, in seconds since 1970.
    """
    wheels, packages = work / "wheels", work / "packages"
    wheels.mkdir()
    packages.mkdir()
    download(root, wheels)
    # Unpacked, and not installed: pip would add paths of this machine, and the date of now.
    for one in [*sorted(wheels.glob("*.whl")), wheel]:
        with zipfile.ZipFile(one) as archive:
            archive.extractall(packages)
    command = [sys.executable, "-m", "shiv.cli", "--site-packages", str(packages), "--output-file", str(result)]
    command += ["--entry-point", "punchtunnel.__main__:main", "--preamble", preamble.__file__, "--reproducible"]
    subprocess.run(command, check=True)
    tidy(result, epoch)
