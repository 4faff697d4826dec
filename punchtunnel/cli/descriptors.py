"""The descriptors that a run inherits, and how many it may have."""

from __future__ import annotations

import contextlib
import os
import resource
import stat

from punchtunnel.protocol.frames import MAX_SIZE

# More than a busy tunnel needs, and less than makes programs slow that close
# every descriptor one by one.
MAX_DESCRIPTORS = 65536

# Which of stdin, stdout and stderr the caller had closed.
closed: set[int] = set()


def occupy_closed() -> None:
    """Put /dev/null where a standard descriptor is closed, so that no socket takes its number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            closed.add(fd)
            os.open(os.devnull, os.O_RDWR)


def allow_many() -> None:
    """Use as many descriptors as the administrator allows: each stream costs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MAX_DESCRIPTORS)), hard))


def size_of_stdin() -> int | None:
    """Return how many bytes are left to read, if stdin is a file that tells."""
    with contextlib.suppress(OSError):
        info = os.fstat(0)
        # Files of /proc have a size of 0 and a content.
        if stat.S_ISREG(info.st_mode) and 0 < info.st_size <= MAX_SIZE:
            return max(info.st_size - os.lseek(0, 0, os.SEEK_CUR), 0)
    return None
