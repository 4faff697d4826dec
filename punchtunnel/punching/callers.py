"""The connections that are open but not yet elected, and who is on each: pure, but for the sockets that it keeps.

    a dial opens, or a listener accepts ──> admit ──> expired, or worth less than a newcomer ──> closed
                                                 └──> won: the hole

Rule 1: a connection on which the peer says nothing is closed soon: its hello
        comes within a round trip, and within three more if it is lost once.
        One that is not decided has more time, because it may only wait for
        another one to fail; one that was picked has a time of its own.
Rule 2: where there are too many, the one that is worth least makes room.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from punchtunnel import words
from punchtunnel.punching.candidates import Candidate
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address

# Seconds until a hello.
HELLO_TIMEOUT = 0.5
HELLO_ROUND_TRIPS = 4
LONGEST_HELLO_TIMEOUT = 5.0
# The same on a connection by a command, where the peer may come late.  A command that has died unnoticed, as an
# idle ssh does when a router has forgotten it, is replaced within that time; a login in five minutes troubles nobody.
VIA_PATIENCE = 300.0
# The same through a relay: after that it has matched a connection of the peer's that is dead (reach/joining.py).
RELAY_PATIENCE = 5.0
# Seconds until a PICK.
DECISION_TIMEOUT = 5.0
# Seconds for the answer to a PICK: the peer, who is awake, needs a round trip.
PICK_TIMEOUT = 3.0
# Connections at one time.
MAX_CONNECTIONS = 64
# Bytes that are taken from a connection before the election: what it needs with padding, and a half more.
MOST_UNPROVED = 2048
# Seconds that both sides may compute between two messages of the agreement.
COMPUTING = 0.01
# What strangers have in common.
EVERYBODY_ELSE = "*"
NEVER = float("inf")


class Caller(NamedTuple):
    """Who is on a connection.

    Attributes:
        source: The peer, whichever of its addresses this is, or EVERYBODY_ELSE.
        place: The far end, address and port, as text.
        scheduled: It comes from the port that the schedule has for it.
    """

    source: str
    place: str
    scheduled: bool


@dataclass(slots=True, eq=False, repr=False)
class Connection:
    """A connection that is open but not yet elected.

    Attributes:
        sock: Does not block.
        remote: The far end, address and port, as text.
        host: Its address alone.
        scheduled: The far end has the port that the schedule has for it.
        candidate: What was dialled; None if the connection came to a listener.
        via: It is that of a command (--via), where the peer may come late.
        relay: What carries it, HOST:PORT; "" if nothing does.
        held: Through that no payload may pass.
        give_back: Called in place of closing it.
        opened: When, as are all times here.
        hello_due: When the peer's hello must have come.
        greeted: It has come.
        picked: When this side has last said what the peer must answer at once; NEVER before that.
        patience: Seconds from then until it is closed, or looked at.
        answered: Seconds from then to the answer; 0 before that.
        taken: Bytes that have come.
        fault: What the election has found wrong with it, as a sentence that begins with the connection; or "".
    """

    sock: socket.socket
    remote: str
    host: str
    scheduled: bool
    candidate: Candidate | None = None
    via: bool = False
    relay: str = ""
    held: bool = False
    give_back: Callable[[], None] | None = None
    opened: float = 0.0
    hello_due: float = NEVER
    greeted: bool = False
    picked: float = NEVER
    patience: float = PICK_TIMEOUT
    answered: float = 0.0
    taken: int = 0
    fault: str = ""

    @property
    def is_brought(self) -> bool:
        """It was neither dialled nor accepted: a command or a relay has it, whose far end is not known."""
        return self.via or bool(self.relay)

    @property
    def local(self) -> str:
        """Our end, address and port, as text; a command's has none."""
        return words.THIS_MACHINE if self.via else tcp.name_of(self.sock.getsockname())

    def greet(self, now: float) -> None:
        """Take note that the peer's hello has come."""
        if self.is_brought and not self.greeted:
            # The command or the relay has reached the peer only now.
            self.opened = now
        self.greeted = True

    @property
    def expiry(self) -> float:
        """When it is closed if nothing changes (rule 1)."""
        if self.picked < NEVER:
            return self.picked + self.patience
        return self.opened + DECISION_TIMEOUT if self.greeted else self.hello_due

    @property
    def round_trip(self) -> float:
        """Seconds, of an elected connection: the kernel's estimate, unless that is too small.

        Where both sides' SYNs have crossed, Linux takes the time from its SYN-ACK,
        which left later than its SYN: what both sides find adds up to one round
        trip.  Then the agreement, which took one too, is nearer to it.  A quarter
        more is jitter.
        """
        measured = tcp.round_trip(self.sock)
        return self.answered if self.answered - COMPUTING > 1.25 * measured else measured


class Callers:
    """The connections by their number, and what follows from the addresses of the peer.

    Args:
        peer: What all addresses of the peer are called together.

    Attributes:
        connections: In the order in which they have opened.
        addresses: The peer's.
    """

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self.connections: dict[int, Connection] = {}
        self.addresses: Sequence[Address] = ()

    @property
    def busy(self) -> bool:
        """Somebody is on a connection, or may be: it may become the hole.  A command may lead to nobody for hours."""
        return any(one.taken or not one.is_brought for one in self.connections.values())

    def admit(self, conn: int, connection: Connection, now: float, round_trip: float) -> None:
        """Take in a connection that has just opened; `round_trip` is the kernel's estimate in seconds."""
        connection.opened = now
        patience = min(LONGEST_HELLO_TIMEOUT, HELLO_TIMEOUT + HELLO_ROUND_TRIPS * round_trip)
        if connection.is_brought:
            patience = VIA_PATIENCE if connection.via else RELAY_PATIENCE
        connection.hello_due = now + patience
        self.connections[conn] = connection

    def least(self) -> int | None:
        """Return the connection that must make room before another one is admitted, if any (rule 2)."""
        if len(self.connections) < MAX_CONNECTIONS:
            return None
        return min(self.connections, key=self._worth)

    def expired(self, now: float) -> int | None:
        """Return the first connection whose time is over, if any; closing it may give time to others."""
        return next((conn for conn, connection in self.connections.items() if connection.expiry <= now), None)

    def next_expiry(self) -> float:
        """Return when `expired` will have one, if nothing changes."""
        return min((connection.expiry for connection in self.connections.values()), default=NEVER)

    def who(self, conn: int) -> Caller:
        """Return who is on a connection, as rations.py counts."""
        connection = self.connections[conn]
        known = self.is_known(conn)
        if connection.is_brought:
            # Neither the peer's address nor just anybody's: it has tries of its own.
            return Caller(connection.remote, connection.remote, scheduled=False)
        return Caller(self._peer if known else EVERYBODY_ELSE, connection.remote, known and connection.scheduled)

    def is_known(self, conn: int) -> bool:
        """Tell whether a connection is with an address of the peer; what happens on others says nothing about it."""
        return any(address.host == self.connections[conn].host for address in self.addresses)

    def is_invited(self, conn: int) -> bool:
        """Tell whether this side has asked for a connection, so that it may speak first on it: known, or brought."""
        return self.connections[conn].is_brought or self.is_known(conn)

    def _worth(self, conn: int) -> tuple[bool, bool, bool, bool, int]:
        """Order connections: those that are not being tried come first, then strangers', unexpected, silent, old."""
        connection = self.connections[conn]
        caller = self.who(conn)
        return connection.picked < NEVER, self.is_invited(conn), caller.scheduled, connection.greeted, conn
