"""Results -> the parts of docs/PERFORMANCE.md that hold figures.  Pure.

A part stands between two lines, and only it is written:

    <!-- bench: NAME -->
    ...
    <!-- bench: end -->

A sentence whose figures are not all there is left out.
"""

from __future__ import annotations

import re
import statistics
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence

from .measures import BACK50, BUSY50, CONNECTIONS, CPU, FIRST50, MEMORY, RATE
from .subjects import (
    BARE,
    BARE_SEALED,
    BARE_STREAMS,
    DIRECT,
    HAPROXY,
    PLAIN,
    SEALED,
    SOCAT,
    SOCAT_LARGE,
    SSH,
    STUNNEL,
    UNRESUMED,
)
from .table import BY_PYTHON, Comparison, Metric, Result, Verdict

WIDTH = 100
# Titles of rows: one stream, and 16.
SEALED_BULK = "sealed, -L/--to, one stream", "sealed, -L/--to, 16 streams"


def replaced(text: str, parts: Mapping[str, Sequence[str]]) -> str:
    """Return a document with these parts in place of what stood there.

    Raises:
        ValueError: It has no such part.
    """
    for name, lines in parts.items():
        begin = f"<!-- bench: {name} -->\n"
        place = re.compile(re.escape(begin) + r".*?(?=^<!-- bench: end -->$)", re.DOTALL | re.MULTILINE)
        part = "".join(f"{line}\n" for line in ("", *lines, ""))
        before, *old = place.split(text)
        if len(old) != 1:
            raise ValueError(f"{len(old)} parts are called {name}")
        text = f"{before}{begin}{part}{old[0]}"
    return text


def parts(results: Sequence[Result]) -> dict[str, list[str]]:
    """Return the lines of each part."""
    return {
        "short": list(sentences(results, "- ", _new_connection, _start, _bulk, _beside_bulk, _loss)),
        "behind": list(behind(results)),
        "bare": list(sentences(results, "- ", _bare_loop, _bare_bulk, _bare_connections)),
        "pythons": list(pythons(results)),
    }


# ---- what a person feels, in five lines


class Figures:
    """Medians for sentences; KeyError where there is none."""

    def __init__(self, results: Sequence[Result]) -> None:
        self._results = {result.row.title: result for result in results}

    def of(self, title: str, label: str, metric: Metric) -> float:
        found = self._results[title].median(label, metric)
        if found is None:
            raise KeyError(label)
        return found

    def ratio(self, title: str, label: str, metric: Metric, versus: str) -> float:
        ratios = self._results[title].ratios(Comparison(label, metric, versus))
        if not ratios:
            raise KeyError(versus)
        return statistics.median(ratios)


def _new_connection(figures: Figures) -> str:
    title = "first byte of a new connection over RTT 100 ms"
    ours, direct, ssh = (figures.of(title, label, FIRST50) for label in (SEALED, DIRECT, SSH))
    return (
        f"**A new connection costs one round trip.** Over 100 ms its first answer is there after {ours:.0f} ms; "
        f"plain TCP takes {direct:.0f} ms, and `ssh -L` {ssh:.0f} ms."
    )


def _start(figures: Figures) -> str:
    ours, ssh = (figures.of("from the later start to the first byte, over RTT 100 ms", label, FIRST50)
                 for label in (SEALED, SSH))  # fmt: skip
    title = "ssh with --stdio as ProxyCommand, from its start to the first byte, over RTT 100 ms"
    proxied = figures.of(title, f"ssh, ProxyCommand {SEALED}", FIRST50)
    return (
        f"**From the later start to the first byte** it takes {ours:.0f} ms over the same path, and ssh {ssh:.0f} ms. "
        f"With `--stdio` as its ProxyCommand, ssh takes {proxied:.0f} ms."
    )


def _bulk(figures: Figures) -> str:
    sealed, plain = (f"{kind}, -L/--to, one stream" for kind in ("sealed", "plain"))
    return (
        f"**Sealed, one stream moves {figures.ratio(sealed, SEALED, RATE, SSH):.1f} × as much as through ssh**, with "
        f"{figures.ratio(sealed, SEALED, CPU, SSH):.1f} of its processor time. Plain it moves "
        f"{figures.ratio(plain, PLAIN, RATE, SOCAT_LARGE):.1f} × as much as through socat with 1 MiB buffers, with "
        f"{figures.ratio(plain, PLAIN, CPU, SOCAT_LARGE):.1f} of its processor time."
    )


def _beside_bulk(figures: Figures) -> str:
    title = "64 bytes there and back, beside a stream that fills "
    (near, near_ssh), (home, home_ssh) = (
        [figures.of(title + line, label, BUSY50) for label in (SEALED, SSH)]
        for line in ("100 Mbit/s, 20 ms one way", "20 Mbit/s with half a second of queue")
    )
    return (
        f"**An answer beside a full line** of 100 Mbit/s takes {near:.0f} ms, and through ssh {near_ssh:.0f} ms. "
        f"Through a home's uplink of 20 Mbit/s with half a second of queue it takes {home:.0f} ms, and through ssh "
        f"{home_ssh:.0f} ms. The round trip is 40 ms in both."
    )


def _loss(figures: Figures) -> str:
    near, far = (figures.of(f"hole lost until bytes flow again{words}", SEALED, BACK50)
                 for words in ("", ", RTT 100 ms"))  # fmt: skip
    title = "cost of being able to resume, one stream"
    rate = figures.ratio(title, SEALED, RATE, UNRESUMED)
    memory = figures.ratio("one stream over RTT 300 ms, 200 Mbit/s, no loss", SEALED, MEMORY, UNRESUMED)
    return (
        f"**After a reset of the hole, bytes flow again** after {near:.0f} ms on one machine, and after {far:.0f} ms "
        f"over 100 ms. Being able to resume costs one stream on one machine {_percent(1 - rate)} of its rate, and over "
        f"300 ms {_percent(memory - 1)} more memory."
    )


def _percent(share: float) -> str:
    """Return a share that is a cost: "3 %"; a gain is the measurement's noise."""
    return f"{max(0.0, 100 * share):.0f} %"


def _bare_loop(figures: Figures) -> str:
    loop = {peer: figures.ratio(SEALED_BULK[0], BARE, RATE, peer) for peer in (SSH, STUNNEL, SOCAT, HAPROXY)}
    return (
        f"With one stream the bare loop moves {loop[SSH]:.1f} × as much as ssh, {loop[STUNNEL]:.1f} × stunnel, and "
        f"{loop[SOCAT]:.1f} × socat and {loop[HAPROXY]:.1f} × HAProxy, which send in clear."
    )


def _bare_bulk(figures: Figures) -> str:
    (one, many), (ours, ours_many) = (
        [figures.ratio(title, label, RATE, BARE) for title in SEALED_BULK] for label in (BARE_SEALED, SEALED)
    )
    cpu, ours_cpu = (figures.ratio(SEALED_BULK[0], label, CPU, BARE) for label in (BARE_SEALED, SEALED))
    return (
        f"Bare streams have {one:.2f} of the bare loop's rate with one stream, with {cpu:.2f} of its processor time, "
        f"and {many:.2f} of its rate with 16. The tool has {ours:.2f} with one stream, with {ours_cpu:.2f} of the "
        f"processor time, and {ours_many:.2f} with 16."
    )


def _bare_connections(figures: Figures) -> str:
    title = "new connections through -L, 16 at a time"
    bare, sealed = (figures.ratio(title, label, CONNECTIONS, SSH) for label in (BARE_STREAMS, BARE_SEALED))
    ours = [
        figures.ratio(title, label, CONNECTIONS, at_most)
        for label, at_most in ((PLAIN, BARE_STREAMS), (SEALED, BARE_SEALED))
    ]
    return (
        f"With 16 connections at a time, bare streams make {bare:.2f} × as many as ssh in clear, and {sealed:.2f} × "
        f"sealed. The tool makes {ours[0]:.2f} and {ours[1]:.2f} of what they make."
    )


def sentences(results: Sequence[Result], bullet: str, *written: Callable[[Figures], str]) -> Iterator[str]:
    """Yield sentences, wrapped; one whose figures are not all there is left out."""
    figures = Figures(results)
    for sentence in written:
        try:
            words = bullet + sentence(figures)
        except KeyError:
            continue
        yield from textwrap.wrap(words, WIDTH, subsequent_indent=" " * len(bullet), break_long_words=False)


# ---- what is behind, and why


def behind(results: Sequence[Result]) -> Iterator[str]:
    """Yield a table of all comparisons in which ours is behind, one peer after another."""
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for result in results:
        for compared in () if result.row.title.startswith(BY_PYTHON) else result.row.comparisons:
            if result.verdict(compared) == Verdict.BEHIND:
                # One line for both of ours.
                line = (compared.versus, result.row.title, compared.metric.name, compared.why)
                ratio = f"{statistics.median(result.ratios(compared)):.2f} ×"
                found.setdefault(line, []).append(f"{compared.label}: {ratio}")
    yield from ("| beside | row | figure | ours | why |", "|---|---|---|---|---|")
    peers = list(dict.fromkeys(line[0] for line in found))
    for (versus, title, metric, why), ours in sorted(found.items(), key=lambda one: peers.index(one[0][0])):
        yield f"| {versus} | {title} | {metric} | {'; '.join(ours)} | {why} |"


# ---- interpreters


def pythons(results: Sequence[Result]) -> Iterator[str]:
    """Yield a table of the rows that other interpreters ran: medians, and the ratio to the first one."""
    rows = [result for result in results if result.row.title.startswith(BY_PYTHON) and result.values]
    if not rows:
        yield "Only one interpreter was measured."
        return
    first, *others = labels = list(rows[0].values)
    yield f"| sealed | {' | '.join(labels)} |"
    yield "|---" * (1 + len(labels)) + "|"
    for result in rows:
        for metric in result.row.metrics:
            cells = [_figure(result.median(first, metric), metric)]
            for other in others:
                ratios = result.ratios(Comparison(other, metric, first))
                ratio = f" ({statistics.median(ratios):.2f} ×)" if ratios else ""
                cells.append(_figure(result.median(other, metric), metric) + ratio)
            title = result.row.title.removeprefix(BY_PYTHON)
            yield f"| {title}: {metric.name}, {metric.unit} | {' | '.join(cells)} |"


def _figure(value: float | None, metric: Metric) -> str:
    return "–" if value is None else f"{value:.{metric.digits}f}"
