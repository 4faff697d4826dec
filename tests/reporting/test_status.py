"""Who is told of what, at which verbosity."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from pathlib import Path

import pytest

from punchtunnel.reporting.events import Exited, Listening, RoundTrip, TargetRefused
from punchtunnel.reporting.jsonlines import JsonLines, open_jsonlines
from punchtunnel.reporting.limit import BURST, PERIOD, RateLimit
from punchtunnel.reporting.output import LAST_PATIENCE, Output, open_output
from punchtunnel.reporting.status import Status, status_of_a_mistake

from .pipe import Pipe
from .runs import PUNCHING


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def events_of_every_level(status: Status) -> None:
    status(RoundTrip(0.25))
    status(PUNCHING)
    status(Listening("127.0.0.1:2222"))
    status(Exited(1, "link lost"))


@pytest.mark.parametrize(
    ("verbosity", "lines"),
    [
        (-1, ["link lost"]),
        (0, ["listening on 127.0.0.1:2222", "link lost"]),
        (1, ["punching towards 203.0.113.7 on 20 ports", "listening on 127.0.0.1:2222", "link lost"]),
        (
            2,
            [
                "round trip 0.2500 s",
                "punching towards 203.0.113.7 on 20 ports",
                "listening on 127.0.0.1:2222",
                "link lost",
            ],
        ),
    ],
)
def test_each_v_tells_more_and_q_tells_only_why_it_failed(verbosity: int, lines: list[str]) -> None:
    stream = io.StringIO()
    status = Status(verbosity, Output(stream))
    events_of_every_level(status)
    status.close()
    assert stream.getvalue() == "".join(f"punchtunnel: {line}\n" for line in lines)


def test_what_others_can_repeat_does_not_fill_a_log() -> None:
    """A peer that opened streams to a target that is down made 39 GB of lines a day."""
    now = 0.0
    stream = io.StringIO()
    status = Status(0, Output(stream), limit=RateLimit(lambda: now))
    for number in range(1000):
        status(TargetRefused(number, "down"))
    assert stream.getvalue().count("\n") == BURST
    status(Listening("here"))
    assert stream.getvalue().endswith("listening on here\n"), "others are told"
    now = 1.0
    for number in range(1000):
        status(TargetRefused(number, "down"))
    lines = stream.getvalue().splitlines()
    assert lines[-1] == f"punchtunnel: stream 0: down (and {1000 - BURST} more like it before; -vv prints all)"
    now = 1000.0
    status(TargetRefused(1, "down"))
    status(TargetRefused(2, "down"))
    lines = stream.getvalue().splitlines()
    assert lines[-2].endswith("(and 999 more like it before; -vv prints all)")
    assert lines[-1] == "punchtunnel: stream 2: down"


def test_vv_tells_all_that_others_repeat() -> None:
    stream = io.StringIO()
    status = Status(2, Output(stream), limit=RateLimit(lambda: 0.0))
    for number in range(1000):
        status(TargetRefused(number, "down"))
    assert stream.getvalue().count("\n") == 1000


def test_a_run_that_ends_well_says_nothing_about_it() -> None:
    stream = io.StringIO()
    Status(2, Output(stream))(Exited(0, ""))
    assert stream.getvalue() == ""


def test_a_stream_that_cannot_be_written_ends_no_transfer() -> None:
    closed = io.StringIO()
    status = Status(2, Output(closed), JsonLines(Output(closed)))
    closed.close()
    for each in (status, Status(2, Output(Broken()), JsonLines(Output(Broken()))), Status(2, None)):
        events_of_every_level(each)
        each.close()


@pytest.mark.parametrize("verbosity", [-1, 0, 2])
def test_programs_are_told_everything_whatever_the_verbosity(verbosity: int) -> None:
    output = io.StringIO()
    status = Status(verbosity, None, JsonLines(Output(output)))
    events_of_every_level(status)
    objects = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [each["event"] for each in objects] == ["rtt", "punching", "listening", "exit"]


def test_traffic_is_looked_at_only_if_somebody_wants_to_know() -> None:
    assert Status(2, Output(io.StringIO())).traffic_every == 0
    assert Status(-1, None, JsonLines(Output(io.StringIO()))).traffic_every == PERIOD


def test_a_descriptor_gets_the_events_and_stderr_the_sentences(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    status = Status(0, open_output(True, pipe.stream.fileno()), open_jsonlines(True, pipe.stream.fileno(), stdio=True))
    events_of_every_level(status)
    assert [json.loads(line)["event"] for line in pipe.read().splitlines()] == ["rtt", "punching", "listening", "exit"]
    assert capsys.readouterr().err == "punchtunnel: listening on 127.0.0.1:2222\npunchtunnel: link lost\n"


def test_a_closed_stderr_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    status = Status(2, open_output(False, None), open_jsonlines(True, None, stdio=True))
    events_of_every_level(status)
    assert status.traffic_every == 0


@pytest.mark.parametrize("given", ["--status-fd {}", "--status-fd={}", "x --status-fd 99999 --status-fd {} -w soon"])
def test_a_command_line_that_cannot_be_parsed_is_told_where_it_says(given: str, pipe: Pipe) -> None:
    status = status_of_a_mistake(given.format(pipe.stream.fileno()).split())
    status(Exited(2, "why"))
    assert json.loads(pipe.read())["status"] == 2


@pytest.mark.parametrize("given", ["--status-fd", "--status-fd x", "--status-fd 99999", "--status-fd=", "-w soon"])
def test_a_command_line_that_says_nothing_useful_is_told_on_stderr(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status_of_a_mistake(given.split())(Exited(2, "why"))
    assert capsys.readouterr().err == "punchtunnel: why\n"


def test_a_run_that_ends_without_a_word_leaves_no_line_of_its_log_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes a log died with the process, and the last lines of --progress with it."""
    real, may_write = os.write, threading.Event()

    def write(fd: int, data: bytes) -> int:
        may_write.wait(30)
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    with (tmp_path / "log").open("w") as log:
        status = Status(0, Output(log))
        status(Listening("127.0.0.1:2222"))
        disk = threading.Timer(LAST_PATIENCE / 5, may_write.set)
        disk.start()
        status(Exited(0, ""))
        assert (tmp_path / "log").read_text() == "punchtunnel: listening on 127.0.0.1:2222\n"
        disk.join()
