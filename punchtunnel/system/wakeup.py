"""An eventfd: how a thread wakes whoever polls; Linux only."""

from __future__ import annotations

import os
import sys

if sys.platform == "linux":

    def make_event(count: int = 0) -> int:
        """Return a descriptor that polls as writable, and as readable once it was told, or if `count` is not 0."""
        return os.eventfd(count, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def tell(event: int) -> None:
        """Make an edge-triggered poller tell of the descriptor once more."""
        os.eventfd_write(event, 1)

else:

    def make_event(count: int = 0) -> int:
        """See above."""
        raise NotImplementedError

    def tell(event: int) -> None:
        """See above."""
        raise NotImplementedError
