"""The log of --log: what -v prints, with times, at the end of a file.

What rotates logs needs to tell this process nothing: a file that was cut to nothing (logrotate's `copytruncate`)
goes on from there, because every line is appended, and one that was renamed or deleted (`create`) is opened anew
before the next line.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import time
from collections.abc import Mapping

from punchtunnel import words
from punchtunnel.errors import LocalError
from punchtunnel.reporting.events import Event, Exited, Level
from punchtunnel.reporting.output import LAST_PATIENCE, PATIENCE, Output
from punchtunnel.reporting.sentences import Sentences
from punchtunnel.words import local

# systemd sets it to device and inode of the stream that its journal reads (systemd.exec(5)).
JOURNAL = "JOURNAL_STREAM"


class Log:
    """Appends lines; a log that cannot be written ends no transfer, and one that stands still holds none up.

    Args:
        path: Of the file.
        fd: Of the same, opened by `_append_to`; owned by the log, and open until the process ends.
        sentences: Make the lines.
    """

    def __init__(self, path: str, fd: int, sentences: Sentences) -> None:
        # -f and a program may leave the folder that it was named in.
        self._path = os.path.abspath(path)
        self._fd = fd
        self._sentences = sentences
        self._is_broken, self._trouble = False, ""
        raw = io.FileIO(fd, "a", closefd=False)
        # Both in the thread that writes: storage that stands still holds nobody up.
        self._output = Output(io.TextIOWrapper(raw, encoding="utf-8", write_through=True), before=self._follow)

    @property
    def traces(self) -> bool:
        """See Sentences."""
        return self._sentences.traces

    def __call__(self, event: Event) -> None:
        """Append the line of an event, if there is one; wait for the file at the end of the run."""
        is_last = isinstance(event, Exited)
        try:
            if line := self._sentences(event):
                self._output.write(line, LAST_PATIENCE if is_last else PATIENCE)
            elif is_last:
                self._output.finish()
        except (OSError, ValueError) as error:
            if not self._is_broken:
                self._is_broken = True
                self._trouble = words.cannot(local.write_log(self._path), _as_system_error(error))

    def take_trouble(self) -> str:
        """Return why the file could not be written, the first time, or ""; it is told once."""
        trouble, self._trouble = self._trouble, ""
        return trouble

    def _follow(self) -> None:
        """Open the file anew if another one, or none, has its name now; if that fails, go on with the old one."""
        with contextlib.suppress(OSError):
            if self._is_there():
                return
            fd = _append_to(self._path)
            # What writes keeps the number of its descriptor.
            os.dup2(fd, self._fd, inheritable=False)
            os.close(fd)

    def _is_there(self) -> bool:
        """Tell whether the name of the file still leads to it, or to what nobody rotates."""
        before = os.fstat(self._fd)
        if not stat.S_ISREG(before.st_mode):
            return True
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return False
        # /dev/stderr may have been a file, and lead elsewhere since -f.
        return os.path.samestat(now, before) or not stat.S_ISREG(now.st_mode)


def open_log(path: str, verbosity: int) -> Log:
    """Open --log for appending, and make it if it is not there: for its owner, because it tells who was met.

    Args:
        path: The file; a FIFO needs a reader, and is not waited for.
        verbosity: That of stderr; the log has at least what -v prints.

    Raises:
        LocalError: It cannot be opened.
    """
    try:
        fd = _append_to(path)
    except (OSError, ValueError) as error:
        raise LocalError(words.cannot(local.write_log(path), _as_system_error(error))) from error
    return Log(path, fd, Sentences(max(verbosity, Level.INFO), clock=time.time))


def _as_system_error(error: OSError | ValueError) -> OSError:
    return error if isinstance(error, OSError) else OSError(str(error))


def _append_to(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, 0o600)


def needs_times(environment: Mapping[str, str], fd: int) -> bool:
    """Tell whether lines on a descriptor need times of their own: no terminal, and no journal, which adds them."""
    try:
        info = os.fstat(fd)
    except OSError:
        return False
    return not os.isatty(fd) and environment.get(JOURNAL) != f"{info.st_dev}:{info.st_ino}"
