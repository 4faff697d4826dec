"""What comes first on a relayed hole, before any session: who may do what there.

    OFFER 0 <---> OFFER 0      flags, and how long each has waited

    no payload may pass        the two arrange a direct hole, and this one is closed
    -z on either side          the same, once; without a direct hole the relayed one is measured
    otherwise                  the session begins on it, and moves later (moving.py)

Blocking, like the punch before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from punchtunnel import words
from punchtunnel.errors import LinkError, LostError, NoHoleError, PunchtunnelError
from punchtunnel.protocol.hello import Trait
from punchtunnel.protocol.offers import Flag
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.hole import Hole
from punchtunnel.reporting import events
from punchtunnel.session.arranging import Arranger, RawTalk, Ways, first_words
from punchtunnel.session.rawrecords import RawRecords
from punchtunnel.system.signals import Wake
from punchtunnel.words import reach

# Seconds from the start of the later side for which payload waits for a direct hole.
HOLD = 2.0


def settle(
    hole: Hole,
    *,
    checks: bool,
    deadline: float,
    ways: Callable[[Ticket, events.Report], Ways],
    report: events.Report,
    signals: Wake,
) -> Hole:
    """Return the hole that a session begins on: a direct one, or the relayed one, which is closed if that fails.

    Args:
        hole: A relayed one.
        checks: This side only checks the path.
        deadline: When to give up if it must be a direct one, as time.monotonic counts.
        ways: Makes what leads to a direct hole.
        report: Where events go.
        signals: What may end it.

    Raises:
        NoHoleError: It must be a direct one, and there is none.
        LostError: The relayed hole was lost, or the peer was not on it.
        PeerError: The peer breaks the rules.
        SignalError: A signal has come.
    """
    try:
        return _settle(hole, checks, deadline, ways, report, signals)
    except OSError as error:
        hole.sock.close()
        # A peer that was not there is a loss like any other.
        raise LostError(words.broken_link(error)) from error
    except PunchtunnelError:
        hole.sock.close()
        raise


def _settle(
    hole: Hole,
    checks: bool,
    deadline: float,
    ways: Callable[[Ticket, events.Report], Ways],
    report: events.Report,
    signals: Wake,
) -> Hole:
    assert hole.keys is not None
    records, flags = RawRecords(hole), Flag.DIRECT_ONLY if hole.held else Flag(0)
    began = time.monotonic()
    theirs = first_words(records, flags, hole.waited, signals)
    round_trip = time.monotonic() - began
    must = bool((flags | theirs.flags) & Flag.DIRECT_ONLY)
    if not (must or checks or Trait.CHECK in hole.traits):
        left = max(HOLD - min(hole.waited, theirs.waited), 0.0)
        return replace(hole, hold=left, seals=records.seals, unread=records.unread)
    report(events.Meeting(relay=hole.relay))
    talk = RawTalk(records, hole.leads, round_trip, signals)

    def tell(why: str, pause: float | None) -> None:
        report(events.NotDirect(reason=why, next_s=pause))

    arranger = Arranger(talk, hole.leads, ways(hole.keys.ticket, report), flags, signals, time.monotonic, tell)
    try:
        direct = arranger.run(deadline, None if must else 1)
    except NoHoleError as error:
        if must:
            raise NoHoleError(reach.met_only(hole.relay, str(error))) from error
        return replace(hole, seals=records.seals, unread=records.unread)
    except LinkError as error:
        # The peer has given up, as a rule because it is too late for it.
        raise LostError(reach.met_only(hole.relay, arranger.why or str(error))) from error
    hole.sock.close()
    report(events.Direct(local=direct.local, remote=direct.remote))
    return replace(direct, role=hole.role, traits=hole.traits, waited=hole.waited)
