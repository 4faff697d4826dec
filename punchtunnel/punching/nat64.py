"""IPv4 addresses as a NAT64 takes them from a host that has IPv6 only: pure.

    ipv4only.arpa. ── name server ──> 64:ff9b::c000:aa ──> 64:ff9b::/96     RFC 7050
    198.51.100.7   ── 64:ff9b::/96 ─────────────────────> 64:ff9b::c633:6407   RFC 6052

The name has no IPv6 address, and two IPv4 addresses that are known beforehand: an
IPv6 address of it is made by the network, which shows how it makes them.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network

# With the dot no search domain is tried.
ONLY_IPV4 = "ipv4only.arpa."
_KNOWN = {IPv4Address("192.0.0.170"), IPv4Address("192.0.0.171")}
# Bits of a prefix, the usual one first (RFC 6052 §2.2).
_LENGTHS = (96, 64, 56, 48, 40, 32)
# Always zero, and never part of the IPv4 address.
_ZERO_OCTET = 8
_SIZE = 16
# The prefix that every NAT64 may have must not stand for addresses that mean something else in each network
# (RFC 6052 §3.1).
_EVERYBODYS = IPv6Network("64:ff9b::/96")
_NOT_GLOBAL = tuple(
    ipaddress.IPv4Network(text)
    for text in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
)


def prefix_in(hosts: Iterable[str]) -> IPv6Network | None:
    """Return the prefix by which the IPv6 addresses of ONLY_IPV4 were made; None if there is none.

    A prefix may happen to hold one of the two known addresses itself, so that one is
    found in two places: only in the right place both of them are found (RFC 7050 §3).
    """
    found: dict[IPv6Network, set[IPv4Address]] = {}
    for host in hosts:
        packed = IPv6Address(host.partition("%")[0]).packed
        for length in _LENGTHS:
            inside = IPv4Address(bytes(packed[at] for at in _places(length)))
            if inside in _KNOWN and (length == _LENGTHS[0] or not packed[_ZERO_OCTET]):
                prefix = IPv6Network((packed[: length // 8].ljust(_SIZE, b"\0"), length))
                found.setdefault(prefix, set()).add(inside)
    return max(found, key=lambda prefix: len(found[prefix]), default=None)


def embedded(host: str, prefix: IPv6Network) -> str | None:
    """Return the IPv6 address of an IPv4 one behind a prefix, as the kernel writes it; None if it has none."""
    address = IPv4Address(host)
    if prefix == _EVERYBODYS and any(address in network for network in _NOT_GLOBAL):
        return None
    packed = bytearray(prefix.network_address.packed)
    for at, octet in zip(_places(prefix.prefixlen), address.packed, strict=True):
        packed[at] = octet
    return socket.inet_ntop(socket.AF_INET6, packed)


def _places(length: int) -> list[int]:
    """Return where the octets of an IPv4 address stand behind a prefix of so many bits."""
    return [at for at in range(length // 8, _SIZE) if at != _ZERO_OCTET][:4]
