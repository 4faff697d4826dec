"""Count what a MiB, a connection and a small message cost each hop: system calls, wake-ups, function calls.

    python -m bench.syscalls            all tables; as root, or where ptrace of one's own children is allowed
    python -m bench.syscalls --names    and each system call and function of a connection and of a message

Three runs, so that none disturbs another:

    bare        wake-ups (voluntary context switches, proc_pid_status(5)) and processor time
    strace      system calls; it slows everything, so some reads find less than they would otherwise
    cProfile    function calls, C and Python together; see profiled.py

The counts are what each path does, not how fast it is.  Between two messages,
and two connections that come one at a time, is a pause, so that no hop spins
and the counts are the same each time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from . import document, forwarders
from .forwarders import Forwarder, Process
from .load import answered, connected, ping, together
from .stage import LOOPBACK, ROOT, Stage, exact_cpu_seconds
from .target import MIRROR

PYTHON = (sys.executable, "-m", "punchtunnel")
COPIED = ("env", "PUNCHTUNNEL_NO_SPLICE=1", *PYTHON)
MIB = 1 << 20
# So long that the first frames, which are short until the rate is known, do not count.
BULK_SECONDS = 6.0
# Of one kind in each run, before the same is counted, and the seconds between two.
COUNT, WARM, PAUSE = 400, 40, 0.003
AT_A_TIME = 16
# Until what follows a connection or a message has been done as well.
SETTLE = 0.3
# What moves bytes or waits; the rest comes once.
BULK_SHOWN = ("splice", "sendto", "recvfrom", "epoll_wait", "epoll_pwait")
EPOLL = ("epoll_wait", "epoll_pwait")

# Of docs/PERFORMANCE.md; see document.py.
BULK_PART, MESSAGES_PART = "calls for a MiB", "calls for one"

# By hop: "-L", the near one, and "--to".
Counts = dict[str, Counter[str]]


@dataclass(slots=True)
class Cost:
    """What one hop did for one connection or message: numbers of each kind, for one.

    Attributes:
        system, functions: By name.
        wakeups: How often it had to be woken.
        cpu_us: Processor time.
    """

    system: dict[str, float] = field(default_factory=dict)
    functions: dict[str, float] = field(default_factory=dict)
    wakeups: float = 0.0
    cpu_us: float = 0.0


# ---- what is done


def connections(forwarder: Forwarder, count: int, at_a_time: int = 1) -> None:
    """Connect, send a byte, receive one, close; so many times."""

    def some(_number: int) -> None:
        for _ in range(count // at_a_time):
            answered(forwarder.host, forwarder.port)
            if at_a_time == 1:
                time.sleep(PAUSE)

    together(some, at_a_time)


def messages(forwarder: Forwarder, count: int) -> None:
    """Send 64 bytes and wait until they are back, so many times on one connection."""
    with connected(forwarder.host, forwarder.port, MIRROR) as sock:
        for number in range(count):
            ping(sock, number)
            time.sleep(PAUSE)


Work = Callable[[Forwarder, int], None]
# What is done, and the target's kind; see target.py.
WORKS: dict[str, tuple[Work, str]] = {
    "a connection": (connections, "answer"),
    "a connection, 16 at a time": (partial(connections, at_a_time=AT_A_TIME), "answer"),
    "64 bytes there and back": (messages, "work"),
}


# ---- how it is counted


@contextlib.contextmanager
def running(program: tuple[str, ...], sealed: bool, kind: str) -> Iterator[tuple[Stage, Forwarder]]:
    """Run both hops."""
    with (
        tempfile.TemporaryDirectory(prefix="punchtunnel-counts-") as folder,
        Stage(LOOPBACK, Path(folder), ROOT, program) as stage,
    ):
        yield stage, forwarders.punchtunnel(stage, stage.target(kind), sealed)


def hops_of(forwarder: Forwarder) -> dict[str, Process]:
    """Return the processes by their options."""
    far, near = forwarder.hops
    return {"-L": near, "--to": far}


@contextlib.contextmanager
def traced(forwarder: Forwarder, folder: Path) -> Iterator[Counts]:
    """Count the system calls of both hops; the counts are there when it is left."""
    counts: Counts = {}
    tracers = {}
    for name, hop in hops_of(forwarder).items():
        command = ["strace", "-c", "-f", "-p", str(hop.pid), "-o", str(folder / f"{name}.strace")]
        tracers[name] = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for tracer in tracers.values():
            assert tracer.stderr is not None
            # "strace: Process 123 attached"
            tracer.stderr.readline()
        yield counts
    finally:
        for tracer in tracers.values():
            tracer.terminate()
            tracer.communicate(timeout=30)
    for name in tracers:
        counts[name] = Counter(counts_in((folder / f"{name}.strace").read_text()))


def counts_in(table: str) -> dict[str, int]:
    """Return the calls by name of what `strace -c` has written."""
    rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", table, re.MULTILINE)
    return {name: int(count) for count, name in rows if name != "total"}


@contextlib.contextmanager
def asked(listener: socket.socket, forwarder: Forwarder) -> Iterator[Callable[[], Counts]]:
    """Accept both hops that profiled.py runs; return what asks them for their calls so far."""
    names = {hop.pid: name for name, hop in hops_of(forwarder).items()}
    with contextlib.ExitStack() as stack:
        lines = {}
        for _ in names:
            sock = stack.enter_context(listener.accept()[0])
            stream = stack.enter_context(sock.makefile("rw"))
            lines[names[int(stream.readline())]] = stream

        def ask() -> Counts:
            counts = {}
            for name, stream in lines.items():
                stream.write(".")
                stream.flush()
                counts[name] = Counter(json.loads(stream.readline()))
            return counts

        yield ask


def woken(pid: int) -> int:
    """Return how often the threads of a process have slept and been woken, so far."""
    status = (task / "status" for task in Path(f"/proc/{pid}/task").iterdir())
    return sum(
        int(re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", one.read_text(), re.MULTILINE)[0]) for one in status
    )


def costs(sealed: bool, work: Work, kind: str) -> dict[str, Cost]:
    """Return what one of `work` costs each hop."""
    found = {"-L": Cost(), "--to": Cost()}
    with running(PYTHON, sealed, kind) as (stage, forwarder):
        hops = {name: hop.pid for name, hop in hops_of(forwarder).items()}
        work(forwarder, WARM)
        before = {name: (woken(pid), exact_cpu_seconds(pid)) for name, pid in hops.items()}
        work(forwarder, COUNT)
        time.sleep(SETTLE)
        for name, pid in hops.items():
            found[name].wakeups = (woken(pid) - before[name][0]) / COUNT
            found[name].cpu_us = (exact_cpu_seconds(pid) - before[name][1]) * 1e6 / COUNT
        with traced(forwarder, stage.folder) as counts:
            work(forwarder, COUNT)
            time.sleep(SETTLE)
        for name, calls in counts.items():
            found[name].system = each(calls)
    for name, calls in profiled(sealed, work, kind).items():
        found[name].functions = each(calls)
    return found


def profiled(sealed: bool, work: Work, kind: str) -> Counts:
    """Return the function calls of COUNT times `work` by hop."""
    with (
        tempfile.TemporaryDirectory(prefix="punchtunnel-profile-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        place = f"{folder}/hops"
        listener.bind(place)
        listener.listen()
        program = (sys.executable, str(ROOT / "bench" / "profiled.py"), place)
        with running(program, sealed, kind) as (_, forwarder), asked(listener, forwarder) as ask:
            work(forwarder, WARM)
            time.sleep(SETTLE)
            before = ask()
            work(forwarder, COUNT)
            time.sleep(SETTLE)
            return {name: calls - before[name] for name, calls in ask().items()}


def each(calls: Counter[str]) -> dict[str, float]:
    """Return the counts for one, most first; what came less often than once in twenty is left out."""
    return {name: count / COUNT for name, count in calls.most_common() if count > COUNT / 20}


# ---- tables


def bulk_lines() -> Iterator[str]:
    """Yield the table of a MiB: system calls by kind, sender and receiver."""
    yield f"{'system calls for a MiB':34}" + "".join(f"{name:>12}" for name in (*BULK_SHOWN, "all"))
    for mode, sealed, program in (
        ("plain, spliced", False, PYTHON), ("plain, copied", False, COPIED), ("sealed", True, PYTHON),
    ):  # fmt: skip
        with running(program, sealed, "work") as (stage, forwarder):
            stage.load("bulk", forwarder.host, forwarder.port, seconds=0.5, streams=1)
            with traced(forwarder, stage.folder) as counts:
                moved = stage.load("bulk", forwarder.host, forwarder.port, seconds=BULK_SECONDS, streams=1)["bytes"]
        for name, end in (("--to", "receiver"), ("-L", "sender")):
            shown = [*(counts[name][call] for call in BULK_SHOWN), sum(counts[name].values())]
            yield f"{f'{mode}, {end}':34}" + "".join(f"{count * MIB / moved:12.2f}" for count in shown)


def message_lines(with_names: bool) -> Iterator[str]:
    """Yield the table of a connection and of a message, and then the names."""
    columns = ("function calls", "system calls", "of them epoll", "wake-ups", "CPU, µs")
    yield f"{'for each, at each hop':44}" + "".join(f"{name:>16}" for name in columns)
    names: list[str] = []
    for mode, sealed in (("plain", False), ("sealed", True)):
        for what, (work, kind) in WORKS.items():
            for hop, cost in costs(sealed, work, kind).items():
                epoll = sum(cost.system.get(call, 0.0) for call in EPOLL)
                calls = sum(cost.functions.values()), sum(cost.system.values()), epoll, cost.wakeups
                figures = "".join(f"{figure:16.1f}" for figure in calls)
                yield f"{f'{mode}, {what}, {hop}':44}{figures}{cost.cpu_us:16.0f}"
                names += ["", f"{mode}, {what}, {hop}"]
                for counted in (cost.system, cost.functions):
                    names += ["", *(f"{count:10.2f}  {name}" for name, count in counted.items())]
    if with_names:
        yield from names


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.syscalls", description="What the hops do, counted.")
    parser.add_argument("--only", choices=("bulk", "messages"), help="only the table of a MiB, or of the rest")
    parser.add_argument("--names", action="store_true", help="also each call of a connection and of a message by name")
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the tables into docs/PERFORMANCE.md")
    given = parser.parse_args()
    if not shutil.which("strace"):
        sys.exit("strace is missing: apt-get install strace")
    tables: dict[str, Iterator[str]] = {}
    if given.only != "messages":
        tables[BULK_PART] = bulk_lines()
    if given.only != "bulk":
        tables[MESSAGES_PART] = message_lines(given.names)
    for part, lines in tables.items():
        shown = []
        for line in lines:
            print(line, flush=True)
            shown.append(line)
        print()
        if given.document:
            fenced = ["```", *shown, "```"]
            given.document.write_text(document.replaced(given.document.read_text(), {part: fenced}))


if __name__ == "__main__":
    main()
