"""The tables of docs/TROUBLESHOOTING.md as data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "TROUBLESHOOTING.md").read_text()


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its columns by their heads, and the exit statuses that its section's head names."""

    columns: dict[str, str]
    statuses: tuple[int, ...]

    @property
    def key(self) -> str:
        """What a row is called."""
        return self.columns["key"]

    def matches(self, sentence: str, column: str = "sentence") -> bool:
        """Tell whether a sentence is the one of this row; `{name}` stands for anything."""
        parts = re.split(r"\{\w+\}", self.columns[column])
        return re.fullmatch(".*?".join(map(re.escape, parts)), sentence) is not None


def _rows() -> Iterator[Row]:
    heads: list[str] = []
    statuses: tuple[int, ...] = ()
    for line in TEXT.splitlines():
        if line.startswith("## "):
            statuses = tuple(map(int, re.findall(r"\d+", line)))
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| ") else []
        if not cells:
            heads = heads if line.startswith("|--") else []
        elif not heads:
            heads = cells
        else:
            yield Row(dict(zip(heads, cells, strict=True)), statuses)


ROWS = list(_rows())
