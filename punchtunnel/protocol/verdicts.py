"""What an election wants done with a connection; nomination.py does it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from punchtunnel.protocol.agreement import Keys
from punchtunnel.protocol.hello import Hello
from punchtunnel.words import peer as words


class Why(Enum):
    """Why a connection was dropped without harm to the election."""

    STRANGER = words.STRANGER
    MYSELF = words.MYSELF
    OTHER_CHANNEL = words.OTHER_CHANNEL
    OTHER_SESSION = words.OTHER_SESSION
    NOT_PROVED = words.OTHER_SECRET


class Send(NamedTuple):
    """Write `data` to `conn` now."""

    conn: int
    data: bytes


class Drop(NamedTuple):
    """Close `conn`; the election has forgotten it."""

    conn: int
    why: Why


class Reject(NamedTuple):
    """The peer on `conn` is ours but cannot be linked to; `hello` is None if its version is unknown.

    Unless it has `proved` that it knows the secret, it may be a stranger: drop it and go on.
    """

    conn: int
    version: int
    hello: Hello | None
    proved: bool = False


class Won(NamedTuple):
    """`conn` is the winner. Close the others and hand over `unread` with it."""

    conn: int
    unread: bytes
    leads: bool
    hello: Hello
    keys: Keys | None = None


Action = Send | Drop | Reject | Won
