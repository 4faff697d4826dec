"""How this side can be met, as it tells a peer that it has met through a relay: for one try.

    own interfaces ─────────────> HOST      its addresses, also private ones: the peer may be in the same network
    routers (mapping.py) ───────> HOST      their outside addresses
                                  MAPPED    ports that they forward under another number
    STUN servers (observing.py) > HOST      the address that they see this machine at
                                  OBSERVED  ports that they see, for as long as the offer is open

Blocking: it is called in a thread, and takes a second or two at most.
"""

from __future__ import annotations

import random
import select
import socket
import time
from collections.abc import Sequence
from ipaddress import ip_address

from punchtunnel.address import is_public
from punchtunnel.protocol.offers import MAX_CANDIDATES, Offer, Offered, PortUse, Source
from punchtunnel.protocol.schedule import CLOCK_FREE, CLOCK_FREE_PORTS, LISTENERS_PER_BUCKET, bucket_ports
from punchtunnel.punching.helper import Gathering, PortMapper, RouterNews
from punchtunnel.punching.settings import Settings
from punchtunnel.reach.observing import Observed, fresh_ports, observe
from punchtunnel.system.addresses import own_addresses
from punchtunnel.system.signals import Wake

# Seconds.  A router's daemon answers within 0.1 s (measured); what comes later is told at the next try.
GATHERING = 0.3
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Offering:
    """What was gathered.

    Attributes:
        offer: What the peer is told.
        own_ports: Of this machine, one for each OBSERVED candidate of the offer.
        compared: See Observed.
    """

    def __init__(self, offer: Offer, observed: Observed) -> None:
        self.offer = offer
        self.own_ports, self.compared = observed.own_ports, observed.compared
        self._observed = observed

    def close(self) -> None:
        """Let go what was kept open for the try."""
        self._observed.close()


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
    mapper = gathering.mapper() if settings.maps and gathering is not None else None
    ports = bucket_ports(settings.channel, CLOCK_FREE, CLOCK_FREE_PORTS)[:LISTENERS_PER_BUCKET]
    if mapper is not None:
        # The try listens on these, and they need no clock.
        mapper.want(dict.fromkeys(_FAMILIES, ports))
        mapper.start()
    observed = Observed()
    try:
        if settings.stun:
            observed = _observe(settings, signals)
        news = RouterNews() if mapper is None else _hear_routers(ports, mapper, deadline, signals)
    except BaseException:
        observed.close()
        raise
    return Offering(_offer(_own_hosts(settings), news, observed), observed)


def _observe(settings: Settings, signals: Wake) -> Observed:
    return observe(
        settings.stun,
        fresh_ports(random.SystemRandom()),
        family=settings.family,
        bind=settings.bind,
        interface=settings.interface,
        wake=signals,
    )


def _hear_routers(ports: Sequence[int], mapper: PortMapper, deadline: float, signals: Wake) -> RouterNews:
    """Return what the routers have said, when one has mapped one of these ports, or it is too late."""
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
    unwanted = {socket.AF_INET: 6, socket.AF_INET6: 4}.get(settings.family)
    found = [host for host in hosts if "%" not in host and _leads_here(host) and ip_address(host).version != unwanted]
    return sorted(found, key=lambda host: not is_public(host))


def _leads_here(host: str) -> bool:
    address = ip_address(host)
    return not (address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified)


def _offer(hosts: Sequence[str], news: RouterNews, observed: Observed) -> Offer:
    """Put together what the peer is told, the surest first: there is room for MAX_CANDIDATES."""
    mapped = [
        Offered(Source.MAPPED, one.external.host, one.external.port)
        for one in news.mappings
        if one.external.port != one.own_port
    ]
    outside = [*(one.external.host for one in news.mappings), *observed.hosts]
    places = dict.fromkeys([*filter(is_public, hosts), *filter(is_public, outside), *hosts])
    candidates = [*observed.candidates, *mapped, *(Offered(Source.HOST, host) for host in places)]
    port_use = observed.port_use
    if port_use is PortUse.UNKNOWN and any(is_public(host) and ":" not in host for host in hosts):
        port_use = PortUse.PRESERVING
    return Offer(
        0,
        port_use=port_use,
        last=observed.last,
        low=observed.low,
        high=observed.high,
        candidates=tuple(dict.fromkeys(candidates))[:MAX_CANDIDATES],
    )
