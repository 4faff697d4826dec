"""What is printed, for people and for programs, at which verbosity."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import termios
import threading
from collections.abc import Iterator

import pytest

from punchtunnel.errors import UsageError
from punchtunnel.reporting.events import (
    Exited,
    Listening,
    Punching,
    RoundTrip,
    TargetRefused,
    Traffic,
    Waiting,
    Warned,
)
from punchtunnel.reporting.jsonlines import PERIOD, JsonLines, open_jsonlines
from punchtunnel.reporting.output import LAST_PATIENCE, Output, open_output
from punchtunnel.reporting.status import AT_ONCE, Flood, Status, status_of_a_mistake

PUNCHING = Punching("203.0.113.7", 20, [10240])


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
    status = Status(0, Output(stream), flood=Flood(lambda: now))
    for number in range(1000):
        status(TargetRefused(number, "down"))
    assert stream.getvalue().count("\n") == AT_ONCE
    status(Listening("here"))
    assert stream.getvalue().endswith("listening on here\n"), "others are told"
    now = 1.0
    for number in range(1000):
        status(TargetRefused(number, "down"))
    lines = stream.getvalue().splitlines()
    assert lines[-1] == f"punchtunnel: stream 0: down (and {1000 - AT_ONCE} more of the kind before it; -vv tells all)"
    now = 1000.0
    status(TargetRefused(1, "down"))
    status(TargetRefused(2, "down"))
    lines = stream.getvalue().splitlines()
    assert lines[-2].endswith("(and 999 more of the kind before it; -vv tells all)")
    assert lines[-1] == "punchtunnel: stream 2: down"


def test_vv_tells_all_that_others_repeat() -> None:
    stream = io.StringIO()
    status = Status(2, Output(stream), flood=Flood(lambda: 0.0))
    for number in range(1000):
        status(TargetRefused(number, "down"))
    assert stream.getvalue().count("\n") == 1000


def test_a_run_that_ends_well_says_nothing_about_it() -> None:
    stream = io.StringIO()
    Status(2, Output(stream))(Exited(0, ""))
    assert stream.getvalue() == ""


@pytest.mark.parametrize("verbosity", [-1, 0, 2])
def test_json_is_one_object_a_line_whatever_the_verbosity(verbosity: int) -> None:
    output = io.StringIO()
    status = Status(verbosity, None, JsonLines(Output(output)))
    events_of_every_level(status)
    status.close()
    objects = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [each["event"] for each in objects] == ["rtt", "punching", "listening", "exit"]
    assert all(each["time_s"] > 1.6e9 for each in objects)
    assert objects[1] | {"time_s": 0, "event": ""} == PUNCHING.fields | {"time_s": 0, "event": ""}
    assert (objects[3]["status"], objects[3]["reason"]) == (1, "link lost")


def test_json_takes_every_value_and_keeps_its_line() -> None:
    output = io.StringIO()
    status = Status(0, None, JsonLines(Output(output)))
    status(Warned("two\nlines \u2028 \udcff"))
    (line,) = output.getvalue().splitlines()
    assert json.loads(line)["reason"] == "two\nlines \u2028 \udcff"
    assert line.isascii()


def test_a_stream_that_cannot_be_written_ends_no_transfer() -> None:
    closed = io.StringIO()
    status = Status(2, Output(closed), JsonLines(Output(closed)))
    closed.close()
    for each in (status, Status(2, Output(Broken()), JsonLines(Output(Broken()))), Status(2, None)):
        events_of_every_level(each)
        each.close()


# ---- readers who do not read


class Pipe:
    """A pipe whose writing end is a stream; nobody reads unless asked to."""

    def __init__(self) -> None:
        self.fd, there = os.pipe()
        self.stream = io.TextIOWrapper(io.FileIO(there, "w"), write_through=True)

    def fill(self) -> None:
        os.set_blocking(self.stream.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.stream.fileno(), b"x" * 512)
        os.set_blocking(self.stream.fileno(), True)

    def read(self) -> str:
        return os.read(self.fd, 1 << 20).decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self.fd)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.mark.timeout(30)
def test_a_full_pipe_costs_events_and_never_blocks(pipe: Pipe) -> None:
    """A log reader that had stopped reading stopped the tunnel."""
    status = Status(2, Output(pipe.stream), JsonLines(Output(pipe.stream)))
    pipe.fill()
    for _ in range(1000):
        status(RoundTrip(0.25))


@pytest.mark.timeout(30)
def test_a_terminal_that_is_stopped_costs_lines_and_never_blocks() -> None:
    """Ctrl-S in the terminal of a tunnel stopped the tunnel."""
    here, there = os.openpty()
    with open(here, "rb", buffering=0) as person, open(there, "w") as stream:
        status = Status(2, Output(stream))
        termios.tcflow(there, termios.TCOOFF)
        for _ in range(1000):
            status(RoundTrip(0.25))
        termios.tcflow(there, termios.TCOON)
        status(Listening("here"))
        assert b"listening on here" in person.read(1000)


def test_the_first_event_behind_lost_ones_says_how_many(pipe: Pipe) -> None:
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
    programs = JsonLines(Output(pipe.stream))
    pipe.fill()
    programs(RoundTrip(1))
    reader = threading.Timer(LAST_PATIENCE / 5, pipe.read)
    reader.start()
    programs(Exited(0, ""))
    reader.join()
    assert json.loads(pipe.read()) | {"time_s": 0} == {
        "time_s": 0,
        "event": "exit",
        "status": 0,
        "reason": "",
        "lost": 1,
    }


# ---- events that come again and again


def test_a_periodic_event_is_told_every_ten_seconds_if_it_says_something_new() -> None:
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
        programs(Waiting(0.0, dials=number))
    assert [json.loads(line)["dials"] for line in output.getvalue().splitlines()] == [0, 1]


def test_traffic_is_looked_at_only_if_somebody_wants_to_know() -> None:
    assert Status(2, Output(io.StringIO())).traffic_every == 0
    assert Status(-1, None, JsonLines(Output(io.StringIO()))).traffic_every == PERIOD


# ---- which descriptor


def test_a_descriptor_gets_the_events_and_stderr_the_sentences(pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    status = Status(0, open_output(True, pipe.stream.fileno()), open_jsonlines(True, pipe.stream.fileno(), stdio=True))
    events_of_every_level(status)
    assert [json.loads(line)["event"] for line in pipe.read().splitlines()] == ["rtt", "punching", "listening", "exit"]
    assert capsys.readouterr().err == "punchtunnel: listening on 127.0.0.1:2222\npunchtunnel: link lost\n"


def test_events_on_stderr_leave_no_room_for_sentences() -> None:
    assert open_output(True, None) is None
    assert open_output(False, None) is not None
    assert open_jsonlines(True, None, stdio=True) is not None
    assert open_jsonlines(False, None, stdio=True) is None


def test_a_closed_stderr_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    status = Status(2, open_output(False, None), open_jsonlines(True, None, stdio=True))
    events_of_every_level(status)
    assert status.traffic_every == 0


def test_a_descriptor_of_no_use_is_a_mistake(pipe: Pipe) -> None:
    for fd in (-1, 10**6, 2**40):
        with pytest.raises(UsageError, match="is not open"):
            open_jsonlines(False, fd, stdio=False)
    with pytest.raises(UsageError, match="for reading only"):
        open_jsonlines(False, pipe.fd, stdio=False)
    with pytest.raises(UsageError, match="mix events"):
        open_jsonlines(False, 1, stdio=True)
    assert open_jsonlines(False, 1, stdio=False) is not None


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
