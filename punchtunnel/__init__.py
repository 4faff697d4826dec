"""Punch a TCP hole between two machines that know only each other's address.

The life of a run, in six steps:

    1. cli.py       options become values
    2. schedule.py  the clock and the channel become ports
    3. punch.py     every port listens and dials, until connections open
    4. election.py  both sides agree on one connection, the hole
    5. link.py      the hole becomes a link that carries many streams (mux.py)
    6. bridge.py    each stream is joined to stdio, a local client or a target
                    (ends.py), until both directions have ended

doctor/ looks at one machine without any of this (--doctor).

As a library:

    hole = punchtunnel.punch("203.0.113.9")
    hole.sock.sendall(b"hello")
"""

from punchtunnel.errors import (
    LinkError,
    LocalError,
    NoHoleError,
    PeerError,
    PunchtunnelError,
    RejectedError,
    UsageError,
)
from punchtunnel.punch import Hole, punch

__version__ = "0.1.0"

__all__ = [
    "Hole",
    "LinkError",
    "LocalError",
    "NoHoleError",
    "PeerError",
    "PunchtunnelError",
    "RejectedError",
    "UsageError",
    "__version__",
    "punch",
]
