"""The outgoing half of a hole: whole frames, one after another, as fast as it takes them.

    copied    source --> [ prefix | payload ] ---------------------> send
    sealed    source --> [ prefix | payload ] --> seal --> [record] --> send
    spliced   source --> [ pipe ] --> hole, with the prefix sent before it

    kept      sealed, and then the buffer with prefix and payload goes to the journal (resume.py)

Rule 1: a frame that has begun goes out whole before anything else.  What the
        hole has not taken yet stays here: at most one frame.
Rule 2: frames, and what the kernel keeps unsent, are as short as the hole is
        slow (tempo.py decides; the kernel is told here).

Owns no stream and no protocol rule; link.py decides whose turn it is.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from punchtunnel.link.tempo import Tempo
from punchtunnel.protocol.records import MAX_PLAINTEXT, MAX_RECORD, Sealer
from punchtunnel.protocol.resume import Buffer, Journal
from punchtunnel.system import tcp
from punchtunnel.system.pipes import Pipe

# Bytes that may go before a payload without another system call or record: its own
# header, and frames of the multiplexer that wait.
PREFIX = 1024
# With them the longest frame that is copied fills one record.
LONGEST_FRAME = MAX_PLAINTEXT - PREFIX
# A source that gives so much at a time waits for credit for as much: a shorter frame
# would not be worth its header.  Nor is less worth the two system calls of splicing.
BULK = 32 * 1024
# The header of a spliced payload waits for it, so that both travel in one segment.
# Only Linux has MSG_MORE, and only Linux splices.
_MORE = getattr(socket, "MSG_MORE", 0)


class Outgoing:
    """Sends frames to the hole.

    Args:
        sock: The hole; its owner closes it.
        sealer: Seals; None on a plain link.
        pipe: What it holds is a payload, and goes after its prefix; None: all payload is copied.
        longest_frame: The most payload of one frame; of one that is copied, also LONGEST_FRAME.
        monotonic: Any steady time in seconds.
        journal: Keeps what is sealed until the peer has it; None: nothing is kept.

    Attributes:
        tempo: How long the next frame may be.
        room: Where payload that is copied is read to.
        waits: Part of a frame waits for room.
        writable: The hole may take something.
        said_at: When something was sent last, or the hole was found full.
    """

    def __init__(
        self,
        sock: socket.socket,
        sealer: Sealer | None,
        pipe: Pipe | None = None,
        longest_frame: int = LONGEST_FRAME,
        monotonic: Callable[[], float] = time.monotonic,
        journal: Journal | None = None,
    ) -> None:
        self._monotonic = monotonic
        self._sock = sock
        self._sealer = sealer
        self._pipe = pipe
        self._journal = journal
        self._use((journal and journal.buffer()) or _new_buffer())
        self._record = memoryview(bytearray(MAX_RECORD if sealer else 0))
        # What the hole has not taken yet; what the pipe holds comes after it.
        self._unsent = self._frame[:0]
        self.waits = False
        self.writable = True
        self.said_at = monotonic()
        self.tempo = Tempo(self.said_at, longest_frame)
        tcp.limit_unsent(sock, self.tempo.unsent_limit)
        # Since the last update of the tempo.
        self._sent = 0
        self._was_full = False

    def send(self, frames: memoryview) -> None:
        """Send whole frames, at most MAX_PLAINTEXT bytes, when nothing waits.

        Raises:
            OSError: The hole is broken.
        """
        if self._journal is not None:
            self._journal.keep(frames)
        self.send_again(frames)

    def send_again(self, frames: memoryview) -> None:
        """Send what the journal keeps already, or what nobody keeps; otherwise like `send`."""
        if self._sealer is not None:
            frames = self._record[: self._sealer.seal_into(frames, self._record)]
        self._unsent = frames
        self.send_on()

    def send_loaded(self, prefix: bytes, count: int) -> None:
        """Send a frame, when nothing waits.

        Args:
            prefix: What goes before the payload, at most PREFIX bytes.
            count: Bytes of payload: in `room`, or in the pipe.

        Raises:
            OSError: The hole is broken.
        """
        if self._pipe is not None and self._pipe.held:
            self._unsent = memoryview(prefix)
        else:
            begin = PREFIX - len(prefix)
            self._frame[begin:PREFIX] = prefix
            self._unsent = frames = self._frame[begin : PREFIX + count]
            if self._sealer is not None:
                self._unsent = self._record[: self._sealer.seal_into(frames, self._record)]
                if self._journal is not None and self._journal.keep(frames, self._buffer):
                    self._use(self._journal.buffer() or _new_buffer())
        self.send_on()

    def send_on(self) -> None:
        """Send what waits, as far as there is room.

        Raises:
            OSError: The hole is broken.
        """
        pipe, sent, waited = self._pipe, 0, self.waits
        spliced = pipe is not None and pipe.held > 0
        try:
            if self._unsent:
                sent = self._sock.send(self._unsent, _MORE if spliced else 0)
                self._unsent = self._unsent[sent:]
            if pipe is not None and spliced and not self._unsent:
                sent += pipe.drain(self._sock.fileno())
                spliced = pipe.held > 0
        except BlockingIOError:
            pass
        self.waits = spliced or len(self._unsent) > 0
        self.writable = sent > 0
        self._sent += sent
        self.said_at = now = self._monotonic()
        if self.waits:
            self._was_full = True
        if now >= self.tempo.next_update:
            self._update(now, waited)

    def close(self) -> None:
        """Forget what waits; the hole and the pipe belong to the caller."""
        self._pipe = None
        self._unsent = self._frame[:0]
        self.waits = self.writable = False

    def _use(self, buffer: Buffer) -> None:
        """Put what comes next together in this buffer."""
        self._buffer = buffer
        self._frame, self.room = buffer

    def _update(self, now: float, waited: bool) -> None:
        """Let the tempo decide anew, and tell the kernel what has changed."""
        tempo = self.tempo
        unsent_limit, rate_limit = tempo.unsent_limit, tempo.rate_limit
        tempo.update(now, self._sent, filled=self._was_full, waited=waited, progress=tcp.progress(self._sock))
        self._sent, self._was_full = 0, False
        if tempo.unsent_limit != unsent_limit:
            tcp.limit_unsent(self._sock, tempo.unsent_limit)
        if tempo.rate_limit != rate_limit:
            tcp.limit_rate(self._sock, tempo.rate_limit)


def _new_buffer() -> Buffer:
    whole = memoryview(bytearray(PREFIX + LONGEST_FRAME))
    return Buffer(whole, whole[PREFIX:])
