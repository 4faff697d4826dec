"""What people and programs are told; stdout carries tunnel bytes only.

    event ──> Status ──┬──> Events    for programs: one JSON object a line
                       ├──> Display   for people: the line of a terminal (display.py)
                       ├──> text      for people: one sentence a line, on stderr
                       └──> manager   for systemd, if it has started this (notify.py)

Without a terminal there is silence until an error; -v tells more, -q less.
docs/EVENTS.md says what programs are told, on stderr (--json) or elsewhere
(--status-fd).

Rule 1: telling never ends a run and never holds it up: what cannot be written,
        or is not read for a while, is lost.
Rule 2: `start` comes first, `exit` comes last.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

from punchtunnel import words
from punchtunnel.errors import UsageError
from punchtunnel.words import usage
from punchtunnel.words.events import Level

if TYPE_CHECKING:
    from punchtunnel.reporting.display import Display

# Said on a terminal without -v too: there is a person who can act on it.
_FOR_PEOPLE = {"unauthenticated"}

# Seconds that a reader may take to make room for a line, and for the last one.
PATIENCE = 0.05
LAST_PATIENCE = 1.0
# Events that come again and again while a state lasts, the fields that change
# even if nothing else does, and the seconds between two of them.
PERIODIC = {"waiting": "waited_s", "traffic": "elapsed_s"}
PERIOD = 10.0
# Events that the peer or strangers can cause as often as they like.  Of each, people
# are told so many at once, and one a second after that; -vv tells all.
REPEATED = {"foreign", "dropped", "rejected", "stream_opened", "stream_reset", "target_refused"}
AT_ONCE = 20
# A timer of PERIOD seconds may be early by this much.
SLACK = 0.5


class Output:
    """A stream that is given up for the moment when nobody reads it.

    A terminal that is stopped (Ctrl-S) and a full pipe would block a write,
    and the tunnel with it.

    Attributes:
        lost: Writes that were dropped since the last one that was not.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._poll: select.poll | None = None
        self.lost = 0
        with contextlib.suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(stream.fileno(), select.POLLOUT)
            self._poll = poll

    def write(self, text: str, patience: float = PATIENCE) -> None:
        """Write whole lines, unless there is no room for them for `patience` seconds.

        Raises:
            OSError: Nobody will ever read them, or the disk is full.
            ValueError: The stream is closed.
        """
        # Who did not read the last one is not waited for again.
        wait = 0.0 if self.lost and patience == PATIENCE else patience
        if self._poll is not None and not self._poll.poll(wait * 1000):
            self.lost += 1
            return
        self._stream.write(text)
        self._stream.flush()
        self.lost = 0


class Events:
    """One JSON object a line for every event; docs/EVENTS.md has the schema.

    Args:
        output: Where to.
        clock: Unix time in seconds.
    """

    def __init__(self, output: Output, clock: Callable[[], float] = time.time) -> None:
        self._output = output
        self._clock = clock
        self._told: dict[str, tuple[float, dict[str, object] | None]] = {}

    def __call__(self, event: str, fields: dict[str, object]) -> None:
        """Tell one event."""
        now = self._clock()
        if event in PERIODIC and not self._is_news(event, fields, now):
            return
        lost = {"lost": self._output.lost} if self._output.lost else {}
        line = json.dumps({"time_s": now, "event": event} | fields | lost, default=str)
        self._output.write(f"{line}\n", LAST_PATIENCE if event == "exit" else PATIENCE)

    def _is_news(self, event: str, fields: dict[str, object], now: float) -> bool:
        """Tell whether a periodic event is due, and says something new."""
        state = {name: value for name, value in fields.items() if name != PERIODIC[event]}
        then, told = self._told.get(event, (float("-inf"), None))
        # A clock that was set back must not silence it for long.
        if 0 <= now - then < PERIOD - SLACK or state == told:
            return False
        self._told[event] = now, state
        return True


class Flood:
    """Keeps what others can repeat at will from filling a log.

    Args:
        monotonic: Any steady time in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        # When each event will have all its lines again, and how many were left out.
        self._whole_at: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def passes(self, event: str) -> bool:
        """Tell whether one more line is to be written."""
        now = self._monotonic()
        whole_at = max(now, self._whole_at.get(event, now))
        if whole_at - now > AT_ONCE - 1:
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return False
        self._whole_at[event] = whole_at + 1
        return True

    def take_left_out(self, event: str) -> int:
        """Return how many were left out since the last one that passed."""
        return self._left_out.pop(event, 0)


class Status:
    """Tells everybody; an instance is a words.Report.

    Args:
        verbosity: -1 (-q) to 2 (-vv).
        output: For sentences; None for none (stderr was closed, or has the events).
        events: For programs.
        display: The line of a terminal, or --progress.
        manager: What tells a service manager; it raises nothing.
        flood: Decides what of it is too much.
    """

    def __init__(
        self,
        verbosity: int,
        output: Output | None,
        events: Events | None = None,
        display: Display | None = None,
        manager: Callable[[str, dict[str, object]], None] | None = None,
        flood: Flood | None = None,
    ) -> None:
        self._flood = flood or Flood()
        self._verbosity = verbosity
        self._output = output
        self._events = events
        self._display = display
        self._manager = manager

    def __call__(self, event: str, /, **fields: object) -> None:
        """Tell one event to whom it is for; never raises OSError."""
        if self._events is not None:
            with contextlib.suppress(OSError, ValueError):
                self._events(event, fields)
        person = self._display is not None and self._display.has_person
        # Most events of a busy tunnel are for nobody.
        shown = words.level(event) <= self._verbosity or (person and event in _FOR_PEOPLE)
        if shown and self._verbosity <= Level.INFO and event in REPEATED:
            shown = self._flood.passes(event)
        text = words.sentence(event, fields) if shown else ""
        if text and (left_out := self._flood.take_left_out(event)):
            text += words.left_out(left_out)
        if text or self._display is not None:
            # A log that cannot be written must not end a transfer.
            with contextlib.suppress(OSError, ValueError):
                self._tell_people(event, fields, text)
        if self._manager is not None:
            self._manager(event, fields)

    def _tell_people(self, event: str, fields: dict[str, object], text: str) -> None:
        if self._display is not None:
            self._display.take(event, fields)
        if event == "exit":
            self.close()
        if text:
            self._print(f"punchtunnel: {text}\n", LAST_PATIENCE if event == "exit" else PATIENCE)

    @property
    def traffic_every(self) -> float:
        """Seconds between two looks at the traffic that somebody wants; 0: nobody does."""
        display = 0.0 if self._display is None else self._display.traffic_every
        return display or (PERIOD if self._events is not None else 0.0)

    def give_way(self) -> None:
        """Leave the terminal to what comes out of the tunnel."""
        if self._display is not None:
            with contextlib.suppress(OSError, ValueError):
                self._display.give_way()

    def close(self) -> None:
        """End the line of the terminal, if one is shown; `exit` does it too."""
        if self._display is not None:
            with contextlib.suppress(OSError, ValueError):
                self._display.close()

    def _print(self, text: str, patience: float) -> None:
        if self._display is not None:
            self._display.above(text, patience)
        elif self._output is not None:
            self._output.write(text, patience)


def open_events(as_json: bool, status_fd: int | None, stdio: bool) -> Events | None:
    """Return what tells programs, if anything was asked for.

    Args:
        as_json: --json.
        status_fd: --status-fd; any descriptor that was open from the start.
        stdio: The peer's bytes go to descriptor 1.

    Raises:
        UsageError: The descriptor is not open for writing, or belongs to the tunnel.
    """
    if status_fd is not None:
        return Events(Output(_open_descriptor(status_fd, stdio)))
    return Events(Output(sys.stderr)) if as_json and sys.stderr is not None else None


def open_output(as_json: bool, status_fd: int | None) -> Output | None:
    """Return what tells people: stderr, unless it is closed or has the events."""
    return None if sys.stderr is None or (as_json and status_fd is None) else Output(sys.stderr)


def status_of_a_mistake(arguments: Sequence[str]) -> Status:
    """Return whom to tell of a command line that cannot be parsed."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    values = [one.partition("=")[2] or other for one, other in pairs if one.partition("=")[0] == "--status-fd"]
    as_json = "--json" in arguments
    with contextlib.suppress(UsageError, ValueError):
        status_fd = int(values[-1]) if values else None
        return Status(0, open_output(as_json, status_fd), open_events(as_json, status_fd, stdio=True))
    return Status(0, open_output(False, None))


def _open_descriptor(fd: int, stdio: bool) -> TextIO:
    if fd == 1 and stdio:
        raise UsageError(usage.STATUS_FD_IS_STDOUT)
    try:
        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(usage.NOT_OPEN.format(fd=fd)) from error
    if mode == os.O_RDONLY:
        raise UsageError(usage.NOT_FOR_WRITING.format(fd=fd))
    # Without a buffer: what could not be written is not tried again.
    raw = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", write_through=True)
