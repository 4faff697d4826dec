"""Splicing: the payload of long frames bypasses this process, which sees only their headers.

    source --splice--> [ pipe ] --splice--> hole      one pipe, for the frame that is being sent
    hole --splice--> [ pipe ] --splice--> sink        one for each stream that has something in it

An optimization of plain carriers on Linux, and nothing else.  Without it
every byte is read and written, as on a sealed carrier.

Rule 1: while long frames come, the hole is read up to the end of a header and
        no further, so that the payload is still there to be spliced.
Rule 2: when a pipe is full, the hole is left unread, but only for a moment.
        A sink that has not taken much by then is slow: what comes for it is
        read until its pipe is empty.
        (A hole that stays unread would be taken for dead: the peer's
        TCP_USER_TIMEOUT counts a closed TCP window.)
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from punchtunnel.link.incoming import RECEIVE_SIZE, Incoming
from punchtunnel.link.outgoing import BULK
from punchtunnel.protocol.frames import HEADER
from punchtunnel.system import pipes
from punchtunnel.system.loop import Loop
from punchtunnel.system.pipes import Pipe, Pool

# A spliced frame nearly fills a pipe, because its header costs as many calls as its
# payload.  A pipe of 1 MiB holds 256 pieces, and 64 KiB that come out of TCP are 17 of
# them.  So 15 times 64 KiB fit, less what begins or ends within a segment.  The rest of
# a longer frame would cost two calls more, at both ends of the hole.
LONGEST_SPLICED_FRAME = 14 * 64 * 1024
# Seconds for which the hole stays unread because a pipe is full.  A sink that was only
# waiting for its time slice has taken much of it by then.
PATIENCE = 0.005
# Bytes that are much: 100 MiB/s for that time.
ENOUGH = 512 * 1024


class SplicedSink:
    """The way of long frames to one sink: a pipe, borrowed for as long as it holds something.

    Args:
        splicing: The carrier's.
        fd: What to splice to.

    Attributes:
        splicing: What lends the pipe.
        held: Bytes in the pipe.
        takes: Long frames may come this way: the sink is not slow, and can be spliced to.
        is_refused: The sink cannot be spliced to; `read` what is held.
    """

    def __init__(self, splicing: Splicing, fd: int) -> None:
        self.splicing = splicing
        self.held = 0
        self.takes = True
        self.is_refused = False
        self._fd = fd
        self._pipe: Pipe | None = None
        # Bytes in the pipe when nothing more went in: it has room for a number of pieces, each of some KiB.
        self._held_full = 0

    @property
    def keeps_pace(self) -> bool:
        """The sink has taken much of what the full pipe held: half of it, or ENOUGH."""
        return self.held <= self._held_full - min(self._held_full // 2, ENOUGH)

    def fill(self, hole: int, limit: int) -> int | None:
        """Splice up to `limit` bytes from the hole into the pipe; `drain` moves them on.

        Returns:
            The bytes moved; 0 at EOF, or if there is no pipe: reading will
            tell.  None: nothing is there, or no room; then bytes are `held`.

        Raises:
            OSError: The hole is broken, or cannot be spliced from.
        """
        pipe = self._pipe = self._pipe or self.splicing.pool.take()
        if pipe is None:
            return 0
        try:
            count = pipe.fill(hole, limit)
            if count is None:
                self._held_full = pipe.held
            return count
        finally:
            self._settle(pipe)

    def drain(self) -> int:
        """Splice to the sink what it takes; return the bytes taken.

        Raises:
            OSError: The sink is broken.
        """
        pipe, before = self._pipe, self.held
        if pipe is None:
            return 0
        try:
            while pipe.held and pipe.drain(self._fd):
                pass
        except OSError as error:
            if not pipes.cannot_splice(error):
                raise
            self.refuse()
        self._settle(pipe)
        if self.splicing.waits_for is self and self.held < before:
            self.splicing.has_room(self)
        return before - self.held

    def read(self) -> bytes:
        """Take out what is held, by copying."""
        if self._pipe is None:
            return b""
        data = self._pipe.read()
        self._settle(self._pipe)
        return data

    def lose_patience(self) -> None:
        """The sink is slow: until the pipe is empty, nothing more comes this way."""
        self.takes = self._pipe is None and not self.is_refused

    def refuse(self) -> None:
        """Nothing more comes this way, ever."""
        self.is_refused, self.takes = True, False

    def close(self) -> None:
        """Lose what is held."""
        if self._pipe is not None:
            self.splicing.pool.give_back(self._pipe)
            self._pipe, self.held = None, 0
            if self.splicing.waits_for is self:
                self.splicing.has_room(self)

    def _settle(self, pipe: Pipe) -> None:
        """Give an empty pipe back."""
        self.held = pipe.held
        if not pipe.held:
            self.splicing.pool.give_back(pipe)
            self._pipe, self.takes = None, not self.is_refused


class Splicing:
    """What one carrier has for it.

    Args:
        sock: The hole; its owner closes it.
        incoming: Its incoming half.
        pool: Lends pipes; closed with this.
        pipe: Out of the pool, for what goes to the hole.

    Attributes:
        pipe: Holds the payload of the frame that is being sent.
        is_bulk: Long frames are coming.
        waits_for: The sink whose full pipe keeps the hole unread.
    """

    def __init__(self, sock: socket.socket, incoming: Incoming, pool: Pool, pipe: Pipe) -> None:
        self.pool = pool
        self.pipe = pipe
        self.is_bulk = False
        self.waits_for: SplicedSink | None = None
        self._sock = sock
        self._incoming = incoming
        # What was missing of a payload before the hole was read last.
        self._missing = 0
        # How long it still may.
        self._patience: asyncio.TimerHandle | None = None
        self._loop: Loop | None = None
        self._work: Callable[[], None] | None = None

    @classmethod
    def start(cls, sock: socket.socket, incoming: Incoming) -> Splicing | None:
        """Return a carrier's splicing; None where the system has none, or no large pipe to spare."""
        pool = Pool()
        pipe = pool.take()
        return None if pipe is None else cls(sock, incoming, pool, pipe)

    def watch(self, loop: Loop, work: Callable[[], None]) -> None:
        """Call `work` when the hole is to be read again."""
        self._loop, self._work = loop, work

    def close(self) -> None:
        """Give up waiting; pipes that still hold something for sinks are closed when they come back."""
        self.stop_waiting()
        self.pipe.close()
        self.pool.close()

    def receive(self, way: SplicedSink, missing: int) -> int | None:
        """Splice up to `missing` bytes of payload from the hole to a sink.

        Returns:
            The bytes that have gone into the pipe; 0: none can now.  None:
            they must be read.

        Raises:
            OSError: The hole is broken.
        """
        try:
            count = way.fill(self._sock.fileno(), missing)
        except OSError as error:
            if not pipes.cannot_splice(error):
                raise
            way.refuse()
            return None
        if count is None:
            self._incoming.readable = False
            if way.held and self.waits_for is None and self._hole_has_more():
                self._wait_for(way)
            return 0
        if not count:
            return None
        self.is_bulk = True
        self._incoming.heard_at = time.monotonic()
        return count

    def read_limit(self, missing: int) -> int:
        """Return how much of the hole to read at most (rule 1); `missing` bytes of a payload come first."""
        self._missing = missing
        if self.is_bulk:
            return min(missing + HEADER.size, RECEIVE_SIZE)
        # Longer reads might pass the beginning of every long frame.
        return min(max(missing, 2 * BULK), RECEIVE_SIZE)

    def has_read(self, missing: int) -> None:
        """Take note that the hole was read up to `read_limit`, and that `missing` bytes of a payload come next."""
        self.is_bulk = missing >= BULK or (self._missing > 0 and not missing)

    def has_room(self, way: SplicedSink) -> None:
        """There is room in the pipe that is waited for: read on; while it is little, the time still runs."""
        self._incoming.readable = True
        if way.keeps_pace:
            self.stop_waiting()

    def _wait_for(self, way: SplicedSink) -> None:
        assert self._loop is not None
        self.waits_for = way
        self._patience = self._loop.call_later(PATIENCE, self._lose_patience)

    def _lose_patience(self) -> None:
        """What the sink leaves in its full pipe must not keep the hole unread (rule 2)."""
        if self.waits_for is not None:
            self.waits_for.lose_patience()
        self.stop_waiting()
        assert self._work is not None
        self._work()

    def stop_waiting(self) -> None:
        """Read the hole on, whatever its pipes hold."""
        if self._patience is not None:
            self._patience.cancel()
        self.waits_for = self._patience = None
        self._incoming.readable = True

    def _hole_has_more(self) -> bool:
        """Tell whether the hole has something to read, or has ended, without reading it."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True
