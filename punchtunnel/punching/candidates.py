"""What can be dialled, and what becomes of a dial: plain values, which every part of a punch exchanges.

    strategy ──> Candidate ──> dialler ──> Fate ──> strategy

A PEER with a port, and the ports of an appointment, are candidates whose own and
far port differ.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection
from enum import Enum
from typing import NamedTuple

from punchtunnel.address import join_host_port
from punchtunnel.system.addresses import Address

# A port of this machine: each family has its own.
FamilyPort = tuple[socket.AddressFamily, int]
# The kernel chooses.
ANY_PORT = 0
# Errors of connect() by what they say about the way to the peer.
REFUSED = {errno.ECONNREFUSED, errno.ECONNRESET}
UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
FORBIDDEN = {errno.EPERM, errno.EACCES}


class Kind(Enum):
    """Where the ports of a candidate come from."""

    # Both sides derive one port from the clock and the channel, and use it at both ends.
    SAME_PORT = "same port"
    # Both sides are this machine, which needs two ports: the end that can bind the far
    # port listens on it, and the other end dials it from the own port.
    PAIR = "pair"
    # The peer's owner has forwarded, or opened, this far port; the own port is any.
    FORWARDED = "forwarded port"
    # Two sides that have met elsewhere have told each other which of their ports a STUN server has
    # seen, and as which: the own port is one of ours, the far port what was seen of one of theirs.
    OBSERVED = "observed port"
    # The far port is one that the peer's router may choose next.
    GUESSED = "guessed port"
    # The own port is a fresh one each time, so that our router chooses another one, which the peer may guess.
    FRESH = "fresh port"


# Their dials have a pace of their own, and nothing makes them all at once.
PACED = frozenset({Kind.GUESSED, Kind.FRESH})


# A NamedTuple, like the other small values of a punch and of the election: it takes 0.05 ms to make,
# a frozen dataclass with slots 0.4 ms, and every start makes all of them before its first SYN.  Equality
# and hash by value are all that is asked of them.
class Candidate(NamedTuple):
    """A way to the peer that can be dialled: at most one dial of it is in progress."""

    kind: Kind
    address: Address
    own_port: int
    far_port: int
    # Of several that are alike in everything else.
    number: int = 0

    @property
    def remote(self) -> str:
        """The far end as text."""
        return join_host_port(self.address.host, self.far_port)

    @property
    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """What `connect` takes."""
        return self.address.at(self.far_port)

    @property
    def listening_port(self) -> FamilyPort:
        """The port of this machine at which the peer's dial arrives."""
        return self.address.family, self.far_port if self.kind is Kind.PAIR else self.own_port


class Fate(Enum):
    """What became of the last dial of a candidate."""

    # There was none: this end of the pair listens.
    UNTRIED = "untried"
    PENDING = "pending"
    # RST.
    REFUSED = "refused"
    # ICMP, or no route from here.
    UNREACHABLE = "unreachable"
    # Nobody in this machine's own network has the address.
    ABSENT = "absent"
    # The ICMP time-exceeded that a hold provokes has ended it.
    EXPIRED = "expired"
    # Nothing came back.
    SILENT = "silent"
    # This machine's firewall.
    FORBIDDEN = "forbidden"
    # The own port could not be used.
    UNUSABLE = "unusable"
    # The system had no descriptor, or no memory, for a socket on it.
    STARVED = "starved"
    # It opened, and no hello of ours came: a router, or another program, has taken the port.
    CAPTURED = "captured"
    # It opened, a hello of ours came, and it was closed all the same.
    LOST = "lost"


# The more a fate tells about the far end, the earlier it stands: what a port has met once it can meet again.
_TELLING = (
    Fate.CAPTURED,
    Fate.LOST,
    Fate.REFUSED,
    Fate.ABSENT,
    Fate.FORBIDDEN,
    Fate.UNREACHABLE,
    Fate.UNUSABLE,
    Fate.EXPIRED,
    Fate.SILENT,
    Fate.PENDING,
    # A port that got a socket after all has met more.
    Fate.STARVED,
    Fate.UNTRIED,
)


def most_telling(fates: Collection[Fate]) -> Fate:
    """Return the fate, of those that the dials of one candidate have met, that tells most about the far end."""
    return min(fates, key=_TELLING.index)


def fate_of(code: int, *, held: bool) -> Fate:
    """Return what an error of connect() says.

    Args:
        code: The errno.
        held: The dial was a hold, which a router on the way must end.
    """
    if code in REFUSED:
        return Fate.REFUSED
    if code in UNREACHABLE:
        return Fate.EXPIRED if held else Fate.UNREACHABLE
    if code in FORBIDDEN:
        return Fate.FORBIDDEN
    return Fate.SILENT if code == errno.ETIMEDOUT else Fate.UNUSABLE
