"""Pipes that carry bytes from one descriptor to another, without this process touching them.

    source --splice--> [ pipe ] --splice--> sink         pages move, bytes do not

splice(2) needs a pipe on one side, so a socket is joined to a socket by a pipe
of our own.  It is grown to 1 MiB, because 64 KiB would cost a system call for
every 64 KiB: measured, half the throughput.

Linux only.  Where splice is missing or refused (other systems, a descriptor
opened with O_APPEND), everything goes by read and write instead.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys

# Set to any value, it makes everything be copied: for tests, and to tell a kernel's fault from ours.
VARIABLE = "PUNCHTUNNEL_NO_SPLICE"
CAPACITY = 1024 * 1024
# A smaller pipe costs more calls than copying.  An ordinary user's 65th pipe
# of 1 MiB has 8 KiB or less (pipe-user-pages-soft).
LEAST_CAPACITY = 64 * 1024
# Pipes that may hold bytes of stalled streams at the same time; others copy.
MOST_PIPES = 16


def available() -> bool:
    """Tell whether bytes can be spliced here."""
    return hasattr(os, "splice") and VARIABLE not in os.environ


def cannot_splice(error: OSError) -> bool:
    """Tell whether a descriptor must be copied: by its kind, or because a sandbox knows no splice(2)."""
    return error.errno in (errno.EINVAL, errno.ENOSYS, errno.EPERM)


def grow(fd: int) -> int:
    """Give a pipe at least CAPACITY bytes of room, where that is allowed; return what it has, 0 where unknown."""
    if sys.platform != "linux":
        return 0
    capacity = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
    if capacity < CAPACITY:
        with contextlib.suppress(OSError):
            capacity = fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, CAPACITY)
    return capacity


class Pipe:
    """One pipe of our own, for Linux; `held` tells the bytes that are in it."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        for end in (self._out, self._in):
            os.set_blocking(end, False)
        self.capacity = grow(self._in)
        self.held = 0

    def fill(self, source: int, limit: int) -> int | None:
        """Move up to `limit` bytes in; 0 is EOF, None is that nothing came.

        With bytes in it already, None may also mean that there is no room: a
        pipe holds a number of pieces, not of bytes.

        Raises:
            OSError: The source is broken, or cannot be spliced from.
        """
        if sys.platform != "linux":
            raise NotImplementedError
        try:
            count = os.splice(source, self._in, limit, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return None
        self.held += count
        return count

    def drain(self, sink: int) -> int:
        """Move out what the sink takes now, and return how much that was.

        Raises:
            OSError: The sink is broken, or cannot be spliced to; what was held stays.
        """
        if sys.platform != "linux":
            raise NotImplementedError
        try:
            count = os.splice(self._out, sink, self.held, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            return 0
        self.held -= count
        return count

    def read(self) -> bytes:
        """Take out all that is held, by copying."""
        data = os.read(self._out, self.held)
        self.held -= len(data)
        return data

    def close(self) -> None:
        """Close both ends, and lose what is held."""
        os.close(self._out)
        os.close(self._in)


class Pool:
    """Lends pipes; most are back, empty, before the next one is asked for."""

    def __init__(self) -> None:
        self._free: list[Pipe] = []
        self._most = MOST_PIPES if available() else 0
        self._count = 0

    def take(self) -> Pipe | None:
        """Return an empty pipe; None when there is none left, or none is large enough."""
        if self._free:
            return self._free.pop()
        if self._count >= self._most:
            return None
        try:
            pipe = Pipe()
        except OSError:
            return None
        if pipe.capacity < LEAST_CAPACITY:
            pipe.close()
            self._most = self._count
            return None
        self._count += 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Take a pipe back; one that still holds bytes is of no more use, nor is any after `close`."""
        if pipe.held or self._count > self._most:
            pipe.close()
            self._count -= 1
        else:
            self._free.append(pipe)

    def close(self) -> None:
        """Lend no more; close the pipes that are here, and the others when they come back."""
        self._count -= len(self._free)
        self._most = 0
        for pipe in self._free:
            pipe.close()
        self._free.clear()
