"""One hole as a link: socket below, multiplexer in the middle, ends above.

                     read_into                 send
    end (source) ---------------> [ frame ] ------------> hole
                      ring, credit                          |
    end (sink)   <-- backlog <-- mux.receive <-- recv_into -+
                      consumed = credit

Rule 1: bytes are read from a source only when they can be sent: the stream
        has credit and the hole takes them.  So nothing piles up here on the
        way out, and a slow hole stops the writers.
Rule 2: the hole is always read.  What a slow sink does not take waits in the
        backlog of its stream, and no stream's credit exceeds its window.
        (Leaving the hole unread would also be taken for death: the peer's
        TCP_USER_TIMEOUT counts a closed TCP window.)
Rule 3: streams that can send take turns, one frame each.
Rule 4: each direction of a stream ends by itself; the stream is over when
        both have, and only then is its end closed.

Readiness is edge-triggered (poller.py): a flag says that a source, a sink or
the hole may be ready, and is cleared by the call that finds it is not.  All
work is done in `_work`, in bounded turns.

`_receive` and `_put_out` are the one place where bytes of the hole pass, and
where records are opened and sealed (secure.py); neither the multiplexer nor
the ends know of it.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from punchtunnel import tcp, words
from punchtunnel.ends import End
from punchtunnel.errors import LinkError, PeerError
from punchtunnel.frames import HEADER
from punchtunnel.mux import (
    Credited,
    Data,
    Event,
    Finished,
    GoneAway,
    Goodbye,
    Mux,
    Opened,
    Pong,
    Reason,
    Reset,
)
from punchtunnel.poller import ERROR, READ, WRITE, Poller
from punchtunnel.secure import HEADER as RECORD_HEADER
from punchtunnel.secure import MAX_PLAINTEXT, MAX_RECORD, OVERHEAD, Opener, Sealer

# One stream alone sends long frames, because every frame costs a turn of the
# loop; several send shorter ones, because every frame delays the others.
# With its header the longest fills one record.
LONG_FRAME = MAX_PLAINTEXT - HEADER.size
SHORT_FRAME = 64 * 1024
RECEIVE_SIZE = 512 * 1024
# Frames and receives in one turn of the loop, so that timers, signals and new
# connections get theirs.
STEPS_PER_TURN = 16
# Seconds.  Linux gives up a connection whose data is not acknowledged for so long.
USER_TIMEOUT = 40.0
# Bytes.  What waits unsent in the kernel can no longer be overtaken by another
# stream; more than this gained no throughput.
NOT_SENT_LOW_WATER = 256 * 1024


@dataclass(frozen=True, slots=True)
class Broken:
    """A stream's own end failed while it was read, or written."""

    error: OSError
    reading: bool


class Owner(Protocol):
    """Who decides what streams are for; told of everything in order."""

    def stream_opened(self, number: int) -> None:
        """The peer opened a stream: `Link.join` or `Link.refuse` it."""

    def stream_ended(self, number: int, failure: Reset | Broken | None) -> None:
        """A stream is over: both directions ended (None), reset, or its own end broke."""

    def source_ended(self, number: int) -> None:
        """The peer will send no more on a stream."""

    def ponged(self, value: int, rtt: float) -> None:
        """The ping that returned `value` was answered."""

    def gone_away(self, code: int) -> None:
        """The peer is done with the link."""

    def link_ended(self, error: LinkError | None) -> None:
        """The hole is closed; None: the peer closed it between two frames."""


@dataclass(slots=True, eq=False)
class _Stream:
    """One stream and its end; `end` is None until something is joined."""

    number: int
    end: End | None
    # Received, and not yet taken by the sink.
    backlog: bytearray = field(default_factory=bytearray)
    # The peer's FIN has come; it counts once the backlog is written.
    eof: bool = False
    # The source ends where it has nothing more at once.
    ending: bool = False
    source_open: bool = True
    sink_open: bool = True
    source_ready: bool = True
    sink_ready: bool = True
    in_ring: bool = False


class Link:
    """Moves bytes between the ends of all streams and the hole.

    Args:
        loop: The running loop.
        poller: Watches the hole and the ends; the owner closes it.
        sock: The hole; owned from now on.
        leads: From the election.
        owner: Decides about streams.
        seals: What seals and opens; None on a plain link.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        sock: socket.socket,
        leads: bool,
        owner: Owner,
        seals: tuple[Sealer, Opener] | None = None,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._owner = owner
        self._mux = Mux(leads)
        self._poller = poller
        self._streams: dict[int, _Stream] = {}
        self._ring: deque[_Stream] = deque()
        self._frame = memoryview(bytearray(HEADER.size + LONG_FRAME))
        self._received = memoryview(bytearray(RECEIVE_SIZE))
        # On a sealed link: bytes of a record that is not whole yet.
        self._held = 0
        self._sealer: Sealer | None = seals[0] if seals else None
        self._opener: Opener | None = seals[1] if seals else None
        self._record = memoryview(bytearray(MAX_RECORD if seals else 0))
        # What the hole has not taken yet; nothing else is sent before it.
        self._unsent = self._frame[:0]
        self._readable = self._writable = True
        self._work_scheduled = False
        # The hole has ended; streams may still be written out.
        self._ended = False
        self._error: LinkError | None = None
        # Nothing more is done or told.
        self._closed = False
        self.heard_at = self.said_at = self.payload_at = time.monotonic()
        self.bytes_in = self.bytes_out = 0
        # The hole's end has cut a stream.
        self.cut = False
        _tune(sock)

    def start(self, unread: bytes) -> None:
        """Begin; `unread` came with the hole and is the beginning of the stream."""
        self._poller.register(self._sock.fileno(), self._on_hole)
        self._received[: len(unread)] = unread
        self._take(len(unread))
        self._schedule()

    # ---- what the owner may ask for

    @property
    def stream_count(self) -> int:
        """Streams that are not over yet."""
        return len(self._streams)

    def open(self, end: End) -> int:
        """Open a stream, join it to `end`, and return its number."""
        number = self._mux.open(time.monotonic())
        self._streams[number] = _Stream(number, None)
        self._attach(self._streams[number], end)
        return number

    def join(self, number: int, end: End) -> bool:
        """Join a stream of the peer to `end`; False if it was reset meanwhile."""
        stream = self._streams.get(number)
        if stream is None or stream.end is not None:
            return False
        self._mux.accept(number)
        self._attach(stream, end)
        self._drain(stream)
        return True

    def refuse(self, number: int, reason: Reason) -> None:
        """Reset a stream that cannot be joined, or any other; its end sees RST."""
        if number in self._streams:
            self._mux.reset(number, reason)
            self._remove(number)
            self._schedule()

    def refuse_all(self, reason: Reason) -> None:
        """Reset every stream."""
        for number in list(self._streams):
            self.refuse(number, reason)

    def end_source(self, number: int, *, drain: bool = False) -> None:
        """Send EOF on a stream without waiting for its source to end.

        Args:
            number: The stream.
            drain: What the source holds already is sent before it.
        """
        stream = self._streams.get(number)
        if stream is None or not stream.source_open:
            return
        if drain:
            stream.source_ready = stream.ending = True
            self._take_turn(stream)
        else:
            self._on_source_eof(stream)
        self._schedule()

    def ping(self) -> int:
        """Ask the peer for a sign of life; the answer carries the value returned here."""
        value = self._mux.ping(time.monotonic())
        self._schedule()
        return value

    def go_away(self, code: Goodbye) -> None:
        """Say that we are done with the link."""
        self._mux.go_away(code)
        self._schedule()

    def close(self, *, reset: bool) -> None:
        """Close the hole and abort what is left; `reset` leaves no TIME_WAIT behind."""
        self._closed = True
        for number in list(self._streams):
            self._remove(number)
        self._close_hole(reset)

    # ---- turns

    def _on_hole(self, events: int) -> None:
        self._readable = self._readable or bool(events & READ)
        self._writable = self._writable or bool(events & WRITE)
        self._work()

    def _on_source(self, stream: _Stream, events: int) -> None:
        if events & ERROR and stream.end is not None and (error := stream.end.failure()) is not None:
            # Also behind EOF, where nobody would read any more.
            self._fail(stream, Broken(error, reading=True))
            self._work()
        elif events & READ and stream.source_open:
            stream.source_ready = True
            self._take_turn(stream)
            self._work()

    def _on_sink(self, stream: _Stream, events: int) -> None:
        if events & WRITE and stream.sink_open:
            stream.sink_ready = True
            if stream.backlog:
                self._drain(stream)
                self._work()

    def _schedule(self) -> None:
        if not self._work_scheduled and not self._closed:
            self._work_scheduled = True
            self._loop.call_soon(self._scheduled_work)

    def _scheduled_work(self) -> None:
        self._work_scheduled = False
        self._work()

    def _work(self) -> None:
        """Receive and send by turns until neither is possible, or the turn is over."""
        for _ in range(STEPS_PER_TURN):
            if self._ended or self._closed:
                return
            received = self._readable and self._receive()
            if not (self._send() or received):
                return
        self._schedule()

    # ---- hole -> ends

    def _receive(self) -> bool:
        """Read the hole once; False if there was nothing."""
        try:
            count = self._sock.recv_into(self._received[self._held :])
        except BlockingIOError:
            self._readable = False
            return False
        except OSError as error:
            self._end(LinkError(words.broken_link(error)))
            return False
        if not count:
            whole = self._mux.between_frames and not self._held
            self._end(None if whole else LinkError(words.LINK_CUT))
            return False
        self._take(self._held + count)
        return True

    def _take(self, count: int) -> None:
        """Act on the first `count` received bytes; of a sealed link, on each whole record.

        Only what is authenticated counts as a sign of life: a changed length
        could make a link wait for ever for the rest of a record.
        """
        if self._opener is None:
            self.heard_at = time.monotonic()
            self._take_in(self._received[:count])
            return
        begin = 0
        try:
            while count - begin >= OVERHEAD and not (self._ended or self._closed):
                size = self._opener.record_size(self._received[begin : begin + RECORD_HEADER.size])
                if count - begin < size:
                    break
                plaintext = self._opener.open(self._received[begin : begin + size])
                self.heard_at = time.monotonic()
                self._take_in(plaintext)
                begin += size
        except PeerError as error:
            self._end(error)
            return
        self._held = count - begin
        if begin and self._held:
            self._received[: self._held] = self._received[begin:count]

    def _take_in(self, data: memoryview) -> None:
        """Act on bytes of the hole."""
        now = time.monotonic()
        try:
            for event in self._mux.receive(data, now):
                self._on_event(event, now)
                if self._ended or self._closed:
                    return
        except PeerError as error:
            self._mux.go_away(Goodbye.PROTOCOL_ERROR)
            # If the hole takes it at once: the link is lost either way.
            while self._send():
                pass
            self._end(error)

    def _on_event(self, event: Event, now: float) -> None:
        match event:
            case Data(number, data):
                self.payload_at = now
                self.bytes_in += len(data)
                self._deliver(self._streams[number], data)
            case Credited(number):
                self._take_turn(self._streams[number])
            case Finished(number):
                self._streams[number].eof = True
                self._owner.source_ended(number)
                self._drain(self._streams[number])
            case Opened(number):
                self._streams[number] = _Stream(number, None)
                self._owner.stream_opened(number)
            case Reset(number):
                self._remove(number)
                self._owner.stream_ended(number, event)
            case Pong(value, rtt):
                self._owner.ponged(value, rtt)
            case GoneAway(code):
                self._owner.gone_away(code)

    def _deliver(self, stream: _Stream, data: memoryview) -> None:
        """Write to the stream's sink what it takes now, and keep the rest."""
        taken = 0
        if not stream.backlog and stream.end is not None:
            taken = self._write(stream, stream.end, data)
        if taken < len(data):
            stream.backlog += data[taken:]

    def _drain(self, stream: _Stream) -> None:
        """Write the backlog; when it is empty and EOF came, pass EOF on."""
        if stream.end is None or not stream.sink_open:
            return
        if stream.backlog:
            with memoryview(stream.backlog) as backlog:
                taken = self._write(stream, stream.end, backlog)
            del stream.backlog[:taken]
        if stream.eof and not stream.backlog and stream.sink_open:
            stream.sink_open = False
            if stream.end.sink_fd != stream.end.source_fd:
                self._unwatch(stream.end.sink_fd)
            try:
                stream.end.finish_writing()
            except OSError as error:
                self._fail(stream, Broken(error, reading=False))
                return
            self._close_if_done(stream)

    def _write(self, stream: _Stream, end: End, data: memoryview) -> int:
        """Write until the sink is full; return the bytes taken: all of them if it broke."""
        taken = 0
        try:
            while stream.sink_ready and taken < len(data):
                count = end.write(data[taken:])
                stream.sink_ready = count > 0
                taken += count
        except OSError as error:
            self._fail(stream, Broken(error, reading=False))
            return len(data)
        self._mux.consumed(stream.number, taken, time.monotonic())
        return taken

    # ---- ends -> hole

    def _take_turn(self, stream: _Stream) -> None:
        """Put a stream into the ring of those that may have something to send."""
        if stream.source_ready and stream.source_open and stream.end is not None and not stream.in_ring:
            stream.in_ring = True
            self._ring.append(stream)

    def _send(self) -> bool:
        """Send what is most urgent, at most one frame; False if there was nothing or no room."""
        if not self._writable:
            return False
        if self._unsent:
            return self._send_on(self._unsent)
        if control := self._mux.take_control(LONG_FRAME):
            return self._put_out(memoryview(control))
        if self._ring:
            stream = self._ring.popleft()
            stream.in_ring = False
            self._send_frame(stream)
            return True
        return False

    def _send_frame(self, stream: _Stream) -> None:
        """Read one frame from a stream's source and send it."""
        credit = self._mux.credit(stream.number)
        if stream.end is None or not stream.source_open or not credit:
            # Credited will bring it back.
            return
        limit = min(credit, SHORT_FRAME if self._ring else LONG_FRAME)
        try:
            count = stream.end.read_into(self._frame[HEADER.size : HEADER.size + limit])
        except OSError as error:
            self._fail(stream, Broken(error, reading=True))
            return
        if count is None and not stream.ending:
            stream.source_ready = False
        elif not count:
            self._on_source_eof(stream)
        else:
            self._frame[: HEADER.size] = self._mux.data_header(stream.number, count)
            self.payload_at = time.monotonic()
            self.bytes_out += count
            self._put_out(self._frame[: HEADER.size + count])
            self._take_turn(stream)

    def _put_out(self, data: memoryview) -> bool:
        """Send whole frames, at most a record's worth."""
        if self._sealer is not None:
            data = self._record[: self._sealer.seal_into(data, self._record)]
        return self._send_on(data)

    def _send_on(self, data: memoryview) -> bool:
        """Send bytes to the hole; what it does not take goes first the next time."""
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._end(LinkError(words.broken_link(error)))
            return False
        self.said_at = time.monotonic()
        self._unsent = data[sent:]
        self._writable = sent > 0
        return self._writable

    def _on_source_eof(self, stream: _Stream) -> None:
        stream.source_open = False
        if stream.end is not None and stream.end.source_fd != stream.end.sink_fd:
            self._unwatch(stream.end.source_fd)
        self._mux.finish(stream.number)
        self._close_if_done(stream)

    # ---- streams come and go

    def _attach(self, stream: _Stream, end: End) -> None:
        stream.end = end
        source, sink = end.source_fd, end.sink_fd
        if source is not None and source == sink:

            def on_both(events: int) -> None:
                self._on_source(stream, events)
                self._on_sink(stream, events)

            self._poller.register(source, on_both)
        else:
            if source is not None:
                self._poller.register(source, lambda events: self._on_source(stream, events))
            if sink is not None:
                self._poller.register(sink, lambda events: self._on_sink(stream, events))
        self._take_turn(stream)
        self._schedule()

    def _unwatch(self, fd: int | None) -> None:
        if fd is not None:
            self._poller.unregister(fd)

    def _fail(self, stream: _Stream, broken: Broken) -> None:
        """A stream's own end broke: the peer sees RST."""
        self._mux.reset(stream.number)
        self._remove(stream.number)
        self._owner.stream_ended(stream.number, broken)
        self._tell_if_ended()

    def _close_if_done(self, stream: _Stream) -> None:
        if stream.source_open or stream.sink_open or stream.end is None:
            return
        del self._streams[stream.number]
        self._unwatch(stream.end.source_fd)
        self._unwatch(stream.end.sink_fd)
        stream.end.close()
        self._owner.stream_ended(stream.number, None)
        self._tell_if_ended()

    def _remove(self, number: int) -> None:
        """Forget a stream and abort its end."""
        stream = self._streams.pop(number)
        stream.source_open = stream.sink_open = False
        if stream.end is not None:
            self._unwatch(stream.end.source_fd)
            self._unwatch(stream.end.sink_fd)
            stream.end.abort()

    def _end(self, error: LinkError | None) -> None:
        """The hole has ended.  What came whole before that is still written out."""
        if self._ended:
            return
        self._ended = True
        self._error = error
        self._close_hole(reset=False)
        for stream in list(self._streams.values()):
            if stream.eof and stream.sink_open and stream.end is not None:
                stream.source_open = False
            else:
                self.cut = True
                self._remove(stream.number)
        self._tell_if_ended()

    def _tell_if_ended(self) -> None:
        if self._ended and not self._streams and not self._closed:
            self._closed = True
            self._owner.link_ended(self._error)

    def _close_hole(self, reset: bool) -> None:
        if self._sock.fileno() < 0:
            return
        self._poller.unregister(self._sock.fileno())
        if reset:
            tcp.close_with_reset(self._sock)
        else:
            self._sock.close()


def _tune(sock: socket.socket) -> None:
    sock.setblocking(False)
    tcp.send_at_once(sock)
    tcp.limit_silence(sock, USER_TIMEOUT)
    tcp.limit_unsent(sock, NOT_SENT_LOW_WATER)
