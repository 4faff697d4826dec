"""The two halves that a link needs of whatever a stream is joined to.

    read_into(view)  n > 0 bytes read   0 EOF   None nothing there yet
    write(data)      n > 0 bytes taken  0 no room now

Rule 1: neither half ever blocks the loop.
Rule 2: neither half keeps bytes: what `write` has taken has left this process,
        or the end finishes late and tells when it has.
"""

from __future__ import annotations

from typing import Protocol


class End(Protocol):
    """What a stream is joined to: a source of bytes for the peer, and a sink for bytes from it.

    Attributes:
        short_is_dry: A read of fewer bytes than asked for shows that none are left.
        finishes_late: `finish_writing` may have to be called again.
    """

    short_is_dry: bool
    finishes_late: bool

    @property
    def source_fd(self) -> int | None:
        """The descriptor to wait on after `read_into` has returned None; None: it is always ready."""

    @property
    def sink_fd(self) -> int | None:
        """The descriptor to wait on after `write` has returned 0; None: it is always ready."""

    @property
    def spliced_source(self) -> int | None:
        """The descriptor to splice from (system/pipes.py) without blocking; None: copy."""

    @property
    def spliced_sink(self) -> int | None:
        """The descriptor to splice to without blocking; None: copy."""

    def is_at_hand(self, limit: int) -> bool:
        """Tell whether `limit` bytes can be spliced from `spliced_source` without blocking, now."""

    def read_into(self, view: memoryview) -> int | None:
        """Read into `view` and return the number of bytes; 0 is EOF, None is nothing there yet.

        Raises:
            OSError: The source is broken.
        """

    def write(self, data: memoryview) -> int:
        """Write some of `data` and return the number of bytes; 0 is no room now.

        Raises:
            OSError: The sink is broken.
        """

    def write_last(self, data: memoryview) -> int:
        """Like `write`, for what `finish_writing` follows at once: the two may leave together.

        Raises:
            OSError: The sink is broken.
        """

    def finish_writing(self) -> bool:
        """Pass EOF on: nothing more will be written.

        Returns:
            False: something is still to be written; call it again when `sink_fd` tells.

        Raises:
            OSError: What was written could not be kept (a full disk, NFS).
        """

    def failure(self) -> OSError | None:
        """Return the error that has broken both halves, if the kernel knows of one."""

    def close(self) -> None:
        """Close after both halves have ended well."""

    def abort(self) -> None:
        """Close, and let a program at the other side of a socket read an error (RST) instead of EOF."""
