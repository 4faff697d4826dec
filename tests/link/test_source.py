"""What a source gives becomes frames: when it is spliced, and what its end is."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.link.outgoing import FIRST_FRAME, LONGEST_FRAME, Outgoing
from punchtunnel.link.source import SPARSE, Supply
from punchtunnel.system.pipes import WORTH_SPLICING, Pipe
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
        self.outgoing = Outgoing(self.hole, None, Pipe() if spliced else None)
        self.supply = Supply()
        self.supply.join(self.end, splice=spliced)

    def load(self) -> int:
        """Load one frame, and let the hole take it."""
        count = self.supply.load(self.outgoing, CREDIT)
        if count:
            self.outgoing.send_loaded(b"")
            while self.outgoing.waits:
                self.reader.recv(CREDIT)
                self.outgoing.send_on()
        return count

    def close(self) -> None:
        self.outgoing.close()
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
    assert not place.supply.ready
    place.supply.tell(READABLE)
    assert place.load() == 0
    assert not place.supply.ready
    assert place.supply.is_open


@pytest.mark.parametrize("ahead", [HANG_UP, URGENT])
def test_where_something_lies_ahead_a_short_read_is_not_the_last(place: Place, ahead: int) -> None:
    place.feeder.send(b"hello")
    place.supply.tell(READABLE | ahead)
    assert place.load() == 5
    assert place.supply.ready


def test_the_end_is_found_with_the_last_bytes(place: Place) -> None:
    place.feeder.send(b"hello")
    place.feeder.shutdown(socket.SHUT_WR)
    place.supply.tell(READABLE | HANG_UP)
    assert place.load() == 5
    assert not place.supply.is_open


@pytest.mark.parametrize("more", [b"", bytes(4 * WORTH_SPLICING)])
def test_what_a_broken_source_holds_goes_before_its_failure(place: Place, more: bytes) -> None:
    place.feeder.send(b"hello")
    assert place.load() == 5
    place.feeder.send(b"last" + more)
    place.supply.fail(ConnectionResetError())
    count = len(b"last" + more)
    while count:
        assert place.supply.is_open
        count -= place.load()
    with pytest.raises(ConnectionResetError):
        place.load()


def test_the_failure_goes_with_the_last_bytes_where_the_end_is_seen(place: Place) -> None:
    place.feeder.send(b"last")
    place.feeder.close()
    failure = ConnectionResetError()
    place.supply.fail(failure)
    assert place.load() == 4
    assert not place.supply.is_open
    assert place.outgoing.failure is failure


def test_the_end_of_bulk_is_told_by_a_read(place: Place) -> None:
    """An end of file that splice(2) sees may be a transport that was aborted; only the end knows."""
    place.feeder.send(bytes(WORTH_SPLICING))
    assert place.load() == WORTH_SPLICING
    place.supply.tell(READABLE)
    place.feeder.shutdown(socket.SHUT_WR)
    reads = 0
    real = place.end.read_into

    def counted(view: memoryview) -> int | None:
        nonlocal reads
        reads += 1
        return real(view)

    place.end.read_into = counted  # type: ignore[method-assign]
    while place.supply.is_open:
        assert place.load() == 0
    assert reads == 1


def test_bulk_waits_for_credit_that_is_worth_a_frame(place: Place) -> None:
    assert place.supply.is_worth(1, FIRST_FRAME)
    place.feeder.send(bytes(WORTH_SPLICING))
    place.load()
    assert not place.supply.is_worth(WORTH_SPLICING - 1, LONGEST_FRAME)
    assert place.supply.is_worth(WORTH_SPLICING, LONGEST_FRAME)
    assert place.supply.is_worth(8192, 8192), "a slow hole takes short frames"
    place.supply.is_open = False
    assert not place.supply.is_worth(CREDIT, LONGEST_FRAME)


def test_two_small_messages_in_a_row_are_talk(place: Place) -> None:
    """And not the short rest of what was long."""
    talks = []
    for size in (1, SPARSE + 1, 1, 1, SPARSE, SPARSE + 1):
        place.feeder.send(bytes(size))
        place.supply.tell(READABLE)
        assert place.load() == size
        talks.append(place.supply.talks)
    assert talks == [True, False, False, True, True, False]


def test_a_source_that_ends_when_it_has_nothing(place: Place) -> None:
    place.feeder.send(b"typed")
    place.supply.ending = True
    assert place.load() == 5
    assert place.load() == 0
    assert not place.supply.is_open


def test_what_cannot_be_spliced_is_copied(tmp_path: os.PathLike[str]) -> None:
    made = Place(True)
    other = os.open(tmp_path, os.O_RDONLY)
    unspliceable = Unspliceable(made.end._sock.dup(), other)
    try:
        made.supply.join(unspliceable, splice=True)
        made.feeder.send(bytes(WORTH_SPLICING))
        assert made.load() == WORTH_SPLICING
        made.feeder.send(b"more")
        assert made.load() == 0
        assert made.supply.ready
        assert made.load() == 4
    finally:
        unspliceable.close()
        os.close(other)
        made.close()


def test_a_broken_source_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: memoryview) -> int:
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    monkeypatch.setattr(place.end, "read_into", broken)
    with pytest.raises(ConnectionResetError):
        place.load()
