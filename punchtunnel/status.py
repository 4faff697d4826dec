"""What people and programs are told, on stderr; stdout carries tunnel bytes only.

On a terminal one line follows the state and is rewritten in place until the
link is up.  Otherwise there is silence until an error; -v tells more, -q less.
With --json every event is one JSON object a line:

    {"time_s": 1789000000.25, "event": "hole", "local": "…", "remote": "…", …}

and the last one is always `exit` with the status and the reason.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TextIO

from punchtunnel import words
from punchtunnel.words import Level

# The states that the terminal line shows, and the one at which it stays.
_STATES = {"punching": "punching towards {peer} on {port_count} ports", "hole": "connected, {local} to {remote}"}
_LAST_STATE = "hole"
# Said on a terminal without -v too: there is a person who can act on it.
_FOR_PEOPLE = {"unauthenticated"}
_CLEAR_LINE = "\r\x1b[K"


class Status:
    """Prints events; an instance is a words.Report.

    Args:
        verbosity: -1 (-q) to 2 (-vv).
        as_json: Print every event as JSON, whatever the verbosity.
        stream: Where to; None prints nothing (stderr was closed).
    """

    def __init__(self, verbosity: int, as_json: bool, stream: TextIO | None) -> None:
        self._verbosity = verbosity
        self._as_json = as_json
        self._stream = stream
        terminal = stream is not None and stream.isatty()
        self._follows = terminal and verbosity == Level.NOTE and not as_json
        self._line = ""

    def __call__(self, event: str, /, **fields: object) -> None:
        """Print one event, if it is for this verbosity; never raises OSError."""
        level, text = words.sentence(event, fields)
        # A log that cannot be written must not end a transfer.
        with contextlib.suppress(OSError, ValueError):
            if self._as_json:
                self._write(json.dumps({"time_s": time.time(), "event": event} | fields, default=str) + "\n")
            elif self._follows and event in _STATES:
                self._follow(event, fields)
            elif text and (level <= self._verbosity or (self._follows and event in _FOR_PEOPLE)):
                self._write(f"{self._clear()}punchtunnel: {text}\n{self._line}")

    def close(self) -> None:
        """End the state line, if one is shown."""
        with contextlib.suppress(OSError, ValueError):
            if self._line:
                self._write("\n")
                self._line = ""

    def _follow(self, event: str, fields: dict[str, object]) -> None:
        line = f"punchtunnel: {words.fill(event, _STATES[event], fields)}"
        self._write(self._clear() + line)
        self._line = line
        if event == _LAST_STATE:
            self.close()

    def _clear(self) -> str:
        return _CLEAR_LINE if self._line else ""

    def _write(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()
