"""What the multiplexer knows of a stream, and the events that it yields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from punchtunnel.protocol.credit import Windows


@dataclass(slots=True, eq=False, kw_only=True)
class StreamState(Windows):
    """What both sides of the link know of one stream.

    Attributes:
        number: As on the wire.
        service: What the opener asks for; "": what the far side joins it to.
        accepted: The far side has joined it to something.
        sized: The peer has told how much it will send.
        finished_here: Nothing more will be sent.
        finished_there: The peer will send no more.
        gone: The multiplexer knows it no longer: it is over, or was reset.
        kept: It is not over before `Mux.release`: what was received is not safe yet.
    """

    number: int
    service: str = ""
    accepted: bool = False
    sized: bool = False
    finished_here: bool = False
    finished_there: bool = False
    gone: bool = False
    kept: bool = False


# What stands for a stream: its record, as a rule.
T = TypeVar("T")


class Data(NamedTuple, Generic[T]):
    """A piece of payload of `stream`, in order: a view into what was received, valid until the next event."""

    stream: T
    data: memoryview


@dataclass(frozen=True, slots=True)
class Opened(Generic[T]):
    """The peer opened `stream`; accept() or reset() it."""

    stream: T


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """The peer will send no more on `stream`: EOF, once all data is written."""

    stream: T


@dataclass(frozen=True, slots=True)
class Reset:
    """How a stream was reset.

    Attributes:
        reason: As on the wire.
        accepted: It had been joined to something.
        given_up: The peer had opened it, and did not wait for the first byte.
        service: As in StreamState.
    """

    reason: int
    accepted: bool
    given_up: bool = False
    service: str = ""


@dataclass(frozen=True, slots=True)
class Gone(Generic[T]):
    """`stream` was reset: by the peer, or for what it held (credit.py)."""

    stream: T
    reset: Reset


@dataclass(frozen=True, slots=True)
class Credited(Generic[T]):
    """`stream` may send more than before."""

    stream: T


@dataclass(frozen=True, slots=True)
class Sized(Generic[T]):
    """The peer knows how many bytes it will send on `stream`."""

    stream: T
    size: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answered the ping `value` after `rtt` seconds."""

    value: int
    rtt: float


@dataclass(frozen=True, slots=True)
class Received:
    """The peer has received our frames up to this position, as in a RECEIVED frame.

    `came_at`: when the last of their bytes came, in microseconds of the peer's clock, modulo 2^32; 0 where nothing
    goes by that.
    """

    position: int
    came_at: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer is done with the link."""

    code: int


@dataclass(frozen=True, slots=True)
class OfferCame:
    """The peer has said how it can be met without the relay (offers.py)."""

    data: bytes


Event = Data[T] | Opened[T] | Finished[T] | Gone[T] | Credited[T] | Sized[T] | Pong | Received | OfferCame | GoneAway
