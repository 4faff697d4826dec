"""Results -> a table for people and JSON for programs.  Pure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from .table import Metric, Result, Row, Target

LABEL_WIDTH = 44
CELL_WIDTH = 24
# A failure may drag a whole traceback along.
WHY_WIDTH = 200


def text(about: Sequence[str], results: Sequence[Result]) -> str:
    """Return the whole report: the machine, each row, and the targets that were missed."""
    parts = ["\n".join(about), *("\n".join(row_lines(result)) for result in results), "\n".join(summary(results))]
    return "\n\n".join(parts) + "\n"


def row_lines(result: Result) -> Iterator[str]:
    """Yield the lines of one row: its subjects, its targets and its failures."""
    metrics = result.row.metrics
    yield result.row.title
    yield " " * LABEL_WIDTH + "".join(f"{_title(metric):>{CELL_WIDTH}}" for metric in metrics)
    for subject in result.row.subjects:
        if subject.label in result.values:
            cells = (_cell(result.figures(subject.label, metric), metric) for metric in metrics)
            yield f"  {subject.label:{LABEL_WIDTH - 2}}" + "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells)
    for target in result.row.targets:
        yield f"    {_verdict(result, target):8}{sentence(target)}: {_reached(result, target)}"
    for why in result.failures:
        yield f"    FAILED  {why[:WHY_WIDTH]}"


def _title(metric: Metric) -> str:
    return f"{metric.name}, {metric.unit}"


def _cell(figures: list[float], metric: Metric) -> str:
    """Return the median and, behind it, the lowest and the highest."""
    if not figures:
        return "-"
    middle, low, high = statistics.median(figures), min(figures), max(figures)
    return f"{middle:.{metric.digits}f} ({low:.{metric.digits}f}–{high:.{metric.digits}f})"


def sentence(target: Target) -> str:
    """Return what a target asks for."""
    least = "at least" if target.metric.more_is_better else "at most"
    bound = f"{target.bound:g} × {target.versus}" if target.versus else f"{target.bound:g} {target.metric.unit}"
    return f"{target.label}: {target.metric.name} {least} {bound}"


def _reached(result: Result, target: Target) -> str:
    outcome = result.outcome(target)
    if not outcome:
        return "could not be compared"
    unit = "×" if target.versus else target.metric.unit
    return f"{statistics.median(outcome):.3g} {unit} ({min(outcome):.3g}–{max(outcome):.3g})"


def _verdict(result: Result, target: Target) -> str:
    return {True: "met", False: "MISSED", None: "?"}[result.met(target)]


def summary(results: Sequence[Result]) -> Iterator[str]:
    """Yield how many targets were met, and each that was not."""
    judged = [(result, target) for result in results for target in result.row.targets]
    verdicts = [_verdict(result, target) for result, target in judged]
    yield f"{len(judged)} targets: {verdicts.count('met')} met, {verdicts.count('MISSED')} missed, " + (
        f"{verdicts.count('?')} not compared; {sum(len(result.failures) for result in results)} failures"
    )
    for (result, target), verdict in zip(judged, verdicts, strict=True):
        if verdict != "met":
            yield f"  {verdict:8}{result.row.title}: {sentence(target)}: {_reached(result, target)}"


def as_json(about: dict[str, object], results: Iterable[Result]) -> str:
    """Return everything that was measured, with each target's outcome."""
    rows = [
        {
            "title": result.row.title, "seconds": result.row.seconds, "values": result.values,
            "units": {metric.name: metric.unit for metric in result.row.metrics},
            "targets": [_target(result, target) for target in result.row.targets],
            "percentiles_us": {label: pooled(lists) for label, lists in result.percentiles.items()},
            "failures": result.failures,
        }
        for result in results
    ]  # fmt: skip
    return json.dumps({"version": 1, **about, "rows": rows}, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str, rows: Iterable[Row]) -> list[Result]:
    """Return the results that `as_json` wrote, of the rows that still have these titles."""
    by_title = {row.title: row for row in rows}
    return [
        Result(
            by_title[one["title"]],
            one["values"],
            {label: [pooled] for label, pooled in one["percentiles_us"].items()},
            one["failures"],
        )
        for one in json.loads(text)["rows"]
        if one["title"] in by_title
    ]


def _target(result: Result, target: Target) -> dict[str, object]:
    outcome = result.outcome(target)
    reached = statistics.median(outcome) if outcome else None
    return {**asdict(target), "metric": target.metric.name, "reached": reached, "met": result.met(target)}


def pooled(lists: Sequence[Sequence[float]]) -> list[float]:
    """Return each percentile's median over all rounds."""
    return [statistics.median(column) for column in zip(*lists, strict=True)]
