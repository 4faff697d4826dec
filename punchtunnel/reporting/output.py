"""Streams that lines are written to, stderr and --status-fd, without ever holding a run up.

    pipe, terminal    opened a second time, without blocking (system/reopen.py)
    socket            MSG_DONTWAIT
    /dev/null         as it is: it never blocks
    any other         a thread writes (system/writer.py)

Rule 1: what is not read for a while is lost; the next line that gets through
        can say how many lines were.
Rule 2: a line that has begun is finished before the next one begins.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import socket
import stat
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TextIO

from punchtunnel.errors import UsageError
from punchtunnel.system.reopen import reopened
from punchtunnel.words import usage

if TYPE_CHECKING:
    from punchtunnel.system.writer import Writer

# Seconds that a write waits for the reader to make room; the last line of a run waits longer.
PATIENCE = 0.05
LAST_PATIENCE = 1.0
# Seconds before what polls as writable, and takes nothing, is tried again.
RETRY = 0.001
# Bytes that may wait for a log on storage that stands still.
ROOM = 256 * 1024


class _Way(Protocol):
    """How bytes leave."""

    def write(self, data: bytes, patience: float) -> bool:
        """Write all of `data`, now or as soon as there is room; False if it has to be dropped."""


class Output:
    """A stream that drops what is written to it while nobody reads it.

    A terminal that is stopped (Ctrl-S) or not read, a full pipe and a disk
    that does not answer would block a write, and the tunnel with it.

    Args:
        stream: Where the lines go.
        before: Called in the thread that writes to a file, before each write.

    Attributes:
        lost: Writes that were dropped since the last successful one.
    """

    def __init__(self, stream: TextIO, before: Callable[[], None] | None = None) -> None:
        self._stream = stream
        self._before = before
        self._way: _Way | None = None
        self.lost = 0
        self.look_again()

    def look_again(self) -> None:
        """Find out how to write to what the stream's descriptor leads to now; what waited to be written is lost."""
        with contextlib.suppress(OSError, ValueError):
            self._way = _way_to(self._stream.fileno(), self._before)

    def write(self, text: str, patience: float = PATIENCE) -> None:
        """Write whole lines, or drop them if there is no room within `patience` seconds.

        Raises:
            OSError: The reader is gone for good, or the disk is full.
            ValueError: The stream is closed.
        """
        if self._way is None:
            self._stream.write(text)
            self._stream.flush()
            return
        # A reader that did not make room for the last line is not waited for again.
        wait = 0.0 if self.lost and patience == PATIENCE else patience
        # A stream that was closed has no descriptor any more.
        self._stream.fileno()
        if self._way.write(text.encode(self._stream.encoding, "backslashreplace"), wait):
            self.lost = 0
        else:
            self.lost += 1

    def finish(self) -> None:
        """Wait for what was written before, no longer than for the last line: a thread may still have it.

        Raises:
            OSError, ValueError: As `write`.
        """
        self.write("", LAST_PATIENCE)


def _way_to(fd: int, before: Callable[[], None] | None) -> _Way:
    info = os.fstat(fd)
    private = reopened(fd, os.O_WRONLY)
    if private is not None or info.st_rdev == os.makedev(1, 3):
        return _Unblocking(fd if private is None else private, owned=private is not None)
    if stat.S_ISSOCK(info.st_mode):
        return _Unblocking(os.dup(fd), owned=True, is_socket=True)
    return _Threaded(fd, before)


class _Unblocking:
    """A descriptor that takes what fits: the rest of a line waits here."""

    def __init__(self, fd: int, *, owned: bool, is_socket: bool = False) -> None:
        self._fd = fd
        self._owned = owned
        self._socket = socket.socket(fileno=fd) if is_socket else None
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._rest = b""

    def __del__(self) -> None:
        if self._socket is not None:
            self._socket.close()
        elif self._owned:
            os.close(self._fd)

    def write(self, data: bytes, patience: float) -> bool:
        """See _Way."""
        deadline = time.monotonic() + patience
        self._rest = self._push(self._rest, deadline)
        if self._rest:
            return False
        rest = self._push(data, deadline)
        if len(rest) == len(data):
            return not data
        self._rest = rest
        return True

    def _push(self, data: bytes, deadline: float) -> bytes:
        """Write until the deadline, and return what was not taken."""
        while data:
            try:
                data = data[self._send(data) :]
                continue
            except BlockingIOError:
                left = deadline - time.monotonic()
            if left <= 0:
                break
            if self._poll.poll(left * 1000):
                # A terminal has room, but not for a line feed, which it makes two bytes of.
                time.sleep(RETRY)
        return data

    def _send(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        return os.write(self._fd, data)


class _Threaded:
    """A descriptor that cannot be polled."""

    def __init__(self, fd: int, before: Callable[[], None] | None) -> None:
        self._fd = fd
        self._before = before
        self._writer: Writer | None = None

    def write(self, data: bytes, patience: float) -> bool:
        """See _Way; the last line of a run is waited for."""
        if self._writer is None:
            if not data:
                return True
            # Imported late: most runs write to a terminal or a pipe, or nothing.
            from punchtunnel.system.writer import Writer

            self._writer = Writer(self._fd, ROOM, before=self._before)
        if len(data) > ROOM or not self._writer.wait(patience, ROOM - len(data)):
            return False
        self._writer.put(memoryview(data))
        if patience < LAST_PATIENCE:
            return True
        is_written = self._writer.wait(patience)
        # Raises what has kept the thread from writing it: nobody else will be told.
        self._writer.put(memoryview(b""))
        return is_written


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
