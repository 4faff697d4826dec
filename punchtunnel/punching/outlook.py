"""What a punch meets while it waits: its cause so far, by the same evidence as at its end.

    dialler, counts, addresses ──> evidence ──> diagnosis ──> Finding ──> the line, a warning, or no hole

What is wrong on this machine itself, where waiting alone helps nobody, is told at once.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from punchtunnel import words
from punchtunnel.punching import diagnosis
from punchtunnel.punching.candidates import Candidate, Fate
from punchtunnel.punching.diagnosis import Cause, Finding
from punchtunnel.punching.dialler import Dialler
from punchtunnel.punching.hole import Counts
from punchtunnel.punching.nextrouter import NextRouter
from punchtunnel.punching.settings import Settings
from punchtunnel.punching.whereabouts import Whereabouts
from punchtunnel.reporting import events
from punchtunnel.system.addresses import own_addresses
from punchtunnel.words import reach

if TYPE_CHECKING:
    from punchtunnel.punching.helper import Gathering

# What no peer can mend.
_NO_ROUTE = frozenset({Cause.UNREACHABLE, Cause.NO_NAT64})


class Outlook:
    """Looks at one punch; the arguments are the punch's own."""

    def __init__(
        self,
        settings: Settings,
        counts: Counts,
        dialler: Dialler,
        whereabouts: Whereabouts,
        next_router: NextRouter,
        gathering: Gathering | None,
        report: events.Report,
    ) -> None:
        self._settings = settings
        self._counts = counts
        self._dialler = dialler
        self._whereabouts = whereabouts
        self._next_router = next_router
        self._gathering = gathering
        self._report = report
        self._told = False

    def finding(self, evidence: dict[Candidate, Fate]) -> Finding:
        """Return why there is no hole, after what the dials have met."""
        news = self._gathering.heard() if self._gathering is not None else None
        externals = news.externals if news is not None else ()
        refusing = self._dialler.refusing()
        by_router = bool(refusing) and refusing.keys() <= self._next_router.refusing
        return diagnosis.cause_of(
            self._counts,
            diagnosis.evidence_of(evidence),
            checked=self._settings.checked,
            no_nat64=self._whereabouts.no_nat64,
            router=next(iter(refusing)).host if by_router else "",
            own_router=next((one.host for one in self._whereabouts.addresses if one.host in externals), ""),
        )

    def tell(self, waited: float, *, early: bool, rejected: bool) -> None:
        """Report that there is no hole yet, and what the dials meet.

        Args:
            waited: Seconds.
            early: No answer says nothing yet.
            rejected: The peer was met, and does not fit: what dials meet is no news.
        """
        # The first dials of a punch that succeeds at once have met nothing, and wait for nobody who looks.
        met = reach.REJECTED if rejected else "" if early and not self._counts.failed else self._met()
        self._report(events.Waiting(waited_s=waited, dials=self._counts.dials, met=met))

    def _met(self) -> str:
        """Return the name of what the dials meet, as docs/EVENTS.md has it; "" if there are none yet."""
        where = self._whereabouts
        if not where.addresses:
            if where.failed:
                self._warn_of_no_network()
            return ""
        evidence = self._dialler.evidence()
        cause = self.finding(evidence).cause
        if cause in _NO_ROUTE and not self._warn_of_no_network():
            self._warn(reach.NO_ROUTE.format(peer=words.peers_text(self._settings.peers)))
        if cause is Cause.REFUSED and set(evidence.values()) - {Fate.REFUSED, Fate.UNTRIED}:
            return reach.PARTLY_REFUSED
        return cause.value

    def _warn_of_no_network(self) -> bool:
        """Tell whether this machine is in no network at all, and say so once."""
        if any(not ipaddress.ip_address(one.partition("%")[0]).is_loopback for one in own_addresses()):
            return False
        self._warn(reach.NO_NETWORK_HERE)
        return True

    def _warn(self, reason: str) -> None:
        # A session that seeks another hole has told that it does, and tells why it finds none.
        if not (self._told or self._settings.resumed or self._settings.appointment):
            self._told = True
            self._report(events.Warned(reason=reason))
