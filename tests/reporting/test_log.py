"""--log: appended, private, never in the way of a run; and when a stream needs times."""

from __future__ import annotations

import io
import os
import pty
import re
import stat
from pathlib import Path

import pytest

from punchtunnel.errors import LocalError
from punchtunnel.reporting.events import Exited, Listening, RoundTrip
from punchtunnel.reporting.limit import PERIOD
from punchtunnel.reporting.log import needs_times, open_log
from punchtunnel.reporting.output import Output
from punchtunnel.reporting.status import Status

from .runs import PUNCHING

TIMED = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z punchtunnel: "


@pytest.mark.parametrize(("verbosity", "count"), [(-1, 3), (0, 3), (1, 3), (2, 4), (3, 4)])
def test_the_log_has_what_v_prints_or_more_whatever_stderr_has(verbosity: int, count: int, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    stream = io.StringIO()
    status = Status(verbosity, Output(stream), log=open_log(str(path), verbosity))
    for event in (RoundTrip(0.25), PUNCHING, Listening("here"), Exited(1, "link lost")):
        status(event)
    first, *lines = path.read_text().splitlines()
    assert first == "before"
    assert len(lines) == count
    assert all(re.match(TIMED, line) for line in lines)
    assert lines[-1].endswith(
        "Z punchtunnel: link lost" + (' [exit {"status": 1, "reason": "link lost"}]' * (verbosity == 3))
    )
    assert "Z " not in stream.getvalue(), "stderr keeps its own form"


def test_a_new_log_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "log"
    open_log(str(path), 0)(Exited(0, ""))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: None], ids=["folder", "fifo", "no folder"])
def test_a_log_that_cannot_be_opened_is_a_local_error(make: object, tmp_path: Path) -> None:
    assert callable(make)
    path = tmp_path / "log"
    make(path)
    if not path.exists():
        path /= "log"
    with pytest.raises(LocalError, match=r"cannot write the log .*/log: "):
        open_log(str(path), 0)
    with pytest.raises(LocalError, match="cannot write the log"):
        open_log("a\0b", 0)


def test_a_full_disk_ends_nothing() -> None:
    log = open_log("/dev/full", 0)
    log(Listening("here"))
    log(Exited(0, ""))


def test_only_a_log_of_everything_wants_traffic(tmp_path: Path) -> None:
    assert Status(0, None, log=open_log(str(tmp_path / "a"), 2)).traffic_every == 0.0
    assert Status(0, None, log=open_log(str(tmp_path / "a"), 3)).traffic_every == PERIOD
    assert Status(3, None).traffic_every == PERIOD


def test_times_are_added_to_a_file_or_a_pipe_and_not_on_a_terminal_or_in_the_journal(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w") as file:
        info = os.fstat(file.fileno())
        assert needs_times({}, file.fileno())
        assert not needs_times({"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino}"}, file.fileno())
        # Of the unit; this stream was sent elsewhere.
        assert needs_times({"JOURNAL_STREAM": f"{info.st_dev}:{info.st_ino + 1}"}, file.fileno())
        assert needs_times({"JOURNAL_STREAM": ""}, file.fileno())
    master, slave = pty.openpty()
    assert not needs_times({}, slave)
    os.close(master)
    os.close(slave)
    assert not needs_times({}, slave)
