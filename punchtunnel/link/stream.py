"""One stream of a link: its record, and what its owner is told of it.

One object per stream, in three layers: the windows (protocol/credit.py), the
protocol's state (protocol/events.py), and the end that it is joined to, here.
The multiplexer's table holds it and the multiplexer's events carry it, so
there is no second table to be kept in step.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from punchtunnel.ends.end import End
from punchtunnel.errors import LinkError
from punchtunnel.link.sink import Sink
from punchtunnel.link.source import Source
from punchtunnel.protocol.events import GoneAway, OfferCame, Pong, Reset, Sized, StreamState
from punchtunnel.protocol.frames import Reason
from punchtunnel.system.poller import ERROR, READ, WRITE, Poller


@dataclass(slots=True, eq=False, kw_only=True)
class Stream(StreamState):
    """A stream and its end.

    Attributes:
        end: What it is joined to; None until then.
        source: What the end gives, on its way to the hole.
        sink: What was received, on its way to the end.
        in_ring: It waits for its turn (turns.py).
        poller: Watches the end.
    """

    end: End | None = None
    source: Source = field(default_factory=Source)
    sink: Sink = field(default_factory=Sink)
    in_ring: bool = False
    poller: Poller | None = None

    def join(
        self,
        end: End,
        poller: Poller,
        on_source: Callable[[Stream, int], None],
        on_sink: Callable[[Stream], None],
        *,
        ready: bool,
    ) -> None:
        """Join the stream to an end, and have it watched.

        Args:
            end: Owned from now on.
            poller: Watches it.
            on_source: Called with what the poller says of the source.
            on_sink: Called when the sink, which was not ready, can be written again.
            ready: The source may have something now; otherwise the poller will tell.
        """
        self.end, self.poller, self.kept = end, poller, end.finishes_late
        source_fd, sink_fd = end.source_fd, end.sink_fd
        is_both = source_fd == sink_fd
        self.sink.join(end, poller.watch_writing if is_both else None)
        self.source.join(end, ready=ready)

        def on_events(events: int) -> None:
            if events & (READ | ERROR):
                on_source(self, events)
            # A sink that is ready has nothing that waits for it.
            if events & WRITE and not self.sink.ready:
                on_sink(self)

        try:
            if source_fd is not None:
                callback = on_events if is_both else lambda events: on_source(self, events)
                poller.register(source_fd, callback, writing=not is_both)
            if sink_fd is not None and not is_both:
                poller.register(sink_fd, lambda events: on_sink(self) if events & WRITE else None)
        except OSError as error:
            # It costs this stream alone, at its next turn.
            self.source.fail(error)

    def break_sink(self, error: OSError) -> bool:
        """Write no more; False if nothing can be read either.

        What a socket sent before it was reset is still there to be read.
        """
        end = self.end
        if end is None or end.source_fd is None or end.source_fd != end.sink_fd or not self.source.is_open:
            return False
        self.sink.close()
        self.source.fail(error)
        return True

    def finish_sink(self) -> bool:
        """Pass EOF on; False: the end will tell when it has done so.

        Raises:
            OSError: What was written could not be kept.
        """
        end = self.end
        if end is not None:
            if end.sink_fd != end.source_fd and not end.finishes_late:
                self._unwatch(end.sink_fd)
            # Both directions of a socket end by closing it.
            is_closing = end.sink_fd is not None and end.sink_fd == end.source_fd and not self.source.is_open
            if not is_closing and not end.finish_writing():
                return False
        self.sink.is_over = True
        return True

    def finish_source(self) -> None:
        """Read no more."""
        self.source.is_open = False
        if self.end is not None and self.end.source_fd != self.end.sink_fd:
            self._unwatch(self.end.source_fd)

    def close(self) -> None:
        """Close the end, both directions of which have ended."""
        if self.end is not None:
            self._forget(self.end)
            self.end.close()

    def abort(self) -> None:
        """Throw away what waits, and let the end see RST."""
        self.source.is_open = False
        self.sink.close()
        if self.end is not None:
            self._forget(self.end)
            self.end.abort()

    def _forget(self, end: End) -> None:
        """Watch an end no more that is about to be closed."""
        if end.source_fd != end.sink_fd:
            # They may be inherited, and stay open elsewhere.
            self._unwatch(end.source_fd)
            self._unwatch(end.sink_fd)
        elif end.source_fd is not None and self.poller is not None:
            self.poller.forget(end.source_fd)

    def _unwatch(self, fd: int | None) -> None:
        if fd is not None and self.poller is not None:
            self.poller.unregister(fd)


_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}


@dataclass(frozen=True, slots=True)
class Broken:
    """A stream's own end failed while it was read, or written."""

    error: OSError
    reading: bool

    @property
    def reason(self) -> Reason:
        """What the peer is told: its own sentence must not blame the way."""
        if isinstance(self.error, BrokenPipeError):
            return Reason.NOT_TAKEN
        # Of a socket: what its program did, or the network between.
        if isinstance(self.error, ConnectionError | TimeoutError) or self.error.errno in _UNREACHABLE:
            return Reason.RESET
        if self.reading:
            return Reason.NOT_READ
        return Reason.DISK_FULL if self.error.errno in _DISK_FULL else Reason.NOT_WRITTEN


class Owner(Protocol):
    """What decides what streams are for; it is told of everything in order."""

    def stream_opened(self, number: int, service: str) -> None:
        """The peer opened a stream, for a service or for none (""): `Link.join` or `Link.refuse` it."""

    def stream_ended(self, number: int, failure: Reset | Broken | None) -> None:
        """A stream is over: both directions ended (None), it was reset, or its own end broke."""

    def source_ended(self, number: int) -> None:
        """The peer will send no more on a stream."""

    def sized(self, number: int, size: int) -> None:
        """The peer will send `size` bytes on a stream."""

    def ponged(self, value: int, rtt: float) -> None:
        """The ping that returned `value` was answered."""

    def gone_away(self, code: int) -> None:
        """The peer is done with the link."""

    def offered(self, data: bytes) -> None:
        """The peer has said how it can be met without the relay.

        Raises:
            PeerError: It has said nonsense.
        """

    def awaits_another(self, error: LinkError | None) -> bool:
        """The hole is lost; None: the peer closed it between two frames.  True: the link shall wait for another one."""

    def link_ended(self, error: LinkError | None) -> None:
        """The last hole is closed; see `awaits_another`."""


def tell(owner: Owner, event: object) -> None:
    """Tell the owner what concerns the link not at all."""
    match event:
        case Sized(stream, size):
            owner.sized(stream.number, size)
        case Pong(value, rtt):
            owner.ponged(value, rtt)
        case GoneAway(code):
            owner.gone_away(code)
        case OfferCame(data):
            owner.offered(data)
