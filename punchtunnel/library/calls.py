"""The calls for asyncio programs: one stream (`connect`), or any number (`open_tunnel`).

The policy is the command line's (session/): a program has the role of stdio,
or of -L and --to at once, so that it meets either.  The punch is synchronous
and runs in a thread; cancelling ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from punchtunnel.errors import SignalError
from punchtunnel.library.streams import Writer
from punchtunnel.library.tunnel import Stream, Tunnel
from punchtunnel.protocol import secret as secrets
from punchtunnel.protocol.hello import NO_TRAITS, Role, Trait
from punchtunnel.punching.hole import DEFAULT_WAIT, Hole, Settings
from punchtunnel.punching.punch import has_fast_aes, settings_from
from punchtunnel.punching.rations import Rations
from punchtunnel.reporting import events
from punchtunnel.session.holes import Holes
from punchtunnel.session.plan import Plan
from punchtunnel.session.roles import Ends
from punchtunnel.session.session import Session
from punchtunnel.system.signals import Wake

# Of the process: a program that punches again and again must not give strangers fresh tries each time.
_RATIONS = Rations(time.monotonic)


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
    with Wake() as wake:
        holes = Holes(settings, wake, rations=_RATIONS)
        while Trait.CHECK in (hole := await _next(holes, wake)).traits:
            session = Session(loop, hole, Plan(settings.role, Ends()), events.unreported)
            try:
                session.start(hole.unread)
                holes.goes_on(hole, await session.ended)
            finally:
                session.close()
        return hole


async def _next(holes: Holes, wake: Wake) -> Hole:
    """Wait for a hole in a thread, and end that when this is cancelled."""
    with ThreadPoolExecutor(1, "punch") as thread:
        punching = asyncio.wrap_future(thread.submit(holes.next))
        try:
            return await asyncio.shield(punching)
        except asyncio.CancelledError:
            wake.note(signal.SIGINT)
            with contextlib.suppress(SignalError):
                (await punching).sock.close()
            raise
