"""A PEER with a port, and --port: one side listens where its owner has forwarded a port, the other dials it."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from punchtunnel.address import Place
from punchtunnel.errors import LocalError, NoHoleError
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.punching.candidates import ANY_PORT, Candidate, Fate, Kind
from punchtunnel.punching.forwarded import DIAL_LIFE, MOST_PLACES, ForwardedPorts
from punchtunnel.punching.helper import Meeting, PortMapper, PortMapping, RouterNews
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.listeners import Listeners
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.race import Race
from punchtunnel.punching.settings import Settings, settings_from
from punchtunnel.punching.strategy import FIRST_WAIT, NEVER, PATIENT_AFTER, PATIENT_WAIT, SLOW_WAIT, ScheduledPorts
from punchtunnel.system.addresses import LOOPBACK, Address

# Two addresses of this machine, which with --bind are two machines.
A, B = "127.0.0.1", "127.0.0.2"
PEER = Address(socket.AF_INET, "198.51.100.7")
OTHER = Address(socket.AF_INET, "198.51.100.8")
PEER6 = Address(socket.AF_INET6, "2001:db8::7")
OURSELVES = Address(socket.AF_INET, LOOPBACK, own=True)
START = 1000.0


class Even(random.Random):
    """Waits without jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


def strategy(*places: Place, own_port: int = 0) -> ForwardedPorts:
    made = ForwardedPorts(own_port, Even(1), START)
    made.places = places
    return made


def forwarded(address: Address, port: int) -> Candidate:
    return Candidate(Kind.FORWARDED, address, ANY_PORT, port)


def test_each_port_that_was_given_is_dialled_at_the_addresses_that_it_was_given_for() -> None:
    made = strategy(Place(PEER.host, 5000), Place(PEER.host, 5001), Place(PEER6.host, 5000), Place("192.0.2.1", 1))
    wanted = [forwarded(PEER, 5000), forwarded(PEER, 5001), forwarded(PEER6, 5000)]
    assert made.candidates((PEER, OTHER, PEER6), 0.0) == wanted
    made.places = ()
    assert made.candidates((PEER,), 0.0) == []


def test_no_more_than_a_few_are_dialled_however_many_are_given() -> None:
    made = strategy(*(Place(PEER.host, port) for port in range(5000, 5100)))
    assert made.candidates((PEER,), 0.0) == [forwarded(PEER, port) for port in range(5000, 5000 + MOST_PLACES)]


def test_the_port_that_this_side_listens_on_itself_is_not_dialled_on_this_machine() -> None:
    made = strategy(Place(LOOPBACK, 5000), Place(LOOPBACK, 5001), Place(PEER.host, 5000), own_port=5000)
    assert made.candidates((OURSELVES, PEER), 0.0) == [forwarded(OURSELVES, 5001), forwarded(PEER, 5000)]


def test_the_waits_grow_and_end_in_patience() -> None:
    made = strategy(Place(PEER.host, 5000))
    (one,) = made.candidates((PEER,), 0.0)
    made.begin(one, START)
    waits = [made.ended(one, Fate.REFUSED, START) - START for _ in range(6)]
    assert waits[0] == pytest.approx(FIRST_WAIT)
    assert all(earlier <= later for earlier, later in pairwise(waits))
    assert waits[-1] == pytest.approx(SLOW_WAIT)
    late = START + PATIENT_AFTER
    assert made.ended(one, Fate.REFUSED, late) - late == pytest.approx(PATIENT_WAIT)
    made.start_over(late)
    assert made.ended(one, Fate.REFUSED, late) - late == pytest.approx(FIRST_WAIT)


def test_a_dial_without_an_answer_is_made_anew_before_the_kernel_grows_slow() -> None:
    made = strategy(Place(PEER.host, 5000))
    (one,) = made.candidates((PEER,), 0.0)
    assert made.renewal(one, START, held=False) == START + DIAL_LIFE
    assert made.held_out(one, START + DIAL_LIFE) == pytest.approx(START + DIAL_LIFE + FIRST_WAIT)


def test_in_a_race_each_candidate_is_the_business_of_its_strategy_alone() -> None:
    """A program that answers at the given port says nothing about the ports of the schedule, and needs no holds."""
    scheduled = ScheduledPorts("race", Even(1), START)
    given = strategy(Place(PEER.host, 5000))
    race = Race({Kind.SAME_PORT: scheduled, Kind.PAIR: scheduled, Kind.FORWARDED: given})
    candidates = race.candidates((PEER,), 1e9)
    assert {candidate.kind for candidate in candidates} == {Kind.SAME_PORT, Kind.FORWARDED}
    assert list(race.listening((PEER,), 1e9)) == list(scheduled.listening((PEER,), 1e9))
    # One that depends on the clock: they come last.
    same = [one for one in candidates if one.kind is Kind.SAME_PORT][-1]
    race.ended(forwarded(PEER, 5000), Fate.CAPTURED, START)
    assert race.renewal(same, START, held=True) == NEVER
    race.ended(same, Fate.CAPTURED, START)
    assert race.renewal(same, START, held=True) < NEVER
    assert race.meet(START, known=True), "the ports of the schedule are dialled at once"
    assert not race.meet(START, known=True)


# ---- over real sockets


@pytest.fixture
def channel() -> str:
    return f"test {os.urandom(8).hex()}"


@pytest.fixture
def free_port() -> Iterator[int]:
    """Return a port that nobody listens on, kept from others by a socket that is bound to another address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.3", 0))
        yield sock.getsockname()[1]


def settings(peer: str, bind: str | None, channel: str, *, port: int = 0, wait: float = 30) -> Settings:
    return settings_from([peer], channel, wait, bind, 0, 0, Role.RAW, Trait.PLAIN, port=port)


def both(one: Callable[[], Hole], other: Callable[[], Hole]) -> tuple[Hole, Hole]:
    with ThreadPoolExecutor(2) as two:
        futures = two.submit(one), two.submit(other)
        return futures[0].result(), futures[1].result()


def test_the_side_that_dials_the_given_port_meets_the_side_that_listens_on_it(
    channel: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScheduledPorts, "candidates", lambda *_: [])
    listens, dials = both(
        lambda: open_hole(settings(A, B, channel, port=free_port)),
        lambda: open_hole(settings(f"{B}:{free_port}", A, channel)),
    )
    with listens.sock, dials.sock:
        assert dials.remote == listens.local == f"{B}:{free_port}"
        assert dials.local == listens.remote


class Gathering:
    """Has a router that leads to one port, which an earlier punch has asked for."""

    def __init__(self, port: int) -> None:
        self.told: set[str] = set()
        self.news = RouterNews((PortMapping(socket.AF_INET, port, Place("203.0.113.5", port), "PCP"),))

    def mapper(self) -> PortMapper:
        raise AssertionError("nobody is asked")

    def meeting(self, relay: Place) -> Meeting:
        raise AssertionError("no relay is named")

    def heard(self) -> RouterNews:
        return self.news

    def recall(self) -> Mapping[str, Sequence[str]]:
        raise AssertionError("no name is looked up here")

    def remember(self, *_: object) -> None:
        raise AssertionError("there is no secret")

    def failed(self) -> None:
        raise AssertionError("it does not fail")


def test_a_hole_that_came_to_a_mapped_port_says_so_whoever_has_asked_for_it(
    channel: str, free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that went on by its second hole gave the mapping back by which that had come."""
    monkeypatch.setattr(ScheduledPorts, "candidates", lambda *_: [])
    gathering = Gathering(free_port)
    listens, dials = both(
        lambda: open_hole(settings(A, B, channel, port=free_port), gathering=gathering),
        lambda: open_hole(settings(f"{B}:{free_port}", A, channel), gathering=gathering),
    )
    with listens.sock, dials.sock:
        assert listens.mapped
        assert not dials.mapped, "it has dialled"


def test_a_port_that_cannot_be_had_is_told_at_once(channel: str) -> None:
    with socket.socket() as taken:
        taken.bind((A, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LocalError, match=f"cannot listen on --port {port}: .*in use"):
            open_hole(settings(B, A, channel, port=port))


@pytest.mark.parametrize(
    ("error", "port", "sentence"),
    [
        (errno.EADDRINUSE, 40022, "cannot listen on --port 40022: .* in use; end what has it"),
        (errno.EACCES, 443, "cannot listen on --port 443: .*; give one above 1023"),
        (errno.EACCES, 40022, "cannot listen on --port 40022: .*; give another one"),
        (errno.EADDRNOTAVAIL, 40022, f"cannot bind {A}: it is not an address of this machine"),
        (errno.EMFILE, 40022, "refuses more sockets: Too many open files"),
    ],
)
def test_why_the_port_cannot_be_had_is_told_with_what_helps(
    error: int, port: int, sentence: str, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason was, the sentence said that another program had the port."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(Listeners, "open", refuse)
    with pytest.raises(LocalError, match=sentence):
        open_hole(settings(B, A, channel, port=port))


@pytest.mark.parametrize(
    ("answers", "sentence"), [(False, "refuses: forward that port"), (True, "leads to another program")]
)
def test_the_last_line_says_what_the_given_port_has_met(
    channel: str, free_port: int, answers: bool, sentence: str
) -> None:
    with socket.socket() as program:
        program.bind((B, free_port))
        if answers:
            program.listen()
        with pytest.raises(NoHoleError, match=f"; {B}:{free_port} .*{sentence}"):
            open_hole(settings(f"{B}:{free_port}", A, channel, wait=1.5))
