r"""Many streams over one link: open, half-close, reset, credit.

                 open() / SYN received
                          |
                        open
             finish() /       \ FIN received
       half-closed (local)   half-closed (remote)
             FIN received \    / finish()
                         closed            reset() or RST: closed at once

Rule 1: a side sends at most its credit, and credit returns only for bytes
        that have left this process on the far side.  So a slow reader stops
        its own writer, and nobody else's.
Rule 2: a window starts at 256 KiB and grows fourfold while it is what limits
        the stream, up to 24 MiB, and never by more than it leaves for others
        of what fits into 64 MiB of memory.  Hundreds of streams can still
        fill more than that with the windows that yamux gives each from the
        start: then the stream that holds most is reset.
Rule 3: the opener may send before the ACK; the ACK comes when the far side
        has joined the stream to something.  RST in its place means refused.
Rule 4: frames for a stream that is no longer known are skipped: they were
        under way when it was reset.

The multiplexer never sees the payload that is sent: it hands out a header
and trusts the caller to send that many bytes behind it.  No sockets, no
clock: `now` is any monotonic time in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from punchtunnel.errors import LinkError, PeerError
from punchtunnel.protocol.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    PING,
    RST,
    SIZE,
    SYN,
    VERSION,
    WINDOW,
    Data,
    Decoder,
    Header,
)
from punchtunnel.words import peer as words

# What yamux gives each stream from the start (spec.md, "Window Update").
INITIAL_WINDOW = 256 * 1024
MAX_LINK_MEMORY = 64 * 1024 * 1024
# Unread bytes that fit into that: a bytearray that grows takes an eighth more
# than it holds.
MAX_UNREAD = MAX_LINK_MEMORY * 8 // 9
# Where windows stop growing: 32 streams can still be opened without one that did
# nothing wrong being reset, even if all windows are full.
MAX_WINDOW_SUM = MAX_UNREAD - 32 * INITIAL_WINDOW
# Bytes by which they may grow however many streams are open: most of a thousand
# are idle, and must not keep the few that work at their first 256 KiB.
MIN_GROWTH = MAX_LINK_MEMORY // 2
# Of one stream.  It fills a hole of 1 Gbit/s and 100 ms twice: BBR keeps that much
# under way, and behind a lost packet nothing is consumed for a round trip.  Measured
# at 200 Mbit/s, 300 ms and 0.1 % loss: with 16 MiB 0.8, with 24 MiB 0.95 of plain TCP.
MAX_WINDOW = 24 * 1024 * 1024
# As long as TCP starts slowly it doubles its rate each round trip, and credit is
# a round trip late.
GROWTH_FACTOR = 4
# A window below so many round trips' worth of the stream's rate limits it, or is
# about to: credit comes back late, and a round trip varies.
ROUND_TRIPS = 4.0
# Seconds.  A process that waits for its time slice cannot return credit.
SHORTEST_ROUND_TRIP = 0.002
# Bytes of credit that are not held back any longer.
MAX_OWED = 1024 * 1024
# Every stream costs a descriptor here and one at the target.
MAX_STREAMS = 4096
# Bytes of answers that wait while the link is congested: to pings, and to streams
# that come and go.  A peer that asks for more without reading them is not one of ours.
MAX_ANSWERS = 256 * 1024
# Unanswered pings whose time is remembered.
MAX_PINGS = 4
LAST_STREAM = 2**32 - 1


class Reason(IntEnum):
    """Why a stream was reset: the length field of a WINDOW frame with RST."""

    RESET = 0
    REFUSED = 1
    TIMED_OUT = 2
    UNREACHABLE = 3
    NO_SUCH_NAME = 4
    NO_RESOURCES = 5
    NOT_EXPECTED = 6
    MEMORY = 7
    CLOSING = 8


class Goodbye(IntEnum):
    """The code of a GO_AWAY frame (spec.md, "Go Away")."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    # Not in yamux: a stream was ended here before everything was delivered.
    CUT = 3


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened `stream`; accept() or reset() it."""

    stream: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The peer will send no more on `stream`: EOF, once all data is written."""

    stream: int


@dataclass(frozen=True, slots=True)
class Reset:
    """`stream` is gone in both directions; `accepted` tells whether it had ever been joined."""

    stream: int
    reason: int
    accepted: bool


@dataclass(frozen=True, slots=True)
class Credited:
    """`stream` may send more than before."""

    stream: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answered the ping `value` after `rtt` seconds."""

    value: int
    rtt: float


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer is done with the link."""

    code: int


@dataclass(frozen=True, slots=True)
class Sized:
    """The peer knows how many bytes it will send on `stream`."""

    stream: int
    size: int


Event = Opened | Data | Finished | Reset | Credited | Pong | GoneAway | Sized


@dataclass(slots=True)
class _Stream:
    credit: int = INITIAL_WINDOW
    window: int = INITIAL_WINDOW
    # Bytes that the peer may still send, received but not yet consumed, and
    # consumed but not yet given back as credit: they add up to the window.
    allowed: int = INITIAL_WINDOW
    unread: int = 0
    owed: int = 0
    updated: float = 0.0
    accepted: bool = False
    # The peer has told how much it will send.
    sized: bool = False
    finished_here: bool = False
    finished_there: bool = False


class Mux:
    """One side of a multiplexed link.

    Args:
        leads: The leader opens odd stream numbers, the follower even ones.
    """

    def __init__(self, leads: bool) -> None:
        self._streams: dict[int, _Stream] = {}
        self._decoder = Decoder()
        # Frames that wait to be sent, whole; `take_control` takes them.
        self.control = bytearray()
        # Some of them are worth a segment of their own; the others can wait a little for company.
        self.is_urgent = False
        self._answers = 0
        self._next_stream = 1 if leads else 2
        self._their_parity = 0 if leads else 1
        self._their_last = 0
        self._windows = 0
        self._unread = 0
        self._pings: dict[int, float] = {}
        self._ping_count = 0
        # A FIN on a DATA frame counts once the frame's payload is complete.
        self._pending_fin: tuple[int, int] | None = None
        # The payload that follows was not counted: its stream was unknown.
        self._skipping = False
        self.rtt: float | None = None

    # ---- what we do

    def open(self, now: float) -> int:
        """Open a stream and return its number.

        Raises:
            LinkError: Two billion streams have been opened; make a new link.
        """
        if self._next_stream > LAST_STREAM:
            raise LinkError(words.NO_NUMBERS_LEFT)
        number = self._next_stream
        self._next_stream += 2
        self._add(number, now)
        self._send(WINDOW, SYN, number, 0)
        return number

    def accept(self, number: int) -> None:
        """Tell the peer that its stream is joined to something."""
        stream = self._streams.get(number)
        if stream is not None and not stream.accepted:
            stream.accepted = True
            self._send(WINDOW, ACK, number, 0, answer=True, urgent=False)

    def credit(self, number: int) -> int:
        """Return how many bytes may be sent on a stream now; 0 if it is gone or finished."""
        stream = self._streams.get(number)
        return 0 if stream is None or stream.finished_here else stream.credit

    def data_header(self, number: int, length: int, *, last: bool = False) -> bytes:
        """Spend credit and return the header behind which `length` bytes must follow.

        Args:
            number: The stream.
            length: Of the payload.
            last: Nothing more will be sent on this stream; like `finish`, in the same frame.
        """
        stream = self._streams[number]
        stream.credit -= length
        if last:
            stream.finished_here = True
            self._forget_if_done(number, stream)
        return HEADER.pack(VERSION, DATA, FIN if last else 0, number, length)

    def announce(self, number: int, size: int) -> None:
        """Tell the peer how many bytes will be sent on this stream; at most MAX_SIZE."""
        if number in self._streams:
            # Its number is longer than `length`.
            self.control += Header(SIZE, 0, number, size).encode()
            self.is_urgent = True

    def finish(self, number: int) -> None:
        """Half-close: nothing more will be sent on this stream."""
        stream = self._streams.get(number)
        if stream is not None and not stream.finished_here:
            stream.finished_here = True
            self._send(WINDOW, FIN, number, 0, answer=self._is_theirs(number))
            self._forget_if_done(number, stream)

    def reset(self, number: int, reason: Reason = Reason.RESET) -> None:
        """Give a stream up in both directions; nothing is said about it afterwards."""
        if number in self._streams:
            self._remove(number)
            self._send(WINDOW, RST, number, reason, answer=self._is_theirs(number))

    def consumed(self, number: int, length: int, now: float) -> None:
        """Report that `length` received bytes have left this process; returns them as credit."""
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.unread -= length
        self._unread -= length
        stream.owed += length
        if stream.finished_there:
            self._forget_if_done(number, stream)
        elif stream.owed >= min(stream.window // 2, MAX_OWED):
            self._return_credit(number, stream, now)

    def ping(self, now: float) -> int:
        """Ask the peer for a sign of life; the answer is a Pong with the value returned here."""
        self._ping_count = (self._ping_count + 1) & 0xFFFFFFFF
        self._pings[self._ping_count] = now
        if len(self._pings) > MAX_PINGS:
            del self._pings[next(iter(self._pings))]
        self._send(PING, SYN, 0, self._ping_count)
        return self._ping_count

    def go_away(self, code: Goodbye) -> None:
        """Say that we are done with the link."""
        self._send(GO_AWAY, 0, 0, code)

    def take_control(self, limit: int = LAST_STREAM) -> bytes:
        """Return and forget whole control frames, at most `limit` bytes; they go before any further data."""
        size = min(len(self.control), limit - limit % HEADER.size)
        control = bytes(self.control[:size])
        del self.control[:size]
        self._answers = min(self._answers, len(self.control))
        self.is_urgent = self.is_urgent and bool(self.control)
        return control

    def hurry(self) -> None:
        """Whatever waits has waited long enough."""
        self.is_urgent = bool(self.control)

    @property
    def between_frames(self) -> bool:
        """True where the link may end without cutting a frame."""
        return self._decoder.between_frames

    # ---- what the peer does

    def receive(self, data: memoryview, now: float) -> Iterator[Event]:
        """Take in bytes of the link and yield what they mean, in order.

        Raises:
            PeerError: The peer broke the protocol.  What was yielded before
                is good; the link is not.
        """
        for item in self._decoder.feed(data):
            if self._answers > MAX_ANSWERS:
                raise PeerError(words.READS_NO_ANSWERS)
            if isinstance(item, Data):
                if item.stream in self._streams and not self._skipping:
                    yield item
                if self._pending_fin is not None:
                    yield from self._passed(len(item.data))
            elif item.kind == DATA:
                if item.flags:
                    yield from self._on_flags(item, now)
                if self._expect(item):
                    yield self._reset_largest()
                if item.flags & FIN:
                    yield from self._on_last(item)
            elif item.kind == WINDOW:
                yield from self._on_window(item, now)
            elif item.kind == PING:
                yield from self._on_ping(item, now)
            elif item.kind == GO_AWAY:
                yield GoneAway(item.length)
            else:
                yield from self._on_size(item)

    @property
    def expected(self) -> tuple[int, int]:
        """The stream whose payload comes next, and the bytes that are missing of it, or 0.

        0 also where the payload is to be skipped.
        """
        number, missing = self._decoder.stream, self._decoder.missing
        return number, 0 if not missing or self._skipping or number not in self._streams else missing

    def spliced(self, length: int) -> Iterator[Event]:
        """Take in `length` expected bytes that went from the link to the stream's end unseen."""
        self._decoder.skip(length)
        yield from self._passed(length)

    def _expect(self, header: Header) -> bool:
        """Count the payload that follows as unread; True if that is too much of all streams together."""
        stream = self._streams.get(header.stream)
        self._skipping = stream is None
        if stream is None:
            return False
        length = header.length
        if stream.finished_there and length:
            raise PeerError(words.DATA_AFTER_END.format(stream=header.stream))
        if length > stream.allowed:
            raise PeerError(words.MORE_THAN_CREDIT.format(length=length, stream=header.stream, allowed=stream.allowed))
        stream.allowed -= length
        stream.unread += length
        self._unread += length
        return self._unread > MAX_UNREAD

    def _on_last(self, header: Header) -> Iterator[Event]:
        """Handle FIN on a DATA frame: it counts behind the payload."""
        if not header.length:
            yield from self._on_fin(header.stream)
        elif not self._skipping:
            self._pending_fin = (header.stream, header.length)

    def _passed(self, length: int) -> Iterator[Event]:
        if self._pending_fin is not None:
            number, missing = self._pending_fin
            missing -= length
            self._pending_fin = (number, missing) if missing else None
            if not missing:
                yield from self._on_fin(number)

    def _on_window(self, header: Header, now: float) -> Iterator[Event]:
        if header.flags & RST:
            stream = self._streams.get(header.stream)
            if stream is not None:
                self._remove(header.stream)
                yield Reset(header.stream, header.length, stream.accepted)
            return
        yield from self._on_flags(header, now)
        stream = self._streams.get(header.stream)
        if stream is not None and header.length:
            stream.credit += header.length
            if stream.credit > LAST_STREAM:
                raise PeerError(words.TOO_MUCH_CREDIT.format(stream=header.stream))
            if not stream.finished_here:
                yield Credited(header.stream)
        if header.flags & FIN:
            yield from self._on_fin(header.stream)

    def _on_ping(self, header: Header, now: float) -> Iterator[Event]:
        if header.flags & SYN:
            self._send(PING, ACK, 0, header.length, answer=True)
        elif (asked := self._pings.pop(header.length, None)) is not None:
            rtt = max(now - asked, 0.0)
            # The smallest is the path's own; larger ones waited in a queue.
            self.rtt = rtt if self.rtt is None else min(self.rtt, rtt)
            yield Pong(header.length, rtt)

    def _on_size(self, header: Header) -> Iterator[Event]:
        stream = self._streams.get(header.stream)
        if stream is not None:
            if stream.sized:
                raise PeerError(words.SIZED_TWICE.format(stream=header.stream))
            stream.sized = True
            yield Sized(header.stream, header.length)

    def _on_flags(self, header: Header, now: float) -> Iterator[Event]:
        """Handle SYN, ACK, and a RST that a foreign yamux put on a DATA frame."""
        number = header.stream
        if header.flags & SYN:
            if number % 2 != self._their_parity or number <= self._their_last:
                raise PeerError(words.NOT_TO_BE_OPENED.format(stream=number))
            self._their_last = number
            if len(self._streams) >= MAX_STREAMS:
                self._send(WINDOW, RST, number, Reason.NO_RESOURCES, answer=True)
            else:
                self._add(number, now)
                yield Opened(number)
        stream = self._streams.get(number)
        if stream is None:
            return
        if header.flags & ACK and not stream.accepted:
            stream.accepted = True
        if header.flags & RST:
            self._remove(number)
            yield Reset(number, Reason.RESET, stream.accepted)

    def _on_fin(self, number: int) -> Iterator[Event]:
        stream = self._streams.get(number)
        if stream is not None and not stream.finished_there:
            stream.finished_there = True
            self._forget_if_done(number, stream)
            yield Finished(number)

    # ---- bookkeeping

    def _return_credit(self, number: int, stream: _Stream, now: float) -> None:
        """Give consumed bytes back, and more if the window limits the stream."""
        elapsed, stream.updated = now - stream.updated, now
        round_trips = elapsed / max(self.rtt, SHORTEST_ROUND_TRIP) if self.rtt is not None else float("inf")
        limits = stream.owed * ROUND_TRIPS > stream.window * round_trips
        growth = self._windows - INITIAL_WINDOW * len(self._streams)
        free = max(MAX_WINDOW_SUM - self._windows, MIN_GROWTH - growth, 0)
        # As much is left as the stream has: the next one wants some too.
        share = INITIAL_WINDOW + (stream.window - INITIAL_WINDOW + free) // 2
        grown = min(stream.window * GROWTH_FACTOR, MAX_WINDOW, share)
        # Of what the reader does not take, more need not be under way.
        keeps_pace = stream.unread <= self._decoder.missing
        if limits and keeps_pace and grown > stream.window:
            stream.owed += grown - stream.window
            self._windows += grown - stream.window
            stream.window = grown
        stream.allowed += stream.owed
        self._send(WINDOW, 0, number, stream.owed)
        stream.owed = 0

    def _reset_largest(self) -> Reset:
        number, stream = max(self._streams.items(), key=lambda item: item[1].unread)
        self.reset(number, Reason.MEMORY)
        return Reset(number, Reason.MEMORY, stream.accepted)

    def _send(
        self, kind: int, flags: int, stream: int, length: int, *, answer: bool = False, urgent: bool = True
    ) -> None:
        self.control += HEADER.pack(VERSION, kind, flags, stream, length)
        if urgent:
            self.is_urgent = True
        if answer:
            self._answers += HEADER.size

    def _is_theirs(self, number: int) -> bool:
        return number % 2 == self._their_parity

    def _add(self, number: int, now: float) -> None:
        self._streams[number] = _Stream(updated=now)
        self._windows += INITIAL_WINDOW

    def _remove(self, number: int) -> None:
        stream = self._streams.pop(number)
        self._windows -= stream.window
        self._unread -= stream.unread

    def _forget_if_done(self, number: int, stream: _Stream) -> None:
        if stream.finished_here and stream.finished_there and not stream.unread:
            self._remove(number)
