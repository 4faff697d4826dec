"""Flow control: what a side may send on each stream, and what all streams of a link may hold.

    sender                              receiver
                                        | allowed | unread | owed |   = window
    credit    --- DATA, length --->       -length  +length
                   consumed here:                  -length  +length
    credit    <-- WINDOW, owed ----       +owed              -owed

Rule 1: a side sends at most its credit, and credit returns only for bytes
        that have left the receiving process.  So a slow reader stops its own
        writer, and no other stream's.
Rule 2: a window starts at 256 KiB and grows fourfold while it is what limits
        its stream, up to 24 MiB.  A stream's growth never takes more than it
        leaves for the others, of what fits into 64 MiB of memory.
Rule 3: hundreds of streams can still fill more than that with the windows
        that yamux gives each from the start.  Then the stream that holds most
        is reset.

Pure: no clock, no sockets; `now` is any monotonic time in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

# Bytes.  What yamux gives each stream from the start (spec.md, "Window Update").
INITIAL_WINDOW = 256 * 1024
MAX_LINK_MEMORY = 64 * 1024 * 1024
# Unread bytes that fit into that: a bytearray that grows takes an eighth more
# than it holds.
MAX_UNREAD = MAX_LINK_MEMORY * 8 // 9
# Where windows stop growing.  Even if all of them are full, 32 more streams can be
# opened before a stream that did nothing wrong is reset.
MAX_WINDOW_SUM = MAX_UNREAD - 32 * INITIAL_WINDOW
# Bytes by which windows may grow however many streams are open: most of a thousand
# are idle, and must not keep the few that work at their first 256 KiB.
MIN_GROWTH = MAX_LINK_MEMORY // 2
# Of one stream.  It fills a hole of 1 Gbit/s and 100 ms twice: BBR keeps that much
# in flight, and after a lost packet nothing is consumed for a round trip.  Measured
# at 200 Mbit/s, 300 ms and 0.1 % loss: with 16 MiB 0.8, with 24 MiB 0.95 of plain TCP.
MAX_WINDOW = 24 * 1024 * 1024
# TCP in slow start doubles its rate each round trip, and credit is a round trip late.
GROWTH_FACTOR = 4
# A window is too small if it holds less than so many round trips of the stream's
# rate: credit comes back late, and a round trip varies.
ROUND_TRIPS = 4.0
# Seconds.  A process that waits for its time slice cannot return credit.
SHORTEST_ROUND_TRIP = 0.002
# Bytes of credit that are returned at once, however large the window is.
MAX_OWED = 1024 * 1024


@dataclass(slots=True, eq=False, kw_only=True)
class Windows:
    """The two windows of one stream, in bytes.

    Attributes:
        credit: What may be sent now.
        window: The receive window: `allowed`, `unread` and `owed` together.
        allowed: What the peer may still send.
        unread: What the peer has announced in headers and nothing here has consumed.
        owed: What was consumed and is not yet returned as credit.
        updated: When credit was returned last, in seconds.
    """

    credit: int = INITIAL_WINDOW
    window: int = INITIAL_WINDOW
    allowed: int = INITIAL_WINDOW
    unread: int = 0
    owed: int = 0
    updated: float


W = TypeVar("W", bound=Windows)


class Memory:
    """What the receive windows of all streams of a link add up to.

    Attributes:
        windows: Their sum in bytes.
    """

    def __init__(self) -> None:
        self._streams = 0
        self.windows = 0
        self._unread = 0

    def open(self, stream: Windows) -> None:
        """Count a new stream."""
        self._streams += 1
        self.windows += stream.window

    def close(self, stream: Windows) -> None:
        """Forget a stream, and what it holds."""
        self._streams -= 1
        self.windows -= stream.window
        self._unread -= stream.unread

    def receive(self, stream: Windows, length: int) -> bool:
        """Count `length` bytes that a stream is allowed to receive; False if the link holds too much now (rule 3)."""
        stream.allowed -= length
        stream.unread += length
        self._unread += length
        return self._unread <= MAX_UNREAD

    def consume(self, stream: Windows, length: int) -> bool:
        """Count `length` bytes that have left this process; True if credit is to be returned now."""
        stream.unread -= length
        self._unread -= length
        stream.owed += length
        return stream.owed >= min(stream.window // 2, MAX_OWED)

    def give_back(self, stream: Windows, now: float, round_trip: float | None, coming: int) -> int:
        """Return the credit that a stream gives back: what it owes, and more if the window is what limits it.

        Args:
            stream: The stream.
            now: The time.
            round_trip: Of the link, in seconds; None while it is unknown.
            coming: Bytes of the stream's `unread` that have not arrived yet, or more.
        """
        elapsed, stream.updated = now - stream.updated, now
        round_trips = float("inf") if round_trip is None else elapsed / max(round_trip, SHORTEST_ROUND_TRIP)
        limits = stream.owed * ROUND_TRIPS > stream.window * round_trips
        # A reader that leaves bytes here gains nothing from more of them in flight.
        keeps_pace = stream.unread <= coming
        if limits and keeps_pace:
            self._grow(stream)
        credit, stream.owed = stream.owed, 0
        stream.allowed += credit
        return credit

    def _grow(self, stream: Windows) -> None:
        """Widen a window by what rule 2 leaves for it."""
        grown_by = self.windows - INITIAL_WINDOW * self._streams
        free = max(MAX_WINDOW_SUM - self.windows, MIN_GROWTH - grown_by, 0)
        # Afterwards as much is free as the stream has grown by: the next one wants some too.
        share = INITIAL_WINDOW + (stream.window - INITIAL_WINDOW + free) // 2
        more = min(stream.window * GROWTH_FACTOR, MAX_WINDOW, share) - stream.window
        if more > 0:
            stream.window += more
            stream.owed += more
            self.windows += more


def largest(streams: Iterable[W]) -> W:
    """Return the stream that holds most."""
    return max(streams, key=lambda stream: stream.unread)
