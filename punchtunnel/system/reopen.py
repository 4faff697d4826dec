"""A second description of an inherited pipe or terminal, which does not block; the inherited one keeps its flags."""

from __future__ import annotations

import contextlib
import os
import stat
import sys


def reopened(fd: int, mode: int) -> int | None:
    """Open what a descriptor leads to once more, without blocking.

    Args:
        fd: The inherited descriptor.
        mode: os.O_RDONLY or os.O_WRONLY.

    Returns:
        A new descriptor; None if it is neither a pipe nor a terminal, or cannot be opened (no /proc, another user's).
    """
    if not (stat.S_ISFIFO(os.fstat(fd).st_mode) or (os.isatty(fd) and not _is_master(fd))):
        return None
    with contextlib.suppress(OSError):
        return os.open(f"/proc/self/fd/{fd}", mode | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return None


def _is_master(fd: int) -> bool:
    """Tell whether a descriptor is the master of a pseudo-terminal: opening it again would make a new pair."""
    device = os.fstat(fd).st_rdev
    return sys.platform == "linux" and (os.major(device), os.minor(device)) == (5, 2)
