"""By which interfaces the addresses of a peer are dialled, beside the one that the routing table prefers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from itertools import chain, zip_longest

from punchtunnel.punching.rota import MAX_ADDRESSES
from punchtunnel.punching.settings import Settings
from punchtunnel.system.addresses import Address

# Loopback and one more: nothing is asked on a machine with one uplink, whose first SYN waits for this.
_USUAL_INTERFACES = 2


def further_ways(addresses: Sequence[Address], settings: Settings) -> tuple[Address, ...]:
    """Return the further ways to all addresses, the first one to each before the second one to any.

    None if settings say what to bind.  With the addresses they are at most MAX_ADDRESSES.
    """
    if settings.bind is not None or settings.interface:
        return ()
    with contextlib.suppress(OSError):
        interfaces = socket.if_nameindex()
        if len(interfaces) > _USUAL_INTERFACES:
            from punchtunnel.system import uplinks

            ways = zip_longest(*(uplinks.further_ways(address, interfaces) for address in addresses))
            found = [way for way in chain(*ways) if way is not None]
            return tuple(found[: MAX_ADDRESSES - len(addresses)])
    return ()
