"""The descriptors that a run inherits, and how many it may open."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import stat
import sys

from punchtunnel.protocol.frames import MAX_SIZE
from punchtunnel.system.descriptors import open_nowhere

# More than a busy tunnel needs, and few enough for programs that close every
# possible descriptor one by one.
MAX_DESCRIPTORS = 65536

# Those of stdin, stdout and stderr that were closed when the process started.
closed: set[int] = set()


def occupy_closed() -> None:
    """Occupy the number of each standard descriptor that is closed, so that no socket takes it."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            closed.add(fd)
            # A page or a secret that is written to a closed stdout is lost, so that must fail.
            open_nowhere(os.O_RDONLY if fd == 1 else os.O_RDWR)
    if 1 in closed:
        # Without a buffer, which would be written once more at exit.
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)


def allow_many() -> None:
    """Use as many descriptors as the administrator allows: each stream costs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MAX_DESCRIPTORS)), hard))


def size_of_stdin() -> int | None:
    """Return how many bytes of stdin are left to read; None unless it is a file that knows its size."""
    with contextlib.suppress(OSError):
        info = os.fstat(0)
        # Files of /proc have contents, but a size of 0.
        if stat.S_ISREG(info.st_mode) and 0 < info.st_size <= MAX_SIZE:
            return max(info.st_size - os.lseek(0, 0, os.SEEK_CUR), 0)
    return None
