"""What the figures depend on: the machine, the checkout, and the versions of everybody."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import congestion
from .stage import SYSTEM_PATH

# How each program says its version, and its Debian package.
PROGRAMS = {
    "iperf3": (["iperf3", "--version"], "iperf3"),
    "socat": (["socat", "-V"], "socat"),
    "ncat": (["ncat", "--version"], "ncat"),
    "ssh": (["ssh", "-V"], "openssh-client"),
    "sshd": (["ssh", "-V"], "openssh-server"),
    "haproxy": (["haproxy", "-v"], "haproxy"),
    "stunnel": (["stunnel", "-version"], "stunnel4"),
}
_NUMBER = re.compile(r"\d+\.\d+[\w.]*")


def missing(programs: Iterable[str]) -> list[str]:
    """Return those that are not installed."""
    return [name for name in programs if shutil.which(name, path=SYSTEM_PATH) is None]


def advice(programs: Iterable[str]) -> str:
    """Return the line that says how to get what is missing."""
    packages = sorted({PROGRAMS[name][1] for name in programs})
    return f"not installed, left out: {', '.join(programs)}; apt install {' '.join(packages)}"


def pythons(others: Sequence[str]) -> dict[str, Path]:
    """Return interpreters by label, that of the bench first; none if there is no other.

    Raises:
        SystemExit: One cannot run, or lacks what the tool needs.
    """
    found = {}
    for python in (sys.executable, *others) if others else ():
        command = [
            python,
            "-c",
            "import cryptography, spake2, typer, uvloop, platform; print(platform.python_version())",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            sys.exit(f"--python {python}: {error.strerror}")
        if done.returncode:
            sys.exit(f"--python {python}: {done.stderr.strip().rpartition(chr(10))[2]}")
        label = f"Python {done.stdout.strip()}"
        found[f"{label}, {python}" if label in found else label] = Path(shutil.which(python) or python)
    return found


def compile_for(interpreters: Iterable[str], tool: Path) -> None:
    """Have the tool compiled for each, as it is where it is installed: starts are not about that."""
    for python in interpreters:
        subprocess.run([python, "-m", "compileall", "-q", str(tool / "punchtunnel")], check=False)


def about(tool: Path) -> dict[str, object]:
    """Return everything that stands above the figures."""
    return {
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "tool": f"punchtunnel {_revision(tool)}",
        "kernel": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "congestion_control": congestion.in_use(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version(), **_packages(), **_versions()},
    }


def lines(facts: dict[str, object]) -> list[str]:
    """Return what `about` found, for people."""
    versions = facts["versions"]
    assert isinstance(versions, dict)
    tcp = facts["congestion_control"]
    unusual = "" if tcp == congestion.USUAL else f", not {congestion.USUAL} as usual"
    return [
        f"{facts['tool']}, {facts['when']}",
        f"{facts['kernel']}, {facts['processor']}, {facts['cores']} cores, TCP {tcp}{unusual}",
        ", ".join(f"{name} {version}" for name, version in versions.items()),
        f"load average before: {facts['load_before']}; after, with the bench's own: {facts.get('load_after', '-')}",
        "",
        "Median (lowest–highest) of the rounds; a ratio is the median of the ratios of each round.",
        "CPU is of both hops together, memory of the larger one.",
    ]


def _revision(tool: Path) -> str:
    command = ["git", "-C", str(tool), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "of no known revision"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _packages() -> dict[str, str]:
    # Imported now: only the run that prints them needs them.
    from importlib import metadata

    return {name: metadata.version(name) for name in ("uvloop", "cryptography")}


def _versions() -> dict[str, str]:
    found = {}
    for name, (command, _package) in PROGRAMS.items():
        if name != "sshd" and not missing([name]):
            path = {**os.environ, "PATH": SYSTEM_PATH}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=path)
            number = _NUMBER.search(done.stdout + done.stderr)
            found[name] = number.group() if number else "?"
    return found
