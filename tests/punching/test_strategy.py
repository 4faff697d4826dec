"""Which candidates are dialled, when, and how: decided without a socket and without a clock."""

from __future__ import annotations

import errno
import heapq
import itertools
import math
import random
import socket
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.protocol import schedule
from punchtunnel.punching.candidates import Candidate, Fate, Kind, fate_of
from punchtunnel.punching.strategy import (
    FAST_WAIT,
    FIRST_WAIT,
    HOLD_LIFE,
    HOLD_SHARE,
    HOLD_SHARE_CAPTURED,
    HOLD_TTL,
    LATER_FAILURES,
    MEETING,
    MOST_SYNS,
    NEVER,
    OPEN_LIFE,
    PATIENT_AFTER,
    PATIENT_FAST_WAIT,
    PATIENT_WAIT,
    SLOW_WAIT,
    SYNS_SPAN,
    WAIT_GROWTH,
    ScheduledPorts,
    fast_ports,
    redial_wait,
)
from punchtunnel.system.addresses import Address

PEER = Address(socket.AF_INET, "198.51.100.7")
PEER6 = Address(socket.AF_INET6, "2001:db8::7")
OURSELVES = Address(socket.AF_INET, "127.0.0.1", own=True)
CHANNEL = "strategy"
WALL = 1e9
START = 1000.0
FAST = fast_ports(CHANNEL)[0]
OPEN = schedule.bucket_ports(CHANNEL, schedule.CLOCK_FREE, 1)[0]
SLOW = schedule.bucket_ports(CHANNEL, schedule.current_buckets(WALL)[1], 1)[0]


class Dice(random.Random):
    """Throws what it is told, and waits without jitter."""

    coin = 0.0

    def random(self) -> float:
        return self.coin

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class Table:
    """A strategy that dials the peer at both of its addresses, and its dice."""

    def __init__(self, *addresses: Address) -> None:
        self.dice = Dice(1)
        self.strategy = ScheduledPorts(CHANNEL, self.dice, START)
        self.addresses = addresses or (PEER,)
        self.candidates = self.strategy.candidates(self.addresses, WALL)

    def holds(self, candidate: Candidate, now: float = START) -> float:
        """Return the share of its dials that are holds."""
        for percent in range(101):
            self.dice.coin = percent / 100
            if self.strategy.begin(candidate, now) is None:
                return percent / 100
        raise AssertionError("no dial is plain")


def same_port(port: int, address: Address = PEER) -> Candidate:
    return Candidate(Kind.SAME_PORT, address, port, port)


# ---- fates


@pytest.mark.parametrize(
    ("code", "of_plain", "of_hold"),
    [
        (errno.ECONNREFUSED, Fate.REFUSED, Fate.REFUSED),
        (errno.ECONNRESET, Fate.REFUSED, Fate.REFUSED),
        (errno.EHOSTUNREACH, Fate.UNREACHABLE, Fate.EXPIRED),
        (errno.ENETUNREACH, Fate.UNREACHABLE, Fate.EXPIRED),
        (errno.EHOSTDOWN, Fate.UNREACHABLE, Fate.EXPIRED),
        (errno.ENETDOWN, Fate.UNREACHABLE, Fate.EXPIRED),
        (errno.EPERM, Fate.FORBIDDEN, Fate.FORBIDDEN),
        (errno.EACCES, Fate.FORBIDDEN, Fate.FORBIDDEN),
        (errno.ETIMEDOUT, Fate.SILENT, Fate.SILENT),
        (errno.EADDRNOTAVAIL, Fate.UNUSABLE, Fate.UNUSABLE),
        (errno.EINVAL, Fate.UNUSABLE, Fate.UNUSABLE),
    ],
)
def test_an_error_of_connect_tells_the_fate_of_the_dial(code: int, of_plain: Fate, of_hold: Fate) -> None:
    assert (fate_of(code, held=False), fate_of(code, held=True)) == (of_plain, of_hold)


# ---- which candidates


def test_every_port_of_the_schedule_is_dialled_from_itself_at_every_address() -> None:
    counts = schedule.port_counts(2, 2)
    ports = schedule.ports_of(CHANNEL, schedule.current_buckets(WALL), counts)
    assert Table(PEER, PEER6).candidates == [same_port(port, address) for address in (PEER, PEER6) for port in ports]


def test_an_own_address_is_dialled_from_the_second_port_of_a_pair_to_the_first() -> None:
    table = Table(OURSELVES)
    pairs = schedule.port_pairs(CHANNEL, schedule.current_buckets(WALL), schedule.PortCounts())
    assert table.candidates == [Candidate(Kind.PAIR, OURSELVES, second, first) for first, second in pairs]
    assert {one.listening_port for one in table.candidates} == {(socket.AF_INET, first) for first, _ in pairs}
    assert list(table.strategy.listening(table.addresses, WALL)) == []


def test_each_family_listens_on_the_ports_of_each_bucket() -> None:
    table = Table(PEER, PEER6)
    counts = schedule.port_counts(2, 2)
    buckets = [
        schedule.bucket_ports(CHANNEL, bucket, counts.ports(bucket)) for bucket in schedule.current_buckets(WALL)
    ]
    for family in (socket.AF_INET, socket.AF_INET6):
        assert [
            ports for one, _, _, ports in table.strategy.listening(table.addresses, WALL) if one == family
        ] == buckets


def test_a_further_way_has_a_listener_in_each_bucket_of_the_clock_on_a_port_without_one() -> None:
    further = PEER._replace(interface="eth1")
    table = Table(PEER, further)
    counts = schedule.port_counts(2, 1, 1)
    fixed, *buckets = [
        schedule.bucket_ports(CHANNEL, bucket, counts.ports(bucket)) for bucket in schedule.current_buckets(WALL)
    ]
    usual = [(socket.AF_INET, "", schedule.LISTENERS_PER_BUCKET, ports) for ports in (fixed, *buckets)]
    beside = [(socket.AF_INET, "eth1", 1, ports[schedule.LISTENERS_PER_BUCKET :]) for ports in buckets]
    assert list(table.strategy.listening(table.addresses, WALL)) == [*usual, *beside]


def test_holds_that_expire_on_one_way_are_made_on_the_others() -> None:
    """Where nobody answers ARP behind a second uplink, its holds end at once."""
    further = PEER._replace(interface="eth1")
    table = Table(PEER, further)
    table.strategy.ended(same_port(FAST, further), Fate.EXPIRED, START)
    assert table.holds(same_port(SLOW, further)) == 0.0
    assert table.holds(same_port(SLOW)) == HOLD_SHARE


def test_a_new_bucket_adds_its_ports_and_the_oldest_goes_one_window_later() -> None:
    table = Table()
    change = schedule.next_change(WALL)
    older, newer = schedule.current_buckets(WALL)[1:]
    ports = {bucket: schedule.bucket_ports(CHANNEL, bucket, 8) for bucket in range(older, newer + 3)}
    fixed = schedule.bucket_ports(CHANNEL, schedule.CLOCK_FREE, 4)
    for at, buckets in ((change, (older, newer, newer + 1)), (change + 50, (newer, newer + 1, newer + 2))):
        found = table.strategy.candidates(table.addresses, at)
        assert [one.own_port for one in found] == [*fixed, *(port for bucket in buckets for port in ports[bucket])]


def test_another_address_takes_the_place_of_the_old_one() -> None:
    table = Table()
    assert {one.address for one in table.strategy.candidates([PEER6], WALL)} == {PEER6}


# ---- when again: (what it has met, when, fate) -> (least, most) seconds without jitter

EXPIRED = [Fate.EXPIRED]
REFUSED, CAPTURED = [Fate.REFUSED], [Fate.CAPTURED]
LATE = START + PATIENT_AFTER
AGAIN: dict[str, tuple[int, list[Fate], float, Fate, float]] = {
    "the first failure": (SLOW, [], START, Fate.REFUSED, FIRST_WAIT),
    "the second": (SLOW, REFUSED, START, Fate.REFUSED, FIRST_WAIT * WAIT_GROWTH),
    "the third": (SLOW, REFUSED * 2, START, Fate.REFUSED, FIRST_WAIT * WAIT_GROWTH**2),
    "many": (SLOW, REFUSED * 50, START, Fate.REFUSED, SLOW_WAIT),
    "whatever the fate": (SLOW, REFUSED, START, Fate.UNUSABLE, FIRST_WAIT * WAIT_GROWTH),
    "a connection that was lost": (SLOW, REFUSED, START, Fate.LOST, FIRST_WAIT * WAIT_GROWTH),
    "many, after minutes": (SLOW, REFUSED * 50, LATE, Fate.REFUSED, PATIENT_WAIT),
    "a hold that expires": (FAST, REFUSED * 50, START, Fate.EXPIRED, SLOW_WAIT),
    "a fast port where holds expire": (FAST, EXPIRED * 50, START, Fate.REFUSED, FAST_WAIT),
    "any other port there": (SLOW, EXPIRED * 50, START, Fate.REFUSED, SLOW_WAIT),
    "a fast port there, after minutes": (FAST, EXPIRED * 50, LATE, Fate.REFUSED, PATIENT_FAST_WAIT),
}


@pytest.mark.parametrize(("port", "before", "now", "fate", "wait"), AGAIN.values(), ids=AGAIN.keys())
def test_a_dial_that_has_ended_is_made_again_after_a_wait(
    port: int, before: Sequence[Fate], now: float, fate: Fate, wait: float
) -> None:
    table = Table()
    for earlier in before:
        table.strategy.ended(same_port(port), earlier, START)
    assert math.isclose(table.strategy.ended(same_port(port), fate, now) - now, wait)


def test_the_other_family_is_not_dialled_faster() -> None:
    table = Table(PEER, PEER6)
    table.strategy.ended(same_port(FAST, PEER6), Fate.EXPIRED, START)
    waits = [table.strategy.ended(same_port(FAST), Fate.REFUSED, START) - START for _ in range(20)]
    assert math.isclose(waits[-1], SLOW_WAIT)


def test_ports_of_a_later_bucket_skip_the_short_waits() -> None:
    table = Table()
    change = schedule.next_change(WALL)
    (*_, new) = table.strategy.candidates(table.addresses, change)
    wait = table.strategy.ended(new, Fate.REFUSED, START) - START
    assert math.isclose(wait, FIRST_WAIT * WAIT_GROWTH**LATER_FAILURES)
    (first, *_) = table.candidates
    assert math.isclose(table.strategy.ended(first, Fate.REFUSED, START) - START, FIRST_WAIT)


def test_refused_dials_wait_where_many_were_made() -> None:
    """Two hundred and fifty SYNs in ten seconds are what a router is spared."""
    table = Table()
    table.dice.coin = 0.999
    for number in range(MOST_SYNS):
        table.strategy.begin(same_port(SLOW), START + number / 100)
    now = START + 5
    wait = table.strategy.ended(same_port(SLOW), Fate.REFUSED, now) - now
    assert math.isclose(wait, SYNS_SPAN - 5 + FIRST_WAIT), "with its jitter, or all would go at once"
    now = START + SYNS_SPAN
    assert math.isclose(table.strategy.ended(same_port(FAST), Fate.REFUSED, now) - now, FIRST_WAIT)


def test_a_hold_counts_as_two_syns() -> None:
    table = Table()
    for _ in range(MOST_SYNS // 2):
        assert table.strategy.begin(same_port(SLOW), START) is not None
    assert table.strategy.ended(same_port(SLOW), Fate.REFUSED, START) > START + SYNS_SPAN


def test_captured_dials_do_not_wait_for_the_budget() -> None:
    """None of the SYNs of their holds gets across."""
    table = Table()
    for _ in range(MOST_SYNS):
        table.strategy.begin(same_port(SLOW), START)
    assert math.isclose(table.strategy.ended(same_port(SLOW), Fate.CAPTURED, START), START + FIRST_WAIT)
    assert table.strategy.ended(same_port(FAST), Fate.REFUSED, START) < START + 1


# ---- how: a hold or plain

HOW: dict[str, tuple[Candidate, list[tuple[Address, Fate]], float]] = {
    "at first": (same_port(SLOW), [], HOLD_SHARE),
    "refused": (same_port(SLOW), [(PEER, Fate.REFUSED)], HOLD_SHARE),
    "lost to another connection": (same_port(SLOW), [(PEER, Fate.LOST)], HOLD_SHARE),
    "captured": (same_port(SLOW), [(PEER, Fate.CAPTURED)], HOLD_SHARE_CAPTURED),
    "holds expire": (same_port(SLOW), [(PEER, Fate.EXPIRED)], 0.0),
    "holds expire and plain dials are captured": (
        same_port(SLOW), [(PEER, Fate.EXPIRED), (PEER, Fate.CAPTURED)], 0.0,
    ),
    "holds expire in the other family": (same_port(SLOW), [(PEER6, Fate.EXPIRED)], HOLD_SHARE),
    "on one machine": (Candidate(Kind.PAIR, OURSELVES, SLOW, FAST), [], 0.0),
    "on one machine, captured": (Candidate(Kind.PAIR, OURSELVES, SLOW, FAST), [(OURSELVES, Fate.CAPTURED)], 0.0),
}  # fmt: skip


@pytest.mark.parametrize(("candidate", "before", "share"), HOW.values(), ids=HOW.keys())
def test_a_coin_decides_whether_a_dial_is_a_hold(
    candidate: Candidate, before: Sequence[tuple[Address, Fate]], share: float
) -> None:
    table = Table()
    for address, fate in before:
        table.strategy.ended(same_port(FAST, address), fate, START)
    assert table.holds(candidate) == share


def test_the_ttl_of_a_hold_is_beyond_the_own_routers_and_short_of_the_peers() -> None:
    strategy = ScheduledPorts(CHANNEL, random.Random(1), START)
    ttls = {strategy.begin(same_port(SLOW), START) for _ in range(500)}
    assert ttls == {None, *range(HOLD_TTL[0], HOLD_TTL[1] + 1)} == {None, 2, 3, 4, 5, 6}


def test_only_captured_holds_are_made_anew_and_in_time() -> None:
    table = Table()
    assert table.strategy.renewal(same_port(SLOW), START, held=True) == NEVER
    table.strategy.ended(same_port(SLOW), Fate.CAPTURED, START)
    assert table.strategy.renewal(same_port(SLOW), START, held=True) == START + HOLD_LIFE < START + 1
    assert table.strategy.renewal(same_port(SLOW), START, held=False) == NEVER


def test_captured_holds_become_patient_like_other_dials() -> None:
    """They were made anew every 0.9 s for as long as the punch lasted: 20 SYNs a second for months."""
    strategy = Table().strategy
    assert strategy.held_out(same_port(SLOW), LATE - 1) == LATE - 1, "at once, at first"
    assert math.isclose(strategy.held_out(same_port(SLOW), LATE), LATE + PATIENT_WAIT)


def test_the_first_dial_of_an_open_port_is_plain_and_one_without_an_answer_is_made_anew() -> None:
    """With the peer's router asked to forward it just now, the kernel's next SYN came 16 s later."""
    table = Table(PEER, PEER6)
    port = same_port(OPEN)
    assert table.holds(port) == 0.0
    assert table.strategy.renewal(port, START, held=False) == START + OPEN_LIFE > START + 3
    table.strategy.ended(port, Fate.REFUSED, START)
    assert table.holds(port) == HOLD_SHARE
    assert table.holds(same_port(OPEN, PEER6)) == 0.0
    table.strategy.start_over(START)
    assert table.holds(port) == 0.0
    # What is taken by somebody else is taken plainly.
    table.strategy.ended(port, Fate.CAPTURED, START)
    assert table.holds(same_port(OPEN, PEER6)) == HOLD_SHARE_CAPTURED
    assert table.strategy.renewal(port, START, held=False) == NEVER


# ---- the peer is heard


def test_peer_is_met_only_once_and_strangers_do_not_use_that_up() -> None:
    """A stranger who says hello again and again must not make us dial."""
    strategy = Table().strategy
    assert [strategy.meet(START, known=known) for known in (False, False, True, True, False)] == [
        True, False, True, False, False,
    ]  # fmt: skip


def test_there_are_no_holds_while_a_connection_is_elected_and_then_there_are() -> None:
    table = Table()
    table.strategy.meet(START, known=True)
    assert table.holds(same_port(SLOW), START + MEETING * 0.99) == 0.0
    assert table.holds(same_port(SLOW), START + MEETING) == HOLD_SHARE


def test_starting_over_forgets_what_other_routers_did_but_not_what_was_sent() -> None:
    table = Table()
    table.strategy.meet(LATE, known=True)
    for fate in (Fate.CAPTURED, Fate.EXPIRED, *REFUSED * 9):
        table.strategy.ended(same_port(FAST), fate, LATE)
    table.strategy.start_over(LATE)
    assert table.strategy.renewal(same_port(SLOW), LATE, held=True) == NEVER
    assert math.isclose(table.strategy.ended(same_port(FAST), Fate.REFUSED, LATE), LATE + FIRST_WAIT)
    assert table.holds(same_port(FAST), LATE) == HOLD_SHARE
    assert table.strategy.meet(LATE, known=True)
    for _ in range(MOST_SYNS):
        table.strategy.begin(same_port(SLOW), LATE)
    table.strategy.start_over(LATE)
    assert table.strategy.ended(same_port(FAST), Fate.REFUSED, LATE) > LATE + SYNS_SPAN


# ---- waits


@given(failures=st.integers(1, 10**6), waited=st.floats(0, 1e9), seed=st.integers())
def test_a_wait_is_jittered_by_half_around_a_step_that_grows_to_the_slowest(
    failures: int, waited: float, seed: int
) -> None:
    slowest = SLOW_WAIT if waited < PATIENT_AFTER else PATIENT_WAIT
    step = min(slowest, FIRST_WAIT * WAIT_GROWTH ** min(failures - 1, 30))
    assert 0.5 * step <= redial_wait(failures, waited, random.Random(seed)) <= 1.5 * step


def test_the_first_wait_is_20_to_60_ms_and_never_the_same() -> None:
    rng = random.Random(1)
    waits = [redial_wait(1, 0.0, rng) for _ in range(1000)]
    assert min(waits) >= 0.02
    assert max(waits) <= 0.06
    assert len(set(waits)) > 990
    assert math.isclose(sum(waits) / 1000, 0.04, rel_tol=0.03)


# ---- politeness

RTT = 0.05


def syns_when_all_are_refused(seed: int, border: float, seconds: float, *, holds_survive: bool) -> list[float]:
    """Let every dial be refused a round trip after its last SYN; return when each SYN was sent.

    Args:
        seed: Of the coins and the jitter.
        border: When the next bucket begins, in seconds from the start.
        seconds: How long to go on.
        holds_survive: ICMP does not end holds, so that their SYN is sent a second time.
    """
    start = schedule.next_change(WALL) - border
    strategy = ScheduledPorts(CHANNEL, random.Random(seed), 0.0)
    dialled: dict[Candidate, None] = {}
    syns: list[float] = []
    # Time, order, and what happens then: a bucket begins, a dial begins, or one ends.
    order = itertools.count()
    happens: list[tuple[float, int, Candidate | None, Fate | None]] = [(0.0, next(order), None, None)]
    while happens[0][0] <= seconds:
        now, _, candidate, fate = heapq.heappop(happens)
        if candidate is None:
            found = dict.fromkeys(strategy.candidates([PEER], start + now))
            for new in (one for one in found if one not in dialled):
                heapq.heappush(happens, (now, next(order), new, None))
            dialled = found
            heapq.heappush(happens, (schedule.next_change(start + now) - start, next(order), None, None))
        elif candidate in dialled and fate is not None:
            heapq.heappush(happens, (strategy.ended(candidate, fate, now), next(order), candidate, None))
        elif candidate in dialled:
            held = strategy.begin(candidate, now) is not None
            sent = [now, now + 1] if held and holds_survive else [now]
            syns += sent
            fate = Fate.EXPIRED if held and not holds_survive else Fate.REFUSED
            heapq.heappush(happens, (sent[-1] + RTT, next(order), candidate, fate))
    return [syn for syn in syns if syn <= seconds]


def count(syns: Sequence[float], start: float, end: float) -> int:
    return sum(start <= syn < end for syn in syns)


BOTH = pytest.mark.parametrize("holds_survive", [True, False], ids=["holds survive", "holds expire"])


@BOTH
@pytest.mark.parametrize("border", [0.5, 2, 5, 20])
def test_fewer_than_250_syns_in_the_first_ten_seconds_wherever_the_next_bucket_begins(
    border: float, holds_survive: bool
) -> None:
    assert max(
        len(syns_when_all_are_refused(seed, border, 10, holds_survive=holds_survive)) for seed in range(300)
    ) < 250  # fmt: skip


@BOTH
@pytest.mark.parametrize("seed", range(3))
def test_fewer_than_30_syns_a_second_in_the_next_minutes_and_fewer_than_10_after_ten(
    seed: int, holds_survive: bool
) -> None:
    syns = syns_when_all_are_refused(seed, 20, 900, holds_survive=holds_survive)
    assert all(count(syns, start, start + 10) < 300 for start in range(10, 600, 10))
    assert all(0 < count(syns, start, start + 10) < 100 for start in range(600, 890, 10))
