"""A link: streams between the ends here and those of the peer, over the hole that carries them.

                      turns, credit
    end (source) --> source.py -----------------> outgoing.py --> hole
                                                                   |  carrier.py
    end (sink) <-- sink.py <-- mux.receive <----- incoming.py <----+
                 consumed = credit

Rule 1: bytes are read from a source only when they can be sent: the stream
        has credit and the hole takes them.  So nothing piles up here on the
        way out, and a slow hole stops the writers.
Rule 2: the hole is always read.  What a slow sink does not take waits in the
        backlog of its stream, and no stream's credit exceeds its window.
Rule 3: streams that can send take turns, one frame each (turns.py).
Rule 4: each direction of a stream ends by itself; the stream is over when
        both have, and only then is its end closed.
Rule 5: streams belong to the link, the hole to the carrier: a link that waits
        for another carrier keeps its streams and what they have to send.

There is one table of streams, the multiplexer's (stream.py).  Readiness is
edge-triggered (poller.py): a flag says that a source, a sink or the hole may be ready
until a call finds it is not.  `_work` does all work, in bounded turns.
"""

from __future__ import annotations

import time

from punchtunnel.ends.end import End
from punchtunnel.errors import LinkError, LostError, RecordError
from punchtunnel.link.carrier import Carrier, Spliced
from punchtunnel.link.later import Later
from punchtunnel.link.source import SPARSE
from punchtunnel.link.states import TRANSITIONS, Input, State
from punchtunnel.link.stream import Broken, Owner, Stream, tell
from punchtunnel.link.turns import EVENTS_PER_LOOK, LONGEST_TURN, STEPS_PER_TURN, Sent, Turns
from punchtunnel.protocol.events import Credited, Data, Event, Finished, Gone, Opened, Received
from punchtunnel.protocol.frames import Goodbye, Reason
from punchtunnel.protocol.mux import Mux
from punchtunnel.system.loop import Loop
from punchtunnel.system.poller import ERROR, READ, Poller


class Link:
    """Moves bytes between the ends of all streams and the hole.

    Args:
        loop: The running loop.
        poller: Watches the hole and the ends; the owner closes it.
        leads: From the election.
        owner: Decides about streams.

    Attributes:
        payload_at: Monotonic time at which payload passed last.
        bytes_in, bytes_out: Payload so far.
        cut: The hole's end has cut a stream.
        carrier: The hole, while the link is CARRIED.
    """

    def __init__(self, loop: Loop, poller: Poller, leads: bool, owner: Owner) -> None:
        self._loop = loop
        self._poller = poller
        self._owner = owner
        self._mux = Mux(leads, Stream)
        self._turns = Turns()
        self._state = State.WAITING
        self.carrier: Carrier | None = None
        self._error: LinkError | None = None
        self._later = Later(loop, poller, self._mux, self._work)
        self.payload_at, self.bytes_in, self.bytes_out, self.cut = time.monotonic(), 0, 0, False

    def attach(self, carrier: Carrier, unread: bytes = b"") -> None:
        """Let a hole carry the streams; `unread` came with it and is the beginning of what it says."""
        self._state = TRANSITIONS[self._state, Input.ATTACH]
        self.carrier = carrier
        carrier.watch(self._loop, self._poller, self._work)
        self._receive(carrier, unread)
        self._schedule()

    def detach(self) -> Carrier | None:
        """Give the hole away as it is, and keep the streams for the next one; None if the link has ended meanwhile."""
        after = TRANSITIONS[self._state, Input.DETACH]
        if (carrier := self._finish_reading()) is not None:
            self._state, self.carrier = after, None
            carrier.unwatch()
        return carrier

    # ---- what the owner may ask for

    @property
    def stream_count(self) -> int:
        """How many streams are not over yet."""
        return len(self._mux.streams)

    @property
    def is_open(self) -> bool:
        """A hole carries the link, or one may come.  Otherwise slow sinks may still be taking what came before."""
        return self._state in (State.WAITING, State.CARRIED)

    def open(self, end: End, service: str = "") -> int:
        """Open a stream, for a service or for none, and return its number; useless once the hole has ended."""
        stream = self._mux.open(time.monotonic(), service)
        self._join(stream, end, ready=True)
        return stream.number

    def join(self, number: int, end: End) -> bool:
        """Join a stream of the peer to `end`; False if it was reset meanwhile."""
        stream = self._mux.streams.get(number)
        if stream is None or stream.end is not None:
            return False
        self._mux.accept(stream)
        # Most targets wait to be spoken to; the poller tells at once of those that speak first.
        self._join(stream, end, ready=end.source_fd is None)
        self._drain(stream)
        return True

    def refuse(self, number: int, reason: Reason) -> None:
        """Reset a stream that cannot be joined, or any other; its end sees RST."""
        if (stream := self._mux.streams.get(number)) is not None:
            self._remove(stream, reason)
            self._schedule()
            self.cut = self.cut or self._state is State.ENDED
            self._tell_if_settled()

    def refuse_all(self, reason: Reason) -> None:
        """Reset every stream."""
        for number in list(self._mux.streams):
            self.refuse(number, reason)

    def end_source(self, number: int, *, drain: bool = False) -> None:
        """Send EOF on a stream before its source ends; with `drain`, after what the source holds already."""
        if (stream := self._mux.streams.get(number)) is None or not stream.source.is_open:
            return
        if drain and stream.end is not None:
            stream.source.drain()
            self._turns.add(stream)
        else:
            self._end_source(stream)
        self._schedule()

    def announce(self, number: int, size: int) -> None:
        """Tell the peer how many bytes a stream will carry."""
        if (stream := self._mux.streams.get(number)) is not None:
            self._mux.announce(stream, size)
            self._schedule()

    def ping(self, size: int = 0) -> int:
        """Ask the peer for a sign of life; the answer carries the value returned here.  See Mux.ping."""
        value = self._mux.ping(time.monotonic(), size)
        self._schedule()
        return value

    def offer(self, data: bytes) -> None:
        """Tell the peer how this side can be met without the relay."""
        self._mux.offer(data)
        self._schedule()

    def go_away(self, code: Goodbye) -> None:
        """Say that we are done with the link."""
        self._mux.go_away(code)
        self._schedule()

    def close(self, *, reset: bool) -> None:
        """Close the hole and abort what is left; `reset` leaves no TIME_WAIT behind."""
        self._state = TRANSITIONS[self._state, Input.CLOSE]
        for stream in list(self._mux.streams.values()):
            self._remove(stream)
        if self.carrier is not None:
            self.carrier.close(reset=reset)
            self.carrier = None

    # ---- turns

    def _schedule(self) -> None:
        if self.carrier is not None:
            self._later.soon()

    def _work(self) -> None:
        """Receive and send by turns until neither is possible, or the turn is over."""
        if (carrier := self.carrier) is None:
            return
        incoming, outgoing, mux, turns = carrier.incoming, carrier.outgoing, self._mux, self._turns
        began = 0.0
        for step in range(STEPS_PER_TURN):
            if receives := incoming.readable:
                self._receive(carrier)
                if self.carrier is not carrier:
                    return
                self._later.acknowledge(carrier)
            may_send = outgoing.writable and (turns.ring or mux.is_urgent or outgoing.waits or carrier.again)
            if may_send and (sent := carrier.send(mux, turns)) is not None:
                self._note(sent, carrier)
                if self.carrier is not carrier:
                    return
            elif not receives:
                if outgoing.writable and mux.control:
                    self._later.look()
                return
            if carrier.rest is not None:
                break
            if step == 1:
                # Most turns have one step, and do not look at the clock.
                began = time.monotonic()
            elif step and time.monotonic() - began > LONGEST_TURN:
                break
        self._later.in_next_turn()

    # ---- hole -> ends

    def _finish_reading(self) -> Carrier | None:
        """Act on all that has been read: it is this link's, and may end it.  Return the carrier that is left."""
        while (carrier := self.carrier) is not None and carrier.rest is not None:
            self._receive(carrier)
        return carrier

    def _receive(self, carrier: Carrier, unread: bytes | None = None) -> None:
        """Go on with what is left of the last read, read the hole once, or take in `unread`; act on it for one turn."""
        left, began = EVENTS_PER_LOOK, 0.0
        events, carrier.rest = carrier.rest or carrier.receive(self._mux, unread), None
        try:
            for event in events:
                if isinstance(event, Data):
                    self._deliver(event.stream, event.data, carrier.incoming.heard_at)
                else:
                    self._on_event(event, carrier)
                if self.carrier is not carrier:
                    return
                left -= 1
                if not left:
                    left, now = EVENTS_PER_LOOK, time.monotonic()
                    began = began or now
                    if now - began > LONGEST_TURN:
                        carrier.pause(events)
                        return
        except LinkError as error:
            self.lose(error)
        else:
            if carrier.incoming.ended:
                self.lose(None)

    def _on_event(self, event: Event[Stream] | Spliced, carrier: Carrier) -> None:
        match event:
            case Credited(stream):
                self._turns.add(stream)
            case Spliced(stream, count):
                self.payload_at = time.monotonic()
                self.bytes_in += count
                self._poller.may_spin = False
                self._drain(stream)
            case Finished(stream):
                stream.sink.ends = True
                self._owner.source_ended(stream.number)
                self._drain(stream)
            case Opened(stream):
                self._owner.stream_opened(stream.number, stream.service)
            case Gone(stream, reset):
                self._remove(stream)
                self._owner.stream_ended(stream.number, reset)
            case Received():
                carrier.acknowledged(event)
            case _:
                tell(self._owner, event)

    def _deliver(self, stream: Stream, data: memoryview, now: float) -> None:
        self.payload_at = now
        self.bytes_in += len(data)
        self._poller.may_spin = len(data) <= SPARSE
        try:
            taken = stream.sink.deliver(data, is_last=self._mux.is_ending)
        except OSError as error:
            self._on_broken_sink(stream, error)
            return
        self._mux.consumed(stream, taken, now)

    def _drain(self, stream: Stream) -> None:
        """Hand on what waits; when that is nothing any more and EOF came, pass EOF on."""
        sink = stream.sink
        if stream.end is None or sink.is_over:
            return
        try:
            if taken := sink.drain():
                self.payload_at = time.monotonic()
                self._mux.consumed(stream, taken, self.payload_at)
            if not sink.ends or sink.waits or not stream.finish_sink():
                return
            if stream.kept:
                self._mux.release(stream)
        except OSError as error:
            self._on_broken_sink(stream, error)
        else:
            self._close_if_done(stream)

    def _on_broken_sink(self, stream: Stream, error: OSError) -> None:
        if stream.break_sink(error):
            self._turns.add(stream)
            self._schedule()
        else:
            self._fail(stream, Broken(error, reading=False))

    # ---- ends -> hole

    def _note(self, sent: Sent, carrier: Carrier) -> None:
        """Take note of what streams have sent."""
        for stream, count, ending in sent:
            if count:
                self.payload_at = carrier.outgoing.said_at
                self.bytes_out += count
                self._poller.may_spin = count <= SPARSE
            if ending is not None:
                self._end_source(stream, ending.failure)
                if self.carrier is not carrier:
                    return

    def _end_source(self, stream: Stream, failure: OSError | None = None) -> None:
        """A source has ended, well or with a failure."""
        if failure is not None:
            self._fail(stream, Broken(failure, reading=True))
            return
        stream.finish_source()
        self._mux.finish(stream)
        self._close_if_done(stream)

    # ---- streams come and go

    def _join(self, stream: Stream, end: End, *, ready: bool) -> None:
        stream.join(end, self._poller, self._on_source, self._on_sink, ready=ready)
        self._turns.add(stream)
        self._schedule()

    def _on_source(self, stream: Stream, events: int) -> None:
        source = stream.source
        if source.is_open:
            # An error is found by reading, after what came before it.
            if events & READ:
                source.tell(events)
                self._turns.add(stream, first=source.sparse)
        elif events & ERROR and stream.end is not None and (error := stream.end.failure()) is not None:
            # After EOF, where nothing would read any more.
            self._fail(stream, Broken(error, reading=True))
        self._poller.is_due = True

    def _on_sink(self, stream: Stream) -> None:
        stream.sink.ready = True
        if stream.sink.waits or stream.kept:
            self._drain(stream)
            self._poller.is_due = True

    def _fail(self, stream: Stream, broken: Broken) -> None:
        """A stream's own end broke: the peer sees RST, and why."""
        self._remove(stream, broken.reason)
        self._owner.stream_ended(stream.number, broken)
        self._tell_if_settled()

    def _close_if_done(self, stream: Stream) -> None:
        if stream.sink.is_over and not stream.source.is_open and stream.end is not None:
            stream.close()
            self._owner.stream_ended(stream.number, None)
            self._tell_if_settled()

    def _remove(self, stream: Stream, reason: Reason = Reason.RESET) -> None:
        """Reset a stream, unless the peer has, and abort its end."""
        self._mux.reset(stream, reason)
        self._turns.remove(stream)
        stream.abort()

    # ---- the end

    def lose(self, error: LinkError | None) -> None:
        """The hole has ended, or is to be given up: the link waits for another one, if its owner does."""
        if (carrier := self._finish_reading()) is None:
            return
        is_lost = error is None or isinstance(error, LostError | RecordError)
        if is_lost and self._owner.awaits_another(error):
            self._state, self.carrier = TRANSITIONS[self._state, Input.DETACH], None
            # With RST: a peer that does not know it yet shall.
            carrier.close(reset=True)
        else:
            self.end(error)

    def end(self, error: LinkError | None) -> None:
        """No other hole comes.  What came whole before that is still written out."""
        self._state = TRANSITIONS[self._state, Input.END]
        self._error = error
        if self.carrier is not None:
            self.carrier.close(reset=False)
            self.carrier = None
        for stream in list(self._mux.streams.values()):
            if stream.sink.ends and not stream.sink.is_over and stream.end is not None:
                self.cut = self.cut or stream.source.is_open
                stream.source.is_open = False
                self._mux.finish(stream)
            else:
                self.cut = True
                self._remove(stream)
        self._tell_if_settled()

    def _tell_if_settled(self) -> None:
        if self._state is State.ENDED and not self._mux.streams:
            self._state = TRANSITIONS[self._state, Input.SETTLE]
            self._owner.link_ended(self._error)
