"""Count what a MiB, a connection and a small message cost each hop: system calls, wake-ups, function calls.

    python -m bench.syscalls                    all tables, also of peers; as root, or where ptrace of one's own
                                                children is allowed
    python -m bench.syscalls --names            and each system call and function of a connection and of a message
    python -m bench.syscalls --ours --only messages     half a minute: while working on it

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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from . import document, machine
from .forwarders import Forwarder
from .load import answered, connected, ping, together
from .stage import LOOPBACK, ROOT, Stage, exact_cpu_seconds, tree
from .subjects import HAPROXY, HAPROXY_SPLICE, HAPROXY_TUNED, PLAIN, SEALED, SSH, STARTS
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

OURS = (PLAIN, SEALED)
# Peers that stay as they are while they work: socat forks for each connection.
BULK_LABELS = (*OURS, HAPROXY_SPLICE, HAPROXY_TUNED, SSH)
MESSAGE_LABELS = (*OURS, SSH, HAPROXY)

NEAR, FAR = "near", "far"
# By hop: NEAR, that of -L, and FAR, that of --to.
Counts = dict[str, Counter[str]]


@dataclass(slots=True)
class Cost:
    """What a hop did for one connection or message.

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


def exchanges(forwarder: Forwarder, count: int) -> None:
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
    "64 bytes there and back": (exchanges, "work"),
}


# ---- how it is counted


@contextlib.contextmanager
def running(label: str, kind: str, program: tuple[str, ...] = PYTHON) -> Iterator[tuple[Stage, Forwarder]]:
    """Run both hops of a subject."""
    with (
        tempfile.TemporaryDirectory(prefix="punchtunnel-counts-") as folder,
        Stage(LOOPBACK, Path(folder), ROOT, program) as stage,
    ):
        yield stage, STARTS[label][0](stage, stage.target(kind))


def hops_of(forwarder: Forwarder) -> dict[str, int]:
    """Return the processes at the left and at the right; sshd has children."""
    far, near = forwarder.hops
    return {NEAR: near.pid, FAR: far.pid}


@contextlib.contextmanager
def traced(forwarder: Forwarder, folder: Path) -> Iterator[Counts]:
    """Count the system calls of both hops; the counts are there when it is left."""
    counts: Counts = {}
    tracers = {}
    for name, hop in hops_of(forwarder).items():
        pids = [f"--attach={pid}" for pid in tree(hop)]
        command = ["strace", "-c", "-f", *pids, "-o", str(folder / f"{name}.strace")]
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
    names = {pid: name for name, pid in hops_of(forwarder).items()}
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


def woken(hop: int) -> int:
    """Return how often the threads of a hop have slept and been woken, so far."""
    tasks = (task for pid in tree(hop) for task in Path(f"/proc/{pid}/task").iterdir())
    switches = (re.search(r"^voluntary_ctxt_switches:\s+(\d+)", (task / "status").read_text(), re.M) for task in tasks)
    return sum(int(found[1]) for found in switches if found)


def cpu_us(hop: int) -> float:
    """Return the processor time of a hop, so far."""
    return sum(map(exact_cpu_seconds, tree(hop))) * 1e6


def costs(label: str, work: Work, kind: str) -> dict[str, Cost]:
    """Return what one of `work` costs each hop; functions only of the tool."""
    found = {NEAR: Cost(), FAR: Cost()}
    with running(label, kind) as (stage, forwarder):
        hops = hops_of(forwarder)
        work(forwarder, WARM)
        before = {name: (woken(hop), cpu_us(hop)) for name, hop in hops.items()}
        work(forwarder, COUNT)
        time.sleep(SETTLE)
        for name, hop in hops.items():
            found[name].wakeups = (woken(hop) - before[name][0]) / COUNT
            found[name].cpu_us = (cpu_us(hop) - before[name][1]) / COUNT
        with traced(forwarder, stage.folder) as counts:
            work(forwarder, COUNT)
            time.sleep(SETTLE)
        for name, calls in counts.items():
            found[name].system = each(calls)
    if label in OURS:
        for name, calls in profiled(label, work, kind).items():
            found[name].functions = each(calls)
    return found


def profiled(label: str, work: Work, kind: str) -> Counts:
    """Return the function calls of COUNT times `work` by hop."""
    with (
        tempfile.TemporaryDirectory(prefix="punchtunnel-profile-") as folder,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        place = f"{folder}/hops"
        listener.bind(place)
        listener.listen()
        program = (sys.executable, str(ROOT / "bench" / "profiled.py"), place)
        with running(label, kind, program) as (_, forwarder), asked(listener, forwarder) as ask:
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


def bulk_lines(labels: Sequence[str]) -> Iterator[str]:
    """Yield the table of a MiB: system calls by kind, receiver and sender."""
    yield f"{'system calls for a MiB':48}" + "".join(f"{name:>12}" for name in (*BULK_SHOWN, "all"))
    modes: list[tuple[str, str, tuple[str, ...]]] = [(label, label, PYTHON) for label in labels]
    modes.insert(1, (f"{PLAIN}, copied", PLAIN, COPIED))
    for mode, label, program in modes:
        with running(label, "work", program) as (stage, forwarder):
            stage.load("bulk", forwarder.host, forwarder.port, seconds=0.5, streams=1)
            with traced(forwarder, stage.folder) as counts:
                moved = stage.load("bulk", forwarder.host, forwarder.port, seconds=BULK_SECONDS, streams=1)["bytes"]
        for hop, end in ((FAR, "receiver"), (NEAR, "sender")):
            shown = [*(counts[hop][call] for call in BULK_SHOWN), sum(counts[hop].values())]
            yield f"{f'{mode}, {end}':48}" + "".join(f"{count * MIB / moved:12.2f}" for count in shown)


def message_lines(labels: Sequence[str], with_names: bool) -> Iterator[str]:
    """Yield the table of a connection and of a message, and then the names."""
    columns = ("function calls", "system calls", "of them epoll", "wake-ups", "CPU, µs")
    yield f"{'for each, at each hop':54}" + "".join(f"{name:>16}" for name in columns)
    names: list[str] = []
    for what, (work, kind) in WORKS.items():
        for label in labels:
            for hop, cost in costs(label, work, kind).items():
                epoll = sum(cost.system.get(call, 0.0) for call in EPOLL)
                functions = f"{sum(cost.functions.values()):.1f}" if cost.functions else "-"
                figures = "".join(f"{figure:16.1f}" for figure in (sum(cost.system.values()), epoll, cost.wakeups))
                yield f"{f'{what}, {label}, {hop}':54}{functions:>16}{figures}{cost.cpu_us:16.0f}"
                names += ["", f"{what}, {label}, {hop}"]
                for counted in (cost.system, cost.functions):
                    names += ["", *(f"{count:10.2f}  {name}" for name, count in counted.items())]
    if with_names:
        yield from names


def present(labels: Sequence[str]) -> list[str]:
    """Return those whose programs are installed."""
    return [label for label in labels if not machine.missing(STARTS[label][1])]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.syscalls", description="What the hops do, counted.")
    parser.add_argument("--only", choices=("bulk", "messages"), help="only the table of a MiB, or of the rest")
    parser.add_argument("--ours", action="store_true", help="no peers")
    parser.add_argument("--names", action="store_true", help="also each call of a connection and of a message by name")
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the tables into docs/PERFORMANCE.md")
    given = parser.parse_args()
    if not shutil.which("strace"):
        sys.exit("strace is missing: apt-get install strace")
    bulk, messages = (OURS, OURS) if given.ours else (present(BULK_LABELS), present(MESSAGE_LABELS))
    tables: dict[str, Iterator[str]] = {}
    if given.only != "messages":
        tables[BULK_PART] = bulk_lines(bulk)
    if given.only != "bulk":
        tables[MESSAGES_PART] = message_lines(messages, given.names)
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
