"""The lines that people read of events, on a terminal, in a pipe or in a log.

    -q -1   errors        -v   1   what happens            -vvv 3   every event, with all of its fields
        0   and notes     -vv  2   and what fails a lot

Times are UTC, so that the logs of the two machines can be laid side by side:
`2026-11-30T21:12:40.123Z punchtunnel: hole open: ...`
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from punchtunnel import words
from punchtunnel.reporting.event import Event, Level
from punchtunnel.reporting.limit import News, RateLimit

# The verbosity from which on every event is told, those for programs too.
TRACE = 3
# Seconds after which a state that goes on is told again: a log that is rotated says where things stand.
AGAIN = 3600.0


def stamp(now: float) -> str:
    """Return a Unix time as UTC to the millisecond, as RFC 3339 writes it."""
    whole, part = divmod(int(now * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{part:03d}Z"


class Sentences:
    """Makes the line of each event, for one stream of lines.

    Args:
        verbosity: -1 (-q) to 3 (-vvv).
        limit: Leaves out sentences of which there are too many.
        clock: Unix time in seconds, if lines begin with it.
        monotonic: Any steady time in seconds.
    """

    def __init__(
        self,
        verbosity: int,
        limit: RateLimit | None = None,
        clock: Callable[[], float] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.verbosity = verbosity
        self._limit = limit or RateLimit()
        self._clock = clock
        self._monotonic = monotonic
        self._news = News()
        # What was told last of each lasting state, and when.
        self._lasting: dict[type[Event], tuple[object, float]] = {}

    @property
    def traces(self) -> bool:
        """Tell whether every event is told."""
        return self.verbosity >= TRACE

    def __call__(self, event: Event) -> str:
        """Return the line of an event, with its line feed; "" if there is none."""
        # Most events of a busy tunnel are printed nowhere, so their sentence is not made.
        if not self._is_shown(event):
            return ""
        text = event.fill(event.sentence)
        if self.traces:
            text = " ".join(filter(None, (text, f"[{event.name} {json.dumps(event.fields, default=str)}]")))
        if not text:
            return ""
        if event.session:
            text = words.in_session(event.session, text)
        if left_out := self._limit.take_left_out(type(event)):
            text += words.left_out(left_out)
        when = f"{stamp(self._clock())} " if self._clock else ""
        return f"{when}punchtunnel: {text}\n"

    def _is_shown(self, event: Event) -> bool:
        if self.traces:
            return not event.progress or self._news.is_news(event, self._monotonic())
        if event.level > self.verbosity:
            return False
        if self.verbosity > Level.INFO:
            return True
        if event.lasting:
            return self._begins(event)
        if event.notice and event.level <= Level.INFO:
            # Another state: the one before is told when it comes back.
            self._lasting.clear()
        return not event.repeats or self._limit.passes(type(event))

    def _begins(self, event: Event) -> bool:
        """Tell whether a lasting state is another one than the last, or was told long ago."""
        now, state = self._monotonic(), event.fields[event.lasting]
        told, then = self._lasting.get(type(event), (None, 0.0))
        if told == state and now - then < AGAIN:
            return False
        self._lasting[type(event)] = state, now
        return True
