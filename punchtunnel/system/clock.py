"""What this machine knows about its own clocks; nothing is sent.

A time daemon (chrony, ntpd, timesyncd) tells the kernel that the clock is
synchronised, and how wrong it may be.  The kernel adds 0.5 ms to that every
second until it is told again (adjtimex(2)).
"""

from __future__ import annotations

import sys
import time

# Linux has a clock that goes on in suspend; those of macOS and the BSDs stand still or do so anyway.
_WITH_SLEEP: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
# linux/timex.h
_STA_UNSYNC = 0x40
# At least the size of struct timex on every architecture.
_TIMEX_SIZE = 512


def with_sleep() -> float:
    """Return steady seconds that go on while this machine is suspended, where the system has such a clock."""
    return time.clock_gettime(_WITH_SLEEP)


def synchronised() -> bool | None:
    """Tell whether the kernel takes the clock for synchronised; None where it does not tell."""
    answer = _ask()
    return None if answer is None else not answer[0] & _STA_UNSYNC


def error_bound_ms() -> float | None:
    """Return by how many milliseconds the clock may be wrong; None unless it is synchronised."""
    answer = _ask()
    return None if answer is None or answer[0] & _STA_UNSYNC else answer[1] / 1000


def _ask() -> tuple[int, int] | None:
    """Return `status` of struct timex, and `maxerror` in microseconds; None where the kernel does not tell."""
    if sys.platform != "linux":
        return None
    # Imported now: most runs do not need it.
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
        # -1: a sandbox forbids the call.
        if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return timex.status, timex.maxerror
