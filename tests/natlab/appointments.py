"""Two sides that have met, each behind a router, with coturn in the Internet.

    +------+        +--------+                    +--------+        +-------+
    | left |--------| router |===( internet )=====| router |--------| right |
    +------+        +--------+         |          +--------+        +-------+
                              +--------+---------+
                              |    turnserver    |
                              | 198.51.100.30, 31|
                              +------------------+

`python -m tests.natlab.appointments [--runs N] [NAME...]` keeps appointments, all or those of these
names, and prints one JSON object: name -> what came out of each run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from punchtunnel.punching.appointed import Plan

from . import build, ends, internet, sandbox
from .appointee import Order
from .clinic import turnserver
from .packetlog import DELIVERED, PacketLog
from .run import log_of, standing
from .topology import BEHAVIOURS, Behaviour
from .wire import Path

SERVERS = "198.51.100.30", "198.51.100.31"
# Seconds after which a side hangs.
HUNG = 90.0
# What a side says that dies.
_DIED = '{"failed": "it died"}'
# Mostly waiting.
JOBS = 4

SAME_FOR_EACH, BLOCK_1008 = BEHAVIOURS["same port for each"], BEHAVIOURS["port block of 1008"]
_DROP, _RESET = BEHAVIOURS["drop"], BEHAVIOURS["reset"]


@dataclass(frozen=True, slots=True)
class Row:
    """One pair: what each side is behind, and what they try."""

    name: str
    left: Behaviour
    right: Behaviour
    plan: Plan = Plan.GUESS
    birthday: int = 0
    # Whether the right one can ask a STUN server.
    right_asks: bool = True


ROWS = (
    Row("same for each x drop", SAME_FOR_EACH, _DROP, Plan.DIRECT),
    Row("same for each x reset", SAME_FOR_EACH, _RESET, Plan.DIRECT),
    Row("same for each x same for each", SAME_FOR_EACH, SAME_FOR_EACH, Plan.DIRECT),
    Row("same for each x drop that asks nobody", SAME_FOR_EACH, _DROP, Plan.DIRECT, right_asks=False),
    Row("drop x reset", _DROP, _RESET, Plan.DIRECT),
    Row("sequential x drop", BEHAVIOURS["sequential ports"], _DROP),
    Row("sequential x reset", BEHAVIOURS["sequential ports"], _RESET),
    Row("sequential x drop that asks nobody", BEHAVIOURS["sequential ports"], _DROP, right_asks=False),
    Row("sequential x same for each", BEHAVIOURS["sequential ports"], SAME_FOR_EACH),
    Row("block of 512 x drop", BEHAVIOURS["port block"], _DROP),
    Row("block of 1008 x drop", BLOCK_1008, _DROP),
    Row("block of 1008 x reset", BLOCK_1008, _RESET),
    Row("random x drop", BEHAVIOURS["random"], _DROP),
    Row("random reset x reset", BEHAVIOURS["random reset"], _RESET),
    Row("random x drop, by many", BEHAVIOURS["random"], _DROP, birthday=512),
)
NAMES = {row.name: row for row in ROWS}


async def keep(row: Row, run: int, number: int) -> dict[str, Any]:
    """Let two sides keep one appointment; return what each reports, and the packets between them."""
    scene = build.internet_scene(f"appt{number}", row.left, row.right, stranger=True, neighbours=False)
    server = scene.hosts["stranger"].namespace
    scene.configure(server, f"ip addr add {SERVERS[1]}/32 dev {internet.DEVICE}")
    plan = internet.Plan(tuple(scene.sites), (), Path(0.02), run, True, str(log_of(scene)))
    channel = f"appointment {row.name} {run}"
    orders = {
        "left": Order(SERVERS, row.plan.value, channel, row.birthday),
        "right": Order(SERVERS if row.right_asks else (), row.plan.value, channel, row.birthday),
    }
    if not row.right_asks:
        orders["right"] = Order((), row.plan.value, channel, row.birthday, hosts=(scene.hosts["right"].dial4,))
    async with standing(scene, plan, []), turnserver(server, scene.prefix, SERVERS):
        sides = [await _start(scene.hosts[side].namespace, order) for side, order in orders.items()]
        try:
            said = await asyncio.wait_for(_hand_over(sides), HUNG)
        finally:
            for side in sides:
                if side.returncode is None:
                    side.kill()
                await side.wait()
    log = PacketLog.load(log_of(scene))
    log_of(scene).unlink()
    found = dict(zip(orders, said, strict=True))
    return {**found, "packets": _packets(log)}


def _packets(log: PacketLog) -> dict[str, dict[str, int]]:
    """Count for each side what it has sent to the other one."""
    counts = {}
    for side, other in (("left", "right"), ("right", "left")):
        sent = [one for one in log.records if one.origin == side and one.towards == other]
        syns = [one for one in sent if one.is_bare_syn]
        counts[side] = {
            "packets": len(sent),
            "expired": sum("ttl ran out" in one.fate for one in sent),
            "SYNs": len(syns),
            "SYNs that arrived": sum(one.fate == DELIVERED for one in syns),
            "from ports": len({one.source_port for one in syns}),
            "to ports": len({one.target_port for one in syns}),
        }
    return counts


async def _start(namespace: str, order: Order) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    command = ends.in_namespace(namespace, [sys.executable, "-m", "tests.natlab.appointee"])
    side = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, env=ends.environment(), cwd=ends.ROOT
    )
    assert side.stdin is not None
    side.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
    return side


async def _hand_over(sides: Sequence[asyncio.subprocess.Process]) -> list[Any]:
    """Give each side the other's offer; return what they report."""
    offers = [await _line(side) for side in sides]
    for side, offer in zip(sides, reversed(offers), strict=True):
        assert side.stdin is not None
        side.stdin.write(offer)
    reports = [json.loads(await _line(side) or _DIED) for side in sides]
    for side in sides:
        await side.wait()
    return reports


async def _line(side: asyncio.subprocess.Process) -> bytes:
    assert side.stdout is not None
    return await side.stdout.readline()


async def keep_all(rows: Sequence[Row], runs: int) -> dict[str, list[dict[str, Any]]]:
    """Keep all appointments, some at a time."""
    limit = asyncio.Semaphore(JOBS)

    async def one(number: int) -> dict[str, Any]:
        async with limit:
            row = rows[number % len(rows)]
            found = await keep(row, number // len(rows), number)
            print(row.name, [found[side]["failed"] or "met" for side in ("left", "right")], file=sys.stderr)
            return found

    found = await asyncio.gather(*map(one, range(len(rows) * runs)))
    return {row.name: found[index :: len(rows)] for index, row in enumerate(rows)}


def main() -> None:
    """Be the program."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--tied", action="store_true")
    options = parser.parse_args()
    if options.tied:
        sandbox.die_with_parent()
    sandbox.enter()
    rows = [NAMES[name] for name in options.names] or ROWS
    print(json.dumps(asyncio.run(keep_all(rows, options.runs)), indent=1))


if __name__ == "__main__":
    main()
