"""What a punch returns: plain values, without the logic of a socket."""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import dataclass, field

from punchtunnel.protocol.agreement import Keys
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.protocol.records import Seals
from punchtunnel.punching.candidates import Fate


@dataclass(slots=True)
class Counts:
    """What happened while punching: the base of every diagnosis.

    Attributes:
        dials: How many were made.
        held_again: Of these, the holds that were made anew before the peer could answer.
        failed: Errors of connect() by what they say.
        opened: Connections, in both directions.
        strangers: Of those with an address of the peer, on which something else than a hello came.
        mute: Of the same, on which nothing came.
        hung_up: Of these, the dials of ports that a punchtunnel there listens on, which the far end has closed.
        other_channel: Of those with an address of the peer, on which a hello of another channel came.
        myself: Of the same, on which our own hello came.
        foreign: Connections from other addresses, which were closed at once, by address.
        foreign_punches: Of these, those that came from the very port that the schedule has, as only a punch does.
        rewritten: Connections from an address of the peer, but from another port than it dials from.
        untaken: Listeners with a connection that waits until this process has a descriptor for it.
        shortage: The errno of the last socket that this process got no descriptor or memory for; 0: there was none.
    """

    dials: int = 0
    held_again: int = 0
    failed: Counter[Fate] = field(default_factory=Counter)
    opened: int = 0
    strangers: int = 0
    mute: int = 0
    hung_up: int = 0
    other_channel: int = 0
    myself: int = 0
    foreign: Counter[str] = field(default_factory=Counter)
    foreign_punches: Counter[str] = field(default_factory=Counter)
    rewritten: int = 0
    untaken: int = 0
    shortage: int = 0


@dataclass(frozen=True, slots=True)
class Hole:
    """The winner and what was agreed on it.

    Attributes:
        sock: The connected socket, blocking; the caller closes it.
        local: Its own address and port, as text.
        remote: The peer's.
        unread: Bytes of the peer that arrived after the handshake: they come
            before anything that `sock` still yields.
        leads: Exactly one of the two sides leads.
        role: What the peer joins the hole to.
        traits: What the peer's hello says of it besides the role.
        waited: Seconds from the start of the punch.
        counts: What happened on the way.
        keys: What seals the link; None on a plain one.
        fast_aes: Both processors have AES instructions.
        mapped: It came to a port that a router forwards for us, and may need that to the end.
        relay: What carries it, HOST:PORT; "" if nothing does, and it is direct.
        held: Through that no payload may pass: it only leads to a direct hole.
        hold: Seconds for which payload is to wait for a direct hole on a relayed one.
        seals: What the first records were sealed and opened with, if any have passed.
    """

    sock: socket.socket
    local: str
    remote: str
    unread: bytes
    leads: bool
    role: Role
    traits: Trait
    waited: float
    counts: Counts
    keys: Keys | None = None
    fast_aes: bool = False
    mapped: bool = False
    relay: str = ""
    held: bool = False
    hold: float = 0.0
    seals: Seals | None = None

    @property
    def is_certain(self) -> bool:
        """The peer has won it too.

        The last word of an election (the proof of the leader, or the ACCEPT of the follower on a plain link) can be
        lost: the side that has said it knows only when the peer says something on the link.
        """
        return self.leads == (self.keys is None)

    def __str__(self) -> str:
        return f"{self.local} to {self.remote}"
