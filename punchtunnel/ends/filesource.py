"""A stdin that is a file or a disk, neither of which can be polled: what is in memory is read at once, in the loop.

    in the page cache    preadv2 with RWF_NOWAIT, or splice, in the loop
    on the disk          a thread reads the next pieces (system/reader.py), and an eventfd tells of them
    file systems that    in the loop where all of it is in memory (tmpfs), or else the
    know no RWF_NOWAIT   thread reads everything

A read from storage that stands still blocks for as long as that takes, and
the peer, which hears nothing meanwhile, gives the link up.

The position of the descriptor, which the shell and other programs share, is
where reading has come to, as if it had been read by read(2).
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from functools import partial

from punchtunnel.system import proc, wakeup
from punchtunnel.system.reader import Reader, read_at

# Pieces that the thread reads, one ahead of what is taken, before memory is looked into again.
PIECES = 16
# Bytes between two looks into the page cache, before so much is spliced.
STRIDE = 256 * 1024
# Errors that tell that a file, or a system, cannot say what is in memory.
_CANNOT_TELL = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ESPIPE}
# File systems that have everything in memory, and cannot tell either.
_IN_MEMORY = {"tmpfs", "ramfs"}
# Of preadv2: where the descriptor stands, which moves.
_HERE = -1

if sys.platform == "linux" and hasattr(os, "RWF_NOWAIT"):

    def read_now(fd: int, view: memoryview, offset: int = _HERE) -> int:
        """Read what is in memory.

        Raises:
            BlockingIOError: Nothing is, and it is not the end.
            OSError: One of _CANNOT_TELL, or it is broken.
        """
        return os.preadv(fd, [view], offset, os.RWF_NOWAIT)

else:

    def read_now(fd: int, view: memoryview, offset: int = _HERE) -> int:
        """See above."""
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


class FileSource:
    """Reads a descriptor without waiting for storage; Linux only, as eventfd is.

    Args:
        fd: An inherited descriptor.

    Attributes:
        wait_fd: Polls as readable whenever there is something to tell.
        spliced_fd: What to splice from while `is_at_hand`; None: never.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.wait_fd = wakeup.make_event(1)
        self.spliced_fd = fd if stat.S_ISREG(os.fstat(fd).st_mode) else None
        self._reader: Reader | None = None
        # The thread reads everything; or the loop does, and nothing is ever waited for.
        self._by_thread = self._in_memory = False
        # Pieces that the thread is still to be asked for.
        self._wanted = 0
        # Where what is taken from the thread begins; None: the descriptor has no position.
        self._position: int | None = None
        self._one = memoryview(bytearray(1))

    def is_at_hand(self, limit: int) -> bool:
        """Tell whether the next `limit` bytes are in memory, as far as some of them show."""
        if self._in_memory:
            return True
        if not self._reads_here:
            return False
        try:
            begin = os.lseek(self._fd, 0, os.SEEK_CUR)
            # The last one first: what is missing lies ahead, mostly.
            looks = (begin + limit - 1, *range(begin, begin + limit, STRIDE))
            return all(read_now(self._fd, self._one, look) for look in looks)
        except OSError:
            return False

    def read_into(self, view: memoryview) -> int | None:
        """Read what there is; None: `wait_fd` will tell.

        Raises:
            OSError: It is broken.
        """
        while self._reads_here:
            try:
                return read_at(self._fd, view, None) if self._in_memory else read_now(self._fd, view)
            except BlockingIOError:
                self._begin()
            except OSError as error:
                if self._in_memory or error.errno not in _CANNOT_TELL:
                    raise
                self._in_memory = proc.file_system(os.fstat(self._fd).st_dev) in _IN_MEMORY
                if not self._in_memory:
                    self._by_thread = True
                    self._begin()
        return self._take(view)

    def close(self) -> None:
        """Close what was opened here, and wait for nothing."""
        close_event = partial(os.close, self.wait_fd)
        if self._reader is None:
            close_event()
        else:
            self._reader.close(close_event)

    @property
    def _reads_here(self) -> bool:
        """The loop reads, because the thread has nothing left."""
        return not self._by_thread and (self._reader is None or self._reader.is_empty)

    def _begin(self) -> None:
        """Let the thread read on from where the descriptor stands."""
        if self._reader is None:
            self._reader = Reader(self._fd, partial(wakeup.tell, self.wait_fd), read_at)
        try:
            self._position = os.lseek(self._fd, 0, os.SEEK_CUR)
        except OSError:
            self._position = None
        self._reader.offset = self._position
        self._reader.ask()
        self._wanted = PIECES - 1

    def _take(self, view: memoryview) -> int | None:
        assert self._reader is not None
        count = self._reader.take(view)
        if count:
            if self._position is not None:
                self._position += count
                os.lseek(self._fd, self._position, os.SEEK_SET)
            if self._wanted and not self._reader.coming:
                self._reader.ask()
                self._wanted -= not self._by_thread
        return count
