"""Whether the whole Internet can send to an address: pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

# Of one network, shared by a carrier's customers, or of nobody: RFC 1918, RFC 6598, RFC 7335, RFC 3927, RFC 1122,
# RFC 1112.  Documentation addresses are left out: nobody has them, and tests take them for the Internet.
_NOT_PUBLIC4 = [
    IPv4Network(net)
    for net in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.0.0/29"),
        *("169.254.0.0/16", "127.0.0.0/8", "0.0.0.0/8", "224.0.0.0/3"),
    )
]
# RFC 4291 §2.4: the only global unicast addresses that are given out.
_PUBLIC6 = IPv6Network("2000::/3")


def is_public(host: str) -> bool:
    """Tell whether a literal without an interface is an address in the Internet."""
    address = ip_address(host)
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _NOT_PUBLIC4)
    return address in _PUBLIC6


def is_nobody(host: str) -> bool:
    """Tell whether a literal stands for "none": what a router has that is not connected."""
    return ip_address(host).is_unspecified
