"""Rates -> one picture: who meets whom, the tool beside the published algorithm.  Pure.

    the tool: a triangle of router pairs | the published algorithm: the same
    all other cells that both have run, one bar a block for each of the two

A square is the share of runs with a hole, in percent.  The whole matrix, with
times and SYNs, is the text that `report.text` makes; `report.rates` reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape

from .cells import PAIRS, Cell
from .drawing import SIZE, WIDTH, Colours, box, document, text
from .subjects import BASELINE, TOOL
from .table import CELLS
from .topology import PAIR_ROWS

NAMES = {TOOL.name: "punchtunnel", BASELINE.name: "the published algorithm"}
EXPLAINED = {
    TOOL.name: "20 ports, held and dialled",
    BASELINE.name: "16 ports of a clock bucket, dialled again and again",
}
# What a block of cells varies, as a person says it.
BLOCKS = {
    "routers": "odder routers", "ipv6": "IPv6", "distance": "distance, loss, jitter",
    "starts": "time between the starts", "clocks": "clocks that are wrong", "hosts": "one LAN, busy ports, scanners",
}  # fmt: skip

# Blue and red, which colour-blind readers can tell; the numbers say it once more.
COLOURS: Colours = {
    "always": ("#b6d7f2", "#1d4a75"), "sometimes": ("#f6dd94", "#6b5310"), "never": ("#f3aca0", "#7f2c23"),
    "cannot": ("#e4e7ea", "#262c33"), "ours": ("#0969da", "#58a6ff"), "theirs": ("#7d8590", "#848d97"),
}  # fmt: skip

SQUARE, LABEL, HEADS, GAP = 26, 52, 84, 58
TRIANGLE = LABEL + SQUARE * len(PAIR_ROWS)
TOP = 52
BAR, BAR_LABEL, BAR_WIDTH = 13, 276, 380

Rates = Mapping[tuple[str, str], tuple[int, int]]


def svg(rates: Rates) -> str:
    """Return the picture.

    Args:
        rates: For each (subject, title of a cell) the runs that came out as they must, and all.
    """
    shapes: list[str] = []
    for number, subject in enumerate(NAMES):
        shapes += _triangle(number * (TRIANGLE + GAP) + 8, subject, rates)
    bottom = TOP + HEADS + SQUARE * len(PAIR_ROWS)
    shapes += _legend(bottom + 28)
    shapes += _bars(bottom + 92, rates)
    return document(bottom + 118 + len(BLOCKS) * (2 * BAR + 10), "\n".join(shapes), COLOURS)


def _triangle(left: int, subject: str, rates: Rates) -> Iterator[str]:
    cells = {(cell.left, cell.right): cell for cell in CELLS if cell.block == PAIRS}
    names = [row.name for row in PAIR_ROWS]
    yield text(left, 20, NAMES[subject], "title")
    runs = [rates[subject, cell.title][1] for cell in cells.values() if (subject, cell.title) in rates]
    each = f"; {min(runs)} to {max(runs)} runs each" if len(set(runs)) > 1 else f"; {runs[0]} runs each" if runs else ""
    yield text(left, 37, EXPLAINED[subject] + each, "muted")
    for column, name in enumerate(names):
        at = left + LABEL + column * SQUARE + SQUARE // 2 + 4
        yield f'<text transform="translate({at},{TOP + HEADS - 6}) rotate(-50)">{escape(name)}</text>'
    for row, one in enumerate(names):
        y = TOP + HEADS + row * SQUARE
        # The row's name stands where its squares begin: the triangle has room there.
        yield text(left + LABEL + row * SQUARE - 6, y + SQUARE // 2 + 4, one, anchor="end")
        for column, other in enumerate(names[row:], start=row):
            x = left + LABEL + column * SQUARE
            yield from _square(x, y, cells[one, other], rates.get((subject, cells[one, other].title)))


def _square(x: int, y: int, cell: Cell, rate: tuple[int, int] | None) -> Iterator[str]:
    if rate is None:
        return
    passed, runs = rate
    kind, shown = ("cannot", "–") if cell.fails else (_kind(passed / runs), f"{100 * passed / runs:.0f}")
    yield box(x, y, SQUARE - 1, SQUARE - 1, kind)
    yield text(x + (SQUARE - 1) / 2, y + SQUARE // 2 + 4, shown, anchor="middle")


def _kind(share: float) -> str:
    return "always" if share == 1 else "sometimes" if share else "never"


def _legend(y: int) -> Iterator[str]:
    words = {
        "always": "in all runs", "sometimes": "in some", "never": "in none", "cannot": "cannot be met without a relay",
    }  # fmt: skip
    yield text(8, y, "A square is two machines, each behind a router of its kind: % of runs with a hole.")
    x, y = 8, y + 22
    for kind, meaning in words.items():
        yield box(x, y - SIZE + 1, SIZE + 2, SIZE + 2, kind)
        yield text(x + SIZE + 8, y, meaning)
        x += SIZE + 20 + round(6.5 * len(meaning))


def _bars(top: int, rates: Rates) -> Iterator[str]:
    """Yield one pair of bars for each block, of the cells that both have run and can be met."""
    yield text(8, top, "Other cells that both have run: % of runs with a hole", "title")
    yield box(WIDTH - 350, top - SIZE + 1, SIZE + 2, SIZE + 2, "ours")
    yield text(WIDTH - 330, top, NAMES[TOOL.name])
    yield box(WIDTH - 220, top - SIZE + 1, SIZE + 2, SIZE + 2, "theirs")
    yield text(WIDTH - 200, top, NAMES[BASELINE.name])
    y = top + 16
    for block, name in BLOCKS.items():
        titles = [cell.title for cell in CELLS if cell.block == block and not cell.fails]
        both = [title for title in titles if all((subject, title) in rates for subject in NAMES)]
        yield text(8, y + BAR + 5, f"{name} ({len(both)} cells)")
        for number, (subject, kind) in enumerate(zip(NAMES, ("ours", "theirs"), strict=True)):
            yield from _bar(y + number * BAR, kind, [rates[subject, title] for title in both])
        y += 2 * BAR + 10


def _bar(y: int, kind: str, rates: Iterable[tuple[int, int]]) -> Iterator[str]:
    passed, runs = (sum(column) for column in zip(*rates, strict=True))
    yield box(BAR_LABEL, y, max(1, round(BAR_WIDTH * passed / runs)), BAR - 2, kind)
    yield text(
        BAR_LABEL + BAR_WIDTH * passed / runs + 8, y + 10, f"{100 * passed / runs:.0f} %: {passed} of {runs}", "muted"
    )
