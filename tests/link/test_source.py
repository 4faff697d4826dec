"""What a source gives becomes frames: when it is spliced, and what its end is."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.link.incoming import Incoming
from punchtunnel.link.outgoing import BULK, LONGEST_FRAME, Outgoing
from punchtunnel.link.source import SPARSE, Ending, Source
from punchtunnel.link.splicing import Splicing
from punchtunnel.link.tempo import FIRST_FRAME
from punchtunnel.system.poller import HANG_UP, READ, URGENT

from ..conftest import Unspliceable

CREDIT = 1 << 20
# Bytes, and nothing else.
READABLE = READ & ~(HANG_UP | URGENT)


class Place:
    """A source with somebody who feeds it, and a hole of which everything is read."""

    def __init__(self, spliced: bool) -> None:
        self.feeder, source = socket.socketpair()
        self.hole, self.reader = socket.socketpair()
        self.hole.setblocking(False)
        self.end = SocketEnd(source)
        # As of TCP: the tests say what else lies ahead.
        self.end.short_is_dry = True
        self.splicing = Splicing.start(self.hole, Incoming(self.hole, None)) if spliced else None
        self.outgoing = Outgoing(self.hole, None, self.splicing.pipe if self.splicing else None)
        self.source = Source()
        self.source.join(self.end)
        self.ending: Ending | None = None

    def load(self) -> int:
        """Load one frame, and let the hole take it; keep how the source has ended."""
        count, self.ending = self.source.load(self.outgoing, self.splicing, CREDIT)
        if count:
            self.outgoing.send_loaded(b"", count)
            while self.outgoing.waits:
                self.reader.recv(CREDIT)
                self.outgoing.send_on()
        return count

    def close(self) -> None:
        self.outgoing.close()
        if self.splicing:
            self.splicing.close()
        self.end.close()
        for sock in (self.feeder, self.hole, self.reader):
            sock.close()


@pytest.fixture(params=[True, False], ids=["spliced", "copied"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    made = Place(request.param)
    yield made
    made.close()


def test_a_source_is_ready_until_it_gives_less_than_it_could(place: Place) -> None:
    place.feeder.send(b"hello")
    assert place.load() == 5
    assert not place.source.ready
    place.source.tell(READABLE)
    assert place.load() == 0
    assert not place.source.ready
    assert place.source.is_open


@pytest.mark.parametrize("ahead", [HANG_UP, URGENT])
def test_where_something_lies_ahead_a_short_read_is_not_the_last(place: Place, ahead: int) -> None:
    place.feeder.send(b"hello")
    place.source.tell(READABLE | ahead)
    assert place.load() == 5
    assert place.source.ready


def test_the_end_is_found_with_the_last_bytes(place: Place) -> None:
    place.feeder.send(b"hello")
    place.feeder.shutdown(socket.SHUT_WR)
    place.source.tell(READABLE | HANG_UP)
    assert place.load() == 5
    assert place.ending == Ending(None)
    assert not place.source.is_open


@pytest.mark.parametrize("more", [b"", bytes(4 * BULK)])
def test_what_a_broken_source_holds_goes_before_its_failure(place: Place, more: bytes) -> None:
    place.feeder.send(b"hello")
    assert place.load() == 5
    place.feeder.send(b"last" + more)
    failure = ConnectionResetError()
    place.source.fail(failure)
    count = len(b"last" + more)
    while count:
        assert place.source.is_open
        count -= place.load()
        assert place.ending is None
    assert place.load() == 0
    assert place.ending == Ending(failure)
    assert not place.source.is_open


def test_the_failure_goes_with_the_last_bytes_where_the_end_is_seen(place: Place) -> None:
    place.feeder.send(b"last")
    place.feeder.close()
    failure = ConnectionResetError()
    place.source.fail(failure)
    assert place.load() == 4
    assert not place.source.is_open
    assert place.ending == Ending(failure)


def test_the_end_of_bulk_is_told_by_a_read(place: Place) -> None:
    """An end of file that splice(2) sees may be a transport that was aborted; only the end knows."""
    place.feeder.send(bytes(BULK))
    assert place.load() == BULK
    place.source.tell(READABLE)
    place.feeder.shutdown(socket.SHUT_WR)
    reads = 0
    real = place.end.read_into

    def counted(view: memoryview) -> int | None:
        nonlocal reads
        reads += 1
        return real(view)

    place.end.read_into = counted  # type: ignore[method-assign]
    while place.source.is_open:
        assert place.load() == 0
    assert reads == 1


def test_bulk_waits_for_credit_that_is_worth_a_frame(place: Place) -> None:
    assert place.source.is_worth(1, FIRST_FRAME)
    place.feeder.send(bytes(BULK))
    place.load()
    assert not place.source.is_worth(BULK - 1, LONGEST_FRAME)
    assert place.source.is_worth(BULK, LONGEST_FRAME)
    assert place.source.is_worth(8192, 8192), "a slow hole takes short frames"
    place.source.is_open = False
    assert not place.source.is_worth(CREDIT, LONGEST_FRAME)


def test_two_small_messages_in_a_row_are_talk(place: Place) -> None:
    """And not the short rest of what was long."""
    talks = []
    for size in (1, SPARSE + 1, 1, 1, SPARSE, SPARSE + 1):
        place.feeder.send(bytes(size))
        place.source.tell(READABLE)
        assert place.load() == size
        talks.append(place.source.talks)
    assert talks == [True, False, False, True, True, False]


def test_a_source_that_ends_when_it_has_nothing(place: Place) -> None:
    place.feeder.send(b"typed")
    place.source.drain()
    assert (place.load(), place.ending) == (5, None)
    assert (place.load(), place.ending) == (0, Ending(None))
    assert not place.source.is_open


def test_what_cannot_be_spliced_is_copied(tmp_path: os.PathLike[str]) -> None:
    made = Place(True)
    other = os.open(tmp_path, os.O_RDONLY)
    unspliceable = Unspliceable(made.end._sock.dup(), other)
    try:
        made.source.join(unspliceable)
        made.feeder.send(bytes(BULK))
        assert made.load() == BULK
        made.feeder.send(b"more")
        assert made.load() == 0
        assert made.source.ready
        assert made.load() == 4
    finally:
        unspliceable.close()
        os.close(other)
        made.close()


def test_a_broken_source_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: memoryview) -> int:
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    monkeypatch.setattr(place.end, "read_into", broken)
    assert place.load() == 0
    assert isinstance(place.ending, Ending)
    assert isinstance(place.ending.failure, ConnectionResetError)
    assert not place.source.is_open


def test_the_end_is_looked_for_as_far_as_there_is_room(place: Place) -> None:
    place.feeder.send(b"last words")
    place.source.tell(READABLE | HANG_UP)
    assert place.load() == 10
    assert (place.ending, place.source.is_open) == (None, True), "it is not there yet"
    place.feeder.send(b"more")
    place.feeder.close()
    limit = place.outgoing.tempo.frame_limit
    place.outgoing.tempo.frame_limit = 4
    assert (place.load(), place.ending) == (4, None), "there was no room left to look"
    place.outgoing.tempo.frame_limit = limit
    assert (place.load(), place.ending) == (0, Ending(None))


@pytest.mark.parametrize("lingers", [False, True])
def test_end_and_failure_with_the_last_payload_are_told_apart(place: Place, lingers: bool) -> None:
    """A socket that was reset says so once, and then reads as if it had ended well."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        end = SocketEnd(server.accept()[0])
    place.source.join(end)
    theirs.sendall(b"last words")
    if lingers:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # The loopback has delivered it all before close() returns.
    theirs.close()
    place.source.tell(READABLE | HANG_UP)
    assert place.load() == 10
    assert place.ending is not None
    assert getattr(place.ending.failure, "errno", None) == (errno.ECONNRESET if lingers else None)
    end.close()
