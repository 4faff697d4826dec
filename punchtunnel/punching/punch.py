"""What opens a hole: the function of the library, and the one behind every command.

The loop that does it is in puncher.py.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable, Sequence

from punchtunnel.address import parse_bind, parse_peer
from punchtunnel.errors import UsageError
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.punching.hole import DEFAULT_WAIT, Hole, Settings
from punchtunnel.punching.puncher import Puncher
from punchtunnel.punching.rations import Rations
from punchtunnel.reporting import events
from punchtunnel.system.signals import Wake
from punchtunnel.words import usage


def punch(
    *peers: str,
    channel: str = "",
    wait: float = DEFAULT_WAIT,
    bind: str | None = None,
    family: int = 0,
    clock_offset: float = 0.0,
) -> Hole:
    """Open a hole to a program that punches towards this machine, and return it.

    Args:
        peers: Addresses or names of one machine; all are tried at once and
            the first good hole wins.
        channel: Keeps links between the same two machines apart; equal on
            both sides.
        wait: Seconds to keep trying; 0 waits for ever.
        bind: Literal address of this machine to punch from.
        family: 4 or 6 to use only that; 0 for both.
        clock_offset: Seconds to add to a clock that is known to be wrong.

    Returns:
        The hole.  Its far end is the same call in another program.

    Raises:
        UsageError: No peer, or one that is no address and has none.
        NoHoleError: `wait` seconds have passed.
        RejectedError: The peer runs another version, or not this function.
        LocalError: No port of this machine could be used.
    """
    # The caller gets the bare socket: sealing it is the caller's business.
    return open_hole(settings_from(peers, channel, wait, bind, family, clock_offset, Role.RAW, Trait.PLAIN))


def settings_from(
    peers: Sequence[str],
    channel: str,
    wait: float,
    bind: str | None,
    family: int,
    clock_offset: float,
    role: Role,
    traits: Trait,
    secret: bytes = b"",
) -> Settings:
    """Return what a program has given as settings; `punch` tells what each argument means.

    Raises:
        UsageError: One of them is wrong.
    """
    if family not in (0, 4, 6):
        raise UsageError(usage.NOT_A_FAMILY.format(family=family))
    if secret and Trait.PLAIN in traits:
        raise UsageError(usage.PLAIN_WITH_SECRET)
    return Settings(
        peers=[parse_peer(peer) for peer in peers],
        channel=channel,
        wait=wait,
        bind=None if bind is None else parse_bind(bind),
        family={0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}[family],
        clock_offset=clock_offset,
        role=role,
        traits=traits,
        secret=secret,
    )


def has_fast_aes() -> bool:
    """Tell whether the processor has AES instructions; where nothing is known, most have."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as file:
        return b" aes" in file.read(1 << 16)
    return True


def open_hole(
    settings: Settings,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    rng: random.Random | None = None,
    nonce: bytes | None = None,
    report: events.Report = events.unreported,
    signals: Wake | None = None,
    rations: Rations | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> Hole:
    """Punch as `settings` say; `punch` tells what is returned and raised.

    Args:
        settings: Checked values.
        clock: Unix time in seconds; decides the ports.
        monotonic: Any steady time in seconds; decides the waits.
        rng: Jitter and coins; the system's by default.
        nonce: NONCE_SIZE bytes; by default such that the side that was there
            first leads.
        report: Where events go.
        signals: What may end the wait.
        rations: What everybody has left of tries at the secret; the same object
            for all punches with it, or each one would give fresh tries.
        meanwhile: Called in a thread once the SYNs, if any, are under way: what
            comes behind the punch can be loaded while the peer is waited for.

    Raises:
        SignalError: A signal has come.
    """
    if not settings.peers:
        raise UsageError(usage.NO_PEER)
    if not 0 <= settings.wait < float("inf"):
        raise UsageError(usage.CANNOT_WAIT.format(seconds=settings.wait))
    try:
        settings.channel.encode()
    except UnicodeEncodeError as error:
        raise UsageError(usage.NOT_A_CHANNEL) from error
    rng, rations = rng or random.SystemRandom(), rations or Rations(monotonic)
    puncher = Puncher(settings, clock, monotonic, rng, nonce, report, signals, rations, meanwhile)
    try:
        return puncher.run()
    finally:
        puncher.close()
