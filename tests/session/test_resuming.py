"""A session that has lost its hole: what it does until the next one, which the test gives it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from punchtunnel import words
from punchtunnel.address import parse_target
from punchtunnel.errors import Exit, NoHoleError
from punchtunnel.protocol.agreement import Keys
from punchtunnel.protocol.frames import HEADER, Flag, Goodbye, Header, Kind, decode_header
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.protocol.records import Opener, Sealer
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.reporting.events import Event, Lost, Resumed
from punchtunnel.session.comeback import Return
from punchtunnel.session.plan import Plan
from punchtunnel.session.roles import Ports
from punchtunnel.session.seeker import seekers
from punchtunnel.session.service import Guest
from punchtunnel.session.session import Session
from punchtunnel.system.signals import Wake

# A test that waits so long is hung.
LONG = 30.0
HERE, THERE = b"h" * 32, b"t" * 32
GOODBYE = Header(Kind.GO_AWAY, Flag(0), 0, Goodbye.NORMAL).encode()


def hole_of(sock: socket.socket) -> Hole:
    """Return a hole on which this side leads."""
    keys = Keys(HERE, THERE, b"", b"", b"", Ticket(b"", b""))
    return Hole(sock, "here", "there", b"", True, Role.LISTEN, Trait.RESUME, 0.0, Counts(), keys, True)


def relayed(sock: socket.socket) -> Hole:
    """Return the same, through a relay."""
    return replace(hole_of(sock), relay="relay.example.org:4001")


class Finder:
    """Finds what the test has, when the test lets it."""

    def __init__(self, found: Callable[[], Return]) -> None:
        self._found = found
        self.may_find = threading.Event()

    def again(self, ticket: Ticket, received: int, deadline: float, signals: Wake, report: object) -> Return:
        self.may_find.wait(LONG)
        return self._found()


@dataclass
class Stage:
    """A session that leads and has lost its hole behind the peer's goodbye, and what it has told."""

    session: Session
    finder: Finder
    events: list[Event]

    async def until(self, kind: type[Event]) -> None:
        while not any(isinstance(one, kind) for one in self.events):  # noqa: ASYNC110 - a report sets no event
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def parted(found: Callable[[], Return]) -> AsyncIterator[Stage]:
    """Both sides have said goodbye, and whether the peer has read ours is unknown."""
    here, there = socket.socketpair()
    events: list[Event] = []
    with there:
        there.sendall(Sealer(THERE, True).seal(GOODBYE))
        there.shutdown(socket.SHUT_WR)
        plan = Plan(Role.TO, Ports(targets={"": parse_target("9")}), resume=60.0)
        finder = Finder(found)
        stage = Stage(
            Session(asyncio.get_running_loop(), hole_of(here), plan, events.append, seekers(finder)), finder, events
        )
        try:
            stage.session.start(b"")
            await stage.until(Lost)
            yield stage
        finally:
            finder.may_find.set()
            stage.session.close()


def run(case: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LONG):
            await case()

    asyncio.run(limited())


def test_a_goodbye_that_may_not_have_been_read_goes_by_the_next_hole() -> None:
    """The wait for its answer went on without a hole: the side that was waited for had met nobody, and failed."""
    here, there = socket.socketpair()
    there.setblocking(False)
    opener = Opener(HERE, True)

    async def case() -> None:
        loop, data = asyncio.get_running_loop(), b""
        seals = Sealer(HERE, True), Opener(THERE, True)
        async with parted(lambda: Return(hole_of(here), seals, 0, b"")) as stage:
            stage.finder.may_find.set()
            await stage.until(Resumed)
            assert "goodbye" in stage.session.timers
            frames: list[Header] = []
            while not any(one.kind == Kind.PING for one in frames):
                data += await loop.sock_recv(there, 65536)
                while len(data) >= 4 and len(data) >= (size := opener.record_size(data)):
                    plain = bytes(opener.open(memoryview(data)[:size]))
                    frames += [decode_header(plain, at) for at in range(0, len(plain), HEADER.size)]
                    data = data[size:]
            assert any(one.kind == Kind.GO_AWAY and one.length == Goodbye.NORMAL for one in frames)
            sealer = Sealer(THERE, True)
            for one in frames:
                if one.kind == Kind.PING:
                    there.send(sealer.seal(Header(Kind.PING, Flag.ACK, 0, one.length).encode()))
            outcome = await stage.session.ended
            assert (outcome.status, outcome.reason) == (Exit.OK, "")

    with there:
        run(case)


def test_a_side_that_has_all_ends_well_if_the_peer_does_not_come_back() -> None:
    """It has gone, because it has all, too."""

    def nothing() -> Return:
        raise NoHoleError(words.NO_ANSWER)

    async def case() -> None:
        async with parted(nothing) as stage:
            stage.finder.may_find.set()
            outcome = await stage.session.ended
            assert (outcome.status, outcome.reason) == (Exit.OK, "")

    run(case)


def test_relayed_holes_that_bring_nothing_are_sought_more_and_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who spoiled each hole had the two sides punch thirty times a second."""
    monkeypatch.setattr("punchtunnel.session.resuming.FIRST_PAUSE", 0.001)
    pauses: list[float] = []

    def broken() -> Return:
        here, there = socket.socketpair()
        there.close()
        return Return(relayed(here), (Sealer(HERE, True), Opener(THERE, True)), 0, b"")

    async def case() -> None:
        async with parted(broken) as stage:
            later = stage.session.timers.later

            def note(name: str, seconds: float, call: Callable[[], object]) -> None:
                if name == "seek":
                    pauses.append(seconds)
                later(name, seconds, call)

            stage.session.timers.later = note  # type: ignore[method-assign]
            stage.finder.may_find.set()
            while len(pauses) < 5:  # noqa: ASYNC110 - a timer sets no event
                await asyncio.sleep(0.001)

    run(case)
    assert pauses[:5] == [0.001, 0.002, 0.004, 0.008, 0.016]


def test_a_peer_that_comes_back_within_a_pause_is_told_what_has_come_and_waited_for_no_longer() -> None:
    """A service told it the position of the loss before, and closed its hole: that ended the session."""
    here, there = socket.socketpair()
    events: list[Event] = []

    async def case() -> None:
        loop = asyncio.get_running_loop()
        guest = Guest(loop)
        plan = Plan(Role.TO, Ports(targets={"": parse_target("9")}), resume=60.0)
        hole = replace(hole_of(here), leads=False)
        session = Session(loop, hole, plan, events.append, lambda *_: guest)
        journal = session._resuming.journal if session._resuming is not None else None
        assert journal is not None

        async def lose(sock: socket.socket) -> None:
            """Have the peer say something, and end its side."""
            lost = sum(isinstance(one, Lost) for one in events)
            sock.sendall(Sealer(THERE, True).seal(Header(Kind.PING, Flag.SYN, 0, 7).encode()))
            sock.close()
            while sum(isinstance(one, Lost) for one in events) == lost:  # noqa: ASYNC110 - a report sets no event
                await asyncio.sleep(0.001)

        try:
            session.start(b"")
            await lose(there)
            for time in range(2):
                mine, theirs = socket.socketpair()
                assert session.release()
                assert guest.received == journal.received == HEADER.size * (time + 1)
                guest.tell(Return(relayed(mine), (Sealer(HERE, True), Opener(THERE, True)), 0, b""))
                assert session.link.carrier is not None
                await lose(theirs)
                assert "seek" in session.timers
        finally:
            session.close()

    run(case)
