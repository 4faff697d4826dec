"""A hole as a tunnel of a program: streams in both directions, until one side ends it.

program ── streams.py ── Session ── hole ── ...   another program, or -L, --to, --stdio
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import replace
from typing import Any

from punchtunnel import words
from punchtunnel.ends.end import End
from punchtunnel.errors import Exit, LinkError, UsageError
from punchtunnel.library.streams import ProgramEnd, StreamProtocol, Writer
from punchtunnel.protocol.agreement import readable
from punchtunnel.protocol.hello import Trait
from punchtunnel.protocol.service import is_service
from punchtunnel.punching.hole import Hole
from punchtunnel.reporting import events
from punchtunnel.session.holes import Holes
from punchtunnel.session.outcome import Outcome
from punchtunnel.session.plan import Plan
from punchtunnel.session.roles import Program
from punchtunnel.session.seeker import Seekers
from punchtunnel.session.session import Session
from punchtunnel.words import services

# Streams of the peer that wait to be accepted; more are refused.  As many
# connections wait for accept() on Linux.
MAX_WAITING = 128

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Tunnel:
    """A hole that carries any number of streams; made by `open_tunnel`.

    Attributes:
        local: Address and port of this side of the hole, as text.
        remote: The peer's.
        verifier: Letters and digits that are the same on both sides unless
            an attacker is in the middle; None on a plain link.
    """

    def __init__(self, hole: Hole, plan: Plan, seekers: Seekers | None = None, holes: Holes | None = None) -> None:
        self.local = hole.local
        self.remote = hole.remote
        self.verifier = None if hole.keys is None else readable(hole.keys.verifier)
        self._peer_takes_nothing = Trait.NO_RECEIVE in hole.traits
        self._ends: dict[int, ProgramEnd] = {}
        self._writers: weakref.WeakSet[Writer] = weakref.WeakSet()
        # None follows the last one.
        self._arrived: asyncio.Queue[ProgramEnd | asyncio.Task[Stream] | None] = asyncio.Queue()
        plan = replace(plan, ends=Program(self._take))
        self._session = Session(asyncio.get_running_loop(), hole, plan, self._note, seekers, holes)
        # Whether the peer is on the hole, too.
        self._up: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._session.start(hole.unread)
        self._life = asyncio.create_task(self._live())

    async def open(self, service: str = "") -> Stream:
        """Open a stream and return its reader and writer.

        Args:
            service: By its name: the far side's `--to NAME=…` says where it leads, or its program
                asks `writer.get_extra_info("service")`.

        Nothing is waited for here.  If the far side refuses the stream, for
        instance because its target does not answer, the reader raises
        LinkError.

        Raises:
            UsageError: No service can be called that.
            LinkError: The tunnel has ended, or the far side is about to end it.
        """
        if service and not is_service(service):
            raise UsageError(services.NO_SERVICE.format(name=service))
        if self._session.parting:
            raise LinkError(words.TUNNEL_OVER)
        return await self._streams_of(self._open_end(service))

    def __aiter__(self) -> Tunnel:
        return self

    async def __anext__(self) -> Stream:
        """Return the next stream that the peer opens.

        Raises:
            StopAsyncIteration: The peer has ended the tunnel, and nothing was cut.
            LinkError: The link was lost.
        """
        arrived = await self._arrived.get()
        if arrived is None:
            # For the other calls that wait.
            self._arrived.put_nowait(None)
            await self._check()
            raise StopAsyncIteration
        making = asyncio.create_task(self._streams_of(arrived)) if isinstance(arrived, ProgramEnd) else arrived
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            # The next call gets this stream, before those that have arrived since.
            rest = [self._arrived.get_nowait() for _ in range(self._arrived.qsize())]
            for one in (making, *rest):
                self._arrived.put_nowait(one)
            raise

    # ---- streams

    def _take(self, number: int, service: str) -> End | None:
        """Return the end for a stream of the peer, or None if there is no room."""
        if self._arrived.qsize() >= MAX_WAITING:
            return None
        try:
            end = ProgramEnd(service)
        except OSError:
            return None
        self._ends[number] = end
        self._arrived.put_nowait(end)
        return end

    def _open_end(self, service: str = "") -> ProgramEnd:
        end = ProgramEnd(service)
        self._ends[self._session.open(end, service)] = end
        return end

    async def _streams_of(self, end: ProgramEnd) -> Stream:
        loop = asyncio.get_running_loop()
        protocol = StreamProtocol(end)
        transport, _ = await loop.create_unix_connection(lambda: protocol, sock=end.theirs)
        facts = {"sockname": self.local, "peername": self.remote, "verifier": self.verifier, "service": end.service}
        writer = end.writer = Writer(transport, protocol, end, facts)
        self._writers.add(writer)
        if self._peer_takes_nothing:
            writer.refuse(words.PEER_TAKES_NOTHING)
        return end.reader, writer

    def _note(self, event: events.Event) -> None:
        """Take in an event of the session: forget streams that are over, and tell their readers why."""
        match event:
            case events.LinkUp():
                self._up.set_result(True)
            case events.LinkEnded(reason=reason):
                for end in self._ends.values():
                    end.fail(reason)
            case events.StreamClosed(stream=number):
                del self._ends[number]
            case events.StreamReset(stream=number, reason=reason) | events.TargetRefused(stream=number, reason=reason):
                self._ends.pop(number).fail(reason)

    # ---- the end

    async def _live(self) -> Outcome:
        try:
            either: list[asyncio.Future[Any]] = [self._up, self._session.ended]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self._up.done() and self._session.opens_the_only:
                self._arrived.put_nowait(self._open_end())
            return await self._session.ended
        finally:
            if not self._up.done():
                self._up.set_result(False)
            self._session.close()
            self._arrived.put_nowait(None)

    async def _end(self, cut: bool) -> None:
        """Let every stream be delivered, or cut them all; return when the link is closed."""
        for writer in list(self._writers):
            writer.close()
        if cut:
            self._session.stop(Exit.LOST)
        else:
            for number in [number for number, end in self._ends.items() if end.writer is None]:
                # No call will accept it any more.
                self._session.refuse(number)
            self._session.leave()
        try:
            await asyncio.wait([self._life])
        except asyncio.CancelledError:
            # The peer is told of the cut; that takes a second at most.
            self._session.stop(Exit.LOST)
            await asyncio.wait([self._life])
            raise
        finally:
            self._life.cancel()
            while not self._arrived.empty():
                arrived = self._arrived.get_nowait()
                if isinstance(arrived, ProgramEnd):
                    arrived.theirs.close()
                elif arrived is not None:
                    (await arrived)[1].close()
            self._arrived.put_nowait(None)

    async def _met(self) -> bool:
        """Wait until the peer is known to be on the hole, too; False if it never was: then nothing was begun."""
        return await asyncio.shield(self._up)

    async def _check(self) -> None:
        """Wait for the end of the link.

        Raises:
            LinkError: The link was lost, or data was cut.
        """
        outcome = await self._outcome()
        if outcome.status != Exit.OK:
            raise LinkError(outcome.reason)

    async def _outcome(self) -> Outcome:
        """Wait for the end of the link, and return how it ended."""
        return await asyncio.shield(self._life)
