"""Links whose holes are relayed: every byte arrives, whatever the window and the pauses are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

from punchtunnel.link.carrier import Carrier
from punchtunnel.protocol.records import Opener, Sealer
from punchtunnel.protocol.resume import Journal

from .links import LONG, Side, connect, make_waiting_side, receive_all, send

MIB = 1 << 20


@contextlib.asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Side, Side]]:
    sides = make_waiting_side(True), make_waiting_side(False)
    keys = os.urandom(32), os.urandom(32)
    for side, sock, (mine, theirs) in zip(sides, socket.socketpair(), (keys, keys[::-1]), strict=True):
        seals = Sealer(mine, True), Opener(theirs, True)
        side.link.attach(Carrier(sock, seals, Journal(), relayed=True))
    try:
        yield sides
    finally:
        for side in sides:
            side.link.close(reset=False)
            side.poller.close()


def test_bulk_in_both_directions_and_messages_arrive_whole() -> None:
    there, back, message = os.urandom(3 * MIB), os.urandom(3 * MIB), os.urandom(100)

    async def case() -> None:
        async with relayed() as (left, right), asyncio.timeout(LONG):
            near, far = await connect(left, right)
            client, server = await connect(left, right)
            with near, far, client, server:
                loop = asyncio.get_running_loop()
                bulk = asyncio.gather(send(near, there), send(far, back), receive_all(near), receive_all(far))
                for _ in range(20):
                    await loop.sock_sendall(client, message)
                    assert await loop.sock_recv(server, 1000) == message
                assert list(await bulk) == [None, None, back, there]

    asyncio.run(case())


def test_a_pause_of_bulk_ends_with_its_hole() -> None:
    """A timer that is left would work on a hole that is closed."""

    async def case() -> None:
        async with relayed() as (left, right), asyncio.timeout(LONG):
            near, far = await connect(left, right)
            with near, far:
                carrier = left.link.carrier
                assert carrier is not None
                assert carrier._flight is not None
                # As if the peer had received a byte a second.
                carrier._flight._rates.append(1.0)
                bulk = asyncio.create_task(send(near, bytes(64 * MIB)))
                while carrier._pause is None:
                    with contextlib.suppress(BlockingIOError):
                        far.recv(MIB)
                    await asyncio.sleep(0)
                pause = carrier._pause
                left.link.close(reset=True)
                assert pause.cancelled()
                bulk.cancel()

    asyncio.run(case())
