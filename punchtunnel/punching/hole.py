"""What a punch is told, and what it returns: plain values, without a socket's or a loop's logic."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from punchtunnel.protocol.agreement import Keys
from punchtunnel.protocol.hello import NO_TRAITS, Role, Trait

DEFAULT_WAIT = 120.0
# Seconds that are left to wait, at least, when a peer has only checked the path, and the
# seconds by which that may make the whole longer: whoever checks again and again ends it.
SHORTEST_WAIT = 1.0
LONGEST_EXTENSION = 10.0
LAST_WAIT = 0.1


@dataclass(slots=True)
class Counts:
    """What happened while punching: the base of every diagnosis."""

    dials: int = 0
    # Of these, the holds that were made anew before anybody could answer.
    held_again: int = 0
    refused: int = 0
    unreachable: int = 0
    expired: int = 0
    silent: int = 0
    forbidden: int = 0
    unusable: int = 0
    opened: int = 0
    strangers: int = 0
    foreign: int = 0
    rewritten: int = 0
    other_channel: int = 0
    mute: int = 0


@dataclass(frozen=True, slots=True)
class Hole:
    """The winner and what was agreed on it.

    Attributes:
        sock: The connected socket, blocking; the caller closes it.
        local: Its own address and port, as text.
        remote: The peer's.
        unread: Bytes of the peer that arrived behind the handshake: they come
            before anything that `sock` still yields.
        leads: Exactly one of the two sides leads.
        role: What the peer joins the hole to.
        traits: What the peer's hello says of it besides the role.
        waited: Seconds from the start of the punch.
        counts: What happened on the way.
        keys: What seals the link; None on a plain one.
        fast_aes: Both processors have AES instructions.
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

    def __str__(self) -> str:
        return f"{self.local} to {self.remote}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How to punch; see `punch` for what each one means."""

    peers: Sequence[str]
    channel: str = ""
    wait: float = DEFAULT_WAIT
    bind: str | None = None
    family: socket.AddressFamily = socket.AF_UNSPEC
    clock_offset: float = 0.0
    role: Role = Role.RAW
    traits: Trait = NO_TRAITS
    # Empty: none.  Used for sealing only, never for the ports.
    secret: bytes = field(default=b"", repr=False)

    def after(self, spent: float) -> Settings:
        """Return the same with as many seconds less to wait, unless that is for ever."""
        least = SHORTEST_WAIT if spent < self.wait + LONGEST_EXTENSION else LAST_WAIT
        return replace(self, wait=self.wait and max(round(self.wait - spent, 1), least))
