"""The life of a mapping: who has a router forward a port, for how long, and what is left of it, in the daemon's table.

    +------+  asks   +--------+                  +-------+
    | left |---------| router |===( internet )===| right |
    +------+         +--------+                  +-------+
                         ▲ what the laboratory looks at: the rules that the daemon has made

`python -m tests.natlab.lives NAME...` plays the stories of these names, and
prints one JSON object: name -> what was seen.  Without a name it lists them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from . import build, ends, internet, sandbox
from .home import LIMIT_S, PATIENCE, PAUSE, WAIT_S, End, Home
from .incidents import Kind
from .run import log_of, shell, standing
from .subjects import TOOL, Call
from .topology import BEHAVIOURS
from .wire import Path

Seen = dict[str, object]

# Seconds for a peer that does not come.
SHORT_WAIT_S = 2.0
JOBS = 3
SERVED_PORT = 8080
# 4 MB of 64 KiB each way.
MANY_PIECES = 64

# A program of somebody's, which ends after its peer has said everything.
PROGRAM = """\
import asyncio
import sys

import punchtunnel

async def main() -> None:
    maps = sys.argv[2] == "maps"
    reader, writer = await punchtunnel.connect(sys.argv[1], channel="lab", no_secret=True, map_ports=maps)
    print('{"event": "link_up"}', file=sys.stderr, flush=True)
    await reader.read()
    if sys.argv[3] == "closes":
        writer.close()
        await writer.wait_closed()

asyncio.run(main())
"""


async def _waiting(home: Home, wait_s: float = WAIT_S) -> End:
    """Return the left end, which waits for a peer that is not there, after the router has mapped a port."""
    left = home.begin("left", wait_s=wait_s)
    await left.says("port_mapped")
    return left


async def _linked(home: Home) -> tuple[End, End]:
    """Return both ends of a session through a mapping."""
    left = await _waiting(home)
    right = home.begin("right")
    await asyncio.gather(left.says("link_up"), right.says("link_up"))
    return left, right


async def _end_of(home: Home, end: End, began_s: float, **more: object) -> Seen:
    """Return what there is to see of the end of a process whose end began then."""
    outcome = await end.outcome
    return {"status": outcome.status, "seconds": outcome.ended_s - began_s, "gone": await home.has_none(), **more}


def _same(one: ends.Outcome, other: ends.Outcome) -> bool:
    digests = [hashlib.sha256(data).digest() for data in (one.sent, other.received, other.sent, one.received)]
    return digests[0] == digests[1] and digests[2] == digests[3]


# ---- the end of a run


async def signal_while_waiting(home: Home, number: signal.Signals) -> Seen:
    """A signal ends a run that waits for its peer."""
    left = await _waiting(home)
    mapped = await home.forwarded()
    return await _end_of(home, left, left.signal(number), mapped=len(mapped))


async def kill(home: Home) -> Seen:
    """Nobody takes back what the killed had mapped, but it ends by itself."""
    left = await _waiting(home)
    left.signal(signal.SIGKILL)
    await left.outcome
    return {"seconds left": await home.seconds_left()}


async def no_peer(home: Home) -> Seen:
    """The time to wait runs out."""
    left = await _waiting(home, SHORT_WAIT_S)
    return await _end_of(home, left, time.time(), mapped=len(await home.forwarded()))


async def signal_in_session(home: Home, number: signal.Signals) -> Seen:
    """A signal ends a session that has come through a mapping."""
    left, _right = await _linked(home)
    mapped = await home.forwarded()
    return await _end_of(home, left, left.signal(number), mapped=len(mapped))


async def end_in_order(home: Home) -> Seen:
    """Both sides have said everything."""
    left, right = await _linked(home)
    mapped = await home.forwarded()
    began_s = time.time()
    _, other = await asyncio.gather(left.finish(), right.finish())
    return await _end_of(home, left, began_s, mapped=len(mapped), other=other.status)


async def end_of_the_peer(home: Home) -> Seen:
    """The peer is ended by a signal."""
    left, right = await _linked(home)
    mapped = await home.forwarded()
    return await _end_of(home, left, right.signal(signal.SIGTERM), mapped=len(mapped))


async def without_daemon(home: Home, *, killed: bool) -> Seen:
    """The daemon is of no help any more when a run ends."""
    left = await _waiting(home)
    async with home.without_daemon(killed=killed):
        began_s = left.signal(signal.SIGTERM)
        outcome = await left.outcome
    return {"status": outcome.status, "seconds": outcome.ended_s - began_s, "words": outcome.words}


# ---- while it lasts


async def through_it(home: Home) -> Seen:
    """A hole that has come through a mapping keeps it."""
    left = home.begin("left", pieces=MANY_PIECES, fast=True)
    await left.says("port_mapped")
    right = home.begin("right", pieces=MANY_PIECES, fast=True)
    await asyncio.gather(left.says("link_up"), right.says("link_up"))
    async with asyncio.timeout(LIMIT_S):
        outcomes = await asyncio.gather(left.live.gets(0.0), _see_to_the_end(home, left), left.outcome, right.outcome)
    _, seen, one, other = outcomes
    return {"seen": seen, "same": _same(one, other), "bytes": len(one.received), "gone": await home.has_none()}


async def _see_to_the_end(home: Home, end: End) -> list[int]:
    """Return how many ports were forwarded at each look between the link's beginning and its end."""
    seen = []
    while not any(one.get("event") == "link_ended" for one in end.live.events):
        found = len(await home.forwarded())
        if not any(one.get("event") == "link_ended" for one in end.live.events):
            seen.append(found)
        await asyncio.sleep(PAUSE)
    return seen


async def not_through_it(home: Home) -> Seen:
    """A hole that has opened otherwise gives the mapping back, while the session goes on."""
    # All that the right side can do is wait to be dialled.
    await shell(ends.in_namespace(home.right.namespace, ["sh", "-e"]), build.forbid("output", build.BARE_SYN))
    left = await _waiting(home)
    mapped = await home.forwarded()
    right = home.begin("right")
    await asyncio.gather(left.says("link_up"), right.says("link_up"))
    gone, running = await home.has_none(), not left.outcome.done()
    one, other = await asyncio.gather(left.finish(), right.finish())
    return {"mapped": len(mapped), "gone": gone and running, "statuses": [one.status, other.status]}


async def resumed(home: Home, *, forgotten: bool) -> Seen:
    """A session that has come through a mapping loses its hole, and goes on by another one."""
    left, right = await _linked(home)
    if forgotten:
        await home.forget()
    async with home.meanwhile(Kind.CUT):
        await asyncio.gather(left.says("lost"), right.says("lost"))
        if forgotten:
            # What the kernel knows of the first hole would let the second one in.
            async with home.meanwhile(Kind.FLUSH):
                pass
    await asyncio.gather(left.says("resumed"), right.says("resumed"))
    came_s = time.time()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(left.live.gets(came_s), right.live.gets(came_s))
    # What is taken back is gone after that, if not before.
    await asyncio.sleep(1)
    mapped = await home.forwarded()
    one, other = await asyncio.gather(left.finish(), right.finish())
    return {"mapped": len(mapped), "same": _same(one, other), "gone": await home.has_none()}


async def service(home: Home) -> Seen:
    """A service keeps its mapping between two peers."""
    with sandbox.inside(home.left.namespace):
        listener = socket.create_server(("127.0.0.1", SERVED_PORT))

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read())
        writer.close()

    async with await asyncio.start_server(echo, sock=listener):
        left = home.begin("left", "--to", f"127.0.0.1:{SERVED_PORT}", "-k", "--no-secret")
        await left.says("port_mapped")
        echoed, between, since = [], [], 0
        for _ in range(2):
            peer = await home.begin("right", pieces=1).outcome
            echoed.append(peer.status == 0 and bool(peer.sent) and peer.sent == peer.received)
            await left.says("session_over", since)
            since = len(left.live.events)
            between.append(len(await home.forwarded()))
        return await _end_of(home, left, left.signal(signal.SIGTERM), echoed=echoed, between=between)


# ---- who is not asked at all


async def no_map(home: Home) -> Seen:
    """Nobody asks with --no-map, and others do."""
    one = await home.begin("left", "--no-map", wait_s=SHORT_WAIT_S).outcome
    unasked = await home.datagrams(home.left)
    other = await home.begin("left", wait_s=SHORT_WAIT_S).outcome
    return {"statuses": [one.status, other.status], "datagrams": [unasked, await home.datagrams(home.left)]}


async def same_machine(home: Home) -> Seen:
    """Two processes behind a router meet on their machine; the second comes late."""
    one = home.begin("left", peer="127.0.0.1", pieces=1)
    await one.says("waiting")
    await asyncio.sleep(1)
    other = home.begin("left", peer="127.0.0.1", pieces=1)
    outcomes = await asyncio.gather(one.outcome, other.outcome)
    return {"statuses": [one.status for one in outcomes], "datagrams": await home.datagrams(home.left)}


async def same_network(home: Home) -> Seen:
    """Two hosts of a LAN meet there; the second comes late."""
    other = home.scene.hosts["left neighbour"]
    one = home.begin("left", peer=other.dial4, pieces=1)
    await one.says("waiting")
    await asyncio.sleep(1)
    call = Call(other.dial4, ("192.168.1.2",), "lab", 0.0, WAIT_S)
    outcomes = await asyncio.gather(one.outcome, home.run(other, TOOL.command(call), pieces=1).outcome)
    return {"statuses": [one.status for one in outcomes], "datagrams": await home.datagrams(home.left)}


async def program(home: Home, *, maps: bool, closes: bool) -> Seen:
    """A Python program with the library, until its end."""
    command = [sys.executable, "-c", PROGRAM, home.right.dial4, "maps" if maps else "", "closes" if closes else ""]
    left = home.run(home.left, command)
    # Without it, in far more time than it takes to ask.
    await (home.has_some() if maps else asyncio.sleep(2))
    right = home.begin("right")
    await asyncio.gather(left.says("link_up"), right.says("link_up"))
    mapped, began_s = await home.forwarded(), time.time()
    right.live.sated.set()
    outcome = await left.outcome
    datagrams = await home.datagrams(home.left)
    return await _end_of(home, left, began_s, mapped=len(mapped), datagrams=datagrams, words=outcome.words)


async def program_interrupted(home: Home) -> Seen:
    """The same, which is ended by Ctrl-C while it waits for its peer."""
    left = home.run(home.left, [sys.executable, "-c", PROGRAM, home.right.dial4, "maps", ""])
    mapped = await home.has_some()
    return await _end_of(home, left, left.signal(signal.SIGINT), mapped=int(mapped))


# ---- all of them


@dataclass(frozen=True, slots=True)
class Story:
    """What is played, and behind which routers; `short`: by `make test`, too."""

    play: Callable[[Home], Awaitable[Seen]]
    left: str = "mapper"
    right: str = "random"
    short: bool = False


_WAITS = {number: partial(signal_while_waiting, number=number) for number in (signal.SIGINT, signal.SIGTERM)}
_ENDED = partial(signal_in_session, number=signal.SIGTERM)
_RESUMED, _FORGOTTEN = partial(resumed, forgotten=False), partial(resumed, forgotten=True)
UPNP, NATPMP, PCP = "mapper, UPnP", "mapper, NAT-PMP", "mapper, PCP"
STORIES = {
    "SIGINT while waiting": Story(_WAITS[signal.SIGINT]),
    "SIGTERM while waiting": Story(_WAITS[signal.SIGTERM], short=True),
    "SIGTERM while waiting, UPnP": Story(_WAITS[signal.SIGTERM], UPNP),
    "SIGTERM while waiting, NAT-PMP": Story(_WAITS[signal.SIGTERM], NATPMP),
    "SIGTERM while waiting, PCP": Story(_WAITS[signal.SIGTERM], PCP),
    "SIGTERM in a session": Story(_ENDED),
    "SIGTERM in a session, UPnP": Story(_ENDED, UPNP),
    "no peer comes": Story(no_peer),
    "the end of both": Story(end_in_order),
    "the end of the peer": Story(end_of_the_peer),
    "kill -9": Story(kill),
    "the daemon is gone": Story(partial(without_daemon, killed=True), UPNP),
    "the daemon stands still": Story(partial(without_daemon, killed=False), UPNP),
    "through it": Story(through_it),
    "not through it": Story(not_through_it, right="public"),
    "not through it, UPnP": Story(not_through_it, UPNP, "public"),
    "resumed": Story(_RESUMED, short=True),
    "resumed, UPnP": Story(_RESUMED, UPNP),
    "resumed, NAT-PMP": Story(_RESUMED, NATPMP),
    "resumed, PCP": Story(_RESUMED, PCP),
    "forgotten, and resumed": Story(_FORGOTTEN),
    "forgotten, and resumed, UPnP": Story(_FORGOTTEN, UPNP),
    "a service": Story(service),
    "a service, UPnP": Story(service, UPNP),
    "--no-map": Story(no_map, right="drop"),
    "one machine": Story(same_machine),
    "one network": Story(same_network),
    "a program that closes": Story(partial(program, maps=True, closes=True)),
    "a program that just ends": Story(partial(program, maps=True, closes=False)),
    "a program that is interrupted": Story(program_interrupted),
    "a program that is interrupted, UPnP": Story(program_interrupted, UPNP),
    "a program that maps nothing": Story(partial(program, maps=False, closes=True), right="public"),
}


async def play(name: str) -> Seen:
    """Play one story."""
    story, number = STORIES[name], list(STORIES).index(name)
    scene = build.internet_scene(
        f"life{number}", BEHAVIOURS[story.left], BEHAVIOURS[story.right], stranger=False,
        neighbours=name == "one network",
    )  # fmt: skip
    if name == "one network":
        # The two cables of the LAN are one for its hosts.
        for host, other in (("left", "192.168.1.3"), ("left neighbour", "192.168.1.2")):
            scene.configure(scene.hosts[host].namespace, f"ip route add {other} dev eth0")
        lans = ("lan1", "lan2")
        scene.configure(scene.daemons[0][0], *(f"echo 1 > /proc/sys/net/ipv4/conf/{lan}/proxy_arp" for lan in lans))
    plan = internet.Plan(tuple(scene.sites), (), Path(0.005), number, True, str(log_of(scene)))
    async with standing(scene, plan, []):
        home = Home(scene)
        try:
            return await story.play(home)
        finally:
            await home.close()


async def play_all(names: Sequence[str]) -> dict[str, Seen]:
    """Play these, some at a time; what breaks is told instead."""
    limit = asyncio.Semaphore(JOBS)

    async def one(name: str) -> Seen:
        async with limit:
            try:
                return await play(name)
            except Exception as error:
                return {"broken": repr(error)}

    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


if __name__ == "__main__":
    wanted = [one for one in sys.argv[1:] if one != "--tied"]
    if not wanted:
        raise SystemExit("\n".join(STORIES))
    sandbox.die_with_parent()
    sandbox.enter()
    print(json.dumps(asyncio.run(play_all(wanted)), indent=1))
