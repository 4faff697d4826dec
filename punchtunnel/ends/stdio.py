"""The end that is this process's stdin and stdout, or any two inherited descriptors.

An inherited descriptor is shared with the shell and with other programs, so
its status flags are never changed:

    pipe, terminal    opened a second time through /proc, without blocking
    the same where    a poll before each read and write, and writes of at most
    /proc fails       PIPE_BUF
    socket            MSG_DONTWAIT
    file, /dev/null   always ready: epoll refuses them and uvloop aborts the
                      process, so the loop never sees their descriptors; a
                      thread reads from a file what is not in memory, and
                      writes to one (filesource.py, filesink.py)

A stdin that can never be read is an empty one, as for `ssh host cat file`:
nohup leaves one that is open for writing only (EBADF), and a background job
whose shell has gone may not read its terminal (EIO).  EIO of a file or a disk
is an error: bytes are missing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import sys
from collections.abc import Callable

from punchtunnel import words
from punchtunnel.ends.filesink import FileSink
from punchtunnel.ends.filesource import FileSource
from punchtunnel.system import pipes
from punchtunnel.system.descriptors import open_nowhere
from punchtunnel.system.reopen import reopened

# A pipe that polls as writable takes this many bytes without blocking (POSIX, pipe(7)).
_PIPE_BUF = select.PIPE_BUF


class StdioEnd:
    """A descriptor to read and one to write; it closes stdout at EOF, and nothing else that it has not opened.

    Args:
        stdin: The descriptor to read; None reads as an immediate EOF.
        stdout: The descriptor to write; None: it was closed when this program
            started, and the first byte is an error, as it is for cat.
        discard: Take all bytes and write none of them (--send-only).
        keep_open: Keep stdout open at EOF, for the next session (-k).
        unreadable: Called with the error when stdin turns out to be one that can never be read.
    """

    # A terminal gives one line for each read.
    short_is_dry = False

    def __init__(
        self,
        stdin: int | None,
        stdout: int | None,
        *,
        discard: bool = False,
        keep_open: bool = False,
        unreadable: Callable[[OSError], None] | None = None,
    ) -> None:
        self._source = None if stdin is None else _source_of(stdin)
        self._sink = None if stdout is None or discard else _sink_of(stdout)
        self.finishes_late = isinstance(self._sink, FileSink)
        self._discard = discard
        self._keep_open = keep_open
        self._unreadable = unreadable
        self.stdin_is_terminal = stdin is not None and os.isatty(stdin)

    @property
    def source_fd(self) -> int | None:
        """See End."""
        return None if self._source is None else self._source.wait_fd

    @property
    def sink_fd(self) -> int | None:
        """See End."""
        return None if self._sink is None else self._sink.wait_fd

    @property
    def spliced_source(self) -> int | None:
        """See End."""
        return None if self._source is None else self._source.spliced_fd

    @property
    def spliced_sink(self) -> int | None:
        """See End; splicing into a file would gain nothing."""
        return None if self._sink is None or self._sink.wait_fd is None else self._sink.spliced_fd

    def is_at_hand(self, limit: int) -> bool:
        """See End."""
        return not isinstance(self._source, FileSource) or self._source.is_at_hand(limit)

    def read_into(self, view: memoryview) -> int | None:
        """See End."""
        if self._source is None:
            return 0
        try:
            return self._source.read_into(view)
        except OSError as error:
            if not (error.errno == errno.EBADF or (error.errno == errno.EIO and self.stdin_is_terminal)):
                raise
            if self._unreadable is not None:
                self._unreadable(error)
            return 0

    def write(self, data: memoryview) -> int:
        """See End."""
        if self._discard:
            return len(data)
        if self._sink is None:
            raise OSError(errno.EBADF, words.CLOSED_FROM_START)
        return self._sink.write(data)

    def write_last(self, data: memoryview) -> int:
        """See End."""
        return self.write(data)

    def finish_writing(self) -> bool:
        """See End.

        The reader of a pipe sees EOF once its last writer is closed, so stdout
        itself is closed too; /dev/null keeps its number occupied.
        """
        if isinstance(self._sink, FileSink):
            return self._sink.finish(close=not self._keep_open)
        if self._sink is not None and not self._keep_open:
            self._sink.finish()
            self._sink = None
        return True

    def failure(self) -> OSError | None:
        """See End; only a write tells that the reader of stdout is gone."""
        return None

    def close(self) -> None:
        """See End."""
        for descriptor in (self._source, self._sink):
            if descriptor is not None:
                descriptor.close()
        self._source = self._sink = None

    def abort(self) -> None:
        """See End."""
        self.close()


class _Descriptor:
    """One inherited descriptor, read or written without blocking and without changing its flags."""

    def __init__(self, fd: int, mode: int) -> None:
        kind = os.fstat(fd).st_mode
        # Opened again through /proc, a pipe's other half would rob its reader.
        fits = _fits(fd, mode)
        self._fd = fd
        self._socket: socket.socket | None = None
        self._private: int | None = None
        if stat.S_ISSOCK(kind):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif fits:
            self._private = reopened(fd, mode)
        # One of the wrong direction fails at once, and need not be waited for.
        waits = fits and _can_wait(fd)
        self._polls = waits and self._socket is None and self._private is None
        self.wait_fd = (self._private if self._private is not None else fd) if waits else None
        # splice(2) on a blocking socket would block, whatever its own flags say.
        self.spliced_fd = fd if fits and stat.S_ISREG(kind) else None
        if stat.S_ISFIFO(kind) and self._private is not None:
            self.spliced_fd = self._private
            pipes.grow(self._private)

    def read_into(self, view: memoryview) -> int | None:
        try:
            if self._socket is not None:
                return self._socket.recv_into(view, 0, socket.MSG_DONTWAIT)
            if self._polls and not _ready(self._fd, select.POLLIN):
                return None
            return os.readv(self._fd if self._private is None else self._private, [view])
        except BlockingIOError:
            return None

    def write(self, data: memoryview) -> int:
        try:
            if self._socket is not None:
                return self._socket.send(data, socket.MSG_DONTWAIT)
            if self._polls:
                return os.write(self._fd, data[:_PIPE_BUF]) if _ready(self._fd, select.POLLOUT) else 0
            return os.write(self._fd if self._private is None else self._private, data)
        except BlockingIOError:
            return 0

    def finish(self) -> None:
        """Close the inherited descriptor too, so that the reader at its other end sees EOF."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
        self.close()
        null = open_nowhere()
        try:
            # dup2() would close it as well, but hide an error of that (a full disk, NFS).
            os.close(self._fd)
        finally:
            os.dup2(null, self._fd)
            os.close(null)

    def close(self) -> None:
        """Close what was opened here, and leave the inherited descriptor open."""
        if self._socket is not None:
            self._socket.close()
        if self._private is not None:
            os.close(self._private)
            self._private = None


def _source_of(fd: int) -> _Descriptor | FileSource:
    # One of the wrong direction, and a folder, fail at once.
    if sys.platform == "linux" and _fits(fd, os.O_RDONLY) and not (_can_wait(fd) or os.path.isdir(fd)):
        return FileSource(fd)
    return _Descriptor(fd, os.O_RDONLY)


def _sink_of(fd: int) -> _Descriptor | FileSink:
    kind = os.fstat(fd).st_mode
    if (stat.S_ISREG(kind) or stat.S_ISBLK(kind)) and sys.platform == "linux":
        return FileSink(fd)
    return _Descriptor(fd, os.O_WRONLY)


def _fits(fd: int, mode: int) -> bool:
    """Tell whether a descriptor is open for what `mode` says."""
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE in (mode, os.O_RDWR)


def _can_wait(fd: int) -> bool:
    """Tell whether a descriptor can block, and can be waited for."""
    kind = os.fstat(fd).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(fd):
        return True
    if stat.S_ISREG(kind) or sys.platform != "linux":
        return False
    # Others (an event device, an eventfd) can block if epoll accepts them.
    try:
        with select.epoll() as probe:
            probe.register(fd, select.EPOLLIN)
    except OSError:
        return False
    return True


def _ready(fd: int, event: int) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(0))
