"""Punch a TCP hole between two machines that know only each other's address.

The life of a run, in six steps:

    1. command.py       options become values
    2. schedule.py  the clock and the channel become ports
    3. puncher.py   every port is dialled, and some listen, until connections open
    4. election.py  both sides agree on one connection, the hole
    5. link.py      the hole becomes a link that carries many streams (mux.py)
    6. session.py    each stream is joined to stdio, a local client or a target
                    (stdio.py), until both directions have ended

doctor/ looks at one machine without any of this (--doctor).

As a library:

    hole = punchtunnel.punch("203.0.113.9")             the bare socket, blocking
    reader, writer = await punchtunnel.connect(…)       one sealed stream
    async with punchtunnel.open_tunnel(…) as tunnel:    any number of streams
"""

from typing import TYPE_CHECKING, Any

from punchtunnel.errors import (
    LinkError,
    LocalError,
    NoHoleError,
    PeerError,
    PunchtunnelError,
    RejectedError,
    UsageError,
)
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.punch import punch

if TYPE_CHECKING:
    from punchtunnel.library.tunnel import Tunnel, connect, open_tunnel

__version__ = "0.1.0"

__all__ = [
    "Hole",
    "LinkError",
    "LocalError",
    "NoHoleError",
    "PeerError",
    "PunchtunnelError",
    "RejectedError",
    "Tunnel",
    "UsageError",
    "__version__",
    "connect",
    "open_tunnel",
    "punch",
]

# Loaded when they are asked for: the command line does not need asyncio before the first SYN.
_LATE = ("Tunnel", "connect", "open_tunnel")


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from punchtunnel.library import tunnel

    return getattr(tunnel, name)
