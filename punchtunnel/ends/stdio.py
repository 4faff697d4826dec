"""What a stream is joined to: a socket, or this process's stdin and stdout.

An end has a source (bytes for the peer) and a sink (bytes from the peer).
Neither ever blocks the loop, and neither keeps bytes of its own:

    read_into(view)  n > 0 bytes read   0 EOF   None nothing there yet
    write(data)      n > 0 bytes taken  0 no room now

`source_fd` and `sink_fd` are what to wait on after None and 0; they are None
where waiting is of no use because the descriptor is always ready (regular
files, /dev/null: epoll refuses those, and uvloop aborts the process).

`spliced_source` and `spliced_sink` are descriptors that bytes may be spliced
from and to instead (link/splicing.py), without blocking; None: read and write
only.

Inherited descriptors are shared with the shell and other programs, so their
status flags are never changed: a pipe or a terminal is opened a second time,
without blocking, through /proc; where that is impossible each read and write
is preceded by a poll and stays below PIPE_BUF; sockets take MSG_DONTWAIT.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import sys
from typing import Protocol

from punchtunnel import words
from punchtunnel.address import AnyPlace, UnixPlace
from punchtunnel.errors import LocalError
from punchtunnel.system import pipes, tcp

# A write that is not longer never blocks on a pipe that polls as writable.
_PIPE_BUF = select.PIPE_BUF


class End(Protocol):
    """Both halves of what a stream is joined to.

    `short_is_dry`: a read of less than was asked for shows that nothing is left.
    """

    short_is_dry: bool

    @property
    def source_fd(self) -> int | None:
        """The descriptor to wait on before reading; None: always ready."""

    @property
    def sink_fd(self) -> int | None:
        """The descriptor to wait on before writing; None: always ready."""

    @property
    def spliced_source(self) -> int | None:
        """The descriptor to splice from; None: copy."""

    @property
    def spliced_sink(self) -> int | None:
        """The descriptor to splice to; None: copy."""

    def read_into(self, view: memoryview) -> int | None:
        """Read into `view`; 0 is EOF, None is nothing there yet.

        Raises:
            OSError: The source is broken.
        """

    def write(self, data: memoryview) -> int:
        """Write some of `data`; 0 is no room now.

        Raises:
            OSError: The sink is broken.
        """

    def finish_writing(self) -> None:
        """Pass EOF on: nothing more will be written.

        Raises:
            OSError: What was written could not be kept (a full disk, NFS).
        """

    def failure(self) -> OSError | None:
        """Return what has broken both halves, if the kernel knows of something."""

    def close(self) -> None:
        """Both halves have ended well."""

    def abort(self) -> None:
        """Pass RST on, where the end has such a thing."""


# Accepted sockets have the options of their listener: two system calls less for each.
ACCEPTED_INHERIT = sys.platform == "linux"


class SocketEnd:
    """A connected stream socket; owns it.

    Args:
        sock: The socket.
        tuned: Accepted from `listen`'s socket, it has inherited what that was told.
    """

    def __init__(self, sock: socket.socket, *, tuned: bool = False) -> None:
        if sock.gettimeout() != 0:
            sock.setblocking(False)
        is_tcp = not tcp.is_unix(sock)
        # A read of a Unix socket ends before a message that has descriptors with it.
        self.short_is_dry = is_tcp
        if is_tcp and not tuned:
            _tune(sock)
        self._sock = sock
        # Plain numbers: they are asked for all the time, but not after `close`.
        self.source_fd = self.sink_fd = self.spliced_source = self.spliced_sink = sock.fileno()

    def read_into(self, view: memoryview) -> int | None:
        """See End."""
        try:
            return self._sock.recv_into(view)
        except BlockingIOError:
            return None

    def write(self, data: memoryview) -> int:
        """See End."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    def finish_writing(self) -> None:
        """See End."""
        # The program may be gone already; reading will tell.
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def failure(self) -> OSError | None:
        """See End."""
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return OSError(code, os.strerror(code)) if code else None

    def close(self) -> None:
        """See End."""
        self._sock.close()

    def abort(self) -> None:
        """See End."""
        tcp.abort(self._sock)


class StdioEnd:
    """The process's own stdin and stdout, or any two inherited descriptors.

    Args:
        stdin: Descriptor to read; None reads as an immediate EOF.
        stdout: Descriptor to write; None when it was closed from the start:
            the first byte is then an error, as it is for cat.
        discard: Take all bytes and write none of them (--send-only).
        keep_open: EOF of one session is not EOF of the output (-k).
    """

    # A terminal gives a line at a time.
    short_is_dry = False

    def __init__(
        self, stdin: int | None, stdout: int | None, *, discard: bool = False, keep_open: bool = False
    ) -> None:
        self._source = None if stdin is None else _Descriptor(stdin, os.O_RDONLY)
        self._sink = None if stdout is None or discard else _Descriptor(stdout, os.O_WRONLY)
        self._discard = discard
        self._keep_open = keep_open
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
        """See End: into a file splicing gains nothing."""
        return None if self._sink is None or self._sink.wait_fd is None else self._sink.spliced_fd

    def read_into(self, view: memoryview) -> int | None:
        """See End."""
        return 0 if self._source is None else self._source.read_into(view)

    def write(self, data: memoryview) -> int:
        """See End."""
        if self._discard:
            return len(data)
        if self._sink is None:
            raise OSError(errno.EBADF, words.CLOSED_FROM_START)
        return self._sink.write(data)

    def finish_writing(self) -> None:
        """See End.

        The reader of a pipe sees EOF only when its last writer is closed, so
        stdout itself is closed too; /dev/null keeps its number occupied.
        """
        if self._sink is not None and not self._keep_open:
            self._sink.finish()
            self._sink = None

    def failure(self) -> OSError | None:
        """See End: a reader of stdout that has gone is found by writing."""
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
    """One inherited descriptor, read or written without blocking and without changing it."""

    def __init__(self, fd: int, mode: int) -> None:
        kind = os.fstat(fd).st_mode
        self._fd = fd
        self._socket: socket.socket | None = None
        self._private: int | None = None
        if stat.S_ISSOCK(kind):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISFIFO(kind) or (os.isatty(fd) and not _is_master(fd)):
            with contextlib.suppress(OSError):
                flags = mode | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                self._private = os.open(f"/proc/self/fd/{fd}", flags)
        waits = _can_wait(fd)
        self._polls = waits and self._socket is None and self._private is None
        self.wait_fd = (self._private if self._private is not None else fd) if waits else None
        # A socket that blocks would block in splice(2) too, whatever its flags say.
        self.spliced_fd = fd if stat.S_ISREG(kind) else None
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
        """Close for good, so that whoever reads the other end sees EOF."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)
        self.close()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Not left to dup2(), which hides that the last bytes could not be kept.
            os.close(self._fd)
        finally:
            os.dup2(null, self._fd)
            os.close(null)

    def close(self) -> None:
        """Give back what was opened here."""
        if self._socket is not None:
            self._socket.close()
        if self._private is not None:
            os.close(self._private)
            self._private = None


def _can_wait(fd: int) -> bool:
    """Tell whether readiness of a descriptor can be waited for."""
    kind = os.fstat(fd).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(fd):
        return True
    if stat.S_ISREG(kind) or sys.platform != "linux":
        return False
    # An event device, an eventfd: what epoll takes can block.
    try:
        with select.epoll() as probe:
            probe.register(fd, select.EPOLLIN)
    except OSError:
        return False
    return True


def _is_master(fd: int) -> bool:
    """Tell whether a terminal is the master of a pair: opened a second time it is a new pair."""
    device = os.fstat(fd).st_rdev
    return sys.platform == "linux" and (os.major(device), os.minor(device)) == (5, 2)


def _ready(fd: int, event: int) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(0))


def system_reason(error: OSError) -> str:
    """Return the system's own words: asyncio and socket put some of theirs into strerror."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def _tune(sock: socket.socket) -> None:
    tcp.send_at_once(sock)
    tcp.keep_urgent_bytes(sock)


def listen(place: AnyPlace) -> socket.socket:
    """Bind and listen for -L; of a name, its first address.

    Raises:
        LocalError: The port is taken, or the address is not ours.
    """
    try:
        if isinstance(place, UnixPlace):
            return _listen_unix(place.path)
        infos = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, sockaddr = infos[0]
        listener = socket.create_server(sockaddr, family=family, backlog=socket.SOMAXCONN)
        _tune(listener)
        return listener
    except UnicodeError as error:
        # An interface behind "%" that no machine can have.
        raise LocalError(words.not_our_address(str(place))) from error
    except OSError as error:
        raise LocalError(
            words.cannot(words.listen_on(str(place)), OSError(error.errno, system_reason(error)))
        ) from error


def _listen_unix(path: str) -> socket.socket:
    """Listen on a Unix socket; a path that nobody listens on any more is taken over."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_stale(path):
                raise
            os.unlink(path)
            sock.bind(path)
        sock.listen(socket.SOMAXCONN)
    except OSError:
        sock.close()
        raise
    return sock


def _is_stale(path: str) -> bool:
    """Tell whether `path` is a socket without a listener.

    A file that is no socket refuses connections too, and is not ours to remove.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return stat.S_ISSOCK(os.stat(path).st_mode) and probe.connect_ex(path) == errno.ECONNREFUSED
