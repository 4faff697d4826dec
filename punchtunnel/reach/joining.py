"""When a relay is asked for the peer, and how often: pure, each time is an argument in seconds.

    RESTING ── due ──> DIALLING ── connected ──> WAITING ── met ──> MET ── taken ──> TAKEN
       ^                  │                         │                │                │
       └──── failed ──────┴── failed, ended, due ───┴────── due ─────┴── again ───────┘

Rule 1: a connection that waits is replaced every REJOIN seconds, whatever the kernel says of it: routers forget
        idle connections, and the relay keeps those that are dead.
Rule 2: what ends early, or fails, is tried again after a pause that doubles.
Rule 3: a meeting that was of no use costs a short random pause, so that two sides that do not fit, and met, do
        not meet at once again; many of them in a row cost pauses that double.  They may be a stranger's, who
        has got hold of the token.
"""

from __future__ import annotations

from enum import Enum, auto
from random import Random

# A look-up can take half a minute, and a connection these ten seconds.
DIAL_WITHIN = 40.0
REJOIN = 600.0
# A connection that has waited so long was a good one: whatever failed before is forgotten.
SETTLED = 60.0
# Until somebody takes the meeting, and until the peer's hello is there: whoever takes it calls `again` after that.
HELLO_WITHIN = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
# The other side's dead connections are met as well, one after the other; the relay hardly has more of them.
USELESS_IN_A_ROW = 5
_SHORTEST_AGAIN, _LONGEST_AGAIN = 0.2, 2.0


class State(Enum):
    """Of one place at a relay."""

    RESTING = auto()
    DIALLING = auto()
    WAITING = auto()
    MET = auto()
    TAKEN = auto()


class Event(Enum):
    """DUE: the time of the state is over.  AGAIN: the meeting was of no use.  ANEW: another one is wanted beside it."""

    DUE = auto()
    CONNECTED = auto()
    FAILED = auto()
    ENDED = auto()
    MET = auto()
    TAKEN = auto()
    AGAIN = auto()
    ANEW = auto()


# Any other pair is a bug.
STEPS = {
    (State.RESTING, Event.DUE): State.DIALLING,
    (State.DIALLING, Event.CONNECTED): State.WAITING,
    (State.DIALLING, Event.FAILED): State.RESTING,
    (State.WAITING, Event.DUE): State.RESTING,
    (State.WAITING, Event.ENDED): State.RESTING,
    (State.WAITING, Event.FAILED): State.RESTING,
    (State.WAITING, Event.MET): State.MET,
    (State.MET, Event.DUE): State.RESTING,
    (State.MET, Event.TAKEN): State.TAKEN,
    (State.TAKEN, Event.AGAIN): State.RESTING,
    (State.TAKEN, Event.ANEW): State.RESTING,
}
_LIMITS = {State.DIALLING: DIAL_WITHIN, State.WAITING: REJOIN, State.MET: HELLO_WITHIN, State.TAKEN: float("inf")}


class Joining:
    """The state of one place at a relay, and until when it lasts.

    Args:
        now: The first connection is due then.
        rng: For the pauses.

    Attributes:
        state: Begins as RESTING.
        until: When DUE happens.
    """

    def __init__(self, now: float, rng: Random) -> None:
        self._rng = rng
        self.state, self.until = State.RESTING, now
        self._since = now
        # In a row.
        self._failures = self._useless = 0

    def happens(self, event: Event, now: float) -> None:
        """Go on to the next state.

        Raises:
            KeyError: A bug of the caller's: STEPS does not have that.
        """
        before = self.state
        self.state = STEPS[before, event]
        if before is State.WAITING and now - self._since >= SETTLED:
            self._failures = self._useless = 0
        self._since = now
        self.until = now + (self._pause(before, event) if self.state is State.RESTING else _LIMITS[self.state])

    def _pause(self, before: State, event: Event) -> float:
        """Return for how many seconds nothing is tried."""
        if event is Event.AGAIN or before is State.MET:
            self._useless += 1
            if self._useless > USELESS_IN_A_ROW:
                return self._doubled(self._useless - USELESS_IN_A_ROW + 1)
            return self._rng.uniform(_SHORTEST_AGAIN, _LONGEST_AGAIN)
        if event is Event.ANEW or event is Event.DUE:
            self._failures = self._useless = 0
            return 0.0
        # One that ends is replaced at once, unless its successor ends early as well.
        doublings = self._failures - (event is Event.ENDED)
        self._failures += 1
        return self._doubled(doublings) if doublings >= 0 else 0.0

    def _doubled(self, doublings: int) -> float:
        # Beyond ten it is LONGEST_PAUSE anyway.
        return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(doublings, 10)) * self._rng.uniform(0.75, 1.0)
