"""What a stream's bad end means for the session: what is reported, and what the verdict is."""

from __future__ import annotations

from typing import Protocol

from punchtunnel import words
from punchtunnel.errors import Exit, LinkError, PunchtunnelError, TargetError
from punchtunnel.link.stream import Broken
from punchtunnel.protocol.events import Reset
from punchtunnel.protocol.frames import Reason
from punchtunnel.reporting import events
from punchtunnel.session.verdict import Verdict
from punchtunnel.words import services


class Ends(Protocol):
    """What is needed of session.roles.Ends."""

    def why_broken(self, broken: Broken) -> PunchtunnelError | Exit:
        """See session.roles.Ends."""


class Failures:
    """Of one session.

    Args:
        report: Where events go.
        verdict: Of the session.
        ends: The role.
        leads: This side opens the odd streams.
        is_single: The session has one stream alone.
    """

    def __init__(self, report: events.Report, verdict: Verdict, ends: Ends, *, leads: bool, is_single: bool) -> None:
        self._report = report
        self._verdict = verdict
        self._ends = ends
        self._leads = leads
        self._is_single = is_single

    def take(self, number: int, failure: Reset | Broken, *, is_only: bool) -> None:
        """Take in how a stream has ended; `is_only`: the session ends with it."""
        if isinstance(failure, Reset):
            self._on_reset(number, failure, is_only)
        else:
            self._on_broken(number, failure, is_only)

    def _on_reset(self, number: int, reset: Reset, is_only: bool) -> None:
        reason = words.reset_reason(reset.reason)
        if reset.reason == Reason.NO_SUCH_SERVICE and reset.service:
            reason = services.no_such_there(reset.service)
        ours = (number % 2 == 1) == self._leads
        refused = ours and not reset.accepted and reset.reason != Reason.CLOSING
        event = events.TargetRefused if refused and not self._is_single else events.StreamReset
        self._report(event(stream=number, reason=reason))
        if is_only:
            self._verdict.cut = True
            self._verdict.fail(TargetError(reason) if refused else LinkError(reason))

    def _on_broken(self, number: int, broken: Broken, is_only: bool) -> None:
        self._report(events.StreamReset(number, broken.error.strerror or str(broken.error)))
        if is_only:
            self._verdict.cut = True
            why = self._ends.why_broken(broken)
            if isinstance(why, Exit):
                self._verdict.end(why)
            else:
                self._verdict.fail(why)
