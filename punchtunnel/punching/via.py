"""The command of --via, whose stdin and stdout are one more connection of a punch.

    VIA_DELAY ──> sh -c COMMAND ── ends ──> 1, 2, 4 … 60 s ──> sh -c COMMAND
                       └── its connection ──> the election, beside those that were dialled

Rule 1: a direct hole is preferred: the command is started when most of those that open at all have opened.
Rule 2: whoever is at the other end of the command is taken for nobody's friend: without the secret it gets nothing,
        and it has tries at that of its own, so that it and other strangers do not use up each other's.
Rule 3: the peer may come minutes after the command was started, so a hello is waited for longer than elsewhere.
Rule 4: a connection that is closed ends its command (system/command.py), also one that has won.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from punchtunnel import words
from punchtunnel.punching.callers import Connection
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting import events
from punchtunnel.words import reach

if TYPE_CHECKING:
    from punchtunnel.punching.helper import Gathering
    from punchtunnel.system.command import Command

# Seconds.  A punch between two that are both there takes less than one, and one more if a SYN is lost.
VIA_DELAY = 2.0
# Seconds before a command that has ended is started again; the pause doubles each time.
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
# Variables that a command does not get begin so: one of them holds the secret.
OWN_VARIABLES = "PUNCHTUNNEL_"
# Lines of its stderr that are not reported once more.
LINES_KNOWN = 20
# Characters of a program's name.
LONGEST_NAME = 40
NEVER = float("inf")


class Via:
    """Runs the command for one punch.

    Args:
        settings: Have the command.
        monotonic: Steady time in seconds.
        on_open: Takes the connection of a command that was started.
        report: Where events go.
        gathering: Knows what was reported in this run.

    Attributes:
        due: When it is started next, as `monotonic` counts; NEVER while it runs.
    """

    def __init__(
        self,
        settings: Settings,
        monotonic: Callable[[], float],
        on_open: Callable[[Connection], None],
        report: events.Report,
        gathering: Gathering | None,
    ) -> None:
        self._line = settings.via
        self._name = reach.via(name_of(settings.via))
        self._monotonic = monotonic
        self._on_open = on_open
        self._report = report
        self.due = monotonic() + (VIA_DELAY if settings.peers else 0.0)
        self._command: Command | None = None
        self._connection: Connection | None = None
        # When it was started last; 0 before that.
        self._started = 0.0
        self._pause = FIRST_PAUSE
        self._told = gathering.told if gathering is not None else set()
        # Why the last run of the command has come to nothing.
        self._why = ""
        self._last_line = ""
        self._said: deque[str] = deque(maxlen=LINES_KNOWN)
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor that turns readable when the command has said something, or has ended."""
        return self._here.fileno()

    def start(self) -> None:
        """Start the command if it is time; where the system refuses that, it is tried again."""
        now = self._monotonic()
        if now < self.due:
            return
        # Imported late: a hole that opens before needs none.
        from punchtunnel.system.command import Command

        if not self._started:
            self._report(events.ViaStarted(remote=self._name))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(OWN_VARIABLES)}
        self.due, self._started, self._last_line = NEVER, now, ""
        try:
            self._command = Command(self._line, environment, self._tell)
        except OSError as error:
            self._start_later(None, words.cannot(reach.START_VIA, error))
            return
        sock = self._command.sock
        sock.setblocking(False)
        self._connection = Connection(sock, self._name, "", scheduled=False, via=True)
        self._on_open(self._connection)

    def start_over(self) -> None:
        """Start it now, unless it runs."""
        self._pause = FIRST_PAUSE
        self.due = min(self.due, self._monotonic()) if self._command is None else NEVER

    def why_not(self) -> str:
        """Say why there is no hole by it."""
        return self._why or (self._why_closed() if self._command is not None else reach.VIA_NOT_STARTED)

    def take(self) -> None:
        """Report what made `fileno` readable, and start the command later if it has ended."""
        with contextlib.suppress(BlockingIOError):
            self._here.recv(64)
        command = self._command
        if command is None:
            return
        # Before the lines are taken: the last ones come before it.
        status = command.status
        for text in command.take_lines():
            self._last_line = text
            # Once, although each run of the command may say the same.
            if text not in self._said:
                self._said.append(text)
                self._report(events.ViaSaid(text=text))
        if status is not None:
            self._command = None
            if command.unasked:
                self._start_later(status, reach.via_ended(status, self._last_line))
            else:
                self._start_later(None, self._why_closed())

    def close(self) -> None:
        """Take no more news; a command ends with its connection, which is another's to close."""
        self._here.close()
        self._there.close()

    def _tell(self) -> None:
        """Wake the punch up: called by a thread."""
        with contextlib.suppress(OSError):
            self._there.send(b"!")

    def _why_closed(self) -> str:
        """Say what was heard on a connection that has not become the hole."""
        if self._connection is None or not self._connection.taken:
            return reach.VIA_SILENT
        return reach.via_closed(self._connection.fault)

    def _start_later(self, status: int | None, why: str) -> None:
        now, self._why = self._monotonic(), why
        if now - self._started > LONGEST_PAUSE:
            self._pause = FIRST_PAUSE
        self.due = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        # Once for each status, however often it is tried, and whatever it says.  That nobody has come is no news.
        key = f"--via {why if status is None else status}"
        if key not in self._told and why != reach.VIA_SILENT:
            self._told.add(key)
            self._report(events.ViaEnded(status=status, reason=why))


def name_of(line: str) -> str:
    """Return the program of a command line; what follows it, and variables that stand before it, may be secret."""
    try:
        parts = shlex.split(line)
    except ValueError:
        parts = []
    program = next((word for word in parts if "=" not in word), "")
    name = os.path.basename(program.strip("'\"(){};|&<>"))[:LONGEST_NAME]
    return name if name and name.isprintable() else "sh"
