"""Guessing stays slow whoever guesses, and strangers do not keep the peer out.

First the rations alone, then whole elections among strangers, in memory and on
a clock that only the test moves.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchtunnel.punching.callers import EVERYBODY_ELSE, Caller
from punchtunnel.punching.rations import (
    FAILURES_BEFORE,
    FORGIVEN_AFTER,
    FREE_TRIES,
    LONG_TRY,
    LONGEST_EXPECTED_PAUSE,
    LONGEST_PAUSE,
    RESERVED_TRIES,
    SHORT_TRIES,
    TELL_EVERY,
    TRY_EVERY,
    Rations,
    Tries,
)

PEER, OTHER = "198.51.100.7", "198.51.100.8"


@dataclass
class Desk:
    """Rations, whose callers are written on the connection numbers, and a clock."""

    tries: Tries
    callers: dict[int, Caller]
    rations: Rations
    now: float = 1000.0


def desk(seed: int = 1) -> Desk:
    callers: dict[int, Caller] = {}
    rations = Rations(lambda: made.now)
    made: Desk = Desk(Tries(callers.__getitem__, rations, random.Random(seed)), callers, rations)
    return made


def next_punch(table: Desk) -> None:
    """Begin another punch of the same process; its connections are numbered anew."""
    table.callers.clear()
    table.tries = Tries(table.callers.__getitem__, table.rations, random.Random(2))


def nonces(*conns: int) -> Mapping[int, bytes]:
    """Give each connection a nonce of its own."""
    return {conn: conn.to_bytes(16, "big") for conn in conns}


def spend(table: Desk, caller: Caller) -> list[int]:
    """Try as often as is allowed now, each time on a new connection; return those."""
    spent: list[int] = []
    while True:
        conn = len(table.callers)
        table.callers[conn] = caller._replace(place=f"place {conn}")
        if table.tries.choose(nonces(conn)) is None:
            return spent
        table.tries.began(conn, nonces(conn)[conn])
        spent.append(conn)


# ---- rations


@pytest.mark.parametrize(
    ("caller", "free"),
    [
        (Caller(PEER, "", True), FREE_TRIES),
        (Caller(PEER, "", False), FREE_TRIES - RESERVED_TRIES),
        (Caller(EVERYBODY_ELSE, "", False), FREE_TRIES),
    ],
)
def test_some_tries_are_free_and_then_there_is_one_every_ten_seconds(caller: Caller, free: int) -> None:
    table = desk()
    assert len(spend(table, caller)) == free
    for _ in range(3):
        table.now += TRY_EVERY * 0.99
        assert not spend(table, caller)
        table.now += TRY_EVERY * 0.01
        assert len(spend(table, caller)) == 1


def test_free_tries_that_unexpected_connections_may_not_have_wait_for_the_expected() -> None:
    table = desk()
    spend(table, Caller(PEER, "", False))
    for _ in range(5):
        table.now += TRY_EVERY
        assert len(spend(table, Caller(PEER, "", False))) == 1
    assert len(spend(table, Caller(PEER, "", True))) == RESERVED_TRIES


def test_another_source_has_its_own_tries() -> None:
    table = desk()
    spend(table, Caller(PEER, "", True))
    assert len(spend(table, Caller(OTHER, "", True))) == FREE_TRIES
    assert len(spend(table, Caller(EVERYBODY_ELSE, "", False))) == FREE_TRIES


def test_a_long_try_that_showed_nothing_is_given_back() -> None:
    table = desk()
    spend(table, Caller(PEER, "", True))
    table.now += LONG_TRY
    for _ in range(2 * SHORT_TRIES):
        table.now += TRY_EVERY - LONG_TRY
        (late,) = spend(table, Caller(PEER, "", True))
        table.now += LONG_TRY
        table.tries.showed_nothing(late)
        assert len(spend(table, Caller(PEER, "", True))) == 1, "as if it had not been"


def test_short_tries_that_showed_nothing_are_given_back_but_not_without_end() -> None:
    """A side that had been slow lost its five tries at once, on connections that the other had given up."""
    table = desk()
    table.callers |= {conn: Caller(PEER, f"port {conn}", True) for conn in range(SHORT_TRIES)}
    table.callers[-1] = Caller(PEER, "other port", False)
    for conn in range(SHORT_TRIES):
        assert table.tries.choose({-1: b"stranger", conn: b"peer"}) == conn, "still the expected one"
        table.tries.began(conn, b"peer")
        table.tries.showed_nothing(conn)
    spent = spend(table, Caller(PEER, "", True))
    assert len(spent) == FREE_TRIES
    for conn in spent:
        table.tries.showed_nothing(conn)
    assert not spend(table, Caller(PEER, "", True))
    # Of this source: what others have used up is theirs.
    table.callers[-2] = Caller(OTHER, "", True)
    for _ in range(FREE_TRIES + 1):
        assert table.tries.choose({-2: b"other"}) == -2
        table.tries.began(-2, b"other")
        table.tries.showed_nothing(-2)


def test_what_is_saved_up_is_never_more_than_the_free_tries() -> None:
    table = desk()
    spend(table, Caller(PEER, "", True))
    table.now += 1000 * TRY_EVERY
    assert len(spend(table, Caller(PEER, "", True))) == FREE_TRIES


def test_another_punch_of_the_process_gives_no_fresh_tries() -> None:
    """A service answered 486 guesses in 40 s: everybody had five more whenever one of its sessions ended."""
    table = desk()
    spend(table, Caller(PEER, "", True))
    spend(table, Caller(EVERYBODY_ELSE, "", False))
    for _ in range(3):
        next_punch(table)
        # A number of the punch before, of which nothing is known any more.
        table.tries.showed_nothing(0)
        assert not spend(table, Caller(PEER, "", True))
        assert not spend(table, Caller(EVERYBODY_ELSE, "", False))


def test_whoever_proves_the_secret_may_come_as_often_as_it_likes() -> None:
    table = desk()
    for _ in range(100):
        table.callers[1] = Caller(PEER, "port 1", True)
        table.callers[2] = Caller(PEER, "other port", False)
        assert table.tries.choose({1: b"peer", 2: b"stranger"}) == 1, "its port and its nonce are as good as new"
        table.tries.began(1, b"peer")
        table.tries.ended(1, proved=True)
        table.tries.showed_nothing(1)
        next_punch(table)
    assert len(spend(table, Caller(PEER, "", True))) == FREE_TRIES


def test_wrong_proof_stays_counted() -> None:
    table = desk()
    for conn in spend(table, Caller(PEER, "", True)):
        table.tries.ended(conn, proved=False)
        table.tries.showed_nothing(conn)
    assert not spend(table, Caller(PEER, "", True))


def test_a_port_is_expected_once_and_a_nonce_twice() -> None:
    table = desk()
    callers = {
        1: Caller(PEER, "port 1", True), 2: Caller(PEER, "port 2", True), 3: Caller(PEER, "port 3", True),
        4: Caller(PEER, "port 1", True), 5: Caller(PEER, "other port", False), 6: Caller(PEER, "port 4", True),
    }  # fmt: skip
    table.callers |= callers
    for conn in (1, 2):
        assert table.tries.choose({conn: b"one", 5: b"stranger"}) == conn
        table.tries.began(conn, b"one")
    assert {table.tries.choose({3: b"one", 5: b"stranger"}) for _ in range(50)} == {3, 5}, "the nonce had its tries"
    assert {table.tries.choose({4: b"new", 5: b"stranger"}) for _ in range(50)} == {4, 5}, "the port had its try"
    assert table.tries.choose({6: b"new", 5: b"stranger"}) == 6


@settings(max_examples=100)
@given(
    rng=st.randoms(use_true_random=False),
    steps=st.lists(st.tuples(st.integers(1, 40), st.floats(0, 12), st.booleans(), st.booleans()), max_size=40),
)
def test_no_source_ever_has_more_than_five_and_one_every_ten_seconds(
    rng: random.Random, steps: list[tuple[int, float, bool, bool]]
) -> None:
    """Whatever connections and punches there are, and whichever tries are given back."""
    table = desk(rng.randrange(2**32))
    begun: dict[int, float] = {}
    earlier = 0
    start = table.now
    for step, (count, wait, give_back, anew) in enumerate(steps):
        table.now += wait
        if anew:
            next_punch(table)
            earlier, begun = earlier + len(begun), {}
        waiting = set(range(1000 * step, 1000 * step + count))
        table.callers.update({conn: Caller(PEER, str(conn % 9), rng.random() < 0.5) for conn in sorted(waiting)})
        while (chosen := table.tries.choose(nonces(*sorted(waiting)))) is not None:
            waiting.remove(chosen)
            table.tries.began(chosen, nonces(chosen)[chosen])
            begun[chosen] = table.now
        if begun and give_back:
            one = rng.choice(sorted(begun))
            if rng.random() < 0.5:
                table.tries.showed_nothing(one)
            else:
                table.tries.ended(one, proved=True)
            # Not yet SHORT_TRIES times.
            del begun[one]
        # What was given back showed nothing to strangers; all others may have.
        assert earlier + len(begun) <= FREE_TRIES + (table.now - start) / TRY_EVERY


# ---- failures


def fail(table: Desk, times: int, caller: Caller) -> None:
    """Let tries fail, each on a connection of its own, as soon as they are allowed."""
    while times:
        for conn in spend(table, caller)[:times]:
            table.tries.ended(conn, proved=False)
            times -= 1
        table.now += TRY_EVERY


def wait_for_a_turn(table: Desk, caller: Caller) -> float:
    """Return the seconds until a connection may try."""
    conn, began = len(table.callers), table.now
    table.callers[conn] = caller._replace(place=f"place {conn}")
    while table.tries.choose(nonces(conn)) is None:
        table.now += 1.0
    table.tries.began(conn, nonces(conn)[conn])
    return table.now - began


@pytest.mark.parametrize("source", [PEER, EVERYBODY_ELSE])
def test_the_pause_doubles_with_failures_up_to_a_bound(source: str) -> None:
    """A guesser at the peer's address had 8640 tries a day, for ever."""
    table, caller = desk(), Caller(source, "", False)
    pauses = []
    for _ in range(8):
        fail(table, FAILURES_BEFORE, caller)
        spend(table, caller)
        pauses.append(table.rations.pause(source, False))
        assert wait_for_a_turn(table, caller) <= LONGEST_PAUSE
    assert pauses == [20.0, 40.0, *[LONGEST_PAUSE] * 6]
    table.now += FORGIVEN_AFTER
    assert table.rations.pause(source, False) == TRY_EVERY


@pytest.mark.parametrize("expected_too", [False, True])
def test_failures_of_others_never_keep_an_expected_peer_waiting_for_long(expected_too: bool) -> None:
    table = desk()
    fail(table, 10 * FAILURES_BEFORE, Caller(PEER, "", expected_too))
    spend(table, Caller(PEER, "", False))
    assert wait_for_a_turn(table, Caller(PEER, "", True)) <= LONGEST_EXPECTED_PAUSE


def test_a_proof_and_a_try_that_showed_nothing_are_no_failures() -> None:
    table = desk()
    for conn in range(3 * FAILURES_BEFORE):
        table.callers[conn] = Caller(PEER, "port", False)
        table.tries.began(conn, b"peer")
        if conn % 2:
            table.tries.ended(conn, proved=True)
        else:
            table.tries.showed_nothing(conn)
    assert table.rations.pause(PEER, False) == TRY_EVERY
    assert table.rations.take_untold() is None


def test_a_try_that_this_side_breaks_off_is_spent_and_no_failure() -> None:
    """Two peers of one service that came at one time were told of as somebody who guesses."""
    table = desk()
    for conn in range(FREE_TRIES + RESERVED_TRIES):
        table.callers[conn] = Caller(PEER, "port", False)
        table.tries.began(conn, b"peer")
        table.tries.broken_off(conn)
    assert table.rations.take_untold() is None
    assert table.rations.pause(PEER, False) == TRY_EVERY
    table.callers[99] = Caller(PEER, "port", False)
    assert table.tries.choose({99: b"another"}) is None


def test_failures_are_told_at_the_first_and_then_once_an_hour_with_their_number() -> None:
    """Six secrets had been tested, and the log was empty."""
    table = desk()
    assert table.rations.take_untold() is None
    table.rations.fail(PEER, "one")
    assert table.rations.take_untold() == (1, "one")
    for number in range(30):
        table.rations.fail(EVERYBODY_ELSE, f"place {number}")
        assert table.rations.take_untold() is None
    table.now += TELL_EVERY
    assert table.rations.take_untold() == (31, "place 29")
    table.now += TELL_EVERY
    assert table.rations.take_untold() is None, "nothing new"


# ---- whose turn


def test_the_expected_come_first_and_everybody_else_last() -> None:
    table = desk()
    table.callers |= {1: Caller(EVERYBODY_ELSE, "", False), 2: Caller(PEER, "", False), 3: Caller(PEER, "", True)}
    assert table.tries.choose(nonces(1, 2, 3)) == 3
    assert table.tries.choose(nonces(1, 2)) == 2
    assert table.tries.choose(nonces(1)) == 1
    assert table.tries.choose({}) is None


def test_whoever_may_not_try_keeps_nobody_from_it() -> None:
    table = desk()
    spend(table, Caller(PEER, "", True))
    table.callers |= {100: Caller(PEER, "", True), 101: Caller(EVERYBODY_ELSE, "", False)}
    assert table.tries.choose(nonces(100, 101)) == 101


def test_a_nonce_with_many_connections_is_drawn_no_oftener_than_one_with_few() -> None:
    table = desk()
    table.callers |= dict.fromkeys(range(60), Caller(PEER, "", True))
    waiting = dict.fromkeys(range(59), b"one with many") | {59: b"one with one"}
    drawn = [table.tries.choose(waiting) for _ in range(400)]
    assert 150 < drawn.count(59) < 250
    assert len(set(drawn)) > 50
