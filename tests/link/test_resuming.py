"""Two links that lose one hole after another: every byte arrives once, in order, and no stream notices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.errors import LinkError
from punchtunnel.link.carrier import Carrier
from punchtunnel.link.link import Link
from punchtunnel.protocol import resume
from punchtunnel.protocol.frames import Flag, Header, Kind
from punchtunnel.protocol.records import Opener, Sealer
from punchtunnel.protocol.resume import Journal
from punchtunnel.system.poller import Poller
from punchtunnel.words import peer as words
from tests.link.links import LONG, Side, connect, receive_all, send


@dataclass
class Resumer(Side):
    """A side that waits for another hole whenever one is lost, `tries` times at most."""

    journal: Journal = field(default_factory=Journal)
    waits: asyncio.Event = field(default_factory=asyncio.Event)
    tries: int = 1_000_000

    def offered(self, data: bytes) -> None:
        raise AssertionError("no relay is here")

    def awaits_another(self, error: LinkError | None) -> bool:
        self.tries -= 1
        self.waits.set()
        return self.tries >= 0

    def carry(self, sock: socket.socket, keys: tuple[bytes, bytes], has: int) -> None:
        seals = Sealer(keys[0], True), Opener(keys[1], True)
        self.waits.clear()
        self.journal.report()
        self.link.attach(Carrier(sock, seals, self.journal, self.journal.rest(has)))


class Holes:
    """Joins two sides by holes that are cut after so many bytes, one after another, and at last by one that lasts."""

    def __init__(self, left: Resumer, right: Resumer, cuts: list[tuple[int, int]]) -> None:
        self.left, self.right = left, right
        self.cuts = cuts
        self.made = 0

    async def join(self) -> None:
        loop = asyncio.get_running_loop()
        cuts: list[tuple[int, int] | None] = [*self.cuts, None]
        for cut in cuts:
            (a, far_a), (b, far_b) = socket.socketpair(), socket.socketpair()
            keys = os.urandom(32), os.urandom(32)
            # Both positions before either side goes on.
            has = self.right.journal.received, self.left.journal.received
            for sock in (far_a, far_b):
                sock.setblocking(False)
            self.made += 1
            self.left.carry(a, keys, has[0])
            self.right.carry(b, (keys[1], keys[0]), has[1])
            with far_a, far_b:
                ways = asyncio.gather(
                    self._pass(loop, far_a, far_b, cut and cut[0]), self._pass(loop, far_b, far_a, cut and cut[1])
                )
                if cut is None:
                    await ways
                    return
                lost = asyncio.gather(self.left.waits.wait(), self.right.waits.wait())
                # The first way that is over cuts both.
                either: list[asyncio.Future[Any]] = [ways, lost]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                ways.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await ways
            await asyncio.wait_for(lost, LONG)

    async def _pass(
        self, loop: asyncio.AbstractEventLoop, source: socket.socket, sink: socket.socket, limit: int | None
    ) -> None:
        left = limit
        with contextlib.suppress(OSError):
            while left is None or left > 0:
                data = await loop.sock_recv(source, 65536 if left is None else min(left, 65536))
                if not data:
                    break
                await loop.sock_sendall(sink, data)
                left = None if left is None else left - len(data)
        if limit is not None:
            for sock in (source, sink):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


@contextlib.asynccontextmanager
async def resumers() -> AsyncIterator[tuple[Resumer, Resumer]]:
    loop = asyncio.get_running_loop()
    sides = []
    for leads in (True, False):
        side = Resumer(Poller(loop))
        side.link = Link(loop, side.poller, leads, side)
        sides.append(side)
    try:
        yield sides[0], sides[1]
    finally:
        for side in sides:
            side.link.close(reset=True)
            side.poller.close()


async def play(cuts: list[tuple[int, int]], sizes: list[tuple[int, int]], seed: int) -> None:
    rng = random.Random(seed)
    async with asyncio.timeout(LONG), resumers() as (left, right):
        holes = Holes(left, right, cuts)
        joining = asyncio.create_task(holes.join())
        try:
            for near_size, far_size in sizes:
                near, far = await connect(left, right)
                with near, far:
                    there, back = rng.randbytes(near_size), rng.randbytes(far_size)
                    _, _, got, answer = await asyncio.gather(
                        send(near, there), send(far, back), receive_all(far), receive_all(near)
                    )
                assert got == there
                assert answer == back
            assert left.lost.empty()
            assert right.lost.empty()
        finally:
            joining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await joining


def run(case: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(case)


CUT = st.integers(1, 3000) | st.integers(1, 300_000)


@settings(max_examples=100, deadline=None)
@given(
    cuts=st.lists(st.tuples(CUT, CUT), max_size=12),
    sizes=st.lists(st.tuples(st.integers(0, 400_000), st.integers(0, 2000)), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
)
def test_whatever_is_cut_every_byte_arrives_once(
    cuts: list[tuple[int, int]], sizes: list[tuple[int, int]], seed: int
) -> None:
    run(play(cuts, sizes, seed))


def test_a_hole_that_never_lets_the_resent_through_costs_nothing_but_time() -> None:
    """Cut again and again within the first record that is sent again."""
    run(play([(1, 1)] * 30, [(700_000, 700_000)], 1))


def test_a_side_that_waits_no_longer_ends_its_streams() -> None:
    async def case() -> None:
        async with asyncio.timeout(LONG), resumers() as (left, right):
            left.tries = 0
            joining = asyncio.create_task(Holes(left, right, [(400, 400)]).join())
            near, far = await connect(left, right)
            with near, far:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(near, bytes(1000))
                await left.lost.get()
                assert left.link.cut
                await right.waits.wait()
                # What came is kept, and no more than that is said.
                assert right.lost.empty()
                right.link.end(LinkError("nobody comes back"))
                assert str(await right.lost.get()) == "nobody comes back"
            joining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await joining

    run(case())


def test_sources_stop_when_so_much_is_kept() -> None:
    """A peer that acknowledges nothing must not fill the memory."""

    async def case() -> None:
        async with asyncio.timeout(LONG), resumers() as (left, _):
            here, there = socket.socketpair()
            there.setblocking(False)
            left.carry(here, (bytes(32), bytes(32)), 0)
            # As of a near peer: 40 windows of 256 KiB are more.
            left.journal.limit = resume.KEPT_NEARBY
            with there:
                ends = [socket.socketpair() for _ in range(40)]
                for ours, theirs in ends:
                    left.link.open(SocketEnd(ours))
                    theirs.setblocking(False)
                loop = asyncio.get_running_loop()
                feeding = [asyncio.create_task(loop.sock_sendall(theirs, bytes(262144))) for _, theirs in ends]
                reading = asyncio.create_task(drain(there))
                while left.journal.held < left.journal.limit:  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0)
                for _ in range(100):
                    await asyncio.sleep(0)
                assert left.journal.held < left.journal.limit + 300_000
                for task in (*feeding, reading):
                    task.cancel()
                await asyncio.gather(*feeding, reading, return_exceptions=True)
                for _, theirs in ends:
                    theirs.close()

    run(case())


def test_answers_to_a_peer_that_acknowledges_nothing_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asked for signs of life for ever, and every answer stayed in memory."""
    monkeypatch.setattr(resume, "MOST_KEPT", 100_000)
    monkeypatch.setattr(resume, "CONTROL_KEPT", 100_000)

    async def case() -> None:
        async with asyncio.timeout(LONG), resumers() as (left, _):
            here, there = socket.socketpair()
            there.setblocking(False)
            left.carry(here, (bytes(32), bytes(32)), 0)
            sealer = Sealer(bytes(32), True)
            with there:
                loop = asyncio.get_running_loop()
                reading = asyncio.create_task(drain(there))
                while left.lost.empty():
                    assert left.journal.held < 201_000
                    await loop.sock_sendall(there, sealer.seal(Header(Kind.PING, Flag.SYN, 0, 7).encode()))
                    await asyncio.sleep(0)
                assert str(left.lost.get_nowait()) == words.ACKNOWLEDGES_NOTHING
                await asyncio.gather(reading, return_exceptions=True)

    run(case())


def test_what_comes_is_acknowledged_while_the_hole_is_full() -> None:
    """A side that sent all the time acknowledged the other's few frames after hours, and that one's sources stood."""

    async def case() -> None:
        async with asyncio.timeout(LONG), resumers() as (left, _):
            here, there = socket.socketpair()
            there.setblocking(False)
            left.carry(here, (bytes(32), bytes(32)), 0)
            sealer = Sealer(bytes(32), True)
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            with there, theirs:
                loop = asyncio.get_running_loop()
                left.link.open(SocketEnd(ours))
                credit = Header(Kind.WINDOW, Flag.ACK, 1, 1 << 30).encode()
                await loop.sock_sendall(there, sealer.seal(credit))
                while not left.journal.received or left.journal.owed():  # noqa: ASYNC110
                    await asyncio.sleep(0)
                feeding = asyncio.create_task(loop.sock_sendall(theirs, bytes(4 << 20)))
                assert left.link.carrier is not None
                # The hole takes less than that, and nothing is read from it.
                while not left.link.carrier.outgoing.waits:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                before = left.journal.received
                await loop.sock_sendall(there, sealer.seal(Header(Kind.PING, Flag.SYN, 0, 7).encode()))
                while left.journal.received == before or left.journal.owed():  # noqa: ASYNC110
                    await asyncio.sleep(0)
                assert left.link.carrier.outgoing.waits
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)

    run(case())


async def drain(sock: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(sock, 1 << 18):
        pass
