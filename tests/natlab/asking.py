"""Asks a router's port-mapping daemon by the packets of each protocol, without the tool.

    +------+  asks, and listens   +--------+                  +-------+
    | left |----------------------| router |===( internet )===| right |  connects to what was mapped
    +------+                      +--------+                  +-------+

`python -m tests.natlab.asking` asks each kind of daemon and prints one JSON
object: the row's name -> what came out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from dataclasses import asdict, dataclass, field

from . import build, daemon, internet, sandbox
from .portmaps import Answer, natpmp_map, pcp_map, upnp_map
from .run import log_of, shell, standing
from .topology import BEHAVIOURS, PUBLIC, Daemon
from .wire import Path

ROWS = ("mapper", "mapper, reset", "mapper, UPnP", "mapper, NAT-PMP", "mapper, PCP", "mapper denies",
        "mapper, other ports", "mapper behind a carrier")  # fmt: skip
NATPMP, PCP, PCP6, UPNP = "NAT-PMP", "PCP", "PCP, IPv6", "UPnP"
PORTS = {NATPMP: 16001, PCP: 16002, PCP6: 16003, UPNP: 16004}
# Seconds after which an answer, or a connection, will not come any more; and where none may come.
PATIENCE, SILENCE = 20.0, 2.0
JOBS = 3


@dataclass(slots=True)
class Found:
    """What came out of one row; the keys are protocols."""

    # No answer is no key.
    answers: dict[str, Answer] = field(default_factory=dict)
    # The protocols by whose outside port the right host came in, and after the daemon had started anew.
    reached: list[str] = field(default_factory=list)
    reached_anew: list[str] = field(default_factory=list)


def ask(scene: build.Scene, kind: Daemon) -> dict[str, Answer]:
    """Ask by all protocols from the left host."""
    left, answers = scene.hosts["left"], {}
    gateways = {NATPMP: daemon.GATEWAY, PCP: daemon.GATEWAY, PCP6: f"{left.dial6[:-1]}1"}
    for protocol, gateway in gateways.items():
        family = socket.AF_INET6 if protocol == PCP6 else socket.AF_INET
        dropped = kind is (Daemon.PCP if protocol == NATPMP else Daemon.NATPMP)
        with sandbox.inside(left.namespace):
            asking = socket.socket(family, socket.SOCK_DGRAM)
        # No daemon there is refused, or one that does not know the version silent.
        with asking, contextlib.suppress(OSError):
            asking.settimeout(SILENCE if dropped else PATIENCE)
            asking.connect((gateway, daemon.PORT))
            answers[protocol] = (natpmp_map if protocol == NATPMP else pcp_map)(asking, PORTS[protocol])
    with sandbox.inside(left.namespace), contextlib.suppress(ConnectionRefusedError):
        answers[UPNP] = upnp_map(daemon.GATEWAY, PORTS[UPNP])
    return answers


def reached(scene: build.Scene, mapped: dict[str, Answer]) -> list[str]:
    """Return the protocols by whose ports the right host gets in; a port that is not mapped is dialled at its own."""
    with contextlib.ExitStack() as stack, sandbox.inside(scene.hosts["left"].namespace):
        for port in PORTS.values():
            listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            stack.enter_context(listener)
        return [protocol for protocol in PORTS if _connects(scene, protocol, mapped.get(protocol))]


def _connects(scene: build.Scene, protocol: str, answer: Answer | None) -> bool:
    left, opened = scene.hosts["left"], answer is not None and answer[0] == 0
    port = answer[2] if answer is not None and opened else PORTS[protocol]
    address = left.dial6 if protocol == PCP6 else left.dial4
    with sandbox.inside(scene.hosts["right"].namespace), contextlib.suppress(OSError):
        socket.create_connection((address, port), PATIENCE if opened else SILENCE).close()
        return True
    return False


def _wait_for_next(router: str, kind: Daemon) -> None:
    deadline = time.monotonic() + daemon.PATIENCE
    with sandbox.inside(router):
        while not daemon.answers(kind) and time.monotonic() < deadline:
            time.sleep(daemon.PAUSE)


async def find(number: int, row: str) -> Found:
    """Ask the daemon of one row, and ask it once more after it has started anew."""
    scene = build.internet_scene(f"asking{number}", BEHAVIOURS[row], PUBLIC, stranger=False, neighbours=False)
    plan = internet.Plan(tuple(scene.sites), (), Path(0.005), number, True, str(log_of(scene)))
    [(router, kind)] = scene.daemons
    async with standing(scene, plan, []):
        found = Found(await asyncio.to_thread(ask, scene, kind))
        found.reached = await asyncio.to_thread(reached, scene, found.answers)
        await shell(["sh", "-e"], daemon.forget(router))
        await asyncio.to_thread(_wait_for_next, router, kind)
        found.reached_anew = await asyncio.to_thread(reached, scene, {})
    return found


async def find_all() -> dict[str, Found]:
    """Ask all of them, some at a time."""
    limit = asyncio.Semaphore(JOBS)

    async def one(number: int) -> Found:
        async with limit:
            return await find(number, ROWS[number])

    return dict(zip(ROWS, await asyncio.gather(*map(one, range(len(ROWS)))), strict=True))


if __name__ == "__main__":
    sandbox.die_with_parent()
    sandbox.enter()
    print(json.dumps({row: asdict(found) for row, found in asyncio.run(find_all()).items()}, indent=1))
