"""Two connections that a relay joins, with a made-up clock: what a window leaves for small messages, and for bulk."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from punchtunnel.link.flight import Flight, stamp
from punchtunnel.link.outgoing import LONGEST_FRAME
from punchtunnel.link.source import SPARSE
from punchtunnel.link.tempo import Tempo
from punchtunnel.protocol.resume import ACKNOWLEDGE_DELAY, RELAYED_AFTER, Journal

# Bytes a second of 1 Mbit/s.
MEGABIT = 125_000.0
# Of a small message with its header and its record.
MESSAGE = 100
# Seconds between two of them.
MESSAGE_EVERY = 0.05
# Seconds by which the peer's clock is ahead: its microseconds pass 2^32 within a minute.
CLOCKS = 2**32 / 1e6 - 1020
CONTENT = memoryview(bytes(LONGEST_FRAME))


class Clock:
    """Calls what is due, in order."""

    def __init__(self) -> None:
        self.now = 1003.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._count), call))

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._due and self._due[0][0] <= until:
            self.now, _, call = heapq.heappop(self._due)
            call()
        self.now = until


@dataclass
class Hop:
    """A bottleneck with a queue that never is full, and the way after it.

    Attributes:
        rate: Bytes a second.
        delay: Seconds of the way.
    """

    clock: Clock
    rate: float
    delay: float
    queue: deque[tuple[int, Callable[[], None]]] = field(default_factory=deque)
    queued: int = 0

    def send(self, size: int, arrives: Callable[[], None]) -> None:
        self.queue.append((size, arrives))
        self.queued += size
        if len(self.queue) == 1:
            self._serve()

    def _serve(self) -> None:
        self.clock.later(self.queue[0][0] / self.rate, self._served)

    def _served(self) -> None:
        size, arrives = self.queue.popleft()
        self.queued -= size
        self.clock.later(self.delay, arrives)
        if self.queue:
            self._serve()


class Sender:
    """One session over such a hole: bulk without end, and small messages; the receiver acknowledges as ours does.

    Attributes:
        delivered: Bytes of bulk that have arrived.
        waits: Of each message: when it was written, and the seconds until it arrived.
    """

    def __init__(
        self, clock: Clock, hops: Sequence[Hop], *, window: int | None = None, back: Sequence[Hop] = ()
    ) -> None:
        self._clock = clock
        self._hops = hops
        self._journal = Journal()
        self._tempo = Tempo(clock.now, LONGEST_FRAME)
        self.flight = Flight(self._journal, self._tempo)
        self._fixed = window
        # What acknowledgments go through, if something else does.
        self._back = back
        self._messages: deque[float] = deque()
        # Of the receiver.
        self._received = self._reported = 0
        self._came_at = 0.0
        # Of the relay.
        self._held: deque[tuple[int, int]] = deque()
        self._free_at = 0.0
        self._is_timed = False
        self.delivered = 0
        self.waits: list[tuple[float, float]] = []
        self.is_bulk = True
        self._waits = False
        clock.later(0, self._write)
        clock.later(0, self.work)

    def _write(self) -> None:
        self._messages.append(self._clock.now)
        self.work()
        self._clock.later(MESSAGE_EVERY, self._write)

    def work(self) -> None:
        while self._messages or self.is_bulk:
            if self._fixed is not None:
                self.flight.window = self._fixed
            if not self.flight.admits(self._clock.now, sparse=bool(self._messages)):
                if self.flight.due > self._clock.now and not self._waits:
                    self._waits = True
                    self._clock.later(self.flight.due - self._clock.now, self._go_on)
                return
            if self._messages:
                self._send(MESSAGE, self._messages.popleft())
            else:
                assert self._tempo.frame_limit > SPARSE
                self._send(self._tempo.frame_limit, None)

    def _go_on(self) -> None:
        self._waits = False
        self.work()

    def _send(self, size: int, written: float | None) -> None:
        self._journal.keep(CONTENT[:size])
        self.flight.sent(self._clock.now)
        self._pass(self._hops, size, lambda: self._arrived(size, written))

    def _pass(self, hops: Sequence[Hop], size: int, arrives: Callable[[], None]) -> None:
        if hops:
            hops[0].send(size, lambda: self._pass(hops[1:], size, arrives))
        else:
            arrives()

    def _arrived(self, size: int, written: float | None) -> None:
        self._received += size
        self._came_at = self._clock.now
        if written is None:
            self.delivered += size
        else:
            self.waits.append((written, self._clock.now - written))
        if self._received - self._reported >= RELAYED_AFTER:
            self._report()
        elif not self._is_timed:
            self._is_timed = True
            self._clock.later(ACKNOWLEDGE_DELAY, self._on_timer)

    def _on_timer(self) -> None:
        self._is_timed = False
        if self._received > self._reported:
            self._report()

    def _report(self) -> None:
        self._reported = position = self._received
        came_at = stamp(self._came_at + CLOCKS)
        if self._back:
            self._pass(self._back, MESSAGE, lambda: self._acknowledged(position, came_at))
        else:
            self._clock.later(self._hops[1].delay, lambda: self._through_relay(position, came_at))

    def _through_relay(self, position: int, came_at: int) -> None:
        """The relay's system sends a short segment when the one before it is acknowledged (Nagle)."""
        self._held.append((position, came_at))
        if len(self._held) == 1 and self._clock.now >= self._free_at:
            self._release()

    def _release(self) -> None:
        if not self._held:
            return
        first, held = self._hops[0], list(self._held)
        self._held.clear()
        self._free_at = self._clock.now + 2 * first.delay + first.queued / first.rate

        def come() -> None:
            for position, came_at in held:
                self._acknowledged(position, came_at)

        self._clock.later(first.delay, come)
        self._clock.later(self._free_at - self._clock.now, self._release)

    def _acknowledged(self, position: int, came_at: int) -> None:
        self._journal.acknowledge(position)
        self.flight.acknowledged(self._clock.now, came_at)
        self.work()

    # ---- what is asked of it

    def queued(self, since: float) -> list[float]:
        """Return what each message waited beyond its way, shortest first."""
        way = sum(hop.delay + MESSAGE / hop.rate for hop in self._hops)
        return sorted(wait - way for written, wait in self.waits if written >= since)


@dataclass(frozen=True)
class Seen:
    """Some seconds of one sender.

    Attributes:
        median, late: Seconds that a message waited in queues: half of them, and 99 of 100, no more than that.
        share: Of the rate that was used by bulk.
    """

    median: float
    late: float
    share: float


def watch(clock: Clock, sender: Sender, rate: float, seconds: float) -> Seen:
    """Let some seconds pass, in which the bottleneck takes `rate`."""
    began, delivered = clock.now, sender.delivered
    clock.run(seconds)
    queued = sender.queued(began)
    share = (sender.delivered - delivered) / (rate * seconds)
    return Seen(queued[len(queued) // 2], queued[len(queued) * 99 // 100], share)


def pair(rates: tuple[float, float], round_trip: float) -> tuple[Clock, list[Hop]]:
    """Return two halves of a way with so many Mbit/s each."""
    clock = Clock()
    return clock, [Hop(clock, rate * MEGABIT, round_trip / 4) for rate in rates]
