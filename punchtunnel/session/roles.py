"""What a side's role means for the streams of a session."""

from __future__ import annotations

import errno
import socket

from punchtunnel import words
from punchtunnel.ends.sockets import system_reason
from punchtunnel.errors import NO_RESOURCES
from punchtunnel.protocol.mux import Reason


def why_unreachable(error: OSError) -> tuple[str, Reason]:
    """Return why the target could not be connected to: as words for this side, and as a code for the far side."""
    if isinstance(error, TimeoutError):
        return words.NO_ANSWER, Reason.TIMED_OUT
    if isinstance(error, socket.gaierror):
        return system_reason(error), Reason.NO_SUCH_NAME
    reason = Reason.UNREACHABLE
    if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
        reason = Reason.REFUSED
    elif error.errno in NO_RESOURCES:
        reason = Reason.NO_RESOURCES
    return system_reason(error), reason
