"""docs/TROUBLESHOOTING.md is complete and readable; tests/natlab and tests/e2e play its rows."""

from __future__ import annotations

import pytest

from punchtunnel import words

from .troubleshooting import ROWS, TEXT


def test_every_row_has_a_key_of_its_own_in_its_table() -> None:
    keys = [(row.statuses, row.key) for row in ROWS]
    assert len(keys) == len(set(keys))
    assert len(keys) > 30


@pytest.mark.parametrize("cause", words.NO_HOLE)
def test_every_cause_of_no_hole_has_a_row(cause: str) -> None:
    assert words.NO_HOLE[cause] in TEXT


def test_a_row_takes_its_sentence_and_no_other() -> None:
    (row,) = [row for row in ROWS if row.key == "no-name"]
    assert row.matches(words.unresolved("home", "it failed"))
    assert not row.matches(words.unresolved("home", "it failed") + "; now")
    assert row.statuses == (3,)
