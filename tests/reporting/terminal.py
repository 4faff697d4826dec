"""A terminal as a person sees it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import re
import select
import struct
import termios

from punchtunnel.reporting.display import Display, Shows
from punchtunnel.reporting.output import Output
from punchtunnel.reporting.status import Status

from .runs import NOON

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A pseudo-terminal; `rows` is what its screen shows."""

    def __init__(self, columns: int = 200) -> None:
        self.fd, there = os.openpty()
        self.stream = io.TextIOWrapper(io.FileIO(there, "w"), encoding="utf-8", write_through=True)
        self.resize(columns)
        self._raw = ""

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.stream, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def display(self, shows: Shows) -> Display:
        return Display(Output(self.stream), self.stream, shows, wall=lambda: NOON)

    def status(self, shows: Shows) -> Status:
        return Status(0, Output(self.stream), None, self.display(shows))

    @property
    def raw(self) -> str:
        """Everything that was written so far."""
        while select.select([self.fd], [], [], 0)[0]:
            self._raw += os.read(self.fd, 1 << 16).decode()
        return self._raw

    @property
    def rows(self) -> list[str]:
        """What a person sees: the effect of CR, LF and erase-to-the-end, without colours."""
        rows = [""]
        column = 0
        for token in re.findall(r"\x1b\[K|\r|\n|[^\x1b\r\n]+|\x1b", COLOUR.sub("", self.raw)):
            if token == "\r":
                column = 0
            elif token == "\n":
                rows.append("")
            elif token == "\x1b[K":
                rows[-1] = rows[-1][:column]
            else:
                assert token != "\x1b", "an escape code that was not expected"
                rows[-1] = rows[-1][:column] + token + rows[-1][column + len(token) :]
                column += len(token)
        return rows

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.close()
        os.close(self.fd)
