r"""A stream's way out of this process: what the hole brings goes to the sink, or waits for it.

    hole --> [buffer] -------------write-> sink      everything, but
                 \-> [ backlog ] --write-> sink      what the sink does not take now, and
    hole --splice--> [ pipe ] --splice--> sink       long frames of a plain link (splicing.py)

Rule 1: bytes leave in the order in which they came: what is in the pipe is
        older than the backlog, and nothing is written past either of them.
Rule 2: nothing is refused.  What the sink does not take waits here; credit
        bounds how much that can be (protocol/credit.py).

Owns no descriptor: those are the end's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from punchtunnel.ends.end import End
from punchtunnel.link.splicing import SplicedSink, Splicing

# Bytes of one piece of a backlog.
PIECE = 256 * 1024
NOTHING = memoryview(b"")


class Backlog:
    """Bytes that wait, in pieces: one buffer of a whole window would be moved, and held twice, whenever it grows."""

    def __init__(self) -> None:
        self.pieces: deque[bytearray] = deque()

    def append(self, data: memoryview) -> None:
        """Keep data after all that waits; pieces are filled, however small it is."""
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


class Sink:
    """What one stream has received, on its way to its end.

    Attributes:
        ready: The end may take something.
        ends: The peer's FIN has come; it counts once everything is written.
        is_over: EOF was passed on, or the end is gone.
    """

    __slots__ = ("_backlog", "_end", "_on_full", "_spliced", "_spliced_fd", "ends", "is_over", "ready")

    def __init__(self) -> None:
        self._end: End | None = None
        self._backlog = Backlog()
        # The way of long frames, and where it leads; what it holds is older than the backlog.
        self._spliced: SplicedSink | None = None
        self._spliced_fd: int | None = None
        self.ready = True
        self.ends = False
        self.is_over = False
        # Called with the end's descriptor when it takes no more for the first time.
        self._on_full: Callable[[int], None] | None = None

    def join(self, end: End, on_full: Callable[[int], None] | None = None) -> None:
        """Say where everything goes; until then it waits.

        Args:
            end: Takes it.
            on_full: Called once, with its descriptor, when it takes no more.
        """
        self._end, self._on_full = end, on_full
        self._spliced_fd = end.spliced_sink

    @property
    def waits(self) -> bool:
        """Something is not delivered yet."""
        return bool(self._backlog.pieces) or (self._spliced is not None and self._spliced.held > 0)

    def deliver(self, data: memoryview, *, is_last: bool = False) -> int:
        """Write what the end takes now, and keep the rest; return the bytes taken.

        All are taken, and go nowhere, when it is closed.

        Args:
            data: The next bytes.
            is_last: EOF follows them at once.

        Raises:
            OSError: The sink is broken.
        """
        if self.is_over:
            return len(data)
        taken, end, spliced = 0, self._end, self._spliced
        if end is not None and not self._backlog.pieces and (spliced is None or not spliced.held):
            taken = self._write(end, data) if not is_last else end.write_last(data) if self.ready else 0
        if taken < len(data):
            self._backlog.append(data[taken:])
        return taken

    def drain(self) -> int:
        """Hand on what waits, as far as the end takes it; return the bytes taken.

        Raises:
            OSError: The sink is broken.
        """
        taken, end, spliced = 0, self._end, self._spliced
        if spliced is not None and spliced.held and self.ready:
            taken = spliced.drain()
            if spliced.is_refused and spliced.held:
                self._backlog.prepend(spliced.read())
            self._is_ready(not spliced.held)
        if end is not None:
            if end.finishes_late:
                # It may have failed since it took the last byte.
                end.write(NOTHING)
            while self._backlog.pieces and self.ready:
                taken += self._backlog.write_to(lambda data: self._write(end, data))
        return taken

    def by_splicing(self, splicing: Splicing) -> SplicedSink | None:
        """Return the way that a long frame of this carrier may take; None: it must be read."""
        way, fd = self._spliced, self._spliced_fd
        if fd is None or self._backlog.pieces or self.is_over:
            return None
        if way is None or (way.splicing is not splicing and not way.held):
            way = self._spliced = SplicedSink(splicing, fd)
        return way if way.takes and way.splicing is splicing else None

    def close(self) -> None:
        """Forget what waits."""
        self.is_over = True
        if self._spliced is not None:
            self._spliced.close()
        self._backlog = Backlog()

    def _write(self, end: End, data: memoryview) -> int:
        taken = 0
        while self.ready and taken < len(data):
            count = end.write(data[taken:] if taken else data)
            taken += count
            if not count:
                self._is_ready(False)
        return taken

    def _is_ready(self, ready: bool) -> None:
        """The end may take something, or takes no more."""
        self.ready = ready
        if not ready and self._on_full is not None and self._end is not None and self._end.sink_fd is not None:
            on_full, self._on_full = self._on_full, None
            on_full(self._end.sink_fd)
