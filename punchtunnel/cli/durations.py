"""Times on the command line: plain seconds, or numbers with units.

90   1.5   90s   10m   2h   1d   1.5h   1h30m
"""

from __future__ import annotations

import re

import typer

from punchtunnel.words import usage

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PIECE = r"(?:\d+\.?\d*|\.\d+)[smhd]"
_TIME = re.compile(rf"([+-]?)((?:{_PIECE})+)", re.ASCII)


def parse(text: str) -> float:
    """Return a time in seconds.

    Raises:
        ValueError: It is neither a number nor numbers with units.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        # float() takes digits with an underline between them, which is more likely a mistake.
        return float(text.replace("_", "?"))
    sign, pieces = found.groups()
    seconds = sum(float(piece[:-1]) * UNITS[piece[-1]] for piece in re.findall(_PIECE, pieces))
    return -seconds if sign == "-" else seconds


def of_option(text: str) -> float:
    """Return the value of an option in seconds; typer hands its default over, too.

    Raises:
        typer.BadParameter: It is no time.
    """
    try:
        return parse(str(text))
    except ValueError as error:
        raise typer.BadParameter(usage.NOT_A_TIME.format(text=text)) from error
