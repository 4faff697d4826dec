"""The command line of the bench: choose rows, run their subjects in turn, print, write.

    python -m bench --tool /other/checkout --only 'sealed.*one' --rounds 3
    python -m bench --only 'by Python' --python python3.13 --python /opt/3.14/bin/python

As root everything happens in private namespaces (see tests/natlab/sandbox.py):
nothing can remain, however it ends.  Otherwise rows that need them are left out,
and connections use the machine's own congestion control (see congestion.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.natlab import sandbox

from . import charts, congestion, document, hole, machine, report
from .rows import rows
from .stage import LOOPBACK, ROOT, Stage, bounded, in_namespaces
from .subjects import ROOT_RIGHTS
from .table import Result, Row, Running, Subject

# Of one measurement beside the time it is given: start, hash, end.
GRACE_SECONDS = 60.0
QUICK_ROUNDS, QUICK_SHARE = 1, 0.4
PYTHON_HELP = "another interpreter that runs the tool, for the rows by Python; it needs what the tool needs"


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="The tool beside its peers, in alternation.")
    parser.add_argument("--tool", type=Path, default=ROOT, metavar="DIR", help="checkout to measure (default: this)")
    parser.add_argument("--only", default="", metavar="REGEX", help="rows whose title matches")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of every subject (default: 5)")
    parser.add_argument("--quick", action="store_true", help="short measurements, one round: does it work?")
    parser.add_argument("--list", action="store_true", help="show the titles of the rows")
    parser.add_argument("--python", action="append", default=[], metavar="PATH", help=PYTHON_HELP)
    parser.add_argument("--redraw", type=Path, metavar="JSON", help="measure nothing: write from a finished run")
    parser.add_argument(
        "--congestion", metavar="NAME", help="TCP's congestion control; needs root (default: cubic, if there is one)"
    )
    for name in ("text", "json", "svg"):
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=f"write the result as {name}")
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the figures into docs/PERFORMANCE.md")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; 1 if anything failed or came out corrupt."""
    given = options()
    if given.redraw:
        run_before = json.loads(given.redraw.read_text())
        _write(given, run_before, report.from_json(run_before, rows))
        return 0
    if not (given.tool / "punchtunnel").is_dir():
        sys.exit(f"no punchtunnel in {given.tool}: --tool needs a checkout")
    pythons = machine.pythons(given.python)
    chosen = [row for row in rows(pythons) if re.search(given.only, row.title) and row.subjects]
    if given.list:
        print("\n".join(row.title for row in chosen))
        return 0
    machine.compile_for((sys.executable, *map(str, pythons.values())), given.tool)
    absent = machine.missing(machine.PROGRAMS)
    if absent:
        print(machine.advice(absent), file=sys.stderr)
    if _go_private():
        _choose_congestion_control(given.congestion)
        chosen = [row for row in chosen if _has_path(row)]
    elif given.congestion:
        sys.exit("--congestion needs network namespaces of the bench's own")
    else:
        chosen = [row for row in chosen if not row.path]
        absent.append(ROOT_RIGHTS)
    facts = machine.about(given.tool.resolve())
    results: list[Result] = []
    print("\n".join(machine.lines(facts)), "\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="punchtunnel-bench-") as folder:
        for row in chosen:
            results.append(run(row, given, Path(folder), set(absent)))
            print("\n".join(report.row_lines(results[-1])), "\n", flush=True)
    print("\n".join(report.summary(results)))
    facts["load_after"] = round(os.getloadavg()[0], 2)
    _write(given, facts, results)
    return 1 if any(result.failures for result in results) else 0


def _go_private() -> bool:
    """Enter namespaces of our own, if this machine lets us."""
    reason = sandbox.missing()
    if reason is not None:
        print(f"rows that need network namespaces are left out: {reason}", file=sys.stderr)
        return False
    sandbox.enter()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return True


def _choose_congestion_control(wanted: str | None) -> None:
    """Use what was asked for, or else the usual one; without that the machine's own, and say so."""
    name = wanted or congestion.USUAL
    if congestion.is_usable(name):
        congestion.use(name)
    elif wanted:
        sys.exit(f"this kernel does not have the congestion control {wanted!r}")
    else:
        print(f"this kernel does not have {name}: all rows use its {congestion.in_use()}", file=sys.stderr)


def _has_path(row: Row) -> bool:
    """Tell whether the path of a row can be made; a figure of another congestion control would have a wrong title."""
    name = row.path.congestion_control if row.path else ""
    if not name or congestion.is_usable(name):
        return True
    print(f"this kernel does not have {name}, left out: {row.title}", file=sys.stderr)
    return False


def _write(given: argparse.Namespace, facts: dict[str, object], results: list[Result]) -> None:
    contents: tuple[tuple[Path | None, Callable[[], str]], ...] = (
        (given.text, lambda: report.text(machine.lines(facts), results)),
        (given.json, lambda: report.as_json(facts, results)),
        (given.svg, lambda: charts.svg(results)),
        (given.document, lambda: document.replaced(given.document.read_text(), document.parts(results))),
    )
    for file, content in contents:
        if file:
            file.write_text(content())


def run(row: Row, given: argparse.Namespace, folder: Path, absent: set[str]) -> Result:
    """Run all rounds of a row."""
    rounds = min(row.rounds, QUICK_ROUNDS if given.quick else given.rounds)
    seconds = row.seconds * (QUICK_SHARE if given.quick else 1.0)
    result = Result(row)
    with ExitStack() as stack:
        place = LOOPBACK
        if row.path:
            try:
                stack.enter_context(hole.hosts(row.path))
            except subprocess.CalledProcessError as error:
                result.failures.append(f"the path could not be made: {error}")
                return result
            place = in_namespaces(hole.LEFT, hole.RIGHT)
        turns = [
            Turn(subject, partial(Stage, place, folder, given.tool.resolve()))
            for subject in row.subjects
            if not absent & set(subject.needs)
        ]
        for turn in turns:
            stack.callback(turn.end)
        for number in range(rounds):
            for turn in turns:
                turn.take(result, seconds, is_last=number == rounds - 1)
                if row.fresh:
                    turn.end()
    return result


@dataclass(slots=True)
class Turn:
    """A subject of a row, and what runs of it."""

    subject: Subject
    new_stage: Callable[[], Stage]
    _stage: Stage | None = None
    _running: Running | None = None

    def take(self, result: Result, seconds: float, is_last: bool) -> None:
        """Measure once; the last time also compare hashes.  A failure becomes a part of the result."""
        sample, is_checking = None, False
        try:
            with bounded(GRACE_SECONDS + 3 * seconds, "a round"):
                if self._running is None:
                    self._stage = self.new_stage()
                    self._running = self.subject.set_up(self._stage)
                found = self._running.measure(seconds)
                if is_last and self._running.check:
                    is_checking = True
                    self._running.check()
                    is_checking = False
                sample = found
        except Exception as error:
            words = self._stage.last_words() if self._stage else ""
            result.failures.append(f"{self.subject.label}: {error or type(error).__name__} {words and f'[{words}]'}")
            # What has failed once is not trusted again.
            self.end()
        result.add(self.subject.label, sample)
        if is_checking:
            result.void(self.subject.label)

    def end(self) -> None:
        """End what runs, if anything does."""
        stage, self._stage, self._running = self._stage, None, None
        if stage:
            stage.end()


if __name__ == "__main__":
    sys.exit(main())
