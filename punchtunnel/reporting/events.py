"""Every event that a run reports: one type each, with its fields, its sentence and its level.

    something happens ──> Event ──> Report ──┬──> a sentence on stderr      `level`, `sentence`
                                             ├──> one JSON object a line    `name`, the fields
                                             ├──> the line of a terminal    the type (state.py)
                                             └──> the service manager       `notice`

Names, fields and their types are a contract with programs: docs/EVENTS.md
describes them, and a change raises SCHEMA.  A field's name carries its unit
(`waited_s` is seconds).  Code decides by the type of an event, never by its
name.
"""

from __future__ import annotations

# Callers say `events.` to all of them, the types below and what these have in common.
from punchtunnel.reporting.event import SCHEMA as SCHEMA
from punchtunnel.reporting.event import Event as Event
from punchtunnel.reporting.event import Level as Level
from punchtunnel.reporting.event import Report as Report
from punchtunnel.reporting.event import unreported as unreported
from punchtunnel.reporting.reach_events import Direct as Direct
from punchtunnel.reporting.reach_events import Joining as Joining
from punchtunnel.reporting.reach_events import MappedElsewhere as MappedElsewhere
from punchtunnel.reporting.reach_events import Meeting as Meeting
from punchtunnel.reporting.reach_events import Moved as Moved
from punchtunnel.reporting.reach_events import NotDirect as NotDirect
from punchtunnel.reporting.reach_events import NotMapped as NotMapped
from punchtunnel.reporting.reach_events import PortMapped as PortMapped
from punchtunnel.reporting.reach_events import Recalled as Recalled
from punchtunnel.reporting.reach_events import Relayed as Relayed
from punchtunnel.reporting.reach_events import RelayTrouble as RelayTrouble
from punchtunnel.reporting.reach_events import ViaEnded as ViaEnded
from punchtunnel.reporting.reach_events import ViaSaid as ViaSaid
from punchtunnel.reporting.reach_events import ViaStarted as ViaStarted
from punchtunnel.reporting.session_events import Announced as Announced
from punchtunnel.reporting.session_events import CannotResume as CannotResume
from punchtunnel.reporting.session_events import Checked as Checked
from punchtunnel.reporting.session_events import LinkEnded as LinkEnded
from punchtunnel.reporting.session_events import LinkUp as LinkUp
from punchtunnel.reporting.session_events import Lost as Lost
from punchtunnel.reporting.session_events import PathMeasured as PathMeasured
from punchtunnel.reporting.session_events import Resumed as Resumed
from punchtunnel.reporting.session_events import RoundTrip as RoundTrip
from punchtunnel.reporting.session_events import SessionOver as SessionOver
from punchtunnel.reporting.session_events import StdinUnreadable as StdinUnreadable
from punchtunnel.reporting.session_events import StreamClosed as StreamClosed
from punchtunnel.reporting.session_events import StreamOpened as StreamOpened
from punchtunnel.reporting.session_events import StreamReset as StreamReset
from punchtunnel.reporting.session_events import TargetRefused as TargetRefused
from punchtunnel.reporting.session_events import Traffic as Traffic
from punchtunnel.reporting.session_events import TriedAgain as TriedAgain

# ---- the run


class Started(Event, name="start"):
    """The run has begun; comes first."""

    schema: int
    version: str
    pid: int


class Listening(Event, name="listening", level=Level.NOTE, sentence="listening on {place}"):
    """A port or socket of -L is bound."""

    place: str


class Warned(Event, name="warning", level=Level.NOTE, sentence="{reason}"):
    """Something is not as it should be; the run goes on."""

    reason: str


class PunchingAgain(
    Event,
    name="punching_again",
    level=Level.INFO,
    sentence="{reason}; punching again",
    notice="STATUS={reason}; punching again",
):
    """The next punch begins: with -k, a session has ended or a peer was rejected; or the peer was never on the hole."""

    reason: str


class TryingNow(Event, name="trying_now", level=Level.INFO, sentence="told to try now (SIGHUP): {what}"):
    """With -k, SIGHUP has arrived."""

    what: str


class Exited(Event, name="exit", level=Level.ERROR, sentence="{reason}", notice="STOPPING=1\nSTATUS={reason}"):
    """The run is over; comes last.  `reason` is "" if there is nothing to explain."""

    status: int
    reason: str


# ---- punching


class Punching(
    Event,
    name="punching",
    level=Level.INFO,
    sentence="punching towards {peer} on {port_count} ports",
    notice="STATUS=punching towards {peer} on {port_count} ports",
    lasting="peer",
):
    """Punching begins, or goes on with other ports."""

    peer: str
    port_count: int
    ports: list[int]


class Waiting(Event, name="waiting", progress="waited_s"):
    """There is no hole yet; `met` is what the dials meet, "" if that is not known."""

    waited_s: float
    dials: int
    met: str


class AddressesLeftOut(
    Event,
    name="addresses_left_out",
    level=Level.NOTE,
    sentence="{count} of the peer's {total} addresses are not tried; give the right one instead of its name",
):
    """The names of the peer have more addresses than are tried."""

    count: int
    total: int


class Unresolved(Event, name="unresolved", sentence="{reason}", notice="STATUS={reason}"):
    """A name has no address at the moment."""

    reason: str


class LookingUpAgain(
    Event, name="looking_up_again", level=Level.NOTE, sentence="{reason}; looking it up again meanwhile"
):
    """A name has no address, and the run goes on; comes once for each reason."""

    reason: str


class ThroughNat64(
    Event,
    name="through_nat64",
    level=Level.INFO,
    sentence="no route for IPv4 here: it is dialled through the NAT64 {prefix}",
):
    """The network has IPv6 only, and a NAT64 through which IPv4 addresses are dialled."""

    prefix: str


class PortBusy(Event, name="port_busy", sentence="port {port} is taken on this machine ({reason}): skipped"):
    """Another program has a port; the other ports are used."""

    port: int
    reason: str


class DialFailed(Event, name="dial_failed", sentence="dial from port {port} to {remote}: {reason}"):
    """A dial has ended with an error, as most do."""

    port: int
    remote: str
    reason: str


class ForeignDial(
    Event,
    name="foreign",
    level=Level.INFO,
    sentence="{remote} dialled a port of ours and is not the peer: closed",
    repeats=True,
    strange=True,
):
    """A stranger has dialled a port of ours."""

    remote: str


class Opened(Event, name="opened", sentence="a connection opened: {local} to {remote}", strange=True):
    """A connection has opened; its other side is not known yet."""

    local: str
    remote: str


class Dropped(
    Event,
    name="dropped",
    level=Level.INFO,
    sentence="the connection to {remote} {reason}: closed",
    repeats=True,
    strange=True,
):
    """The other side of a connection was not the peer, or the connection would carry next to nothing."""

    remote: str
    reason: str


class Rejected(
    Event, name="rejected", level=Level.NOTE, sentence="{remote}: {reason}{goes_on}", repeats=True, strange=True
):
    """The peer's role, version or secret does not fit; it may also be a stranger's."""

    remote: str
    reason: str
    # What follows it for people: how long another peer is waited for.
    goes_on: str = ""


class RejectedAgain(Event, name="rejected_again", sentence="{remote}: {reason}", strange=True):
    """Rejected once more for the same reason: the same address of the peer, or any stranger."""

    remote: str
    reason: str


class Guessed(
    Event,
    name="guessed",
    level=Level.NOTE,
    sentence="tries at the secret that failed: {count}, the last from {remote}: somebody guesses, or has another one",
):
    """A try has got this side's proof, and brought no right one; told of the first, then once an hour."""

    remote: str
    count: int


# ---- the hole and the link


class HoleOpened(
    Event,
    name="hole",
    level=Level.INFO,
    sentence="hole open: {local} to {remote}, {role} there, after {waited_s:.2f} s and {dials} dials",
    notice="STATUS=connected, {local} to {remote}",
):
    """Both sides agree on one connection; `role` is the peer's, as options."""

    local: str
    remote: str
    rtt_s: float | None
    role: str
    leads: bool
    waited_s: float
    dials: int


class Sealed(
    Event,
    name="sealed",
    level=Level.INFO,
    sentence="link sealed; verifier {verifier}, the same on both sides unless an attacker is in the middle",
):
    """The link is sealed, as it is without --plain."""

    authenticated: bool
    verifier: str


class Unauthenticated(
    Event,
    name="unauthenticated",
    level=Level.NOTE,
    sentence="the link is sealed, but the peer is not authenticated; give both sides the same secret",
    repeats=True,
):
    """After Sealed, without a secret."""


class Unsealed(
    Event,
    name="unsealed",
    level=Level.NOTE,
    sentence="the link is plain: anybody on the way can read and change it, and whoever answers is taken for the peer",
    repeats=True,
):
    """The link is neither sealed nor authenticated (--plain)."""
