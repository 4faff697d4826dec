"""The multiplexer's frames: yamux, version 0.

    0        1        2                 4                          8                 12
    | version| type   | flags           | stream                   | length          |
    |   0    | 0–4    | SYN ACK FIN RST | odd: opened by the leader| by type         |

    type 0  DATA    length = bytes of payload that follow the header
    type 1  WINDOW  length = credit that is added to the receiver's own
    type 2  PING    length = opaque value; SYN asks, ACK answers with the same
    type 3  GO_AWAY length = a code; the sender is done with the whole link
    type 4  SIZE    flags and length = 48 bits: bytes that the sender will send
    type 5  RECEIVED  the same: bytes of frames that the sender has received, modulo 2^48;
            stream = through a relay, when the last of them came
    type 6  OFFER   length = bytes that follow the header: what offers.py has
    type 7  OPEN    like SYN, for a service; length = bytes that follow the header: its name (service.py)

All numbers are big-endian.  Source: hashicorp/yamux spec.md; docs/PROTOCOL.md
names what this project adds (types 4 to 7, and the reason in the length of a WINDOW
with RST).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

from punchtunnel.errors import PeerError
from punchtunnel.protocol.offers import MAX_OFFER
from punchtunnel.protocol.service import MAX_SERVICE
from punchtunnel.words import peer as words

HEADER = struct.Struct("!BBHII")
VERSION = 0
# A little more than the longest frame that is sent (splicing.py).  A longer one would
# gain no speed and delay other streams, so it is an error.
MAX_PAYLOAD = 1024 * 1024
# Of the number in a SIZE or a RECEIVED frame.
POSITION_BITS = 48
# The largest that a SIZE frame can hold.
MAX_SIZE = 2**POSITION_BITS - 1


class Kind(IntEnum):
    """The type field."""

    DATA = 0
    WINDOW = 1
    PING = 2
    GO_AWAY = 3
    # Not in yamux.
    SIZE = 4
    RECEIVED = 5
    OFFER = 6
    OPEN = 7


class Flag(IntFlag):
    """The flags field."""

    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class Reason(IntEnum):
    """Why a stream was reset: the length field of a WINDOW frame with RST."""

    RESET = 0
    REFUSED = 1
    TIMED_OUT = 2
    UNREACHABLE = 3
    NO_SUCH_NAME = 4
    NO_RESOURCES = 5
    NOT_EXPECTED = 6
    MEMORY = 7
    CLOSING = 8
    # Why the sender's own end broke, where it knows more than that.
    DISK_FULL = 9
    NOT_TAKEN = 10
    NOT_WRITTEN = 11
    NOT_READ = 12
    NO_SUCH_SERVICE = 13


class Goodbye(IntEnum):
    """The code of a GO_AWAY frame (spec.md, "Go Away")."""

    NORMAL = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    # Not in yamux: a stream was ended here before everything was delivered.
    CUT = 3
    # A service has as many sessions as it takes.
    FULL = 4


# Plain numbers for the path of every frame: an enum costs a microsecond.
DATA, WINDOW, PING, GO_AWAY, SIZE, RECEIVED, OFFER, OPEN = map(int, Kind)
SYN, ACK, FIN, RST = map(int, Flag)
_ALL_FLAGS = SYN | ACK | FIN | RST
# They name no stream.
_OF_THE_LINK = frozenset((PING, GO_AWAY, OFFER))


class Header(NamedTuple):
    """One decoded header: `kind` is one of Kind, `flags` are of Flag.

    `length` is the whole number of a SIZE or of what comes after it, which have no flags.  `stream` of a RECEIVED is
    a time.
    """

    kind: int
    flags: int
    stream: int
    length: int

    def encode(self) -> bytes:
        """Return the HEADER.size bytes on the wire."""
        if self.kind >= SIZE:
            return HEADER.pack(VERSION, self.kind, self.length >> 32, self.stream, self.length & 0xFFFFFFFF)
        return HEADER.pack(VERSION, *self)


def decode_header(data: bytes | bytearray | memoryview, begin: int = 0) -> Header:
    """Decode the HEADER.size bytes at `begin`.

    Raises:
        PeerError: Unknown version, type or flag; a payload above MAX_PAYLOAD;
            a stream number where there must be none, or none where there must be one.
    """
    version, kind, flags, stream, length = HEADER.unpack_from(data, begin)
    if kind >= SIZE:
        flags, length = 0, flags << 32 | length
    if version != VERSION or kind > OPEN or flags > _ALL_FLAGS:
        raise PeerError(words.NOT_A_FRAME.format(version=version, kind=kind, flags=flags))
    if kind == DATA and length > MAX_PAYLOAD:
        raise PeerError(words.LONG_FRAME.format(length=length, limit=MAX_PAYLOAD))
    if kind == OFFER and not 0 < length <= MAX_OFFER:
        raise PeerError(words.NOT_AN_OFFER)
    if kind == OPEN and not 0 < length <= MAX_SERVICE:
        raise PeerError(words.NOT_A_SERVICE)
    if (stream == 0) != (kind in _OF_THE_LINK) and kind != RECEIVED:
        raise PeerError(words.ODD_STREAM.format(kind=kind, stream=stream))
    # Not by its own constructor, which is written in Python: there are thousands a second.
    return tuple.__new__(Header, (kind, flags, stream, length))


class Decoder:
    """Cuts a byte stream into headers and pieces of payload without copying the payload.

    Attributes:
        missing: Bytes of the last DATA frame's payload that have not come yet.
        body: What the last OFFER or OPEN frame says.
    """

    def __init__(self) -> None:
        self._partial = bytearray()
        self.missing = 0
        self.body = bytearray()
        # The header of a frame with such a body that is not whole yet.
        self._awaited: Header | None = None

    def feed(self, data: memoryview) -> Iterator[Header | memoryview]:
        """Yield what `data` holds, in wire order: headers, and the payload of each DATA frame in any pieces.

        The header of an OFFER or an OPEN comes when that is whole.

        Args:
            data: Bytes straight from the link, any length including zero.
                Pieces of payload are views into it: use them before the
                memory is used again.

        Raises:
            PeerError: See `decode_header`.  The position in the stream is
                lost for good: close the link.
        """
        position, end = 0, len(data)
        while position < end:
            if self.missing:
                piece = data[position : position + self.missing]
                self.missing -= len(piece)
                position += len(piece)
                yield piece
                continue
            if self._awaited is not None:
                wanted = self._awaited.length - len(self.body)
                self.body += data[position : position + wanted]
                position += wanted
                if len(self.body) < self._awaited.length:
                    return
                header, self._awaited = self._awaited, None
                yield header
                continue
            if not self._partial and end - position >= HEADER.size:
                header = decode_header(data, position)
                position += HEADER.size
            else:
                taken = data[position : position + HEADER.size - len(self._partial)]
                self._partial += taken
                position += len(taken)
                if len(self._partial) < HEADER.size:
                    return
                header = decode_header(self._partial)
                self._partial.clear()
            if header.kind == DATA:
                self.missing = header.length
            elif header.kind >= OFFER:
                self._awaited, self.body = header, bytearray()
                continue
            yield header

    def skip(self, length: int) -> None:
        """Count `length` bytes of payload that are missing here because they went another way."""
        self.missing -= length

    @property
    def between_frames(self) -> bool:
        """True where a frame may begin, which is the only place where the link may end."""
        return not self._partial and not self.missing and self._awaited is None
