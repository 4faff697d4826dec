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
# 640 KB/s: a few MB while something happens, and no more than the internet process carries with ease.
FED_AT_ONCE, FEED_PAUSE = 65536, 0.1
READ_SIZE = 65536
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
    # From the end of the last incident to the first bytes that came after it.
    back_s: float | None = None
    # Unix time of the first bytes that came out of it.
    first_s: float | None = None

    def count(self, event: str) -> int:
        """Return how many events of that name there were."""
        return sum(one.get("event") == event for one in self.events)

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


class Live:
    """An end that things happen to while it runs, and that is fed until they are over.

    Args:
        pause_s: Seconds between two pieces that it is fed.
        pieces: How many it is fed; 0: until the incidents are over.

    Attributes:
        pid: Of its process; 0 before it runs.
        events: What it has said so far.
        arrived_s: Unix time at which bytes came out of it last.
        first_s: The same of the first ones; None before.
        sated: Nothing more is to be fed.
    """

    def __init__(self, pause_s: float = FEED_PAUSE, pieces: int = 0) -> None:
        self._pause_s = pause_s
        self._pieces = pieces
        self.pid = 0
        self.events: list[dict[str, object]] = []
        self.arrived_s = 0.0
        self.first_s: float | None = None
        self.sated = asyncio.Event()
        self._news = asyncio.Event()

    def tell(self) -> None:
        """Let everybody look again who waits."""
        self._news.set()
        self._news = asyncio.Event()

    async def says(self, event: str, since: int = 0) -> None:
        """Wait until it has said something after its first `since` events."""
        while not any(one.get("event") == event for one in self.events[since:]):
            await self._news.wait()

    async def gets(self, since_s: float) -> float:
        """Wait until bytes come out of it after a moment, and return when."""
        while self.arrived_s <= since_s:
            await self._news.wait()
        return self.arrived_s

    async def feed(self, pipe: int) -> bytes:
        """Write to a pipe at a steady rate until it is enough; return what was written."""
        loop, fed = asyncio.get_running_loop(), bytearray()
        os.set_blocking(pipe, False)
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(pipe, "wb"))
        writer = asyncio.StreamWriter(transport, protocol, None, loop)
        with contextlib.suppress(ConnectionError):
            while not self.sated.is_set() and (not self._pieces or len(fed) < self._pieces * FED_AT_ONCE):
                fed += (piece := os.urandom(FED_AT_ONCE))
                writer.write(piece)
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.sated.wait(), self._pause_s)
        writer.close()
        return bytes(fed)


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
    namespace: str,
    command: Sequence[str],
    payload: bytes,
    limit_s: float,
    pause_s: float = 0.0,
    live: Live | None = None,
) -> Outcome:
    """Run one end to its end and return what it did.

    Args:
        namespace: Where it runs.
        command: The program and its arguments.
        payload: What it reads from stdin; at most 64 KiB, so that a pipe
            holds it all and nobody has to write while the program runs.
        limit_s: It is killed after this long; its status is then None, and
            what it said until then is kept.
        pause_s: The second half of the payload comes so much later, or as soon as the session has moved.
        live: Told of all that it does; it is fed by that instead of `payload`.
    """
    # asyncio would make a socket pair of stdin, and the program would hand a
    # socket where its users have a pipe.
    stdin, feed = os.pipe()
    feeds_itself, live = live is not None, live or Live()
    fed = asyncio.create_task(live.feed(feed) if feeds_itself else _feed(feed, payload, pause_s, live))
    process = await asyncio.create_subprocess_exec(
        *in_namespace(namespace, command), stdin=stdin, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, env=environment(), cwd=ROOT,
    )  # fmt: skip
    os.close(stdin)
    live.pid = process.pid
    outcome = Outcome(None, b"", b"", live.events)
    watcher = asyncio.create_task(_watch(process.pid, outcome.looks))
    talk = asyncio.gather(_receive(process.stdout, live), _listen(process.stderr, outcome, live), process.wait())
    try:
        in_time, _late = await asyncio.wait({talk}, timeout=limit_s)
    finally:
        watcher.cancel()
        live.sated.set()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        outcome.received, _, _ = await talk
        outcome.first_s = live.first_s
        outcome.sent = await fed
    outcome.status, outcome.ended_s = process.returncode if in_time else None, time.time()
    return outcome


async def _feed(pipe: int, payload: bytes, pause_s: float, end: Live) -> bytes:
    half = len(payload) // 2 if pause_s else len(payload)
    with contextlib.suppress(BrokenPipeError):
        os.write(pipe, payload[:half])
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(end.says("moved"), pause_s)
        os.write(pipe, payload[half:])
    os.close(pipe)
    return payload


async def _receive(stdout: asyncio.StreamReader | None, live: Live) -> bytes:
    assert stdout is not None
    received = bytearray()
    while piece := await stdout.read(READ_SIZE):
        received += piece
        live.arrived_s = time.time()
        live.first_s = live.first_s or live.arrived_s
        live.tell()
    return bytes(received)


async def _listen(stderr: asyncio.StreamReader | None, outcome: Outcome, live: Live) -> None:
    assert stderr is not None
    async for line in stderr:
        _hear(outcome, line.decode(errors="replace").rstrip("\n"))
        live.tell()


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
    # The kernel's own, by which a session hears of changed addresses, are nobody's on the way.
    netlink = {f"socket:[{line.split()[-1]}]" for line in (process / "net" / "netlink").read_text().splitlines()}
    sockets = 0
    for descriptor in os.listdir(process / "fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(process / "fd" / descriptor)
            sockets += target.startswith("socket:") and target not in netlink
    # proc(5): utime and stime are fields 14 and 15; the second may hold spaces.
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return Look(time.time(), sockets, (int(fields[11]) + int(fields[12])) / TICKS)
