"""One end: a child process inside a host's namespace, fed, watched and heard.

What is watched comes from /proc, so that the program needs to know nothing of
it: sockets among its descriptors, and processor time.  (The laboratory's /proc
shows its own process namespace, and `nsenter` becomes the program it starts.)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from . import sandbox

ROOT = FilePath(__file__).resolve().parents[2]
# Sockets come and go within milliseconds while dials fail; ten looks a second
# are 1 % of a core and see any number that lasts.
LOOK_SECONDS = 0.1
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Look:
    """What /proc said at one moment (Unix time, seconds)."""

    time_s: float
    sockets: int
    cpu_s: float


@dataclass(slots=True)
class Outcome:
    """Everything that is known about one end when it has ended."""

    status: int | None
    sent: bytes
    received: bytes
    events: list[dict[str, object]] = field(default_factory=list)
    # Lines on stderr that are not events: a traceback, mostly.
    words: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    ended_s: float = 0.0

    def time_of(self, event: str) -> float | None:
        """Return the Unix time of the first event of that name."""
        for one in self.events:
            stamp = one.get("time_s")
            if one.get("event") == event and isinstance(stamp, int | float):
                return float(stamp)
        return None

    @property
    def reason(self) -> str:
        """Return the last sentence that this end said about itself."""
        ends = [str(one.get("reason", "")) for one in self.events if one.get("event") == "exit"]
        return (ends or self.words or [""])[-1]

    @property
    def most_sockets(self) -> int:
        """Return the largest number of sockets that was seen."""
        return max((look.sockets for look in self.looks), default=0)

    def cpu_percent(self, since_s: float, until_s: float) -> float | None:
        """Return the processor time used between two moments, as percent of one core."""
        inside = [look for look in self.looks if since_s <= look.time_s <= until_s]
        if len(inside) < 2:
            return None
        return 100 * (inside[-1].cpu_s - inside[0].cpu_s) / (inside[-1].time_s - inside[0].time_s)


def in_namespace(namespace: str, command: Sequence[str]) -> list[str]:
    """Return `command` as it must be started to run in a network namespace, with the names that are known there."""
    names = sandbox.names_in(namespace)
    if names.exists():
        command = ["unshare", "--mount", "sh", "-ec", 'mount --bind "$0" /etc/hosts; exec "$@"', str(names), *command]
    return ["nsenter", f"--net={sandbox.NAMESPACES / namespace}", "--", *command]


def environment() -> dict[str, str]:
    """Return the environment of every child: this checkout is importable."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


async def run_end(
    namespace: str, command: Sequence[str], payload: bytes, limit_s: float, pause_s: float = 0.0
) -> Outcome:
    """Run one end to its end and return what it did.

    Args:
        namespace: Where it runs.
        command: The program and its arguments.
        payload: What it reads from stdin; at most 64 KiB, so that a pipe
            holds it all and nobody has to write while the program runs.
        limit_s: It is killed after this long; its status is then None, and
            what it said until then is kept.
        pause_s: The second half of the payload comes so much later.
    """
    # asyncio would make a socket pair of stdin, and the program would hand a
    # socket where its users have a pipe.
    stdin, feed = os.pipe()
    half = len(payload) // 2 if pause_s else len(payload)
    os.write(feed, payload[:half])

    def feed_the_rest() -> None:
        os.write(feed, payload[half:])
        os.close(feed)

    if pause_s:
        asyncio.get_running_loop().call_later(pause_s, feed_the_rest)
    else:
        feed_the_rest()
    process = await asyncio.create_subprocess_exec(
        *in_namespace(namespace, command), stdin=stdin, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=environment(), cwd=ROOT,
    )  # fmt: skip
    os.close(stdin)
    looks: list[Look] = []
    watcher = asyncio.create_task(_watch(process.pid, looks))
    talk = asyncio.create_task(process.communicate())
    try:
        in_time, _late = await asyncio.wait({talk}, timeout=limit_s)
    finally:
        watcher.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        received, said = await talk
    outcome = Outcome(process.returncode if in_time else None, payload, received, looks=looks, ended_s=time.time())
    for line in said.decode(errors="replace").splitlines():
        _hear(outcome, line)
    return outcome


def _hear(outcome: Outcome, line: str) -> None:
    with contextlib.suppress(ValueError):
        event = json.loads(line)
        if isinstance(event, dict):
            outcome.events.append(event)
            return
    outcome.words.append(line)


async def _watch(pid: int, looks: list[Look]) -> None:
    """Look at a process until it is gone."""
    with contextlib.suppress(OSError):
        while True:
            looks.append(_look(FilePath(f"/proc/{pid}")))
            await asyncio.sleep(LOOK_SECONDS)


def _look(process: FilePath) -> Look:
    sockets = 0
    for descriptor in os.listdir(process / "fd"):
        with contextlib.suppress(OSError):
            sockets += os.readlink(process / "fd" / descriptor).startswith("socket:")
    # proc(5): utime and stime are fields 14 and 15; the second may hold spaces.
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return Look(time.time(), sockets, (int(fields[11]) + int(fields[12])) / TICKS)
