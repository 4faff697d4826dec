"""Where lines go: a stream that never holds a run up, and stderr or --status-fd as one of them.

Rule: what cannot be written, or is not read for a while, is lost; the next
line that gets through can say how many were.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import sys
from typing import TextIO

from punchtunnel.errors import UsageError
from punchtunnel.words import usage

# Seconds that a reader may take to make room for a line, and for the last one.
PATIENCE = 0.05
LAST_PATIENCE = 1.0


class Output:
    """A stream that is given up for the moment when nobody reads it.

    A terminal that is stopped (Ctrl-S) and a full pipe would block a write,
    and the tunnel with it.

    Attributes:
        lost: Writes that were dropped since the last one that was not.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._poll: select.poll | None = None
        self.lost = 0
        with contextlib.suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(stream.fileno(), select.POLLOUT)
            self._poll = poll

    def write(self, text: str, patience: float = PATIENCE) -> None:
        """Write whole lines, unless there is no room for them for `patience` seconds.

        Raises:
            OSError: Nobody will ever read them, or the disk is full.
            ValueError: The stream is closed.
        """
        # Who did not read the last one is not waited for again.
        wait = 0.0 if self.lost and patience == PATIENCE else patience
        if self._poll is not None and not self._poll.poll(wait * 1000):
            self.lost += 1
            return
        self._stream.write(text)
        self._stream.flush()
        self.lost = 0


def open_output(as_json: bool, status_fd: int | None) -> Output | None:
    """Return what tells people: stderr, unless it is closed or has the events."""
    return None if sys.stderr is None or (as_json and status_fd is None) else Output(sys.stderr)


def open_descriptor(fd: int, stdio: bool) -> Output:
    """Return what writes to --status-fd, any descriptor that was open from the start.

    Args:
        fd: The descriptor.
        stdio: The peer's bytes go to descriptor 1.

    Raises:
        UsageError: It is not open for writing, or belongs to the tunnel.
    """
    if fd == 1 and stdio:
        raise UsageError(usage.STATUS_FD_IS_STDOUT)
    try:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(usage.NOT_OPEN.format(fd=fd)) from error
    if mode == os.O_RDONLY:
        raise UsageError(usage.NOT_FOR_WRITING.format(fd=fd))
    # Without a buffer: what could not be written is not tried again.
    raw = io.FileIO(fd, "w", closefd=False)
    return Output(io.TextIOWrapper(raw, encoding="utf-8", write_through=True))
