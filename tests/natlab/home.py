"""A home whose router has a port-mapping daemon: the tool runs in it, and the daemon's table is looked at."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import select
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass

from . import build, daemon, ends, incidents, portmaps, sandbox
from .incidents import Kind
from .run import shell
from .subjects import TOOL, Call

# Seconds for what must come; a datagram that takes a mapping back is not answered, so its effect is waited for.
PATIENCE = 20.0
PAUSE = 0.01
# Seconds that the tool waits for its peer, and that a process may run.
WAIT_S, LIMIT_S = 40.0, 60.0
# Seconds between pieces of 64 KiB, as fast as the internet process carries them.
FAST = 0.005
_FORWARDED = re.compile(r"dport (\d+) .*dnat ip to 192\.168\.1\.2:(\d+)")


@dataclass(slots=True)
class End:
    """A process of the tool's that runs."""

    live: ends.Live
    outcome: asyncio.Task[ends.Outcome]

    def signal(self, number: signal.Signals) -> float:
        """Send a signal, and return the Unix time of that."""
        os.kill(self.live.pid, number)
        return time.time()

    async def says(self, event: str, since: int = 0) -> None:
        """Wait until it says something."""
        async with asyncio.timeout(PATIENCE):
            await self.live.says(event, since)

    def finish(self) -> Awaitable[ends.Outcome]:
        """Let its stdin end, and return how it ends."""
        self.live.sated.set()
        return self.outcome


class Home:
    """A scene whose left side is behind a router with a daemon.

    Args:
        scene: It stands.
    """

    def __init__(self, scene: build.Scene) -> None:
        self.scene = scene
        self.left, self.right = scene.hosts["left"], scene.hosts["right"]
        [(self.router, self.kind)] = scene.daemons
        self._ends: list[End] = []

    # ---- ends

    def begin(
        self, side: str, *options: str, peer: str = "", wait_s: float = WAIT_S, pieces: int = 0, fast: bool = False
    ) -> End:
        """Start the tool; it is fed until it is told to finish, or with so many pieces."""
        own, other = (self.left, self.right) if side == "left" else (self.right, self.left)
        role = () if {"--to"} & set(options) else ("--stdio",)
        call = Call(own.dial4, (peer or other.dial4,), "lab", 0.0, wait_s, role, options)
        return self.run(own, TOOL.command(call), pieces=pieces, fast=fast)

    def run(self, host: build.Host, command: Sequence[str], *, pieces: int = 0, fast: bool = False) -> End:
        """Start a program."""
        live = ends.Live(FAST if fast else ends.FEED_PAUSE, pieces)
        outcome = asyncio.create_task(ends.run_end(host.namespace, command, b"", LIMIT_S, live=live))
        self._ends.append(End(live, outcome))
        return self._ends[-1]

    async def close(self) -> None:
        """End what still runs."""
        for end in self._ends:
            end.outcome.cancel()
        await asyncio.gather(*(end.outcome for end in self._ends), return_exceptions=True)

    # ---- the daemon

    async def forwarded(self) -> list[int]:
        """Return the ports that the daemon forwards to the left host."""
        command = ends.in_namespace(self.router, ["nft", "list", "chain", "inet", daemon.TABLE, daemon.INBOUND])
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        return sorted(int(port) for port, own in _FORWARDED.findall(said.decode()) if port == own)

    async def has_some(self) -> bool:
        """Wait until the daemon forwards something; tell whether it does."""
        return await self._until(some=True)

    async def has_none(self) -> bool:
        """Wait until the daemon forwards nothing; tell whether it does not."""
        return not await self._until(some=False)

    async def _until(self, *, some: bool) -> bool:
        deadline = time.monotonic() + PATIENCE
        while bool(found := await self.forwarded()) != some and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(PAUSE)
        return bool(found)

    async def seconds_left(self) -> list[int]:
        """Return after how many seconds the daemon ends what it forwards."""
        return [await asyncio.to_thread(self._lease, port) for port in await self.forwarded()]

    def _lease(self, port: int) -> int:
        with sandbox.inside(self.left.namespace):
            _status, said = portmaps.upnp_call(
                daemon.GATEWAY, "GetSpecificPortMappingEntry", NewRemoteHost="", NewExternalPort=port, NewProtocol="TCP"
            )
        return int(said.partition("<NewLeaseDuration>")[2].partition("<")[0])

    @contextlib.asynccontextmanager
    async def without_daemon(self, *, killed: bool) -> AsyncIterator[None]:
        """Let the daemon stand still, or be gone, for a while."""
        pid, keeper = daemon.processes(self.router)
        os.kill(keeper if killed else pid, signal.SIGSTOP)
        if killed:
            await asyncio.to_thread(_kill, pid)
        try:
            yield
        finally:
            os.kill(keeper if killed else pid, signal.SIGCONT)

    # ---- what happens

    @contextlib.asynccontextmanager
    async def meanwhile(self, kind: Kind) -> AsyncIterator[None]:
        """Let something happen to the router, until the block ends."""
        keep = str(sandbox.SCRATCH / f"{self.router}.nft")
        await self._on_router(incidents.begin(kind, self.router, keep, "", ""))
        try:
            yield
        finally:
            await self._on_router(incidents.end(kind, keep))

    async def _on_router(self, lines: list[str]) -> None:
        if lines:
            await shell(ends.in_namespace(self.router, ["sh", "-e"]), "\n".join(lines))

    async def forget(self) -> None:
        """Let the daemon forget everything, and return when the next one answers."""
        await self._on_router(incidents.begin(Kind.FORGET, self.router, "", "", ""))
        await self.has_none()
        await asyncio.to_thread(self._wait_for_daemon)

    def _wait_for_daemon(self) -> None:
        deadline = time.monotonic() + PATIENCE
        with sandbox.inside(self.router):
            while not daemon.answers(self.kind) and time.monotonic() < deadline:
                time.sleep(PAUSE)

    async def datagrams(self, host: build.Host) -> int:
        """Return how many UDP datagrams have left a host."""
        command = ends.in_namespace(host.namespace, ["nft", "list", "counter", "inet", "count", build.UDP_COUNTER])
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
        return int(re.findall(rb"packets (\d+)", said)[0])


def _kill(pid: int) -> None:
    """Kill a process, and return when it has no sockets any more."""
    ended = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        select.select([ended], [], [], PATIENCE)
    finally:
        os.close(ended)
