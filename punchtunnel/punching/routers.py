"""What this machine's routers are asked for beside one punch: a port that leads to a listener of ours.

    listeners that need no clock ──> mapper, in a thread of its own ──> router
                 events <── RouterNews ──┘

Rule 1: nobody is asked while somebody is on a connection: it may be the hole.
Rule 2: only ports that do not move with the clock are mapped: others would need a mapping every 50 s.
Rule 3: the mapper outlives the punch (reach/gather.py): a hole through a mapping needs it to the end.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Mapping, Sequence

from punchtunnel import words
from punchtunnel.protocol.schedule import CLOCK_FREE, CLOCK_FREE_PORTS, bucket_ports
from punchtunnel.punching.helper import Gathering, PortMapper, RouterNews
from punchtunnel.punching.listeners import Listeners
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting import events
from punchtunnel.system.addresses import Address, is_behind_router

# Seconds between two looks at what is listened on.
LOOK_EVERY = 1.0
# Different news of one run that are told: a router that says something else all the time fills no log.
MOST_TOLD = 64
NEVER = float("inf")


class Routers:
    """Asks for mappings, and tells what has become of them.

    Args:
        settings: Channel and interface.
        gathering: Has the mapper.
        selector: Calls `key.data()` for what becomes ready.
        listeners: What is listened on.
        report: Where events go.
    """

    def __init__(
        self,
        settings: Settings,
        gathering: Gathering,
        selector: selectors.BaseSelector,
        listeners: Listeners,
        report: events.Report,
    ) -> None:
        self._settings = settings
        self._gathering = gathering
        self._selector = selector
        self._listeners = listeners
        self._report = report
        self._mapper: PortMapper | None = None
        self._wanted: Mapping[socket.AddressFamily, Sequence[int]] = {}

    def ask(self, now: float, addresses: Sequence[Address], *, busy: bool) -> float:
        """Ask for what is listened on, if that has changed; return when to look again.

        Args:
            now: Steady time in seconds.
            addresses: The peer's.
            busy: Somebody is on a connection: it may be the hole.
        """
        later = now + LOOK_EVERY
        if busy or not any(self._is_far(address) for address in addresses):
            return later
        wanted = self._listening()
        if self._mapper is None and not self._employ():
            return NEVER
        assert self._mapper is not None
        if wanted != self._wanted:
            self._wanted = wanted
            self._mapper.want(wanted)
        return later

    def _employ(self) -> bool:
        """Let the mapper begin; where there is no descriptor for it, the punch goes on without."""
        try:
            mapper = self._gathering.mapper()
            self._selector.register(mapper, selectors.EVENT_READ, self._on_news)
        except OSError:
            return False
        mapper.start()
        self._mapper = mapper
        return True

    def start_over(self) -> None:
        """Ask anew: this machine may be in another network."""
        if self._mapper is not None:
            self._mapper.start()

    def _is_far(self, address: Address) -> bool:
        """Tell whether a router may be on the way; of IPv6 that is not known before the gateways are."""
        if address.own or address.scope:
            return False
        return address.family == socket.AF_INET6 or is_behind_router(address, self._settings.interface)

    def _listening(self) -> dict[socket.AddressFamily, list[int]]:
        numbers = bucket_ports(self._settings.channel, CLOCK_FREE, CLOCK_FREE_PORTS)
        families = (socket.AF_INET, socket.AF_INET6)
        found = {family: [one for one in numbers if (family, one) in self._listeners] for family in families}
        return {family: ports for family, ports in found.items() if ports}

    def _on_news(self) -> None:
        assert self._mapper is not None
        for event in self._events(self._mapper.take()):
            # Once in a run, however many punches it has.
            told = self._gathering.told
            if repr(event) not in told and len(told) < MOST_TOLD:
                told.add(repr(event))
                self._report(event)

    def _events(self, news: RouterNews) -> list[events.Event]:
        found: list[events.Event] = []
        for mapping in news.mappings:
            kept = mapping.external.port == mapping.own_port
            kind = events.PortMapped if kept else events.MappedElsewhere
            found.append(kind(port=mapping.own_port, external=str(mapping.external), by=mapping.by))
        reasons = [words.ANOTHER_NAT.format(address=address) for address in news.behind]
        reasons += news.refusals
        if news.silent and not (news.mappings or reasons):
            reasons.append(words.NO_ROUTER_ANSWERS)
        return [*found, *(events.NotMapped(reason=reason) for reason in reasons)]
