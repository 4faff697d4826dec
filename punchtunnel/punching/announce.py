"""What is told of a hole when it has opened."""

from __future__ import annotations

from punchtunnel import words
from punchtunnel.protocol.agreement import readable
from punchtunnel.protocol.hello import Trait
from punchtunnel.punching import diagnosis
from punchtunnel.punching.hole import Hole
from punchtunnel.reporting import events
from punchtunnel.system import tcp


def announce(hole: Hole, round_trip: float, report: events.Report, *, proves: bool) -> None:
    """Tell of a hole, and how far it can be trusted.

    Args:
        hole: It.
        round_trip: Seconds; 0 if that is not known.
        report: Where events go.
        proves: The peer has proved that it knows a secret.
    """
    report(
        events.HoleOpened(
            local=hole.local,
            remote=hole.remote,
            rtt_s=round_trip or None,
            role="-z" if Trait.CHECK in hole.traits else diagnosis.role_name(hole.role),
            leads=hole.leads,
            waited_s=hole.waited,
            dials=hole.counts.dials,
        )
    )
    if window := tcp.narrow_window(hole.sock):
        report(events.Warned(reason=words.narrow_hole(window)))
    if hole.keys is None:
        report(events.Unsealed())
        return
    report(events.Sealed(authenticated=proves, verifier=readable(hole.keys.verifier)))
    if not proves:
        report(events.Unauthenticated())
