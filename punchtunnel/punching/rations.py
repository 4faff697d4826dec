"""Which connection goes on with a key agreement, and how often each source may.

Each agreement that goes as far as a proof lets the other side test one
secret.  So tries are rationed, for each *source*: all addresses of the peer
together, or all other addresses together, so that having another one gains
nothing.  The rations must not keep the peer out either: strangers at its address, behind the
same carrier's NAT, could spend what it needs.

Rule 1: a source has FREE_TRIES, and one more for every pause (rule 5); what it
        saves up is never more than FREE_TRIES.  Nonces and connections
        cost a stranger nothing, so nothing is granted for having another one.
        Nor for another punch: the rations are those of the process.
Rule 2: a try counts from its beginning.  It is given back if it proved the
        secret, so that a service does not slow down its own peer.  It is also
        given back if it showed nothing of the secret, because a PICK was not
        answered: always if it took long, and SHORT_TRIES times for each source
        in a punch if it was short, since each costs us computing.  (A side
        that was slow hears many connections at once that the other side has
        given up; without this its tries were gone at once.)
Rule 3: a connection is *expected* if it comes from the port that the schedule
        has for it, at an address of the peer.  There is only one such
        connection for each port, while any number can come from other ports.
        So expected connections go first, and the last of the free tries are
        theirs alone.  A port has one try as an expected one, and a nonce two,
        even if they were long and are given back, unless they proved the
        secret.  After that they count as unexpected, so that a port that a
        stranger has taken, or a neighbour with another secret, delays the
        peer only once.
Rule 4: among equals a nonce is drawn, and then one of its connections:
        waiting longer, connecting more often or coming earlier gains nothing.

Rule 5: the pause is TRY_EVERY.  It doubles with every FAILURES_BEFORE tries of the
        source that failed, up to LONGEST_PAUSE, until none has failed for
        FORGIVEN_AFTER.  For expected connections it doubles less often.  Both stay
        below the time for which people wait for a hole, so that a peer that
        knows the secret has its turn, whoever has guessed before.

So strangers on other ports delay an expected peer by one TRY_EVERY at most,
however many there are, and strangers on ports of the schedule by one for each.
A peer whose router rewrites its port is not expected, and draws lots with
them.

No sockets; clock and randomness are arguments.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from punchtunnel.protocol.election import Limits
from punchtunnel.punching.callers import EVERYBODY_ELSE, Caller

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
# As many as there are ports: neighbours that have taken some of them do not slow the peer down at once.
FAILURES_BEFORE = 20
# Seconds.  Less than the 120 s for which a side waits for a hole, unless it is told otherwise.
LONGEST_PAUSE = 80.0
LONGEST_EXPECTED_PAUSE = 40.0
FORGIVEN_AFTER = 3600.0
# Seconds between two reports of failed tries.
TELL_EVERY = 3600.0
# Seconds after which a try that showed nothing is always given back, and how
# often one is before: a PICK costs 4 ms.
LONG_TRY = 1.0
SHORT_TRIES = 50

_Mark = str | tuple[str, bytes]


class Guesses(NamedTuple):
    """How many tries have failed, and the far end of the last one as text."""

    failed: int
    place: str


class Rations:
    """What each source has left; one object for all the punches of a process.

    Args:
        now: Returns steady time in seconds.

    Attributes:
        tried: Ports and nonces that were expected once.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.tried: deque[_Mark] = deque(maxlen=TRIED_REMEMBERED)
        # When a source will have all its free tries again; each try moves it by a pause.
        self._whole_at: dict[str, float] = {}
        # How often a source has failed, and when it did last.
        self._failures: dict[str, tuple[int, float]] = {}
        self._guesses = Guesses(0, "")
        self._told = 0
        self._told_at = float("-inf")

    def pause(self, source: str, expected: bool) -> float:
        """Return the seconds that a try costs a source (rule 5)."""
        count, last = self._failures.get(source, (0, 0.0))
        if not count or self.now() - last >= FORGIVEN_AFTER:
            return TRY_EVERY
        longest = LONGEST_EXPECTED_PAUSE if expected else LONGEST_PAUSE
        # The exponent is bounded, because a float is.
        return min(TRY_EVERY * 2.0 ** min(count // FAILURES_BEFORE, 16), longest)

    def has(self, source: str, reserved: int, expected: bool) -> bool:
        """Tell whether a source may try, and leave `reserved` tries to others."""
        missing = self._whole_at.get(source, float("-inf")) - self.now()
        # What unexpected tries have cost more than an expected one does not hold that up.
        excess = self.pause(source, False) - self.pause(source, expected)
        return missing <= (FREE_TRIES - reserved - 1) * TRY_EVERY + excess

    def take(self, source: str, expected: bool) -> float:
        """Count a try, and return what it costs."""
        now, cost = self.now(), self.pause(source, expected)
        self._whole_at[source] = max(now, self._whole_at.get(source, now)) + cost
        return cost

    def give_back(self, source: str, cost: float) -> None:
        """Count a try less."""
        self._whole_at[source] -= cost

    def fail(self, source: str, place: str) -> None:
        """Take note of a try that has got our proof, and brought no right one."""
        now = self.now()
        count, last = self._failures.get(source, (0, now))
        self._failures[source] = (count if now - last < FORGIVEN_AFTER else 0) + 1, now
        self._guesses = Guesses(self._guesses.failed + 1, place)

    def take_untold(self) -> Guesses | None:
        """Return what is to be told of failed tries now: of the first at once, of more once in TELL_EVERY."""
        now = self.now()
        if self._guesses.failed == self._told or now - self._told_at < TELL_EVERY:
            return None
        self._told, self._told_at = self._guesses.failed, now
        return self._guesses


class _Try(NamedTuple):
    source: str
    place: str
    # What it has used up: its place, and its source and nonce.
    marks: tuple[_Mark, ...]
    began: float
    cost: float


class Tries(Limits):
    """Says in one punch whose turn it is; the election asks it.

    Args:
        caller: Tells who is on a connection.
        rations: What is left; outlives the punch.
        rng: Draws lots.
    """

    def __init__(self, caller: Callable[[int], Caller], rations: Rations, rng: random.Random) -> None:
        self._caller = caller
        self._rations = rations
        self._rng = rng
        self._under_way: dict[int, _Try] = {}
        # What each source has left of them.
        self._short_tries: defaultdict[str, int] = defaultdict(lambda: SHORT_TRIES)

    def choose(self, waiting: Mapping[int, bytes]) -> int | None:
        """See Limits; None if no source has a try left."""
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
        cost = self._rations.take(caller.source, expected)
        self._under_way[conn] = _Try(caller.source, caller.place, marks, self._rations.now(), cost)
        self._rations.tried.extend(marks)

    def showed_nothing(self, conn: int) -> None:
        """See Limits, and rule 2."""
        if (one := self._under_way.pop(conn, None)) is None:
            return
        if one.began + LONG_TRY <= self._rations.now():
            self._rations.give_back(one.source, one.cost)
        elif self._short_tries[one.source] > 0:
            self._short_tries[one.source] -= 1
            self._undo(one)

    def broken_off(self, conn: int) -> None:
        """See Limits: it has cost a try, and is no failure."""
        self._under_way.pop(conn, None)

    def ended(self, conn: int, proved: bool) -> None:
        """See Limits, and rules 2 and 5."""
        if (one := self._under_way.pop(conn, None)) is None:
            return
        if proved:
            self._undo(one)
        else:
            self._rations.fail(one.source, one.place)

    def _undo(self, one: _Try) -> None:
        self._rations.give_back(one.source, one.cost)
        for mark in one.marks:
            with contextlib.suppress(ValueError):
                self._rations.tried.remove(mark)

    def _is_expected(self, caller: Caller, nonce: bytes) -> bool:
        """See rule 3."""
        tried = self._rations.tried
        if not caller.scheduled or caller.place in tried:
            return False
        return tried.count((caller.source, nonce)) < RESERVED_TRIES

    def _may_try(self, source: str, expected: bool) -> bool:
        return self._rations.has(source, 0 if expected or source == EVERYBODY_ELSE else RESERVED_TRIES, expected)
