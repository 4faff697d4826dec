"""Events for programs: one JSON object a line for each; docs/EVENTS.md has the schema."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from punchtunnel.reporting.events import Event, Exited
from punchtunnel.reporting.limit import BURST_FOR_PROGRAMS, RateLimit
from punchtunnel.reporting.output import LAST_PATIENCE, PATIENCE, Output, open_descriptor

# Seconds between two lines of an event that is repeated as long as a state lasts.
PERIOD = 10.0
# A timer of PERIOD seconds may fire early by this much.
SLACK = 0.5


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
        # For each session, and each type that has `progress`: when it was written last, and its other fields.
        self._told: dict[tuple[type[Event], int], tuple[float, dict[str, object]]] = {}

    def __call__(self, event: Event) -> None:
        """Write one event, unless it is a repeated one that is not due, has not changed, or is a stranger's.

        Raises:
            OSError: The reader is gone for good, or the disk is full.
            ValueError: The stream is closed.
        """
        now = self._clock()
        if event.progress and not self._is_news(event, now):
            return
        if event.strange and not self._limit.passes(type(event)):
            return
        more = {"session": event.session} if event.session else {}
        if self._output.lost:
            more["lost"] = self._output.lost
        if event.strange and (left_out := self._limit.take_left_out(type(event))):
            more["left_out"] = left_out
        line = json.dumps({"time_s": now, "event": event.name} | event.fields | more, default=str)
        self._output.write(f"{line}\n", LAST_PATIENCE if isinstance(event, Exited) else PATIENCE)

    def _is_news(self, event: Event, now: float) -> bool:
        """Tell whether a repeated event is due, and has changed."""
        state = {name: value for name, value in event.fields.items() if name != event.progress}
        then, told = self._told.get((type(event), event.session), (float("-inf"), None))
        # `now` can be before `then`: the clock was set back.
        if 0 <= now - then < PERIOD - SLACK or state == told:
            return False
        self._told[type(event), event.session] = now, state
        return True


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
