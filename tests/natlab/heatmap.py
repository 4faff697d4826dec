"""Results -> one picture: router pairs as a triangle of colours, all other cells as strips.  Pure.

A plain SVG written by hand: no dependency, and a small change of a result is
a small change of the file.  Colour is the share of runs that came out as they
must; the number in a square is the median time from the later start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .cells import PAIRS, Cell
from .judge import Result
from .report import Summary, duration, summarise
from .table import CELLS
from .topology import PAIR_ROWS

SQUARE = 58
LABEL = 110
STRIP = 18
STRIP_LABEL = 400
STRIP_WIDTH = 200
GAP = 40
TITLE = 28
MARGIN = 20
# From never to always; red and blue, which colour-blind readers can tell.
NEVER, ALWAYS = (202, 76, 64), (94, 146, 205)
NOT_RUN = "#eeeeee"

Summaries = dict[tuple[str, str], Summary]


def svg(results: Sequence[Result]) -> str:
    """Return the picture of all results, one triangle a subject, side by side."""
    summaries = summarise(results)
    subjects = list(dict.fromkeys(result.subject for result in results))
    names = [row.name for row in PAIR_ROWS]
    side = LABEL + SQUARE * len(names)
    run = {title for _subject, title in summaries}
    rows = [cell for cell in CELLS if cell.block != PAIRS and cell.title in run]
    top = TITLE + LABEL + SQUARE * len(names) + GAP
    width = MARGIN * 2 + max(len(subjects) * (side + GAP), STRIP_LABEL + STRIP_WIDTH * len(subjects))
    height = MARGIN * 2 + top + TITLE + STRIP * len(rows)
    shapes: list[str] = []
    for number, subject in enumerate(subjects):
        shapes += _triangle(MARGIN + number * (side + GAP), MARGIN, subject, names, summaries)
        shapes.append(_text(MARGIN + STRIP_LABEL + number * STRIP_WIDTH, MARGIN + top, subject, weight="bold"))
        shapes += _strips(MARGIN + STRIP_LABEL + number * STRIP_WIDTH, MARGIN + top + 8, subject, rows, summaries)
    for number, cell in enumerate(rows):
        shapes.append(_text(MARGIN, MARGIN + top + 8 + STRIP * number + 13, cell.title))
    body = "\n".join(shapes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _triangle(left: int, top: int, subject: str, names: list[str], summaries: Summaries) -> Iterable[str]:
    cells = {(cell.left, cell.right): cell for cell in CELLS if cell.block == PAIRS}
    yield _text(left, top + 14, f"{subject}: share of runs that came out right, median time", weight="bold")
    for column, name in enumerate(names):
        at = left + LABEL + column * SQUARE + SQUARE // 2
        yield f'<text transform="translate({at},{top + TITLE + LABEL - 8}) rotate(-50)">{escape(name)}</text>'
    for row, one in enumerate(names):
        y = top + TITLE + LABEL + row * SQUARE
        yield _text(left, y + SQUARE // 2 + 4, one)
        for column, other in enumerate(names[row:], start=row):
            cell = cells[one, other]
            x = left + LABEL + column * SQUARE
            note = "must fail" if cell.fails else ""
            yield from _square(x, y, SQUARE, SQUARE, summaries.get((subject, cell.title)), note)


def _strips(left: int, top: int, subject: str, rows: list[Cell], summaries: Summaries) -> Iterable[str]:
    for number, cell in enumerate(rows):
        one = summaries.get((subject, cell.title))
        y = top + STRIP * number
        yield _rectangle(left, y, STRIP_WIDTH - 10, STRIP, one)
        if one is not None:
            note = "must fail" if cell.fails else duration(one.median_s)
            yield _text(left + 8, y + 13, f"{one.passed}/{one.runs}   {note}")


def _square(x: int, y: int, width: int, height: int, one: Summary | None, note: str) -> Iterable[str]:
    yield _rectangle(x, y, width, height, one)
    if one is None:
        return
    yield _text(x + width // 2, y + height // 2 - 3, f"{one.passed}/{one.runs}", anchor="middle")
    yield _text(x + width // 2, y + height // 2 + 12, note or duration(one.median_s), anchor="middle")


def _rectangle(x: int, y: int, width: int, height: int, one: Summary | None) -> str:
    fill = NOT_RUN if one is None else _colour(one.passed / one.runs)
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}" stroke="white"/>'


def _colour(share: float) -> str:
    mixed = (round(low + (high - low) * share) for low, high in zip(NEVER, ALWAYS, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _text(x: int, y: int, words: str, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'
