"""Single records on a hole that no link is on yet: blocking, with limits, because a punch blocks, too."""

from __future__ import annotations

import errno
import os
import select
import time

from punchtunnel import words
from punchtunnel.errors import LostError, PeerError
from punchtunnel.protocol.records import HEADER, OVERHEAD, seals_of
from punchtunnel.punching.hole import Hole
from punchtunnel.system.signals import Wake
from punchtunnel.words import peer

# Seconds: some round trips, and a process that is slow.
ANSWER_TIMEOUT = 5.0
_RECEIVE_SIZE = 65536


class RawRecords:
    """Says and hears them.

    Args:
        hole: A sealed one.  Its seals go on after what was said and heard here.

    Attributes:
        seals: What they are sealed and opened with.
        unread: What has come after the last one that was heard.
    """

    def __init__(self, hole: Hole) -> None:
        assert hole.keys is not None
        self._sock = hole.sock
        self.seals = hole.seals or seals_of(hole.keys, fast_aes=hole.fast_aes)
        self.unread = hole.unread

    def say(self, plaintext: bytes, kind: int) -> None:
        """Send one.

        Raises:
            OSError: The hole is broken, or takes nothing for ANSWER_TIMEOUT.
        """
        self._sock.settimeout(ANSWER_TIMEOUT)
        self._sock.sendall(self.seals[0].seal(plaintext, kind))

    def hear(self, kind: int, most: int, timeout: float, signals: Wake, *, hurries: bool = False) -> bytes:
        """Receive one.

        Args:
            kind: Of the record.
            most: Bytes of plaintext.
            timeout: Seconds.
            signals: What may end the wait.
            hurries: That something is to be tried now ends the wait, too.

        Raises:
            TimeoutError: It has not come; what has come of it is kept.
            OSError: The hole is broken.
            LostError: The hole has ended.
            PeerError: What comes is something else.
            SignalError: A signal has come.
        """
        deadline = time.monotonic() + timeout
        self._receive(HEADER.size, deadline, signals, hurries)
        size = self.seals[1].record_size(self.unread, kind=kind)
        if size > most + OVERHEAD:
            raise PeerError(peer.IMPOSSIBLE_RECORD)
        self._receive(size, deadline, signals, hurries)
        plaintext = bytes(self.seals[1].open(memoryview(self.unread)[:size]))
        self.unread = self.unread[size:]
        return plaintext

    def _receive(self, size: int, deadline: float, signals: Wake, hurries: bool) -> None:
        """Receive until there are at least `size` bytes."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(signals, select.POLLIN)
        while len(self.unread) < size:
            if not (ready := poll.poll(max(deadline - time.monotonic(), 0) * 1000)):
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            if signals.check() and hurries:
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            if all(number != self._sock.fileno() for number, _ in ready):
                continue
            piece = self._sock.recv(_RECEIVE_SIZE)
            if not piece:
                raise LostError(words.LINK_CUT)
            self.unread += piece
