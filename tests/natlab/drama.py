"""Lets incidents happen to two ends that run: what incidents.py describes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from . import build, ends, incidents, relay, sandbox
from .cells import NAME
from .incidents import Incident, Kind

Shell = Callable[[list[str], str], Awaitable[None]]


class Drama:
    """The ends of one scene, and what happens to them.

    Args:
        scene: It stands.
        shell: Runs a command with a text for its input.
        happens: One after the other.
        make_live: Makes what feeds an end.
        named: The left side knows the right one by NAME.
    """

    def __init__(
        self,
        scene: build.Scene,
        shell: Shell,
        happens: tuple[Incident, ...],
        make_live: Callable[[], ends.Live] = ends.Live,
        *,
        named: bool = False,
    ) -> None:
        self.scene = scene
        self._shell = shell
        self.happens = happens
        self._named = named
        self.lives = {side: make_live() for side in incidents.BOTH}
        self.restarts = False
        # Seconds from the end of the last incident to the first bytes of each end after that.
        self.back_s: dict[str, float] = {}
        self._moved: dict[str, str] = {}

    async def play(self) -> None:
        """Let everything happen, and both ends be fed until bytes have come out of them after that."""
        await self.happen()
        healed_s = time.time()
        came_s = await asyncio.gather(*(live.gets(healed_s) for live in self.lives.values()))
        self.back_s = {side: came - healed_s for side, came in zip(self.lives, came_s, strict=True)}
        for live in self.lives.values():
            live.sated.set()

    async def happen(self) -> None:
        """Let everything happen."""
        since = dict.fromkeys(self.lives, 0)
        for incident in self.happens:
            tasks = [asyncio.create_task(live.says(incident.awaits, since[side])) for side, live in self.lives.items()]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED if incident.by_any else asyncio.ALL_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.sleep(incident.after_s)
            since = {side: len(live.events) for side, live in self.lives.items()}
            await self._happen(incident)

    async def _happen(self, incident: Incident) -> None:
        await self._begin(incident)
        if incident.kind in (Kind.RELAY_GOES, Kind.RELAY_STARTS_ANEW):
            relay.keep_away(relay.directory_of(self.scene.relay))
        await asyncio.sleep(incident.lasts_s / 2)
        if incident.meanwhile is not None:
            await self._begin(replace(incident, kind=incident.meanwhile))
        await asyncio.sleep(incident.lasts_s / 2)
        if incident.kind is Kind.RELAY_STARTS_ANEW:
            relay.let_back(relay.directory_of(self.scene.relay))
        for side in incident.sides:
            if incident.kind is Kind.STOP:
                os.kill(self.lives[side].pid, signal.SIGCONT)
            for router in self._routers(side):
                await self._run(router, incidents.end(incident.kind, self._keep(router)))

    async def _begin(self, incident: Incident) -> None:
        for side in incident.sides:
            live = self.lives[side]
            if incident.kind is Kind.STOP:
                os.kill(live.pid, signal.SIGSTOP)
            if incident.kind is Kind.RESTART:
                self.restarts = True
            if incident.kind in (Kind.KILL, Kind.RESTART):
                os.kill(live.pid, signal.SIGKILL)
            there = self._moved.get(side, self.scene.hosts[side].dial4)
            new = build.moved4(there) if there.endswith("0") else self.scene.hosts[side].dial4
            # Only the outermost box has the public address.
            boxes = self._routers(side)
            for router in boxes[:1] if incident.kind is Kind.MOVE else boxes:
                await self._run(router, incidents.begin(incident.kind, router, self._keep(router), there, new))
            if incident.kind is Kind.MOVE:
                self._moved[side] = new
                if self._named and side == "right":
                    names = sandbox.names_in(self.scene.hosts["left"].namespace)
                    names.write_text(f"{new} {NAME}\n")

    def _routers(self, side: str) -> list[str]:
        """Return the boxes of a side; a public host has its firewall itself."""
        prefix = f"{self.scene.prefix}-{side}-"
        boxes = [one for one in self.scene.namespaces if one.startswith(f"{prefix}box")]
        return boxes or [self.scene.hosts[side].namespace]

    def _keep(self, router: str) -> str:
        return str(sandbox.SCRATCH / f"{router}.nft")

    async def _run(self, namespace: str, lines: list[str]) -> None:
        if lines:
            await self._shell(ends.in_namespace(namespace, ["sh", "-e"]), "\n".join(lines))
