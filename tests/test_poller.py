"""Readiness is told to whoever it belongs to."""

from __future__ import annotations

import asyncio
import socket

from punchtunnel.poller import HANG_UP, READ, URGENT, WRITE, Poller

READABLE, WRITABLE = READ & ~(HANG_UP | URGENT), WRITE & ~READ


def test_an_event_is_not_told_to_the_next_owner_of_a_number() -> None:
    """One batch has events of two sockets; whose turn comes first closes the other, and a new one gets its number."""

    async def case() -> None:
        poller = Poller(asyncio.get_running_loop())
        pairs = [socket.socketpair() for _ in range(2)]
        told: asyncio.Queue[int] = asyncio.Queue()
        owners = {ours.fileno(): ours for ours, _ in pairs}

        def on_event(fd: int) -> None:
            if len(owners) < 2:
                return
            del owners[fd]
            (other,) = owners.values()
            number = other.fileno()
            poller.unregister(number)
            other.close()
            new = socket.socket()
            assert new.fileno() == number
            poller.register(number, told.put_nowait)
            owners[number] = new

        def register(ours: socket.socket) -> None:
            fd = ours.fileno()
            poller.register(fd, lambda _: on_event(fd))

        try:
            for ours, _ in pairs:
                register(ours)
            # What is told first is its own: a socket without a connection has hung up, the old one could be written.
            assert await told.get() & HANG_UP
        finally:
            poller.close()
            for ours, theirs in pairs:
                ours.close()
                theirs.close()
            for owner in owners.values():
                owner.close()

    asyncio.run(asyncio.wait_for(case(), 30))


def test_what_is_possible_is_told_once() -> None:
    async def case() -> None:
        poller = Poller(asyncio.get_running_loop())
        ours, theirs = socket.socketpair()
        told: asyncio.Queue[int] = asyncio.Queue()
        try:
            poller.register(ours.fileno(), told.put_nowait)
            assert await told.get() == WRITABLE
            theirs.send(b"!")
            assert await told.get() == READABLE | WRITABLE
            theirs.close()
            events = await told.get()
            assert events & READ
            assert events & HANG_UP
            for _ in range(10):
                await asyncio.sleep(0)
            assert told.empty()
        finally:
            poller.close()
            ours.close()
            theirs.close()

    asyncio.run(asyncio.wait_for(case(), 30))
