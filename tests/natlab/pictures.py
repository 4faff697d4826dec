"""`python -m tests.natlab.pictures`: draw the pictures of the documents from real runs.

--punch docs/punch.svg       one punch, packet by packet (timeline.py)
--session docs/session.svg   two terminals, as two people see them (recording.py)
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import replace
from pathlib import Path as FilePath

from . import recording, sandbox, timeline
from .packetlog import PacketLog
from .run import play, stage_of
from .subjects import TOOL
from .table import CELLS
from .wire import Path

# Both routers reject, 40 ms there and back, and the sides start a tenth of a second apart.
DELAY_S = 0.02
CELL = replace(
    next(cell for cell in CELLS if cell.title == "pairs: reset x reset"),
    path=Path(delay_s=DELAY_S), gap_s=-0.1,
)  # fmt: skip
NAMES = {"left": "home", "right": "laptop"}
# Coins decide what a run looks like: most show what the picture is for, the quickest of some shows it best.
RUNS = 24


async def punch() -> str:
    """Return the picture of the quickest run that shows what it is for."""
    best: PacketLog | None = None
    for run in range(RUNS):
        async with stage_of(CELL, run, f"picture{run}") as stage:
            await play(CELL, TOOL, run, stage.scene)
        log = PacketLog.load(stage.log_file)
        if timeline.tells(log) and (best is None or timeline.duration(log) < timeline.duration(best)):
            best = log
    if best is None:
        raise SystemExit(f"none of {RUNS} runs showed what the picture is for")
    return timeline.svg(best, DELAY_S, NAMES)


async def session() -> str:
    """Return the picture of two people at two terminals."""
    async with stage_of(CELL, 0, "session") as stage:
        return recording.record(stage.scene)


def main() -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.natlab.pictures", description="Draw the pictures.")
    parser.add_argument("--punch", type=FilePath, metavar="FILE")
    parser.add_argument("--session", type=FilePath, metavar="FILE")
    given = parser.parse_args()
    reason = sandbox.missing()
    if reason is not None:
        sys.exit(reason)
    sandbox.enter()
    if given.punch:
        given.punch.write_text(asyncio.run(punch()))
    if given.session:
        given.session.write_text(asyncio.run(session()))


if __name__ == "__main__":
    main()
