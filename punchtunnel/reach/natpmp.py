"""Ask a router for its address and for a port by NAT-PMP (RFC 6886): bytes only.

    client                                              router, UDP port 5351
      |  0, 0                                     ------>   |   which address have you?  (§3.2)
      |  <------  0, 128, result, epoch, address            |
      |  0, 2, 0, own port, external port, life   ------>   |   map this TCP port      (§3.3)
      |  <------  0, 130, result, epoch, own, external, life|

    0         1         2          4        8        10        12         16
    | version | opcode  | result   | epoch  | own    | external| lifetime |
    |         |         |          |        | address          |

A suggested external port is only a wish (§3.3): the caller compares.  External
port 0 with lifetime 0 deletes a mapping (§3.4).  A request of another version,
as of PCP, is answered with version 0 and result 1 (§3.5).
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from punchtunnel.errors import PeerError
from punchtunnel.words import reach as words

PORT = 5351
VERSION = 0
_ANSWER = 0x80
ASK_ADDRESS, MAP_TCP = 0, 2
UNSUPPORTED_VERSION, NOT_AUTHORIZED, NETWORK_FAILURE, OUT_OF_RESOURCES, UNSUPPORTED_OPCODE = 1, 2, 3, 4, 5
# What a result means to a person.
REFUSALS = {
    NOT_AUTHORIZED: words.NOT_ALLOWED,
    NETWORK_FAILURE: words.NO_NETWORK,
    OUT_OF_RESOURCES: words.NO_ROOM,
    UNSUPPORTED_OPCODE: words.NOT_SUPPORTED,
}
_REQUEST = struct.Struct("!BB2xHHI")
_HEADER = struct.Struct("!BBHI")
_MAPPED = struct.Struct("!HHI")


class Seen(NamedTuple):
    """The router's external address, and the age of its table in seconds."""

    host: str
    epoch: int


class Mapped(NamedTuple):
    """A mapping that stands for `lifetime` seconds; 0 s: it was deleted."""

    own_port: int
    external_port: int
    lifetime: int
    epoch: int


class Refusal(NamedTuple):
    """A result other than 0, for the request with this opcode."""

    opcode: int
    result: int


def ask_address() -> bytes:
    """Return a request for the router's external address."""
    return bytes([VERSION, ASK_ADDRESS])


def ask_mapping(own_port: int, external_port: int, lifetime: int) -> bytes:
    """Return a request for a TCP mapping of so many seconds, or with `lifetime` 0 the one that deletes it."""
    return _REQUEST.pack(VERSION, MAP_TCP, own_port, external_port if lifetime else 0, lifetime)


def read_answer(data: bytes) -> Seen | Mapped | Refusal:
    """Read one datagram of a router.

    Raises:
        PeerError: It is no answer of NAT-PMP, or cut short.
    """
    if len(data) < _HEADER.size:
        raise PeerError(words.NO_NATPMP)
    version, opcode, result, epoch = _HEADER.unpack_from(data)
    if version != VERSION or opcode < _ANSWER:
        raise PeerError(words.NO_NATPMP)
    if result:
        # An error may end here (§3.5), and answer an opcode that only other versions have.
        return Refusal(opcode - _ANSWER, result)
    body = data[_HEADER.size :]
    if opcode == _ANSWER + ASK_ADDRESS and len(body) >= 4:
        return Seen(str(ipaddress.IPv4Address(body[:4])), epoch)
    if opcode == _ANSWER + MAP_TCP and len(body) >= _MAPPED.size:
        own_port, external_port, lifetime = _MAPPED.unpack_from(body)
        return Mapped(own_port, external_port, lifetime, epoch)
    raise PeerError(words.NO_NATPMP)
