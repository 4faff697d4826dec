"""What lets a session go on over another hole: positions, what is kept, and how two sides know each other again.

    sent      |----- acknowledged -----|------ kept ------|        bytes of this side's frames
    received  |----- reported ---------|----- owed -------|        bytes of the peer's

    on the next hole, as the first record of each direction:
        RESUME  session | received | proof          and then frames, from the peer's `received` on

Rule 1: positions count the bytes of frames of one direction since the session began,
        whatever records and holes they went through.
Rule 2: what is sent is kept until the peer has acknowledged it, and what was received is
        acknowledged: every ACKNOWLEDGE_AFTER bytes, or after ACKNOWLEDGE_DELAY; sooner
        on a relayed hole.  Acknowledgments alone are not acknowledged before there are many, or there would
        be no end of it.
Rule 3: who comes back proves that it knows the secret of the session, for this hole
        alone: the proof contains the hole's verifier.

Pure: no sockets and no clock.
"""

from __future__ import annotations

import hmac
import struct
from collections import deque
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from punchtunnel.errors import PeerError
from punchtunnel.protocol.credit import MAX_LINK_MEMORY
from punchtunnel.protocol.frames import HEADER, POSITION_BITS
from punchtunnel.words import peer as words

# Bytes.  More often costs both sides a record each time.  Less often costs memory.  Nearby, sources must not reach
# KEPT_NEARBY before that, and wait for ACKNOWLEDGE_DELAY: of what is kept, only a part is bytes of frames.
ACKNOWLEDGE_AFTER = 512 * 1024
# Bytes.  So much is acknowledged when something else is sent anyway.
WORTH_A_FRAME = 64 * 1024
# Seconds.
ACKNOWLEDGE_DELAY = 0.1
# The first two on a relayed hole, where the sender goes by acknowledgments (link/flight.py):
# less than any of its frames, and more than a small message.
RELAYED_AFTER = 4 * 1024
# Bytes of acknowledgments that are acknowledged after all: their sender keeps them, too.
MANY_ACKNOWLEDGMENTS = 4096
# Bytes.  As much as BBR keeps in flight at 1 Gbit/s and 100 ms, and what is received within the delay.
MOST_KEPT = 32 * 1024 * 1024
# The same with a round trip of a millisecond or so: more gains nothing there, and cold memory
# costs a tenth of the sender's time (measured).
KEPT_NEARBY = 4 * 1024 * 1024
# What may be kept however much the windows of all streams take of the link's memory.
KEPT_AT_LEAST = 8 * 1024 * 1024
# Control frames go also when the sources stop: a peer that lets so much of them come together acknowledges nothing.
CONTROL_KEPT = 4 * 1024 * 1024
# Bytes that Python needs for a short piece that is kept, besides its content (measured).
PIECE_OVERHEAD = 420
# Bytes, half a buffer.  What is shorter is copied and leaves its buffer free: the copy costs less than the memory.
COPY_BELOW = 256 * 1024
# Buffers that stay when nothing is kept.
FREE_BUFFERS = 8

SESSION_SIZE = 16
_RESUME = struct.Struct("!16sQ32s")
RESUME_SIZE = _RESUME.size
_PROVED = struct.Struct("!?Q")


class Ticket(NamedTuple):
    """What both sides of a session know it by, from its first key agreement.

    Attributes:
        session: SESSION_SIZE bytes that are no secret.
        secret: Known to these two alone.
    """

    session: bytes
    secret: bytes

    @property
    def channel(self) -> str:
        """Decides the ports of a direct hole for a session that a relay carries: nobody else's punch has them."""
        return hmac.digest(self.secret, b"punchtunnel move", sha256).hex()[:32]

    def __repr__(self) -> str:
        return "Ticket(…)"


@dataclass(frozen=True, slots=True)
class Resume:
    """The first word of a side that comes back.

    Attributes:
        session: Which one is meant.
        received: Bytes of the other side's frames that its sender has; the rest is to be sent again.
        proof: See `prove`.
    """

    session: bytes
    received: int
    proof: bytes

    def encode(self) -> bytes:
        """Return the RESUME_SIZE bytes of docs/PROTOCOL.md, "Resuming"."""
        return _RESUME.pack(self.session, self.received, self.proof)


def decode_resume(data: bytes) -> Resume | None:
    """Decode the plaintext of a RESUME record; None: its sender knows of no session.

    Raises:
        PeerError: It has another length.
    """
    if not data:
        return None
    if len(data) != RESUME_SIZE:
        raise PeerError(words.MALFORMED_RESUME.format(length=len(data)))
    return Resume(*_RESUME.unpack(data))


def prove(ticket: Ticket, verifier: bytes, leads: bool, received: int) -> Resume:
    """Return what a side says to go on with a session.

    Args:
        ticket: Of the session.
        verifier: Of this hole; a man in the middle has another one on each side.
        leads: The side that says it leads on this hole.
        received: Its position.
    """
    message = b"punchtunnel resume 1" + verifier + _PROVED.pack(leads, received)
    return Resume(ticket.session, received, hmac.digest(ticket.secret, message, sha256))


def is_proved(resume: Resume, ticket: Ticket, verifier: bytes, leads: bool) -> bool:
    """Tell whether the other side, which leads or not, has the session's secret."""
    expected = prove(ticket, verifier, leads, resume.received)
    return resume.session == ticket.session and hmac.compare_digest(resume.proof, expected.proof)


class Buffer(NamedTuple):
    """Where a frame is put together: the whole, and the room for its payload."""

    whole: memoryview
    room: memoryview


class Journal:
    """Both directions of a session's frames: what was sent and is kept, what was received and is not reported.

    Attributes:
        sent: Position after the last byte that was sent.
        acknowledged: Position up to which the peer has everything.
        received: Position after the last byte that has come and was taken in.
        held: Bytes of memory that is taken by what is kept.
        limit: Where the sources stop; see `most_kept`.
    """

    def __init__(self) -> None:
        self.sent = self.acknowledged = self.received = 0
        self.held, self.limit = 0, KEPT_AT_LEAST
        # Pieces in order, the memory of each, and its buffer if it goes back to `_free`.
        self._pieces: deque[tuple[memoryview, int, Buffer | None]] = deque()
        # Where the first of them begins.
        self._begin = 0
        self._free: list[Buffer] = []
        # What was reported, and bytes that have come since and were acknowledgments.
        self._reported = self._acknowledgments = 0

    # ---- what was sent

    def buffer(self) -> Buffer | None:
        """Return one that is free again, if there is any."""
        return self._free.pop() if self._free else None

    def keep(self, piece: memoryview, buffer: Buffer | None = None) -> bool:
        """Keep what was just sent, until it is acknowledged.

        Args:
            piece: Whole frames.  Of a buffer, a view into it; otherwise it does not change any more.
            buffer: That one.

        Returns:
            The buffer was taken, too: its owner uses another one from now on.
        """
        size = len(piece)
        self.sent += size
        if buffer is not None and size >= COPY_BELOW:
            memory = len(buffer.whole) + PIECE_OVERHEAD
            self._pieces.append((piece, memory, buffer))
            self.held += memory
            return True
        # Frames have become short: buffers that were needed for long ones are not any more.
        del self._free[FREE_BUFFERS:]
        memory = size + PIECE_OVERHEAD
        self._pieces.append((piece if buffer is None else memoryview(bytes(piece)), memory, None))
        self.held += memory
        return False

    def check(self) -> None:
        """Check that the peer acknowledges: what answers it is kept, too, and has no other limit.

        Raises:
            PeerError: It does not.
        """
        if self.held > MOST_KEPT + CONTROL_KEPT:
            raise PeerError(words.ACKNOWLEDGES_NOTHING)

    def acknowledge(self, position: int) -> None:
        """Take in the peer's RECEIVED frame: the lower POSITION_BITS bits of its position.

        Raises:
            PeerError: So much was not sent.
        """
        self._acknowledgments += HEADER.size
        distance = (position - self.acknowledged) % (1 << POSITION_BITS)
        # An old one comes again when frames are sent again.
        if distance < 1 << (POSITION_BITS - 1):
            self._forget(self.acknowledged + distance)

    def rest(self, received: int) -> deque[memoryview]:
        """Return what a peer that has `received` bytes lacks, to be sent again in order before anything else.

        Raises:
            PeerError: It cannot have so many, or so few.
        """
        if received < self.acknowledged:
            raise PeerError(words.IMPOSSIBLE_POSITION)
        self._forget(received)
        pieces = [piece for piece, _, _ in self._pieces]
        if pieces:
            # It may have got a part of one in a record of its own.
            pieces[0] = pieces[0][received - self._begin :]
        return deque(pieces)

    def _forget(self, position: int) -> None:
        """Forget the pieces that end at `position` or before it."""
        if position > self.sent:
            raise PeerError(words.IMPOSSIBLE_POSITION)
        begin = self._begin
        while self._pieces and begin + len(self._pieces[0][0]) <= position:
            piece, memory, buffer = self._pieces.popleft()
            begin += len(piece)
            self.held -= memory
            if buffer is not None:
                self._free.append(buffer)
        self._begin = begin
        self.acknowledged = position
        if not self._pieces:
            del self._free[FREE_BUFFERS:]

    # ---- what was received

    def owed(self) -> int:
        """Return how many bytes are to be acknowledged."""
        few = self._acknowledgments if self._acknowledgments < MANY_ACKNOWLEDGMENTS else 0
        return self.received - self._reported - few

    def report(self) -> int:
        """Return the position that a RECEIVED frame says now."""
        self._reported, self._acknowledgments = self.received, 0
        return self.received


def most_kept(windows: int, *, near: bool) -> int:
    """Return how much may be kept beside receive windows of so many bytes: sources stop there."""
    if near:
        return KEPT_NEARBY
    return max(KEPT_AT_LEAST, min(MOST_KEPT, MAX_LINK_MEMORY - windows))
