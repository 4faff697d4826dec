"""Every event: what may be reported, how it reads, and from which verbosity on.

An *event* is something that happened, with fields; status.py prints it as a
sentence or as JSON, and notify.py tells a service manager of some.
docs/EVENTS.md describes each one with its fields, and is compared with this
table and with real runs.  A program relies on names, fields and their types:
whoever removes or changes one of those raises SCHEMA.
"""

from __future__ import annotations

from enum import IntEnum

SCHEMA = 1


class Level(IntEnum):
    """From which verbosity on an event is printed: -q is -1, -v is 1, -vv is 2."""

    ERROR = -1
    NOTE = 0
    INFO = 1
    DEBUG = 2


UNAUTHENTICATED = "the link is sealed, but the peer is not authenticated: give both sides the same secret"

# event: (level, sentence); "" is for programs only.
EVENTS: dict[str, tuple[Level, str]] = {
    "start": (Level.DEBUG, ""),
    "unresolved": (Level.INFO, "{reason}"),
    "punching": (Level.INFO, "punching towards {peer} on {port_count} ports"),
    "waiting": (Level.DEBUG, ""),
    "port_busy": (Level.DEBUG, "port {port} is taken on this machine ({reason}): skipped"),
    "dial_failed": (Level.DEBUG, "dial from port {port} to {remote}: {reason}"),
    "foreign": (Level.INFO, "{remote} dialled a port of ours and is not the peer: closed"),
    "opened": (Level.DEBUG, "a connection opened: {local} to {remote}"),
    "dropped": (Level.INFO, "the connection to {remote} {reason}: closed"),
    "hole": (Level.INFO, "hole open: {local} to {remote}, {role} there, after {waited_s:.2f} s and {dials} dials"),
    "rejected": (Level.NOTE, "{remote}: {reason}"),
    "rejected_again": (Level.DEBUG, "{remote}: {reason}"),
    "sealed": (Level.INFO, "link sealed; verifier {verifier}, the same on both sides unless somebody stands between"),
    "unauthenticated": (Level.INFO, UNAUTHENTICATED),
    "listening": (Level.NOTE, "listening on {place}"),
    "announced": (Level.DEBUG, "{direction}: {bytes} bytes in all"),
    "link_up": (Level.INFO, "link up on {loop}, {side}"),
    "stream_opened": (Level.INFO, "stream {stream}: {what}"),
    "stream_closed": (Level.DEBUG, "stream {stream}: closed"),
    "stream_reset": (Level.INFO, "stream {stream}: {reason}"),
    "target_refused": (Level.NOTE, "stream {stream}: {reason}"),
    "warning": (Level.NOTE, "{reason}"),
    "rtt": (Level.DEBUG, "round trip {rtt_s:.4f} s"),
    "path": (Level.DEBUG, ""),
    "checked": (Level.NOTE, "the peer at {remote} has checked the path (-z) and left; punching on"),
    "traffic": (Level.DEBUG, ""),
    "link_ended": (Level.INFO, "link ended, {bytes_in} bytes received and {bytes_out} sent"),
    "punching_again": (Level.INFO, "{reason}; punching again"),
    "trying_now": (Level.INFO, "told to try now (SIGHUP): {what}"),
    "exit": (Level.ERROR, "{reason}"),
}

# What a service manager is told of an event (notify.py).
NOTICES = {
    "unresolved": "STATUS={reason}",
    "punching": f"STATUS={EVENTS['punching'][1]}",
    "hole": "STATUS=connected, {local} to {remote}",
    "link_up": "READY=1",
    "punching_again": f"STATUS={EVENTS['punching_again'][1]}",
    "exit": "STOPPING=1\nSTATUS={reason}",
}
