"""Ask a STUN server over TCP which address and port it sees us at (RFC 8489): bytes only.

    client                                     server
      |  Binding request, transaction ------>    |
      |  <---- success, XOR-MAPPED-ADDRESS [, OTHER-ADDRESS]

    0                   2        4              8                  20
    | type              | length | magic cookie | transaction (12) | attributes ...
    attribute: type (2), length (2), value, padding to four bytes

Over TCP a message ends where its length tells (§6.2.2).  Unknown attributes are
skipped: only an address is wanted, and it is not taken for proved.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from punchtunnel.address import Place
from punchtunnel.errors import PeerError
from punchtunnel.words import doctor as words

DEFAULT_PORT = 3478
MAGIC_COOKIE = 0x2112A442
TRANSACTION_SIZE = 12
_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_REQUEST, _SUCCESS, _ERROR = 0x0001, 0x0101, 0x0111
_MAPPED_ADDRESS, _ERROR_CODE, _XOR_MAPPED_ADDRESS, _OTHER_ADDRESS = 0x0001, 0x0009, 0x0020, 0x802C
_FAMILY_SIZES = {1: 4, 2: 16}
# An answer to a Binding request has a few hundred bytes; a longer one is not from
# a STUN server.
MAX_ANSWER = 2048


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server tells: where it sees us, and its own other address, if it has one (RFC 5780 §7.4)."""

    seen: Place
    other: Place | None = None


def request(transaction: bytes) -> bytes:
    """Return a Binding request; `transaction` is TRANSACTION_SIZE random bytes."""
    return _HEADER.pack(_REQUEST, 0, MAGIC_COOKIE, transaction)


def read_answer(data: bytes, transaction: bytes) -> Answer | None:
    """Read the answer to the request with this transaction.

    Args:
        data: All that has arrived on the connection.
        transaction: The one of the request.

    Returns:
        The answer, or None while it is incomplete.

    Raises:
        PeerError: It is no answer, answers another request, or has no address.
    """
    if len(data) < _HEADER.size:
        return None
    kind, length, cookie, answered = _HEADER.unpack_from(data)
    if cookie != MAGIC_COOKIE or answered != transaction or length % 4 or length > MAX_ANSWER:
        raise PeerError(words.NO_STUN_SERVER)
    body = data[_HEADER.size : _HEADER.size + length]
    if len(body) < length:
        return None
    found: dict[int, bytes] = {}
    for name, value in _attributes(body):
        # §14: of several attributes of one type only the first counts.
        found.setdefault(name, value)
    if kind != _SUCCESS:
        raise PeerError(_refusal(found.get(_ERROR_CODE, b"") if kind == _ERROR else b""))
    other = found.get(_OTHER_ADDRESS)
    if _XOR_MAPPED_ADDRESS in found:
        seen = _address(_unmasked(found[_XOR_MAPPED_ADDRESS], transaction))
    elif _MAPPED_ADDRESS in found:
        seen = _address(found[_MAPPED_ADDRESS])
    else:
        raise PeerError(words.NO_SIGHT)
    return Answer(seen, None if other is None else _address(other))


def _attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(body):
        name, size = _ATTRIBUTE.unpack_from(body, at)
        at += _ATTRIBUTE.size
        if at + size > len(body):
            raise PeerError(words.CUT_SHORT)
        yield name, body[at : at + size]
        at += -(-size // 4) * 4


def _address(value: bytes) -> Place:
    """Read a zero byte, a family, a port and an address (§14.1)."""
    if len(value) < 4 or len(value) != 4 + _FAMILY_SIZES.get(value[1], -1):
        raise PeerError(words.UNKNOWN_FAMILY)
    return Place(str(ipaddress.ip_address(value[4:])), int.from_bytes(value[2:4], "big"))


def _unmasked(value: bytes, transaction: bytes) -> bytes:
    """Undo §14.2: the port and the address are XORed with the cookie and the transaction."""
    mask = MAGIC_COOKIE.to_bytes(4, "big") + transaction
    port = bytes(one ^ other for one, other in zip(value[2:4], mask, strict=False))
    return value[:2] + port + bytes(one ^ other for one, other in zip(value[4:], mask, strict=False))


def _refusal(value: bytes) -> str:
    """Return the sentence for an ERROR-CODE (§14.8); only the printable ASCII of the server's words is repeated."""
    if len(value) < 4:
        return words.STUN_REFUSES
    reason = "".join(letter for letter in value[4:68].decode("ascii", "ignore") if letter.isprintable())
    return words.STUN_REFUSES_WITH.format(code=(value[2] & 7) * 100 + value[3], reason=reason).rstrip()
