"""A session moves from a relayed hole to a direct one, while bytes pass in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from punchtunnel.errors import LinkError, LostError, NoHoleError, PeerError
from punchtunnel.library.tunnel import Stream, Tunnel
from punchtunnel.protocol.agreement import Keys
from punchtunnel.protocol.frames import Flag, Header, Kind
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.protocol.offers import Offer, Offered, Source
from punchtunnel.protocol.records import DATA
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.reporting.events import Event, Lost, Moved, NotDirect, Relayed, Resumed
from punchtunnel.session import arranging
from punchtunnel.session.comeback import Return, come_back
from punchtunnel.session.plan import Plan
from punchtunnel.session.rawrecords import RawRecords
from punchtunnel.session.roles import Ends
from punchtunnel.session.seeker import seekers
from punchtunnel.session.service import Guest
from punchtunnel.system.signals import Wake

LONG = 30.0
TICKET = Ticket(b"s" * 16, b"t" * 32)
ROLE = Role.LISTEN | Role.TO
TRAITS = Trait.RESUME | Trait.RESUMING | Trait.FAST_AES
SIZE = 8 * 1024 * 1024


def holes_of(relay: str, hold: float = 0.0) -> tuple[Hole, Hole]:
    """Return both ends of one hole."""
    here, there = socket.socketpair()
    a, b = b"a" * 32, b"b" * 32
    one = Hole(
        here, f"{relay} here", "there", b"", True, ROLE, TRAITS, 0.0, Counts(), Keys(a, b, b"", b"", b"v" * 20, TICKET),
        fast_aes=True, relay=relay, hold=hold,
    )  # fmt: skip
    return one, replace(one, sock=there, leads=False, keys=Keys(b, a, b"", b"", b"v" * 20, TICKET))


class Offering:
    """What is gathered."""

    own_ports: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.offer = Offer(0)

    def close(self) -> None:
        """Nothing is kept open."""


class Network:
    """Where both sides find a direct hole, when the test lets them, or another relayed one.

    Attributes:
        tries: What each try of both gives.
        opens: Tries wait for it.
    """

    def __init__(self, *tries: tuple[Hole, Hole] | str) -> None:
        self.tries = list(tries)
        self.opens = threading.Event()
        # Both sides have named a relay.
        self.meets = True
        # How often the tries have looked whether they were asked to begin anew, and how often they were.
        self.looks = self.asked = 0
        self.back: list[tuple[Hole, Hole]] = []
        # The sides whose traffic goes another way now.
        self.elsewhere: set[int] = set()
        # Which sides are in each try: no hole opens before the other side dials, too.
        self.here: defaultdict[int, set[int]] = defaultdict(set)

    def side(self, number: int) -> Side:
        return Side(self, number)


class Side:
    """What session.holes.Holes is to one of the two sessions."""

    def __init__(self, network: Network, number: int) -> None:
        self._network = network
        self._number = number
        self._tried = 0
        self._back = 0

    def ways(self, ticket: Ticket, _report: object) -> Side:
        assert ticket == TICKET
        return self

    @property
    def meets(self) -> bool:
        return self._network.meets

    def goes_another_way(self, hole: Hole) -> bool:
        return self._number in self._network.elsewhere and not hole.relay

    def gather(self, _signals: Wake) -> Offering:
        return Offering()

    def plans(self, _mine: Offer, _theirs: Offer) -> int:
        return 1

    def punch(self, _gathered: object, _theirs: Offer, signals: Wake) -> Hole:
        here = self._network.here[self._tried]
        here.add(self._number)
        while not (self._network.opens.wait(0.01) and len(here) == 2):
            self._network.asked += signals.check()
            self._network.looks += 1
        found = self._network.tries[self._tried]
        self._tried += 1
        if isinstance(found, str):
            raise NoHoleError(found)
        return found[self._number]

    def again(self, ticket: Ticket, received: int, deadline: float, signals: Wake, report: object) -> Return:
        del deadline, report
        while len(self._network.back) <= self._back:
            signals.sleep(0.01)
        self._back += 1
        return come_back(self._network.back[self._back - 1][self._number], ticket, received, signals)


class Pair:
    """Two tunnels, one on each side, and what each has told."""

    def __init__(self, network: Network, hold: float) -> None:
        self.network = network
        self.told: tuple[list[Event], list[Event]] = ([], [])
        relayed = holes_of("relay:4001", hold)
        self.relayed = relayed
        self.tunnels = [self._tunnel(relayed[number], number) for number in (0, 1)]

    def _tunnel(self, hole: Hole, number: int) -> Tunnel:
        side: Any = self.network.side(number)
        tunnel = Tunnel(hole, Plan(ROLE, Ends(), resume=60.0), seekers(side), side)
        session, note = tunnel._session, tunnel._note

        def report(event: Event) -> None:
            self.told[number].append(event)
            note(event)

        session.report = report
        session._failures._report = report
        return tunnel

    def has(self, kind: type[Event]) -> bool:
        return all(any(isinstance(one, kind) for one in told) for told in self.told)

    async def until(self, kind: type[Event]) -> None:
        while not self.has(kind):  # noqa: ASYNC110 - a report sets no event
            await asyncio.sleep(0.01)

    async def streams(self) -> tuple[Stream, Stream]:
        """Open a stream, and return both ends."""
        return await self.tunnels[0].open(), await anext(self.tunnels[1])


@contextlib.asynccontextmanager
async def pair(network: Network, hold: float = 0.0) -> AsyncIterator[Pair]:
    made = Pair(network, hold)
    try:
        yield made
    finally:
        network.opens.set()
        await asyncio.gather(*(tunnel._end(cut=True) for tunnel in made.tunnels))
        for holes in (made.relayed, *(one for one in network.tries if not isinstance(one, str)), *network.back):
            for hole in holes:
                hole.sock.close()


def moves() -> list[threading.Thread]:
    """Return the threads that look for a direct hole."""
    return [thread for thread in threading.enumerate() if thread.name == "move"]


def run(case: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LONG):
            await case()

    asyncio.run(limited())


async def pour(stream: Stream, data: bytes, end: asyncio.Event | None = None) -> None:
    """Send it; the second half when it may end."""
    _, writer = stream
    half = len(data) // 2
    writer.write(data[:half])
    await writer.drain()
    if end is not None:
        await end.wait()
    writer.write(data[half:])
    writer.write_eof()


@pytest.mark.parametrize("hold", [0.0, 3600.0], ids=["while bytes pass", "before any does"])
def test_it_goes_on_over_the_direct_hole_and_no_byte_is_lost(hold: float) -> None:
    direct = holes_of("")
    network = Network(direct)
    data = bytes(range(256)) * (SIZE // 256)

    async def case() -> None:
        async with pair(network, hold) as both:
            if hold:
                network.opens.set()
            else:
                await both.until(Relayed)
            here, there = await both.streams()
            moved = asyncio.Event()
            readers = [asyncio.create_task(stream[0].read(-1)) for stream in (here, there)]
            writers = [asyncio.create_task(pour(stream, data, moved)) for stream in (here, there)]
            network.opens.set()
            await both.until(Moved)
            moved.set()
            assert [await reader == data for reader in readers] == [True, True]
            await asyncio.gather(*writers)
            assert both.has(Relayed) is not bool(hold)
            assert not both.has(Lost)
            # Neither end of the relayed hole is open any more.
            assert [hole.sock.fileno() for hole in both.relayed] == [-1, -1]
            session = both.tunnels[0]._session
            assert session.link.carrier is not None
            assert session._hole.local == " here"

    run(case)


def test_a_try_that_fails_is_told_and_the_next_one_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arranging, "PAUSES", (0.01,))
    network = Network("all refused", "no answer", holes_of(""))
    network.opens.set()

    async def case() -> None:
        async with pair(network) as both:
            await both.until(Moved)
            leader, follower = ([one for one in told if isinstance(one, NotDirect)] for told in both.told)
            assert [(one.reason, one.next_s) for one in leader] == [("all refused", 0.01), ("no answer", 0.01)]
            assert [one.next_s for one in follower] == [None, None]

    run(case)


def test_a_relay_that_dies_meanwhile_costs_nothing_and_the_next_one_leads_to_a_direct_hole_again() -> None:
    network = Network(holes_of(""))
    data = bytes(range(256)) * (SIZE // 256)

    async def case() -> None:
        async with pair(network) as both:
            await both.until(Relayed)
            here, there = await both.streams()
            reader = asyncio.create_task(there[0].read(-1))
            moved = asyncio.Event()
            writer = asyncio.create_task(pour(here, data, moved))
            for hole in both.relayed:
                hole.sock.shutdown(socket.SHUT_RDWR)
            await both.until(Lost)
            network.back.append(holes_of("relay:4001"))
            network.opens.set()
            await both.until(Moved)
            moved.set()
            assert await reader == data
            await writer

    run(case)


def test_a_direct_hole_that_breaks_at_once_is_a_loss_like_any_other() -> None:
    broken, good = holes_of(""), holes_of("")
    for hole in broken:
        hole.sock.shutdown(socket.SHUT_RDWR)
    network = Network(broken, good)
    data = bytes(range(256)) * 4096

    async def case() -> None:
        async with pair(network) as both:
            await both.until(Relayed)
            here, there = await both.streams()
            reader = asyncio.create_task(there[0].read(-1))
            network.opens.set()
            await both.until(Lost)
            while moves():  # noqa: ASYNC110 - each of them makes its side seek anew
                await asyncio.sleep(0.01)
            network.back.append(holes_of("relay:4001"))
            await both.until(Moved)
            await pour(here, data)
            assert await reader == data

    run(case)


def test_a_session_that_ends_meanwhile_leaves_no_thread_and_no_hole() -> None:
    network = Network(holes_of(""))

    async def case() -> None:
        async with pair(network) as both:
            await both.until(Relayed)
            await asyncio.gather(*(tunnel._end(cut=True) for tunnel in both.tunnels))
            assert not moves()

    run(case)


@pytest.mark.parametrize("side", [0, 1], ids=["the leader", "the follower"])
def test_a_direct_hole_is_left_for_a_better_one_when_the_way_has_changed(side: int) -> None:
    # The second one is direct, too; only its name shows which it is.
    one, other = holes_of("better")
    network = Network(holes_of(""), (replace(one, relay=""), replace(other, relay="")))
    network.opens.set()
    data = bytes(range(256)) * (SIZE // 256)

    async def case() -> None:
        async with pair(network) as both:
            await both.until(Moved)
            here, there = await both.streams()
            reader = asyncio.create_task(there[0].read(-1))
            moved = asyncio.Event()
            writer = asyncio.create_task(pour(here, data, moved))
            session = both.tunnels[side]._session
            session.ask_now()
            assert not moves()
            network.elsewhere.add(side)
            session.ask_now()
            for told in both.told:
                while sum(isinstance(one, Moved) for one in told) < 2:  # noqa: ASYNC110 - a report sets no event
                    await asyncio.sleep(0.01)
            moved.set()
            assert await reader == data
            await writer
            assert {tunnel._session._hole.local for tunnel in both.tunnels} == {"better here"}
            assert not both.has(Lost)

    run(case)


def test_where_no_better_one_opens_the_session_stays_where_it_is() -> None:
    network = Network(holes_of(""), "all refused")
    network.opens.set()

    async def case() -> None:
        async with pair(network) as both:
            await both.until(Moved)
            here, there = await both.streams()
            network.elsewhere.add(0)
            both.tunnels[0]._session.ask_now()
            while len(network.here[1]) < 2 or moves():  # noqa: ASYNC110 - nothing is told of it
                await asyncio.sleep(0.01)
            await pour(here, b"still there")
            assert await there[0].read(-1) == b"still there"
            assert not both.has(Lost)

    run(case)


def test_a_peer_that_offers_nonsense_costs_the_link() -> None:
    network = Network(holes_of(""))

    async def case() -> None:
        async with pair(network) as both:
            await both.until(Relayed)
            _, (reader, _) = await both.streams()
            both.tunnels[0]._session.link.offer(b"nonsense")
            with pytest.raises(LinkError, match="not understood"):
                await reader.read(-1)

    run(case)


def test_a_peer_that_has_given_a_move_up_comes_back_at_once() -> None:
    """A service that still waited for it on the direct hole told it a position of no loss, which ended the session."""
    direct = holes_of("")
    network = Network(direct)
    network.opens.set()

    async def case() -> None:
        loop, (there, here) = asyncio.get_running_loop(), holes_of("relay:4001")
        guest = Guest(loop)
        leads: Any = network.side(1)
        tunnel = Tunnel(here, Plan(ROLE, Ends(), resume=60.0), lambda *_: guest, leads)
        session = tunnel._session
        # The peer takes part in the try, and says nothing on the direct hole.
        network.here[0].add(0)
        there.sock.settimeout(LONG)
        records = RawRecords(there)
        try:
            offer = Offer(1).encode()
            records.say(Header(Kind.OFFER, Flag(0), 0, len(offer)).encode() + offer, DATA)
            direct[0].sock.setblocking(False)
            assert await loop.sock_recv(direct[0].sock, 1)
            assert session.link.carrier is None
            assert moves()
            journal = session._resuming.journal if session._resuming is not None else None
            assert session.release()
            assert not moves()
            assert journal is not None
            assert guest.received == journal.received > 0
            assert direct[1].sock.fileno() == -1
        finally:
            await tunnel._end(cut=True)
            for hole in (there, *direct):
                hole.sock.close()

    run(case)


def test_a_link_that_has_ended_does_not_move_while_a_program_here_reads_the_rest() -> None:
    """It was a traceback: a peer that had broken the protocol took part in the move."""
    network = Network(holes_of(""))

    async def case() -> None:
        async with pair(network) as both:
            await both.until(Relayed)
            (_, writer), (reader, _) = await both.streams()
            # More than the reader, which waits, has room for, and less than it has told.
            writer.write(data := bytes(450_000))
            writer.write_eof()
            session = both.tunnels[1]._session
            streams = session.link._mux.streams
            while not all(one.sink.ends for one in streams.values()) or len(network.here[0]) < 2:  # noqa: ASYNC110 - nothing is told of it
                await asyncio.sleep(0.001)
            session.link.lose(PeerError("nonsense"))
            assert not session.link.is_open
            assert streams
            network.opens.set()
            while moves():  # noqa: ASYNC110 - nothing is told of it
                await asyncio.sleep(0.001)
            assert await reader.read(-1) == data
            assert (await session.ended).reason == "nonsense"

    run(case)


def test_a_side_that_has_named_no_relay_dials_nothing_that_its_peer_offers() -> None:
    network = Network("none")

    async def case() -> None:
        here, there = holes_of("")
        network.meets = False
        leads: Any = network.side(1)
        tunnel = Tunnel(there, Plan(ROLE, Ends(), resume=60.0), seekers(leads), leads)
        records = RawRecords(here)
        try:
            offer = Offer(1, candidates=(Offered(Source.HOST, "203.0.113.9"),)).encode()
            frame = Header(Kind.OFFER, Flag(0), 0, len(offer)).encode() + offer
            records.say(frame + Header(Kind.PING, Flag.SYN, 0, 7).encode(), DATA)
            here.sock.setblocking(False)
            # It answers the ping, and had the offer before that.
            assert await asyncio.get_running_loop().sock_recv(here.sock, 1)
            assert not moves()
        finally:
            await tunnel._end(cut=True)
            here.sock.close()

    run(case)


def test_an_offer_that_comes_during_a_try_does_not_begin_it_anew() -> None:
    """Each of them had the punch forget all its waits and dial at once: a peer could have it do so for ever."""
    network = Network(holes_of(""))

    async def case() -> None:
        async with pair(network) as both:
            while len(network.here[0]) < 2:  # noqa: ASYNC110 - nothing is told of it
                await asyncio.sleep(0.001)
            await both.streams()
            for tunnel in both.tunnels:
                session = tunnel._session
                assert session._resuming is not None
                session.offered(Offer(7).encode())
            looks = network.looks
            while network.looks < looks + 4:  # noqa: ASYNC110 - nothing is told of it
                await asyncio.sleep(0.001)
            network.opens.set()
            await both.until(Moved)
            assert network.asked == 0

    run(case)


def test_a_session_that_comes_back_through_a_relay_says_so() -> None:
    """It was told of the first relayed hole alone, and never where a direct one had been before."""
    network = Network(holes_of(""))
    network.opens.set()

    async def case() -> None:
        async with pair(network, 3600.0) as both:
            await both.until(Moved)
            await both.streams()
            assert not both.has(Relayed)
            network.back.append(holes_of("relay:4001"))
            session = both.tunnels[0]._session
            session.link.lose(LostError("gone"))
            await both.until(Resumed)
            await both.until(Relayed)

    run(case)
