"""Ports on the command line: numbers, or names of services as this machine's /etc/services has them."""

from __future__ import annotations

import re

import typer

from punchtunnel.system.services import port_of
from punchtunnel.words import usage


def of_option(text: str) -> int:
    """Return the value of an option as a number; typer hands its default over, too.

    Raises:
        typer.BadParameter: It is no number, and this machine knows no such service.
    """
    text = str(text)
    if re.fullmatch(r"-?[0-9]{1,9}", text):
        # What is outside the range is told of with the other options.
        return int(text)
    if (port := port_of(text)) is None:
        raise typer.BadParameter(usage.NOT_A_PORT.format(text=text))
    return port
