r"""A stream's way out of this process: what the hole brings goes to the sink, or waits for it.

    hole --splice--> [ pipe ] --splice--> sink       long frames of a plain link
    hole --> [buffer] -------------write-> sink      everything else
                 \-> [ backlog ] --write-> sink      what the sink does not take now

Rule 1: bytes leave in the order in which they came: what is in the pipe is
        older than the backlog, and nothing is written past either of them.
Rule 2: nothing is refused.  What the sink does not take waits here; how much
        that can be is what credit bounds (mux.py), not this.

Owns the pipe it has borrowed, but no descriptor: those are the end's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from punchtunnel.ends.end import End
from punchtunnel.system import pipes
from punchtunnel.system.pipes import Pipe, Pool

# Bytes that show a sink to be worth waiting for: 100 MiB/s, in the time that link.py waits.
ENOUGH = 512 * 1024
# Bytes of one piece of a backlog.
PIECE = 256 * 1024


class Backlog:
    """Bytes that wait, in pieces: one buffer of a whole window would be moved, and held twice, whenever it grows."""

    def __init__(self) -> None:
        self.pieces: deque[bytearray] = deque()

    def append(self, data: memoryview) -> None:
        """Keep data behind all that waits; however small it is, pieces are filled."""
        while data:
            if not self.pieces or len(self.pieces[-1]) >= PIECE:
                self.pieces.append(bytearray())
            last = self.pieces[-1]
            part = data[: PIECE - len(last)]
            last += part
            data = data[len(part) :]

    def prepend(self, data: bytes) -> None:
        """Keep what is older than all that waits."""
        self.pieces.appendleft(bytearray(data))

    def write_to(self, write: Callable[[memoryview], int]) -> int:
        """Hand on the first piece, as far as it is taken; return the bytes taken."""
        first = self.pieces[0]
        with memoryview(first) as data:
            taken = write(data)
        # Moves nothing, and gives memory back: what has gone must not count for thousands of streams.
        del first[:taken]
        if not first:
            self.pieces.popleft()
        return taken


class Delivery:
    """What one stream has received, on its way to the sink.

    Args:
        pool: Lends pipes.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._end: End | None = None
        # Where to splice to; None: copy.
        self._spliced_sink: int | None = None
        self._pipe: Pipe | None = None
        # Bytes in it when nothing more went in: it has room for a number of pieces, each of some KiB.
        self._held_full = 0
        self._backlog = Backlog()
        # The sink has left its pipe full for too long: what comes goes to the backlog.
        self._is_slow = False
        # The peer's FIN has come; it counts once everything is written.
        self.ends = False
        # EOF was passed on, or the sink is gone.
        self.is_over = False
        # The sink may take something.
        self.ready = True

    def join(self, end: End, *, splice: bool) -> None:
        """Say where everything goes; until then it waits."""
        self._end = end
        self._spliced_sink = end.spliced_sink if splice else None

    @property
    def waits(self) -> bool:
        """Something is not delivered yet."""
        return self._pipe is not None or bool(self._backlog.pieces)

    @property
    def keeps_pace(self) -> bool:
        """Of what the pipe held when there was no more room, the sink has taken much: half of it, or ENOUGH."""
        return self._pipe is None or self._pipe.held <= self._held_full - min(self._held_full // 2, ENOUGH)

    @property
    def is_piped(self) -> bool:
        """What comes next goes into the pipe, because that is not empty."""
        return self._pipe is not None and not self._backlog.pieces and not self._is_slow

    @property
    def splices(self) -> bool:
        """Long frames may come by `fill`."""
        return self._spliced_sink is not None and not (self._backlog.pieces or self._is_slow or self.is_over)

    def deliver(self, data: memoryview) -> int:
        """Write what the sink takes now, and keep the rest; return the bytes taken.

        All, and nowhere, when it is closed.

        Raises:
            OSError: The sink is broken.
        """
        if self.is_over:
            return len(data)
        taken = 0
        if self._end is not None and self._pipe is None and not self._backlog.pieces:
            taken = self._write(self._end, data)
        if taken < len(data):
            self._backlog.append(data[taken:])
        return taken

    def fill(self, source: int, limit: int) -> int | None:
        """Splice up to `limit` bytes from the hole towards the sink; `drain` moves them on.

        Returns:
            The bytes moved; 0 at EOF, or if no pipe can be had: copying will
            tell.  None: nothing there, or no room, and then `waits` is True.

        Raises:
            OSError: The hole is broken.
        """
        self._pipe = self._pipe or self._pool.take()
        if self._pipe is None:
            return 0
        try:
            count = self._pipe.fill(source, limit)
            if count is None:
                self._held_full = self._pipe.held
            return count
        finally:
            self._return_empty_pipe()

    def drain(self) -> int:
        """Hand on what waits, as far as the sink takes it; return the bytes taken.

        Raises:
            OSError: The sink is broken.
        """
        taken = 0 if self._pipe is None else self._drain_pipe(self._pipe)
        end = self._end
        if self._pipe is None and end is not None:
            while self._backlog.pieces and self.ready:
                taken += self._backlog.write_to(lambda data: self._write(end, data))
        return taken

    def lose_patience(self) -> None:
        """Stop waiting for room in the pipe; until that is empty, what comes is copied."""
        self._is_slow = self._pipe is not None

    def close(self) -> None:
        """Forget what waits."""
        self.is_over = True
        if self._pipe is not None:
            self._pool.give_back(self._pipe)
            self._pipe = None
        self._backlog = Backlog()

    def _write(self, end: End, data: memoryview) -> int:
        taken = 0
        while self.ready and taken < len(data):
            count = end.write(data[taken:])
            self.ready = count > 0
            taken += count
        return taken

    def _drain_pipe(self, pipe: Pipe) -> int:
        before = pipe.held
        try:
            while self.ready and pipe.held and self._spliced_sink is not None:
                self.ready = pipe.drain(self._spliced_sink) > 0
        except OSError as error:
            if not pipes.cannot_splice(error):
                raise
            self._spliced_sink = None
        taken = before - pipe.held
        if self._spliced_sink is None and pipe.held:
            self._backlog.prepend(pipe.read())
        self._return_empty_pipe()
        return taken

    def _return_empty_pipe(self) -> None:
        if self._pipe is not None and not self._pipe.held:
            self._pool.give_back(self._pipe)
            self._pipe, self._is_slow = None, False
