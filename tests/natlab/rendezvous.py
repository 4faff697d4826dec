"""Meets at the relay of the laboratory by hand, without the tool.

    left host ── router ── internet ── router ── right host
                              |
                          relay, STUN

`python -m tests.natlab.rendezvous` prints one JSON object: what came out (Found).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from dataclasses import asdict, dataclass, field

from punchtunnel.reach import stun

from . import build, internet, relay, sandbox
from .run import log_of, standing
from .topology import BEHAVIOURS
from .wire import Path

# Seconds after which something hangs.
HUNG = 20.0
# struct linger {1, 0}: close() sends RST.
LINGER_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"
# Behind the first one, a STUN server sees one port for each that is dialled from.
ROWS = ("same port for each", "drop")
FAMILIES = {4: relay.RELAY4, 6: relay.RELAY6}


@dataclass(slots=True)
class Found:
    """What came out."""

    # What the right side, by the IP version of the key, was sent by the left one, by IPv4.
    met: dict[str, str] = field(default_factory=dict)
    # Where the STUN server sees the hosts: the left one twice from one port.
    seen: list[str] = field(default_factory=list)
    # The same as `met`, while the relay is kept away, and after that.
    away: str = ""
    back: str = ""


def _ask(host: str, scene: build.Scene, version: int, side: str, port: int) -> socket.socket:
    with sandbox.inside(scene.hosts[host].namespace):
        sock = socket.create_connection((FAMILIES[version], port), HUNG)
    sock.sendall(f"please relay {'a' * 64} for side {side * 16}\n".encode())
    return sock


def meet(scene: build.Scene, version: int, port: int = relay.RELAY_PORT, other: int = relay.RELAY_PORT) -> str:
    """Return what comes by the relay from the left, by IPv4, to the right; each names a port of the relay."""
    # The NAT in userspace has no IPv6.
    with _ask("left", scene, 4, "1", port) as left, _ask("right", scene, version, "2", other) as right:
        met = left.recv(3) + right.recv(3)
        left.sendall(b"hello")
        return (met + right.recv(5)).decode()


def see(scene: build.Scene, host: str, port: int, server: str) -> str:
    """Return where the STUN server sees a connection from a port."""
    with sandbox.inside(scene.hosts[host].namespace):
        sock = socket.create_connection((server, relay.STUN_PORT), HUNG, source_address=("", port))
    with sock:
        # No TIME_WAIT: the port is dialled from once more.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
        sock.sendall(stun.request(transaction := os.urandom(stun.TRANSACTION_SIZE)))
        answer, data = None, b""
        while answer is None and (more := sock.recv(4096)):
            data += more
            answer = stun.read_answer(data, transaction)
    return str(answer and answer.seen)


async def _until_met(scene: build.Scene) -> str:
    """Return what comes by the relay once it is there."""
    async with asyncio.timeout(HUNG):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                return await asyncio.to_thread(meet, scene, 4)
            await asyncio.sleep(relay.PAUSE)


async def find() -> Found:
    """Try all of it."""
    left, right = (BEHAVIOURS[row] for row in ROWS)
    scene = build.internet_scene("rendezvous", left, right, stranger=False, neighbours=False)
    build.add_relay(scene)
    plan = internet.Plan(tuple(scene.sites), (), Path(0.005), 0, True, str(log_of(scene)))
    found = Found()
    async with standing(scene, plan, []):
        for version in FAMILIES:
            found.met[str(version)] = await asyncio.to_thread(meet, scene, version)
        for host in ("left", "left", "right"):
            found.seen.append(await asyncio.to_thread(see, scene, host, 20000, relay.RELAY4))
        files = relay.directory_of(scene.relay)
        relay.keep_away(files)
        try:
            found.away = await asyncio.to_thread(meet, scene, 4)
        except ConnectionRefusedError:
            found.away = "refused"
        relay.let_back(files)
        found.back = await _until_met(scene)
    return found


if __name__ == "__main__":
    sandbox.die_with_parent()
    sandbox.enter()
    print(json.dumps(asdict(asyncio.run(find())), indent=1))
