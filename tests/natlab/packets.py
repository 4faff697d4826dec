"""IPv4, IPv6, TCP and ICMP as bytes: just what the laboratory looks at and changes.

Rule 1: a packet stays the bytes that the kernel wrote; changes are made to a
        copy, and checksums are updated, never trusted blindly (RFC 1624).
Rule 2: what cannot be parsed is None, never an exception: a TUN device also
        brings router solicitations and other things nobody asked for.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from functools import lru_cache

ICMP4, TCP, ICMP6 = 1, 6, 58
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
FLAG_LETTERS = ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (ACK, "."))

IPV4_HEADER = 20
IPV6_HEADER = 40
TCP_HEADER = 20
ICMP_HEADER = 8
# RFC 792 asks for eight bytes behind the quoted header; 20 let a NAT check a
# whole TCP header, and the largest ICMPv6 error still fits any MTU.
QUOTED_PAYLOAD = 20

ICMP4_UNREACHABLE, ICMP4_TIME_EXCEEDED = 3, 11
ICMP6_TIME_EXCEEDED = 3
ICMP4_ERRORS = (ICMP4_UNREACHABLE, ICMP4_TIME_EXCEEDED)
# In the byte that an IPv4 fragment's place begins with; the place counts units (RFC 791 §3.1).
_DONT_FRAGMENT, _MORE_FRAGMENTS = 0x40, 0x20
_FRAGMENT_UNIT = 8
# What routers put into the TTL of a packet of their own.
FRESH_TTL = 64


@dataclass(frozen=True, slots=True)
class Packet:
    """The fields of one IP packet; `payload_at` is where TCP or ICMP starts in `data`."""

    data: bytes
    version: int
    ttl: int
    protocol: int
    source: str
    target: str
    payload_at: int
    source_port: int = 0
    target_port: int = 0
    flags: int = 0
    sequence: int = 0
    acknowledged: int = 0
    length: int = 0

    @property
    def is_tcp(self) -> bool:
        """Tell whether the ports, flags and numbers mean anything."""
        return self.protocol == TCP

    @property
    def is_bare_syn(self) -> bool:
        """Tell whether this packet opens a connection: SYN without ACK or RST."""
        return self.is_tcp and self.flags & (SYN | ACK | RST) == SYN


@lru_cache(maxsize=256)
def address_text(raw: bytes) -> str:
    """Return the text of a 4- or 16-byte address, as `ipaddress` writes it."""
    return str(ipaddress.ip_address(raw))


@lru_cache(maxsize=256)
def address_bytes(text: str) -> bytes:
    """Return the 4 or 16 bytes of an address."""
    return ipaddress.ip_address(text).packed


def parse(data: bytes) -> Packet | None:
    """Return the fields of an IP packet, or None for what the laboratory does not carry."""
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= IPV4_HEADER:
        at = (data[0] & 15) * 4
        if at < IPV4_HEADER or len(data) < at:
            return None
        ttl, protocol, source, target = data[8], data[9], data[12:16], data[16:20]
    elif version == 6 and len(data) >= IPV6_HEADER:
        at, ttl, protocol, source, target = IPV6_HEADER, data[7], data[6], data[8:24], data[24:40]
    else:
        return None
    names = address_text(source), address_text(target)
    if protocol == TCP:
        if len(data) < at + TCP_HEADER:
            return None
        source_port, target_port, sequence, acknowledged, offset, flags = struct.unpack_from(">HHIIBB", data, at)
        length = len(data) - at - (offset >> 4) * 4
        return Packet(data, version, ttl, TCP, *names, at, source_port, target_port, flags,
                      sequence, acknowledged, length)  # fmt: skip
    return Packet(data, version, ttl, protocol, *names, at)


def checksum(data: bytes, start: int = 0) -> int:
    """Return the Internet checksum (RFC 1071) of `data`; `start` is a sum to add."""
    if len(data) % 2:
        data += b"\0"
    total: int = start + sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def updated_checksum(old: int, before: bytes, after: bytes) -> int:
    """Return checksum `old` after `before` was replaced by `after` (RFC 1624, equation 3).

    Both have the same, even, length.
    """
    total = ~old & 0xFFFF
    for was, now in zip(struct.iter_unpack(">H", before), struct.iter_unpack(">H", after), strict=True):
        total += (~was[0] & 0xFFFF) + now[0]
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def with_ttl(packet: Packet, ttl: int) -> bytes:
    """Return the packet's bytes with another TTL or hop limit."""
    if packet.version == 6:  # its header has no checksum
        return packet.data[:7] + bytes([ttl]) + packet.data[8:]
    data = bytearray(packet.data)
    before = bytes(data[8:10])
    data[8] = ttl
    header_sum = updated_checksum(int.from_bytes(data[10:12], "big"), before, bytes(data[8:10]))
    data[10:12] = header_sum.to_bytes(2, "big")
    return bytes(data)


def readdressed(
    packet: Packet, *, source: tuple[str, int] | None = None, target: tuple[str, int] | None = None
) -> bytes:
    """Return an IPv4 TCP packet's bytes with another source or target address and port.

    A packet that is quoted in an ICMP error may end before its TCP checksum;
    then only the fields that are there are changed.
    """
    data = bytearray(packet.data)
    at = packet.payload_at
    for place, address_at, port_at in ((source, 12, at), (target, 16, at + 2)):
        if place is None:
            continue
        before = bytes(data[address_at : address_at + 4] + data[port_at : port_at + 2])
        after = address_bytes(place[0]) + place[1].to_bytes(2, "big")
        _fix(data, 10, before[:4], after[:4])
        if len(data) >= at + 18:
            _fix(data, at + 16, before, after)
        data[address_at : address_at + 4], data[port_at : port_at + 2] = after[:4], after[4:]
    return bytes(data)


def _fix(data: bytearray, sum_at: int, before: bytes, after: bytes) -> None:
    old = int.from_bytes(data[sum_at : sum_at + 2], "big")
    data[sum_at : sum_at + 2] = updated_checksum(old, before, after).to_bytes(2, "big")


def ipv4(protocol: int, source: str, target: str, payload: bytes, ttl: int = FRESH_TTL) -> bytes:
    """Return an IPv4 packet around `payload`."""
    length = IPV4_HEADER + len(payload)
    addresses = address_bytes(source) + address_bytes(target)
    header = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0, ttl, protocol, 0) + addresses
    return header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload


def ipv6(protocol: int, source: str, target: str, payload: bytes, ttl: int = FRESH_TTL) -> bytes:
    """Return an IPv6 packet around `payload`."""
    header = struct.pack(">IHBB", 0x60000000, len(payload), protocol, ttl)
    return header + address_bytes(source) + address_bytes(target) + payload


def fragments(packet: Packet, mtu: int) -> list[bytes]:
    """Cut an IPv4 packet into fragments of at most `mtu` bytes; [] where DF, or IPv6, forbids it (RFC 791 §3.2)."""
    at, data = packet.payload_at, packet.data
    if packet.version != 4 or data[6] & _DONT_FRAGMENT:
        return []
    step = (mtu - at) // _FRAGMENT_UNIT * _FRAGMENT_UNIT
    pieces = []
    for begin in range(at, len(data), step):
        payload = data[begin : begin + step]
        more = _MORE_FRAGMENTS if begin + step < len(data) else 0
        place = more << 8 | (begin - at) // _FRAGMENT_UNIT
        header = data[:2] + struct.pack(">H", at + len(payload)) + data[4:6] + struct.pack(">H", place) + data[8:10]
        header += b"\0\0" + data[12:at]
        pieces.append(header[:10] + checksum(header).to_bytes(2, "big") + header[12:] + payload)
    return pieces


def pseudo_sum(source: str, target: str, protocol: int, length: int) -> int:
    """Return the sum of the pseudo header that TCP and ICMPv6 checksums include."""
    pseudo = address_bytes(source) + address_bytes(target) + struct.pack(">II", length, protocol)
    return sum(word for (word,) in struct.iter_unpack(">H", pseudo))


def time_exceeded(packet: Packet, router: str) -> bytes:
    """Return the ICMP time-exceeded that `router` sends for `packet` (RFC 792, RFC 4443 §3.3)."""
    quoted = packet.data[: packet.payload_at + QUOTED_PAYLOAD]
    if packet.version == 4:
        body = struct.pack(">BBHI", ICMP4_TIME_EXCEEDED, 0, 0, 0) + quoted
        body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
        return ipv4(ICMP4, router, packet.source, body)
    body = struct.pack(">BBHI", ICMP6_TIME_EXCEEDED, 0, 0, 0) + quoted
    total = checksum(body, pseudo_sum(router, packet.source, ICMP6, len(body)))
    return ipv6(ICMP6, router, packet.source, body[:2] + total.to_bytes(2, "big") + body[4:])


def quoted_packet(packet: Packet) -> Packet | None:
    """Return the packet that an IPv4 ICMP error quotes, or None if `packet` is no such error."""
    at = packet.payload_at
    if packet.protocol != ICMP4 or len(packet.data) <= at or packet.data[at] not in ICMP4_ERRORS:
        return None
    inner = packet.data[at + ICMP_HEADER :]
    return parse(inner.ljust(IPV4_HEADER + TCP_HEADER, b"\0")) if len(inner) >= IPV4_HEADER + 8 else None


def with_quoted(packet: Packet, target: str, inner: bytes) -> bytes:
    """Return an IPv4 ICMP error sent on to `target`, quoting `inner`, as a NAT does it."""
    at = packet.payload_at
    body = packet.data[at : at + 2] + b"\0\0" + packet.data[at + 4 : at + ICMP_HEADER] + inner
    body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
    return ipv4(ICMP4, packet.source, target, body, packet.ttl)


def flags_text(flags: int) -> str:
    """Return TCP flags in tcpdump's letters: `S`, `S.`, `R`, `P.`, `F.`."""
    return "".join(letter for bit, letter in FLAG_LETTERS if flags & bit) or "-"
