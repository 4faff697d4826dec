"""The first thing that each side says on every connection: who it is, and what it wants to join.

    F0 "PUNCH" 0D 0A | version | role | traits | - | tag of the channel | nonce

docs/PROTOCOL.md, "Election", has the bytes.
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import NamedTuple

from punchtunnel.errors import PeerError
from punchtunnel.words import peer as words

# The first byte is not ASCII and the last two are a line end, so that neither
# a text protocol nor a transfer that mends line ends can pass for a hello.
MAGIC = b"\xf0PUNCH\r\n"
# 2: records above 256 KiB, and the frame OPEN.
VERSION = 2
_HELLO = struct.Struct("!8sBBBx8s16s")
HELLO_SIZE = _HELLO.size
NONCE_SIZE = 16


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
    # It does not seal (--plain); both sides must say so.
    PLAIN = 2
    # Its processor has AES instructions; without them ChaCha20 is faster.
    FAST_AES = 4
    # It only checks the path (-z): no stream is opened, and every role fits.
    CHECK = 8
    # It takes padding in front of PICK and ACCEPT.
    PADS = 16
    # It can go on with a session over another hole (resume.py).
    RESUME = 32
    # It has a session that has lost its hole, and wants to go on with it.
    RESUMING = 64
    # It serves many sessions: one that comes back finds it without RESUMING.
    SERVICE = 128


NO_TRAITS = Trait(0)


class Hello(NamedTuple):
    """The first HELLO_SIZE bytes that each side sends on each connection."""

    nonce: bytes
    channel_tag: bytes
    role: Role
    traits: Trait = NO_TRAITS

    def encode(self) -> bytes:
        """Return the HELLO_SIZE bytes of docs/PROTOCOL.md, "Election"."""
        return _HELLO.pack(MAGIC, VERSION, self.role, self.traits, self.channel_tag, self.nonce)


def decode_hello(data: bytes) -> Hello:
    """Decode HELLO_SIZE bytes.

    Unknown role and trait bits are ignored: they are for later versions.

    Raises:
        PeerError: Wrong length, magic or version.
    """
    if len(data) != HELLO_SIZE:
        raise PeerError(words.HELLO_LENGTH.format(size=HELLO_SIZE, length=len(data)))
    magic, version, role, traits, tag, nonce = _HELLO.unpack(data)
    if magic != MAGIC or version != VERSION:
        raise PeerError(words.NO_HELLO.format(version=VERSION))
    return Hello(nonce, tag, Role(role & 15), Trait(traits))


def roles_fit(mine: Role, theirs: Role) -> bool:
    """Tell whether two roles make a tunnel; symmetric."""
    if Role.RAW in mine | theirs:
        return mine == theirs
    if Role.STDIO in mine | theirs:
        other = theirs if mine == Role.STDIO else mine
        return Role.STDIO in (mine, theirs) and other in (Role.STDIO, Role.LISTEN, Role.TO)
    return bool(mine) and bool(theirs) and mine | theirs == Role.LISTEN | Role.TO
