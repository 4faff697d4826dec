"""What leads one session, or one pair that has met through a relay, to a direct hole: gathered, and tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from punchtunnel.address import is_public
from punchtunnel.errors import LocalError, NoHoleError, UsageError
from punchtunnel.protocol.offers import Offer
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.helper import Gathering, Way
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.rations import Rations
from punchtunnel.punching.settings import Settings
from punchtunnel.reach.offering import Offering, gather
from punchtunnel.reporting import events
from punchtunnel.session.arranging import Gathered
from punchtunnel.system.signals import Wake

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
        self._settings = replace(settings.moving(ticket.secret, ticket.channel, TRY), maps=settings.maps)
        self._known = settings.peers
        self._gathering = gathering
        self._rations = rations
        self._report = report

    def gather(self, signals: Wake) -> Offering:
        """See arranging.Ways."""
        return gather(self._settings, self._gathering, signals)

    def plans(self, mine: Offer, theirs: Offer) -> int:
        """See arranging.Ways."""
        del mine, theirs
        return 1

    def punch(self, gathered: Gathered, theirs: Offer, signals: Wake) -> Hole:
        """See arranging.Ways."""
        hosts = addresses_of(gathered.offer, theirs)
        settings = replace(self._settings, peers=list(dict.fromkeys([*self._known, *hosts])))
        try:
            return open_hole(
                settings,
                report=self._told,
                signals=signals,
                rations=self._rations,
                gathering=None if self._gathering is None else _Mapping(self._gathering),
            )
        except (LocalError, UsageError, OSError) as error:
            # It costs this try.
            raise NoHoleError(str(error)) from error

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


def addresses_of(mine: Offer, theirs: Offer) -> list[str]:
    """Return the addresses of an offer that are dialled: private ones if both sides have one public address."""
    hosts = list(dict.fromkeys(one.host for one in theirs.candidates))
    ours = {one.host for one in mine.candidates if is_public(one.host)}
    together = not ours.isdisjoint(hosts)
    return [host for host in hosts if is_public(host) or together]
