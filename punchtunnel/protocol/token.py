"""The token by which both sides ask for each other at a relay, one for each day.

    clocks      23:40   23:45   0:00   0:15   0:20
    today's     ======================|
    tomorrow's          |==============================     both are used around midnight

Rule 1: whoever knows a token can test guesses of the secret without talking to
        anybody, and the relay is told it.  So only a secret that nobody can
        guess makes one.
Rule 2: a token is used for a day, so that a relay cannot tell that two sides
        that meet today are those that met yesterday.
Rule 3: two clocks that differ by at most 2 · OVERLAP share a token at any time.

No clock: each time is an argument.
"""

from __future__ import annotations

import struct

from punchtunnel.errors import UsageError
from punchtunnel.protocol.agreement import hkdf
from punchtunnel.protocol.secret import is_fresh
from punchtunnel.words import usage

TOKEN_SIZE = 32
# Seconds.
DAY = 86400
# Seconds before and after midnight, UTC, in which two tokens are used: a clock that is set by hand is hardly
# more wrong than this.
OVERLAP = 900.0


def check(secret: bytes, *, sealed: bool) -> None:
    """Refuse a secret that must not make a token.

    Args:
        secret: In its normal form; empty when there is none.
        sealed: False with --plain.

    Raises:
        UsageError: There is none, or one that `secret.fresh` has not written.
    """
    if not sealed:
        raise UsageError(usage.MEETING_IN_PLAIN)
    if not secret:
        raise UsageError(usage.MEETING_WITHOUT_SECRET)
    if not is_fresh(secret):
        raise UsageError(usage.MEETING_WITH_WEAK_SECRET)


def days(t: float) -> tuple[int, ...]:
    """Return the days, in UTC since 1970, whose tokens are used at the Unix time `t`: one, or two around midnight."""
    first, last = (int((t + shift) // DAY) for shift in (-OVERLAP, OVERLAP))
    return tuple(range(first, last + 1))


def token(secret: bytes, channel_tag: bytes, day: int) -> bytes:
    """Return TOKEN_SIZE bytes: HKDF-SHA256(secret, info = "punchtunnel meet" ‖ channel tag ‖ int64(day)).

    Args:
        secret: In its normal form.
        channel_tag: From `schedule.channel_tag`.
        day: One of `days`.

    Raises:
        UsageError: `check` refuses the secret.
    """
    check(secret, sealed=True)
    return hkdf(secret, b"", TOKEN_SIZE, b"punchtunnel meet" + channel_tag + struct.pack(">q", day))
