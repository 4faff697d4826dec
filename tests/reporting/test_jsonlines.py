"""Events for programs: every one of them on a line of its own, and repeated ones seldom."""

from __future__ import annotations

import io
import json
import sys
import threading

import pytest

from punchtunnel.errors import UsageError
from punchtunnel.reporting.events import Exited, ForeignDial, RoundTrip, StreamClosed, Traffic, Waiting, Warned
from punchtunnel.reporting.jsonlines import JsonLines, open_jsonlines
from punchtunnel.reporting.limit import BURST_FOR_PROGRAMS, RateLimit
from punchtunnel.reporting.output import LAST_PATIENCE, Output

from .pipe import Pipe
from .runs import PUNCHING


def test_an_event_is_its_time_its_name_and_its_fields() -> None:
    output = io.StringIO()
    programs = JsonLines(Output(output), clock=lambda: 1.5)
    programs(PUNCHING)
    programs(Exited(1, "link lost"))
    assert list(map(json.loads, output.getvalue().splitlines())) == [
        {"time_s": 1.5, "event": "punching"} | PUNCHING.fields,
        {"time_s": 1.5, "event": "exit", "status": 1, "reason": "link lost"},
    ]


def test_json_takes_every_value_and_keeps_its_line() -> None:
    output = io.StringIO()
    JsonLines(Output(output))(Warned("two\nlines \u2028 \udcff"))
    (line,) = output.getvalue().splitlines()
    assert json.loads(line)["reason"] == "two\nlines \u2028 \udcff"
    assert line.isascii()


def test_the_first_event_after_lost_ones_says_how_many(pipe: Pipe) -> None:
    programs = JsonLines(Output(pipe.stream))
    pipe.fill()
    for number in range(3):
        programs(RoundTrip(number))
    pipe.read()
    programs(RoundTrip(3))
    programs(RoundTrip(4))
    told = [json.loads(line) for line in pipe.read().splitlines()]
    assert [(each["rtt_s"], each.get("lost")) for each in told] == [(3, 3), (4, None)]


def test_the_last_event_waits_longer_for_a_slow_reader(pipe: Pipe) -> None:
    programs = JsonLines(Output(pipe.stream), clock=lambda: 0.0)
    pipe.fill()
    programs(RoundTrip(1))
    reader = threading.Timer(LAST_PATIENCE / 5, pipe.read)
    reader.start()
    programs(Exited(0, ""))
    reader.join()
    assert json.loads(pipe.read()) == {"time_s": 0.0, "event": "exit", "status": 0, "reason": "", "lost": 1}


# ---- events that are repeated as long as a state lasts


def test_a_repeated_event_is_told_every_ten_seconds_if_it_says_something_new() -> None:
    output, now = io.StringIO(), [1000.0]
    programs = JsonLines(Output(output), clock=lambda: now[0])
    for second in range(60):
        now[0] = 1000.0 + second
        programs(Traffic(float(second), min(second, 25), 0, 1))
    told = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [each["bytes_in"] for each in told] == [0, 10, 20, 25]


def test_a_clock_that_is_set_back_silences_nothing() -> None:
    output, times = io.StringIO(), iter([1000.0, 5.0, 6.0])
    programs = JsonLines(Output(output), clock=lambda: next(times))
    for number in range(3):
        programs(Waiting(0.0, dials=number, met="silent"))
    assert [json.loads(line)["dials"] for line in output.getvalue().splitlines()] == [0, 1]


# ---- what strangers repeat


def test_strangers_do_not_fill_a_log_and_it_is_told_how_many_were_left_out() -> None:
    """3 MB in 13 s from a stranger's dials."""
    output, now = io.StringIO(), [0.0]
    limit = RateLimit(lambda: now[0], BURST_FOR_PROGRAMS)
    programs = JsonLines(Output(output), clock=lambda: 0.0, limit=limit)
    for _ in range(BURST_FOR_PROGRAMS + 50):
        programs(ForeignDial("198.51.100.9:1"))
        programs(StreamClosed(1))
    now[0] = 1.0
    programs(ForeignDial("198.51.100.9:1"))
    told = [json.loads(line) for line in output.getvalue().splitlines()]
    foreign = [one for one in told if one["event"] == "foreign"]
    assert len(foreign) == BURST_FOR_PROGRAMS + 1
    assert [one["left_out"] for one in foreign if "left_out" in one] == [50]
    assert len(told) - len(foreign) == BURST_FOR_PROGRAMS + 50, "what the peer does is told in full"


# ---- which descriptor


def test_events_go_to_stderr_or_to_the_descriptor_that_was_named(
    pipe: Pipe, capsys: pytest.CaptureFixture[str]
) -> None:
    for status_fd in (None, pipe.stream.fileno()):
        programs = open_jsonlines(True, status_fd, stdio=True)
        assert programs is not None
        programs(RoundTrip(0.25))
    assert json.loads(pipe.read())["event"] == "rtt"
    assert json.loads(capsys.readouterr().err)["event"] == "rtt"


def test_nothing_is_written_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_jsonlines(False, None, stdio=True) is None
    monkeypatch.setattr(sys, "stderr", None)
    assert open_jsonlines(True, None, stdio=True) is None


def test_a_descriptor_of_no_use_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="mix events"):
        open_jsonlines(False, 1, stdio=True)
