"""One run of one cell: set the scene, let both ends play, judge, clear away.

    scene      build.py's text -> namespaces, the internet process, rules
    ends       two (or one, or four) child processes, started by the cell's clock
    verdict    judge.py: exit statuses, hashes, events, packet log -> a Result

Setting a scene takes about 0.2 s, so every run gets a new one: no mapping, no
TIME_WAIT and no neighbour entry of the last run can help or hurt the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path as FilePath

from punchtunnel.protocol import schedule

from . import build, daemon, ends, figures, internet, relay, sandbox, uplinks
from .cells import NAME, NOBODY, Cell, Extra, Layout
from .drama import Drama
from .incidents import Kind
from .judge import Result, judge
from .packetlog import PacketLog
from .relay import RELAY4, RELAY6
from .relay_cells import RELAY_NAME
from .subjects import Call, Subject
from .topology import BEHAVIOURS

# Bytes each way: the contract of a success, and just what a pipe holds.
PAYLOAD = 65536
# An end that is still there this long after its deadline will never end.
GRACE = 15.0
BUSY_SHARE = 0.3

_numbers = itertools.count(1)


class SceneError(Exception):
    """A namespace, a rule or an extra could not be set up: a bug here, or a machine at its limits."""


@dataclass(slots=True)
class Stage:
    """A scene that stands: what the ends need to know of it."""

    scene: build.Scene
    log_file: FilePath


async def run_once(cell: Cell, subject: Subject, run: int, logs: FilePath | None = None) -> Result:
    """Play one run of `cell`; `logs` is a directory for what the ends said and the packet log."""
    prefix = f"run{next(_numbers)}"
    if cell.extra is Extra.NO_FIXED_PORTS:
        cell = replace(cell, channels=(_without_common_ports(cell, time.time()),))
    plays: list[list[ends.Outcome]] = []
    try:
        async with stage_of(cell, run, prefix) as stage:
            for _ in range(cell.repeats):
                plays.append(await play(cell, subject, run, stage.scene))
            syns = await _count(cell, stage.scene, build.SYN_COUNTER)
            datagrams = await _count(cell, stage.scene, build.UDP_COUNTER)
    except SceneError as error:
        # One scene that could not be set must not end a matrix of an hour.
        return Result(cell.title, subject.name, run, False, f"the laboratory broke: {error}", None, (0, 0), (0, 0))
    log = PacketLog()
    if stage.log_file.exists():
        log = PacketLog.load(stage.log_file)
        stage.log_file.unlink()
    result = judge(cell, subject, run, plays, log, syns, datagrams)
    result.measured |= figures.measured(plays[0][:2])
    if logs is not None:
        _save_evidence(logs, result, plays, log)
    return result


@contextlib.asynccontextmanager
async def stage_of(cell: Cell, run: int, prefix: str) -> AsyncIterator[Stage]:
    """Set the scene of a cell, and clear it away."""
    scene = _scene(cell, prefix)
    paths = (("left", "right", cell.path), ("right", "left", cell.back or cell.path))
    plan = internet.Plan(tuple(scene.sites), paths, cell.path, run, cell.answers_expired, str(log_of(scene)))
    async with standing(scene, plan, _actors(cell, scene)):
        yield Stage(scene, log_of(scene))


def log_of(scene: build.Scene) -> FilePath:
    """Return where the packet log of a scene is written."""
    return sandbox.SCRATCH / f"{scene.prefix}.log"


@contextlib.asynccontextmanager
async def standing(
    scene: build.Scene, plan: internet.Plan, actors: Sequence[tuple[str, list[str]]]
) -> AsyncIterator[None]:
    """Set a scene, and clear it away; an actor is a namespace and its arguments."""
    if scene.daemons and (lacks := daemon.missing()):
        raise SceneError(lacks)
    if scene.relay and (lacks := relay.missing()):
        raise SceneError(lacks)
    children: list[asyncio.subprocess.Process] = []
    try:
        await shell(["ip", "-batch", "-"], "\n".join(scene.links))
        for space, lines in scene.names.items():
            sandbox.names_in(space).write_text(lines)
        if scene.sites:
            command = [sys.executable, "-m", "tests.natlab.internet"]
            children.append(await _child(command, plan.to_json() + "\n"))
        scripts = scene.scripts.items()
        await asyncio.gather(*(shell(ends.in_namespace(space, ["sh", "-e"]), text) for space, text in scripts))
        for space, kind in scene.daemons:
            command = [sys.executable, "-m", "tests.natlab.daemon", kind, str(daemon.directory_of(space))]
            children.append(await _child(ends.in_namespace(space, command)))
        if scene.relay:
            files = str(relay.directory_of(scene.relay))
            command = [sys.executable, "-m", "tests.natlab.relay", files, *scene.stuns]
            children.append(await _child(ends.in_namespace(scene.relay, command)))
        for namespace, arguments in actors:
            command = [sys.executable, "-m", "tests.natlab.actors", *arguments]
            children.append(await _child(ends.in_namespace(namespace, command)))
        yield
    finally:
        for child in reversed(children):
            await _end(child)
        for space in scene.names:
            sandbox.names_in(space).unlink(missing_ok=True)
        for space, _kind in scene.daemons:
            shutil.rmtree(daemon.directory_of(space), ignore_errors=True)
        if scene.relay:
            shutil.rmtree(relay.directory_of(scene.relay), ignore_errors=True)
        await shell(["ip", "-force", "-batch", "-"], "\n".join(f"netns del {one}" for one in scene.namespaces))


def _scene(cell: Cell, prefix: str) -> build.Scene:
    match cell.layout:
        case Layout.LAN:
            return build.lan_scene(prefix)
        case Layout.ROUTER:
            return build.router_scene(prefix, BEHAVIOURS[cell.left])
        case Layout.LOOPBACK | Layout.OWN_ADDRESS:
            return build.host_scene(prefix, loopback=cell.layout is Layout.LOOPBACK)
        case Layout.INTERNET:
            scene = build.internet_scene(
                prefix, BEHAVIOURS[cell.left], BEHAVIOURS[cell.right],
                stranger=cell.extra in (Extra.SCANNER, Extra.REFUSER, Extra.ACCEPTER),
                neighbours=cell.extra in (Extra.NEIGHBOUR, Extra.PORT_TAKEN, Extra.PORTS_TAKEN),
            )  # fmt: skip
            if cell.relay:
                build.add_relay(scene, second4=relay.SECOND4 if cell.two_stuns else "")
            if cell.peer == NAME:
                scene.names[scene.hosts["left"].namespace] = f"{scene.hosts['right'].dial4} {NAME}\n"
            if cell.extra in (Extra.REFUSER, Extra.ACCEPTER):
                build.add_addresses(scene, "stranger", cell.decoys, accepts=cell.extra is Extra.ACCEPTER)
            if cell.extra is Extra.PRIVACY:
                left = scene.hosts["left"]
                scene.configure(left.namespace, *build.hide_behind_temporary_addresses(left.dial6))
            if cell.extra is Extra.VPN:
                scene.configure(scene.hosts["left"].namespace, *build.route_through_vpn())
            if cell.extra in (Extra.UPLINKS, Extra.DEAD_UPLINK):
                uplinks.add_uplink(scene, BEHAVIOURS[cell.left])
            if cell.extra is Extra.DEAD_UPLINK:
                uplinks.kill_uplink(scene)
            if cell.extra is Extra.INTERFACES:
                uplinks.add_interface(scene)
            if cell.extra is Extra.DARK6:
                uplinks.kill_uplink(scene, "ip6")
            if cell.extra is Extra.UNSCALED:
                scene.configure(scene.hosts["left"].namespace, build.scale_no_windows())
            if cell.extra is Extra.FORBIDDEN:
                scene.configure(scene.hosts["left"].namespace, build.forbid("output"))
            if cell.extra is Extra.NO_ROUTE:
                scene.configure(scene.hosts["left"].namespace, "ip route del default", "ip -6 route del default")
            if cell.extra is Extra.ONLY_IPV6:
                scene.configure(scene.hosts["left"].namespace, *build.without_ipv4("eth0"))
            if cell.extra is Extra.ONE_FAMILY_EACH:
                scene.configure(scene.hosts["left"].namespace, *build.without_ipv4("eth0"))
                scene.configure(scene.hosts["right"].namespace, *build.without_ipv6("eth0"))
                for side in ("left", "right"):
                    scene.names[scene.hosts[side].namespace] = f"{RELAY4} {RELAY_NAME}\n{RELAY6} {RELAY_NAME}\n"
            if cell.extra is Extra.LOST_ROUTE:
                scene.configure(scene.hosts["left"].namespace, build.lose_route())
            return scene


def _actors(cell: Cell, scene: build.Scene) -> list[tuple[str, list[str]]]:
    """Return the extras: where each runs, and its arguments."""
    actors = [(space, ["service", str(build.SERVICE_PORT), "SSH-2.0-stranger"]) for space in scene.services]
    if cell.extra is Extra.SCANNER:
        actors.append((scene.hosts["stranger"].namespace, ["scanner", scene.hosts["left"].dial4]))
    fixed = schedule.bucket_ports(cell.channels[0], schedule.CLOCK_FREE, schedule.CLOCK_FREE_PORTS)
    if cell.extra is Extra.MISFIT:
        ports = fixed[: schedule.LISTENERS_PER_BUCKET]
        arguments = ["misfit", scene.hosts["left"].dial4, cell.channels[0], *map(str, ports)]
        actors.append((scene.hosts["right"].namespace, arguments))
    if cell.extra is Extra.CALLER:
        # The first of them are listened on (punching/listeners.py).
        ports = fixed[: schedule.LISTENERS_PER_BUCKET]
        actors.append((scene.hosts["right"].namespace, ["caller", scene.hosts["left"].dial4, *map(str, ports)]))
    if cell.extra in (Extra.PORT_TAKEN, Extra.PORTS_TAKEN):
        taken = fixed[:1] if cell.extra is Extra.PORT_TAKEN else fixed
        actors.append((scene.hosts["left neighbour"].namespace, ["map", daemon.GATEWAY, *map(str, taken)]))
    if cell.extra is Extra.NO_FIXED_PORTS:
        actors.append((scene.hosts["right"].namespace, ["take", *map(str, fixed)]))
    if cell.extra is Extra.BUSY_PORTS:
        actors += [(scene.hosts[side].namespace, ["hog", str(BUSY_SHARE)]) for side in ("left", "right")]
    return actors


def _without_common_ports(cell: Cell, now: float) -> str:
    """Return a channel of which the two clocks share no port by chance, as one in sixty does."""
    for number in itertools.count():
        channel = f"lab {number}"
        sides = []
        for offset in cell.clocks:
            first = schedule.first_bucket(now + offset) - 1
            buckets = range(first, first + 5)
            sides.append(
                {
                    port
                    for bucket in buckets
                    for port in schedule.bucket_ports(channel, bucket, schedule.PORTS_PER_BUCKET)
                }
            )
        if sides[0].isdisjoint(sides[1]):
            return channel
    raise AssertionError


async def shell(command: Sequence[str], text: str) -> None:
    """Run a command with `text` as its input; whatever it complains about is a bug of the laboratory."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _out, said = await process.communicate(text.encode())
    if process.returncode:
        raise SceneError(f"{' '.join(command)}: {said.decode()}\n{text}")


async def _child(command: Sequence[str], text: str = "") -> asyncio.subprocess.Process:
    """Start a child that says "ready" and ends at the end of its input; wait for the former."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, env=ends.environment(), cwd=ends.ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(text.encode())
    if await process.stdout.readline() != b"ready\n":
        await process.wait()
        raise SceneError(f"{' '.join(command)} did not get ready")
    return process


async def _end(child: asyncio.subprocess.Process) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        await asyncio.wait_for(child.wait(), GRACE)
    except TimeoutError:
        child.kill()
        await child.wait()


async def play(cell: Cell, subject: Subject, run: int, scene: build.Scene) -> list[ends.Outcome]:
    """Start all ends by the cell's clock; return left and right of each channel in turn."""
    gap = cell.gap(run)
    shift = 0.0 if cell.border_s is None else subject.offset_to_border(time.time(), cell.border_s)
    starts = {"left": max(0.0, -gap), "right": max(0.0, gap)}
    if cell.happens:
        return await _play_drama(cell, subject, starts, scene)
    neighbour: asyncio.Task[ends.Outcome] | None = None
    if cell.extra is Extra.NEIGHBOUR:
        neighbour = asyncio.create_task(_play_neighbour(cell, subject, scene))
        # Its dials must be in the router's table before the first end begins.
        starts = {side: start + 1.0 for side, start in starts.items()}
    ready = []
    for number, channel in enumerate(cell.channels):
        for side in ("left",) if cell.absent else ("left", "right"):
            call = _call(cell, scene, side, channel, shift)
            start = starts[side] + number * cell.channel_gap_s
            ready.append(_play_end(scene.hosts[side].namespace, subject.command(call), start, cell))
    outcomes = await asyncio.gather(*ready)
    if neighbour is not None:
        neighbour.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await neighbour
    return outcomes


def _call(cell: Cell, scene: build.Scene, side: str, channel: str, shift: float) -> Call:
    own, peer = scene.hosts[side], scene.hosts["right" if side == "left" else "left"]
    peers = {4: (peer.dial4,), 6: (peer.dial6,), 46: (peer.dial4, peer.dial6), 64: (peer.dial6, peer.dial4)}[
        cell.family
    ]
    if cell.peer and side == "left":
        peers = (cell.peer,)
    if cell.left_port and side == "right":
        peers = tuple(f"[{one}]:{cell.left_port}" if ":" in one else f"{one}:{cell.left_port}" for one in peers)
    if side == "left":
        peers = (*cell.decoys, *peers)
    if cell.peerless:
        peers = ()
    clock = cell.clocks[side == "right"] + shift
    address = own.dial6 if cell.family == 6 else own.dial4
    secret = cell.secrets[side == "right"]
    extra = cell.options[side == "right"]
    return Call(address, peers, channel, clock, cell.wait_s, cell.role, extra, secret)


async def _play_end(namespace: str, command: list[str], start: float, cell: Cell) -> ends.Outcome:
    await asyncio.sleep(start)
    limit_s = cell.wait_s + cell.lasts_s + GRACE
    return await ends.run_end(namespace, command, os.urandom(PAYLOAD), limit_s, cell.pause_s)


async def _play_drama(cell: Cell, subject: Subject, starts: dict[str, float], scene: build.Scene) -> list[ends.Outcome]:
    """Start both ends, and let happen to them what the cell says."""
    feeder = partial(ends.Live, cell.pause_s or ends.FEED_PAUSE, cell.pieces)
    drama = Drama(scene, shell, cell.happens, feeder, named=cell.peer == NAME)

    async def act(side: str) -> ends.Outcome:
        await asyncio.sleep(starts[side])
        command = subject.command(_call(cell, scene, side, cell.channels[0], 0.0))
        where, limit_s = scene.hosts[side].namespace, cell.wait_s + cell.lasts_s + GRACE
        outcome = await ends.run_end(where, command, b"", limit_s, live=drama.lives[side])
        if side == "right" and drama.restarts:
            await ends.run_end(where, command, b"", cell.wait_s + GRACE)
        outcome.back_s = drama.back_s.get(side)
        return outcome

    happening = asyncio.create_task(drama.play())
    left, right = asyncio.create_task(act("left")), asyncio.create_task(act("right"))
    try:
        if Kind.RESTART in {one.kind for one in cell.happens}:
            # The right end waits for a peer that does not come any more.
            await asyncio.wait({left})
            return [await left]
        return list(await asyncio.gather(left, right))
    finally:
        for task in (happening, left, right):
            task.cancel()
        await asyncio.wait({happening, left, right})
        if not happening.cancelled():
            happening.result()


async def _play_neighbour(cell: Cell, subject: Subject, scene: build.Scene) -> ends.Outcome:
    host = scene.hosts["left neighbour"]
    call = Call(host.dial4, (NOBODY,), cell.channels[0], 0.0, cell.wait_s)
    return await ends.run_end(host.namespace, subject.command(call), b"", cell.wait_s + GRACE)


async def _count(cell: Cell, scene: build.Scene, counter: str) -> tuple[int, int]:
    """Return what left each host of a kind of packets, counted there: also those that a router then dropped, or got."""
    left, right = [await _counter(scene.hosts[side].namespace, counter) for side in ("left", "right")]
    if cell.layout in (Layout.LOOPBACK, Layout.OWN_ADDRESS):
        return left, 0  # one machine, one counter
    return left, right


async def _counter(namespace: str, counter: str) -> int:
    command = ends.in_namespace(namespace, ["nft", "list", "counter", "inet", "count", counter])
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    found = re.search(rb"packets (\d+)", said)
    return int(found[1]) if found else 0


def _save_evidence(logs: FilePath, result: Result, plays: list[list[ends.Outcome]], log: PacketLog) -> None:
    """Write what both ends said and what the internet saw, for people."""
    verdict = "passed" if result.passed else "FAILED"
    name = re.sub(r"[^\w.-]+", "_", f"{verdict} {result.subject} {result.cell} {result.run}")
    said = "".join(
        f"== end {number}: exit {one.status}, {len(one.received)} bytes\n"
        + "".join(f"{event}\n" for event in one.events)
        + "".join(f"{words}\n" for words in one.words)
        for number, one in enumerate(itertools.chain(*plays))
    )
    logs.mkdir(parents=True, exist_ok=True)
    (logs / f"{name}.txt").write_text(f"{result.why}\n{said}== packets\n{log.text()}")
