"""What a row is: subjects that run in turn, what is measured of them, and who is compared."""

from __future__ import annotations

import enum
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


# How the titles of rows begin that several interpreters run.
BY_PYTHON = "by Python: "
# A ratio that is so near to 1 tells nothing: the same row differs by more from one hour to the next.
LEVEL = 0.03
# So few rounds all count; of more, the lowest and the highest ratio do not.
FEW = 3


class Verdict(enum.Enum):
    """Where a subject stands beside another one."""

    AHEAD = "ahead"
    LEVEL = "level"
    BEHIND = "behind"
    # It ran, and has no figure.
    FAILED = "failed"
    # There is nobody to compare with.
    ALONE = "alone"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One subject beside another one, by one metric.

    Attributes:
        why: What it costs, for people who read that it is behind; "" if nothing is known.
    """

    label: str
    metric: Metric
    versus: str
    why: str = ""


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
    comparisons: tuple[Comparison, ...] = ()
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

    def ratios(self, compared: Comparison) -> list[float]:
        """Return its figure divided by the other one's, for each round that has both."""
        ours = self.values.get(compared.label, {}).get(compared.metric.name, [])
        theirs = self.values.get(compared.versus, {}).get(compared.metric.name, [])
        return [one / other for one, other in zip(ours, theirs, strict=False) if one is not None and other]

    def verdict(self, compared: Comparison) -> Verdict:
        """Tell who is ahead, by the median of the ratios; nobody where it is near 1, or where rounds disagree."""
        if compared.label in self.values and not self.figures(compared.label, compared.metric):
            return Verdict.FAILED
        ratios = self.ratios(compared)
        if not ratios:
            return Verdict.ALONE
        middle = statistics.median(ratios)
        # One round that something else has disturbed is no disagreement.
        usual = sorted(ratios)[1:-1] if len(ratios) > FEW else ratios
        if abs(middle - 1) <= LEVEL or min(usual) <= 1 <= max(usual):
            return Verdict.LEVEL
        return Verdict.AHEAD if (middle > 1) == compared.metric.more_is_better else Verdict.BEHIND
