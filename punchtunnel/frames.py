"""The multiplexer's frames: yamux, version 0.

    0        1        2                 4                          8                 12
    | version| type   | flags           | stream                   | length          |
    |   0    | 0–3    | SYN ACK FIN RST | odd: opened by the leader| by type         |

    type 0  DATA    length = bytes of payload that follow the header
    type 1  WINDOW  length = credit that is added to the receiver's own
    type 2  PING    length = opaque value; SYN asks, ACK answers with the same
    type 3  GO_AWAY length = a code; the sender is done with the whole link

All numbers are big-endian.  Source: hashicorp/yamux spec.md; docs/PROTOCOL.md
names what this project adds (the reason in the length of a WINDOW with RST).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from typing import NamedTuple

from punchtunnel.errors import PeerError

HEADER = struct.Struct("!BBHII")
VERSION = 0
# Nobody needs longer frames to be fast (1 MiB gains 8 % over 256 KiB, and
# delays other streams four times as long), so longer ones are a mistake.
MAX_PAYLOAD = 1024 * 1024


class Kind(IntEnum):
    """The type field."""

    DATA = 0
    WINDOW = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    """The flags field."""

    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


# Plain numbers for the path that every frame takes: an enum costs a microsecond.
DATA, WINDOW, PING, GO_AWAY = map(int, Kind)
SYN, ACK, FIN, RST = map(int, Flag)
_ALL_FLAGS = SYN | ACK | FIN | RST


class Header(NamedTuple):
    """One decoded header; `kind` is one of Kind, `flags` are of Flag."""

    kind: int
    flags: int
    stream: int
    length: int

    def encode(self) -> bytes:
        """Return the HEADER.size bytes on the wire."""
        return HEADER.pack(VERSION, *self)


class Payload(NamedTuple):
    """A piece of a DATA frame's payload, in order; a frame may come in many pieces."""

    stream: int
    data: memoryview


def decode_header(data: bytes | memoryview) -> Header:
    """Decode HEADER.size bytes.

    Raises:
        PeerError: Unknown version, type or flag, a payload above MAX_PAYLOAD,
            or a stream number where it must not be or is missing.
    """
    version, kind, flags, stream, length = HEADER.unpack(data)
    if version != VERSION or kind > GO_AWAY or flags > _ALL_FLAGS:
        raise PeerError(f"not a frame: version {version}, type {kind}, flags {flags:#x}")
    if kind == DATA and length > MAX_PAYLOAD:
        raise PeerError(f"a frame announces {length} bytes; {MAX_PAYLOAD} are allowed")
    if (stream != 0) != (kind <= WINDOW):
        raise PeerError(f"a frame of type {kind} names stream {stream}")
    return Header(kind, flags, stream, length)


class Decoder:
    """Cuts a byte stream into headers and pieces of payload without copying the payload."""

    def __init__(self) -> None:
        self._partial = bytearray()
        self._stream = 0
        self._missing = 0

    def feed(self, data: memoryview) -> Iterator[Header | Payload]:
        """Yield what `data` holds, in wire order.

        Args:
            data: Bytes straight from the link, any length including zero.
                Pieces of payload are views into it: use them before the
                memory is used again.

        Raises:
            PeerError: See `decode_header`.  The position in the stream is
                lost for good: close the link.
        """
        position = 0
        while position < len(data):
            if self._missing:
                piece = data[position : position + self._missing]
                self._missing -= len(piece)
                position += len(piece)
                yield Payload(self._stream, piece)
                continue
            if not self._partial and len(data) - position >= HEADER.size:
                raw: bytes | memoryview = data[position : position + HEADER.size]
                position += HEADER.size
            else:
                taken = data[position : position + HEADER.size - len(self._partial)]
                self._partial += taken
                position += len(taken)
                if len(self._partial) < HEADER.size:
                    return
                raw = bytes(self._partial)
                self._partial.clear()
            header = decode_header(raw)
            if header.kind == DATA:
                self._stream, self._missing = header.stream, header.length
            yield header

    @property
    def expected(self) -> tuple[int, int]:
        """The stream whose payload comes next, and the bytes that are missing of it, or 0."""
        return self._stream, self._missing

    def skip(self, length: int) -> None:
        """Take note of `length` expected bytes of payload that went another way."""
        self._missing -= length

    @property
    def between_frames(self) -> bool:
        """True where a frame may begin: the only place where the link may end."""
        return not self._partial and not self._missing
