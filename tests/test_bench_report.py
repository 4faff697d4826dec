"""What the bench says of its figures: who is ahead, and what it writes into the documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import document, report
from bench.measures import P50, RATE
from bench.rows import rows
from bench.stage import Stage
from bench.table import Comparison, Metric, Result, Row, Running, Subject, Verdict

DOCS = Path(__file__).parents[1] / "docs"


def never(_stage: Stage) -> Running:
    raise AssertionError("nothing is measured here")


def result(ours: list[float | None], theirs: list[float], metric: Metric = RATE, title: str = "a row") -> Result:
    subjects = (Subject("ours", never), Subject("theirs", never))
    compared = (Comparison("ours", metric, "theirs", "it is written in C"),)
    columns: dict[str, list[float | None]] = {"ours": ours, "theirs": list(theirs)}
    return Result(Row(title, subjects, (metric,), compared), {who: {metric.name: one} for who, one in columns.items()})


@pytest.mark.parametrize(
    ("ours", "theirs", "metric", "verdict"),
    [
        ([200, 210, 190], [100, 100, 100], RATE, Verdict.AHEAD),
        ([200, 210, 190], [100, 100, 100], P50, Verdict.BEHIND),
        ([50, 60, 55], [100, 100, 100], P50, Verdict.AHEAD),
        ([90, 110, 80], [100, 100, 100], RATE, Verdict.LEVEL),
        ([102, 102, 102], [100, 100, 100], RATE, Verdict.LEVEL),
        # One disturbed round of five.
        ([120, 120, 120, 120, 20], [100, 100, 100, 100, 100], RATE, Verdict.AHEAD),
        ([120, None, 130], [100, 100, 100], RATE, Verdict.AHEAD),
        ([None, None, None], [100, 100, 100], RATE, Verdict.FAILED),
        ([100], [], RATE, Verdict.ALONE),
    ],
)
def test_who_is_ahead_is_what_most_rounds_say(
    ours: list[float | None], theirs: list[float], metric: Metric, verdict: Verdict
) -> None:
    one = result(ours, theirs, metric)
    assert one.verdict(one.row.comparisons[0]) == verdict


def test_a_row_and_the_summary_say_who_is_ahead_with_the_ratio() -> None:
    results = [result([150, 160], [100, 100]), result([50, 60], [100, 100], title="another")]
    assert "    ahead   ours: rate 1.55 × theirs (1.5–1.6)" in list(report.row_lines(results[0]))
    assert list(report.summary(results)) == [
        "beside theirs: 1 ahead, 1 behind",
        "  ahead   1.55 ×   rate of ours: a row",
        "  behind  0.55 ×   rate of ours: another",
        "failures: 0",
    ]


def test_an_interpreter_is_no_peer_of_the_tool() -> None:
    results = [result([50, 60], [100, 100], title="by Python: a row")]
    assert list(report.summary(results)) == ["failures: 0"]
    assert len(list(document.behind(results))) == 2


def test_what_is_behind_is_a_table_with_the_reason() -> None:
    results = [result([150, 160], [100, 100]), result([50, 60], [100, 100], title="another")]
    assert list(document.behind(results))[2:] == ["| theirs | another | rate | ours: 0.55 × | it is written in C |"]


def test_only_the_part_of_a_document_that_is_named_is_replaced() -> None:
    text = "a\n<!-- bench: one -->\nold\n<!-- bench: end -->\nb\n<!-- bench: two -->\nkept\n<!-- bench: end -->\n"
    expected = text.replace("old", r"\n new \1 ").replace("-->\n\\n", "-->\n\n\\n").replace("\\1 \n", "\\1 \n\n")
    assert document.replaced(text, {"one": [r"\n new \1 "]}) == expected
    with pytest.raises(ValueError, match="0 parts are called three"):
        document.replaced(text, {"three": []})


def test_the_figures_of_the_documents_are_those_of_the_run_that_is_kept() -> None:
    text, run = (DOCS / "PERFORMANCE.md").read_text(), json.loads((DOCS / "bench.json").read_text())
    assert document.replaced(text, document.parts(report.from_json(run, rows))) == text


def test_rows_of_interpreters_are_read_again_with_the_interpreters_of_that_run() -> None:
    values = {f"Python {version}": {"rate": [rate]} for version, rate in (("3.11", 100.0), ("3.13", 120.0))}
    row = {"title": "by Python: sealed, one stream", "values": values, "percentiles_us": {}, "failures": []}
    results = report.from_json({"rows": [row]}, rows)
    assert "    ahead   Python 3.13: rate 1.2 × Python 3.11 (1.2–1.2)" in list(report.row_lines(results[0]))
    assert "| sealed, one stream: rate, MiB/s | 100 | 120 (1.20 ×) |" in list(document.pythons(results))
