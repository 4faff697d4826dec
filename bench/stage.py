"""The processes of one subject: started at the left or at the right, counted, and gone at the end.

A `Place` says where left and right are; a `Stage` starts processes there and
ends all of them, with what they have started, when it is left.  Processor
time and memory come from /proc, so that they are measured alike for all.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.natlab import sandbox

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
# Until a program listens, or has ended after SIGTERM.
PATIENCE_SECONDS = 20.0
_numbers = itertools.count()
LOAD, TARGET = ([sys.executable, "-m", f"bench.{name}"] for name in ("load", "target"))


@dataclass(frozen=True, slots=True)
class Place:
    """The addresses of the two hosts, and what makes a command run there."""

    left: str
    right: str
    at_left: tuple[str, ...] = ()
    at_right: tuple[str, ...] = ()


LOOPBACK = Place("127.0.0.1", "127.0.0.2")
# The network namespaces of hole.py.
LEFT, RIGHT = "left", "right"


def in_namespaces(left: str, right: str) -> Place:
    """Return the place of hole.py."""
    enter = [("nsenter", f"--net={sandbox.NAMESPACES / name}", "--") for name in (LEFT, RIGHT)]
    return Place(left, right, *enter)


@dataclass(slots=True)
class Stage:
    """Where one subject is set up.

    Attributes:
        place: Where left and right are.
        folder: For files; shared by all stages of a run.
        tool: The checkout that is measured.
        program: What runs it.
        name: Different for each stage.
    """

    place: Place
    folder: Path
    tool: Path
    program: tuple[str, ...] = (sys.executable, "-m", "punchtunnel")
    name: str = field(default_factory=lambda: f"bench {os.getpid()} {next(_numbers)}")
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _target: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """End every process, last started first, and what they have started."""
        for process in reversed(self._processes):
            family = tree(process.pid)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_SECONDS)
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with contextlib.suppress(OSError):
                        pipe.close()
        self._processes.clear()
        self._target.clear()

    def left(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program on the left host."""
        return self._start([*self.place.at_left, *command], **options)

    def right(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a program on the right host."""
        return self._start([*self.place.at_right, *command], **options)

    def _start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        with self._words().open("ab") as words:
            given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": words}
            given |= {"env": environment(ROOT), "cwd": "/", "preexec_fn": sandbox.die_with_parent}
            process: subprocess.Popen[bytes] = subprocess.Popen(command, **{**given, **options})
        self._processes.append(process)
        return process

    def _words(self) -> Path:
        return self.folder / f"{self.name}.stderr"

    def last_words(self) -> str:
        """Return what was said last on stderr, by whatever program; "" if nothing."""
        with contextlib.suppress(OSError):
            return " / ".join(self._words().read_text(errors="replace").splitlines()[-3:])
        return ""

    # ---- the load

    def target(self, kind: str) -> int:
        """Return the port of the target that is called so in target.py, on the right host."""
        if not self._target:
            process = self.right(*TARGET, self.place.right, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert process.stdout is not None
            self._target = json.loads(process.stdout.readline())
        return self._target[kind]

    def load(self, what: str, host: str, port: int, **options: float) -> dict[str, Any]:
        """Run a client of load.py on the left host and return its result."""
        return result(self.start_load(what, host, port, **options))

    def start_load(self, what: str, host: str, port: int, **options: float) -> subprocess.Popen[bytes]:
        """Start a client of load.py on the left host; `result` waits for it."""
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return self.left(*LOAD, what, host, str(port), *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def environment(checkout: Path, **more: str) -> dict[str, str]:
    """Return the environment in which a checkout is importable."""
    return {**os.environ, "PATH": SYSTEM_PATH, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": "1", **more}


def result(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for a client of load.py and return what it measured.

    Raises:
        RuntimeError: It failed; the last line says why.
    """
    said, complained = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(complained.decode(errors="replace").strip().rpartition("\n")[2] or "the load ended early")
    found: dict[str, Any] = json.loads(said)
    return found


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port that nobody uses now."""
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])


def wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    """Look into /proc until somebody listens on a port where the process is; connecting would be noticed."""
    # proc_pid_net(5): the second field is the local address, the fourth the state.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ended with status {process.returncode} instead of listening")
        for line in Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines():
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
                return
        time.sleep(0.01)
    raise TimeoutError(f"nobody listens on port {port} after {PATIENCE_SECONDS:g} s")


@contextlib.contextmanager
def bounded(seconds: float, what: str) -> Iterator[None]:
    """Raise TimeoutError in the main thread, whatever it is waiting for, when the time is over."""

    def end(_number: int, _frame: object) -> None:
        raise TimeoutError(f"{what} took more than {seconds:g} s")

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


# ---- what /proc says


def tree(pid: int) -> list[int]:
    """Return a process and all that it and its children have started."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                parents.setdefault(int(_stat(int(name))[1]), []).append(int(name))
    family = [pid]
    for one in family:
        family += parents.get(one, [])
    return family


def _stat(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) behind the name, which may hold spaces: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the processor time of processes and of all that they have started, also of what has ended."""
    ticks = 0
    for root in roots:
        for pid in tree(root):
            with contextlib.suppress(OSError):
                # utime, stime, and the same of children that were waited for.
                ticks += sum(map(int, _stat(pid)[11:15]))
    return ticks / TICKS


def exact_cpu_seconds(pid: int) -> float:
    """Return the processor time of one process until now, to the microsecond; its children do not count."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def peak_memory_mb(pid: int) -> float:
    """Return the most memory that a process has had resident, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0
