"""One hole after another: the punch, and what follows a session; for the command line and for the library.

    next() ──> Hole ──> a session ──> Outcome ──> goes_on() ──yes──> next() ...

Synchronous: `next` waits for the peer.  The library calls it in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from punchtunnel import words
from punchtunnel.errors import Exit, LocalError, RejectedError, UsageError
from punchtunnel.protocol.hello import Trait
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.rations import Rations
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting import events
from punchtunnel.session.outcome import Outcome
from punchtunnel.system.signals import Wake

# After these nobody wants another hole, also with -k.
FINAL = (Exit.BROKEN_PIPE, Exit.HANGUP, Exit.INTERRUPTED, Exit.TERMINATED)
# Seconds before a rejected peer, or a name that was not found, is tried again.
REJECTION_PAUSE = 5.0


class Holes:
    """Punches as often as there is to be a hole.

    Args:
        settings: How to punch.
        signals: What may end the wait.
        report: Where events go.
        keep: -k: punch again when a session, or its hole, has ended.
        rations: What strangers have left of tries at the secret; by default of this object.
        meanwhile: Called in a thread once the first SYNs are under way.
        monotonic: Any steady time in seconds.
    """

    def __init__(
        self,
        settings: Settings,
        signals: Wake,
        report: events.Report = events.unreported,
        *,
        keep: bool = False,
        rations: Rations | None = None,
        meanwhile: Callable[[], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = self._current = settings
        self._signals = signals
        self._report = report
        self._keep = keep
        self._rations = rations or Rations(monotonic)
        self._meanwhile = meanwhile
        self._monotonic = monotonic
        self._began = monotonic()
        self._has_met = False

    def next(self) -> Hole:
        """Punch until there is a hole, and return it.

        Raises:
            SignalError: A signal has come.
            PunchtunnelError: As `open_hole`; with `keep` only what was wrong from the start.
        """
        while True:
            try:
                hole = open_hole(
                    self._current,
                    report=self._report,
                    signals=self._signals,
                    rations=self._rations,
                    meanwhile=self._meanwhile,
                )
            except (RejectedError, UsageError, LocalError) as error:
                if not self._may_pass(error):
                    raise
                self._report(events.PunchingAgain(str(error)))
                self._signals.sleep(REJECTION_PAUSE)
            else:
                self._has_met = True
                return hole

    def goes_on(self, hole: Hole, outcome: Outcome) -> bool:
        """Take in how the session of a hole has ended; True where `next` is to give another."""
        if outcome.status in FINAL:
            return False
        if Trait.CHECK in hole.traits and Trait.CHECK not in self._settings.traits:
            # A peer that only looks takes nothing from this side's time to wait, and leaves it some.
            self._current = self._settings.after(self._monotonic() - self._began)
            self._report(events.Checked(hole.remote))
            return True
        if not self._keep:
            return False
        self._report(events.PunchingAgain(outcome.reason or words.SESSION_OVER))
        self._current, self._began = self._settings, self._monotonic()
        return True

    def _may_pass(self, error: RejectedError | UsageError | LocalError) -> bool:
        """Tell whether an error is one that a service outlives.

        It outlives a peer that is set up wrongly, and a name or an address of
        its own that is gone for a while; what was wrong from the start ends it.
        """
        return self._keep and (isinstance(error, RejectedError) or self._has_met)
