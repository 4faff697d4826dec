"""The further ways to an address: the interfaces that lead there beside the one that the routing table prefers.

    VPN, default route ──> wg0    the default way: the socket is bound to nothing
    home router        ──> wlan0  a further way: the socket is bound to the interface

A socket that is bound to an interface does not tell whether that leads anywhere:
where IPv4 has no route, Linux takes every address to be on the link
(ip_route_output_key_hash_rcu), also behind a bridge of containers.  So the routing
table itself is asked for the route that matches (rtnetlink(7)); nothing is sent.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys

from punchtunnel.address import is_public
from punchtunnel.system.addresses import Address, source_towards

# Further ways to one address: each one divides the ports.
MOST_FURTHER = 2
# More interfaces belong to containers, and asking about each takes 10 microseconds.
_MOST_INTERFACES = 64
# linux/rtnetlink.h, linux/netlink.h
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_NLM_F_REQUEST = 0x001
_RTA_DST, _RTA_OIF = 1, 4
_RTM_F_FIB_MATCH, _RTN_UNICAST = 0x2000, 1
_RTNH_F_LINKDOWN = 0x10
# Length, type, flags, sequence, port.
_HEADER = struct.Struct("=IHHII")
# Family, lengths of target and source, TOS, table, protocol, scope, type, flags.
_ROUTE = struct.Struct("=8BI")
_ATTRIBUTE = struct.Struct("=HH")
_LONGEST = 1 << 16


def further_ways(address: Address, interfaces: list[tuple[int, str]]) -> list[Address]:
    """Return an address of the peer once for each further way to it, at most MOST_FURTHER times.

    None on other systems than Linux, and where this process may not bind to interfaces.

    Args:
        address: By the default way.
        interfaces: Number and name of each.
    """
    host, found = ipaddress.ip_address(address.host), list[Address]()
    # What another address means differs from network to network.
    if sys.platform != "linux" or address.own or not is_public(address.host):
        return found
    sources = {source_towards(address)}
    with (
        contextlib.suppress(OSError, struct.error),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel,
    ):
        for index, name in interfaces[:_MOST_INTERFACES]:
            if len(found) < MOST_FURTHER and _has_route(kernel, address.family, host.packed, index):
                source = source_towards(address, name)
                # The same source is the same way, or a link without an address of its own.
                if source is not None and source not in sources and not ipaddress.ip_address(source).is_link_local:
                    sources.add(source)
                    found.append(address._replace(interface=name))
    return found


def _has_route(kernel: socket.socket, family: int, target: bytes, index: int) -> bool:
    """Tell whether an interface has a route to an address; what has no carrier has none.

    Raises:
        OSError, struct.error: The kernel does not tell.
    """
    attributes = _ATTRIBUTE.pack(4 + len(target), _RTA_DST) + target + _ATTRIBUTE.pack(8, _RTA_OIF)
    question = _ROUTE.pack(family, len(target) * 8, 0, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH) + attributes
    question += struct.pack("=I", index)
    kernel.send(_HEADER.pack(_HEADER.size + len(question), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0) + question)
    answer = kernel.recv(_LONGEST)
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind != _RTM_NEWROUTE:
        return False
    *_, route, flags = _ROUTE.unpack_from(answer, _HEADER.size)
    return bool(route == _RTN_UNICAST and not flags & _RTNH_F_LINKDOWN)
