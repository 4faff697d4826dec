"""Frames without payload that wait to be sent: they go before any further payload.

Rule 1: what only opens or accepts a stream goes with that stream's payload, if nothing
        else is said in between: a frame less at either end.
Rule 2: what answers the peer is counted: one that asks and does not read would make this side hold ever more.
"""

from __future__ import annotations

from punchtunnel.protocol.frames import ACK, HEADER, SYN, VERSION, WINDOW, Header

# Bytes of answers that wait while the link is congested: to pings, and to streams
# that come and go.  No peer of ours asks for more without reading them.
MAX_ANSWERS = 256 * 1024
EVERYTHING = 2**32 - 1
NONE = (0, 0)


class ControlFrames:
    """Those of one side of a link.

    Attributes:
        control: Frames that wait to be sent, whole; `take_control` takes them.
        is_urgent: Some of them are worth a segment of their own; the others can wait a little for company.
    """

    def __init__(self) -> None:
        self.control = bytearray()
        self.is_urgent = False
        # Bytes of `control` that answer the peer.
        self._answers = 0
        # The stream that the last frame of `control` opens or accepts, and the flag that does so.
        self._joined = NONE

    def take_control(self, limit: int = EVERYTHING) -> bytes:
        """Return and forget what waits, at most `limit` bytes; what is left of it goes before any further data."""
        size = min(len(self.control), limit - limit % HEADER.size)
        control = bytes(self.control[:size])
        del self.control[:size]
        self._answers = min(self._answers, len(self.control))
        self.is_urgent = self.is_urgent and bool(self.control)
        self._joined = NONE
        return control

    def hurry(self) -> None:
        """Make urgent what waits: it has waited long enough."""
        self.is_urgent = bool(self.control)

    def _say(self, header: Header, body: bytes = b"") -> None:
        """Send a frame with a number that may not fit into the length field alone, or with a body."""
        self.control += header.encode() + body
        self.is_urgent = True
        self._joined = NONE

    def _say_joined(self, flag: int, stream: int) -> None:
        """Send SYN, or ACK, which can wait for company."""
        self._send(WINDOW, flag, stream, 0, answer=flag == ACK, urgent=flag == SYN)
        self._joined = stream, flag

    def _take_joined(self, stream: int) -> int:
        """Return the flag that the next DATA frame of a stream has to carry, for which no other frame is sent now."""
        number, flag = self._joined
        if number != stream:
            return 0
        self._joined = NONE
        del self.control[-HEADER.size :]
        self._answers = min(self._answers, len(self.control))
        self.is_urgent = self.is_urgent and bool(self.control)
        return flag

    def _send(
        self, kind: int, flags: int, stream: int, length: int, *, answer: bool = False, urgent: bool = True
    ) -> None:
        self.control += HEADER.pack(VERSION, kind, flags, stream, length)
        self._joined = NONE
        if urgent:
            self.is_urgent = True
        if answer:
            self._answers += HEADER.size
