"""A descriptor that only occupies a number, so that no socket takes that of stdin, stdout or stderr."""

from __future__ import annotations

import contextlib
import os


def open_nowhere(mode: int = os.O_RDWR) -> int:
    """Open what takes every byte, unless `mode` is O_RDONLY, and gives none: /dev/null, or where that lacks, "/"."""
    with contextlib.suppress(OSError):
        return os.open(os.devnull, mode | os.O_CLOEXEC)
    # Reads and writes fail, but the number is taken.
    return os.open("/", os.O_RDONLY | os.O_CLOEXEC)
