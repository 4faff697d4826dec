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

from tests.natlab.drawing import LETTER, WIDTH, Colours, box, document, text

from .measures import CPU, RATE
from .report import pooled
from .rows import BUSY_PATH, RECORDS, STREAMS
from .subjects import DIRECT, HAPROXY, HAPROXY_SPLICE, HAPROXY_TUNED, PLAIN, SEALED, SOCAT, SOCAT_LARGE, SSH, STUNNEL
from .table import Result

# A class for each subject, with its colour in the light and the dark mode: the same everywhere.
# Ours are the strong ones (Okabe and Ito), and all can be told by colour-blind readers.
CLASSES = {
    PLAIN: "plain", SEALED: "sealed", SOCAT_LARGE: "socat-large", HAPROXY_SPLICE: "haproxy-splice", SSH: "ssh",
    HAPROXY_TUNED: "haproxy-tuned", STUNNEL: "stunnel", SOCAT: "socat", HAPROXY: "haproxy", DIRECT: "direct",
}  # fmt: skip
COLOURS: Colours = {
    "plain": ("#0072b2", "#56b4e9"), "sealed": ("#d55e00", "#ff8a3d"), "socat-large": ("#00875f", "#2fd19d"),
    "haproxy-splice": ("#c05a93", "#e89ac7"), "ssh": ("#b07a00", "#f0b429"), "haproxy-tuned": ("#7b3f98", "#c792ea"),
    "stunnel": ("#757575", "#a0a0a0"), "socat": ("#3f9179", "#8fe3c8"), "haproxy": ("#b0669a", "#f5c9e4"),
    "direct": ("#333333", "#e6edf3"),
}  # fmt: skip
OURS = (PLAIN, SEALED)
WEIGHTS = "polyline { stroke-width: 1.5 }\n.thick { stroke-width: 3 }\n.dashed { stroke-dasharray: 4 3 }\n"

PANEL, HEIGHT = WIDTH // 2, 332
LEFT, RIGHT, TOP, BOTTOM = 46, 24, 62, 46
LEGEND, LEGEND_LINE = 56, 20
BAR, BAR_LABEL = 21, 196

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
        x, y = number % 2 * PANEL, LEGEND + number // 2 * HEIGHT
        shapes += [f'<g transform="translate({x},{y})">', *panel(), "</g>"]
    return document(LEGEND + 2 * HEIGHT, "\n".join(shapes), COLOURS, WEIGHTS)


def _legend() -> Iterator[str]:
    x, y = 12, 20
    for label in [label for label in CLASSES if label not in (SOCAT, HAPROXY)]:
        width = 38 + round(LETTER * len(label))
        if x + width > WIDTH:
            x, y = 12, y + LEGEND_LINE
        yield box(x, y - 9, 14, 9, CLASSES[label])
        yield text(x + 20, y, label)
        x += width


# ---- the four charts


def _by_streams(results: Sequence[Result]) -> Iterator[str]:
    lines = _series(results, STREAMS)
    lines.pop(DIRECT, None)
    x = Axis("streams", 1, 64, (1, 4, 16, 64), is_log=True)
    yield from _chart("Throughput by streams", "MiB/s; higher is better", x, _linear("", lines), lines)


def _by_record(results: Sequence[Result]) -> Iterator[str]:
    lines = _series(results, RECORDS)
    x = Axis("bytes the client writes at once", 64, 1 << 20, (64, 1024, 16384, 1 << 20), is_log=True)
    y = Axis("", 5, 10000, (10, 100, 1000, 10000), is_log=True)
    yield from _chart("Throughput of one stream by write size", "MiB/s; higher is better", x, y, lines)


def _latency(results: Sequence[Result]) -> Iterator[str]:
    lines = {
        label: [(time / 1000, number / 200) for number, time in enumerate(pooled(lists))]
        for result in results
        if result.row.path == BUSY_PATH
        for label, lists in result.percentiles.items()
    }
    x = Axis("ms there and back", 40, 640, (40, 80, 160, 320, 640), is_log=True)
    y = Axis("", 0, 1, (0, 0.25, 0.5, 0.75, 1))
    below = "share of answers that are back, RTT 40 ms; further left is better"
    yield from _chart("Answers beside a stream that fills 100 Mbit/s", below, x, y, lines)


def _cpu(results: Sequence[Result]) -> Iterator[str]:
    bars = {
        label: median
        for result in results
        if result.row.chart == (STREAMS, 1)
        for label in result.values
        if label in CLASSES and (median := result.median(label, CPU)) is not None
    }
    yield from _head("Processor time of one stream", "seconds per GiB, both hops together; shorter is better")
    longest = max(bars.values(), default=1.0)
    room = PANEL - BAR_LABEL - RIGHT - 34
    for number, (label, value) in enumerate(sorted(bars.items(), key=lambda bar: bar[1])):
        y = TOP + number * (BAR + 8)
        yield text(BAR_LABEL - 8, y + 15, label, anchor="end")
        yield box(BAR_LABEL, y, round(room * value / longest, 1), BAR, CLASSES[label])
        yield text(BAR_LABEL + 6 + round(room * value / longest), y + 15, f"{value:.2f}")


# ---- parts of a chart


def _series(results: Sequence[Result], chart: str) -> dict[str, Points]:
    """Return the points of each subject that has a line in this chart."""
    lines: dict[str, Points] = {}
    for result in results:
        name, x = result.row.chart
        for label in result.values:
            median = result.median(label, RATE)
            if name == chart and label in CLASSES and label not in (SOCAT, HAPROXY) and median is not None:
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


def _head(title: str, below: str) -> Iterator[str]:
    yield text(12, 20, title, "title")
    yield text(12, 38, below, "muted")


def _chart(title: str, below: str, x: Axis, y: Axis, lines: dict[str, Points]) -> Iterator[str]:
    across, up = PANEL - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(point: tuple[float, float]) -> str:
        return f"{LEFT + across * x.share(point[0]):.1f},{TOP + up * (1 - y.share(point[1])):.1f}"

    yield from _head(title, below)
    for tick in y.ticks:
        at = round(TOP + up * (1 - y.share(tick)))
        yield f'<path class="grid" d="M{LEFT},{at} h{across}"/>'
        yield text(LEFT - 6, at + 4, f"{tick:g}", "muted", anchor="end")
    for tick in x.ticks:
        at = round(LEFT + across * x.share(tick))
        yield f'<path class="grid" d="M{at},{TOP} v{up}"/>'
        yield text(at, TOP + up + 16, _size(tick), "muted", anchor="middle")
    yield text(LEFT + across // 2, HEIGHT - 12, x.title, anchor="middle")
    # Ours last, above the others.
    for label in sorted(lines, key=lambda label: label in OURS):
        more = " thick" if label in OURS else " dashed" if label == DIRECT else ""
        path = " ".join(place(point) for point in lines[label])
        yield f'<polyline class="line-{CLASSES[label]}{more}" points="{path}"/>'


def _size(value: float) -> str:
    """Return a number as it stands on an axis: 1 Mi, 16 Ki, 320."""
    for unit, name in ((1 << 20, " Mi"), (1 << 10, " Ki")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"
