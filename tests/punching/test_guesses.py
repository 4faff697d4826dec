"""Holds and dials that guess each other's ports: how many, which, and when; without a socket and without a clock."""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.address import Place
from punchtunnel.protocol.hello import NO_TRAITS, Role
from punchtunnel.protocol.offers import Offer, Offered, PortUse, Source
from punchtunnel.punching.appointed import LOWEST_PORT, Appointment, Plan
from punchtunnel.punching.callers import Connection
from punchtunnel.punching.candidates import ANY_PORT, Candidate, Fate, Kind
from punchtunnel.punching.choice import strategy_for
from punchtunnel.punching.dial import LOOK_PAUSE, Dial
from punchtunnel.punching.dialler import Dialler
from punchtunnel.punching.forwarded import ForwardedPorts
from punchtunnel.punching.guesses import (
    BATCH,
    DIAL_LIFE,
    HIGHEST_PORT,
    HOLD_AGAIN,
    MOST_DIALS,
    MOST_HOLDS,
    MOST_OUTSTANDING,
    FreshPorts,
    GuessedPorts,
    dial_count,
    guessed_ports,
    hold_count,
    own_port_of,
    round_seconds,
    scheduled_port,
)
from punchtunnel.punching.hole import Counts
from punchtunnel.punching.listeners import Listeners
from punchtunnel.punching.settings import settings_from
from punchtunnel.punching.strategy import HOLD_TTL, NEVER
from punchtunnel.reporting.events import unreported
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address

CHANNEL = "guesses"
EASY = Address(socket.AF_INET, "203.0.113.5")
HARD = Address(socket.AF_INET, "203.0.113.9")
WALL, START = 1e9, 1000.0
# Seconds after which something hangs.
HUNG = 20.0


def hard(use: PortUse, last: int = 40000, low: int = 40000, high: int = 40000) -> Offer:
    seen = Offered(Source.OBSERVED, HARD.host, last or 1)
    return Offer(1, port_use=use, last=last, low=low, high=high, candidates=(seen,))


SEQUENTIAL, RANDOM = hard(PortUse.SEQUENTIAL), hard(PortUse.RANDOM, low=1100, high=64000)
BLOCK = hard(PortUse.WINDOW, low=40000, high=40700)
WIDE = hard(PortUse.WINDOW, low=40000, high=43500)
EASY_OFFER = Offer(
    1, port_use=PortUse.PRESERVING, candidates=tuple(Offered(Source.OBSERVED, EASY.host, one) for one in (4000, 4001))
)


def appointment(offer: Offer, *, mine: bool = False, birthday: int = 0, easy: Offer = EASY_OFFER) -> Appointment:
    """Return that of the easy side, or of the hard one whose offer is `mine`."""
    if mine:
        return Appointment(offer, easy, (), Plan.GUESS, birthday)
    own = tuple(10000 + one.port for one in easy.candidates if one.source is Source.OBSERVED)
    return Appointment(easy, offer, own, Plan.GUESS, birthday)


@pytest.mark.parametrize(
    ("offer", "birthday", "holds", "dials"),
    [
        (SEQUENTIAL, 0, 64, 16), (SEQUENTIAL, 512, 128, 16), (BLOCK, 0, 128, 40), (BLOCK, 512, 128, 40),
        (WIDE, 0, 256, 40), (RANDOM, 0, 400, 128), (RANDOM, 100, 400, 128), (RANDOM, 450, 450, 450),
        (RANDOM, 100000, MOST_HOLDS, MOST_DIALS),
    ],
)  # fmt: skip
def test_so_many_are_polite_and_the_user_can_allow_more(offer: Offer, birthday: int, holds: int, dials: int) -> None:
    assert (hold_count(offer, birthday), dial_count(offer, birthday)) == (holds, dials)
    # Longer than the holds and the dials take, on both sides.
    for mine in (True, False):
        assert round_seconds(appointment(offer, mine=mine, birthday=birthday)) > (holds + dials) / BATCH + DIAL_LIFE


# ---- which ports


def test_after_a_sequence_the_next_ports_are_held_in_order_and_around_the_end() -> None:
    rng = random.Random(1)
    assert guessed_ports(SEQUENTIAL, 64, rng) == list(range(40001, 40065))
    assert guessed_ports(hard(PortUse.SEQUENTIAL, last=65534), 3, rng) == [65535, 1024, 1025]


def test_in_a_window_what_was_seen_to_be_used_is_held() -> None:
    ports = guessed_ports(BLOCK, 128, random.Random(1))
    assert len(set(ports)) == 128
    assert 40000 <= min(ports) <= max(ports) <= 40700
    narrow = guessed_ports(hard(PortUse.WINDOW, low=40000, high=40063), 128, random.Random(1))
    assert sorted(narrow) == list(range(39968, 40096))


def test_without_a_rule_any_port_is_held() -> None:
    ports = guessed_ports(RANDOM, 256, random.Random(1))
    assert len(set(ports)) == 256
    assert min(ports) < 5000
    assert max(ports) > 60000


numbers = st.integers(0, 0xFFFF)


@given(st.sampled_from([use for use in PortUse if use.is_hard]), numbers, numbers, numbers, st.integers(0, 2000))
def test_whatever_a_peer_tells_the_ports_are_of_no_server_and_no_more_than_may_be(
    use: PortUse, last: int, low: int, high: int, birthday: int
) -> None:
    offer = hard(use, last, low, high)
    ports = guessed_ports(offer, hold_count(offer, birthday), random.Random(1))
    assert len(set(ports)) == len(ports) == hold_count(offer, birthday) <= MOST_HOLDS
    assert LOWEST_PORT <= min(ports) <= max(ports) <= HIGHEST_PORT


# ---- when


def candidates_by_second(strategy: GuessedPorts | FreshPorts, address: Address) -> Iterator[list[Candidate]]:
    """Yield what is new in each second; it is asked several times in each."""
    before: set[Candidate] = set()
    for second in range(60):
        found = {one for part in range(4) for one in strategy.candidates((address,), WALL + second + part / 4)}
        yield sorted(found - before)
        before |= found


@pytest.mark.parametrize("offer", [SEQUENTIAL, BLOCK, WIDE, RANDOM])
def test_holds_come_few_at_a_time_from_one_port_and_stay(offer: Offer) -> None:
    strategy = GuessedPorts(appointment(offer), CHANNEL, random.Random(1))
    made = list(candidates_by_second(strategy, HARD))
    # Those of the first moment, and of the first second.
    assert len(made[0]) <= 2 * BATCH
    assert max(map(len, made[1:])) <= BATCH + 1
    assert sum(map(len, made)) == hold_count(offer) == len(strategy.candidates((), WALL + 60))
    assert {(one.kind, one.own_port) for batch in made for one in batch} == {(Kind.GUESSED, 14000)}
    assert not any(made[-(-hold_count(offer) // BATCH) :])


@pytest.mark.parametrize("offer", [SEQUENTIAL, BLOCK, WIDE, RANDOM])
def test_dials_begin_when_the_holds_are_set_and_come_few_at_a_time(offer: Offer) -> None:
    strategy = FreshPorts(appointment(offer, mine=True), CHANNEL)
    begins = hold_count(offer) / BATCH
    assert strategy.candidates((EASY,), WALL) == strategy.candidates((EASY,), WALL + begins - 0.01) == []
    made = 0
    for second in range(60):
        wall = WALL + begins + second
        new = strategy.candidates((EASY,), wall)
        assert len(new) <= BATCH
        assert {(one.kind, one.own_port, one.far_port) for one in new} <= {(Kind.FRESH, ANY_PORT, 4000)}
        for one in new:
            strategy.begin(one, START)
            assert strategy.ended(one, Fate.REFUSED, START) == NEVER
        made += len(new)
    assert made == dial_count(offer)


def test_no_more_dials_are_outstanding_than_a_household_can_spare() -> None:
    strategy = FreshPorts(appointment(RANDOM, mine=True), CHANNEL)
    strategy.candidates((EASY,), WALL)
    for second in range(30):
        found = strategy.candidates((EASY,), WALL + 11 + second)
    assert len(found) == MOST_OUTSTANDING
    assert strategy.renewal(found[0], START, held=False) == START + DIAL_LIFE
    assert strategy.held_out(found[0], START) == NEVER
    more = strategy.candidates((EASY,), WALL + 60)
    assert found[0] not in more
    assert len(more) == MOST_OUTSTANDING


def test_a_clock_that_jumps_makes_no_burst() -> None:
    strategy = GuessedPorts(appointment(RANDOM), CHANNEL, random.Random(1))
    strategy.candidates((HARD,), WALL)
    assert len(strategy.candidates((HARD,), WALL + 3600)) == 2 * BATCH
    assert len(strategy.candidates((HARD,), WALL - 3600)) == 2 * BATCH


def test_nothing_is_sent_anywhere_but_to_the_other_sides_public_address() -> None:
    for strategy in (
        GuessedPorts(appointment(RANDOM), CHANNEL, random.Random(1)),
        FreshPorts(appointment(RANDOM, mine=True), CHANNEL),
    ):
        strategy.candidates((), WALL)
        elsewhere = Address(socket.AF_INET, "198.51.100.1"), Address(socket.AF_INET6, "2001:db8::1")
        assert strategy.candidates(elsewhere, WALL + 60) == []


def test_the_peers_hello_ends_the_round_and_a_lost_connection_opens_it_again() -> None:
    strategy = GuessedPorts(appointment(BLOCK), CHANNEL, random.Random(1))
    first, *_ = strategy.candidates((HARD,), WALL)
    assert not strategy.meet(START, known=False)
    assert len(strategy.candidates((HARD,), WALL + 1)) == 2 * BATCH
    assert not strategy.meet(START, known=True)
    assert len(strategy.candidates((HARD,), WALL + 2)) == 2 * BATCH
    assert strategy.ended(first, Fate.LOST, START) == START + HOLD_AGAIN
    assert len(strategy.candidates((HARD,), WALL + 3)) == 3 * BATCH


def test_a_hold_is_made_anew_until_the_peers_syn_has_come() -> None:
    strategy = GuessedPorts(appointment(BLOCK), CHANNEL, random.Random(1))
    first, *_ = strategy.candidates((HARD,), WALL)
    assert {strategy.begin(first, START) for _ in range(200)} == set(range(HOLD_TTL[0], HOLD_TTL[1] + 1))
    assert strategy.renewal(first, START, held=True) == START + HOLD_AGAIN
    assert strategy.renewal(first, START, held=False) == NEVER
    assert strategy.held_out(first, START) == START


# ---- the easy side's port


def test_a_port_that_nobody_has_seen_is_one_of_the_schedule_on_both_sides() -> None:
    easy = Offer(1, candidates=(Offered(Source.HOST, EASY.host),))
    holds = GuessedPorts(appointment(RANDOM, easy=easy), CHANNEL, random.Random(1)).candidates((HARD,), WALL)
    dials = FreshPorts(appointment(RANDOM, mine=True, easy=easy), CHANNEL)
    dials.candidates((EASY,), WALL)
    assert {one.own_port for one in holds} == {scheduled_port(CHANNEL)}
    assert {one.far_port for one in dials.candidates((EASY,), WALL + 20)} == {scheduled_port(CHANNEL)}


def test_the_own_port_is_the_one_that_belongs_to_what_was_seen_over_ipv4() -> None:
    six = Offered(Source.OBSERVED, "2001:db8::5", 6000)
    easy = Offer(1, candidates=(six, *EASY_OFFER.candidates))
    assert own_port_of(Appointment(easy, RANDOM, (16000, 14000, 14001)), CHANNEL) == 14000


def test_each_side_of_a_guess_has_its_part() -> None:
    rng = random.Random(1)
    base = settings_from([HARD.host], CHANNEL, 1, None, 0, 0, Role.RAW, NO_TRAITS)
    for mine, kind in ((False, GuessedPorts), (True, FreshPorts)):
        choice = strategy_for(replace(base, appointment=appointment(RANDOM, mine=mine)), rng, START)
        assert isinstance(choice.strategy, kind)
        assert choice.forwarded is None


# ---- both sides, and a router between them


def meets(use: PortUse, first: int, size: int, rng: random.Random) -> bool:
    """Tell whether a round meets, of a router that gives each connection any port of a block."""
    seen = [rng.randrange(first, first + size) for _ in range(6)]
    offer = hard(use, seen[-1], min(seen), max(seen))
    held = set(guessed_ports(offer, hold_count(offer), rng))
    return any(rng.randrange(first, first + size) in held for _ in range(dial_count(offer)))


@pytest.mark.parametrize(
    ("use", "first", "size", "least", "most"),
    [
        (PortUse.WINDOW, 20000, 512, 0.99, 1.0), (PortUse.WINDOW, 20000, 1008, 0.98, 1.0),
        (PortUse.WINDOW, 20000, 2048, 0.90, 0.97), (PortUse.WINDOW, 20000, 4096, 0.90, 0.97),
        (PortUse.RANDOM, 1024, 64512, 0.52, 0.58),
    ],
)  # fmt: skip
def test_a_round_meets_as_often_as_the_table_says(
    use: PortUse, first: int, size: int, least: float, most: float
) -> None:
    rng, runs = random.Random(7), 2000
    assert least <= sum(meets(use, first, size, rng) for _ in range(runs)) / runs <= most


# ---- the hold itself


@pytest.fixture
def silent() -> Iterator[tuple[str, int]]:
    """Return a place of this machine that answers no SYN: its listener's queue is full."""
    with socket.socket() as full, socket.socket() as only:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        only.connect(full.getsockname())
        yield full.getsockname()


@pytest.mark.parametrize("kind", [Kind.GUESSED, Kind.SAME_PORT])
def test_a_guess_keeps_its_small_ttl_until_the_peers_syn_has_come(
    kind: Kind, silent: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second SYN of a hold was refused by the far router, and what the first one had opened was closed by that."""
    state = tcp.SYN_SENT
    monkeypatch.setattr(tcp, "state", lambda sock: state)
    with socket.socket() as sock:
        sock.setblocking(False)
        usual = tcp.time_to_live(sock)
        one = Dial(Candidate(kind, Address(socket.AF_INET, silent[0]), ANY_PORT, silent[1]), due=0.0, began=START)
        one.hold(sock, 3)
        one.sock = sock
        one.look(START + LOOK_PAUSE)
        assert tcp.time_to_live(sock) == (3 if kind is Kind.GUESSED else usual)
        assert one.look_at == (pytest.approx(START + 2 * LOOK_PAUSE) if kind is Kind.GUESSED else NEVER)
        state = 3
        one.look(START + 2 * LOOK_PAUSE - 0.01)
        assert tcp.time_to_live(sock) == (3 if kind is Kind.GUESSED else usual)
        one.look(START + 2 * LOOK_PAUSE + 0.01)
        assert (tcp.time_to_live(sock), one.look_at) == (usual, NEVER)
        assert one.release() is sock


def test_a_hold_that_is_given_up_sends_nothing_that_arrives(silent: tuple[str, int]) -> None:
    """Between the usual TTL and the end of the socket the kernel found the time for another SYN."""
    with socket.socket() as sock:
        sock.setblocking(False)
        one = Dial(Candidate(Kind.GUESSED, Address(socket.AF_INET, silent[0]), ANY_PORT, silent[1]), due=0.0)
        one.hold(sock, 2)
        one.sock = sock
        assert one.release() is sock
        assert tcp.time_to_live(sock) == 2
        assert (one.usual_ttl, one.look_at) == (0, NEVER)


class OneHold(ForwardedPorts):
    """Holds one port of this machine."""

    def candidates(self, addresses: Sequence[Address], wall: float) -> list[Candidate]:
        return [
            Candidate(Kind.GUESSED, address, ANY_PORT, place.port) for address in addresses for place in self.places
        ]

    def begin(self, candidate: Candidate, now: float) -> int:  # type: ignore[override]
        return 2


def test_what_is_sent_on_a_hold_that_has_become_a_connection_arrives() -> None:
    opened: list[Connection] = []
    with selectors.DefaultSelector() as selector, socket.create_server(("127.0.0.2", 0)) as peer:
        strategy = OneHold(0, random.Random(1), START)
        strategy.places = [Place(*peer.getsockname())]
        listeners = Listeners(selector, Counts(), unreported, opened.append, open_to_all=False)
        settings = settings_from(["127.0.0.2"], CHANNEL, 1, "127.0.0.1", 0, 0, Role.RAW, NO_TRAITS)
        dialler = Dialler(settings, strategy, listeners, selector, lambda: START, Counts(), unreported, opened.append)
        with contextlib.closing(dialler), socket.socket() as other:
            dialler.plan((Address(socket.AF_INET, "127.0.0.2"),), WALL)
            dialler.start_due()
            while not opened:
                for key, _ in selector.select(HUNG):
                    key.data()
            with opened[0].sock as sock:
                assert tcp.time_to_live(sock) == tcp.time_to_live(other)
