"""Agree on one connection when a punch opens several.

Both sides dial many ports at once, so several connections can open, and each
side sees them open in its own order.  On every connection both sides say
hello at once; the side with the greater nonce leads and decides:

    leader                                follower
      |  HELLO  --------><--------  HELLO   |    on every connection
      |  PICK on connection 2  ---------->  |    the first on which the leader
      |  <---------  ACCEPT on connection 2 |    heard a hello
    won 2                                 won 2

Rule 1: at most one PICK is outstanding; the next follows only a loss, and goes
        to a party that has not failed to answer one, if there is any.
Rule 2: the follower never picks.  It answers a PICK at once, unless a PICK of
        its own is outstanding with a third party: then that one ends first.
        Nonces order all parties, so such waiting never closes a circle.
Rule 3: one process uses one nonce on all its connections; hearing it back
        means being connected to oneself.
Rule 4: a stranger's bytes cost the stranger its connection, never the
        election.  At most HELLO_SIZE + 4 bytes are held for a connection.
Rule 5: bytes that follow the ACCEPT belong to the link and travel with the
        winner as `unread`.

No sockets and no clock: punch.py owns both and performs the actions.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import Enum, IntFlag

from punchtunnel.errors import PeerError

# The first byte is not ASCII and the last two are a line end, so that neither
# a text protocol nor a transfer that mends line ends can pass for a hello.
MAGIC = b"\xf0PUNCH\r\n"
VERSION = 1
_HELLO = struct.Struct("!8sBBBx8s16s")
HELLO_SIZE = _HELLO.size
NONCE_SIZE = 16
PICK = b"PICK"
ACCEPT = b"ACPT"


class Role(IntFlag):
    """What a side joins the hole to.  LISTEN and TO go together, the others stand alone."""

    STDIO = 1
    LISTEN = 2
    TO = 4
    # A program that took the bare socket through the library.
    RAW = 8


class Trait(IntFlag):
    """What else a side tells about itself."""

    # It discards whatever it would receive (--send-only).
    NO_RECEIVE = 1


NO_TRAITS = Trait(0)


@dataclass(frozen=True, slots=True)
class Hello:
    """The first HELLO_SIZE bytes that each side sends on each connection."""

    nonce: bytes
    channel_tag: bytes
    role: Role
    traits: Trait = NO_TRAITS

    def encode(self) -> bytes:
        """Return the HELLO_SIZE bytes of docs/PROTOCOL.md, "Hello"."""
        return _HELLO.pack(MAGIC, VERSION, self.role, self.traits, self.channel_tag, self.nonce)


def decode_hello(data: bytes) -> Hello:
    """Decode HELLO_SIZE bytes.

    Unknown role and trait bits are ignored: they are for later versions.

    Raises:
        PeerError: Wrong length, magic or version.
    """
    if len(data) != HELLO_SIZE:
        raise PeerError(f"a hello has {HELLO_SIZE} bytes, not {len(data)}")
    magic, version, role, traits, tag, nonce = _HELLO.unpack(data)
    if magic != MAGIC or version != VERSION:
        raise PeerError(f"no hello of version {VERSION}")
    return Hello(nonce, tag, Role(role & 15), Trait(traits & 1))


def roles_fit(mine: Role, theirs: Role) -> bool:
    """Tell whether two roles make a tunnel; symmetric."""
    if Role.RAW in mine | theirs:
        return mine == theirs
    if Role.STDIO in mine | theirs:
        other = theirs if mine == Role.STDIO else mine
        return Role.STDIO in (mine, theirs) and other in (Role.STDIO, Role.LISTEN, Role.TO)
    return bool(mine) and bool(theirs) and mine | theirs == Role.LISTEN | Role.TO


class Why(Enum):
    """Why a connection was dropped without harm to the election."""

    STRANGER = "did not speak our protocol"
    MYSELF = "was connected to this process itself"
    OTHER_CHANNEL = "belongs to another channel"


@dataclass(frozen=True, slots=True)
class Send:
    """Write `data` to `conn` now."""

    conn: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """Close `conn`; the election has forgotten it."""

    conn: int
    why: Why


@dataclass(frozen=True, slots=True)
class Reject:
    """The peer on `conn` is ours but cannot be linked to; `hello` is None if its version is unknown."""

    conn: int
    version: int
    hello: Hello | None


@dataclass(frozen=True, slots=True)
class Won:
    """`conn` is the winner. Close the others and hand over `unread` with it."""

    conn: int
    unread: bytes
    leads: bool
    hello: Hello


Action = Send | Drop | Reject | Won


@dataclass(slots=True)
class _Connection:
    buffer: bytearray = field(default_factory=bytearray)
    hello: Hello | None = None
    # The peer's PICK came while a PICK of ours was outstanding elsewhere.
    asked: bool = False
    won: bool = False


class Election:
    """One side's view of all connections of one punch."""

    def __init__(self, mine: Hello) -> None:
        self.mine = mine
        self._connections: dict[int, _Connection] = {}
        # The connection that we picked, or whose PICK we accepted.
        self.picked: int | None = None
        self._failed_nonces: set[bytes] = set()

    def opened(self, conn: int) -> list[Action]:
        """Take in a connection that has just opened; `conn` is any fresh number."""
        self._connections[conn] = _Connection()
        return [Send(conn, self.mine.encode())]

    def has_hello(self, conn: int) -> bool:
        """Tell whether the peer has said a valid hello on `conn`."""
        connection = self._connections.get(conn)
        return connection is not None and connection.hello is not None

    def received(self, conn: int, data: bytes) -> list[Action]:
        """Take in bytes from `conn`, any length, and return what to do now, in order."""
        connection = self._connections.get(conn)
        if connection is None or connection.won:
            return []
        connection.buffer += data
        actions: list[Action] = []
        if connection.hello is None:
            actions += self._read_hello(conn, connection)
        if connection.hello is not None:
            actions += self._read_message(conn, connection, connection.hello)
        return actions

    def lost(self, conn: int) -> list[Action]:
        """Forget a connection that was closed; another may be picked in its place."""
        connection = self._connections.pop(conn, None)
        if conn != self.picked:
            return []
        self.picked = None
        if connection is not None and connection.hello is not None:
            self._failed_nonces.add(connection.hello.nonce)
        return self._next_choice()

    def _read_hello(self, conn: int, connection: _Connection) -> list[Action]:
        """Read a hello from the buffer once it is whole; judge it before that if it must fail."""
        buffer = connection.buffer
        if not buffer.startswith(MAGIC[: len(buffer)]):
            return self._drop(conn, Why.STRANGER)
        if len(buffer) <= len(MAGIC):
            return []
        if (version := buffer[len(MAGIC)]) != VERSION:
            return self._reject(conn, Reject(conn, version, None))
        if len(buffer) < HELLO_SIZE:
            return []
        hello = decode_hello(bytes(buffer[:HELLO_SIZE]))
        if hello.nonce == self.mine.nonce:
            return self._drop(conn, Why.MYSELF)
        if hello.channel_tag != self.mine.channel_tag:
            return self._drop(conn, Why.OTHER_CHANNEL)
        nobody_receives = Trait.NO_RECEIVE in self.mine.traits & hello.traits
        if nobody_receives or not roles_fit(self.mine.role, hello.role):
            return self._reject(conn, Reject(conn, VERSION, hello))
        del buffer[:HELLO_SIZE]
        connection.hello = hello
        return self._next_choice() if self.picked is None else []

    def _read_message(self, conn: int, connection: _Connection, hello: Hello) -> list[Action]:
        """Read the PICK or ACCEPT that follows the hello."""
        leads = self.mine.nonce > hello.nonce
        expected = ACCEPT if leads else PICK
        message = bytes(connection.buffer[: len(expected)])
        unasked = leads and conn != self.picked and message
        if unasked or not expected.startswith(message) or connection.asked:
            return self._drop(conn, Why.STRANGER)
        if len(message) < len(expected):
            return []
        if not leads and self.picked is not None:
            if len(connection.buffer) > len(expected):
                # Nothing may follow a PICK that is not answered yet.
                return self._drop(conn, Why.STRANGER)
            connection.asked = True
            return []
        return self._win(conn, connection, hello)

    def _win(self, conn: int, connection: _Connection, hello: Hello) -> list[Action]:
        leads = self.mine.nonce > hello.nonce
        won = Won(conn, bytes(connection.buffer[len(PICK) :]), leads, hello)
        # If the ACCEPT cannot be sent, the connection is lost like any picked one.
        self.picked = conn
        connection.won = True
        return [won] if leads else [Send(conn, ACCEPT), won]

    def _next_choice(self) -> list[Action]:
        """Accept a PICK that had to wait, or else pick the oldest connection that we lead."""
        for conn, connection in self._connections.items():
            if connection.asked and connection.hello is not None:
                return self._win(conn, connection, connection.hello)
        led = {
            conn: connection.hello.nonce in self._failed_nonces
            for conn, connection in self._connections.items()
            if connection.hello is not None and self.mine.nonce > connection.hello.nonce
        }
        if not led:
            return []
        # Whoever did not answer a PICK comes last: it may never answer one.
        self.picked = min(led, key=lambda conn: led[conn])
        return [Send(self.picked, PICK)]

    def _drop(self, conn: int, why: Why) -> list[Action]:
        return [Drop(conn, why), *self.lost(conn)]

    def _reject(self, conn: int, rejection: Reject) -> list[Action]:
        return [rejection, *self.lost(conn)]
