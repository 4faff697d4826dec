"""A stdout that is a file or a disk, neither of which can be polled: a thread writes (system/writer.py).

A write to storage that stands still blocks for as long as that takes, and
the peer, which hears nothing meanwhile, gives the link up.  So the bytes wait
in a ring, and an eventfd tells of room, of an error, and of the end.
"""

from __future__ import annotations

import os
from functools import partial

from punchtunnel.system import wakeup
from punchtunnel.system.descriptors import open_nowhere
from punchtunnel.system.writer import Writer

# Bytes that wait for the storage.  With less, what waits was copied twice (measured).
ROOM = 2 * 1024 * 1024
# Seconds for what was taken already, when the link is lost.
PATIENCE = 1.0


class FileSink:
    """Writes to a descriptor without ever blocking; Linux only, as eventfd is.

    Args:
        fd: An inherited descriptor.

    Attributes:
        wait_fd: Polls as writable whenever there is something to tell.
    """

    # Splicing into a file would gain nothing.
    spliced_fd = None

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.wait_fd = wakeup.make_event()
        self._writer = Writer(fd, ROOM, partial(wakeup.tell, self.wait_fd))

    def write(self, data: memoryview) -> int:
        """Take what there is room for.

        Raises:
            OSError: An earlier write has failed.
        """
        return self._writer.put(data)

    def finish(self, *, close: bool) -> bool:
        """Wait until everything is written, and close the inherited descriptor; False: not yet, `wait_fd` will tell.

        Raises:
            OSError: It could not be kept.
        """
        return self._writer.finish(self._close_inherited if close else _leave_open)

    def close(self) -> None:
        """Close what was opened here; without an end before, write what the storage takes within PATIENCE."""
        self._writer.abandon(PATIENCE, partial(os.close, self.wait_fd))

    def _close_inherited(self) -> None:
        """Put /dev/null in its place, in one step: this is another thread than the one that opens sockets."""
        null = open_nowhere()
        try:
            # dup2() would hide the error of a full disk, or of NFS; each close tells it.
            os.close(os.dup(self._fd))
        finally:
            os.dup2(null, self._fd)
            os.close(null)


def _leave_open() -> None:
    """For the next session (-k)."""
