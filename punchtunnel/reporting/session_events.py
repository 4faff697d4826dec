"""The events of a session and its streams; see events.py, by which they are named."""

from __future__ import annotations

from punchtunnel.reporting.event import Event, Level


class LinkUp(Event, name="link_up", level=Level.INFO, sentence="link up on {loop}, {side}", notice="READY=1"):
    """Streams can be opened; does not come where one side only checks the path (-z)."""

    loop: str
    side: str


class RoundTrip(Event, name="rtt", sentence="round trip {rtt_s:.4f} s"):
    """A ping was answered."""

    rtt_s: float


class Announced(Event, name="announced", sentence="{direction}: {bytes} bytes in all"):
    """With stdio, stdin here ("out") or there ("in") is a file of so many bytes."""

    direction: str
    bytes: int


class StdinUnreadable(
    Event, name="stdin_unreadable", level=Level.INFO, sentence="stdin cannot be read ({reason}): it counts as empty"
):
    """With stdio, stdin can never be read, as after nohup; the transfer goes on without it."""

    reason: str


class PathMeasured(Event, name="path"):
    """With -z, the round trip was measured."""

    local: str
    remote: str
    rtt_min_s: float
    rtt_median_s: float
    rtt_max_s: float


class Checked(
    Event,
    name="checked",
    level=Level.NOTE,
    sentence="the peer at {remote} has checked the path (-z) and left; punching on",
):
    """The peer has only checked the path; punching goes on."""

    remote: str


class Lost(
    Event,
    name="lost",
    level=Level.NOTE,
    sentence="connection lost ({reason}); reconnecting, open streams that wait: {streams}",
    notice="STATUS=connection lost ({reason}); reconnecting",
    repeats=True,
):
    """The hole is lost, and another one is looked for: the session goes on over it."""

    reason: str
    streams: int


class CannotResume(Event, name="cannot_resume", level=Level.INFO, sentence="{reason}"):
    """The session ends with its hole."""

    reason: str


class TriedAgain(
    Event, name="tried_again", sentence="not back yet ({reason}); trying again", repeats=True, strange=True
):
    """A try to reconnect has failed; the next one follows."""

    reason: str


class Resumed(
    Event,
    name="resumed",
    level=Level.NOTE,
    sentence="back after {lost_s:.1f} s: {local} to {remote}",
    notice="STATUS=connected, {local} to {remote}",
    repeats=True,
):
    """The session goes on over another hole; nothing is lost."""

    local: str
    remote: str
    lost_s: float


class Traffic(Event, name="traffic", progress="elapsed_s"):
    """The bytes so far, and the number of streams that are open now."""

    elapsed_s: float
    bytes_in: int
    bytes_out: int
    streams: int


class LinkEnded(
    Event, name="link_ended", level=Level.INFO, sentence="link ended, {bytes_in} bytes received and {bytes_out} sent"
):
    """The session is over; `reason` is "" if there is nothing to explain, and `status` 0 if it ended well."""

    reason: str
    elapsed_s: float
    bytes_in: int
    bytes_out: int
    status: int


class SessionOver(
    Event,
    name="session_over",
    level=Level.INFO,
    sentence="{reason}; others that are up: {sessions}",
    notice="STATUS={reason}; waiting for others, sessions that are up: {sessions}",
    repeats=True,
):
    """One session of a service is over; `sessions` others go on."""

    reason: str
    sessions: int


# ---- streams


class StreamOpened(Event, name="stream_opened", level=Level.INFO, sentence="stream {stream}: {what}", repeats=True):
    """A connection of -L, or to the target of --to, is joined to a stream."""

    stream: int
    what: str


class StreamClosed(Event, name="stream_closed", sentence="stream {stream}: closed"):
    """Both directions of a stream have ended."""

    stream: int


class StreamReset(Event, name="stream_reset", level=Level.INFO, sentence="stream {stream}: {reason}", repeats=True):
    """A stream broke."""

    stream: int
    reason: str


class TargetRefused(Event, name="target_refused", level=Level.NOTE, sentence="stream {stream}: {reason}", repeats=True):
    """The target of --to could not be reached, here or there."""

    stream: int
    reason: str
