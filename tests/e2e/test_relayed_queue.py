"""Bulk and small messages through a real relay, the second half of which is slow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from punchtunnel.address import Place, parse_target
from punchtunnel.protocol.hello import Role
from punchtunnel.protocol.resume import Ticket
from punchtunnel.reporting.events import Report
from punchtunnel.session.comeback import Return
from punchtunnel.session.plan import Plan
from punchtunnel.session.roles import Listener, Ports
from punchtunnel.session.seeker import seekers
from punchtunnel.session.session import Session
from punchtunnel.system.signals import Wake

from .relaypair import HUNG, ask, met, running_relay
from .test_transit_relay import needs_relay

pytestmark = needs_relay

LOCAL = "127.0.0.1"
MIB = 1 << 20
# What the slow half takes at a time, and the seconds until it takes more.
GULP, PAUSE = 8192, 0.004
MESSAGE = b"m" * 64
# Each has 256 KiB of credit.
STREAMS = 40


class Nowhere:
    """Finds no other hole."""

    def again(self, ticket: Ticket, received: int, deadline: float, signals: Wake, report: Report) -> Return:
        raise RuntimeError


@contextlib.asynccontextmanager
async def slow(relay: Place) -> AsyncIterator[Place]:
    """A line to the relay: what comes from there comes slowly."""
    lines: list[asyncio.Task[object]] = []

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pause: float) -> None:
        while data := await reader.read(GULP):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(pause)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(relay.host, relay.port, limit=GULP)
        lines.append(asyncio.create_task(pass_on(reader, back, 0)))
        lines.append(asyncio.create_task(pass_on(there, writer, PAUSE)))
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(*lines)
        for one in (writer, back):
            one.close()

    async with await asyncio.start_server(carry, LOCAL, 0, limit=GULP) as server:
        yield Place(LOCAL, server.sockets[0].getsockname()[1])
        for line in lines:
            line.cancel()


@contextlib.asynccontextmanager
async def joined(relay: Place, target: int) -> AsyncIterator[tuple[Session, Session, int]]:
    """Two sessions, and the port on which the near one takes clients for the target."""
    loop = asyncio.get_running_loop()
    listener = socket.create_server((LOCAL, 0))
    async with slow(relay) as line:
        socks = [await asyncio.to_thread(ask, place) for place in (relay, line)]
        # The slow line is in this loop.
        holes = [await asyncio.to_thread(met, sock, sock is socks[0], str(relay)) for sock in socks]
        plans = [
            Plan(Role.LISTEN, Ports([Listener(listener)]), resume=60.0),
            Plan(Role.TO, Ports(targets={"": parse_target(str(target))}), resume=60.0),
        ]
        near, far = (
            Session(loop, hole, plan, lambda event: None, seekers(Nowhere()))
            for hole, plan in zip(holes, plans, strict=True)
        )
        try:
            for one in (near, far):
                one.start(b"")
            yield near, far, listener.getsockname()[1]
        finally:
            for one in (near, far):
                one.close()
            listener.close()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo, or swallow, as the first byte says."""
    with contextlib.suppress(OSError):
        is_echo = await reader.read(1) == b"e"
        while data := await reader.read(65536):
            if is_echo:
                writer.write(data)
        writer.close()


async def pour(port: int) -> None:
    _, writer = await asyncio.open_connection(LOCAL, port)
    with contextlib.closing(writer):
        writer.write(b"d")
        while True:
            writer.write(bytes(65536))
            await writer.drain()


def test_messages_are_answered_while_bulk_fills_a_relay() -> None:
    """The relay kept megabytes of bulk, and each message came after all of them."""

    async def case(relay: Place) -> tuple[int, int]:
        async with (
            await asyncio.start_server(answer, LOCAL, 0) as target,
            joined(relay, target.sockets[0].getsockname()[1]) as (near, far, port),
            asyncio.TaskGroup() as tasks,
        ):
            reader, writer = await asyncio.open_connection(LOCAL, port)
            writer.write(b"e" + MESSAGE)
            assert await reader.readexactly(len(MESSAGE)) == MESSAGE
            bulk = [tasks.create_task(pour(port)) for _ in range(STREAMS)]
            answered = most = 0
            while far.link.bytes_in < 8 * MIB:
                writer.write(MESSAGE)
                await reader.readexactly(len(MESSAGE))
                answered += 1
                most = max(most, near.link.bytes_out - far.link.bytes_in)
            for one in bulk:
                one.cancel()
            writer.close()
            return answered, most

    async def limited(relay: Place) -> tuple[int, int]:
        async with asyncio.timeout(2 * HUNG):
            return await case(relay)

    with running_relay() as relay:
        answered, most = asyncio.run(limited(relay))
    # During 8 MiB of bulk: 140 messages, and 115 KB under way.  Without the window of link/flight.py it
    # were 10 messages and 1.1 MB, where what is kept for the next hole has its limit.
    assert answered > 30
    assert most < MIB / 2
