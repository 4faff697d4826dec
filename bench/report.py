"""Results -> a table for people and JSON for programs.  Pure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .table import BY_PYTHON, Comparison, Metric, Result, Row, Verdict

LABEL_WIDTH = 44
CELL_WIDTH = 24
# A failure may drag a whole traceback along.
WHY_WIDTH = 200


def text(about: Sequence[str], results: Sequence[Result]) -> str:
    """Return the whole report: the machine, each row, and where ours stand beside each peer."""
    parts = ["\n".join(about), *("\n".join(row_lines(result)) for result in results), "\n".join(summary(results))]
    return "\n\n".join(parts) + "\n"


def row_lines(result: Result) -> Iterator[str]:
    """Yield the lines of one row: its subjects, who is ahead, and its failures."""
    metrics = result.row.metrics
    yield result.row.title
    yield " " * LABEL_WIDTH + "".join(f"{_title(metric):>{CELL_WIDTH}}" for metric in metrics)
    for subject in result.row.subjects:
        if subject.label in result.values:
            cells = (_cell(result.figures(subject.label, metric), metric) for metric in metrics)
            yield f"  {subject.label:{LABEL_WIDTH - 2}}" + "".join(f"{cell:>{CELL_WIDTH}}" for cell in cells)
    for compared in result.row.comparisons:
        yield f"    {result.verdict(compared).value:8}{compared.label}: {_sentence(result, compared)}"
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


def _sentence(result: Result, compared: Comparison) -> str:
    """Return a metric, the median of the ratios and their range: "rate 1.52 × ssh (1.45–1.61)"."""
    return (
        f"{compared.metric.name} {ratio(result, compared)} {compared.versus} {_range(result.ratios(compared))}".strip()
    )


def ratio(result: Result, compared: Comparison) -> str:
    """Return the median of the ratios: "1.52 ×"; "?" without one."""
    ratios = result.ratios(compared)
    return f"{statistics.median(ratios):.3g} ×" if ratios else "? ×"


def _range(ratios: Sequence[float]) -> str:
    return f"({min(ratios):.3g}–{max(ratios):.3g})" if ratios else ""


def summary(results: Sequence[Result]) -> Iterator[str]:
    """Yield who is ahead of whom, one peer after another, and how many measurements failed."""
    by_peer: dict[str, dict[Verdict, list[str]]] = {}
    for result in results:
        # Interpreters are no peers.
        for compared in () if result.row.title.startswith(BY_PYTHON) else result.row.comparisons:
            if (verdict := result.verdict(compared)) != Verdict.ALONE:
                words = f"{ratio(result, compared):9}{compared.metric.name} of {compared.label}: {result.row.title}"
                by_peer.setdefault(compared.versus, {one: [] for one in Verdict})[verdict].append(words)
    for peer, found in by_peer.items():
        yield f"beside {peer}: " + ", ".join(f"{len(lines)} {one.value}" for one, lines in found.items() if lines)
        yield from (f"  {one.value:8}{line}" for one, lines in found.items() for line in lines)
    yield f"failures: {sum(len(result.failures) for result in results)}"


def as_json(about: dict[str, object], results: Iterable[Result]) -> str:
    """Return everything that was measured, and who is ahead."""
    rows = [
        {
            "title": result.row.title, "seconds": result.row.seconds, "values": result.values,
            "units": {metric.name: metric.unit for metric in result.row.metrics},
            "comparisons": [_compared(result, compared) for compared in result.row.comparisons],
            "percentiles_us": {label: pooled(lists) for label, lists in result.percentiles.items()},
            "failures": result.failures,
        }
        for result in results
    ]  # fmt: skip
    return json.dumps({"version": 2, **about, "rows": rows}, indent=1, ensure_ascii=False) + "\n"


def from_json(run: Mapping[str, Any], rows: Callable[[Mapping[str, Path]], Iterable[Row]]) -> list[Result]:
    """Return the results that `as_json` wrote, of the rows that still have these titles.

    Args:
        run: What was read from JSON.
        rows: See rows.py; it is asked for those of the interpreters that the run had.
    """
    by_python = [one["values"] for one in run["rows"] if one["title"].startswith(BY_PYTHON)]
    by_title = {row.title: row for row in rows({label: Path() for values in by_python for label in values})}
    return [
        Result(
            by_title[one["title"]],
            one["values"],
            {label: [pooled] for label, pooled in one["percentiles_us"].items()},
            one["failures"],
        )
        for one in run["rows"]
        if one["title"] in by_title
    ]


def _compared(result: Result, compared: Comparison) -> dict[str, object]:
    ratios = result.ratios(compared)
    return {
        "label": compared.label, "versus": compared.versus, "metric": compared.metric.name,
        "ratio": statistics.median(ratios) if ratios else None, "verdict": result.verdict(compared).value,
    }  # fmt: skip


def pooled(lists: Sequence[Sequence[float]]) -> list[float]:
    """Return each percentile's median over all rounds."""
    return [statistics.median(column) for column in zip(*lists, strict=True)]
