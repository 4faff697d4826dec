"""Two terminals side by side, recorded with their real timing, as an animated picture.

    steps -> keys -> shell in a namespace -> bytes -> Screen -> frames -> one SVG

Each line of a terminal becomes one `<text>` for every state it had, shown and
hidden by CSS at the time when it was so.  The picture begins with the last
state of everything, for as long as it takes to read it, and then shows how it
came to that.  Who does not animate pictures sees the last state, too.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path as FilePath

from . import ends
from .build import Scene
from .drawing import WIDTH, Colours, document
from .drawing import text as label

ROWS, COLUMNS = 13, 58
# Seconds: between two keys, before the next command, of the last state, and until something hangs.
KEY, PAUSE, REST, LIMIT = 0.045, 0.9, 5.0, 60.0
# Changes within so many seconds are one frame.
FRAME = 0.07
SECRET = "4e7x-rh2k-q9vd-0wbz-m3fa-8cty-6n"

# Pixels.  A letter of a monospaced type of 11 pixels is at most 6.63 wide.
CHARACTER, LINE, MARGIN, TITLE, GAP = 6.63, 17, 12, 32, 14
PANE_WIDTH = (WIDTH - GAP) // 2 - 1
PANE_HEIGHT = TITLE + ROWS * LINE + MARGIN

# Terminals are dark on any page.
COLOURS: Colours = {
    name: (colour, colour)
    for name, colour in {
        "pane": "#1b2130", "bar": "#2a3246", "name": "#c3cbdb",
        "shown": "#e1e7f2", "prompt": "#7fd4a0", "said": "#9cc0f7",
    }.items()
}  # fmt: skip
STYLE = """\
.s { font: 11px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre }
.prompt { font-weight: bold }
@media (prefers-reduced-motion: reduce) { .s { animation: none !important } }
"""
CAPTION = (
    "Nothing runs between the two: each was given the address of the other's router, and both routers refuse",
    "what nobody behind them has asked for. First a directory through a pipe, then a web page through a port.",
)

Frame = tuple[float, tuple[str, ...]]


class Screen:
    """What a terminal shows: enough of one for a shell and a line that is rewritten in place."""

    _SEQUENCE = re.compile(r"\x1b\[[0-9;?]*([A-Za-z])|\x1b\][^\x07]*\x07|\x1b.")

    def __init__(self, columns: int = COLUMNS) -> None:
        self._columns = columns
        self._lines: list[str] = [""]
        self._column = 0

    def feed(self, text: str) -> None:
        """Take in what a program has written."""
        at = 0
        while at < len(text):
            if (found := self._SEQUENCE.match(text, at)) is not None:
                if found[1] == "K":
                    self._lines[-1] = self._lines[-1][: self._column]
                at = found.end()
                continue
            self._put(text[at])
            at += 1

    def _put(self, character: str) -> None:
        if character == "\n":
            self._lines.append("")
        elif character == "\r":
            self._column = 0
        elif character == "\b":
            self._column = max(0, self._column - 1)
        elif character.isprintable():
            if self._column == self._columns:
                self._lines.append("")
                self._column = 0
            line = self._lines[-1].ljust(self._column)
            self._lines[-1] = line[: self._column] + character + line[self._column + 1 :]
            self._column += 1

    def lines(self, rows: int = ROWS) -> tuple[str, ...]:
        """Return the last lines, as many as fit."""
        shown = self._lines[-rows:]
        return tuple(line.rstrip() for line in shown) + ("",) * (rows - len(shown))


@dataclass
class Terminal:
    """A shell in a namespace, and everything that it has shown since the start."""

    name: str
    title: str
    process: subprocess.Popen[bytes]
    master: int
    screen: Screen = field(default_factory=Screen)
    frames: list[Frame] = field(default_factory=list)

    @property
    def prompt(self) -> str:
        """What the shell shows when it is ready."""
        return f"{self.name}$"

    def take(self, now: float) -> None:
        """Read what was written, and keep a frame of it."""
        self.screen.feed(os.read(self.master, 65536).decode(errors="replace"))
        lines = self.screen.lines()
        if self.frames and self.frames[-1][1] == lines:
            return
        if self.frames and now - self.frames[-1][0] < FRAME:
            self.frames[-1] = (self.frames[-1][0], lines)
        else:
            self.frames.append((now, lines))

    def is_ready(self) -> bool:
        """Tell whether the last line is a prompt."""
        shown = [line for line in self.screen.lines() if line]
        return bool(shown) and shown[-1] == self.prompt


class Recorder:
    """Presses keys and watches all terminals meanwhile."""

    def __init__(self, terminals: Sequence[Terminal]) -> None:
        self._terminals = terminals
        self._start = time.monotonic()

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def watch(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Watch for so long, or until something is so."""
        deadline = self.now + seconds
        while not until() and (left := deadline - self.now) > 0:
            for master in select.select([one.master for one in self._terminals], [], [], left)[0]:
                next(one for one in self._terminals if one.master == master).take(self.now)

    def wait(self, until: Callable[[], bool], what: str) -> None:
        """Watch until something is so.

        Raises:
            RuntimeError: It never was.
        """
        self.watch(LIMIT, until)
        if not until():
            screens = "\n".join("\n".join(one.screen.lines()) for one in self._terminals)
            raise RuntimeError(f"waited {LIMIT:g} s for {what}:\n{screens}")

    def type(self, terminal: Terminal, command: str) -> None:
        """Type a command as a person does, and press Enter."""
        for key in command:
            os.write(terminal.master, key.encode())
            self.watch(KEY)
        self.watch(PAUSE / 2)
        os.write(terminal.master, b"\n")


def record(scene: Scene) -> str:
    """Play the two uses in two terminals and return the picture."""
    with tempfile.TemporaryDirectory() as name:
        folder = FilePath(name)
        _prepare(folder)
        home = _open("home", scene, "left", folder)
        laptop = _open("laptop", scene, "right", folder)
        server = subprocess.Popen(
            ends.in_namespace(scene.hosts["left"].namespace, [sys.executable, "-m", "http.server", "8000"]),
            cwd=folder / "home", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            seconds = _play(Recorder([home, laptop]), home, laptop, scene)
        finally:
            for process in (home.process, laptop.process, server):
                process.kill()
                process.wait()
            os.close(home.master)
            os.close(laptop.master)
    return svg([home, laptop], seconds)


def _prepare(folder: FilePath) -> None:
    photos = folder / "home" / "photos"
    photos.mkdir(parents=True)
    (folder / "laptop").mkdir()
    for number in range(1, 5):
        (photos / f"alps-{number}.jpg").write_bytes(os.urandom(2_000_000))
    (folder / "home" / "hello.txt").write_text("hello from behind the other router\n")
    tool = folder / "punchtunnel"
    tool.write_text(f'#!/bin/sh\nPYTHONPATH="{ends.ROOT}" exec "{sys.executable}" -m punchtunnel "$@"\n')
    tool.chmod(0o755)


def _open(name: str, scene: Scene, side: str, folder: FilePath) -> Terminal:
    """Start a shell that shows nothing but its prompt."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), "TERM": "vt100", "PS1": f"{name}$ ",
        "PUNCHTUNNEL_SECRET": SECRET, "LC_ALL": "C.UTF-8", "HISTFILE": "",
    }  # fmt: skip
    shell = ["setsid", "--ctty", "bash", "--norc", "--noprofile", "-i"]
    process = subprocess.Popen(
        ends.in_namespace(scene.hosts[side].namespace, shell), stdin=slave, stdout=slave, stderr=slave,
        env=environment, cwd=folder / name,
    )  # fmt: skip
    os.close(slave)
    return Terminal(name, f"{name}, behind its router {scene.hosts[side].dial4}", process, master)


def _play(recorder: Recorder, home: Terminal, laptop: Terminal, scene: Scene) -> float:
    """Type what two people would; return the length of the recording in seconds."""
    towards = {"home": scene.hosts["right"].dial4, "laptop": scene.hosts["left"].dial4}

    def both_ready() -> bool:
        return home.is_ready() and laptop.is_ready()

    recorder.wait(both_ready, "two prompts")
    recorder.watch(PAUSE)
    recorder.type(home, f"tar c photos | punchtunnel {towards['home']}")
    recorder.watch(PAUSE)
    recorder.type(laptop, f"punchtunnel {towards['laptop']} | tar xv")
    recorder.wait(both_ready, "the end of the copy")
    recorder.watch(2 * PAUSE)
    recorder.type(home, f"punchtunnel {towards['home']} --to 8000")
    recorder.watch(PAUSE)
    recorder.type(laptop, f"punchtunnel {towards['laptop']} -L 8080 -q &")
    recorder.wait(laptop.is_ready, "a prompt")
    recorder.watch(PAUSE)
    recorder.type(laptop, "curl localhost:8080/hello.txt")
    recorder.wait(laptop.is_ready, "the page")
    recorder.watch(PAUSE)
    return recorder.now


# ---- the picture


def svg(terminals: Sequence[Terminal], seconds: float) -> str:
    """Return what the terminals have shown in `seconds`, over and over, each time after a rest on the last state."""
    whole = REST + seconds
    rules: list[str] = []
    shapes: list[str] = []
    for number, terminal in enumerate(terminals):
        left = 1 + number * (PANE_WIDTH + GAP)
        shapes += _pane(left, terminal.title)
        for row in range(ROWS):
            for text, begin, end in states(terminal.frames, row, seconds):
                shapes.append(_text(left + MARGIN, TITLE + LINE * (row + 1), text, terminal.prompt, len(rules), end))
                times = [(REST + begin) / whole, REST / whole if end is None else (REST + end) / whole]
                rules.append(_rule(len(rules), *times))
    shapes += [label(MARGIN, PANE_HEIGHT + 22 + LINE * number, line) for number, line in enumerate(CAPTION)]
    style = "\n".join([f"{STYLE}.s {{ animation: {whole:.1f}s step-end infinite }}", *rules, ""])
    return document(PANE_HEIGHT + 50, "\n".join(shapes), COLOURS, style)


def states(frames: Sequence[Frame], row: int, seconds: float) -> Iterator[tuple[str, float, float | None]]:
    """Yield each text that a row had, from when, and until when; None: to the end."""
    changes: list[tuple[float, str]] = []
    for moment, lines in frames:
        if not changes or changes[-1][1] != lines[row]:
            changes.append((moment, lines[row]))
    for number, (moment, text) in enumerate(changes):
        if text:
            yield text, moment, changes[number + 1][0] if number + 1 < len(changes) else None


def _pane(left: int, title: str) -> Iterator[str]:
    yield f'<rect class="pane" x="{left}" y="1" width="{PANE_WIDTH}" height="{PANE_HEIGHT}" rx="8"/>'
    bar = f"M{left} 25 V9 a8 8 0 0 1 8 -8 H{left + PANE_WIDTH - 8} a8 8 0 0 1 8 8 V25 Z"
    yield f'<path class="bar" d="{bar}"/>'
    yield f'<text class="name" x="{left + PANE_WIDTH // 2}" y="18" text-anchor="middle">{escape(title)}</text>'


def _text(x: int, y: int, text: str, prompt: str, number: int, end: float | None) -> str:
    hidden = "" if end is None else ' visibility="hidden"'
    shown = escape(text)
    if text.startswith(prompt):
        shown = f'<tspan class="prompt">{prompt}</tspan>{escape(text.removeprefix(prompt))}'
    kind = "said" if text.startswith(("punchtunnel: ", "connected to ")) else "shown"
    return (
        f'<text class="s {kind}" style="animation-name:k{number}" x="{x}" y="{y}" xml:space="preserve"{hidden}>'
        f"{shown}</text>"
    )


def _rule(number: int, begin: float, end: float) -> str:
    """Return when a text is shown; one that ends before it begins is of the last state, with which all begins."""
    first = "visible" if end < begin else "hidden"
    changes = sorted([(begin, "visible"), (end, "hidden")])
    steps = " ".join(f"{share:.3%} {{ visibility: {state} }}" for share, state in changes)
    return f"@keyframes k{number} {{ 0% {{ visibility: {first} }} {steps} }}"
