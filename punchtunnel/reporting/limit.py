"""Keeps what others can repeat at will from filling a log."""

from __future__ import annotations

import time
from collections.abc import Callable

from punchtunnel.reporting.event import Event

# Lines about one type of event: so many at once, then one a second.  People read
# a few; a program may count.
BURST = 20
BURST_FOR_PROGRAMS = 100


# Seconds between two tellings of an event that is repeated as long as a state lasts.
PERIOD = 10.0
# A timer of PERIOD seconds may fire early by this much.
SLACK = 0.5


class News:
    """Tells which of the events that have `progress` are news: once in PERIOD, if anything else has changed."""

    def __init__(self) -> None:
        # For each session, and each type: when it was told last, and its other fields.
        self._told: dict[tuple[type[Event], int], tuple[float, dict[str, object]]] = {}

    def is_news(self, event: Event, now: float) -> bool:
        """Tell whether a repeated event is due, and has changed; then it counts as told.

        Args:
            event: One that has `progress`.
            now: Any time in seconds; it may be set back.
        """
        state = {name: value for name, value in event.fields.items() if name != event.progress}
        then, told = self._told.get((type(event), event.session), (float("-inf"), None))
        # `now` can be before `then`: the clock was set back.
        if 0 <= now - then < PERIOD - SLACK or state == told:
            return False
        self._told[type(event), event.session] = now, state
        return True


class RateLimit:
    """A token bucket for each type of event.

    Args:
        monotonic: Any steady time in seconds.
        burst: So many lines at once.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, burst: int = BURST) -> None:
        self._monotonic = monotonic
        self._burst = burst
        # When the bucket of a type will be full again; it gains one line a second.
        self._full_at: dict[type[Event], float] = {}
        self._left_out: dict[type[Event], int] = {}

    def passes(self, event: type[Event]) -> bool:
        """Take one line out of the bucket; return False if it is empty."""
        now = self._monotonic()
        full_at = max(now, self._full_at.get(event, now))
        if full_at - now > self._burst - 1:
            self._left_out[event] = self._left_out.get(event, 0) + 1
            return False
        self._full_at[event] = full_at + 1
        return True

    def take_left_out(self, event: type[Event]) -> int:
        """Return how many lines were left out since the last call."""
        return self._left_out.pop(event, 0)
