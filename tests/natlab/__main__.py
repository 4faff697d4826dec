"""`python -m tests.natlab`: run the matrix, print it, write it as JSON and as a picture.

    --short --runs 20                     the short list, as the targets ask for it
    --cells 'reset x'                     the cells whose title matches
    --baseline --json base.json           the plain published algorithm instead
    --beside base.json --text lab.txt     a finished run shown beside this one
    --redraw lab.txt --svg lab.svg        runs nothing: the picture of a finished run

The exit status is 0 if every run came out as it must, and 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from pathlib import Path as FilePath

from . import heatmap, report, sandbox
from .cells import Cell
from .judge import Result
from .run import run_once
from .subjects import BASELINE, TOOL, Subject
from .table import CELLS

# Runs at a time.  A run is mostly waiting for the network, but starting two
# interpreters is not; more than two on two cores and the times suffer.
JOBS = 2
# Cells that take longer wait for most of that time, so they run beside the
# others; but not those with many holes in a row.
PATIENT_JOBS = 4
PATIENT_SECONDS = 7.0
FULL_RUNS = 5
SHORT_RUNS = 20


def options() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.natlab", description="The network laboratory.")
    parser.add_argument(
        "--runs", type=int, metavar="N", help="runs of each cell (default: 20 for the short list, 5 for the others)"
    )
    parser.add_argument("--short", action="store_true", help="only the cells of the short list")
    parser.add_argument("--cells", default="", metavar="PATTERN", help="only cells whose title matches this pattern")
    parser.add_argument("--baseline", action="store_true", help="run the published algorithm instead of the tool")
    parser.add_argument("--beside", type=FilePath, metavar="FILE", help="show the results in this JSON file as well")
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N", help="runs at a time (default 2)")
    parser.add_argument("--json", type=FilePath, metavar="FILE", help="write all results here, after every run")
    parser.add_argument("--svg", type=FilePath, metavar="FILE", help="write the picture here")
    parser.add_argument("--redraw", type=FilePath, metavar="TEXT", help="run nothing: draw --svg of a finished --text")
    parser.add_argument("--text", type=FilePath, metavar="FILE", help="write the table here as well")
    parser.add_argument("--logs", type=FilePath, metavar="DIRECTORY", help="keep events and packets of every run here")
    parser.add_argument("--tied", action="store_true", help="end when the process that started this one ends")
    parser.add_argument("--list", action="store_true", help="print the cells that would be run, and stop")
    return parser


def chosen(short: bool, pattern: str, subject: Subject) -> list[Cell]:
    """Return the cells to run; the longest first, so that they do not come last alone."""
    # The published algorithm knows no relay.
    known = [cell for cell in CELLS if subject is TOOL or not cell.relay]
    wanted = [cell for cell in known if re.search(pattern, cell.title) and (cell.short or not short)]
    return sorted(wanted, key=lambda cell: -cell.longest_s)


async def run_all(cells: list[Cell], subject: Subject, given: argparse.Namespace) -> list[Result]:
    """Run all cells, some at a time."""
    results: list[Result] = []
    patient_jobs = PATIENT_JOBS if given.jobs >= JOBS else given.jobs
    limits = {True: asyncio.Semaphore(patient_jobs), False: asyncio.Semaphore(given.jobs)}

    async def one(cell: Cell, run: int) -> None:
        async with limits[cell.longest_s > PATIENT_SECONDS and cell.repeats == 1]:
            result = await run_once(cell, subject, run, given.logs)
        results.append(result)
        verdict = report.duration(result.seconds) if result.passed else f"FAILED: {result.why}"
        print(f"[{len(results)}] {cell.title} #{run}: {verdict}", file=sys.stderr, flush=True)
        if given.json:
            report.save(results, given.json)

    def runs_of(cell: Cell) -> int:
        wanted: int = given.runs or (SHORT_RUNS if cell.short else FULL_RUNS)
        return min(wanted, cell.most_runs or wanted)

    await asyncio.gather(*(one(cell, run) for cell in cells for run in range(runs_of(cell))))
    return results


def main() -> int:
    """Run the laboratory and return the exit status."""
    parser = options()
    given = parser.parse_args()
    if given.redraw:
        if not given.svg:
            parser.error("--redraw needs --svg")
        given.svg.write_text(heatmap.svg(report.rates(given.redraw.read_text())))
        return 0
    subject = BASELINE if given.baseline else TOOL
    cells = chosen(given.short, given.cells, subject)
    if given.list:
        print("\n".join(f"{cell.title}{'  (short list)' if cell.short else ''}" for cell in cells))
        return 0
    reason = sandbox.missing()
    if reason is not None:
        print(reason, file=sys.stderr)
        return 2
    if given.tied:
        sandbox.die_with_parent()
    sandbox.enter()
    results = asyncio.run(run_all(cells, subject, given))
    shown = results + (report.load(given.beside) if given.beside else [])
    print(table := report.text(shown))
    if given.text:
        given.text.write_text(f"{table}\n")
    if given.svg:
        given.svg.write_text(heatmap.svg(report.rates(table)))
    return 0 if all(result.passed for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
