"""Every event that a run reports: a type each, with its fields, its sentence and its level.

    something happens ──> Event ──> Report ──┬──> a sentence on stderr      `level`, `sentence`
                                             ├──> one JSON object a line    `name`, the fields
                                             ├──> the line of a terminal    the type (state.py)
                                             └──> the service manager       `notice`

Names, fields and their types are a contract with programs: docs/EVENTS.md
describes them, and a change raises SCHEMA.  A field's name carries its unit
(`waited_s` is seconds).  Nothing decides by an event's name: code matches on
the type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, TypeVar, dataclass_transform

SCHEMA = 1


class Level(IntEnum):
    """From which verbosity on an event is printed: -q is -1, -v is 1, -vv is 2."""

    ERROR = -1
    NOTE = 0
    INFO = 1
    DEBUG = 2


class Event:
    """What all events have in common.

    Attributes:
        name: In JSON.
        level: From which verbosity on people read the sentence.
        sentence: For people, filled in with the fields; "" is for programs only.
        notice: For a service manager, filled in likewise; "" tells it nothing.
        warns: A person at a terminal reads it without -v too, and can act on it.
        repeats: The peer or a stranger can cause it as often as they like.
        progress: The field that changes even if nothing happens, where the event
            comes again and again while a state lasts; "" where it does not.
    """

    name: ClassVar[str]
    level: ClassVar[Level]
    sentence: ClassVar[str]
    notice: ClassVar[str]
    warns: ClassVar[bool]
    repeats: ClassVar[bool]
    progress: ClassVar[str]

    def __init_subclass__(
        cls,
        *,
        name: str,
        level: Level = Level.DEBUG,
        sentence: str = "",
        notice: str = "",
        warns: bool = False,
        repeats: bool = False,
        progress: str = "",
    ) -> None:
        cls.name, cls.level, cls.sentence, cls.notice = name, level, sentence, notice
        cls.warns, cls.repeats, cls.progress = warns, repeats, progress

    @property
    def fields(self) -> dict[str, object]:
        """The fields by their names, in the order of docs/EVENTS.md."""
        return vars(self)

    def fill(self, text: str) -> str:
        """Return a text with the fields in their places."""
        return text.format_map(vars(self))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


Kind = TypeVar("Kind", bound=Event)


@dataclass_transform(frozen_default=True)
def event(kind: type[Kind]) -> type[Kind]:
    """Make a type of event: a dataclass that type checkers take for a frozen one.

    At run time it only gets its `__init__`, and the rest is Event's: thirty
    frozen dataclasses cost every start 13 ms, these 4 (measured).
    """
    return dataclass(eq=False, repr=False)(kind)


Report = Callable[[Event], None]


def unreported(_: Event) -> None:
    """Drop an event: the report of a program that wants none."""


# ---- the run


@event
class Started(Event, name="start"):
    """The run has begun; comes first."""

    schema: int
    version: str
    pid: int


@event
class Listening(Event, name="listening", level=Level.NOTE, sentence="listening on {place}"):
    """A -L is bound."""

    place: str


@event
class Warned(Event, name="warning", level=Level.NOTE, sentence="{reason}"):
    """Something is not as it should be, and the run goes on."""

    reason: str


@event
class PunchingAgain(
    Event,
    name="punching_again",
    level=Level.INFO,
    sentence="{reason}; punching again",
    notice="STATUS={reason}; punching again",
):
    """With -k, a session has ended or a peer was rejected."""

    reason: str


@event
class TryingNow(Event, name="trying_now", level=Level.INFO, sentence="told to try now (SIGHUP): {what}"):
    """With -k, SIGHUP has come."""

    what: str


@event
class Exited(Event, name="exit", level=Level.ERROR, sentence="{reason}", notice="STOPPING=1\nSTATUS={reason}"):
    """The run is over; comes last.  `reason` is "" if there is nothing to say."""

    status: int
    reason: str


# ---- punching


@event
class Punching(
    Event,
    name="punching",
    level=Level.INFO,
    sentence="punching towards {peer} on {port_count} ports",
    notice="STATUS=punching towards {peer} on {port_count} ports",
):
    """Punching begins, or goes on with other ports."""

    peer: str
    port_count: int
    ports: list[int]


@event
class Waiting(Event, name="waiting", progress="waited_s"):
    """There is no hole yet."""

    waited_s: float
    dials: int


@event
class Unresolved(Event, name="unresolved", level=Level.INFO, sentence="{reason}", notice="STATUS={reason}"):
    """A name has no address, for now."""

    reason: str


@event
class PortBusy(Event, name="port_busy", sentence="port {port} is taken on this machine ({reason}): skipped"):
    """Another program has a port; the other ports are used."""

    port: int
    reason: str


@event
class DialFailed(Event, name="dial_failed", sentence="dial from port {port} to {remote}: {reason}"):
    """A dial has ended with an error, as most do."""

    port: int
    remote: str
    reason: str


@event
class ForeignDial(
    Event,
    name="foreign",
    level=Level.INFO,
    sentence="{remote} dialled a port of ours and is not the peer: closed",
    repeats=True,
):
    """A stranger has dialled a port of ours."""

    remote: str


@event
class Opened(Event, name="opened", sentence="a connection opened: {local} to {remote}"):
    """A connection has opened; with whom is not known yet."""

    local: str
    remote: str


@event
class Dropped(
    Event, name="dropped", level=Level.INFO, sentence="the connection to {remote} {reason}: closed", repeats=True
):
    """A connection was not with the peer."""

    remote: str
    reason: str


@event
class Rejected(Event, name="rejected", level=Level.NOTE, sentence="{remote}: {reason}", repeats=True):
    """The peer's role, version or secret does not fit, or somebody else's."""

    remote: str
    reason: str


@event
class RejectedAgain(Event, name="rejected_again", sentence="{remote}: {reason}"):
    """The same for the same reason, once more from the same source."""

    remote: str
    reason: str


# ---- the hole and the link


@event
class HoleOpened(
    Event,
    name="hole",
    level=Level.INFO,
    sentence="hole open: {local} to {remote}, {role} there, after {waited_s:.2f} s and {dials} dials",
    notice="STATUS=connected, {local} to {remote}",
):
    """Both sides agree on one connection; `role` is the peer's, as options."""

    local: str
    remote: str
    rtt_s: float | None
    role: str
    leads: bool
    waited_s: float
    dials: int


@event
class Sealed(
    Event,
    name="sealed",
    level=Level.INFO,
    sentence="link sealed; verifier {verifier}, the same on both sides unless somebody stands between",
):
    """The link is sealed; never with --plain."""

    authenticated: bool
    verifier: str


@event
class Unauthenticated(
    Event,
    name="unauthenticated",
    level=Level.INFO,
    sentence="the link is sealed, but the peer is not authenticated: give both sides the same secret",
    warns=True,
):
    """After Sealed, without a secret."""


@event
class LinkUp(Event, name="link_up", level=Level.INFO, sentence="link up on {loop}, {side}", notice="READY=1"):
    """Streams can be opened; never where one side only checks the path (-z)."""

    loop: str
    side: str


@event
class RoundTrip(Event, name="rtt", sentence="round trip {rtt_s:.4f} s"):
    """A ping was answered."""

    rtt_s: float


@event
class Announced(Event, name="announced", sentence="{direction}: {bytes} bytes in all"):
    """With stdio, stdin here ("out") or there ("in") is a file: so many bytes will come."""

    direction: str
    bytes: int


@event
class PathMeasured(Event, name="path"):
    """With -z, the round trip was measured."""

    local: str
    remote: str
    rtt_min_s: float
    rtt_median_s: float
    rtt_max_s: float


@event
class Checked(
    Event,
    name="checked",
    level=Level.NOTE,
    sentence="the peer at {remote} has checked the path (-z) and left; punching on",
):
    """The peer has only checked the path (-z); punching goes on."""

    remote: str


@event
class Traffic(Event, name="traffic", progress="elapsed_s"):
    """How much has moved so far; `streams` are open now."""

    elapsed_s: float
    bytes_in: int
    bytes_out: int
    streams: int


@event
class LinkEnded(
    Event, name="link_ended", level=Level.INFO, sentence="link ended, {bytes_in} bytes received and {bytes_out} sent"
):
    """The session is over; `reason` is "" if it ended well."""

    reason: str
    elapsed_s: float
    bytes_in: int
    bytes_out: int


# ---- streams


@event
class StreamOpened(Event, name="stream_opened", level=Level.INFO, sentence="stream {stream}: {what}", repeats=True):
    """A connection of -L, or to the target of --to, is joined to a stream."""

    stream: int
    what: str


@event
class StreamClosed(Event, name="stream_closed", sentence="stream {stream}: closed"):
    """Both directions of a stream have ended."""

    stream: int


@event
class StreamReset(Event, name="stream_reset", level=Level.INFO, sentence="stream {stream}: {reason}", repeats=True):
    """A stream broke."""

    stream: int
    reason: str


@event
class TargetRefused(Event, name="target_refused", level=Level.NOTE, sentence="stream {stream}: {reason}", repeats=True):
    """The target of --to could not be reached, here or there."""

    stream: int
    reason: str
