"""What carries a link's streams: one hole at a time, or none (states.py).

A carrier is one hole below a link: the socket, its two halves (incoming.py,
outgoing.py), what seals and opens, what splices, and when each side was heard
last.  It ends with its hole; streams belong to the link and do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from punchtunnel import words
from punchtunnel.errors import LostError, PeerError
from punchtunnel.link.flight import Flight, stamp
from punchtunnel.link.incoming import NEAR, RECEIVE_SIZE, Incoming
from punchtunnel.link.outgoing import BULK, LONGEST_FRAME, PREFIX, Outgoing
from punchtunnel.link.source import SPARSE
from punchtunnel.link.splicing import LONGEST_SPLICED_FRAME, Splicing
from punchtunnel.link.stream import Stream
from punchtunnel.link.turns import NOTHING, STEPS_PER_TURN, Sent, Turn, Turns
from punchtunnel.protocol.events import Event, Received
from punchtunnel.protocol.frames import HEADER, Goodbye
from punchtunnel.protocol.mux import Mux
from punchtunnel.protocol.records import Opener, Sealer
from punchtunnel.protocol.resume import (
    ACKNOWLEDGE_AFTER,
    KEPT_NEARBY,
    RELAYED_AFTER,
    WORTH_A_FRAME,
    Journal,
    most_kept,
)
from punchtunnel.system import tcp
from punchtunnel.system.loop import Loop
from punchtunnel.system.poller import HANG_UP, READ, WRITE, Poller
from punchtunnel.words import peer

# Seconds.  Linux gives up a connection whose data is not acknowledged for so long.
USER_TIMEOUT = 40.0
# Seconds between two tries of Linux to send what is not acknowledged: after an outage of
# 26 s the next one would come 25 s later.  More than the round trip of any path.
LONGEST_RETRY = 4.0
# Bytes of frames that wait, beside which a payload has no room: what acknowledges goes before it, too, and its header.
CROWDED = PREFIX - 2 * HEADER.size


@dataclass(frozen=True, slots=True)
class Spliced:
    """`count` bytes of payload are in a pipe, on their way to the end of `stream`."""

    stream: Stream
    count: int


def _broken(error: OSError) -> Iterator[Event[Stream] | Spliced]:
    """What is received of a hole that cannot be watched."""
    yield from ()
    raise LostError(words.broken_link(error)) from error


class Carrier:
    """One hole below a link.

    Args:
        sock: The hole; owned from now on.
        seals: What seals and opens; None on a plain hole.
        journal: Of a session that can go on over another hole; such a one is sealed.
        again: What the journal keeps and the peer lacks: it is sent first.
        relayed: Two connections, joined by a relay that keeps more than any path (flight.py).

    Attributes:
        incoming, outgoing: The two halves.
        again: What is sent before anything else.
        splicing: None where every byte is copied.
        rest: Events of the last read that are not handled yet; see `pause`.
    """

    def __init__(
        self,
        sock: socket.socket,
        seals: tuple[Sealer, Opener] | None = None,
        journal: Journal | None = None,
        again: Iterable[memoryview] = (),
        *,
        relayed: bool = False,
    ) -> None:
        sock.setblocking(False)
        tcp.send_at_once(sock)
        tcp.limit_silence(sock, USER_TIMEOUT)
        tcp.retry_within(sock, LONGEST_RETRY)
        sealer, opener = seals or (None, None)
        self._sock = sock
        self._loop: Loop | None = None
        self._poller: Poller | None = None
        self._work: Callable[[], None] | None = None
        self._journal = journal
        self.again = deque(again)
        self.rest: Iterator[Event[Stream] | Spliced] | None = None
        self.incoming = Incoming(sock, opener)
        self.splicing = Splicing.start(sock, self.incoming) if seals is None else None
        if self.splicing is None:
            self.outgoing = Outgoing(sock, sealer, longest_frame=LONGEST_FRAME, journal=journal)
        else:
            self.outgoing = Outgoing(sock, sealer, self.splicing.pipe, LONGEST_SPLICED_FRAME)
        self._flight: Flight | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._acknowledge_after, self._worth_a_frame = ACKNOWLEDGE_AFTER, WORTH_A_FRAME
        self._relayed = relayed
        if relayed:
            # The relay may be near: the peer is not.
            self.incoming.is_near = False
            if journal is not None:
                self._flight = Flight(journal, self.outgoing.tempo)
                self._acknowledge_after = self._worth_a_frame = RELAYED_AFTER

    @property
    def heard_at(self) -> float:
        """Monotonic time of the last sign of life of the peer."""
        return self.incoming.heard_at

    @heard_at.setter
    def heard_at(self, now: float) -> None:
        self.incoming.heard_at = now

    @property
    def said_at(self) -> float:
        """Monotonic time at which something was sent, or the hole was found full."""
        return self.outgoing.said_at

    @property
    def local_host(self) -> str:
        """Own address on the hole; "" if it is none of TCP."""
        return "" if tcp.is_unix(self._sock) else str(self._sock.getsockname()[0])

    def delivery(self) -> tcp.Delivery | None:
        """Return what the kernel knows of what does not arrive; None where it does not tell."""
        return tcp.delivery(self._sock)

    def let_fragment(self) -> None:
        """Let routers cut packets that are too long for them, where the kernel can."""
        tcp.let_fragment(self._sock)

    def watch(self, loop: Loop, poller: Poller, work: Callable[[], None]) -> None:
        """Call `work` whenever one of the halves may go on."""
        self._loop, self._poller, self._work = loop, poller, work
        if self.splicing is not None:
            self.splicing.watch(loop, work)
        try:
            poller.register(self._sock.fileno(), self._on_events)
        except OSError as error:
            self.pause(_broken(error))

    def unwatch(self) -> None:
        """Call nothing any more."""
        if self._poller is not None:
            self._poller.unregister(self._sock.fileno())
            self._poller = None
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self.splicing is not None:
            self.splicing.stop_waiting()

    def receive(self, mux: Mux[Stream], unread: bytes | None = None) -> Iterator[Event[Stream] | Spliced]:
        """Read the hole once, or take in `unread`, which came with it, and yield what that means.

        Raises:
            LinkError: The hole is broken, or has ended where it must not.
            PeerError: What came is not a record or a frame of the peer's.
        """
        pieces = self._read(mux) if unread is None else self.incoming.begin(unread)
        if pieces is None:
            return
        if isinstance(pieces, Spliced):
            yield pieces
            yield from mux.skip(pieces.count)
            return
        journal = self._journal
        for piece in pieces:
            if journal is not None:
                journal.received += len(piece)
            try:
                if journal is not None:
                    journal.check()
                yield from mux.receive(piece, self.incoming.heard_at)
            except PeerError:
                # Not where a record is wrong: a peer without a key is told nothing.
                mux.go_away(Goodbye.PROTOCOL_ERROR)
                self._say_at_once(mux)
                raise
        if self.splicing is not None and self.splicing.is_bulk:
            self.splicing.has_read(mux.expected[1])
        if (round_trip := self.outgoing.tempo.round_trip) is not None and not self._relayed:
            self.incoming.is_near = round_trip < NEAR
        if journal is not None:
            if not self.incoming.is_near or journal.limit != KEPT_NEARBY:
                journal.limit = most_kept(mux.windows, near=self.incoming.is_near)
            self.acknowledge(mux, self._acknowledge_after)
        if self._flight is not None:
            # The relay's system sends one short segment, and no other before that is acknowledged.
            tcp.acknowledge_at_once(self._sock)
        if self.incoming.ended and not (mux.between_frames and self.incoming.between_records):
            raise LostError(words.LINK_CUT)

    @property
    def owes(self) -> bool:
        """Something was received that is not acknowledged."""
        return self._journal is not None and self._journal.owed() > 0

    def acknowledge(self, mux: Mux[Stream], least: int = 1) -> None:
        """Acknowledge what was received, if that are so many bytes."""
        if self._journal is not None and self._journal.owed() >= least:
            came_at = 0 if self._flight is None else stamp(self.incoming.heard_at)
            mux.acknowledge(self._journal.report(), came_at)

    def acknowledged(self, received: Received) -> None:
        """Take in the peer's acknowledgment.

        Raises:
            PeerError: There is nothing to acknowledge.
        """
        if self._journal is None:
            raise PeerError(peer.IMPOSSIBLE_POSITION)
        self._journal.acknowledge(received.position)
        if self._flight is not None:
            self._flight.acknowledged(self.incoming.heard_at, received.came_at)

    def pause(self, events: Iterator[Event[Stream] | Spliced]) -> None:
        """Keep the rest of what `receive` has returned: nothing is read before it, so its views stay valid."""
        self.rest = events
        self.incoming.readable = True

    def _read(self, mux: Mux[Stream]) -> Iterable[memoryview] | Spliced | None:
        """Splice the payload that comes next, or read; None: nothing there now."""
        splicing, limit = self.splicing, RECEIVE_SIZE
        try:
            if splicing is not None:
                stream, missing = mux.expected
                way = stream.sink.by_splicing(splicing) if missing and stream is not None else None
                # The short rest of a frame goes the same way if it has to wait after the beginning.
                if way is not None and stream is not None and (missing >= BULK or way.held):
                    count = splicing.receive(way, missing)
                    if count is not None:
                        return Spliced(stream, count) if count else None
                limit = splicing.read_limit(missing) if missing or splicing.is_bulk else 2 * BULK
            return self.incoming.receive(limit)
        except OSError as error:
            raise LostError(words.broken_link(error)) from error

    def _has_turn(self, turns: Turns) -> bool:
        """Tell whether a stream may send its next frame: if so much is kept or under way, the sources must wait."""
        if self._journal is not None and self._journal.held >= self._journal.limit:
            return False
        return self._flight is None or self._is_admitted(self._flight, sparse=turns.ring[0].source.sparse)

    def _is_admitted(self, flight: Flight, *, sparse: bool) -> bool:
        """Ask the window, and go on later if it wants bulk to wait."""
        now = time.monotonic()
        if flight.admits(now, sparse=sparse):
            return True
        if now < flight.due and self._pause is None and self._loop is not None:
            self._pause = self._loop.call_later(flight.due - now, self._after_pause)
        return False

    def _after_pause(self) -> None:
        self._pause = None
        assert self._work is not None
        self._work()

    def send(self, mux: Mux[Stream], turns: Turns) -> Sent | None:
        """Send what is most urgent, if the hole is writable: what waits, or control frames, then frames of streams.

        Returns:
            What these streams have sent; None: none may send now, and nothing else is to be sent.
            That the hole is broken is told by `receive`: what a source gave is kept first.
        """
        outgoing, head, size, sent = self.outgoing, b"", 0, NOTHING
        try:
            if outgoing.waits:
                outgoing.send_on()
                return sent
            if self.again:
                outgoing.send_again(self.again.popleft())
                return sent
            has_turn = bool(turns.ring) and self._has_turn(turns)
            if not (has_turn or mux.is_urgent):
                return None
            is_crowded = len(mux.control) > CROWDED
            if has_turn and not is_crowded:
                head, size, sent = self._load(mux, turns)
            # What is not urgent goes only where something else does.
            control = b""
            if mux.control and (size or is_crowded or mux.is_urgent):
                self.acknowledge(mux, self._worth_a_frame)
                control = mux.take_control(LONGEST_FRAME)
            if size:
                outgoing.send_loaded(control + head, size)
            elif control:
                outgoing.send(memoryview(control))
            if self._flight is not None:
                self._flight.sent(outgoing.said_at)
        except OSError as error:
            outgoing.waits = outgoing.writable = False
            self.pause(chain(self.rest or (), _broken(error)))
        return sent

    def _load(self, mux: Mux[Stream], turns: Turns) -> tuple[bytes, int, Sent]:
        """Put the first stream's frame together, and as long as all is short, those of others that send little.

        Returns:
            The first header, the bytes that follow it, and what each of the streams has sent.
        """
        outgoing = self.outgoing
        sent: list[Turn] = []
        while True:
            stream, count, ending = turn = turns.load(outgoing, self.splicing)
            is_last = ending is not None and ending.failure is None
            sent.append(turn)
            if count:
                break
            if is_last:
                # No payload to go with: FIN goes with the control frames.
                mux.finish(stream)
            is_crowded = len(mux.control) > CROWDED
            if is_crowded or not turns.ring or len(sent) >= STEPS_PER_TURN or not self._has_turn(turns):
                return b"", 0, sent
        head, size = mux.data_header(stream, count, last=is_last), count
        if self.splicing is not None and self.splicing.pipe.held:
            return head, size, sent
        while size <= SPARSE and turns.ring and turns.ring[0].source.sparse and self._has_turn(turns):
            stream, count, ending = turn = turns.load(outgoing, None, size + HEADER.size)
            is_last = ending is not None and ending.failure is None
            sent.append(turn)
            if count or is_last:
                # FIN alone, too: the control frames go before a payload that the same stream may have here.
                outgoing.room[size : size + HEADER.size] = mux.data_header(stream, count, last=is_last)
                size += HEADER.size + count
        return head, size, sent

    def _say_at_once(self, mux: Mux[Stream]) -> None:
        """Send the control frames that wait, if the hole takes them now: it is lost either way."""
        outgoing = self.outgoing
        with contextlib.suppress(OSError):
            while outgoing.writable and (mux.control or outgoing.waits):
                if outgoing.waits:
                    outgoing.send_on()
                else:
                    outgoing.send(memoryview(mux.take_control(LONGEST_FRAME)))

    def close(self, *, reset: bool) -> None:
        """Close the hole; `reset` leaves no TIME_WAIT behind."""
        if self._sock.fileno() < 0:
            return
        self.unwatch()
        self.rest = None
        self.outgoing.close()
        if self.splicing is not None:
            self.splicing.close()
        if reset:
            tcp.close_with_reset(self._sock)
        else:
            self._sock.close()

    def _on_events(self, events: int) -> None:
        if events & READ:
            self.incoming.readable = True
            self.incoming.hung_up = bool(events & HANG_UP)
        if events & WRITE:
            self.outgoing.writable = True
        if self._poller is not None:
            self._poller.is_due = True
