"""Tunnels for asyncio programs: one stream (`connect`), or any number (`open_tunnel`).

    program ── streams.py ── Session ── hole ── ...   another program, or -L, --to, --stdio

The policy is the command line's (session.py): a program has the role of stdio,
or of -L and --to at once, so that it meets either.  The punch is synchronous
and runs in a thread; cancelling ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from punchtunnel import words
from punchtunnel.ends.stdio import End
from punchtunnel.errors import Exit, LinkError, SignalError
from punchtunnel.library.streams import ProgramEnd, StreamProtocol, Writer
from punchtunnel.protocol import secret as secrets
from punchtunnel.protocol.agreement import readable
from punchtunnel.protocol.hello import NO_TRAITS, Role, Trait
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.rations import Rations
from punchtunnel.punching.settings import DEFAULT_WAIT, Settings, has_fast_aes, settings_from
from punchtunnel.reporting import events
from punchtunnel.session.plan import Outcome, Plan
from punchtunnel.session.session import Session
from punchtunnel.system.signals import Wake

# Streams of the peer that wait to be accepted; more are refused.  As many
# connections wait for accept() on Linux.
MAX_WAITING = 128

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]

# Of the process: a program that punches again and again must not give strangers fresh tries each time.
_RATIONS = Rations(time.monotonic)


class Tunnel:
    """A hole that carries any number of streams; made by `open_tunnel`.

    Attributes:
        local: Address and port of this side of the hole, as text.
        remote: The peer's.
        verifier: Letters and digits that are the same on both sides unless
            somebody stands between; None on a plain link.
    """

    def __init__(self, hole: Hole, role: Role) -> None:
        self.local = hole.local
        self.remote = hole.remote
        self.verifier = None if hole.keys is None else readable(hole.keys.verifier)
        self._peer_takes_nothing = Trait.NO_RECEIVE in hole.traits
        self._ends: dict[int, ProgramEnd] = {}
        self._writers: weakref.WeakSet[Writer] = weakref.WeakSet()
        # None is behind the last one.
        self._arrived: asyncio.Queue[ProgramEnd | asyncio.Task[Stream] | None] = asyncio.Queue()
        self._session = Session(asyncio.get_running_loop(), hole, Plan(role, ends=self._take), self._note)
        self._session.start(hole.unread)
        self._life = asyncio.create_task(self._live())

    async def open(self) -> Stream:
        """Open a stream and return its reader and writer.

        That the far side refuses it, for instance because its target does not
        answer, is told by the reader: nothing is waited for here.

        Raises:
            LinkError: The tunnel has ended, or the far side is about to end it.
        """
        if self._session.parting:
            raise LinkError(words.TUNNEL_OVER)
        return await self._streams_of(self._open_end())

    def __aiter__(self) -> Tunnel:
        return self

    async def __anext__(self) -> Stream:
        """Return the next stream that the peer opens.

        Raises:
            StopAsyncIteration: The peer has ended the tunnel, and well.
            LinkError: The link was lost.
        """
        arrived = await self._arrived.get()
        if arrived is None:
            # For everybody else who waits.
            self._arrived.put_nowait(None)
            await self._check()
            raise StopAsyncIteration
        making = asyncio.create_task(self._streams_of(arrived)) if isinstance(arrived, ProgramEnd) else arrived
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            # Whoever asks next takes it, before what has come since.
            rest = [self._arrived.get_nowait() for _ in range(self._arrived.qsize())]
            for one in (making, *rest):
                self._arrived.put_nowait(one)
            raise

    # ---- streams

    def _take(self, number: int) -> End | None:
        """Return the end for a stream of the peer, or None if there is no room."""
        if self._arrived.qsize() >= MAX_WAITING:
            return None
        try:
            end = ProgramEnd()
        except OSError:
            return None
        self._ends[number] = end
        self._arrived.put_nowait(end)
        return end

    def _open_end(self) -> ProgramEnd:
        end = ProgramEnd()
        self._ends[self._session.open(end)] = end
        return end

    async def _streams_of(self, end: ProgramEnd) -> Stream:
        loop = asyncio.get_running_loop()
        protocol = StreamProtocol(end)
        transport, _ = await loop.create_unix_connection(lambda: protocol, sock=end.theirs)
        facts = {"sockname": self.local, "peername": self.remote, "verifier": self.verifier}
        writer = end.writer = Writer(transport, protocol, end, facts)
        self._writers.add(writer)
        if self._peer_takes_nothing:
            writer.refuse(words.PEER_TAKES_NOTHING)
        return end.reader, writer

    def _note(self, event: events.Event) -> None:
        """Take in an event of the session: forget streams that are over, and tell their readers why."""
        match event:
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
            if self._session.opens_the_only:
                self._arrived.put_nowait(self._open_end())
            return await self._session.ended
        finally:
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
                # Nobody will accept it any more.
                self._session.refuse(number)
            self._session.leave()
        try:
            await asyncio.wait([self._life])
        except asyncio.CancelledError:
            # The peer shall know; that takes a second at most.
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

    async def _check(self) -> None:
        """Wait for the end of the link.

        Raises:
            LinkError: It was not a good one.
        """
        outcome = await asyncio.shield(self._life)
        if outcome.status != Exit.OK:
            raise LinkError(outcome.reason)


async def connect(
    *peers: str,
    channel: str = "",
    secret: str | bytes = "",
    wait: float = DEFAULT_WAIT,
    bind: str | None = None,
    family: int = 0,
    clock_offset: float = 0.0,
    plain: bool = False,
) -> Stream:
    """Punch a hole and return the one stream through it.

    The far side is the same call, `punchtunnel --stdio`, or `--to`, or the
    first client of `-L`.

    Args:
        peers: Addresses or names of one machine; all are tried at once.
        channel: Keeps links between the same two machines apart; equal on
            both sides.
        secret: The same on both sides, who then prove that they know it.
            Without one the link is sealed, but with whoever has answered.
        wait: Seconds to keep punching; 0 waits for ever.
        bind: Literal address of this machine to punch from.
        family: 4 or 6 to use only that; 0 for both.
        clock_offset: Seconds to add to a clock that is known to be wrong.
        plain: Do not seal; must be given on both sides.

    Returns:
        Reader and writer, as of `asyncio.open_connection`.  `write_eof()`
        ends one direction.  `await writer.wait_closed()` behind
        `writer.close()` returns when the far side has taken everything, and
        raises LinkError if it has not.  A reader raises LinkError where the
        stream was cut; only its true end reads as EOF.
        `writer.get_extra_info` knows "sockname", "peername" and "verifier".

    Raises:
        UsageError: No peer, or an argument that cannot be meant.
        NoHoleError: `wait` seconds have passed.
        RejectedError: The peer has another secret, role or version.
        LocalError: No port of this machine could be used.
        LinkError: The link was lost before there was a stream.
    """
    settings = _settings(Role.STDIO, peers, channel, secret, wait, bind, family, clock_offset, plain)
    tunnel = Tunnel(await _meet(settings), Role.STDIO)
    try:
        reader, writer = await anext(tunnel)
    except BaseException:
        await tunnel._end(cut=True)
        raise
    assert isinstance(writer, Writer)
    writer.delivered = tunnel._check
    return reader, writer


@contextlib.asynccontextmanager
async def open_tunnel(
    *peers: str,
    channel: str = "",
    secret: str | bytes = "",
    wait: float = DEFAULT_WAIT,
    bind: str | None = None,
    family: int = 0,
    clock_offset: float = 0.0,
    plain: bool = False,
) -> AsyncIterator[Tunnel]:
    """Punch a hole for any number of streams, in either direction.

        async with punchtunnel.open_tunnel("203.0.113.9", secret="…") as tunnel:
            reader, writer = await tunnel.open()
            async for reader, writer in tunnel:  # what the peer opens
                ...

    The far side is the same call, `punchtunnel -L` (each of its clients opens
    a stream), or `punchtunnel --to` (each stream becomes a connection to the
    target).  Arguments and errors are those of `connect`.

    Leaving the block closes what is still open and returns when the far side
    has taken everything and has closed its side too; a stream whose reader
    was not read to its end may be cut by that.  Leaving it by an exception
    cuts every stream.

    Raises:
        LinkError: The link was lost before everything was delivered.
    """
    both = Role.LISTEN | Role.TO
    settings = _settings(both, peers, channel, secret, wait, bind, family, clock_offset, plain)
    tunnel = Tunnel(await _meet(settings), both)
    try:
        yield tunnel
    except BaseException:
        await tunnel._end(cut=True)
        raise
    await tunnel._end(cut=False)
    await tunnel._check()


def _settings(
    role: Role,
    peers: Sequence[str],
    channel: str,
    secret: str | bytes,
    wait: float,
    bind: str | None,
    family: int,
    clock_offset: float,
    plain: bool,
) -> Settings:
    text = secret.decode("utf-8", "surrogateescape") if isinstance(secret, bytes) else secret
    traits = (Trait.PLAIN if plain else NO_TRAITS) | (Trait.FAST_AES if has_fast_aes() else NO_TRAITS)
    shared = secrets.normal(text) if text else b""
    return settings_from(peers, channel, wait, bind, family, clock_offset, role, traits, shared)


async def _meet(settings: Settings) -> Hole:
    """Punch until the peer does more than check the path (-z); that takes nothing from the wait but time."""
    loop = asyncio.get_running_loop()
    began, current = loop.time(), settings
    while Trait.CHECK in (hole := await _punch(current)).traits:
        session = Session(loop, hole, Plan(settings.role), events.unreported)
        try:
            session.start(hole.unread)
            await session.ended
        finally:
            session.close()
        current = settings.after(loop.time() - began)
    return hole


async def _punch(settings: Settings) -> Hole:
    """Open a hole in a thread, and end that when this is cancelled."""
    with Wake() as wake, ThreadPoolExecutor(1, "punch") as thread:
        punching = asyncio.wrap_future(thread.submit(open_hole, settings, signals=wake, rations=_RATIONS))
        try:
            return await asyncio.shield(punching)
        except asyncio.CancelledError:
            wake.note(signal.SIGINT)
            with contextlib.suppress(SignalError):
                (await punching).sock.close()
            raise
