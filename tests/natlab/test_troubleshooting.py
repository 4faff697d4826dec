"""Entries of docs/TROUBLESHOOTING.md that need routers: what is printed there is what is written there."""

from __future__ import annotations

from typing import Any

import pytest

from ..troubleshooting import ROWS, Row
from .clinic import CONSULTATIONS
from .conftest import LIMIT_SECONDS, needs_clinic, needs_lab
from .judge import Result
from .table import CELLS

CELL_ROWS = [row for row in ROWS if row.cell]
DOCTOR_ROWS = [row for row in ROWS if row.consultation]


def test_rows_name_cells_that_are_played() -> None:
    assert {row.cell for row in CELL_ROWS} <= {cell.title for cell in CELLS if cell.short}
    assert {row.consultation for row in DOCTOR_ROWS} <= {one.name for one in CONSULTATIONS}


@needs_lab
@pytest.mark.timeout(LIMIT_SECONDS + 10)
@pytest.mark.parametrize("row", CELL_ROWS, ids=lambda row: row.key)
def test_a_cell_ends_with_the_sentence_of_its_row(row: Row, results: dict[str, list[Result]]) -> None:
    for result in results[row.cell]:
        ends = [reason.partition(": ") for reason in result.reasons]
        assert any(row.matches(sentence) and int(status) in row.statuses for status, _, sentence in ends), ends


@needs_clinic
@pytest.mark.timeout(LIMIT_SECONDS + 10)
@pytest.mark.parametrize("row", DOCTOR_ROWS, ids=lambda row: f"{row.key} {row.consultation}")
def test_the_doctor_says_what_its_row_says(row: Row, consultations: dict[str, Any]) -> None:
    found = consultations[row.consultation]["findings"]
    (finding,) = [one for one in found if one["finding"] == row.key]
    assert row.matches(finding["sentence"])
    assert row.advises(finding["remedy"])
