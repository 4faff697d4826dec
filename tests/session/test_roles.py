"""An error of this system becomes a code that the far side can explain."""

from __future__ import annotations

import errno
import socket

import pytest

from punchtunnel.protocol.frames import Reason
from punchtunnel.session.roles import why_unreachable


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, ""), Reason.REFUSED),
        (FileNotFoundError(errno.ENOENT, ""), Reason.REFUSED),
        (TimeoutError(), Reason.TIMED_OUT),
        (OSError(errno.EHOSTUNREACH, ""), Reason.UNREACHABLE),
        (OSError(errno.EMFILE, ""), Reason.NO_RESOURCES),
        (socket.gaierror(socket.EAI_NONAME, "unknown"), Reason.NO_SUCH_NAME),
    ],
)
def test_failed_target_becomes_a_reason_for_the_far_side(error: OSError, reason: Reason) -> None:
    assert why_unreachable(error)[1] is reason
