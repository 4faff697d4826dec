"""Whose turn it is to try a key agreement with us, and how often anybody may.

Each agreement that goes as far as a proof lets the other side test one
secret.  So tries are rationed, for each *source*: an address of the peer, or
everybody else together, so that changing the address gains nothing.  That is
also what could keep the peer out, if strangers at its address (behind the same
carrier's NAT, say) spend what it needs.

Rule 1: a source has FREE_TRIES, and after them one try every TRY_EVERY
        seconds, counted from its last one.  Nonces and connections cost a
        stranger nothing, so nothing is granted for having another one.
Rule 2: a try counts from its begin.  It is given back if it showed nothing of
        the secret, because a PICK was not answered: always if it took long,
        and some times if it was short, since each costs us computing.  (A
        side that was slow hears many connections at once that the other has
        given up; without this its tries were gone at once.)
Rule 3: a connection is *expected* if it comes from the port that the schedule
        has for it, at an address of the peer.  There is only one such
        connection for each port, while any number can come from other ports.
        So the expected go first, and some of the free tries are theirs
        alone.  A port has one try as an expected one, and a nonce two, also
        if they were long and are given back.  Later they count as
        unexpected, so that a port that a stranger has taken, or a neighbour
        with another secret, delays the peer only once.
Rule 4: among equals a nonce is drawn, and then one of its connections:
        waiting longer, connecting oftener or coming earlier gains nothing.

So strangers on other ports delay an expected peer by one TRY_EVERY at most,
however many they are, and strangers on ports of the schedule by one for each.
A peer whose router rewrites its port is not expected, and draws lots with
them.

No sockets; clock and randomness are arguments.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from punchtunnel.election import Limits

if TYPE_CHECKING:
    import random

FREE_TRIES = 5
# How many of them only expected connections may use, and how many a nonce may
# use as one: the second is for a peer whose first connection breaks.
RESERVED_TRIES = 2
# Ports and nonces of expected tries; after hours the oldest are forgotten.
TRIED_REMEMBERED = 256
# Seconds.  Even a secret of four digits lasts for 14 hours on average.
TRY_EVERY = 10.0
# Seconds after which a try that showed nothing is always given back, and how
# often one is before: a PICK costs 4 ms.
LONG_TRY = 1.0
SHORT_TRIES = 50
# What strangers have in common.
EVERYBODY_ELSE = "*"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is on a connection.

    Attributes:
        source: An address of the peer, or EVERYBODY_ELSE.
        place: The far end, address and port, as text.
        scheduled: It comes from the port that the schedule has for it.
    """

    source: str
    place: str
    scheduled: bool


_Mark = str | tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class _Try:
    conn: int
    source: str
    # What it has used up: its place, and its source and nonce.
    marks: tuple[_Mark, ...]
    began: float
    free: bool


class Tries(Limits):
    """The rations of one punch; the election asks it.

    Args:
        caller: Tells who is on a connection.
        now: Steady time in seconds.
        rng: Draws lots.
    """

    def __init__(self, caller: Callable[[int], Caller], now: Callable[[], float], rng: random.Random) -> None:
        self._caller = caller
        self._now = now
        self._rng = rng
        self._tries: list[_Try] = []
        self._short_tries = SHORT_TRIES
        self._tried: deque[_Mark] = deque(maxlen=TRIED_REMEMBERED)

    def choose(self, waiting: Mapping[int, bytes]) -> int | None:
        """See Limits; None if it is nobody's turn."""
        callers = {conn: self._caller(conn) for conn in waiting}
        expected = {conn: self._is_expected(callers[conn], waiting[conn]) for conn in waiting}
        ranks = {
            conn: (callers[conn].source == EVERYBODY_ELSE, not expected[conn])
            for conn in waiting
            if self._may_try(callers[conn].source, expected[conn])
        }
        if not ranks:
            return None
        best = min(ranks.values())
        first = [conn for conn in ranks if ranks[conn] == best]
        nonce = self._rng.choice(sorted({waiting[conn] for conn in first}))
        return self._rng.choice([conn for conn in first if waiting[conn] == nonce])

    def began(self, conn: int, nonce: bytes) -> None:
        """See Limits, and rule 2."""
        caller = self._caller(conn)
        expected = self._is_expected(caller, nonce)
        marks = (caller.place, (caller.source, nonce)) if expected else ()
        one = _Try(conn, caller.source, marks, self._now(), self._has_free(caller.source, expected))
        self._tries.append(one)
        self._tried.extend(one.marks)
        # The free ones count for ever; of the others only the last, or the one
        # before it if that is given back.
        late = [one for one in self._tries if one.source == caller.source and not one.free]
        self._tries = [one for one in self._tries if one not in late[:-2]]

    def showed_nothing(self, conn: int) -> None:
        """See Limits, and rule 2."""
        for one in [one for one in self._tries if one.conn == conn]:
            if one.began + LONG_TRY <= self._now():
                self._tries.remove(one)
            elif self._short_tries > 0:
                self._short_tries -= 1
                self._tries.remove(one)
                for mark in one.marks:
                    with contextlib.suppress(ValueError):
                        self._tried.remove(mark)

    def _is_expected(self, caller: Caller, nonce: bytes) -> bool:
        """See rule 3."""
        if not caller.scheduled or caller.place in self._tried:
            return False
        return self._tried.count((caller.source, nonce)) < RESERVED_TRIES

    def _may_try(self, source: str, expected: bool) -> bool:
        last = max((one.began for one in self._tries if one.source == source), default=float("-inf"))
        return self._has_free(source, expected) or last + TRY_EVERY <= self._now()

    def _has_free(self, source: str, expected: bool) -> bool:
        reserved = 0 if expected or source == EVERYBODY_ELSE else RESERVED_TRIES
        return sum(one.free for one in self._tries if one.source == source) < FREE_TRIES - reserved
