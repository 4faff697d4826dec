"""The outgoing half of a hole: whole frames, one after another, as fast as it takes them.

    copied    read_into --> [ prefix | payload ] ----------------------> send
    sealed    read_into --> [ prefix | payload ] --> seal --> [record] --> send
    spliced   source --> [ pipe ] --> hole, with the prefix sent before it

Rule 1: a frame that has begun goes out whole before anything else.  What the
        hole has not taken yet stays here: at most one frame.
Rule 2: a byte that waits cannot be overtaken by another stream's.  So frames,
        and what the kernel keeps unsent, are short where the hole is slow:
        a few milliseconds' worth, by the rate at which it takes them; and the
        path's own queue is kept short too (pacing.py).

Owns no stream and no protocol rule; link.py decides whose turn it is.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable

from punchtunnel.ends.end import End
from punchtunnel.link.pacing import Pacer
from punchtunnel.protocol.agreement import MAX_PLAINTEXT, MAX_RECORD, Sealer
from punchtunnel.system import tcp
from punchtunnel.system.pipes import Pipe

# Bytes that may go before a payload, at the cost of no further system call or
# record: its own header, and the multiplexer's frames that wait.
PREFIX = 1024
# With them the longest frame that is copied fills one record.
LONGEST_FRAME = MAX_PLAINTEXT - PREFIX
# One that is spliced nearly fills a pipe, because its header costs as many calls as
# its payload.  A pipe of 1 MiB holds 256 pieces.  64 KiB that come out of TCP are 17
# of them, so 15 times as much fits, but for some that begin or end within a segment:
# the rest of a longer frame would cost two calls more, at both ends of the hole.
LONGEST_SPLICED_FRAME = 14 * 64 * 1024
FIRST_FRAME = 64 * 1024
SHORTEST_FRAME = 8 * 1024
# Seconds of the hole's rate that one frame may take.
FRAME_TIME = 0.005
# Frames that may wait unsent in the kernel.  When it runs dry, the congestion
# control takes that for our rate and stays slow: with a quarter of this BBR
# stayed at half the rate of a hole of 200 Mbit/s and 300 ms.
UNSENT_FRAMES = 4
# Bytes, until the rate is known.
FIRST_UNSENT = 1024 * 1024
# The header of what is spliced waits for it, so that both travel in one segment; only
# Linux has both.
_MORE = getattr(socket, "MSG_MORE", 0)
# Seconds over which the rate is taken: the kernel takes half its queue at a time.
# After LONGEST an interval says nothing, because there were pauses in it; unless the
# hole was full to its end, as slow ones are: there the kernel takes that long.
INTERVAL = 0.25
LONGEST_INTERVAL = 1.0
# The best of so many intervals counts.  TCP that starts slowly, or has lost
# something, sends in bursts with pauses of a round trip between them.
INTERVALS = 8
# Seconds for which somebody who has sent a small message may soon send another:
# people pause.
COMPANY = 10.0
# Measurements until the kernel's round trip is the path's: where SYNs have crossed,
# the first is too small (puncher.py), and counts for an eighth less with each.
SETTLED = 50


class Outgoing:
    """Sends frames to the hole.

    Args:
        sock: The hole; its owner closes it.
        sealer: Seals; None on a plain link.
        pipe: For splicing; owned from now on. None: copy.
        monotonic: Any steady time in seconds.
    """

    def __init__(
        self,
        sock: socket.socket,
        sealer: Sealer | None,
        pipe: Pipe | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._sock = sock
        self._sealer = sealer
        self._frame = memoryview(bytearray(PREFIX + LONGEST_FRAME))
        self._record = memoryview(bytearray(MAX_RECORD if sealer else 0))
        self._pipe = pipe
        # What the hole has not taken yet; what the pipe holds goes behind it.
        self._unsent = self._frame[:0]
        # Part of a frame waits for room.
        self.waits = False
        # Bytes of payload in the frame, behind the room for the prefix.
        self._loaded = 0
        # The source ends behind it, well or with this failure.
        self.found_end = False
        self.failure: OSError | None = None
        self.writable = True
        self.said_at = monotonic()
        # The most payload of one frame; of one that is copied, also LONGEST_FRAME.
        self.frame_limit = FIRST_FRAME
        self._longest = LONGEST_SPLICED_FRAME if pipe else LONGEST_FRAME
        self._began = self.said_at
        self._bytes = 0
        self._was_full = False
        self._rates: deque[float] = deque(maxlen=INTERVALS)
        self._pacer = Pacer()
        # When a small message went out while another stream had something to send.
        self.shared_at = float("-inf")
        self._unsent_limit = FIRST_UNSENT
        tcp.limit_unsent(sock, FIRST_UNSENT)

    @property
    def splices(self) -> bool:
        """Frames may go by way of a pipe."""
        return self._pipe is not None

    def send(self, frames: memoryview) -> None:
        """Send whole frames, at most MAX_PLAINTEXT bytes, when nothing waits.

        Raises:
            OSError: The hole is broken.
        """
        if self._sealer is not None:
            frames = self._record[: self._sealer.seal_into(frames, self._record)]
        self._unsent = frames
        self.send_on()

    def send_on(self) -> None:
        """Send what waits, as far as there is room.

        Raises:
            OSError: The hole is broken.
        """
        pipe, sent, was_full = self._pipe, 0, self.waits
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
        self._bytes += sent
        self.said_at = now = self._monotonic()
        if self.waits:
            self._was_full = True
        if now - self._began >= INTERVAL:
            self._measure(now, paused=not was_full and now - self._began >= LONGEST_INTERVAL)

    def load_copied(self, end: End, limit: int, *, to_end: bool = False) -> int | None:
        """Read up to `limit` bytes of payload from an end, when nothing waits.

        Args:
            end: Where from.
            limit: At most LONGEST_FRAME.
            to_end: The source has hung up: find the end too, if it is that near.

        Returns:
            The bytes read, 0 for EOF, None when nothing was there.

        Raises:
            OSError: The source is broken.
        """
        self.found_end, self.failure = False, None
        count = end.read_into(self._frame[PREFIX : PREFIX + limit])
        self._loaded = count or 0
        if not to_end:
            return count
        try:
            while count and self._loaded < limit:
                count = end.read_into(self._frame[PREFIX + self._loaded : PREFIX + limit])
                self._loaded += count or 0
                self.found_end = count == 0
        except OSError as error:
            # A socket tells of its reset once: the next read would take it for EOF.
            self.found_end, self.failure = True, error
        return self._loaded or count

    def load_spliced(self, source: int, limit: int) -> int | None:
        """Do the same by way of the pipe.

        Raises:
            OSError: The source is broken, or cannot be spliced from.
        """
        assert self._pipe is not None
        return self._pipe.fill(source, limit)

    def send_loaded(self, prefix: bytes) -> None:
        """Send the loaded payload behind what goes before it, at most PREFIX bytes.

        Raises:
            OSError: The hole is broken.
        """
        if self._pipe is not None and self._pipe.held:
            self._unsent = memoryview(prefix)
            self.send_on()
        else:
            begin = PREFIX - len(prefix)
            self._frame[begin:PREFIX] = prefix
            self.send(self._frame[begin : PREFIX + self._loaded])

    def close(self) -> None:
        """Close the pipe; the hole belongs to the caller."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        self._unsent = self._frame[:0]
        self.waits = self.writable = False

    def _measure(self, now: float, *, paused: bool) -> None:
        """Fit the length of frames, and the rate, to the rate at which the hole takes them."""
        elapsed = now - self._began
        if not paused:
            self._rates.append(self._bytes / elapsed)
            limit = int(max(self._rates) * FRAME_TIME)
            if len(self._rates) < INTERVALS or not self._was_full:
                # Not known yet, or as fast as that at least.
                limit = max(limit, self.frame_limit)
            self.frame_limit = max(SHORTEST_FRAME, min(limit, self._longest))
        self._pace(now)
        self._began, self._bytes, self._was_full = now, 0, False
        unsent = UNSENT_FRAMES * self.frame_limit
        # Not for every small change: it costs a system call.
        if not self._unsent_limit / 2 < unsent < self._unsent_limit * 2:
            self._unsent_limit = unsent
            tcp.limit_unsent(self._sock, unsent)

    def _pace(self, now: float) -> None:
        """Keep the path's queue short while small messages share the hole."""
        progress = tcp.progress(self._sock)
        if progress is None or progress.samples < SETTLED:
            return
        before = self._pacer.limit
        company = now - self.shared_at < COMPANY
        self._pacer.update(now, progress.round_trip, progress.rate, full=self._was_full, company=company)
        if self._pacer.limit != before:
            tcp.limit_rate(self._sock, self._pacer.limit)
