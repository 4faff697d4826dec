"""What a session is to do, and how it has ended: plain values between command.py or tunnel.py and session.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from punchtunnel.address import AnyPlace
from punchtunnel.errors import Exit
from punchtunnel.protocol.hello import Role

if TYPE_CHECKING:
    import socket

    from punchtunnel.ends.end import End


@dataclass(frozen=True, slots=True)
class Plan:
    """What this side joins the streams to.

    Attributes:
        role: As sent in the hello.
        listeners: Bound sockets of -L; they stay open for the next session.
        target: Where --to leads.
        stdin: Descriptor, or None for an immediate EOF.
        stdout: Descriptor, or None if it was closed from the start.
        stdin_size: Bytes that stdin has, if it is a file.
        discard: --send-only.
        keep_open: -k: EOF of one session is not EOF of stdout.
        idle: Seconds without payload that end the session; 0: never.
        traffic_every: Seconds between two reports of the traffic; 0: none.
        before_output: Called before anything is written to stdout.
        check: -z: measure the round trip, and nothing else.
        ends: A program's own ends in place of all the above but the role: makes
            the one for a stream that the peer has opened, or None for none.
            The program opens streams itself.
    """

    role: Role
    listeners: Sequence[socket.socket] = ()
    target: AnyPlace | None = None
    stdin: int | None = None
    stdout: int | None = None
    stdin_size: int | None = None
    discard: bool = False
    keep_open: bool = False
    idle: float = 0.0
    traffic_every: float = 0.0
    before_output: Callable[[], None] | None = None
    check: bool = False
    ends: Callable[[int], End | None] | None = None


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """What -z has measured, in seconds."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> RoundTrips:
        """Sum up at least one round trip."""
        times = sorted(seconds)
        count = len(times)
        return cls(times[0], (times[(count - 1) // 2] + times[count // 2]) / 2, times[-1])


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended: the exit status and the sentence for it, or ""; with -z, what it found."""

    status: Exit
    reason: str
    round_trips: RoundTrips | None = None
