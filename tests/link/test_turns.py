"""The ring: who goes first, who is in it, and who is not."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.link.outgoing import Outgoing
from punchtunnel.link.source import SPARSE, Ending
from punchtunnel.link.stream import Stream
from punchtunnel.link.turns import Turns
from punchtunnel.system.poller import HANG_UP, READ, URGENT


class Place:
    """Streams with somebody who feeds each, and a hole."""

    def __init__(self) -> None:
        self.hole, self.peer = socket.socketpair()
        self.hole.setblocking(False)
        self.outgoing = Outgoing(self.hole, None)
        self.turns = Turns()
        self.feeders: dict[Stream, socket.socket] = {}

    def stream(self, number: int) -> Stream:
        ours, feeder = socket.socketpair()
        stream = Stream(number=number, updated=0.0)
        stream.end = SocketEnd(ours)
        stream.end.short_is_dry = True
        stream.source.join(stream.end)
        self.feeders[stream] = feeder
        return stream

    def feed(self, stream: Stream, data: bytes) -> None:
        self.feeders[stream].send(data)
        # Bytes, and nothing else.
        stream.source.tell(READ & ~(HANG_UP | URGENT))

    def order(self) -> list[int]:
        return [stream.number for stream in self.turns.ring]

    def load(self) -> tuple[int, int, Ending | None]:
        stream, count, ending = self.turns.load(self.outgoing, None)
        return stream.number, count, ending

    def close(self) -> None:
        for stream, feeder in self.feeders.items():
            feeder.close()
            assert stream.end is not None
            stream.end.close()
        self.hole.close()
        self.peer.close()


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.close()


def test_streams_go_in_the_order_in_which_they_came_but_the_first(place: Place) -> None:
    one, two, three = (place.stream(number) for number in (1, 2, 3))
    place.turns.add(one)
    place.turns.add(two)
    place.turns.add(three, first=True)
    assert place.order() == [3, 1, 2]


def test_a_stream_is_in_the_ring_once_and_keeps_its_place(place: Place) -> None:
    one, two = place.stream(1), place.stream(2)
    for stream in (one, two, one, two):
        place.turns.add(stream, first=stream is two)
    assert place.order() == [2, 1]


def test_only_an_open_source_that_may_have_something_has_a_turn(place: Place) -> None:
    dry, closed, unjoined = place.stream(1), place.stream(2), Stream(number=3, updated=0.0)
    dry.source.ready = closed.source.is_open = False
    for stream in (dry, closed, unjoined):
        place.turns.add(stream)
    assert not place.turns.ring


def test_a_stream_that_goes_away_leaves_the_ring_and_its_place(place: Place) -> None:
    streams = [place.stream(number) for number in (1, 2, 3)]
    for stream in streams:
        place.turns.add(stream)
    place.turns.remove(streams[1])
    place.turns.remove(streams[1])
    assert place.order() == [1, 3]
    place.turns.add(streams[1])
    assert place.order() == [1, 3, 2]


def test_each_has_one_frame_at_a_time(place: Place) -> None:
    one, two = place.stream(1), place.stream(2)
    place.outgoing.tempo.frame_limit = 100
    for stream in (one, two):
        place.feed(stream, bytes(150))
        place.turns.add(stream)
    assert [place.load() for _ in range(4)] == [(1, 100, None), (2, 100, None), (1, 50, None), (2, 50, None)]
    assert not place.turns.ring, "they have nothing more"


def test_a_stream_without_credit_leaves_the_ring_until_it_has_some(place: Place) -> None:
    stream = place.stream(1)
    place.feed(stream, b"waits")
    stream.credit = 0
    place.turns.add(stream)
    assert place.load() == (1, 0, None)
    assert not place.turns.ring
    stream.credit = 3
    place.turns.add(stream)
    assert place.load() == (1, 3, None)
    assert place.order() == [1], "it may have more"


def test_a_stream_that_has_ended_has_no_further_turn(place: Place) -> None:
    stream = place.stream(1)
    place.feeders[stream].send(b"last")
    place.feeders[stream].shutdown(socket.SHUT_WR)
    stream.source.tell(READ)
    place.turns.add(stream)
    assert place.load() == (1, 4, Ending(None))
    assert not place.turns.ring


def test_small_messages_share_the_hole_only_while_another_stream_waits(place: Place) -> None:
    talker, other = place.stream(1), place.stream(2)
    never = float("-inf")
    for _ in range(2):
        place.feed(talker, b"alone")
        place.turns.add(talker)
        place.load()
    assert place.outgoing.tempo.interactive_at == never
    place.feed(other, bytes(SPARSE + 1))
    place.turns.add(other)
    place.feed(talker, b"beside another one")
    place.turns.add(talker, first=True)
    place.load()
    assert place.outgoing.tempo.interactive_at > never
