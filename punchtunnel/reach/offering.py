"""How this side can be met, as it tells a peer that it has met through a relay: for one try.

    own interfaces ──────────> HOST      its addresses, also private ones: the peer may be in the same network
    routers (mapping.py) ────> HOST      their outside addresses
                               MAPPED    ports that they forward under another number

Blocking: it is called in a thread, and takes GATHERING seconds at most.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterable
from ipaddress import ip_address

from punchtunnel.address import is_public
from punchtunnel.protocol.offers import MAX_CANDIDATES, Offer, Offered, PortUse, Source
from punchtunnel.protocol.schedule import CLOCK_FREE, CLOCK_FREE_PORTS, LISTENERS_PER_BUCKET, bucket_ports
from punchtunnel.punching.helper import Gathering, PortMapper, RouterNews
from punchtunnel.punching.settings import Settings
from punchtunnel.system.addresses import own_addresses
from punchtunnel.system.signals import Wake

# Seconds.  A router's daemon answers within 0.1 s (measured), and UPnP within 0.4 s.
GATHERING = 1.0
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Offering:
    """What was gathered.

    Attributes:
        offer: What the peer is told.
        own_ports: Of this machine, one for each OBSERVED candidate of the offer.
    """

    def __init__(self, offer: Offer, own_ports: tuple[int, ...] = ()) -> None:
        self.offer = offer
        self.own_ports = own_ports

    def close(self) -> None:
        """Let go what was kept open for the try."""


def gather(settings: Settings, gathering: Gathering | None, signals: Wake) -> Offering:
    """Find out how this side can be met.

    Args:
        settings: Of the try; `maps` lets routers be asked.
        gathering: Has the mapper.
        signals: What may end it.

    Raises:
        SignalError: A signal has come.
    """
    deadline = time.monotonic() + GATHERING
    news = RouterNews()
    if settings.maps and gathering is not None:
        news = _ask_routers(settings, gathering.mapper(), deadline, signals)
    return Offering(_offer(_own_hosts(settings), news))


def _ask_routers(settings: Settings, mapper: PortMapper, deadline: float, signals: Wake) -> RouterNews:
    """Let the routers map the ports that the try listens on and that need no clock; return what they have said."""
    ports = bucket_ports(settings.channel, CLOCK_FREE, CLOCK_FREE_PORTS)[:LISTENERS_PER_BUCKET]
    mapper.want(dict.fromkeys(_FAMILIES, ports))
    mapper.start()
    while (left := deadline - time.monotonic()) > 0:
        news = mapper.heard()
        if news.silent or news.refusals or any(one.own_port in ports for one in news.mappings):
            break
        ready, _, _ = select.select([mapper.fileno(), signals.fileno()], [], [], left)
        if mapper.fileno() in ready:
            mapper.take()
        signals.check()
    return mapper.heard()


def _own_hosts(settings: Settings) -> list[str]:
    """Return the addresses of this machine that another one may dial, public ones first."""
    hosts = [settings.bind] if settings.bind else own_addresses()
    found = [host for host in hosts if "%" not in host and _leads_here(host)]
    return sorted(found, key=lambda host: not is_public(host))


def _leads_here(host: str) -> bool:
    address = ip_address(host)
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)


def _offer(hosts: Iterable[str], news: RouterNews) -> Offer:
    """Put together what the peer is told, the surest first: there is room for MAX_CANDIDATES."""
    hosts = list(hosts)
    mapped = [
        Offered(Source.MAPPED, one.external.host, one.external.port)
        for one in news.mappings
        if one.external.port != one.own_port
    ]
    outside = [one.external.host for one in news.mappings]
    places = dict.fromkeys([*filter(is_public, hosts), *filter(is_public, outside), *hosts])
    candidates = [*mapped, *(Offered(Source.HOST, host) for host in places)]
    kept = any(is_public(host) and ":" not in host for host in hosts)
    port_use = PortUse.PRESERVING if kept else PortUse.UNKNOWN
    return Offer(0, port_use=port_use, candidates=tuple(dict.fromkeys(candidates))[:MAX_CANDIDATES])
