"""What leads one session, or one pair that has met through a relay, to a direct hole: gathered, and tried."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address

from punchtunnel.address import Place
from punchtunnel.errors import LocalError, NoHoleError, RejectedError, UsageError
from punchtunnel.protocol.offers import Offer
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.appointed import Appointment, Plan, addresses_of, plans_of
from punchtunnel.punching.guesses import round_seconds
from punchtunnel.punching.helper import Gathering, Way
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.rations import Rations
from punchtunnel.punching.settings import Settings
from punchtunnel.reach.observing import Observed
from punchtunnel.reach.offering import Offering, gather
from punchtunnel.reach.stun import DEFAULT_PORT
from punchtunnel.reporting import events
from punchtunnel.session.arranging import Gathered
from punchtunnel.system.signals import Wake
from punchtunnel.words import reach

# Seconds of a try: what opens at all does so within two, and some late ones come after that.
TRY = 5.0


class DirectWays:
    """Tries by the secret of a session, which only its two sides know: strangers take no part in it.

    Args:
        settings: How this side punches.
        ticket: Of the session, or of the relayed hole.
        gathering: Has the mapper; None: routers are not asked.
        rations: The tries at the secret; those of other punches are not touched.
        report: Where the events of the tries go.
    """

    def __init__(
        self,
        settings: Settings,
        ticket: Ticket,
        gathering: Gathering | None,
        rations: Rations,
        report: events.Report,
    ) -> None:
        # A relay's host may run a STUN server, too.
        servers = [*settings.stun, *(Place(relay.place.host, DEFAULT_PORT) for relay in settings.relays)]
        self._settings = replace(settings.moving(ticket.secret, ticket.channel, TRY), stun=servers)
        self._known = settings.peers
        self._gathering = gathering
        self._rations = rations
        self._report = report
        # Of what was gathered last: two STUN servers were asked.
        self._compared = False

    def gather(self, signals: Wake) -> Offering:
        """See arranging.Ways."""
        try:
            offering = gather(self._settings, self._gathering, signals)
        except OSError:
            # No descriptor is to be had, or no thread: the peer may know a way all the same.
            offering = Offering(Offer(0), Observed())
        if not offering.own_ports:
            # None of them answers: it is not asked before each try.
            self._settings = replace(self._settings, stun=())
        self._compared = offering.compared
        return offering

    def plans(self, mine: Offer, theirs: Offer) -> int:
        """See arranging.Ways."""
        return len(plans_of(mine, theirs))

    def punch(self, gathered: Gathered, theirs: Offer, signals: Wake) -> Hole:
        """See arranging.Ways."""
        mine = gathered.offer
        plans = plans_of(mine, theirs)
        plan = plans[(theirs.number - 1) % len(plans)]
        appointment = Appointment(mine, theirs, gathered.own_ports, plan, self._settings.birthday)
        wait = round_seconds(appointment) if plan is Plan.GUESS else TRY
        hosts = dict.fromkeys([*self._known, *filter(self._is_wanted, addresses_of(mine, theirs))])
        settings = replace(self._settings, peers=list(hosts), wait=wait, appointment=appointment)
        try:
            return open_hole(
                settings,
                report=self._told,
                signals=signals,
                rations=self._rations,
                gathering=None if self._gathering is None else _Mapping(self._gathering),
            )
        except (NoHoleError, RejectedError, LocalError, UsageError, OSError) as error:
            # It costs this try.
            hard = mine.port_use.is_hard, theirs.port_use.is_hard
            raise NoHoleError(f"{error}{reach.ports_rewritten(*hard, self._compared)}") from error

    def _is_wanted(self, host: str) -> bool:
        """Tell whether an address is of a family that this side punches in."""
        bind, family = self._settings.bind, self._settings.family
        wanted = {socket.AF_INET: 4, socket.AF_INET6: 6}.get(family) if bind is None else ip_address(bind).version
        return wanted in (None, ip_address(host).version)

    def _told(self, event: events.Event) -> None:
        """Report what is no news of every punch."""
        if not isinstance(event, events.Punching | events.Waiting | events.TryingNow):
            self._report(event)


class _Mapping:
    """What a try needs of what helps the punches of a run: the mapper.  It neither remembers nor is remembered."""

    def __init__(self, gathering: Gathering) -> None:
        self.told = gathering.told
        self.mapper, self.heard, self.meeting = gathering.mapper, gathering.heard, gathering.meeting

    def recall(self) -> Mapping[str, Sequence[str]]:
        """See Gathering."""
        return {}

    def remember(self, names: Mapping[str, Sequence[str]], way: Way) -> None:
        """See Gathering."""

    def failed(self) -> None:
        """See Gathering."""
