"""One hole as a link: socket below, multiplexer in the middle, ends above.

                        ring, credit
    end (source) --> source.py ---------------> outgoing.py --> hole
                                                                  |
    end (sink) <-- sink.py <-- mux.receive <-- incoming.py ---+
                 consumed = credit

On a plain link long frames are spliced (pipes.py): of those only the header
is ever seen here.

Rule 1: bytes are read from a source only when they can be sent: the stream
        has credit and the hole takes them.  So nothing piles up here on the
        way out, and a slow hole stops the writers.
Rule 2: the hole is always read, but for a few milliseconds when a pipe is
        full.  What a slow sink does not take waits in the backlog of its
        stream, and no stream's credit exceeds its window.
        (Leaving the hole unread would also be taken for death: the peer's
        TCP_USER_TIMEOUT counts a closed TCP window.)
Rule 3: streams that can send take turns, one frame each; who sent little the
        last time goes before who sent much.
Rule 4: each direction of a stream ends by itself; the stream is over when
        both have, and only then is its end closed.

Readiness is edge-triggered (poller.py): a flag says that a source, a sink or
the hole may be ready, and is cleared by the call that finds it is not.  All
work is done in `_work`, in bounded turns.

Whether the hole is sealed, only its two halves know.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from punchtunnel import words
from punchtunnel.ends.end import End
from punchtunnel.errors import LinkError, PeerError
from punchtunnel.link.incoming import RECEIVE_SIZE, Incoming
from punchtunnel.link.outgoing import LONGEST_FRAME, PREFIX, Outgoing
from punchtunnel.link.sink import Delivery
from punchtunnel.link.source import SPARSE, Supply
from punchtunnel.protocol.agreement import Opener, Sealer
from punchtunnel.protocol.frames import HEADER, Data
from punchtunnel.protocol.mux import (
    Credited,
    Event,
    Finished,
    GoneAway,
    Goodbye,
    Mux,
    Opened,
    Pong,
    Reason,
    Reset,
    Sized,
)
from punchtunnel.system import pipes, tcp
from punchtunnel.system.loop import Loop
from punchtunnel.system.pipes import WORTH_SPLICING
from punchtunnel.system.poller import ERROR, HANG_UP, READ, WRITE, Poller

# Frames and receives in one turn of the loop, and seconds behind the first of them,
# so that timers, signals and new connections get theirs; frames can be very small.
STEPS_PER_TURN = 16
LONGEST_TURN = 0.02
# Seconds.  Linux gives up a connection whose data is not acknowledged for so long.
USER_TIMEOUT = 40.0
# Seconds for which the hole stays unread because a stream's pipe is full.  A sink
# that was only waiting for its time slice has taken much of it by then.
PATIENCE = 0.005
# Seconds for which an ACK waits for something to go with: alone it costs both
# sides as much as a connection's data.
ACK_DELAY = 0.02


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

    def sized(self, number: int, size: int) -> None:
        """The peer will send `size` bytes on a stream."""

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
    # What was received, on its way to the sink.
    delivery: Delivery
    # What the source gives, on its way to the hole.
    supply: Supply
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
        loop: Loop,
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
        self._splices = seals is None and pipes.available()
        self._pool = pipes.Pool()
        pipe = self._pool.take() if self._splices else None
        self._outgoing = Outgoing(sock, seals[0] if seals else None, pipe)
        self._incoming = Incoming(sock, seals[1] if seals else None)
        # Long frames are coming: read one header at a time.
        self._bulk_in = False
        # The stream whose full pipe keeps the hole unread, and how long it still may.
        self._waited_for: _Stream | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._work_scheduled = False
        # Runs while only what is not urgent waits to be sent.
        self._delay: asyncio.TimerHandle | None = None
        # The hole has ended; streams may still be written out.
        self._ended = False
        self._error: LinkError | None = None
        # Nothing more is done or told.
        self._closed = False
        self.payload_at = time.monotonic()
        self.bytes_in = self.bytes_out = 0
        # The hole's end has cut a stream.
        self.cut = False
        _tune(sock)

    def start(self, unread: bytes) -> None:
        """Begin; `unread` came with the hole and is the beginning of the stream."""
        self._poller.register(self._sock.fileno(), self._on_hole)
        self._take_in(self._incoming.begin(unread))
        self._schedule()

    # ---- what the owner may ask for

    @property
    def heard_at(self) -> float:
        """Monotonic time of the last sign of life of the peer."""
        return self._incoming.heard_at

    @heard_at.setter
    def heard_at(self, now: float) -> None:
        self._incoming.heard_at = now

    @property
    def said_at(self) -> float:
        """Monotonic time at which something was sent, or the hole was found full."""
        return self._outgoing.said_at

    @property
    def stream_count(self) -> int:
        """Streams that are not over yet."""
        return len(self._streams)

    @property
    def is_open(self) -> bool:
        """The hole has not ended.  Where it has, what came whole may still be on its way to slow sinks."""
        return not self._ended

    def open(self, end: End) -> int:
        """Open a stream, join it to `end`, and return its number; of no use once the hole has ended."""
        number = self._mux.open(time.monotonic())
        self._attach(self._add(number), end)
        return number

    def join(self, number: int, end: End) -> bool:
        """Join a stream of the peer to `end`; False if it was reset meanwhile."""
        stream = self._streams.get(number)
        if stream is None or stream.end is not None:
            return False
        self._mux.accept(number)
        # Most targets wait to be spoken to, and of the others the poller tells at once.
        stream.supply.ready = end.source_fd is None
        self._attach(stream, end)
        self._drain(stream)
        return True

    def refuse(self, number: int, reason: Reason) -> None:
        """Reset a stream that cannot be joined, or any other; its end sees RST."""
        if number in self._streams:
            self._mux.reset(number, reason)
            self._remove(number)
            self._schedule()
            self.cut = self.cut or self._ended
            self._tell_if_ended()

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
        if stream is None or not stream.supply.is_open:
            return
        if drain:
            stream.supply.ready = stream.supply.ending = True
            self._take_turn(stream)
        else:
            self._on_source_eof(stream)
        self._schedule()

    def announce(self, number: int, size: int) -> None:
        """Tell the peer how many bytes a stream will carry."""
        self._mux.announce(number, size)
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
        self._pool.close()

    # ---- turns

    def _on_hole(self, events: int) -> None:
        if events & READ:
            self._incoming.readable = True
            self._incoming.hung_up = bool(events & HANG_UP)
        if events & WRITE:
            self._outgoing.writable = True
        self._work()

    def _on_source(self, stream: _Stream, events: int) -> None:
        if stream.supply.is_open:
            # An error is found by reading, behind what came before it.
            if events & READ:
                stream.supply.tell(events)
                # Once for every time that it had nothing to send.
                self._take_turn(stream, first=stream.supply.sparse)
                self._work()
        elif events & ERROR and stream.end is not None and (error := stream.end.failure()) is not None:
            # Behind EOF, where nobody would read any more.
            self._fail(stream, Broken(error, reading=True))
            self._work()

    def _on_sink(self, stream: _Stream, events: int) -> None:
        delivery = stream.delivery
        # What is ready has nothing that waits for it.
        if events & WRITE and not delivery.ready:
            delivery.ready = True
            if delivery.waits:
                self._drain(stream)
                self._work()

    def _schedule(self) -> None:
        if not self._work_scheduled and not self._closed:
            self._work_scheduled = True
            self._poller.may_spin = False
            self._loop.call_soon(self._scheduled_work)

    def _scheduled_work(self) -> None:
        self._work_scheduled = False
        self._work()

    def _work(self) -> None:
        """Receive and send by turns until neither is possible, or the turn is over."""
        incoming, outgoing, mux, ring = self._incoming, self._outgoing, self._mux, self._ring
        began = 0.0
        for _ in range(STEPS_PER_TURN):
            if self._ended or self._closed:
                return
            if receives := incoming.readable:
                self._receive()
            if outgoing.writable and (ring or mux.is_urgent or outgoing.waits):
                self._send()
            elif not receives:
                if mux.control and self._delay is None and outgoing.writable:
                    self._delay = self._loop.call_later(ACK_DELAY, self._send_delayed)
                return
            now = time.monotonic()
            began = began or now
            if now - began > LONGEST_TURN:
                break
        self._schedule()

    def _send_delayed(self) -> None:
        self._delay = None
        self._mux.hurry()
        self._work()

    # ---- hole -> ends

    def _receive(self) -> None:
        """Read the hole once."""
        incoming, limit, missing = self._incoming, RECEIVE_SIZE, 0
        if self._splices:
            number, missing = self._mux.expected
            if missing:
                stream = self._streams[number]
                # The short rest of a frame goes the same way if it has to wait behind the beginning.
                if (missing >= WORTH_SPLICING or stream.delivery.is_piped) and self._receive_spliced(stream, missing):
                    return
            if self._bulk_in and (missing or self._mux.between_frames):
                # Exactly up to what can be spliced again.
                limit = min(missing + HEADER.size, RECEIVE_SIZE)
            else:
                # So much at once might go on for ever past the beginnings of long frames.
                limit = min(max(missing, 2 * WORTH_SPLICING), RECEIVE_SIZE)
        try:
            pieces = incoming.receive(limit)
        except OSError as error:
            self._end(LinkError(words.broken_link(error)))
            return
        if pieces is None or not self._take_in(pieces):
            return
        if self._bulk_in:
            left = self._mux.expected[1]
            self._bulk_in = left >= WORTH_SPLICING or (missing > 0 and not left)
        if incoming.ended:
            whole = self._mux.between_frames and incoming.between_records
            self._end(None if whole else LinkError(words.LINK_CUT))

    def _receive_spliced(self, stream: _Stream, missing: int) -> bool:
        """Splice payload to the stream's sink; False where it must be copied after all."""
        delivery = stream.delivery
        if not delivery.splices:
            return False
        try:
            count = delivery.fill(self._sock.fileno(), missing)
        except OSError as error:
            if pipes.cannot_splice(error):
                self._splices = False
                return False
            self._end(LinkError(words.broken_link(error)))
            return True
        if count is None:
            self._incoming.readable = False
            if delivery.waits and self._waited_for is None and self._incoming.has_more():
                # There is no room: the sink has to take something first.
                self._waited_for = stream
                self._patience = self._loop.call_later(PATIENCE, self._lose_patience, stream)
        elif count:
            self._bulk_in = True
            self._poller.may_spin = False
            self._incoming.spliced()
            self.payload_at = self._incoming.heard_at
            self.bytes_in += count
            for event in self._mux.spliced(count):
                self._on_event(event, self.payload_at)
            self._drain(stream)
        return count != 0

    def _lose_patience(self, stream: _Stream) -> None:
        """What the sink leaves in its full pipe must not keep the hole unread (rule 2)."""
        stream.delivery.lose_patience()
        self._stop_waiting()
        self._work()

    def _read_on(self, stream: _Stream) -> None:
        """There is room in a stream's pipe: if that was waited for, go on, and while there is little, in time."""
        if self._waited_for is stream:
            self._incoming.readable = True
            if stream.delivery.keeps_pace:
                self._stop_waiting()

    def _stop_waiting(self) -> None:
        self._incoming.readable = True
        self._waited_for = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _take_in(self, pieces: Iterable[memoryview]) -> bool:
        """Act on bytes of the hole; False if the link is over."""
        try:
            for piece in pieces:
                self._take_frames(piece, self._incoming.heard_at)
                if self._ended or self._closed:
                    return False
        except PeerError as error:
            # Whoever has no key is told nothing.
            self._end(error)
            return False
        return True

    def _take_frames(self, data: memoryview, now: float) -> None:
        try:
            for event in self._mux.receive(data, now):
                if isinstance(event, Data):
                    self._deliver(self._streams[event.stream], event.data, now)
                else:
                    self._on_event(event, now)
                if self._ended or self._closed:
                    return
        except PeerError as error:
            self._mux.go_away(Goodbye.PROTOCOL_ERROR)
            # If the hole takes it at once: the link is lost either way.
            while self._ring:
                self._ring.popleft().in_ring = False
            while self._outgoing.writable and (self._mux.control or self._outgoing.waits):
                self._send()
            self._end(error)

    def _on_event(self, event: Event, now: float) -> None:
        match event:
            case Credited(number):
                self._take_turn(self._streams[number])
            case Finished(number):
                self._streams[number].delivery.ends = True
                self._owner.source_ended(number)
                self._drain(self._streams[number])
            case Opened(number):
                self._add(number)
                self._owner.stream_opened(number)
            case Reset(number):
                self._remove(number)
                self._owner.stream_ended(number, event)
            case Sized(number, size):
                self._owner.sized(number, size)
            case Pong(value, rtt):
                self._owner.ponged(value, rtt)
            case GoneAway(code):
                self._owner.gone_away(code)

    def _deliver(self, stream: _Stream, data: memoryview, now: float) -> None:
        self.payload_at = now
        self.bytes_in += len(data)
        self._poller.may_spin = len(data) <= SPARSE
        try:
            taken = stream.delivery.deliver(data)
        except OSError as error:
            self._on_broken_sink(stream, error)
            return
        self._mux.consumed(stream.number, taken, now)

    def _drain(self, stream: _Stream) -> None:
        """Hand on what waits; when that is nothing any more and EOF came, pass EOF on."""
        delivery = stream.delivery
        if stream.end is None or delivery.is_over:
            return
        try:
            if taken := delivery.drain():
                self.payload_at = time.monotonic()
                self._mux.consumed(stream.number, taken, self.payload_at)
                self._read_on(stream)
            if not delivery.ends or delivery.waits:
                return
            delivery.is_over = True
            if stream.end.sink_fd != stream.end.source_fd:
                self._unwatch(stream.end.sink_fd)
            stream.end.finish_writing()
        except OSError as error:
            self._on_broken_sink(stream, error)
        else:
            self._close_if_done(stream)

    def _on_broken_sink(self, stream: _Stream, error: OSError) -> None:
        """Nothing more can be written.  What a socket sent before it was reset is still there to be read."""
        end = stream.end
        if end is None or end.source_fd is None or end.source_fd != end.sink_fd or not stream.supply.is_open:
            self._fail(stream, Broken(error, reading=False))
            return
        stream.delivery.close()
        self._read_on(stream)
        stream.supply.fail(error)
        self._take_turn(stream)
        self._schedule()

    # ---- ends -> hole

    def _take_turn(self, stream: _Stream, *, first: bool = False) -> None:
        """Put a stream into the ring of those that may have something to send."""
        if stream.supply.ready and stream.supply.is_open and stream.end is not None and not stream.in_ring:
            stream.in_ring = True
            if first:
                self._ring.appendleft(stream)
            else:
                self._ring.append(stream)

    def _send(self) -> None:
        """Send what is most urgent: what waits, or control frames, with one stream's frame behind them."""
        outgoing, mux = self._outgoing, self._mux
        try:
            if outgoing.waits:
                outgoing.send_on()
                return
            count, is_crowded = 0, len(mux.control) > PREFIX - HEADER.size
            if self._ring and not is_crowded:
                stream = self._ring.popleft()
                stream.in_ring = False
                count = self._load(stream)
            # What is not urgent goes only where something else does.
            control = b""
            if mux.control and (count or is_crowded or mux.is_urgent):
                control = mux.take_control(LONGEST_FRAME)
            if count:
                ends, failure = not stream.supply.is_open, outgoing.failure
                header = mux.data_header(stream.number, count, last=ends and failure is None)
                outgoing.send_loaded(control + header)
                self.payload_at = outgoing.said_at
                if ends and failure is not None:
                    self._fail(stream, Broken(failure, reading=True))
                elif ends:
                    self._on_source_eof(stream)
            elif control:
                outgoing.send(memoryview(control))
        except OSError as error:
            self._end(LinkError(words.broken_link(error)))

    def _load(self, stream: _Stream) -> int:
        """Read one frame's payload from a stream's source; 0 if there is none now."""
        supply, credit = stream.supply, self._mux.credit(stream.number)
        if not supply.is_worth(credit, self._outgoing.frame_limit):
            # Credited will bring it back.
            return 0
        try:
            count = supply.load(self._outgoing, credit)
        except OSError as error:
            self._fail(stream, Broken(error, reading=True))
            return 0
        if count:
            self.bytes_out += count
            self._poller.may_spin = count <= SPARSE
            if supply.talks and self._ring:
                self._outgoing.shared_at = time.monotonic()
        elif not supply.is_open:
            self._on_source_eof(stream)
        self._take_turn(stream)
        return count

    def _on_source_eof(self, stream: _Stream) -> None:
        stream.supply.is_open = False
        if stream.end is not None and stream.end.source_fd != stream.end.sink_fd:
            self._unwatch(stream.end.source_fd)
        self._mux.finish(stream.number)
        self._close_if_done(stream)

    # ---- streams come and go

    def _add(self, number: int) -> _Stream:
        self._streams[number] = stream = _Stream(number, None, Delivery(self._pool), Supply())
        return stream

    def _attach(self, stream: _Stream, end: End) -> None:
        stream.end = end
        stream.delivery.join(end, splice=self._splices)
        stream.supply.join(end, splice=self._splices)
        source, sink = end.source_fd, end.sink_fd
        if source is not None and source == sink:

            def on_both(events: int) -> None:
                if events & (READ | ERROR):
                    self._on_source(stream, events)
                if events & WRITE:
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

    def _forget(self, end: End) -> None:
        source, sink = end.source_fd, end.sink_fd
        self._unwatch(source)
        if sink != source:
            self._unwatch(sink)

    def _fail(self, stream: _Stream, broken: Broken) -> None:
        """A stream's own end broke: the peer sees RST."""
        self._mux.reset(stream.number)
        self._remove(stream.number)
        self._owner.stream_ended(stream.number, broken)
        self._tell_if_ended()

    def _close_if_done(self, stream: _Stream) -> None:
        if stream.supply.is_open or not stream.delivery.is_over or stream.end is None:
            return
        del self._streams[stream.number]
        self._forget(stream.end)
        stream.end.close()
        self._owner.stream_ended(stream.number, None)
        self._tell_if_ended()

    def _remove(self, number: int) -> None:
        """Forget a stream and abort its end."""
        stream = self._streams.pop(number)
        stream.supply.is_open = False
        if stream.in_ring:
            # Nothing takes it out while the hole takes nothing, and the peer may open and reset for ever.
            stream.in_ring = False
            self._ring.remove(stream)
        stream.delivery.close()
        self._read_on(stream)
        if stream.end is not None:
            self._forget(stream.end)
            stream.end.abort()

    def _end(self, error: LinkError | None) -> None:
        """The hole has ended.  What came whole before that is still written out."""
        if self._ended:
            return
        self._ended = True
        self._error = error
        self._close_hole(reset=False)
        for stream in list(self._streams.values()):
            if stream.delivery.ends and not stream.delivery.is_over and stream.end is not None:
                self.cut = self.cut or stream.supply.is_open
                stream.supply.is_open = False
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
        self._outgoing.close()
        self._poller.unregister(self._sock.fileno())
        if reset:
            tcp.close_with_reset(self._sock)
        else:
            self._sock.close()


def _tune(sock: socket.socket) -> None:
    sock.setblocking(False)
    tcp.send_at_once(sock)
    tcp.limit_silence(sock, USER_TIMEOUT)
