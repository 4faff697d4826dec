"""What this machine knows about its own clock; nothing is sent.

The kernel is told by whoever sets the clock (chrony, ntpd, timesyncd) that it
is synchronised, and how wrong it may be; it adds 0.5 ms to that every second
until it is told again (adjtimex(2)).
"""

from __future__ import annotations

import sys

# linux/timex.h
_STA_UNSYNC = 0x40
# The bytes of struct timex, and more.
_TIMEX_SIZE = 512


def synchronised() -> bool | None:
    """Tell whether the kernel takes the clock for synchronised; None where it does not say."""
    answer = _ask()
    return None if answer is None else not answer[0] & _STA_UNSYNC


def error_bound_ms() -> float | None:
    """Return by how many milliseconds a synchronised clock may be wrong; None where nobody knows."""
    answer = _ask()
    return None if answer is None or answer[0] & _STA_UNSYNC else answer[1] / 1000


def _ask() -> tuple[int, int] | None:
    """Return status and maxerror, in microseconds, of struct timex."""
    if sys.platform != "linux":
        return None
    # Imported now: most runs do not ask.
    import ctypes

    class Timex(ctypes.Structure):
        _fields_ = (
            # 0: read only.
            ("modes", ctypes.c_uint),
            ("offset", ctypes.c_long),
            ("freq", ctypes.c_long),
            ("maxerror", ctypes.c_long),
            ("esterror", ctypes.c_long),
            ("status", ctypes.c_int),
            ("rest", ctypes.c_char * _TIMEX_SIZE),
        )

    timex = Timex()
    try:
        # -1: a sandbox forbids it.
        if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return timex.status, timex.maxerror
