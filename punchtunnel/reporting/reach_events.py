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
