"""The log of --log: what -v prints, with times, at the end of a file."""

from __future__ import annotations

import contextlib
import io
import os
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
    """Appends lines; a log that cannot be written ends no transfer, and one that stands still holds none up."""

    def __init__(self, output: Output, sentences: Sentences) -> None:
        self._output = output
        self._sentences = sentences

    @property
    def traces(self) -> bool:
        """See Sentences."""
        return self._sentences.traces

    def __call__(self, event: Event) -> None:
        """Append the line of an event, if there is one; wait for the file at the end of the run."""
        is_last = isinstance(event, Exited)
        with contextlib.suppress(OSError, ValueError):
            if line := self._sentences(event):
                self._output.write(line, LAST_PATIENCE if is_last else PATIENCE)
            elif is_last:
                self._output.finish()


def open_log(path: str, verbosity: int) -> Log:
    """Open --log for appending, and make it if it is not there: for its owner, because it tells who was met.

    Args:
        path: The file; a FIFO needs a reader, and is not waited for.
        verbosity: That of stderr; the log has at least what -v prints.

    Raises:
        LocalError: It cannot be opened.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK, 0o600)
    except (OSError, ValueError) as error:
        why = error if isinstance(error, OSError) else OSError(str(error))
        raise LocalError(words.cannot(local.write_log(path), why)) from error
    # Open until the process ends: a thread may still write to it.
    raw = io.FileIO(fd, "a", closefd=False)
    output = Output(io.TextIOWrapper(raw, encoding="utf-8", write_through=True))
    return Log(output, Sentences(max(verbosity, Level.INFO), clock=time.time))


def needs_times(environment: Mapping[str, str], fd: int) -> bool:
    """Tell whether lines on a descriptor need times of their own: no terminal, and no journal, which adds them."""
    try:
        info = os.fstat(fd)
    except OSError:
        return False
    return not os.isatty(fd) and environment.get(JOURNAL) != f"{info.st_dev}:{info.st_ino}"
