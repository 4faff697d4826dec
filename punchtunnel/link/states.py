"""What a link can do, by whether a hole carries it (link.py).

    WAITING --attach--> CARRIED --end--> ENDED --settle--> CLOSED
      |  ^                 |               ^
      |  +-----detach------+               |
      +--------------------end-------------+       any of them --close--> CLOSED

Any other step is a bug of the caller.
"""

from __future__ import annotations

from enum import Enum, auto


class State(Enum):
    """What a link can do."""

    # No hole carries the streams; one may come.
    WAITING = auto()
    CARRIED = auto()
    # The last hole has ended.  What came whole before that is still being written out.
    ENDED = auto()
    # Nothing more is done, or told.
    CLOSED = auto()


class Input(Enum):
    """What changes the state of a link."""

    ATTACH = auto()
    DETACH = auto()
    # The last hole has ended, or the peer broke the protocol.
    END = auto()
    # Everything is written out.
    SETTLE = auto()
    CLOSE = auto()


# Any other pair is a bug of the caller, and a KeyError.
TRANSITIONS = {
    (State.WAITING, Input.ATTACH): State.CARRIED,
    (State.CARRIED, Input.DETACH): State.WAITING,
    (State.CARRIED, Input.END): State.ENDED,
    (State.WAITING, Input.END): State.ENDED,
    (State.ENDED, Input.SETTLE): State.CLOSED,
    (State.WAITING, Input.CLOSE): State.CLOSED,
    (State.CARRIED, Input.CLOSE): State.CLOSED,
    (State.ENDED, Input.CLOSE): State.CLOSED,
    (State.CLOSED, Input.CLOSE): State.CLOSED,
}
