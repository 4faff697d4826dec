"""What --doctor has learnt of this machine and of the way out: plain values, which findings.py judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from punchtunnel.address import Place
from punchtunnel.doctor.firewall import Table
from punchtunnel.system.routes import Route


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of this machine, compared by its own system or by an NTP server.

    Attributes:
        now: Unix time in seconds.
        source: The server, or "" for the system.
        offset_s: Seconds to add to the clock; None if that is not known.
        error_s: By how many seconds `offset_s` may be wrong.
        reason: Why `offset_s` is not known.
    """

    now: float
    source: str = ""
    offset_s: float | None = None
    error_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Bind:
    """What --bind names: an address of this machine, or an interface; neither is any."""

    host: str = ""
    interface: str = ""


ANY = Bind()


@dataclass(frozen=True, slots=True)
class Uplink:
    """An interface with a route to the Internet, and the addresses that dials have that leave by it."""

    interface: str
    sources: Sequence[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """What this machine tells about itself; None where it does not tell.

    Attributes:
        routes: The default route of each IP version, 4 and 6, that has one.
        address4: The address that it would punch from; "" if there is none.
        addresses6: The addresses with global scope.
        ephemeral: The ranges that outgoing connections get their ports from.
        taken: How many ports of the punch's range are in use.
        sharing: Why sockets cannot share a port; "" if they can.
        tables: The firewall's tables.
        tables_unread: Why `tables` is None.
        uplinks: The interfaces that lead out, the one that the kernel would take first.
    """

    routes: Mapping[int, Route] | None = None
    address4: str = ""
    addresses6: Sequence[str] | None = None
    ephemeral: Sequence[tuple[int, int]] | None = None
    taken: int = 0
    sharing: str = ""
    tables: Sequence[Table] | None = None
    tables_unread: str = ""
    uplinks: Sequence[Uplink] | None = None


@dataclass(frozen=True, slots=True)
class Sight:
    """How one STUN server sees one of our ports.

    Attributes:
        server: What was asked.
        own: Our end of the connection.
        seen: Our end as the server sees it; None if it does not tell.
        reason: Why it does not.
        version: The IP version that the server was asked in, 4 or 6; through a NAT64 it is 4.
        silent: Nothing at all has come from the server.
    """

    server: str
    own: Place
    seen: Place | None = None
    reason: str = ""
    version: int = 4
    silent: bool = False
