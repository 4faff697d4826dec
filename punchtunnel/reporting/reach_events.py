"""The events of what helps a punch; see events.py, by which they are named."""

from __future__ import annotations

from punchtunnel.reporting.event import Event, Level


class PortMapped(
    Event,
    name="port_mapped",
    level=Level.INFO,
    sentence="{external} leads to port {port} of this machine, as its router has agreed by {by}",
):
    """A router of this machine forwards a port, or lets the peer through to one, until the end."""

    port: int
    external: str
    by: str


class MappedElsewhere(
    Event,
    name="mapped_elsewhere",
    level=Level.NOTE,
    sentence="the router has given {external} for port {port} of this machine, by {by}: "
    "if no hole opens, give {external} for PEER on the other side",
):
    """The same, but the port is none that the peer dials by itself."""

    port: int
    external: str
    by: str


class Recalled(
    Event,
    name="recalled",
    level=Level.INFO,
    sentence="trying the addresses of the last time while the name is looked up: {hosts}",
):
    """A name is being looked up, and what it led to when a hole last opened is dialled meanwhile."""

    hosts: str


class NotMapped(Event, name="not_mapped", level=Level.INFO, sentence="no port is forwarded: {reason}"):
    """A router of this machine was asked to forward a port, and does not."""

    reason: str


class Joining(Event, name="joining", level=Level.INFO, sentence="waiting for the peer at the relay {relays}"):
    """The relays that were named are joined, once in a punch."""

    relays: str


class RelayTrouble(Event, name="relay_trouble", level=Level.NOTE, sentence="{reason}; it is tried again"):
    """A relay cannot be joined now; told once for each reason."""

    reason: str


class Meeting(
    Event,
    name="meeting",
    level=Level.INFO,
    sentence="met at the relay {relay}; looking for a direct hole",
    repeats=True,
):
    """The peer was met at a relay, over which no payload passes."""

    relay: str


class Direct(Event, name="direct", level=Level.INFO, sentence="direct hole: {local} to {remote}", repeats=True):
    """Two sides that have met at a relay have a direct hole now, before their session has begun."""

    local: str
    remote: str


class Relayed(
    Event,
    name="relayed",
    level=Level.NOTE,
    sentence="through the relay {relay}; looking for a direct hole",
    repeats=True,
):
    """Payload passes through a relay from now on."""

    relay: str


class NotDirect(Event, name="not_direct", level=Level.INFO, sentence="no direct hole yet; {reason}", repeats=True):
    """A try for a direct hole has failed; the next one follows in so many seconds, null: when the peer says so."""

    reason: str
    next_s: float | None


class Moved(
    Event,
    name="moved",
    level=Level.NOTE,
    sentence="direct now: {local} to {remote}",
    notice="STATUS=connected, {local} to {remote}",
    repeats=True,
):
    """The session has moved from the relay to a direct hole; it has stood still for so many seconds."""

    local: str
    remote: str
    paused_s: float


class ViaStarted(Event, name="via_started", level=Level.INFO, sentence="waiting for the peer by {remote}"):
    """The command of --via is started for the first time in a punch."""

    remote: str


class ViaSaid(Event, name="via_said", level=Level.NOTE, sentence="the command of --via says: {text}", repeats=True):
    """The command of --via has written a line to stderr."""

    text: str


class ViaEnded(Event, name="via_ended", level=Level.NOTE, sentence="{reason}; it is started again"):
    """The command of --via has ended without a hole, or could not be started; told once for each reason.

    `status` is null if it did not end by itself.
    """

    status: int | None
    reason: str
