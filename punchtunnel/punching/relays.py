"""The relays that the user has named: each is one more way to the peer, and its connection one more of the punch.

    JOIN_DELAY ──> a meeting at each relay ── met ──> its connection ──> the election
                          ▲                                                 │
                          └───────────── again, unless it has won <─────────┘

Rule 1: a relay that is not needed does not see the pair: it is joined when most of the holes that open at all
        have opened, unless there is no address to dial.
Rule 2: who is met there is taken for nobody's friend: it has tries at the secret of its own.
Rule 3: the relay may have matched a connection that is dead, so a hello must come soon, and the next meeting follows.
        Two sides that do not fit, as two clients of one service, do not end each other's punch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from punchtunnel import words
from punchtunnel.address import Place
from punchtunnel.punching.callers import Connection
from punchtunnel.punching.settings import Relay, Settings
from punchtunnel.reporting import events
from punchtunnel.words import reach

if TYPE_CHECKING:
    from punchtunnel.punching.helper import Gathering, Helper, Meeting, MeetingNews, Met

# Seconds.  A punch between two that are both there takes less than one, and one more if a SYN is lost.
JOIN_DELAY = 2.0
NEVER = float("inf")


class Relays:
    """Meets the peer at each of them, for one punch.

    Args:
        settings: Name them.
        gathering: Makes the meetings.
        now: Steady time in seconds.
        employ: Lets a helper work beside the punch, with what is to be called when it has news.
        admit: Takes a connection, and what its other side has said already.
        report: Where events go.

    Attributes:
        due: When they are joined; NEVER after that.
    """

    def __init__(
        self,
        settings: Settings,
        gathering: Gathering,
        now: float,
        employ: Callable[[Helper[MeetingNews], Callable[[MeetingNews], None]], None],
        admit: Callable[[Connection, bytes], None],
        report: events.Report,
    ) -> None:
        self._relays = settings.relays
        self._gathering = gathering
        self._employ = employ
        self._admit = admit
        self._report = report
        self.due = now + (JOIN_DELAY if settings.peers else 0.0)
        self._meetings: dict[Place, Meeting] = {}
        # What is wrong with each now.
        self._troubles: dict[Place, str] = {}
        self._faults: dict[Place, str] = {}

    def start(self, now: float) -> None:
        """Join them if it is time."""
        if now < self.due:
            return
        self.due = NEVER
        self._report(events.Joining(relays=", ".join(str(relay.place) for relay in self._relays)))
        for relay in self._relays:
            try:
                meeting = self._meetings[relay.place] = self._gathering.meeting(relay.place)
            except OSError as error:
                self._troubles[relay.place] = words.cannot(reach.join(relay.place), error)
                continue
            self._employ(meeting, lambda news, relay=relay: self._use(relay, news))  # type: ignore[misc]
            meeting.start()

    def start_over(self, now: float) -> None:
        """Join them now, unless that is done: a meeting that waits is good for any network, or ends by itself."""
        self.due = min(self.due, now) if not self._meetings else NEVER

    def why_not(self) -> str:
        """Say why there is no hole by them."""
        if not self._meetings:
            return reach.NOT_JOINED
        told = (
            self._troubles.get(place) or self._faults.get(place) or reach.nobody_at(place) for place in self._places
        )
        return "; ".join(told)

    @property
    def _places(self) -> list[Place]:
        return [relay.place for relay in self._relays]

    def _use(self, relay: Relay, news: MeetingNews) -> None:
        trouble, self._troubles[relay.place] = self._troubles.get(relay.place), news.trouble
        if news.trouble not in ("", trouble) and news.trouble not in self._gathering.told:
            self._gathering.told.add(news.trouble)
            self._report(events.RelayTrouble(reason=news.trouble))
        for met in news.met:
            self._meet(relay, met)

    def _meet(self, relay: Relay, met: Met) -> None:
        meeting, place = self._meetings[relay.place], str(relay.place)

        def give_back() -> None:
            self._faults[relay.place] = reach.met_nobody(relay.place, connection.fault)
            meeting.again(met)

        connection = Connection(
            met.sock,
            reach.through(place),
            "",
            scheduled=False,
            relay=place,
            held=not relay.carries,
            give_back=give_back,
        )
        self._admit(connection, met.unread)
