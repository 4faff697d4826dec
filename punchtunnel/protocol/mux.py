r"""Many streams over one link: open, half-close, reset, and credit for each (credit.py).

                 open() / SYN received
                          |
                        open
             finish() /       \ FIN received
       half-closed (local)   half-closed (remote)
             FIN received \    / finish()
                         closed            reset() or RST: closed at once

Rule 1: the opener may send before the ACK; the ACK comes when the far side
        has joined the stream to something.  RST in its place means refused.
Rule 2: frames for a stream that is no longer known are skipped: they were
        in flight when it was reset.
Rule 3: each stream has one record, which events carry.  What uses the
        multiplexer extends the record with fields of its own (link/stream.py)
        and so needs no second table.

The multiplexer never sees the payload that is sent: it hands out a header
and trusts the caller to send that many bytes after it.  No sockets, no
clock: `now` is any monotonic time in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from punchtunnel.errors import LinkError, PeerError
from punchtunnel.protocol.control import MAX_ANSWERS, NONE, ControlFrames
from punchtunnel.protocol.credit import INITIAL_WINDOW, Memory, largest
from punchtunnel.protocol.events import (
    Credited,
    Data,
    Event,
    Finished,
    Gone,
    GoneAway,
    OfferCame,
    Opened,
    Pong,
    Received,
    Reset,
    Sized,
    StreamState,
)
from punchtunnel.protocol.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    MAX_SIZE,
    OFFER,
    OPEN,
    PING,
    RECEIVED,
    RST,
    SIZE,
    SYN,
    VERSION,
    WINDOW,
    Decoder,
    Goodbye,
    Header,
    Reason,
)
from punchtunnel.protocol.pings import Pings
from punchtunnel.protocol.service import decode_service
from punchtunnel.words import peer as words

# Every stream costs a descriptor here and one at the target.
MAX_STREAMS = 4096
LAST_STREAM = 2**32 - 1

S = TypeVar("S", bound=StreamState)


class Mux(ControlFrames, Generic[S]):
    """One side of a multiplexed link.

    Args:
        leads: The leader opens odd stream numbers, the follower even ones.
        record: Makes the record of a stream.

    Attributes:
        streams: The records of all streams that are known, by number.
        is_ending: After the Data that was yielded last, Finished follows at once.
    """

    def __init__(self, leads: bool, record: type[S]) -> None:
        super().__init__()
        self.streams: dict[int, S] = {}
        self.is_ending = False
        self._record = record
        self._decoder = Decoder()
        self._memory = Memory()
        self._next_stream = 1 if leads else 2
        self._their_parity = 0 if leads else 1
        self._their_last = 0
        self._pings = Pings()
        # The stream whose payload comes next; None: it is skipped.
        self._receiving: S | None = None
        # That payload is the stream's last: FIN counts once it is complete.
        self._is_last = False

    # ---- what we do

    def open(self, now: float, service: str = "") -> S:
        """Open a stream.

        Args:
            now: Monotonic seconds.
            service: What it is for, by the name that the far side has given; "": that has one thing to join it to.

        Raises:
            LinkError: Two billion streams have been opened; make a new link.
        """
        if self._next_stream > LAST_STREAM:
            raise LinkError(words.NO_NUMBERS_LEFT)
        stream = self._add(self._next_stream, now, service)
        self._next_stream += 2
        if service:
            self._say(Header(OPEN, 0, stream.number, len(service)), service.encode())
        else:
            self._say_joined(SYN, stream.number)
        return stream

    def accept(self, stream: S) -> None:
        """Tell the peer that its stream is joined to something."""
        if not (stream.accepted or stream.gone):
            stream.accepted = True
            self._say_joined(ACK, stream.number)

    def data_header(self, stream: S, length: int, *, last: bool = False) -> bytes:
        """Spend credit and return the header after which `length` bytes of payload must follow.

        Args:
            stream: One that is neither gone nor finished.
            length: At most its credit.
            last: Nothing more will be sent on this stream; like `finish`, in the same frame.
        """
        stream.credit -= length
        flags = 0 if self._joined is NONE else self._take_joined(stream.number)
        if last:
            flags |= FIN
            stream.finished_here = True
            self._forget_if_done(stream)
        return HEADER.pack(VERSION, DATA, flags, stream.number, length)

    def announce(self, stream: S, size: int) -> None:
        """Tell the peer how many bytes will be sent on this stream; at most MAX_SIZE."""
        if not stream.gone:
            self._say(Header(SIZE, 0, stream.number, size))

    def finish(self, stream: S) -> None:
        """Half-close: nothing more will be sent on this stream.  After the peer's FIN nobody waits for that."""
        if not (stream.finished_here or stream.gone):
            stream.finished_here = True
            is_answer = stream.number % 2 == self._their_parity
            self._send(WINDOW, FIN, stream.number, 0, answer=is_answer, urgent=not stream.finished_there)
            self._forget_if_done(stream)

    def reset(self, stream: S, reason: Reason = Reason.RESET) -> None:
        """Give a stream up in both directions; nothing is said about it afterwards."""
        if not stream.gone:
            self._forget(stream)
            self._send(WINDOW, RST, stream.number, reason, answer=stream.number % 2 == self._their_parity)

    def consumed(self, stream: S, length: int, now: float) -> None:
        """Report that `length` received bytes have left this process; they return as credit."""
        if stream.gone:
            return
        is_due = self._memory.consume(stream, length)
        if stream.finished_there:
            self._forget_if_done(stream)
        elif is_due:
            credit = self._memory.give_back(stream, now, self.rtt, coming=self._decoder.missing)
            self._send(WINDOW, 0, stream.number, credit)

    def release(self, stream: S) -> None:
        """What a `kept` stream has received is safe."""
        stream.kept = False
        if not stream.gone:
            self._forget_if_done(stream)

    def ping(self, now: float, size: int = 0) -> int:
        """Ask the peer for a sign of life; the answer is a Pong with the value returned here.

        Before it go at least `size` bytes of pings without a value.  As many bytes come back
        before the answer, which so tells that long packets get through in both directions.
        """
        for _ in range(-(-size // HEADER.size)):
            self._send(PING, SYN, 0, 0)
        value = self._pings.ask(now)
        self._send(PING, SYN, 0, value)
        return value

    def go_away(self, code: Goodbye) -> None:
        """Say that we are done with the link."""
        self._send(GO_AWAY, 0, 0, code)

    def offer(self, data: bytes) -> None:
        """Tell the peer how this side can be met without the relay (offers.py)."""
        self._say(Header(OFFER, 0, 0, len(data)), data)

    def acknowledge(self, position: int, came_at: int = 0) -> None:
        """Tell the peer that its frames have been received up to this position; see events.Received."""
        self._say(Header(RECEIVED, 0, came_at, position & MAX_SIZE))

    @property
    def rtt(self) -> float | None:
        """The smallest round trip that a ping has had, in seconds."""
        return self._pings.rtt

    @property
    def windows(self) -> int:
        """Bytes of the receive windows of all streams."""
        return self._memory.windows

    @property
    def between_frames(self) -> bool:
        """True where the link may end without cutting a frame."""
        return self._decoder.between_frames

    # ---- what the peer does

    def receive(self, data: memoryview, now: float) -> Iterator[Event[S]]:
        """Take in bytes of the link and yield what they mean, in order.

        Raises:
            PeerError: The peer broke the protocol.  What was yielded before
                is good; the link is not.
        """
        for item in self._decoder.feed(data):
            if self._answers > MAX_ANSWERS:
                raise PeerError(words.READS_NO_ANSWERS)
            if isinstance(item, memoryview):
                if self._receiving is not None:
                    self.is_ending = self._is_last and not self._decoder.missing
                    yield Data(self._receiving, item)
                if self._is_last:
                    yield from self._on_payload_end()
            elif item.kind == DATA:
                if item.flags:
                    yield from self._on_flags(item, now)
                if not self._expect(item):
                    yield self._reset_largest()
                if self._is_last:
                    yield from self._on_payload_end()
            elif item.kind == WINDOW:
                yield from self._on_window(item, now)
            elif item.kind == PING:
                yield from self._on_ping(item, now)
            elif item.kind == GO_AWAY:
                yield GoneAway(item.length)
            elif item.kind == SIZE:
                yield from self._on_size(item)
            elif item.kind == RECEIVED:
                yield Received(item.length, item.stream)
            elif item.kind == OPEN:
                yield from self._on_open(item.stream, now, decode_service(self._decoder.body))
            else:
                yield OfferCame(bytes(self._decoder.body))

    @property
    def expected(self) -> tuple[S | None, int]:
        """The stream whose payload comes next, None if it is skipped; and the bytes of it that are missing, or 0."""
        return self._receiving, self._decoder.missing

    def skip(self, length: int) -> Iterator[Event[S]]:
        """Take note of `length` bytes of the expected payload that went another way, and yield what that means."""
        self._decoder.skip(length)
        if self._is_last:
            yield from self._on_payload_end()

    def _expect(self, header: Header) -> bool:
        """Count the payload that follows as unread; False if that is too much of all streams together."""
        self._receiving = stream = self.streams.get(header.stream)
        self._is_last = stream is not None and header.flags & FIN != 0
        length = header.length
        if stream is None or not length:
            return True
        if stream.finished_there:
            raise PeerError(words.DATA_AFTER_END.format(stream=header.stream))
        if length > stream.allowed:
            raise PeerError(words.MORE_THAN_CREDIT.format(length=length, stream=header.stream, allowed=stream.allowed))
        return self._memory.receive(stream, length)

    def _on_payload_end(self) -> Iterator[Event[S]]:
        """Handle FIN on a DATA frame, if nothing of its payload is missing any more."""
        if not self._decoder.missing:
            self._is_last = False
            stream = self._receiving
            if stream is not None and self._finish_there(stream):
                yield Finished(stream)

    def _on_window(self, header: Header, now: float) -> Iterator[Event[S]]:
        if header.flags & RST:
            if (stream := self.streams.get(header.stream)) is not None:
                yield self._on_reset(stream, header.length)
            return
        if header.flags & (SYN | ACK):
            yield from self._on_flags(header, now)
        if (stream := self.streams.get(header.stream)) is None:
            return
        if header.length:
            stream.credit += header.length
            if stream.credit > LAST_STREAM:
                raise PeerError(words.TOO_MUCH_CREDIT.format(stream=header.stream))
            if not stream.finished_here:
                yield Credited(stream)
        if header.flags & FIN and self._finish_there(stream):
            yield Finished(stream)

    def _on_ping(self, header: Header, now: float) -> Iterator[Event[S]]:
        if header.flags & SYN:
            self._send(PING, ACK, 0, header.length, answer=True)
        elif (rtt := self._pings.answered(header.length, now)) is not None:
            yield Pong(header.length, rtt)

    def _on_size(self, header: Header) -> Iterator[Event[S]]:
        if (stream := self.streams.get(header.stream)) is not None:
            if stream.sized:
                raise PeerError(words.SIZED_TWICE.format(stream=header.stream))
            stream.sized = True
            yield Sized(stream, header.length)

    def _on_flags(self, header: Header, now: float) -> Iterator[Event[S]]:
        """Handle SYN, ACK, and a RST that a foreign yamux put on a DATA frame."""
        number = header.stream
        if header.flags & SYN:
            yield from self._on_open(number, now)
        if (stream := self.streams.get(number)) is None:
            return
        if header.flags & ACK:
            stream.accepted = True
        if header.flags & RST:
            yield self._on_reset(stream, Reason.RESET)

    def _on_open(self, number: int, now: float, service: str = "") -> Iterator[Event[S]]:
        if number % 2 != self._their_parity or number <= self._their_last:
            raise PeerError(words.NOT_TO_BE_OPENED.format(stream=number))
        self._their_last = number
        if len(self.streams) >= MAX_STREAMS:
            self._send(WINDOW, RST, number, Reason.NO_RESOURCES, answer=True)
        else:
            yield Opened(self._add(number, now, service))

    def _on_reset(self, stream: S, reason: int) -> Event[S]:
        self._forget(stream)
        # Only what was sent can have made the credit smaller.
        given_up = stream.number % 2 == self._their_parity and stream.credit >= INITIAL_WINDOW
        return Gone(stream, Reset(reason, stream.accepted, given_up, stream.service))

    def _finish_there(self, stream: S) -> bool:
        """Take note that the peer will send no more; False if that was known."""
        if stream.finished_there or stream.gone:
            return False
        stream.finished_there = True
        self._forget_if_done(stream)
        return True

    # ---- bookkeeping

    def _reset_largest(self) -> Event[S]:
        stream = largest(self.streams.values())
        self.reset(stream, Reason.MEMORY)
        return Gone(stream, Reset(Reason.MEMORY, stream.accepted))

    def _add(self, number: int, now: float, service: str = "") -> S:
        self.streams[number] = stream = self._record(number=number, updated=now, service=service)
        self._memory.open(stream)
        return stream

    def _forget_if_done(self, stream: S) -> None:
        if stream.finished_here and stream.finished_there and not stream.unread and not stream.kept:
            self._forget(stream)

    def _forget(self, stream: S) -> None:
        del self.streams[stream.number]
        stream.gone = True
        self._memory.close(stream)
        if stream is self._receiving:
            self._receiving = None
