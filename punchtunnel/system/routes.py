"""The routes that lead out of this machine's own networks, as Linux lists them in /proc."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from punchtunnel.system import proc

# linux/route.h: the route is in use, and it does not reject what takes it.
_RTF_UP, _RTF_REJECT = 0x0001, 0x0200


@dataclass(frozen=True, slots=True)
class Route:
    """A default route; `gateway` is "" on a link that has only one other end."""

    device: str
    gateway: str = ""


class Gateway(NamedTuple):
    """A router that a default route leads to, and the interface it is reached by."""

    family: socket.AddressFamily
    device: str
    host: str


def gateways() -> list[Gateway]:
    """Return the gateways of all default routes, the best first; [] where Linux lists none, or in another form."""
    found: list[Gateway] = []
    for family, name, read in ((socket.AF_INET, "net/route", _routes4), (socket.AF_INET6, "net/ipv6_route", _routes6)):
        # A container may imitate the files in another form.
        with contextlib.suppress(ValueError):
            routes = sorted(read(proc.read(name) or ""), key=lambda one: one[0])
            found += [Gateway(family, route.device, route.gateway) for _, route in routes if route.gateway]
    return list(dict.fromkeys(found))


def default_routes() -> dict[int, Route] | None:
    """Return the default route of each IP version, 4 and 6, that has one; None where Linux does not list them.

    Raises:
        ValueError: The list has another form.
    """
    table4, table6 = proc.read("net/route"), proc.read("net/ipv6_route")
    if table4 is None and table6 is None:
        return None
    routes: dict[int, Route] = {}
    for version, found in ((4, _routes4(table4 or "")), (6, _routes6(table6 or ""))):
        if best := min(found, key=lambda one: one[0], default=None):
            routes[version] = best[1]
    return routes


def interfaces_towards(host: str) -> set[str] | None:
    """Return the interfaces by which some route leads to an IPv4 address; None where Linux does not list them.

    The metric does not matter, and half of the Internet counts too: a VPN has two such
    routes (0.0.0.0/1 and 128.0.0.0/1) instead of a default route.

    Raises:
        ValueError: The list has another form.
    """
    table = proc.read("net/route")
    if table is None:
        return None
    (wanted,) = struct.unpack("=I", socket.inet_aton(host))
    return {
        device
        for device, target, _, flags, _, _, _, mask, *_ in map(str.split, table.splitlines()[1:])
        if wanted & int(mask, 16) == int(target, 16) and _is_used(flags)
    }


def _routes4(table: str) -> Iterator[tuple[int, Route]]:
    """Yield the metric and the route of each default route in /proc/net/route."""
    for line in table.splitlines()[1:]:
        device, target, gateway, flags, _, _, metric, mask, *_ = line.split()
        if int(target, 16) == int(mask, 16) == 0 and _is_used(flags):
            # The kernel prints the word as it lies in memory.
            address = socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
            yield int(metric), Route(device, "" if address == "0.0.0.0" else address)


def _routes6(table: str) -> Iterator[tuple[int, Route]]:
    """Yield the same of /proc/net/ipv6_route."""
    for line in table.splitlines():
        target, size, _, _, gateway, metric, _, _, flags, device = line.split()
        if int(target, 16) == int(size, 16) == 0 and _is_used(flags):
            address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(gateway))
            yield int(metric, 16), Route(device, "" if address == "::" else address)


def _is_used(flags: str) -> bool:
    return int(flags, 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP
