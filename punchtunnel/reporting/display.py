"""One line of a terminal that shows the state of a run, rewritten in place; and --progress.

    events ──> State ──> line.py ──> parts ──> fit to the width ──> stderr

Rule 1: the line is written only while this process is in the foreground of
        its terminal; a background job leaves the terminal alone.
Rule 2: anything else that is printed goes above the line (`above`), and the
        line is ended before this process ends (`close`).
Rule 3: the line is rewritten only while nothing else uses the terminal.  With
        stdio that is until the hole is up: after that ssh, less or the user's
        own typing may use it, so the line stays as it is and nothing follows
        but what has been delivered in the end, unless --progress asks for it.
Rule 4: a terminal that cannot rewrite (TERM=dumb), or a file, gets whole lines
        at changes of state, and with --progress every PERIOD seconds.

rich measures, cuts and colours.  It is loaded when the first line is drawn, so
a punch that succeeds at once does not pay for it, and a log never does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from punchtunnel.reporting import events, line
from punchtunnel.reporting.events import Event
from punchtunnel.reporting.line import Part
from punchtunnel.reporting.output import Output
from punchtunnel.reporting.state import State
from punchtunnel.system import clock
from punchtunnel.words import ending

if TYPE_CHECKING:
    from rich.console import Console

CLEAR_LINE = "\r\x1b[K"
# Seconds between two Traffic events for a line that is rewritten, and for one that is not.
LINE_EVERY = 0.5
PERIOD = 10.0
# Seconds without a hole after which the command for the other machine is printed.
HINT_AFTER = 2.0
# Columns of a terminal that does not tell its width.
DEFAULT_WIDTH = 80
# Of a line that is not rewritten, among those of others.
_PREFIX = "punchtunnel: "
_COLOURS = {"good": "green", "bad": "yellow", "": ""}


@dataclass(frozen=True, slots=True)
class Shows:
    """What a terminal is to show.

    Attributes:
        states: The state of the run: stderr is a terminal, without -v and -q.
        streams: The state while the hole is up, too (-L, --to).
        sums: With stdio, what has been delivered in the end.
        progress: --progress.
        talks: What the user types is sent, and what the peer sends is shown, in the same terminal.
        wait: Seconds for which a hole is waited for; 0: for ever.
        hint: Returns the command for the other machine.
    """

    states: bool = False
    streams: bool = False
    sums: bool = False
    progress: bool = False
    talks: bool = False
    wait: float = 0.0
    hint: Callable[[], str] | None = None


def fit(parts: list[Part], width: int) -> list[Part]:
    """Return the parts that fit into `width` columns together; at least those of rank 0."""
    # Imported now: the first SYN need not wait for it.
    from rich.cells import cell_len

    left = list(parts)
    while cell_len(line.joined(left)) > width and (worst := max(part.rank for part in left)):
        # The last one of equal rank.
        del left[max(place for place, part in enumerate(left) if part.rank == worst)]
    return left


class Display:
    """Draws what `shows` asks for; Status hands it every event.

    Args:
        output: Where the lines go.
        stream: The same stream, asked for its terminal and its encoding.
        shows: What to draw.
        wall: Unix time in seconds, with --clock-offset: the time that chooses the ports.
    """

    def __init__(self, output: Output, stream: TextIO, shows: Shows, wall: Callable[[], float]) -> None:
        self._output = output
        self._stream = stream
        self._shows = shows
        self._wall = wall
        self._state = State()
        self._parts: list[Part] = []
        self._drawn = False
        self._hinted = shows.hint is None
        # Where lines are not rewritten: the one line about this punch has been printed.
        self._printed = False
        # The link carries streams.
        self._is_up = False
        # Something else uses the terminal now (rule 3).
        self._muted = False
        self._console: Console | None = None
        terminal = stream.isatty()
        self._rewrites = terminal and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
        self._fd = stream.fileno() if terminal else None

    @property
    def traffic_every(self) -> float:
        """Seconds between two Traffic events that would be drawn; 0: none would."""
        if not self._live:
            return 0.0
        return LINE_EVERY if self._rewrites else PERIOD

    @property
    def _live(self) -> bool:
        """The line goes on while the hole is up."""
        shows = self._shows
        return (shows.progress or (shows.states and shows.streams)) and not shows.talks

    def take(self, event: Event) -> None:
        """Take in one event, and draw what it changes.

        Raises:
            OSError: The terminal is gone.
        """
        self._state.take(event)
        match event:
            case events.Waiting() if not self._is_up:
                # Not at Punching: the first SYNs leave before the first line is drawn.
                self._muted = False
                self._show_punching()
            case events.Rejected():
                # The other machine's command is known there.
                self._hinted = True
            case events.LinkUp() | events.Resumed():
                self._printed = False
                self._is_up = self._hinted = True
                self._show_link_up()
            case events.Moved() if self._is_up:
                self._printed = False
                self._show_link_up()
            case events.PathMeasured():
                self.give_way()
                self.close()
            case events.Traffic() | events.Lost():
                self._show_traffic()
            case events.LinkEnded():
                self._show_end(event)

    # ---- what is shown when

    def _show_punching(self) -> None:
        if not self._shows.states:
            return
        parts = line.punching(self._state, self._shows.wait, self._wall(), clock.synchronised())
        if self._rewrites:
            self._draw(parts)
        elif not self._printed:
            self._printed = True
            self._print(parts)
        if not self._hinted and self._state.may_meet and self._state.waited_s >= HINT_AFTER and self.in_foreground():
            self._hinted = True
            assert self._shows.hint is not None
            self.above(f"punchtunnel: {self._shows.hint()}\n")

    def _show_link_up(self) -> None:
        if self._shows.states:
            (self._draw if self._rewrites else self._print)(line.connected(self._state))
        if not self._live:
            self.close()
            self._muted = True

    def _show_traffic(self) -> None:
        if self._muted or not self._live:
            return
        if self._shows.progress:
            parts = line.progress(self._state, over=False)
            (self._draw if self._rewrites else self._print)(parts)
        elif self._rewrites:
            self._draw(line.traffic(self._state))

    def _show_end(self, ended: events.LinkEnded) -> None:
        if self._shows.progress:
            parts = line.progress(self._state, over=True)
            if self._muted or not self._rewrites:
                self._print(parts)
            else:
                self._draw(parts)
        elif self._is_up and not self._muted and self._drawn:
            self._draw(line.traffic(self._state))
        elif self._drawn:
            # The path was only checked.
            self.give_way()
        elif self._is_up and self._shows.sums and ended.status == 0 and self.in_foreground():
            moved = ending.delivered(ended.elapsed_s, ended.bytes_in, ended.bytes_out)
            self._output.write(f"punchtunnel: {moved}\n")
        self._is_up = False
        self.close()

    # ---- the terminal

    def in_foreground(self) -> bool:
        """Tell whether this process may write to its terminal without disturbing a shell."""
        if self._fd is None:
            return True
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:
            # Not the controlling terminal of this process: no shell has jobs on it.
            return True

    def above(self, text: str, patience: float = 0.0) -> None:
        """Print whole lines, as Output.write does; the drawn line stays below them."""
        clear = CLEAR_LINE if self._drawn and self.in_foreground() else ""
        self._output.write(clear + text, patience)
        if self._drawn:
            self._draw(self._parts)

    def give_way(self) -> None:
        """Clear the line, and draw none until this session is over (rule 3)."""
        self._muted = True
        if self._drawn and self.in_foreground():
            self._output.write(CLEAR_LINE)
        self._drawn = False

    def close(self) -> None:
        """End the line, if one is drawn."""
        if self._drawn and self.in_foreground():
            self._output.write("\n")
        self._drawn = False

    def _draw(self, parts: list[Part]) -> None:
        self._parts = parts
        if not self.in_foreground():
            self._drawn = False
            return
        self._output.write(f"\r{self._rendered(parts)}\x1b[K")
        self._drawn = True

    def _print(self, parts: list[Part]) -> None:
        if self._fd is not None:
            parts = fit(parts, max(self._columns() - len(_PREFIX), 1))
        if self.in_foreground():
            self._output.write(f"{_PREFIX}{line.joined(parts)}\n")

    def _rendered(self, parts: list[Part]) -> str:
        """Return parts as one row of the terminal, cut and coloured."""
        # Imported now: the first SYN need not wait for it.
        from rich.console import Console
        from rich.text import Text

        if self._console is None:
            self._console = Console(file=self._stream, highlight=False, emoji=False, markup=False)
        # The last column stays free: some terminals wrap as soon as it is filled.
        width = max(self._columns() - 1, 1)
        text = Text.assemble(*((piece, _COLOURS[tone]) for piece, tone in line.pieces(fit(parts, width))))
        text.truncate(width, overflow="ellipsis" if self._stream.encoding.lower() == "utf-8" else "crop")
        with self._console.capture() as capture:
            self._console.print(text, end="", width=width, no_wrap=True, crop=False, soft_wrap=True)
        return capture.get()

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or DEFAULT_WIDTH
        except (OSError, ValueError):
            return DEFAULT_WIDTH
