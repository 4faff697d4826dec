"""The calls for asyncio programs: one stream (`connect`), any number (`open_tunnel`), tunnel after tunnel.

The policy is the command line's (session/).  `connect` has the role of stdio;
`open_tunnel` and `open_tunnels` have those of -L and --to at once, so that
they meet either.  The punch is synchronous and runs in a thread; cancelling
the call ends the punch.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from punchtunnel import words
from punchtunnel.errors import Exit, LinkError, LocalError, PunchtunnelError, SignalError, UsageError
from punchtunnel.library.arguments import settings_of
from punchtunnel.library.gathering import let_go
from punchtunnel.library.streams import Writer
from punchtunnel.library.tunnel import Stream, Tunnel
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.rations import Rations
from punchtunnel.punching.settings import (
    DEFAULT_RESUME,
    DEFAULT_SESSIONS,
    DEFAULT_WAIT,
    Settings,
)
from punchtunnel.reach.gather import Gatherer
from punchtunnel.reporting import events
from punchtunnel.session.holes import Holes
from punchtunnel.session.outcome import Outcome
from punchtunnel.session.plan import Plan
from punchtunnel.session.roles import Ends
from punchtunnel.session.seeker import Seekers, seekers
from punchtunnel.session.service import Service
from punchtunnel.session.session import Session
from punchtunnel.system.signals import Wake
from punchtunnel.words import usage

# One for the whole process: a program that punches again and again must not give strangers fresh tries each time.
_RATIONS = Rations(time.monotonic)
# This role fits -L, --to and the same call.
_EITHER = Role.LISTEN | Role.TO


async def connect(
    *peers: str,
    channel: str = "",
    secret: str | bytes = "",
    no_secret: bool = False,
    wait: float = DEFAULT_WAIT,
    bind: str | None = None,
    family: int = 0,
    clock_offset: float = 0.0,
    plain: bool = False,
    resume: float = DEFAULT_RESUME,
    port: int = 0,
    map_ports: bool = True,
    meet: Sequence[str] = (),
    relay: Sequence[str] = (),
    stun: Sequence[str] = (),
) -> Stream:
    """Punch a hole and return the one stream through it.

    The far side is the same call, `--stdio`, `--to`, or the first client of `-L`.

    Args:
        peers: Addresses or names of one machine; all are tried at once.  "203.0.113.9:40022" has a `port` there.
        channel: Keeps links between the same two machines apart; equal on both sides.
        secret: The same on both sides, which prove it.  Without one the link is sealed, but the peer not authenticated.
        no_secret: There is none, on purpose: whoever answers at the peer's address is let in.  Without
            it a call without a secret warns, if the peer is another machine.
        wait: Seconds to keep punching; 0 waits for ever.
        bind: Literal address, or interface, of this machine to punch from.
        family: 4 or 6 to use only that; 0 for both.
        clock_offset: Seconds to add to a wrong clock.
        plain: Do not seal; must be given on both sides.
        resume: Seconds to look for another hole when one is lost; 0: none.
        port: Listen on it too: it leads here from outside, and the peer is given it.
        map_ports: Ask this machine's router to forward a port meanwhile.
        meet: Transit relays, HOST[:PORT], where the two sides meet if no hole opens at once; no payload passes them.
        relay: The same, and they carry the session until there is a direct hole.  With either, `peers` may be empty.
        stun: STUN servers, HOST[:PORT], that are asked after such a meeting at which ports they see this machine.

    Returns:
        Reader and writer, as of `asyncio.open_connection`.  `write_eof()` ends one direction.  `await
        writer.wait_closed()`, after `writer.close()`, returns when the far side has taken everything and
        has ended its direction too, and raises LinkError if that did not happen.  The reader raises
        LinkError where the stream was cut; only the far side's true end reads as EOF.
        `writer.get_extra_info` knows "sockname", "peername", "verifier" and "service".

    Raises:
        UsageError: No peer, or an argument that cannot be meant.
        NoHoleError: `wait` seconds have passed.
        RejectedError: The peer has another secret, role or version.
        LocalError: No port of this machine could be used.
        LinkError: The link was lost before there was a stream.
    """
    settings = settings_of(
        Role.STDIO, peers, channel, secret, no_secret, wait, bind, family, clock_offset, plain, resume, port,
        map_ports, meet, relay, stun,
    )  # fmt: skip
    if settings.trusts_anyone and not no_secret:
        warnings.warn(words.CONNECTS_TO_ANYONE, stacklevel=2)
    return await _only_stream(await _meet(settings, resume))


async def _only_stream(tunnel: Tunnel) -> Stream:
    """Return the one stream of a tunnel, which ends with it."""
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
    no_secret: bool = False,
    wait: float = DEFAULT_WAIT,
    bind: str | None = None,
    family: int = 0,
    clock_offset: float = 0.0,
    plain: bool = False,
    resume: float = DEFAULT_RESUME,
    port: int = 0,
    map_ports: bool = True,
    meet: Sequence[str] = (),
    relay: Sequence[str] = (),
    stun: Sequence[str] = (),
) -> AsyncIterator[Tunnel]:
    """Punch a hole for any number of streams, in either direction.

        async with punchtunnel.open_tunnel("203.0.113.9", secret="…") as tunnel:
            reader, writer = await tunnel.open()
            async for reader, writer in tunnel:  # what the peer opens
                ...

    The far side is the same call, `punchtunnel -L` (each of its clients opens
    a stream), or `punchtunnel --to` (each stream becomes a connection to the
    target).  Arguments and errors are those of `connect`.  The peer can open
    streams, so a peer that is another machine needs a `secret`, or `no_secret`.

    Leaving the block closes what is still open, and returns when the far side
    has taken everything and has closed its side too.  That may cut a stream
    whose reader was not read to its end.  Leaving the block by an exception
    cuts every stream.

    Raises:
        UsageError: As `connect`, or there is neither a secret nor `no_secret`.
        LinkError: The link was lost before everything was delivered.
    """
    settings = settings_of(
        _EITHER, peers, channel, secret, no_secret, wait, bind, family, clock_offset, plain, resume, port,
        map_ports, meet, relay, stun,
    )  # fmt: skip
    tunnel = await _meet(settings, resume)
    async with _ending(tunnel):
        yield tunnel
    await tunnel._check()


async def open_tunnels(
    *peers: str,
    channel: str = "",
    secret: str | bytes = "",
    no_secret: bool = False,
    wait: float = 0.0,
    bind: str | None = None,
    family: int = 0,
    clock_offset: float = 0.0,
    plain: bool = False,
    resume: float = DEFAULT_RESUME,
    port: int = 0,
    map_ports: bool = True,
    meet: Sequence[str] = (),
    relay: Sequence[str] = (),
    stun: Sequence[str] = (),
) -> AsyncGenerator[Tunnel, None]:
    """Punch again when a tunnel has ended, as `-k` does: one tunnel after another.

        async for tunnel in punchtunnel.open_tunnels("203.0.113.9", secret="…"):
            with contextlib.suppress(punchtunnel.LinkError):  # the link was lost
                async for reader, writer in tunnel:
                    ...

    Arguments are those of `open_tunnel`; `wait` counts anew for each tunnel.  The
    end of the loop's body closes what is still open, as the end of
    `open_tunnel`'s block does, but a lost link raises nothing: the next tunnel
    follows.  A peer that is rejected is tried again after a pause, and a name
    that cannot be resolved is looked up again.  After the first tunnel, an
    address of this machine that has gone is waited for as well.

    Raises:
        UsageError, NoHoleError, LocalError: As `open_tunnel`.
    """
    settings = settings_of(
        _EITHER, peers, channel, secret, no_secret, wait, bind, family, clock_offset, plain, resume, port,
        map_ports, meet, relay, stun,
    )  # fmt: skip
    async with _punches(replace(settings, keep=True)) as (holes, wake):
        goes_on = True
        while goes_on:
            hole, tunnel = await _next(holes, wake, Plan(settings.role, Ends(), resume=resume))
            async with _ending(tunnel):
                yield tunnel
            goes_on = holes.goes_on(hole, await tunnel._outcome())


async def serve_tunnels(
    handle: Callable[[Tunnel], Awaitable[object]],
    *peers: str,
    sessions: int = DEFAULT_SESSIONS,
    channel: str = "",
    secret: str | bytes = "",
    no_secret: bool = False,
    wait: float = 0.0,
    bind: str | None = None,
    family: int = 0,
    clock_offset: float = 0.0,
    plain: bool = False,
    resume: float = DEFAULT_RESUME,
    port: int = 0,
    map_ports: bool = True,
    meet: Sequence[str] = (),
    relay: Sequence[str] = (),
    stun: Sequence[str] = (),
) -> None:
    """Serve many peers at once, as `-k --to` does: `handle(tunnel)` runs as a task for each of them.

    The far side is `punchtunnel --stdio`, `-L`, `connect` or `open_tunnel`, and
    opens the streams.  Arguments are those of `open_tunnels`, and how many tunnels
    there are at one time, at most: one peer more is told so.  The end of `handle` ends its tunnel
    as the end of `open_tunnel`'s block does.  A LinkError that it raises ends its
    tunnel alone; any other exception ends the call, and every tunnel with it, as
    cancelling the call does.

    Raises:
        UsageError, NoHoleError, LocalError: As `open_tunnel`.
        ExceptionGroup: What `handle` has raised.
    """
    settings = settings_of(
        Role.TO, peers, channel, secret, no_secret, wait, bind, family, clock_offset, plain, resume, port,
        map_ports, meet, relay, stun,
    )  # fmt: skip
    if sessions < 1:
        raise UsageError(usage.NO_SESSIONS)
    settings = replace(settings, keep=True, traits=settings.traits | Trait.SERVICE)
    async with _punches(settings) as (holes, wake):
        first = await _punch(holes, wake)
        async with asyncio.TaskGroup() as group:

            def begin(hole: Hole, _: events.Report, seekers: Seekers) -> Session:
                tunnel = Tunnel(hole, Plan(settings.role, Ends(), resume=resume), seekers, holes)
                group.create_task(_handle(tunnel, handle))
                return tunnel._session

            service = Service(holes, begin, events.unreported, sessions, wake)
            failure = await _serve(service, first)
    if failure is not None:
        raise failure


async def _handle(tunnel: Tunnel, handle: Callable[[Tunnel], Awaitable[object]]) -> None:
    """Have one tunnel handled, and end it."""
    with contextlib.suppress(LinkError):
        async with _ending(tunnel):
            if await tunnel._met():
                await handle(tunnel)


async def _serve(service: Service, first: Hole) -> PunchtunnelError | None:
    """Serve until no more peers can come, and return why."""
    try:
        service.start(first)
        await asyncio.shield(service.ended)
    except BaseException:
        # The peers are told; that takes a second at most.
        service.stop(Exit.LOST)
        await asyncio.wait([service.ended])
        raise
    finally:
        service.close()
    return service.failure


@contextlib.asynccontextmanager
async def _ending(tunnel: Tunnel) -> AsyncIterator[None]:
    """End a tunnel when the block ends; an exception cuts it."""
    try:
        yield
    except BaseException:
        await tunnel._end(cut=True)
        raise
    await tunnel._end(cut=False)


async def _meet(settings: Settings, resume: float) -> Tunnel:
    """Return one tunnel."""
    gathering = Gatherer(settings)
    try:
        with Wake() as wake:
            holes = Holes(settings, wake, rations=_RATIONS, gathering=gathering)
            _, tunnel = await _next(holes, wake, Plan(settings.role, Ends(), resume=resume))
    except BaseException:
        await let_go(gathering)
        raise
    # The tunnel needs it to its end, and so does the thread that looks for another hole.
    loop = asyncio.get_running_loop()
    tunnel._life.add_done_callback(lambda _: loop.run_in_executor(None, gathering.close))
    return tunnel


@contextlib.asynccontextmanager
async def _punches(settings: Settings) -> AsyncIterator[tuple[Holes, Wake]]:
    """Return what punches, again and again; its end waits for this machine's routers in a thread."""
    gathering = Gatherer(settings)
    try:
        with Wake() as wake:
            yield Holes(settings, wake, rations=_RATIONS, gathering=gathering), wake
    finally:
        await let_go(gathering)


async def _next(holes: Holes, wake: Wake, plan: Plan) -> tuple[Hole, Tunnel]:
    """Return the next hole with a peer on it, and its tunnel."""
    while True:
        hole = await _punch(holes, wake)
        if Trait.CHECK in hole.traits:
            outcome = await _be_checked(hole, plan)
        else:
            tunnel = Tunnel(hole, plan, seekers(holes), holes)
            try:
                if await tunnel._met():
                    return hole, tunnel
            except asyncio.CancelledError:
                await tunnel._end(cut=True)
                raise
            outcome = await tunnel._outcome()
        holes.goes_on(hole, outcome)


async def _be_checked(hole: Hole, plan: Plan) -> Outcome:
    """Answer a peer that only checks the path (-z); it costs only its time."""
    session = Session(asyncio.get_running_loop(), hole, plan, events.unreported)
    try:
        session.start(hole.unread)
        return await session.ended
    finally:
        session.close()


async def _punch(holes: Holes, wake: Wake) -> Hole:
    """Punch in a thread; when this call is cancelled, end the punch."""
    with ThreadPoolExecutor(1, "punch") as thread:
        try:
            punching = asyncio.wrap_future(thread.submit(holes.next))
        except RuntimeError as error:
            raise LocalError(words.NO_THREAD) from error
        try:
            return await asyncio.shield(punching)
        except asyncio.CancelledError:
            wake.note(signal.SIGINT)
            with contextlib.suppress(SignalError):
                (await punching).sock.close()
            raise
