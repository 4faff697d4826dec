"""Events for programs: one JSON object a line for each; docs/EVENTS.md has the schema."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from punchtunnel.reporting.events import Event, Exited
from punchtunnel.reporting.limit import BURST_FOR_PROGRAMS, News, RateLimit
from punchtunnel.reporting.output import LAST_PATIENCE, PATIENCE, Output, open_descriptor


class JsonLines:
    """Writes each event as one line.

    Args:
        output: Where the lines go.
        clock: Unix time in seconds.
        limit: Leaves out what strangers repeat.
    """

    def __init__(self, output: Output, clock: Callable[[], float] = time.time, limit: RateLimit | None = None) -> None:
        self._output = output
        self._clock = clock
        self._limit = limit or RateLimit(burst=BURST_FOR_PROGRAMS)
        self._news = News()
        # Imported late: most runs write no JSON.
        import json

        self._encode = json.JSONEncoder(default=str).encode

    def __call__(self, event: Event) -> None:
        """Write one event, unless it is a repeated one that is not due, has not changed, or is a stranger's.

        Raises:
            OSError: The reader is gone for good, or the disk is full.
            ValueError: The stream is closed.
        """
        now = self._clock()
        if event.progress and not self._news.is_news(event, now):
            return
        if event.strange and not self._limit.passes(type(event)):
            return
        more = {"session": event.session} if event.session else {}
        if self._output.lost:
            more["lost"] = self._output.lost
        if event.strange and (left_out := self._limit.take_left_out(type(event))):
            more["left_out"] = left_out
        line = self._encode({"time_s": now, "event": event.name} | event.fields | more)
        self._output.write(f"{line}\n", LAST_PATIENCE if isinstance(event, Exited) else PATIENCE)


def open_jsonlines(as_json: bool, status_fd: int | None, stdio: bool) -> JsonLines | None:
    """Return what writes events for programs; None if none are asked for.

    Args:
        as_json: --json.
        status_fd: --status-fd.
        stdio: The peer's bytes go to descriptor 1.

    Raises:
        UsageError: The descriptor is not open for writing, or has the peer's bytes.
    """
    if status_fd is not None:
        return JsonLines(open_descriptor(status_fd, stdio))
    return JsonLines(Output(sys.stderr)) if as_json and sys.stderr is not None else None
