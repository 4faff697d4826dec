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
from punchtunnel.reporting.log import Log, needs_times, open_log
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


def lines_of(path: Path) -> list[str]:
    return [line.partition("punchtunnel: ")[2] for line in path.read_text().splitlines()]


def write(log: Log, place: str) -> None:
    """Write a line, and wait until it is in the file."""
    log(Listening(place))
    log(Exited(0, ""))


def test_a_log_that_was_renamed_is_opened_anew(tmp_path: Path) -> None:
    """After logrotate it went on in the old file, which is deleted in the end."""
    path, old, older = (tmp_path / name for name in ("log", "log.1", "log.2"))
    log = open_log(str(path), 0)
    write(log, "before")
    path.rename(older)
    # As `nocreate` leaves it.
    write(log, "after")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.rename(old)
    # As `create` does.
    path.touch()
    write(log, "again")
    write(log, "and again")
    assert lines_of(older) == ["listening on before"]
    assert lines_of(old) == ["listening on after"]
    assert lines_of(path) == ["listening on again", "listening on and again"]


def test_a_log_that_was_cut_to_nothing_goes_on_at_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(str(path), 0)
    write(log, "before")
    os.truncate(path, 0)
    write(log, "after")
    assert lines_of(path) == ["listening on after"]


@pytest.mark.parametrize("in_its_place", ["folder", "no folder"])
def test_a_log_that_cannot_be_opened_anew_goes_on_in_the_old_file(in_its_place: str, tmp_path: Path) -> None:
    path, old = tmp_path / "logs" / "log", tmp_path / "old"
    path.parent.mkdir()
    log = open_log(str(path), 0)
    write(log, "before")
    path.rename(old)
    if in_its_place == "folder":
        path.mkdir()
    else:
        path.parent.rmdir()
    write(log, "after")
    assert lines_of(old) == ["listening on before", "listening on after"]


def test_what_is_no_file_is_not_opened_anew(tmp_path: Path) -> None:
    """/dev/stderr leads to /dev/null after -f."""
    path, old = tmp_path / "log", tmp_path / "old"
    log = open_log(str(path), 0)
    path.rename(old)
    path.symlink_to("/dev/null")
    write(log, "here")
    assert lines_of(old) == ["listening on here"]


def test_a_log_is_found_again_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    log = open_log("log", 0)
    monkeypatch.chdir(other)
    write(log, "here")
    assert lines_of(tmp_path / "log") == ["listening on here"]
    assert not list(other.iterdir())


def test_a_full_disk_ends_nothing_and_is_told_once() -> None:
    """Who had asked for a log got an empty one, without a word."""
    stream = io.StringIO()
    status = Status(0, Output(stream), log=open_log("/dev/full", 0))
    for _ in range(3):
        status(PUNCHING)
    status(Exited(1, "link lost"))
    told, last = stream.getvalue().splitlines()
    assert re.fullmatch(r"punchtunnel: cannot write the log /dev/full: No space left on device.*", told)
    assert last == "punchtunnel: link lost"


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
