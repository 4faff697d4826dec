"""The thread that looks for the next hole: it tells once, hurries, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from punchtunnel.errors import NoHoleError
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.reporting import events
from punchtunnel.session.comeback import Return
from punchtunnel.session.seeker import Result, Seeker
from punchtunnel.system.loop import GuardedLoop
from punchtunnel.system.signals import Wake

TICKET = Ticket(bytes(16), bytes(32))
LONG = 30.0


@dataclass
class Holes:
    """Finds nothing before it is hurried; then what the test wants."""

    sock: socket.socket | None = None
    error: Exception | None = None
    waits: threading.Event = field(default_factory=threading.Event)
    found: threading.Event = field(default_factory=threading.Event)

    def again(self, ticket: Ticket, received: int, deadline: float, signals: Wake, report: events.Report) -> Return:
        self.waits.set()
        signals.sleep(LONG)
        if self.error is not None:
            raise self.error
        assert self.sock is not None
        hole = Hole(self.sock, "here", "there", b"", True, Role.STDIO, Trait(0), 0.0, Counts())
        self.found.set()
        returned: Return = Return(hole, None, received, b"")  # type: ignore[arg-type]
        return returned


def play(holes: Holes, case: Callable[[Seeker, asyncio.Queue[Result]], Awaitable[None]]) -> None:
    async def whole() -> None:
        def broke(error: BaseException) -> None:
            raise AssertionError from error

        results: asyncio.Queue[Result] = asyncio.Queue()
        seeker = Seeker(holes, GuardedLoop(asyncio.get_running_loop(), broke), events.unreported)
        async with asyncio.timeout(LONG):
            seeker.start(TICKET, 5, LONG, results.put_nowait)
            await asyncio.to_thread(holes.waits.wait, LONG)
            await case(seeker, results)
            seeker.stop()
        assert not [one for one in threading.enumerate() if one.name == "seek"]

    asyncio.run(whole())


def test_a_hole_that_is_found_is_told_once() -> None:
    async def case(seeker: Seeker, results: asyncio.Queue[Result]) -> None:
        seeker.hurry()
        result = await results.get()
        assert isinstance(result, Return)
        assert result.received == 5
        seeker.stop()
        assert result.hole.sock.fileno() >= 0, "it is the caller's now"
        assert results.empty()

    here, there = socket.socketpair()
    with here, there:
        play(Holes(here), case)


@pytest.mark.parametrize("error", [NoHoleError("too late"), ValueError("a bug")])
def test_why_there_is_none_is_told(error: Exception) -> None:
    async def case(seeker: Seeker, results: asyncio.Queue[Result]) -> None:
        seeker.hurry()
        assert await results.get() is error

    play(Holes(error=error), case)


def test_a_seeker_that_is_stopped_tells_nothing() -> None:
    async def case(seeker: Seeker, results: asyncio.Queue[Result]) -> None:
        seeker.stop()
        await asyncio.sleep(0)
        assert results.empty()

    play(Holes(), case)


def test_a_hole_that_nobody_takes_any_more_is_closed() -> None:
    async def case(seeker: Seeker, results: asyncio.Queue[Result]) -> None:
        seeker.hurry()
        # The loop has no turn between the two.
        assert holes.found.wait(LONG)
        seeker.stop()
        assert here.fileno() < 0
        await asyncio.sleep(0)
        assert results.empty()

    here, there = socket.socketpair()
    with here, there:
        holes = Holes(here)
        play(holes, case)
