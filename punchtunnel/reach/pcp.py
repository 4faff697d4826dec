"""Ask a router for a port by PCP (RFC 6887), the successor of NAT-PMP: bytes only.

    client                                              router, UDP port 5351
      |  MAP, nonce, own port, wished place, life  ------>   |
      |  <------  MAP, result, epoch, nonce, own port, place, life

    0         1          2      3        4          8               24
    | version | R opcode | 0    | result | lifetime | client address |      request (§7.1)
    | version | R opcode | 0    | result | lifetime | epoch, 12 × 0  |      answer (§7.2)

    24             36         37    40         42              44               60
    | nonce (12)   | protocol | 0   | own port | external port | external address |    MAP (§11.1)

IPv4 addresses stand in their IPv4-mapped form (§5).  Towards a router of IPv6
a MAP opens its firewall, and external and own place are the same.  What is
granted may differ from what was wished, so the caller compares.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from punchtunnel.address import Place
from punchtunnel.errors import PeerError
from punchtunnel.words import reach as words

VERSION = 2
NONCE_SIZE = 12
_ANSWER = 0x80
_ANNOUNCE, _MAP = 0, 1
# IANA protocol numbers.
_TCP = 6
(
    UNSUPPORTED_VERSION,
    NOT_AUTHORIZED,
    MALFORMED_REQUEST,
    UNSUPPORTED_OPCODE,
    UNSUPPORTED_OPTION,
    MALFORMED_OPTION,
    NETWORK_FAILURE,
    NO_RESOURCES,
    UNSUPPORTED_PROTOCOL,
    QUOTA_EXCEEDED,
    CANNOT_PROVIDE_EXTERNAL,
    ADDRESS_MISMATCH,
) = range(1, 13)
# What a result means to a person; the others are faults of a program.
REFUSALS = {
    UNSUPPORTED_VERSION: words.NOT_SUPPORTED,
    NOT_AUTHORIZED: words.NOT_ALLOWED,
    UNSUPPORTED_OPCODE: words.NOT_SUPPORTED,
    NETWORK_FAILURE: words.NO_NETWORK,
    NO_RESOURCES: words.NO_ROOM,
    UNSUPPORTED_PROTOCOL: words.NOT_SUPPORTED,
    QUOTA_EXCEEDED: words.NO_ROOM,
    ADDRESS_MISMATCH: words.TRANSLATED,
}
# §7: no PCP message is longer.
MAX_MESSAGE = 1100
_REQUEST = struct.Struct("!BB2xI16s")
_HEADER = struct.Struct("!BBxBII12x")
_BODY = struct.Struct("!12sB3xHH16s")


class Granted(NamedTuple):
    """A mapping that stands for `lifetime` seconds, 0 s: it was deleted; `epoch` is the age of the router's table."""

    nonce: bytes
    own_port: int
    external: Place
    lifetime: int
    epoch: int


class Announced(NamedTuple):
    """The age of the router's table, in seconds."""

    epoch: int


class Refusal(NamedTuple):
    """A result other than 0; the nonce is b"" and the port 0 where the answer ends before them."""

    nonce: bytes
    own_port: int
    result: int


def ask_mapping(client: str, nonce: bytes, own_port: int, external: Place, lifetime: int) -> bytes:
    """Return a request for a TCP mapping, or with `lifetime` 0 the one that deletes it.

    Args:
        client: The address that the datagram is sent from.
        nonce: NONCE_SIZE bytes; a mapping is renewed and deleted only with its own.
        own_port: Of this machine.
        external: The wish; the host may be "0.0.0.0" or "::", for any.
        lifetime: Seconds.
    """
    header = _REQUEST.pack(VERSION, _MAP, lifetime, _packed(client))
    return header + _BODY.pack(nonce, _TCP, own_port, external.port, _packed(external.host))


def ask_epoch(client: str) -> bytes:
    """Return a request that changes nothing (ANNOUNCE, §14.1): its answer has the age of the router's table."""
    return _REQUEST.pack(VERSION, _ANNOUNCE, 0, _packed(client))


def read_answer(data: bytes) -> Granted | Announced | Refusal:
    """Read one datagram of a router.

    Raises:
        PeerError: It is no answer of PCP to a MAP of TCP or an ANNOUNCE, or cut short.
    """
    if not _HEADER.size <= len(data) <= MAX_MESSAGE:
        raise PeerError(words.NO_PCP)
    version, opcode, result, lifetime, epoch = _HEADER.unpack_from(data)
    if opcode == _ANSWER + _ANNOUNCE and version == VERSION and not result:
        return Announced(epoch)
    if opcode != _ANSWER + _MAP or version == 0:
        raise PeerError(words.NO_PCP)
    if version != VERSION:
        # §9: only a refusal comes in a version that was not asked in.
        return Refusal(b"", 0, UNSUPPORTED_VERSION)
    if len(data) < _HEADER.size + _BODY.size:
        if result:
            return Refusal(b"", 0, result)
        raise PeerError(words.NO_PCP)
    nonce, protocol, own_port, port, host = _BODY.unpack_from(data, _HEADER.size)
    if result:
        return Refusal(nonce, own_port, result)
    if protocol != _TCP:
        raise PeerError(words.NO_PCP)
    return Granted(nonce, own_port, Place(_unpacked(host), port), lifetime, epoch)


def _packed(host: str) -> bytes:
    address = ipaddress.ip_address(host)
    return address.packed if address.version == 6 else ipaddress.IPv6Address(f"::ffff:{host}").packed


def _unpacked(data: bytes) -> str:
    address = ipaddress.IPv6Address(data)
    return str(address.ipv4_mapped or address)
