"""-f: once the link is up, a run goes on in the background, as with `ssh -f`.

    parent   waits for one byte, or for the end  ─────────────────> exits: 0, or as the child did
      │ fork, before anything else: threads and loops do not survive one
    child    asks for the secret, binds, punches ──> link up ──> leaves the terminal, byte, goes on

Rule 1: until the link is up the child is in the foreground: it may ask, what
        fails is said on stderr, and Ctrl-C ends both.
Rule 2: after that it has neither a terminal nor anybody's pipe; stderr stays
        with -v and with --json, which ask for it.
Rule 3: the file of --pid-file is there, whole, before the parent exits, and
        never if the link was not up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from punchtunnel import words
from punchtunnel.cli.options import Options
from punchtunnel.errors import Exit, LocalError
from punchtunnel.reporting.events import Event, LinkUp, Report, unreported
from punchtunnel.system import proc
from punchtunnel.words import local

# Bytes of a file that holds one number.
PID_SIZE = 32
# What a terminal sends to the parent it sends to the child, too.
_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)


class Daemon:
    """The child.

    Args:
        ready: The pipe to the parent.
        pid_file: --pid-file, or None.
        keeps_stderr: Whether stderr stays where it leads.
    """

    def __init__(self, ready: int, pid_file: str | None, *, keeps_stderr: bool) -> None:
        self._ready: int | None = ready
        self._pid_file = None if pid_file is None else os.path.abspath(pid_file)
        # In the same folder: a rename is whole or nothing.
        self._draft = f"{self._pid_file}.{os.getpid()}"
        self._ours = ""
        self._keeps_stderr = keeps_stderr
        self._manager: Report = unreported
        self._before: list[Callable[[], None]] = []
        self._after: list[Callable[[], None]] = []

    def close(self) -> None:
        """Remove the file of --pid-file."""
        if not self._ours:
            return
        with contextlib.suppress(OSError, ValueError):
            with open(self._ours) as file:
                # Another run may have put its own number there.
                is_ours = int(file.read()) == os.getpid()
            if is_ours:
                os.unlink(self._ours)

    def prepare(self) -> None:
        """Write the file of --pid-file under another name: that it cannot be is told now, not when the link is up.

        Raises:
            LocalError: It cannot be written there.
        """
        if self._pid_file is None:
            return
        try:
            if os.path.isdir(self._pid_file):
                raise IsADirectoryError(21, os.strerror(21))
            if other := _running(self._pid_file):
                raise LocalError(local.pid_file_is_taken(self._pid_file, other))
            with open(self._draft, "x") as file:
                self._ours = self._draft
                file.write(f"{os.getpid()}\n")
        except (OSError, ValueError) as error:
            why = error if isinstance(error, OSError) else OSError(str(error))
            raise LocalError(words.cannot(local.write_pid(self._pid_file), why)) from error

    def at_leaving(self, after: Callable[[], None], before: Callable[[], None] | None = None) -> None:
        """Call these when the terminal is left: `before` it is, and `after` that."""
        self._before += [] if before is None else [before]
        self._after.append(after)

    def beside(self, manager: Report | None) -> Report:
        """Return this one as a Report that hands every event to a service manager first."""
        self._manager = manager or unreported
        return self

    def __call__(self, event: Event) -> None:
        """Leave the terminal as soon as the link is up."""
        self._manager(event)
        if isinstance(event, LinkUp) and self._ready is not None:
            self._leave(self._ready)
            self._ready = None

    def _leave(self, ready: int) -> None:
        for action in self._before:
            action()
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_RDWR)
            for fd in (0, 1) if self._keeps_stderr else (0, 1, 2):
                os.dup2(nowhere, fd)
            os.close(nowhere)
        # A hang-up of the terminal is none of its business any more.
        with contextlib.suppress(OSError):
            os.setsid()
        if self._ours and self._pid_file is not None:
            with contextlib.suppress(OSError):
                os.replace(self._draft, self._pid_file)
                self._ours = self._pid_file
        for action in self._after:
            action()
        try:
            os.write(ready, b"!")
        except BrokenPipeError:
            # Whoever has killed the parent wants no tunnel that they do not know of.
            signal.raise_signal(signal.SIGTERM)
        os.close(ready)


def _running(pid_file: str) -> int:
    """Return the number in a file of --pid-file if a punchtunnel runs by it, or 0: what a crash has left counts not."""
    with contextlib.suppress(OSError, ValueError):
        with open(pid_file) as file:
            number = int(file.read(PID_SIZE))
        if number > 0 and "punchtunnel" in (proc.read(f"{number}/cmdline") or ""):
            return number
    return 0


def begin(options: Options) -> Daemon:
    """Fork, and return the child's Daemon there; the parent exits as soon as it knows how.

    Raises:
        SystemExit: In the parent.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    here, there = os.pipe()
    if child := os.fork():
        os.close(there)
        raise SystemExit(_wait(child, here))
    os.close(here)
    events_on_stderr = options.status_fd == 2 or (options.as_json and options.status_fd is None)
    return Daemon(there, options.pid_file, keeps_stderr=bool(options.verbose) or events_on_stderr)


def _wait(child: int, ready: int) -> int:
    """Return 0 once the child is in the background, and its status if it ends before that."""

    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    for number in _FROM_TERMINAL:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, pass_on)
    if os.read(ready, 1):
        return Exit.OK
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status
