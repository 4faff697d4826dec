"""Results -> one picture of four charts.  Pure.

    throughput by streams      | throughput by write size
    latency beside a stream    | processor time per GiB

A plain SVG written by hand: no dependency, and a small change of a figure is a
small change of the file.  A subject has the same colour everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from .measures import CPU, RATE
from .report import pooled
from .rows import (
    BUSY_PATH,
    DIRECT,
    HAPROXY,
    HAPROXY_SPLICE,
    HAPROXY_TUNED,
    PLAIN,
    RECORDS,
    SEALED,
    SOCAT,
    SOCAT_LARGE,
    SSH,
    STREAMS,
    STUNNEL,
)
from .table import Result

# Colours that colour-blind readers can tell (Okabe and Ito); ours are the strong ones.
COLOURS = {
    PLAIN: "#0072b2", SEALED: "#d55e00", SOCAT_LARGE: "#009e73", HAPROXY_SPLICE: "#cc79a7", SSH: "#e69f00",
    HAPROXY_TUNED: "#b5629b", STUNNEL: "#8c8c8c", SOCAT: "#66c2a5", HAPROXY: "#e0b0d0", DIRECT: "#333333",
}  # fmt: skip
OURS = (PLAIN, SEALED)

WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 20, 46, 44
LEGEND, LEGEND_LINE = 46, 16
BAR = 22
GRID, INK = "#e4e4e4", "#444444"

Points = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """Values between `low` and `high`, in steps that are alike or ratios that are alike."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    is_log: bool = False

    def share(self, value: float) -> float:
        """Return how far along the axis a value is, 0 to 1."""
        if self.is_log:
            inside = min(max(value, self.low), self.high)
            return math.log(inside / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def svg(results: Sequence[Result]) -> str:
    """Return the picture; a chart without results stays empty."""
    panels: list[Callable[[], Iterator[str]]] = [
        lambda: _by_streams(results), lambda: _by_record(results), lambda: _latency(results), lambda: _cpu(results),
    ]  # fmt: skip
    shapes = list(_legend())
    for number, panel in enumerate(panels):
        x, y = number % 2 * WIDTH, LEGEND + number // 2 * HEIGHT
        shapes += [f'<g transform="translate({x},{y})">', *panel(), "</g>"]
    width, height = 2 * WIDTH, LEGEND + 2 * HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{INK}">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(shapes)
        + "\n</svg>\n"
    )


def _legend() -> Iterator[str]:
    labels = [label for label in COLOURS if label not in (SOCAT, HAPROXY)]
    x, y = LEFT, 20
    for label in labels:
        width = 34 + round(6.1 * len(label))
        if x + width > 2 * WIDTH:
            x, y = LEFT, y + LEGEND_LINE
        yield f'<rect x="{x}" y="{y - 8}" width="14" height="8" fill="{COLOURS[label]}"/>'
        yield _text(x + 18, y, label)
        x += width


# ---- the four charts


def _by_streams(results: Sequence[Result]) -> Iterator[str]:
    lines = _series(results, STREAMS)
    lines.pop(DIRECT, None)
    x = Axis("streams", 1, 64, (1, 4, 16, 64), is_log=True)
    yield from _chart("Throughput, MiB/s, by streams", x, _linear("", lines), lines)


def _by_record(results: Sequence[Result]) -> Iterator[str]:
    lines = _series(results, RECORDS)
    x = Axis("bytes the client writes at once", 64, 1 << 20, (64, 1024, 16384, 1 << 20), is_log=True)
    y = Axis("", 5, 10000, (10, 100, 1000, 10000), is_log=True)
    yield from _chart("Throughput of one stream, MiB/s, by write size", x, y, lines)


def _latency(results: Sequence[Result]) -> Iterator[str]:
    lines = {
        label: [(time / 1000, number / 200) for number, time in enumerate(pooled(lists))]
        for result in results
        if result.row.path == BUSY_PATH
        for label, lists in result.percentiles.items()
    }
    x = Axis("ms there and back", 40, 640, (40, 80, 160, 320, 640), is_log=True)
    y = Axis("", 0, 1, (0, 0.25, 0.5, 0.75, 1))
    yield from _chart("Answers that are back, beside a stream that fills 100 Mbit/s, RTT 40 ms", x, y, lines)


def _cpu(results: Sequence[Result]) -> Iterator[str]:
    bars = {
        label: median
        for result in results
        if result.row.chart == (STREAMS, 1)
        for label in result.values
        if label in COLOURS and (median := result.median(label, CPU)) is not None
    }
    yield _text(LEFT, 20, "Processor seconds per GiB, both hops, one stream", weight="bold")
    longest = max(bars.values(), default=1.0)
    room = WIDTH - LEFT - RIGHT - 190
    for number, (label, value) in enumerate(sorted(bars.items(), key=lambda bar: bar[1])):
        y = TOP + number * (BAR + 8)
        yield _text(LEFT + 132, y + 15, label, anchor="end")
        length = room * value / longest
        yield f'<rect x="{LEFT + 140}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{COLOURS[label]}"/>'
        yield _text(round(LEFT + 146 + length), y + 15, f"{value:.2f}")


# ---- parts of a chart


def _series(results: Sequence[Result], chart: str) -> dict[str, Points]:
    """Return the points of each subject that has a line in this chart."""
    lines: dict[str, Points] = {}
    for result in results:
        name, x = result.row.chart
        for label in result.values:
            median = result.median(label, RATE)
            if name == chart and label in COLOURS and label not in (SOCAT, HAPROXY) and median is not None:
                lines.setdefault(label, []).append((x, median))
    return {label: sorted(points) for label, points in lines.items()}


def _linear(title: str, lines: dict[str, Points]) -> Axis:
    """Return an axis from 0 with about five round steps."""
    highest = max((y for points in lines.values() for _x, y in points), default=1.0)
    rough = highest / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    ticks = [step * number for number in range(math.ceil(highest / step) + 1)]
    return Axis(title, 0, ticks[-1], ticks)


def _chart(title: str, x: Axis, y: Axis, lines: dict[str, Points]) -> Iterator[str]:
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(point: tuple[float, float]) -> str:
        return f"{LEFT + across * x.share(point[0]):.1f},{TOP + up * (1 - y.share(point[1])):.1f}"

    yield _text(LEFT, 20, title, weight="bold")
    for tick in y.ticks:
        at = round(TOP + up * (1 - y.share(tick)))
        yield f'<path d="M{LEFT},{at} h{across}" stroke="{GRID}"/>'
        yield _text(LEFT - 6, at + 4, f"{tick:g}", anchor="end")
    for tick in x.ticks:
        at = round(LEFT + across * x.share(tick))
        yield f'<path d="M{at},{TOP} v{up}" stroke="{GRID}"/>'
        yield _text(at, TOP + up + 16, _size(tick), anchor="middle")
    yield _text(LEFT + across // 2, HEIGHT - 8, x.title, anchor="middle")
    # Ours last, above the others.
    for label in sorted(lines, key=lambda label: label in OURS):
        width = 3 if label in OURS else 1.5
        dashes = ' stroke-dasharray="4 3"' if label == DIRECT else ""
        path = " ".join(place(point) for point in lines[label])
        yield f'<polyline points="{path}" fill="none" stroke="{COLOURS[label]}" stroke-width="{width}"{dashes}/>'


def _size(value: float) -> str:
    """Return a number as it stands on an axis: 1 Mi, 16 Ki, 320."""
    for unit, name in ((1 << 20, " Mi"), (1 << 10, " Ki")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _text(x: int, y: int, words: str, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">{escape(words)}</text>'
