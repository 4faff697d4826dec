"""What a side tells the peer when its own end of a stream breaks."""

from __future__ import annotations

import errno
import os

import pytest

from punchtunnel import words
from punchtunnel.link.stream import Broken
from punchtunnel.protocol.frames import Reason


@pytest.mark.parametrize(
    ("code", "reading", "reason"),
    [
        (errno.ENOSPC, False, Reason.DISK_FULL),
        (errno.EDQUOT, False, Reason.DISK_FULL),
        (errno.EPIPE, False, Reason.NOT_TAKEN),
        (errno.EIO, False, Reason.NOT_WRITTEN),
        (errno.EIO, True, Reason.NOT_READ),
        (errno.EISDIR, True, Reason.NOT_READ),
        (errno.ECONNRESET, True, Reason.RESET),
        (errno.ECONNRESET, False, Reason.RESET),
        (errno.ETIMEDOUT, True, Reason.RESET),
        (errno.EHOSTUNREACH, True, Reason.RESET),
    ],
)
def test_an_end_that_breaks_is_explained(code: int, reading: bool, reason: Reason) -> None:
    """B's disk was full, and A heard "connection reset by the far side"."""
    assert Broken(OSError(code, os.strerror(code)), reading).reason is reason


def test_every_reason_has_a_sentence_of_its_own() -> None:
    assert set(words.RESET_REASONS) == set(Reason)
    assert len(set(words.RESET_REASONS.values())) == len(Reason)
