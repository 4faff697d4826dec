"""The close handshake: two sides end a session, and each knows that the other has everything.

    leader                              follower
      |  GO_AWAY, PING     ---------->    |    each sends it when all its streams
      |  <----------  PONG, GO_AWAY       |    are over; a side that is asked to end
    closes with RST                     sees the end       sends it first

Rule 1: GO_AWAY with code NORMAL says "all that I received has left this
        process, and nothing of mine is missing"; CUT says that something is.
        Exit status 0 needs the peer's NORMAL.
Rule 2: the leader closes, once the PONG for the PING after its own GO_AWAY
        has shown that the GO_AWAY was read.  RST can then destroy nothing,
        and leaves no TIME_WAIT on the port.  The follower waits for the
        leader to close.  Both waits are limited, because the last message
        can always be lost.
Rule 3: a hole that ends before both have sent GO_AWAY is a lost link.

No sockets and no clock: session.py owns both.
"""

from __future__ import annotations


class Parting:
    """One side's view of the close handshake.

    Attributes:
        said: Our GO_AWAY is sent.
        heard: The code of the peer's GO_AWAY; None until it came.
    """

    def __init__(self, leads: bool) -> None:
        self._leads = leads
        self._ping: int | None = None
        self._read = False
        self.said = False
        self.heard: int | None = None

    def say(self, ping: int) -> None:
        """Take note that our GO_AWAY is sent, and after it a PING with this value."""
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
        """Both sides have sent GO_AWAY."""
        return self.said and self.heard is not None

    @property
    def may_close(self) -> bool:
        """It is for this side to close, which it may do now (rule 2)."""
        return self.over and self._leads and self._read
