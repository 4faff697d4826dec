"""The first words on a relayed hole: two sides on a socket pair, and ways that are the test's."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from punchtunnel.errors import LostError, NoHoleError, PeerError, SignalError
from punchtunnel.protocol.agreement import Keys
from punchtunnel.protocol.hello import NO_TRAITS, Role, Trait
from punchtunnel.protocol.offers import Offer
from punchtunnel.protocol.records import OFFER, RESUME, Opener, Sealer
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.reporting.events import Direct, Event, Meeting, NotDirect
from punchtunnel.session.arranging import RawTalk
from punchtunnel.session.rawrecords import RawRecords
from punchtunnel.session.settling import HOLD, settle
from punchtunnel.system.signals import TRY_NOW, Wake

LONG = 30.0
A, B = b"a" * 32, b"b" * 32
TICKET = Ticket(b"s" * 16, b"t" * 32)
RELAY = "relay.example.org:4001"


class Offering:
    """What is gathered."""

    own_ports: tuple[int, ...] = ()

    def __init__(self) -> None:
        self.offer = Offer(0)

    def close(self) -> None:
        """Nothing is kept open."""


class Ways:
    """Lead to a direct hole, or to none."""

    def __init__(self, direct: Hole | None) -> None:
        self.direct = direct
        self.tickets: list[Ticket] = []
        self.tries = 0

    def __call__(self, ticket: Ticket, _report: object) -> Ways:
        self.tickets.append(ticket)
        return self

    def gather(self, _signals: object) -> Offering:
        return Offering()

    def plans(self, _mine: Offer, _theirs: Offer) -> int:
        return 1

    def punch(self, _gathered: object, _theirs: Offer, _signals: object) -> Hole:
        self.tries += 1
        if self.direct is None:
            raise NoHoleError("all refused")
        return self.direct


class Side:
    """One of the two."""

    def __init__(self, sock: socket.socket, mine: bytes, theirs: bytes, *, leads: bool, waited: float) -> None:
        keys = Keys(mine, theirs, b"", b"", b"v" * 20, TICKET)
        self.hole = Hole(
            sock, "here", "there", b"", leads, Role.TO, Trait.RESUME, waited, Counts(), keys, True, relay=RELAY
        )
        self.ways = Ways(None)
        self.told: list[Event] = []
        self.wake = Wake()

    def settle(self, *, checks: bool = False, seconds: float = LONG) -> Hole:
        deadline = time.monotonic() + seconds
        return settle(
            self.hole, checks=checks, deadline=deadline, ways=self.ways, report=self.told.append, signals=self.wake
        )


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    here, there = socket.socketpair()
    one, other = Side(here, A, B, leads=True, waited=90.0), Side(there, B, A, leads=False, waited=0.5)
    with here, there, one.wake, other.wake:
        yield one, other


def both(one: Side, other: Side, **options: Any) -> list[Hole | Exception]:
    """Let both settle; return what came of it."""

    def run(side: Side) -> Hole | Exception:
        try:
            return side.settle(**options)
        except Exception as error:
            return error

    with ThreadPoolExecutor() as threads:
        return list(threads.map(run, (one, other)))


def direct_of(traits: Trait = NO_TRAITS) -> Hole:
    sock: Any = None
    return Hole(sock, "direct here", "direct there", b"", True, Role.STDIO, traits, 0.1, Counts())


def test_where_payload_may_pass_it_waits_for_what_the_later_side_has_left_of_two_seconds(
    sides: tuple[Side, Side],
) -> None:
    found = both(*sides)
    for side, hole in zip(sides, found, strict=True):
        assert isinstance(hole, Hole)
        assert (hole.sock, hole.hold) == (side.hole.sock, HOLD - 0.5)
        assert (side.ways.tries, side.told) == (0, [])


def test_the_session_s_records_go_on_after_those_words(sides: tuple[Side, Side]) -> None:
    one, other = both(*sides)
    assert isinstance(one, Hole)
    assert isinstance(other, Hole)
    RawRecords(one).say(b"the session's", RESUME)
    assert RawRecords(other).hear(RESUME, 99, LONG, sides[1].wake) == b"the session's"


@pytest.mark.parametrize("held", [0, 1])
def test_where_one_side_forbids_it_both_go_over_to_a_direct_hole(sides: tuple[Side, Side], held: int) -> None:
    sides[held].hole = replace(sides[held].hole, held=True)
    for side in sides:
        side.ways.direct = direct_of()
    for side, hole in zip(sides, both(*sides), strict=True):
        assert isinstance(hole, Hole)
        assert (hole.local, hole.relay, hole.role, hole.traits) == ("direct here", "", Role.TO, Trait.RESUME)
        assert side.ways.tickets == [TICKET]
        assert side.hole.sock.fileno() < 0
        assert side.told == [Meeting(relay=RELAY), Direct(local="direct here", remote="direct there")]


def test_where_there_is_none_it_says_that_the_peer_was_met_and_how_to_go_on(sides: tuple[Side, Side]) -> None:
    sides[0].hole = replace(sides[0].hole, held=True)
    found = both(*sides, seconds=0.3)
    for side, error in zip(sides, found, strict=True):
        # Whichever is too late first ends it for the other one, too.
        assert isinstance(error, NoHoleError | LostError)
        assert f"the peer was met at the relay {RELAY}, and there is no direct hole; all refused" in str(error)
        assert "--relay on both sides" in str(error)
        assert side.hole.sock.fileno() < 0
    assert any(isinstance(error, NoHoleError) for error in found)


@pytest.mark.parametrize("found", [True, False])
def test_a_side_that_only_checks_the_path_tries_once_and_measures_the_relayed_one_otherwise(
    sides: tuple[Side, Side], found: bool
) -> None:
    sides[1].hole = replace(sides[1].hole, traits=Trait.CHECK)
    for side in sides:
        side.ways.direct = direct_of() if found else None
    one, other = both(*sides, checks=True)
    assert isinstance(one, Hole)
    assert isinstance(other, Hole)
    assert [hole.relay for hole in (one, other)] == ["" if found else RELAY] * 2
    assert [side.ways.tries for side in sides] == [1, 1]
    assert other.role == Role.TO


def say(side: Side, record: bytes) -> None:
    """Play the other side."""
    side.hole.sock.sendall(record)


@pytest.mark.parametrize(
    "record",
    [
        Sealer(B, True).seal(b"nonsense", OFFER),
        Sealer(B, True).seal(bytes(4000), OFFER),
        Sealer(B, True).seal(Offer(0).encode(), RESUME),
        Sealer(A, True).seal(Offer(0).encode(), OFFER),
    ],
    ids=["no offer", "too long", "another record", "our own key"],
)
def test_what_is_no_first_word_costs_the_hole(sides: tuple[Side, Side], record: bytes) -> None:
    say(sides[1], record)
    with pytest.raises(PeerError):
        sides[0].settle()
    assert sides[0].hole.sock.fileno() < 0


def test_a_peer_that_is_not_there_is_a_loss(sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("punchtunnel.session.arranging.FIRST_TIMEOUT", 0.01)
    with pytest.raises(LostError):
        sides[0].settle()
    sides[1].hole.sock.close()
    assert sides[0].hole.sock.fileno() < 0


def test_a_relay_that_cuts_is_a_loss(sides: tuple[Side, Side]) -> None:
    sides[1].hole.sock.close()
    with pytest.raises(LostError):
        sides[0].settle()


def talks(one: Side, other: Side) -> tuple[RawTalk, RawTalk]:
    """Return what both say offers by, who have said the first one."""
    found = RawTalk(RawRecords(one.hole), True, 0.0, one.wake), RawTalk(RawRecords(other.hole), False, 0.0, other.wake)
    leader, follower = found
    leader.say(Offer(1))
    assert follower.hear(LONG) == Offer(1)
    follower.say(Offer(1))
    assert leader.hear(LONG) == Offer(1)
    return found


def test_sides_that_have_nothing_to_say_tell_each_other_that_they_are_there(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay tells nobody that one of them has vanished."""
    monkeypatch.setattr("punchtunnel.session.arranging.REPEAT", 0.01)
    monkeypatch.setattr("punchtunnel.session.arranging.SILENCE", 20.0)
    leader, follower = talks(*sides)
    with ThreadPoolExecutor() as threads:
        heard = [threads.submit(talk.hear, 0.3) for talk in (leader, follower)]
        assert [one.result(LONG) for one in heard] == [None, None]
    # What is new is heard all the same.
    leader.say(Offer(2))
    assert follower.hear(LONG) == Offer(2)


@pytest.mark.parametrize("number", [0, 1], ids=["the leader", "the follower"])
def test_a_side_that_hears_nothing_any_more_takes_the_other_one_for_gone(
    sides: tuple[Side, Side], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("punchtunnel.session.arranging.REPEAT", 0.01)
    monkeypatch.setattr("punchtunnel.session.arranging.SILENCE", 0.1)
    with pytest.raises(LostError):
        talks(*sides)[number].hear(LONG)


def test_a_signal_ends_it(sides: tuple[Side, Side]) -> None:
    sides[0].wake.note(signal.SIGINT)
    with pytest.raises(SignalError):
        sides[0].settle()
    assert sides[0].hole.sock.fileno() < 0
    assert Opener(A, True).record_size(sides[1].hole.sock.recv(4096), kind=OFFER)


@pytest.mark.parametrize("asks", [0, 1], ids=["the leader", "the follower"])
def test_a_side_that_is_asked_to_try_now_ends_the_pause(
    sides: tuple[Side, Side], asks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("punchtunnel.session.arranging.PAUSES", (3600.0,))
    sides[0].hole = replace(sides[0].hole, held=True)

    def ask() -> None:
        while not all(any(isinstance(event, NotDirect) for event in side.told) for side in sides):
            time.sleep(0.001)
        for side in sides:
            side.ways.direct = direct_of()
        sides[asks].wake.note(TRY_NOW)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert [isinstance(hole, Hole) for hole in both(*sides, seconds=10.0)] == [True, True]
        assert [side.ways.tries for side in sides] == [2, 2]
    finally:
        asking.join()
