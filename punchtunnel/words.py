"""Every sentence that a person reads, so that tone and wording stay one hand's.

Lower case, no exception names; what happened, with numbers, and what to try.
The same word always names the same thing: hole, dial, hold, bucket, winner,
leader, stream, credit, target, peer.

An *event* is something that happened, with fields; EVENTS says how it reads
and from which verbosity on.  status.py prints them, as text or as JSON.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from punchtunnel.dialling import Counts
    from punchtunnel.election import Hello, Role


class Level(IntEnum):
    """From which verbosity on an event is printed: -q is -1, -v is 1, -vv is 2."""

    ERROR = -1
    NOTE = 0
    INFO = 1
    DEBUG = 2


class Report(Protocol):
    """Where events go.  The names of the fields carry their units (`wait_s`)."""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Take in one event of EVENTS with its fields."""


def unreported(event: str, /, **fields: object) -> None:
    """Drop an event: the report of a program that wants none."""


# event: (level, sentence)
EVENTS: dict[str, tuple[Level, str]] = {
    "unresolved": (Level.INFO, "{reason}"),
    "punching": (Level.INFO, "punching towards {peer} on {port_count} ports"),
    "port_busy": (Level.DEBUG, "port {port} is taken on this machine ({reason}): skipped"),
    "dial_failed": (Level.DEBUG, "dial from port {port} to {remote}: {reason}"),
    "foreign": (Level.INFO, "{remote} dialled a port of ours and is not the peer: closed"),
    "opened": (Level.DEBUG, "a connection opened: {local} to {remote}"),
    "dropped": (Level.INFO, "the connection to {remote} {reason}: closed"),
    "hole": (Level.INFO, "hole open: {local} to {remote}, {role} there, after {waited_s:.2f} s and {dials} dials"),
    "listening": (Level.NOTE, "listening on {place}"),
    "link_up": (Level.INFO, "link up on {loop}, {side}"),
    "stream_opened": (Level.INFO, "stream {stream}: {what}"),
    "stream_closed": (Level.DEBUG, "stream {stream}: closed"),
    "stream_reset": (Level.INFO, "stream {stream}: {reason}"),
    "target_refused": (Level.NOTE, "stream {stream}: {reason}"),
    "warning": (Level.NOTE, "{reason}"),
    "rtt": (Level.DEBUG, "round trip {rtt_s:.4f} s"),
    "link_ended": (Level.INFO, "link ended, {bytes_in} bytes received and {bytes_out} sent"),
    "punching_again": (Level.INFO, "{reason}; punching again"),
    "exit": (Level.ERROR, "{reason}"),
}

NO_PEER = "no peer: give the address of the other machine"
NO_ADDRESS = "no PEER has an address of the chosen family"
LINK_CUT = "link lost: the peer's process or its machine ended without a goodbye"
PEER_QUIT = "the peer ended before everything was delivered"
SESSION_OVER = "the session is over"
NO_ANSWER = "no answer"


def peers_text(peers: Sequence[str]) -> str:
    """Return several PEERs as one word in a sentence."""
    return " or ".join(peers)


def no_hole(peers: Sequence[str], wait: float, counts: Counts, pending: int) -> str:
    """Say why there is no hole, from what was counted, and what to try."""
    start = f"no hole to {peers_text(peers)} in {wait:g} s: {counts.dials} dials"
    met = counts.strangers + counts.mute
    if counts.other_channel:
        return f"{start}; a punchtunnel there uses another channel: give both sides the same --channel"
    if met:
        return (
            f"{start}, {met} answered but not by a punchtunnel: "
            f"a router or another program takes these connections; is it the right address?"
        )
    if counts.rewritten:
        return (
            f"{start}; the peer came from other ports than it dialled from: "
            f"its router rewrites ports; use IPv6, or map ports on one router"
        )
    if counts.forbidden and counts.forbidden >= counts.dials // 2:
        return f"{start}, {counts.forbidden} forbidden by this machine's own firewall: allow outgoing TCP"
    if counts.refused > counts.unreachable and counts.refused:
        return (
            f"{start}, {counts.refused} refused at once: the peer is not punching yet, or its router rejects; "
            f"start both sides within the same minute, with the same --channel"
        )
    if counts.unreachable:
        return (
            f"{start}, {counts.unreachable} unreachable: there is no route to that address from here; "
            f"check it, and this machine's network"
        )
    if counts.foreign:
        return (
            f"{start}, no answer; {counts.foreign} connections came from another address than the peer's: "
            f"is it the right one?"
        )
    return (
        f"{start}, no answer at all to {pending}: the peer is not punching, its address is wrong, "
        f"or a router on the way drops everything; start both sides within the same minute"
    )


def all_ports_busy(count: int, channel: str) -> str:
    """Say that no port of the schedule could be bound."""
    return (
        f"none of the {count} ports of channel {channel!r} could be bound: "
        f"another punchtunnel is punching on it; give every link its own --channel"
    )


def not_our_address(bind: str | None) -> str:
    """Say that `--bind` names no address of this machine."""
    return f"cannot bind {bind}: it is not an address of this machine"


def no_resources(reason: str) -> str:
    """Say that the system is out of something."""
    return f"the system refuses more sockets: {reason}; raise `ulimit -n`"


def role_name(role: Role) -> str:
    """Return a role as the options that choose it."""
    names = {1: "--stdio", 2: "-L", 4: "--to", 8: "a library socket"}
    return " and ".join(name for bit, name in names.items() if role & bit) or "nothing"


def rejected(mine: Role, version: int, hello: Hello | None) -> str:
    """Say why the peer was rejected and what to change."""
    if hello is None:
        return f"the peer speaks version {version} of the protocol, not 1: install the same punchtunnel on both sides"
    both = f"roles do not fit: {role_name(mine)} here, {role_name(hello.role)} there"
    if mine == hello.role and "-L" in role_name(mine):
        return f"{both}: both sides listen; one side needs --to HOST:PORT, or no option for stdio"
    if mine == hello.role:
        return f"{both}: both sides wait to dial a target; one side needs -L PORT, or no option for stdio"
    if 8 in (mine, hello.role):
        return f"{both}: punchtunnel.punch() meets only punchtunnel.punch(); use the same on both sides"
    return f"{both}: pair -L with --to, or give one of the two alone to meet stdio"


def target_failed(target: str, reason: str) -> str:
    """Say on the --to side that its target could not be reached."""
    return f"the target {target} cannot be reached: {reason}"


# Why the far side reset a stream; the keys are mux.Reason.
RESET_REASONS = {
    0: "connection reset by the far side",
    1: "the far side's target refused the connection",
    2: "the far side's target did not answer in time",
    3: "the far side's target is unreachable",
    4: "the far side cannot resolve the name of its target",
    5: "the far side is out of descriptors or streams",
    6: "the far side did not expect another stream",
    7: "the far side held 64 MiB that nobody read",
    8: PEER_QUIT,
}


def reset_reason(reason: int) -> str:
    """Return why a stream was reset, also for a reason of a later version."""
    return RESET_REASONS.get(reason, RESET_REASONS[0])


def dead_link(seconds: float) -> str:
    """Say that nothing was heard for too long."""
    return f"link lost: nothing heard from the peer for {seconds:.0f} s"


def broken_link(error: OSError) -> str:
    """Say that the operating system ended the link."""
    return f"link lost: {error.strerror or error}"


def local_reset(reason: str) -> str:
    """Say that the local client or target ended its connection with an error."""
    return f"the local connection broke: {reason}"


def protocol_error(code: int) -> str:
    """Say that the peer ended the link because of an error."""
    return f"link lost: the peer ended it with code {code} (1: it could not read us, 2: it failed itself)"


def idle_link(seconds: float) -> str:
    """Say that --idle-timeout ended the session."""
    return f"nothing was sent or received for {seconds:g} s (-i)"


def cannot(what: str, error: OSError) -> str:
    """Say that reading or writing an own descriptor failed."""
    return f"cannot {what}: {error.strerror or error}"


def sentence(event: str, fields: dict[str, object]) -> tuple[Level, str]:
    """Return the level and the text of one event.

    A field that is missing shows by its name: a message must never end a run.
    """
    level, text = EVENTS[event]
    with contextlib.suppress(KeyError, ValueError):
        return level, text.format(**fields)
    return level, f"{event} {fields}"
