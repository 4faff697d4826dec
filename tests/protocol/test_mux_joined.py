"""Two machines joined in memory: every byte in order, credit kept, whatever happens when."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from punchtunnel.protocol.credit import MAX_WINDOW
from punchtunnel.protocol.events import Data, Finished, Gone, Opened, StreamState
from punchtunnel.protocol.mux import Mux


@dataclass
class Side:
    """One machine; `sent` and `got` are byte counts by stream, for every byte is known by its place."""

    mux: Mux[StreamState]
    incoming: bytearray = field(default_factory=bytearray)
    # Every stream that has not been reset, also when the machine has forgotten it.
    streams: dict[int, StreamState] = field(default_factory=dict)
    sent: dict[int, int] = field(default_factory=dict)
    got: dict[int, int] = field(default_factory=dict)
    unread: dict[int, int] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    eof: set[int] = field(default_factory=set)
    reset: set[int] = field(default_factory=set)


PATTERN = random.Random(7).randbytes(1 << 16) * 6


def stretch(start: int, length: int) -> bytes:
    return PATTERN[start % (1 << 16) :][:length]


class Pair:
    """A leader and a follower, and what is under way between them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 0.0
        self.sides = [Side(Mux(True, StreamState)), Side(Mux(False, StreamState))]
        for side in self.sides:
            side.mux.ping(0.0)

    def step(self, mine: Side, other: Side) -> None:
        """Let one thing happen at `mine`."""
        self.now += self.rng.choice([0.0, 0.001, 0.1])
        action = self.rng.randrange(16)
        if action >= 11:
            self.deliver(mine, self.rng.choice([1, 11, 5000, 300_000, 10**6]))
        elif action == 0 and len(mine.streams) < 6:
            stream = mine.mux.open(self.now)
            mine.streams[stream.number] = stream
        elif action and mine.streams:
            self.act(mine, other, action, self.rng.choice(sorted(mine.streams)))
        other.incoming += mine.mux.take_control()

    def act(self, mine: Side, other: Side, action: int, number: int) -> None:
        """Let one thing happen on a stream."""
        stream = mine.streams[number]
        if action == 1:
            mine.mux.finish(stream)
            mine.finished.add(number)
        elif action == 2 and self.rng.random() < 0.2:
            mine.mux.reset(stream)
            mine.reset.add(number)
            del mine.streams[number]
        elif action == 3:
            mine.mux.accept(stream)
        elif 3 < action < 8:
            self.send(mine, other, stream, self.rng.choice([1, 1000, 65536, 262144]))
        elif action >= 8:
            self.consume(mine, stream, self.rng.choice([1, 1000, 131072, 10**6]))

    def send(self, mine: Side, other: Side, stream: StreamState, wanted: int) -> None:
        number, length = stream.number, min(wanted, stream.credit)
        if length and not (stream.finished_here or stream.gone):
            last = self.rng.random() < 0.05
            other.incoming += mine.mux.take_control() + mine.mux.data_header(stream, length, last=last)
            if last:
                mine.finished.add(number)
            other.incoming += stretch(mine.sent.get(number, 0), length)
            mine.sent[number] = mine.sent.get(number, 0) + length

    def consume(self, mine: Side, stream: StreamState, wanted: int) -> None:
        number = stream.number
        length = min(wanted, mine.unread.get(number, 0))
        mine.unread[number] = mine.unread.get(number, 0) - length
        mine.mux.consumed(stream, length, self.now)

    def deliver(self, mine: Side, count: int) -> None:
        piece = bytes(mine.incoming[:count])
        del mine.incoming[:count]
        for event in mine.mux.receive(memoryview(piece), self.now):
            match event:
                case Opened(stream):
                    mine.streams[stream.number] = stream
                case Data(stream, payload):
                    number = stream.number
                    assert number not in mine.eof | mine.reset
                    start = mine.got.get(number, 0)
                    assert payload == stretch(start, len(payload)), "every byte in its place"
                    mine.got[number] = start + len(payload)
                    mine.unread[number] = mine.unread.get(number, 0) + len(payload)
                    assert mine.unread[number] <= MAX_WINDOW
                case Finished(stream):
                    mine.eof.add(stream.number)
                case Gone(stream, _):
                    mine.reset.add(stream.number)
                    del mine.streams[stream.number]

    def settle(self) -> None:
        """Finish every stream, and deliver and consume until nothing is under way."""
        for _ in range(20):
            for mine, other in (self.sides, self.sides[::-1]):
                self.deliver(mine, len(mine.incoming))
                for number, stream in sorted(mine.streams.items()):
                    self.consume(mine, stream, 10**9)
                    mine.mux.finish(stream)
                    mine.finished.add(number)
                other.incoming += mine.mux.take_control()
        assert not any(side.incoming for side in self.sides)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 300))
def test_two_machines_deliver_every_byte_in_order_whatever_happens_when(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    pair = Pair(rng)
    for _ in range(steps):
        pair.step(*rng.choice([pair.sides, pair.sides[::-1]]))
    pair.settle()
    one, other = pair.sides
    gone = one.reset | other.reset
    for mine, theirs in ((one, other), (other, one)):
        for number in mine.sent.keys() - gone:
            assert theirs.got.get(number, 0) == mine.sent[number]
        assert mine.streams.keys() - gone <= theirs.eof
        assert not mine.mux.streams
    assert one.streams.keys() - gone == other.streams.keys() - gone
