"""What is printed, for people and for programs, at which verbosity."""

from __future__ import annotations

import io
import json

import pytest

from punchtunnel import words
from punchtunnel.status import Status
from punchtunnel.words import EVENTS, Level

CLEAR = "\r\x1b[K"
PUNCHING: dict[str, object] = {"peer": "203.0.113.7", "port_count": 20, "ports": [10240]}
HOLE: dict[str, object] = {
    "local": "192.0.2.1:10240",
    "remote": "203.0.113.7:10240",
    "role": "--stdio",
    "leads": True,
    "waited_s": 0.254,
    "dials": 12,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def events_of_every_level(status: Status) -> None:
    status("rtt", rtt_s=0.25)
    status("punching", **PUNCHING)
    status("listening", place="127.0.0.1:2222")
    status("exit", status=1, reason="link lost")


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
    status = Status(verbosity, False, stream)
    events_of_every_level(status)
    status.close()
    assert stream.getvalue() == "".join(f"punchtunnel: {line}\n" for line in lines)


def test_a_run_that_ends_well_says_nothing_about_it() -> None:
    stream = io.StringIO()
    Status(2, False, stream)("exit", status=0, reason="")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("verbosity", [-1, 0, 2])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_json_is_one_object_a_line_whatever_the_verbosity(verbosity: int, stream: type[io.StringIO]) -> None:
    output = stream()
    status = Status(verbosity, True, output)
    events_of_every_level(status)
    status.close()
    objects = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [each["event"] for each in objects] == ["rtt", "punching", "listening", "exit"]
    assert all(each["time_s"] > 1.6e9 for each in objects)
    assert objects[1] | {"time_s": 0, "event": ""} == PUNCHING | {"time_s": 0, "event": ""}
    assert (objects[3]["status"], objects[3]["reason"]) == (1, "link lost")


def test_json_takes_every_value_and_keeps_its_line() -> None:
    output = io.StringIO()
    status = Status(0, True, output)
    status("warning", reason="two\nlines \u2028 \udcff", place=words.Level, data=b"\0", missing=None)
    (line,) = output.getvalue().splitlines()
    assert json.loads(line)["reason"] == "two\nlines \u2028 \udcff"
    assert line.isascii()


def test_a_terminal_shows_one_line_that_follows_the_state() -> None:
    stream = Terminal()
    status = Status(0, False, stream)
    status("punching", **PUNCHING)
    first = "punchtunnel: punching towards 203.0.113.7 on 20 ports"
    assert stream.getvalue() == first
    status("punching", **PUNCHING | {"port_count": 28})
    second = "punchtunnel: punching towards 203.0.113.7 on 28 ports"
    assert stream.getvalue() == first + CLEAR + second
    status("hole", **HOLE)
    connected = "punchtunnel: connected, 192.0.2.1:10240 to 203.0.113.7:10240\n"
    assert stream.getvalue() == first + CLEAR + second + CLEAR + connected
    status.close()
    status("exit", status=1, reason="link lost")
    assert stream.getvalue().endswith(connected + "punchtunnel: link lost\n")


def test_a_message_on_a_terminal_stands_above_the_state_line() -> None:
    stream = Terminal()
    status = Status(0, False, stream)
    status("punching", **PUNCHING)
    state = stream.getvalue()
    status("warning", reason="look")
    assert stream.getvalue() == f"{state}{CLEAR}punchtunnel: look\n{state}"
    status.close()
    assert stream.getvalue().endswith(f"{state}\n")


def test_closing_twice_ends_the_state_line_once() -> None:
    stream = Terminal()
    status = Status(0, False, stream)
    status("punching", **PUNCHING)
    status.close()
    status.close()
    assert stream.getvalue().count("\n") == 1


@pytest.mark.parametrize("verbosity", [-1, 1])
def test_a_terminal_with_q_or_v_gets_plain_lines(verbosity: int) -> None:
    stream = Terminal()
    status = Status(verbosity, False, stream)
    status("punching", **PUNCHING)
    status.close()
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().count("\n") == (verbosity == Level.INFO)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("verbosity", [0, 2])
def test_a_field_that_is_missing_ends_no_run(
    event: str, as_json: bool, stream: type[io.StringIO], verbosity: int
) -> None:
    """The state line of a terminal raised KeyError."""
    output = stream()
    status = Status(verbosity, as_json, output)
    status(event)
    status.close()
    if as_json or verbosity == Level.DEBUG:
        # A sentence without fields says itself; any other says the event's name.
        assert (event if as_json or "{" in EVENTS[event][1] else EVENTS[event][1]) in output.getvalue()


def test_a_person_at_a_terminal_is_told_that_nobody_is_authenticated_and_a_log_only_with_v() -> None:
    for stream, verbosity, told in (
        (Terminal(), 0, True),
        (Terminal(), -1, False),
        (io.StringIO(), 0, False),
        (io.StringIO(), 1, True),
    ):
        status = Status(verbosity, False, stream)
        status("unauthenticated")
        assert ("not authenticated" in stream.getvalue()) is told


@pytest.mark.parametrize("as_json", [True, False])
def test_a_stream_that_cannot_be_written_ends_no_transfer(as_json: bool) -> None:
    closed = io.StringIO()
    status = Status(2, as_json, closed)
    closed.close()
    for each in (status, Status(2, as_json, Broken()), Status(2, as_json, None)):
        events_of_every_level(each)
        each.close()


def test_a_terminal_that_goes_away_ends_no_transfer() -> None:
    stream = Terminal()
    status = Status(0, False, stream)
    status("punching", **PUNCHING)
    stream.close()
    status("hole", **HOLE)
    status.close()
