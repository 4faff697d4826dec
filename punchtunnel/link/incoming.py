"""The incoming half of a hole: bytes of frames, in order, opened where they are sealed.

    plain     hole --> [buffer]                                  at most what is asked for
    sealed    hole --> [ record | next header ] --> open --> [plaintext]

Rule 1: only what is authenticated counts as a sign of life: a changed length
        could make a link wait for ever for the rest of a record.
Rule 2: when a long record has begun, exactly its rest and the header of the
        next are read, so that nothing is moved in memory.  On a short path
        Linux wakes us once the whole rest is there, not for every part.

Knows nothing of frames.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator

from punchtunnel.protocol.records import HEADER, MAX_RECORD, Opener
from punchtunnel.system import tcp

RECEIVE_SIZE = 256 * 1024
# Seconds.  With a longer round trip fewer wake-ups gain nothing, and TCP's window grows
# more slowly: measured, 10 % less in the first seconds at 300 ms.
NEAR = 0.002
# Bytes.  Measured at 300 ms: with the usual 64 KiB the sender waited for our window
# in the first two round trips.
FIRST_WINDOW = 4 * 1024 * 1024
# Bytes of short records that are read with one call.
SHORT_RECORDS = 64 * 1024


class Incoming:
    """Receives from the hole.

    Args:
        sock: The hole; its owner closes it.
        opener: Opens; None on a plain link.

    Attributes:
        readable: The hole may have something.
        hung_up: The kernel knows of an end, which is still to be found after a short read.
        ended: The end was found.
        is_near: The round trip is short: by the kernel's first estimate, until the carrier has a measured one.
        heard_at: When something that is authenticated came last, or anything on a plain link.
    """

    def __init__(self, sock: socket.socket, opener: Opener | None) -> None:
        self._sock = sock
        self._opener = opener
        self._buffer = memoryview(bytearray(MAX_RECORD + HEADER.size if opener is not None else RECEIVE_SIZE))
        # Bytes at the beginning of the buffer that belong to a record that is not whole yet.
        self._held = 0
        # The size of that record; 0 until its header has come.
        self._size = 0
        # Bytes that must be there before the kernel wakes us.
        self._told_at = 1
        # Without an estimate, as on a socket that is none of TCP, the path may be any.
        self.is_near = 0.0 < tcp.round_trip(sock) < NEAR
        if not self.is_near:
            tcp.open_receive_window(sock, FIRST_WINDOW)
        self.readable = True
        self.hung_up = False
        self.ended = False
        self.heard_at = time.monotonic()

    @property
    def between_records(self) -> bool:
        """True where the hole may end without cutting a record."""
        return not self._held

    def begin(self, unread: bytes) -> Iterable[memoryview]:
        """Return what came with the hole, which precedes everything that is received; like `receive`."""
        self._buffer[: len(unread)] = unread
        return (self._buffer[: len(unread)],) if self._opener is None else self._open(self._opener, len(unread))

    def receive(self, limit: int = RECEIVE_SIZE) -> Iterable[memoryview] | None:
        """Read the hole once and return bytes of frames, each view valid until the next.

        None when nothing was there.

        Args:
            limit: The most to read on a plain link.

        Raises:
            OSError: The hole is broken.
            PeerError: A record is not the one that was sealed; raised by the iterator.
        """
        wanted = limit if self._opener is None else self._wanted()
        try:
            count = self._sock.recv_into(self._buffer[self._held : self._held + wanted])
        except BlockingIOError:
            self.readable = False
            self._be_told()
            return None
        self.ended = not count
        # A stream socket that gives less has no more; the poller tells of what comes later.
        self.readable = count == wanted or self.hung_up
        if self._opener is None:
            self.heard_at = time.monotonic()
            return (self._buffer[:count],)
        return self._open(self._opener, count)

    def _wanted(self) -> int:
        """Return how much of a sealed hole to read (rule 2)."""
        if self._size > SHORT_RECORDS:
            return self._size + HEADER.size - self._held
        return SHORT_RECORDS + HEADER.size - self._held

    def _open(self, opener: Opener, count: int) -> Iterator[memoryview]:
        begin, end = 0, self._held + count
        while end - begin >= HEADER.size:
            self._size = self._size or opener.record_size(self._buffer, begin)
            if end - begin < self._size:
                break
            plaintext = opener.open(self._buffer[begin : begin + self._size])
            self.heard_at = time.monotonic()
            begin, self._size = begin + self._size, 0
            yield plaintext
        self._held = end - begin
        if begin and self._held:
            self._buffer[: self._held] = self._buffer[begin:end]
        if not self.readable:
            self._be_told()

    def _be_told(self) -> None:
        """Have the kernel wait for the whole rest of a long record, which comes in parts of 64 KiB at most."""
        needed = self._size - self._held if self.is_near and self._size > SHORT_RECORDS else 1
        if needed != self._told_at:
            self._told_at = needed
            tcp.wait_for_bytes(self._sock, needed)
