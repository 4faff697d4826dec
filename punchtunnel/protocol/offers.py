"""What two sides tell each other on a relayed link, so that they can meet without the relay.

    leader                          follower
      |  OFFER number, candidates --->  |
      |  <--- OFFER number, candidates  |
      |  dials when it has come         |  dials half a round trip after it has said so

    version | flags | number | waited | port use | last | low | high | count | candidates ...
       1    |   1   |   2    |   4    |    1     |  2   |  2  |  2   |   1   |
    candidate:  kind (1) | IP version (1) | port (2) | address (16, IPv4 in the first four bytes)

Rule 1: only a peer that has proved the secret is heard here, and still it is believed little:
        there are at most MAX_CANDIDATES, and which of them are dialled is for the other side
        to decide (punching/appointed.py).
Rule 2: the leader's number grows with each try, and the follower repeats it.  A follower that
        wants a try says number 0.

docs/PROTOCOL.md, "Meeting at a relay", has the bytes.  Pure.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from punchtunnel.errors import PeerError
from punchtunnel.words import peer as words

VERSION = 1
MAX_CANDIDATES = 16
# What has no port, or no samples.
NO_PORT = 0
_HEAD = struct.Struct("!BBHIBHHHB")
_CANDIDATE = struct.Struct("!BBH16s")
MAX_OFFER = _HEAD.size + MAX_CANDIDATES * _CANDIDATE.size
LAST_NUMBER = 0xFFFF
_LONGEST_WAITED = 0xFFFFFFFF


class Flag(IntFlag):
    """What else an offer says."""

    # The relay must not carry payload (--meet): both sides hold it back until there is a direct hole.
    DIRECT_ONLY = 1


class Source(IntEnum):
    """How a side knows that a candidate leads to it."""

    # An address of its own, or of its router: the ports of the schedule are dialled there.
    HOST = 1
    # A port that its router forwards to a listener.
    MAPPED = 2
    # The port at which a STUN server has seen one of its ports; it dials from that one, and listens on it.
    OBSERVED = 3


class PortUse(IntEnum):
    """How a side's router chooses the outside port of a connection; reach/portclass.py judges it by samples."""

    UNKNOWN = 0
    # Kept, or nothing translates.
    PRESERVING = 1
    # Another one, but the same towards everybody: what a STUN server sees is what the peer may dial.
    INDEPENDENT = 2
    # Another one for each connection: the next one, one of a block, any.
    SEQUENTIAL = 3
    WINDOW = 4
    RANDOM = 5

    @property
    def is_hard(self) -> bool:
        """Tell whether the port of the next connection is not known before it is made."""
        return self >= PortUse.SEQUENTIAL


class Offered(NamedTuple):
    """One candidate; `port` is NO_PORT for a HOST."""

    source: Source
    host: str
    port: int = NO_PORT


class Offer(NamedTuple):
    """One message.

    Attributes:
        number: Of the try; 0 asks for one.
        flags: See Flag.
        waited: Seconds from the start of the punch to the relayed connection.
        port_use: Of IPv4.
        last, low, high: Outside ports that were seen: the latest, the lowest, the highest; NO_PORT if none was.
        candidates: At most MAX_CANDIDATES.
    """

    number: int
    flags: Flag = Flag(0)
    waited: float = 0.0
    port_use: PortUse = PortUse.UNKNOWN
    last: int = NO_PORT
    low: int = NO_PORT
    high: int = NO_PORT
    candidates: tuple[Offered, ...] = ()

    def encode(self) -> bytes:
        """Return the bytes on the wire, at most MAX_OFFER."""
        milliseconds = min(int(self.waited * 1000), _LONGEST_WAITED)
        shown = self.candidates[:MAX_CANDIDATES]
        head = _HEAD.pack(
            VERSION,
            self.flags,
            self.number & LAST_NUMBER,
            milliseconds,
            self.port_use,
            self.last,
            self.low,
            self.high,
            len(shown),
        )
        return head + b"".join(map(_encoded, shown))


def _encoded(one: Offered) -> bytes:
    address = ip_address(one.host)
    return _CANDIDATE.pack(one.source, address.version, one.port, address.packed.ljust(16, b"\0"))


def decode_offer(data: bytes) -> Offer:
    """Decode one message.  Candidates of a kind that is not known here are left out, as are unknown flags.

    Raises:
        PeerError: It is none, or of another version.
    """
    if len(data) < _HEAD.size or data[0] != VERSION:
        raise PeerError(words.NOT_AN_OFFER)
    _, flags, number, waited, port_use, last, low, high, count = _HEAD.unpack_from(data)
    if count > MAX_CANDIDATES or len(data) != _HEAD.size + count * _CANDIDATE.size or port_use > max(PortUse):
        raise PeerError(words.NOT_AN_OFFER)
    found = (_decoded(*_CANDIDATE.unpack_from(data, _HEAD.size + at * _CANDIDATE.size)) for at in range(count))
    return Offer(
        number,
        Flag(flags & Flag.DIRECT_ONLY),
        waited / 1000,
        PortUse(port_use),
        last,
        low,
        high,
        tuple(one for one in found if one is not None),
    )


def _decoded(source: int, version: int, port: int, packed: bytes) -> Offered | None:
    if version not in (4, 6):
        raise PeerError(words.NOT_AN_OFFER)
    address = IPv4Address(packed[:4]) if version == 4 else IPv6Address(packed)
    if source not in set(Source) or (source == Source.HOST) != (port == NO_PORT):
        return None
    return Offered(Source(source), str(address), port)
