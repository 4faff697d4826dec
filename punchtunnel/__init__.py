"""Punch a TCP hole between two machines that know only each other's address.

The life of a run, a folder for each part of it:

    cli/         options become values
    protocol/    the clock and the channel become ports; both sides agree on one
                 connection, and on keys; many streams share it
    punching/    every port is dialled, and some listen, until there is a hole
    link/        the hole becomes a link that carries many streams
    ends/        what a stream is joined to: stdio, a local client, a target
    session/     who opens streams, and how a session ends; one hole after another
    reporting/   what people, programs and service managers are told
    system/      what this machine's kernel knows and does
    doctor/      one machine looked at without any of this (--doctor)

As a library (library/):

    hole = punchtunnel.punch("203.0.113.9")             the bare socket, blocking
    reader, writer = await punchtunnel.connect(…)       one sealed stream
    async with punchtunnel.open_tunnel(…) as tunnel:    any number of streams
    async for tunnel in punchtunnel.open_tunnels(…):    one tunnel after another
    await punchtunnel.serve_tunnels(handle, …)          many tunnels at once
"""

# Nothing is imported before a name is asked for, not even `typing`: importing
# costs time, and until __main__ has set its signals Ctrl-C shows a traceback.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from punchtunnel.errors import (
        LinkError,
        LocalError,
        NoHoleError,
        PeerError,
        PunchtunnelError,
        RejectedError,
        UsageError,
    )
    from punchtunnel.library.calls import connect, open_tunnel, open_tunnels, serve_tunnels
    from punchtunnel.library.punch import punch
    from punchtunnel.library.tunnel import Tunnel
    from punchtunnel.punching.hole import Hole

__version__ = "0.2.0"

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
    "open_tunnels",
    "punch",
    "serve_tunnels",
]

_MODULES = {
    "Hole": "punching.hole",
    "Tunnel": "library.tunnel",
    "connect": "library.calls",
    "open_tunnel": "library.calls",
    "open_tunnels": "library.calls",
    "punch": "library.punch",
    "serve_tunnels": "library.calls",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"punchtunnel.{_MODULES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
