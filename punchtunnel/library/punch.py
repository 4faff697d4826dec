"""The function of the library that opens a bare hole."""

from __future__ import annotations

from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.settings import DEFAULT_WAIT, settings_from


def punch(
    *peers: str,
    channel: str = "",
    wait: float = DEFAULT_WAIT,
    bind: str | None = None,
    family: int = 0,
    clock_offset: float = 0.0,
    port: int = 0,
) -> Hole:
    """Open a hole to a program that punches towards this machine, and return it.

    Args:
        peers: Addresses or names of one machine; all are tried at once and
            the first good hole wins.
        channel: Keeps links between the same two machines apart; equal on
            both sides.
        wait: Seconds to keep trying; 0 waits for ever.
        bind: Literal address, or interface, of this machine to punch from.
        family: 4 or 6 to use only that; 0 for both.
        clock_offset: Seconds to add to a clock that is known to be wrong.
        port: Listen on it too: it leads here from outside, and the peer is given it.

    Returns:
        The hole.  Its far end is the same call in another program.

    Raises:
        UsageError: No peer, or one that is no address and has none.
        NoHoleError: `wait` seconds have passed.
        RejectedError: The peer runs another version, or not this function.
        LocalError: No port of this machine could be used.
    """
    # The caller gets the bare socket: sealing it is the caller's business.
    return open_hole(settings_from(peers, channel, wait, bind, family, clock_offset, Role.RAW, Trait.PLAIN, port=port))
