"""Two links joined by a socket, or one that is joined to a bare socket: what tests of links have in common."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.errors import LinkError
from punchtunnel.link.carrier import Carrier
from punchtunnel.link.link import Link
from punchtunnel.link.stream import Broken
from punchtunnel.protocol.events import Reset
from punchtunnel.protocol.frames import Flag, Header, Kind
from punchtunnel.system.poller import Poller

# A test that waits so long is hung.
LONG = 30.0


@dataclass
class Side:
    """One link and what its owner was told."""

    poller: Poller
    link: Link = field(init=False)
    opened: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    ended: asyncio.Queue[tuple[int, Reset | Broken | None]] = field(default_factory=asyncio.Queue)
    lost: asyncio.Queue[LinkError | None] = field(default_factory=asyncio.Queue)
    codes: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def stream_opened(self, number: int, service: str) -> None:
        self.opened.put_nowait(number)

    def stream_ended(self, number: int, failure: Reset | Broken | None) -> None:
        self.ended.put_nowait((number, failure))

    def source_ended(self, number: int) -> None: ...

    def sized(self, number: int, size: int) -> None:
        self.sizes.append((number, size))

    def ponged(self, value: int, rtt: float) -> None: ...

    def gone_away(self, code: int) -> None:
        self.codes.append(code)

    def offered(self, data: bytes) -> None:
        raise AssertionError("no relay is here")

    def awaits_another(self, error: LinkError | None) -> bool:
        return False

    def link_ended(self, error: LinkError | None) -> None:
        self.lost.put_nowait(error)


def make_waiting_side(leads: bool) -> Side:
    """Return a side whose link has no carrier yet."""
    loop = asyncio.get_running_loop()
    side = Side(Poller(loop))
    side.link = Link(loop, side.poller, leads, side)
    return side


def make_side(sock: socket.socket, leads: bool) -> Side:
    side = make_waiting_side(leads)
    side.link.attach(Carrier(sock))
    return side


@contextlib.asynccontextmanager
async def two_sides(buffer: int | None = None) -> AsyncIterator[tuple[Side, Side]]:
    sockets = socket.socketpair()
    if buffer:
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    sides = make_side(sockets[0], True), make_side(sockets[1], False)
    try:
        yield sides
    finally:
        for side in sides:
            side.link.close(reset=False)
            side.poller.close()


@contextlib.asynccontextmanager
async def opened_by_hand(count: int) -> AsyncIterator[tuple[Side, socket.socket, list[int]]]:
    """A link whose peer is a bare socket that has opened some streams."""
    hole, raw = socket.socketpair()
    raw.setblocking(False)
    side = make_side(hole, leads=True)
    numbers = [2 * number for number in range(1, count + 1)]
    try:
        with raw:
            for number in numbers:
                raw.sendall(Header(Kind.WINDOW, Flag.SYN, number, 0).encode())
                assert await asyncio.wait_for(side.opened.get(), LONG) == number
            yield side, raw, numbers
    finally:
        side.link.close(reset=True)
        side.poller.close()


async def connect(left: Side, right: Side) -> tuple[socket.socket, socket.socket]:
    """Open a stream and return the two local sockets that it joins."""
    near, near_end = socket.socketpair()
    far, far_end = socket.socketpair()
    left.link.open(SocketEnd(near_end))
    number = await asyncio.wait_for(right.opened.get(), LONG)
    right.link.join(number, SocketEnd(far_end))
    for sock in (near, far):
        sock.setblocking(False)
    return near, far


async def received(side: Side, count: int) -> None:
    """Wait until a side has received so many bytes of payload."""
    async with asyncio.timeout(LONG):
        while side.link.bytes_in < count:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)


async def receive_all(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    data = bytearray()
    while piece := await asyncio.wait_for(loop.sock_recv(sock, 65536), LONG):
        data += piece
    return bytes(data)


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sock, data), LONG)
    sock.shutdown(socket.SHUT_WR)


Case = Callable[[], Coroutine[Any, Any, None]]
