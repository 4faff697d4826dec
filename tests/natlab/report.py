"""Results -> a table for people and JSON for programs, and the table -> rates.  Pure, but for the files.

The router pairs are a triangle: both orders of start are in every cell, so
left x right and right x left are the same cell.  A cell of the triangle is

    5/5  12 ms       runs that passed, median time from the later start
    38 ms 26+27      worst time, SYNs of the left and the right side (median)

All other cells are rows, with the second subject beside the first.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath

from .cells import PAIRS, Cell
from .judge import Result
from .table import CELLS
from .topology import PAIR_ROWS

# The targets: a hello, a pick and its answer take three round trips; the rest
# is for two interpreters on a busy machine.
TARGET_RTTS = 3
TARGET_EXTRA_S = 0.05
TARGET_WORST_S = 3.0

PAIR_NAME_WIDTH, PAIR_WIDTH = 15, 16
NAME_WIDTH = 66
SUBJECT_WIDTH = 44
_TRIANGLE_HEAD, _ROW_HEAD = ": router pairs", ": passed  median  worst  SYNs"


@dataclass(frozen=True, slots=True)
class Summary:
    """All runs of one cell with one subject."""

    passed: int
    runs: int
    median_s: float | None
    worst_s: float | None
    syns: tuple[int, int]
    sockets: int
    measured: dict[str, float]
    whys: tuple[str, ...]


def summarise(results: Iterable[Result]) -> dict[tuple[str, str], Summary]:
    """Return a summary for each (subject, cell title)."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.subject, result.cell), []).append(result)
    return {key: _summary(group) for key, group in groups.items()}


def _summary(group: list[Result]) -> Summary:
    times = [one.seconds for one in group if one.seconds is not None and one.passed]
    syns = tuple(int(statistics.median(one.syns[side] for one in group)) for side in (0, 1))
    names = {name for one in group for name in one.measured}
    return Summary(
        sum(one.passed for one in group), len(group),
        statistics.median(times) if times else None, max(times, default=None),
        (syns[0], syns[1]), max(max(one.sockets) for one in group),
        {name: max(one.measured[name] for one in group if name in one.measured) for name in sorted(names)},
        tuple(dict.fromkeys(one.why for one in group if one.why)),
    )  # fmt: skip


def duration(seconds: float | None) -> str:
    """Return a time for people: milliseconds below one second."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def text(results: Sequence[Result]) -> str:
    """Return the whole report."""
    summaries = summarise(results)
    subjects = list(dict.fromkeys(result.subject for result in results))
    parts = [_triangle(subject, summaries) for subject in subjects]
    parts.append(_rows([cell for cell in CELLS if cell.block != PAIRS], subjects, summaries))
    parts += [_slow(summaries), _complaints(summaries)]
    return "\n".join(part for part in parts if part)


def _triangle(subject: str, summaries: dict[tuple[str, str], Summary]) -> str:
    cells = {(cell.left, cell.right): cell for cell in CELLS if cell.block == PAIRS}
    run = {name for pair, cell in cells.items() if (subject, cell.title) in summaries for name in pair}
    names = [row.name for row in PAIR_ROWS if row.name in run]
    if not names:
        return ""
    lines = [
        f"{subject}{_TRIANGLE_HEAD}",
        f"{'':{PAIR_NAME_WIDTH}}" + "".join(f"{name:>{PAIR_WIDTH}}" for name in names),
    ]
    for left in names:
        above, below = f"{left:{PAIR_NAME_WIDTH}}", f"{'':{PAIR_NAME_WIDTH}}"
        for right in names:
            cell = cells.get((left, right))
            one = summaries.get((subject, cell.title)) if cell else None
            score = f"{one.passed}/{one.runs} {_expected(cell, one)}" if cell and one else ""
            more = f"{duration(one.worst_s)} {one.syns[0]}+{one.syns[1]}" if one else ""
            above, below = above + f"{score:>{PAIR_WIDTH}}", below + f"{more:>{PAIR_WIDTH}}"
        lines += [above, below]
    return "\n".join(lines) + "\n"


def _expected(cell: Cell, one: Summary) -> str:
    """Return the median time, or which exit status was expected instead of a hole."""
    return duration(one.median_s) if cell.fails is None else f"exit {cell.fails.status}"


def _rows(cells: Iterable[Cell], subjects: list[str], summaries: dict[tuple[str, str], Summary]) -> str:
    heads = [f"{subject}{_ROW_HEAD}" for subject in subjects]
    lines = [_line("", heads)]
    for cell in cells:
        columns = [summaries.get((subject, cell.title)) for subject in subjects]
        if any(columns):
            lines.append(_line(cell.title, [_column(cell, one) for one in columns]))
            for limit in cell.limits:
                values = [f"{one.measured.get(limit.name, 0):.4g}" if one else "-" for one in columns]
                lines.append(_line(f"    {limit.name}, at most {limit.most:g}", values))
    return "\n".join(lines) + "\n" if len(lines) > 1 else ""


def rates(text: str) -> dict[tuple[str, str], tuple[int, int]]:
    """Read from a report, for each (subject, cell title), the runs that came out as they must, and all."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for part in text.split("\n\n"):
        first, _, rest = part.partition("\n")
        if first.endswith(_TRIANGLE_HEAD):
            found |= dict(_rates_of_pairs(first.removesuffix(_TRIANGLE_HEAD), rest.splitlines()))
        elif _ROW_HEAD in first:
            subjects = [column.partition(":")[0].strip() for column in _cut(first, NAME_WIDTH, SUBJECT_WIDTH)]
            found |= dict(_rates_of_rows(subjects, rest.splitlines()))
    return found


def _rates_of_pairs(subject: str, lines: list[str]) -> Iterator[tuple[tuple[str, str], tuple[int, int]]]:
    rights = [column.strip() for column in _cut(lines[0], PAIR_NAME_WIDTH, PAIR_WIDTH)]
    for line in lines[1::2]:
        left = line[:PAIR_NAME_WIDTH].strip()
        for right, column in zip(rights, _cut(line, PAIR_NAME_WIDTH, PAIR_WIDTH), strict=False):
            if rate := _rate(column):
                yield (subject, f"{PAIRS}: {left} x {right}"), rate


def _rates_of_rows(subjects: list[str], lines: list[str]) -> Iterator[tuple[tuple[str, str], tuple[int, int]]]:
    for line in lines:
        # A long title has moved its columns.  Below a cell stand its limits, which have no rate.
        if found := re.match(r"(\S.*?) *(?= \d+/\d| -( |$))", line):
            title = found[1]
            for subject, column in zip(subjects, _cut(line, max(NAME_WIDTH, len(title)), SUBJECT_WIDTH), strict=False):
                if rate := _rate(column):
                    yield (subject, title), rate


def _cut(line: str, first: int, width: int) -> list[str]:
    return [line[at : at + width] for at in range(first, len(line), width)]


def _rate(column: str) -> tuple[int, int] | None:
    found = re.match(r" *(\d+)/(\d+)\b", column)
    return (int(found[1]), int(found[2])) if found else None


def _line(name: str, columns: Iterable[str]) -> str:
    return (f"{name:{NAME_WIDTH}}" + "".join(f"{column:{SUBJECT_WIDTH}}" for column in columns)).rstrip()


def _column(cell: Cell, one: Summary | None) -> str:
    if one is None:
        return "-"
    times = _expected(cell, one) if cell.fails else f"{duration(one.median_s):>8}{duration(one.worst_s):>9}"
    return f"{one.passed:>3}/{one.runs:<3}{times}  {one.syns[0]}+{one.syns[1]}"


def _slow(summaries: dict[tuple[str, str], Summary]) -> str:
    """Name the cells that connect, but later than the targets allow."""
    cells = {cell.title: cell for cell in CELLS}
    lines = []
    for (subject, title), one in summaries.items():
        cell = cells[title]
        # Of several holes in a row the slowest is reported: only `worst` fits.
        target = TARGET_RTTS * cell.rtt_s + TARGET_EXTRA_S if cell.repeats == 1 else TARGET_WORST_S
        if (one.median_s or 0) > target or (one.worst_s or 0) > TARGET_WORST_S:
            times = f"median {duration(one.median_s)} (target {duration(target)}), worst {duration(one.worst_s)}"
            lines.append(f"{subject}: {title}: {times}")
    return "\n".join(["slower than the targets:", *lines]) + "\n" if lines else ""


def _complaints(summaries: dict[tuple[str, str], Summary]) -> str:
    lines = [
        f"{subject}: {title}: {one.runs - one.passed} of {one.runs} runs: {why}"
        for (subject, title), one in summaries.items()
        for why in one.whys
    ]
    return "\n".join(["not as it must be:", *lines]) + "\n" if lines else "every run came out as it must\n"


def save(results: Sequence[Result], file: FilePath) -> None:
    """Write all results as JSON, whole or not at all: a lab that is stopped leaves the last state."""
    partial = file.with_name(file.name + ".part")
    partial.write_text(json.dumps({"version": 1, "results": [asdict(one) for one in results]}, indent=1))
    partial.replace(file)


def load(file: FilePath) -> list[Result]:
    """Read what `save` wrote."""
    raw = json.loads(file.read_text())["results"]
    return [
        Result(**{**one, "syns": tuple(one["syns"]), "sockets": tuple(one["sockets"])}) for one in raw
    ]  # fmt: skip
