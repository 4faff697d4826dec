"""What a row is: subjects that run in turn, what is measured of them, and what must come out."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from .hole import Path
from .stage import Stage

# What one measurement found: metric names and values; "percentiles" is a list.
Sample = dict[str, "float | list[float]"]


@dataclass(frozen=True, slots=True)
class Metric:
    """Something measured; `digits` behind the point are printed."""

    name: str
    unit: str
    digits: int = 0
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A subject that is set up.

    Attributes:
        measure: Takes seconds, measures for about so long.
        check: Raises if bytes that go through come out changed; None if there is nothing to compare.
    """

    measure: Callable[[float], Sample]
    check: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is measured in a row, and the programs that must be installed for it."""

    label: str
    set_up: Callable[[Stage], Running]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """What must come out: at least (or, where less is better, at most) `bound`, or `bound` times another subject."""

    label: str
    metric: Metric
    bound: float
    versus: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        path: Between the hosts; None is loopback.
        fresh: Whether subjects are set up anew for each round.
        rounds: At most so many.
        chart: The chart that this is a point of, and where on its x axis.
    """

    title: str
    subjects: tuple[Subject, ...]
    metrics: tuple[Metric, ...]
    targets: tuple[Target, ...] = ()
    seconds: float = 2.0
    path: Path | None = None
    fresh: bool = False
    rounds: int = 100
    chart: tuple[str, int] = ("", 0)


@dataclass(slots=True)
class Result:
    """A row that has run.

    Attributes:
        values: By subject and metric name, one for each round; None if that round failed.
        percentiles: By subject, a list for each round that has one.
        failures: Sentences: who, and why.
    """

    row: Row
    values: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    percentiles: dict[str, list[list[float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, label: str, sample: Sample | None) -> None:
        """Add what one round found for a subject; None if it failed."""
        columns = self.values.setdefault(label, {metric.name: [] for metric in self.row.metrics})
        for name, values in columns.items():
            value = (sample or {}).get(name)
            values.append(value if isinstance(value, float | int) else None)
        if sample and isinstance(found := sample.get("percentiles"), list):
            self.percentiles.setdefault(label, []).append(found)

    def void(self, label: str) -> None:
        """Forget the figures of a subject: what corrupts has none."""
        for values in self.values[label].values():
            values[:] = [None] * len(values)
        self.percentiles.pop(label, None)

    def figures(self, label: str, metric: Metric) -> list[float]:
        """Return the values of all rounds that did not fail."""
        return [value for value in self.values.get(label, {}).get(metric.name, []) if value is not None]

    def median(self, label: str, metric: Metric) -> float | None:
        """Return the median of all rounds, or None without one."""
        figures = self.figures(label, metric)
        return statistics.median(figures) if figures else None

    def outcome(self, target: Target) -> list[float]:
        """Return what the bound is compared with, for each round: a figure, or the ratio of two."""
        if not target.versus:
            return self.figures(target.label, target.metric)
        ours = self.values.get(target.label, {}).get(target.metric.name, [])
        theirs = self.values.get(target.versus, {}).get(target.metric.name, [])
        return [one / other for one, other in zip(ours, theirs, strict=False) if one is not None and other]

    def met(self, target: Target) -> bool | None:
        """Tell whether the median of the outcome is within the bound; None if there is nobody to compare with.

        A subject that ran and has no figure has failed, and so has missed.
        """
        if target.label in self.values and not self.figures(target.label, target.metric):
            return False
        outcome = self.outcome(target)
        if not outcome:
            return None
        middle = statistics.median(outcome)
        return middle >= target.bound if target.metric.more_is_better else middle <= target.bound
