"""By which interfaces the addresses of a peer are dialled, beside the one that the routing table prefers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from itertools import chain, zip_longest

from punchtunnel.punching.rota import MAX_ADDRESSES
from punchtunnel.system import uplinks
from punchtunnel.system.addresses import Address


def further_ways(addresses: Sequence[Address]) -> tuple[Address, ...]:
    """Return the further ways to all addresses, the first one to each before the second one to any.

    With the addresses they are at most MAX_ADDRESSES.
    """
    interfaces: list[tuple[int, str]] = []
    with contextlib.suppress(OSError):
        interfaces = socket.if_nameindex()
    ways = zip_longest(*(uplinks.further_ways(address, interfaces) for address in addresses))
    found = [way for way in chain(*ways) if way is not None]
    return tuple(found[: MAX_ADDRESSES - len(addresses)])
