"""What people and programs are told; stdout carries tunnel bytes only.

    Event ──> Status ──┬──> JsonLines  for programs: one JSON object a line
                       ├──> Display    for people: the line of a terminal (display.py)
                       ├──> Output     for people: one sentence a line, on stderr (sentences.py)
                       ├──> Log        for people: the same, in a file (log.py)
                       └──> manager    for systemd, if it has started this (notify.py)

Without a terminal nothing is printed until an error; -v prints more, -q less.

Rule 1: reporting never ends a run and never holds it up: what cannot be
        written, or is not read for a while, is lost.
Rule 2: Started comes first, Exited comes last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from punchtunnel.errors import UsageError
from punchtunnel.reporting.events import Event, Exited, Report, Warned
from punchtunnel.reporting.jsonlines import JsonLines, open_jsonlines
from punchtunnel.reporting.limit import PERIOD, RateLimit
from punchtunnel.reporting.output import LAST_PATIENCE, PATIENCE, Output, open_output
from punchtunnel.reporting.sentences import Sentences

if TYPE_CHECKING:
    from punchtunnel.reporting.display import Display
    from punchtunnel.reporting.log import Log


class Status:
    """Passes each event on to everybody it is for; an instance is a Report.

    Args:
        verbosity: -1 (-q) to 3 (-vvv).
        output: Takes sentences; None: stderr is closed, or has the events.
        programs: Takes events for programs.
        display: Draws the line of a terminal, or --progress.
        manager: Tells a service manager; raises nothing.
        limit: Leaves out sentences of which there are too many.
        log: Takes sentences too.
        clock: Unix time in seconds, if sentences begin with it.
    """

    def __init__(
        self,
        verbosity: int,
        output: Output | None,
        programs: JsonLines | None = None,
        display: Display | None = None,
        manager: Report | None = None,
        limit: RateLimit | None = None,
        log: Log | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._sentences = Sentences(verbosity, limit, clock)
        self._log = log
        self._output = output
        self._programs = programs
        self._display = display
        self._manager = manager
        # Types of events that nobody is told of: on a busy tunnel most are of these.
        only_people = programs is None and display is None and manager is None and log is None
        self._untold: set[type[Event]] = set()
        self._may_be_untold = only_people and not self._sentences.traces

    def __call__(self, event: Event) -> None:
        """Tell one event; never raises OSError."""
        if type(event) in self._untold:
            return
        if self._may_be_untold and event.level > self._sentences.verbosity and not isinstance(event, Exited):
            self._untold.add(type(event))
            return
        if self._programs is not None:
            with contextlib.suppress(OSError, ValueError):
                self._programs(event)
        text = self._sentences(event)
        if self._log is not None:
            self._log(event)
            if trouble := self._log.take_trouble():
                self(Warned(reason=trouble))
        if text or self._display is not None or isinstance(event, Exited):
            # A log that cannot be written must not end a transfer.
            with contextlib.suppress(OSError, ValueError):
                self._tell_people(event, text)
        if self._manager is not None:
            self._manager(event)

    def _tell_people(self, event: Event, text: str) -> None:
        is_last = isinstance(event, Exited)
        if self._display is not None:
            self._display.take(event)
        if is_last:
            self.close()
        if text:
            self._print(text, LAST_PATIENCE if is_last else PATIENCE)
        elif is_last:
            # It says nothing, and lines before it may still be on their way.
            self.finish()

    @property
    def traffic_every(self) -> float:
        """Seconds between two Traffic events; 0: nobody wants any."""
        display = 0.0 if self._display is None else self._display.traffic_every
        wanted = self._programs is not None or self._sentences.traces or (self._log is not None and self._log.traces)
        return display or (PERIOD if wanted else 0.0)

    def give_way(self) -> None:
        """Clear the line, because bytes from the tunnel are about to be written to the same terminal."""
        if self._display is not None:
            with contextlib.suppress(OSError, ValueError):
                self._display.give_way()

    def close(self) -> None:
        """End the line of the terminal, if one is drawn; Exited does it too."""
        if self._display is not None:
            with contextlib.suppress(OSError, ValueError):
                self._display.close()

    def finish(self) -> None:
        """End the line of the terminal, and wait for what was written before."""
        self.close()
        if self._output is not None:
            with contextlib.suppress(OSError, ValueError):
                self._output.finish()

    def leave_terminal(self) -> None:
        """Take note that stderr leads elsewhere from now on, and draw no line there."""
        self._display = None
        if self._output is not None:
            self._output.look_again()

    def _print(self, text: str, patience: float) -> None:
        if self._display is not None:
            self._display.above(text, patience)
        elif self._output is not None:
            self._output.write(text, patience)


def status_of_a_mistake(arguments: Sequence[str]) -> Status:
    """Return the Status that tells of a command line which cannot be parsed, where that asks for it."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    values = [one.partition("=")[2] or other for one, other in pairs if one.partition("=")[0] == "--status-fd"]
    as_json = "--json" in arguments
    with contextlib.suppress(UsageError, ValueError):
        status_fd = int(values[-1]) if values else None
        return Status(0, open_output(as_json, status_fd), open_jsonlines(as_json, status_fd, stdio=True))
    return Status(0, open_output(False, None))
