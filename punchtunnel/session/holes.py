"""One hole after another, for the command line and for the library: the punch, and what follows a session.

    next() ──> Hole ──> a session ──> Outcome ──> goes_on() ──yes──> next() ...
                            │ ▲
        hole lost: again() ─┘ └── Return

Synchronous: `next` and `again` block until the peer is met.  The library calls `next` in a
thread, and each session `again` (seeker.py).
"""

from __future__ import annotations

import copy
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from punchtunnel import words
from punchtunnel.address import is_literal
from punchtunnel.errors import Exit, LinkError, LocalError, LostError, NoHoleError, PeerError, RejectedError, UsageError
from punchtunnel.protocol.hello import Trait
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.rations import Rations
from punchtunnel.punching.settings import Settings
from punchtunnel.reach.gather import Gatherer
from punchtunnel.reporting import events
from punchtunnel.session.comeback import RestartedError, Return, come_back, take_back
from punchtunnel.session.outcome import Outcome
from punchtunnel.system.addresses import Address, source_towards
from punchtunnel.system.refusals import refused
from punchtunnel.system.signals import Wake

if TYPE_CHECKING:
    from punchtunnel.session.arranging import Ways

# After these no other hole is wanted, even with -k.
FINAL = (Exit.BROKEN_PIPE, Exit.HANGUP, Exit.INTERRUPTED, Exit.TERMINATED)
# Seconds from the beginning of a punch that has failed to the next one, at least.
REJECTION_PAUSE = 5.0
FOREVER = float("inf")
# The same where a peer that was met at a relay is gone again, from the second time on: somebody there may cut each.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
# Seconds between two holes by which a session might come back, if the first was none of the peer's.
RESUME_PAUSE = 0.5


class Holes:
    """Punches once for each hole that is wanted.

    Args:
        settings: How to punch; with `keep` again when a session, or its hole, has ended.
        signals: What may end the wait.
        report: Where events go.
        rations: The tries at the secret that strangers have left; by default counted by this object alone.
        meanwhile: Called in a thread once the first SYNs are under way.
        gathering: What helps all punches of a run; None: nothing.
        monotonic: Any steady time in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        signals: Wake,
        report: events.Report = events.unreported,
        *,
        rations: Rations | None = None,
        meanwhile: Callable[[], None] | None = None,
        gathering: Gatherer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = self._current = settings
        self._signals = signals
        self._report = report
        self._rations = rations or Rations(monotonic)
        self._meanwhile = meanwhile
        self._gathering = gathering
        self._monotonic = monotonic
        self._began = monotonic()
        self._has_met = False
        # The peer serves many sessions, and does not know which of them comes back.
        self._peer_serves = False
        # A peer that wants to go on with a session is returned, too.
        self._takes_back = False
        # A relayed hole is settled here, and not by whoever takes it.
        self._settles = Trait.SERVICE not in settings.traits
        # Why the peer, who was met at a relay, is of no use; "" if nobody was.
        self._met_but = ""
        # A hole had opened, but the peer was never heard on it.
        self._was_unmet = False
        # How many in a row who were met there were gone again.
        self._gone = 0
        # Of direct holes for what a relay carries: each has a secret that only its two sides know.
        self._inner_rations = Rations(monotonic)
        # The last session ended because this machine refused something: it may do so again.
        self._is_refused = False

    def within(self, signals: Wake, report: events.Report) -> Holes:
        """Return the same for a service: its loop has the signals of the process, and peers may come back to it."""
        same = copy.copy(self)
        same._signals, same._report, same._takes_back = signals, report, True
        return same

    def next(self) -> Hole:
        """Punch until there is a hole, and return it.

        Raises:
            SignalError: A signal has come.
            PunchtunnelError: As `open_hole`; with `keep` only what was wrong from the start.
        """
        if self._is_refused:
            self._signals.sleep(REJECTION_PAUSE)
        while True:
            began = self._monotonic()
            try:
                hole = self._open()
                if hole.relay and self._settles:
                    hole = self.settle(hole, self._signals, self._report)
            except LinkError as error:
                # The peer was met at a relay, and is gone again.
                spent, self._met_but = self._monotonic() - self._began, str(error)
                self._current = self._settings.after(spent)
                if self._settings.wait and spent >= self._settings.wait:
                    raise NoHoleError(self._met_but) from error
                self._report(events.PunchingAgain(self._met_but))
                self._signals.sleep(self._pause(spent))
            except NoHoleError as error:
                before = f"; {words.UNMET_BEFORE}" if self._was_unmet else ""
                raise NoHoleError(self._met_but or f"{error}{before}") from error
            except (RejectedError, UsageError, LocalError) as error:
                if not self._may_pass(error):
                    raise
                self._report(events.PunchingAgain(str(error)))
                # A punch that was long has not failed in a hurry: no moment without a listener.
                if (pause := began + REJECTION_PAUSE - self._monotonic()) > 0:
                    self._signals.sleep(pause)
            else:
                self._met_but, self._gone = "", 0
                self._has_met, self._peer_serves = True, Trait.SERVICE in hole.traits
                # A service settles relayed ones by itself.
                is_open = hole.relay and not self._settles
                if self._takes_back or is_open or Trait.RESUMING not in hole.traits:
                    return hole
                # It means a session of a process that ran here before.
                take_back(hole, lambda _: None, lambda _: None, self._signals)
                self._report(events.PunchingAgain(words.PEER_LOOKS_FOR_ANOTHER))

    def _pause(self, spent: float) -> float:
        """Return the seconds until the next punch, after a peer that was met at a relay is gone again."""
        self._gone += 1
        pause = min(FIRST_PAUSE * 2.0 ** (self._gone - 2), LONGEST_PAUSE) if self._gone > 1 else 0.0
        return min(pause, self._settings.wait - spent) if self._settings.wait else pause

    def again(self, ticket: Ticket, received: int, deadline: float, signals: Wake, report: events.Report) -> Return:
        """Punch until the peer of a session that has lost its hole is met again.

        Args:
            ticket: Of the session.
            received: Bytes of the peer's frames that this side has.
            deadline: When to give up, as `monotonic` counts.
            signals: What may end the wait.
            report: Where events go.

        Raises:
            SignalError: A signal has come.
            NoHoleError: It is too late.
            RestartedError: The peer, which knows the secret, has ended the session or does not fit any more.
        """
        while (left := deadline - self._monotonic()) > 0:
            settings = self._settings.resuming(ticket.secret, left, anyone=self._peer_serves)
            try:
                hole = open_hole(
                    settings, report=report, signals=signals, rations=self._rations, gathering=self._gathering
                )
                self._release_unless(hole.mapped)
                if hole.relay:
                    hole = self.settle(hole, signals, report, deadline - self._monotonic())
                return come_back(hole, ticket, received, signals)
            except (RestartedError, RejectedError) as error:
                # Without a shared secret a stranger could say so, and end the session.
                if self._settings.secret:
                    raise RestartedError(str(error)) from error
                report(events.TriedAgain(str(error)))
            except (LostError, PeerError, LocalError, UsageError, OSError) as error:
                # The network may be away, too.
                report(events.TriedAgain(str(error)))
            signals.sleep(min(RESUME_PAUSE, max(deadline - self._monotonic(), 0)))
        raise NoHoleError(words.NO_ANSWER)

    def settle(self, hole: Hole, signals: Wake, report: events.Report, left: float | None = None) -> Hole:
        """Return the hole that a session begins on, after a relayed one.

        Args:
            hole: The relayed one.
            signals: What may end it.
            report: Where events go.
            left: Seconds; None: what is left of the time to wait.

        Raises:
            NoHoleError, LostError, PeerError, SignalError: See session.settling.settle.
        """
        # Imported late: few holes are relayed.
        from punchtunnel.session.settling import settle

        if left is None:
            left = max(self._settings.wait - (self._monotonic() - self._began), 1.0) if self._settings.wait else FOREVER
        checks = Trait.CHECK in self._settings.traits
        deadline = time.monotonic() + left
        return settle(hole, checks=checks, deadline=deadline, ways=self.ways, report=report, signals=signals)

    def ways(self, ticket: Ticket, report: events.Report) -> Ways:
        """Return what leads to a direct hole for what a relay carries."""
        from punchtunnel.session.ways import DirectWays

        # A service punches on beside that, with ports of its own.
        mapper = None if self._takes_back and self._settings.peers else self._gathering
        return DirectWays(self._settings, ticket, mapper, self._inner_rations, report)

    @property
    def meets(self) -> bool:
        """Tell whether this side has named a relay: only then is anything dialled that its peer offers."""
        return bool(self._settings.relays)

    def goes_another_way(self, hole: Hole) -> bool:
        """Tell whether what is sent to the peer of a direct hole would leave this machine from another address now."""
        if not self.meets or self._settings.bind is not None:
            return False
        here, there = (one.rpartition(":")[0].strip("[]") for one in (hole.local, hole.remote))
        family = socket.AF_INET6 if ":" in there else socket.AF_INET
        now = source_towards(Address(family, there), self._settings.interface) if is_literal(there) else None
        return now is not None and is_literal(here) and now != here

    def _open(self) -> Hole:
        try:
            hole = open_hole(
                self._current,
                report=self._report,
                signals=self._signals,
                rations=self._rations,
                meanwhile=self._meanwhile,
                gathering=self._gathering,
            )
        except OSError as error:
            raise refused(error) from error
        # A service goes on punching at once.
        self._release_unless(hole.mapped or self._takes_back)
        return hole

    def _release_unless(self, needed: bool) -> None:
        """Let the routers forward nothing any more, unless a hole or the next punch needs it."""
        if self._gathering is not None and not needed:
            self._gathering.release()

    def goes_on(self, hole: Hole, outcome: Outcome) -> bool:
        """Take in how the session of a hole has ended; True if `next` is to give another hole."""
        if outcome.status in FINAL:
            return False
        checked = Trait.CHECK in hole.traits and Trait.CHECK not in self._settings.traits
        if checked or not outcome.met:
            # Punch on for what is left of the time to wait, or for a moment if nothing is.
            went_well = checked and outcome.status == Exit.OK
            self._current = self._settings.after(self._monotonic() - self._began, checked=went_well)
            self._was_unmet = not outcome.met
            self._report(events.Checked(hole.remote) if outcome.met else events.PunchingAgain(outcome.reason))
            return True
        if not self._settings.keep:
            return False
        self._is_refused = outcome.status == Exit.LOCAL
        self._report(events.PunchingAgain(outcome.reason or words.SESSION_OVER))
        self._current, self._began, self._was_unmet = self._settings, self._monotonic(), False
        return True

    def _may_pass(self, error: RejectedError | UsageError | LocalError) -> bool:
        """Tell whether an error may pass, so that a service (-k) punches again.

        A peer that is set up wrongly may be mended.  An address of this
        machine that is gone may come back, if it was there before: what was
        wrong from the start ends the service.  (Names are looked up again
        within a punch.)
        """
        return self._settings.keep and (isinstance(error, RejectedError) or self._has_met)
