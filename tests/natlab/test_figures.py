"""figures.py: what is measured of two ends, and the table of it."""

from __future__ import annotations

from .ends import Outcome
from .figures import DIRECT_AFTER, FAILED_ROUNDS, FIRST_BYTE, PAUSED, measured, table
from .judge import Result


def end(first_s: float | None, *events: tuple[str, float], paused_s: float = 0.0) -> Outcome:
    """Return an end whose first byte came at `first_s`, and that has said these events."""
    said: list[dict[str, object]] = [{"event": name, "time_s": time_s} for name, time_s in events]
    for one in said:
        if one["event"] == "moved":
            one["paused_s"] = paused_s
    return Outcome(0, b"", b"", said, first_s=first_s)


def test_times_count_from_what_the_later_end_does() -> None:
    left = end(4.0, ("start", 1.0), ("hole", 2.5), ("not_direct", 8.0), ("moved", 9.0), paused_s=0.03)
    right = end(4.25, ("start", 2.0), ("hole", 2.75), ("not_direct", 8.0), ("moved", 9.25), paused_s=0.01)
    assert measured([left, right]) == {FIRST_BYTE: 2.25, DIRECT_AFTER: 6.5, PAUSED: 0.03, FAILED_ROUNDS: 1}


def test_a_session_that_begins_on_a_direct_hole_does_not_move() -> None:
    left = end(4.0, ("start", 1.0), ("hole", 2.5), ("direct", 3.0))
    right = end(4.0, ("start", 1.0), ("hole", 2.5), ("direct", 3.5))
    assert measured([left, right]) == {FIRST_BYTE: 3.0, DIRECT_AFTER: 1.0, FAILED_ROUNDS: 0}


def test_what_only_one_end_has_seen_is_not_measured() -> None:
    left = end(4.0, ("start", 1.0), ("hole", 2.5), ("moved", 9.0))
    assert measured([left, end(None, ("start", 2.0), ("hole", 2.75))]) == {}
    assert measured([left]) == {}


def test_a_line_tells_first_rounds_from_later_ones() -> None:
    runs = [
        {FIRST_BYTE: 1.0, DIRECT_AFTER: 0.5, PAUSED: 0.02, FAILED_ROUNDS: 0},
        {FIRST_BYTE: 2.0, DIRECT_AFTER: 9.5, PAUSED: 0.04, FAILED_ROUNDS: 1},
        {FIRST_BYTE: 3.0},
    ]
    results = [
        Result("here x there", "tool", number, number != 2, "", None, (0, 0), (0, 0), [], measures)
        for number, measures in enumerate(runs)
    ]
    [_, _, line] = table(results).splitlines()
    assert line == "| here x there | 2 of 3 | 1 | 1 | 500 ms (500 ms) | 2.00 s (3.00 s) | 40 ms |"
