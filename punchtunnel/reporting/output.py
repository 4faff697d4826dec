"""Streams that lines are written to, stderr and --status-fd, without ever holding a run up.

Rule: what is not read for a while is lost; the next line that gets through can
say how many lines were.
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

# Seconds that a write waits for the reader to make room; the last line of a run waits longer.
PATIENCE = 0.05
LAST_PATIENCE = 1.0


class Output:
    """A stream that drops what is written to it while nobody reads it.

    A terminal that is stopped (Ctrl-S) or a full pipe would block a write, and
    the tunnel with it.

    Attributes:
        lost: Writes that were dropped since the last successful one.
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
        """Write whole lines, or drop them if there is no room within `patience` seconds.

        Raises:
            OSError: The reader is gone for good, or the disk is full.
            ValueError: The stream is closed.
        """
        # A reader that did not make room for the last line is not waited for again.
        wait = 0.0 if self.lost and patience == PATIENCE else patience
        if self._poll is not None and not self._poll.poll(wait * 1000):
            self.lost += 1
            return
        self._stream.write(text)
        self._stream.flush()
        self.lost = 0


def open_output(as_json: bool, status_fd: int | None) -> Output | None:
    """Return stderr, which tells people; None if it is closed, or has the events instead."""
    return None if sys.stderr is None or (as_json and status_fd is None) else Output(sys.stderr)


def open_descriptor(fd: int, stdio: bool) -> Output:
    """Return --status-fd, which the caller has opened.

    Args:
        fd: The descriptor.
        stdio: The peer's bytes go to descriptor 1.

    Raises:
        UsageError: It is not open for writing, or has the peer's bytes.
    """
    if fd == 1 and stdio:
        raise UsageError(usage.STATUS_FD_IS_STDOUT)
    try:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(usage.NOT_OPEN.format(fd=fd)) from error
    if mode == os.O_RDONLY:
        raise UsageError(usage.NOT_FOR_WRITING.format(fd=fd))
    # Unbuffered: a failed write must not be repeated by a later flush.
    raw = io.FileIO(fd, "w", closefd=False)
    return Output(io.TextIOWrapper(raw, encoding="utf-8", write_through=True))
