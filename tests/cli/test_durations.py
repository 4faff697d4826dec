"""Times with units, as people write them for ssh, sleep and systemd."""

from __future__ import annotations

import re

import pytest
import typer

from punchtunnel.cli import command, durations
from punchtunnel.cli.options import Options


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0), ("0", 0.0), ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("-3", -3.0),
        ("90s", 90.0), ("10m", 600.0), ("2h", 7200.0), ("1d", 86400.0), ("1.5h", 5400.0), (".5m", 30.0), ("0s", 0.0),
        ("1h30m", 5400.0), ("1d2h3m4s", 93784.0), ("-90s", -90.0), ("+1m", 60.0), (" 10m ", 600.0),
    ],
)  # fmt: skip
def test_a_time_is_seconds_or_numbers_with_units(text: str, seconds: float) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "m", "s10", "10ms", "10M", "1h 30m", "1h30", "1_0", "--1m", "10m-", "soon", "1,5h", "٣m", "1.h.", "h1m"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        durations.parse(text)
    with pytest.raises(typer.BadParameter, match=re.escape(f"{text!r} is no time")):
        durations.of_option(text)


def parsed(*arguments: str) -> Options:
    found = command.app(list(arguments), standalone_mode=False)
    assert isinstance(found, Options)
    return found


def test_every_option_that_takes_a_time_takes_units_and_keeps_its_default() -> None:
    given = parsed("-w", "10m", "-i", "1d", "--resume", "1.5h", "--clock-offset", "-90s")
    assert (given.wait, given.idle, given.resume, given.clock_offset) == (600.0, 86400.0, 5400.0, -90.0)
    none = parsed()
    assert (none.wait, none.idle, none.resume, none.clock_offset) == (None, 0.0, None, 0.0)
