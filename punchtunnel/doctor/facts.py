"""What --doctor knows of this machine and of the way out: plain values, judged by findings.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from punchtunnel.address import Place
from punchtunnel.doctor.firewall import Table
from punchtunnel.system.routes import Route


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of this machine, as `source` sees it: its system, or an NTP server.

    Attributes:
        now: Unix time in seconds.
        source: "" for the system.
        offset_s: Seconds to add to it; None if that is not known.
        error_s: How far off that may be.
        reason: Why it is not known.
    """

    now: float
    source: str = ""
    offset_s: float | None = None
    error_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What this machine says about itself; None where it does not say.

    Attributes:
        routes: The default route of each version, 4 and 6, that has one.
        address4: From which it would punch; "" if there is none.
        addresses6: With global scope.
        ephemeral: Lowest and highest port that outgoing connections get,
            without the reserved ones.
        taken: How many ports of the range are in use.
        sharing: Why a port cannot be shared; "" if it can.
        tables: The firewall's.
        tables_unread: Why there are none.
    """

    routes: Mapping[int, Route] | None = None
    address4: str = ""
    addresses6: Sequence[str] | None = None
    ephemeral: Sequence[tuple[int, int]] | None = None
    taken: int = 0
    sharing: str = ""
    tables: Sequence[Table] | None = None
    tables_unread: str = ""


@dataclass(frozen=True, slots=True)
class Sight:
    """How one STUN server sees one of our ports; `seen` is None if it does not say, for `reason`."""

    server: str
    own: Place
    seen: Place | None = None
    reason: str = ""
