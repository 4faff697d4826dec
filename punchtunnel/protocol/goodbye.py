"""How two sides part, so that each knows that the other has everything.

    leader                              follower
      |  GO_AWAY, PING     ---------->    |    each says it when all its streams
      |  <----------  PONG, GO_AWAY       |    are over; the side that hears it
    closes with RST                     sees the end       first says it then

Rule 1: GO_AWAY with code NORMAL says "all that I received has left this
        process, and nothing of mine is missing"; CUT says that something is.
        Exit status 0 needs the peer's NORMAL.
Rule 2: the leader closes, when the PONG for the PING after its own GO_AWAY
        has shown that that was read.  Then RST can destroy nothing, and
        leaves no TIME_WAIT on the port.  A follower waits for that; both have
        a limit, because the last word can always be lost.
Rule 3: the hole's end before both have spoken is a lost link.
Rule 4: where a session can go on over another hole, its end is the leader's word only
        after the answer to the follower's last ping.  A follower without that stays for
        a moment: the leader may lack its goodbye, and come back for it.

No sockets and no clock: session.py owns both.
"""

from __future__ import annotations

from enum import Enum, auto

# Seconds for the answer to the last ping, or the peer's close, once both sides have said goodbye or one has failed.
GOODBYE_TIMEOUT = 3.0
# The same once the hole is lost: the peer may come back for our goodbye.
COMEBACK_TIMEOUT = 10.0


class State(Enum):
    """Where a session stands between its begin and its end."""

    # Streams come and go.
    OPEN = auto()
    # This side takes no more streams, and says goodbye when those that are open are over.
    LEAVING = auto()
    # The peer has said goodbye; this side does when its streams are over.
    HEARD = auto()
    # This side has said goodbye, the peer has not.
    SAID = auto()
    # Both have; the leader closes.
    PARTED = auto()


class Word(Enum):
    """What moves a session on."""

    LEAVE = auto()
    SAY = auto()
    HEAR = auto()


# A pair that is missing leaves the state as it is: what was said once need not be said again.
TRANSITIONS = {
    (State.OPEN, Word.LEAVE): State.LEAVING,
    (State.OPEN, Word.SAY): State.SAID,
    (State.OPEN, Word.HEAR): State.HEARD,
    (State.LEAVING, Word.SAY): State.SAID,
    (State.LEAVING, Word.HEAR): State.HEARD,
    (State.HEARD, Word.SAY): State.PARTED,
    (State.SAID, Word.HEAR): State.PARTED,
}


class Parting:
    """One side's view of the end of a session.

    Args:
        leads: From the election.
        resumes: The session can go on over another hole.

    Attributes:
        state: See State.
        heard: The code of the peer's GO_AWAY, of the first if it says several.
    """

    def __init__(self, leads: bool, *, resumes: bool = False) -> None:
        self._leads = leads
        self._resumes = resumes
        self._ping: int | None = None
        self._was_read = False
        self.state = State.OPEN
        self.heard: int | None = None

    def leave(self) -> None:
        """Take note that this side opens and takes no more streams."""
        self._move(Word.LEAVE)

    def say(self, ping: int) -> None:
        """Take note that our GO_AWAY is sent, and a PING with this value after it."""
        self._ping = ping
        self._move(Word.SAY)

    def hear(self, code: int) -> bool:
        """Take in the peer's GO_AWAY; False if it is not the first, which alone counts."""
        if self.heard is not None:
            return False
        self.heard = code
        self._move(Word.HEAR)
        return True

    def pong(self, value: int) -> None:
        """Take in an answer to any of our pings."""
        self._was_read = self._was_read or value == self._ping

    @property
    def said(self) -> bool:
        """Tell whether this side has said goodbye."""
        return self.state in (State.SAID, State.PARTED)

    @property
    def is_due(self) -> bool:
        """Tell whether this side says goodbye as soon as no stream is left."""
        return self.state in (State.LEAVING, State.HEARD)

    @property
    def is_over(self) -> bool:
        """Nothing is left to be said: the end of the hole is the end of the session (rules 2 and 4)."""
        return self.state is State.PARTED and (self._was_read or not (self._leads or self._resumes))

    @property
    def may_close(self) -> bool:
        """It is on this side to close, now (rule 2)."""
        return self.state is State.PARTED and self._leads and self._was_read

    def _move(self, word: Word) -> None:
        self.state = TRANSITIONS.get((self.state, word), self.state)
