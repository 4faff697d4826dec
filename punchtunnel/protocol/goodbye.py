"""How two sides part, so that each knows that the other has everything.

    leader                              follower
      |  GO_AWAY, PING     ---------->    |    each says it when all its streams
      |  <----------  PONG, GO_AWAY       |    are over; whoever is asked to end
    closes with RST                     sees the end       says it first

Rule 1: GO_AWAY with code NORMAL says "all that I received has left this
        process, and nothing of mine is missing"; CUT says that something is.
        Exit status 0 needs the peer's NORMAL.
Rule 2: the leader closes, when the PONG for the PING behind its own GO_AWAY
        has shown that that was read.  Then RST can destroy nothing, and
        leaves no TIME_WAIT on the port.  A follower waits for that; both have
        a limit, because the last word can always be lost.
Rule 3: the hole's end before both have spoken is a lost link.

No sockets and no clock: session.py owns both.
"""

from __future__ import annotations


class Parting:
    """One side's view of the end of a session."""

    def __init__(self, leads: bool) -> None:
        self._leads = leads
        self._ping: int | None = None
        self._read = False
        self.said = False
        self.heard: int | None = None

    def say(self, ping: int) -> None:
        """Our GO_AWAY is sent, and a PING with this value behind it."""
        self.said = True
        self._ping = ping

    def hear(self, code: int) -> bool:
        """Take in the peer's GO_AWAY; False if it is not the first, which alone counts."""
        if self.heard is not None:
            return False
        self.heard = code
        return True

    def pong(self, value: int) -> None:
        """Take in an answer to any of our pings."""
        self._read = self._read or value == self._ping

    @property
    def over(self) -> bool:
        """Both have spoken."""
        return self.said and self.heard is not None

    @property
    def may_close(self) -> bool:
        """It is on this side to close, now (rule 2)."""
        return self.over and self._leads and self._read
