"""How long the runs of a cell took to their first byte and to a direct hole, and a table of that.

`python -m tests.natlab.figures FILE...` prints the runs in files that `python -m tests.natlab --json FILE`
has written, one line a cell, as Markdown.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path as FilePath

from . import report
from .ends import Outcome
from .judge import Result

# What was measured of a run.  In seconds: from the later start to the first byte that came out of the later end,
# from the relayed hole, which both have, to the direct one, and without any; the rounds that have failed before.
FIRST_BYTE, DIRECT_AFTER = "seconds to the first byte", "seconds from meeting to moving"
PAUSED, FAILED_ROUNDS = "seconds paused by the move", "rounds without a direct hole"
_HEAD = """\
| cell | as it must be | direct in the first round | later | direct after | first byte after | paused, at most |
|---|---|---|---|---|---|---|"""


def measured(ends: Sequence[Outcome]) -> dict[str, float]:
    """Return what can be said of the two ends of a session: only what both have seen."""
    found = {}
    starts, firsts, holes, moves = (
        [time for time in times if time is not None]
        for times in (
            [one.time_of("start") for one in ends],
            [one.first_s for one in ends],
            [one.time_of("hole") for one in ends],
            [_direct_s(one) for one in ends],
        )
    )
    if len(starts) == len(firsts) == 2:
        found[FIRST_BYTE] = max(firsts) - max(starts)
    if len(moves) == len(holes) == 2:
        found[DIRECT_AFTER] = max(moves) - max(holes)
        if pauses := _pauses(ends):
            found[PAUSED] = max(pauses)
        # Both see the same rounds, but one may be told of it a moment later.
        found[FAILED_ROUNDS] = max(_failed_rounds(one) for one in ends)
    return {name: round(value, 4) for name, value in found.items()}


def _direct_s(end: Outcome) -> float | None:
    """Return the time of the direct hole that a session has moved to, or has begun on."""
    return end.time_of("moved") or end.time_of("direct")


def _pauses(ends: Sequence[Outcome]) -> list[float]:
    said = (event.get("paused_s") for one in ends for event in one.events if event.get("event") == "moved")
    return [float(seconds) for seconds in said if isinstance(seconds, int | float)]


def _failed_rounds(end: Outcome) -> int:
    until = _direct_s(end)
    times = (event.get("time_s") for event in end.events if event.get("event") == "not_direct")
    return sum(until is not None and isinstance(time, int | float) and time < until for time in times)


def table(results: Sequence[Result]) -> str:
    """Return the table."""
    cells = dict.fromkeys(one.cell for one in results)
    return "\n".join([_HEAD, *(_line(cell, [one for one in results if one.cell == cell]) for cell in cells)])


def _line(cell: str, runs: Sequence[Result]) -> str:
    moved = [one for one in runs if FAILED_ROUNDS in one.measured]
    first = sum(one.measured[FAILED_ROUNDS] == 0 for one in moved)
    pauses = [one.measured[PAUSED] for one in moved if PAUSED in one.measured]
    columns = (
        cell,
        f"{sum(one.passed for one in runs)} of {len(runs)}",
        str(first),
        str(len(moved) - first),
        _spread([one.measured[DIRECT_AFTER] for one in moved if one.measured[FAILED_ROUNDS] == 0]),
        _spread([one.measured[FIRST_BYTE] for one in runs if FIRST_BYTE in one.measured]),
        f"{max(pauses) * 1000:.0f} ms" if pauses else "-",
    )
    return f"| {' | '.join(columns)} |"


def _spread(seconds: Sequence[float]) -> str:
    """Return the median, and the longest."""
    if not seconds:
        return "-"
    return f"{report.duration(statistics.median(seconds))} ({report.duration(max(seconds))})"


if __name__ == "__main__":
    print(table([one for file in sys.argv[1:] for one in report.load(FilePath(file))]))
