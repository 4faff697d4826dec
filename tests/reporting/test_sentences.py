"""The lines of a log: their times, how often a state is told, and what each -v adds."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import get_type_hints

import pytest

from punchtunnel.reporting.events import (
    DialFailed,
    Event,
    Exited,
    HoleOpened,
    Listening,
    Punching,
    PunchingAgain,
    RoundTrip,
    Started,
    Traffic,
    Unresolved,
    Waiting,
)
from punchtunnel.reporting.limit import PERIOD
from punchtunnel.reporting.sentences import AGAIN, TRACE, Sentences, stamp

from .runs import PUNCHING
from .test_events import EVENTS, sample

HOLE = HoleOpened("127.0.0.1:1", "127.0.0.2:1", None, "-L", True, 1.0, 2)
OTHER_PORTS = Punching(PUNCHING.peer, 19, [10241])


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1796073160.1239, "2026-11-30T21:12:40.123Z"),
        (1796073160.9999, "2026-11-30T21:12:40.999Z"),
    ],
)
def test_a_time_is_utc_to_the_millisecond_whatever_the_zone(now: float, text: str) -> None:
    assert stamp(now) == text


def test_a_line_begins_with_its_time_where_one_is_wanted() -> None:
    assert Sentences(0)(Listening("here")) == "punchtunnel: listening on here\n"
    assert (
        Sentences(0, clock=lambda: 0.0)(Listening("here"))
        == "1970-01-01T00:00:00.000Z punchtunnel: listening on here\n"
    )


def told(verbosity: int, *events: Event, monotonic: Callable[[], float] = lambda: 0.0) -> list[str]:
    sentences = Sentences(verbosity, monotonic=monotonic)
    return [line for event in events if (line := sentences(event))]


def test_a_state_that_goes_on_is_told_once() -> None:
    """A service that waited wrote a line every 50 s: 1700 a day."""
    assert len(told(1, PUNCHING, OTHER_PORTS, PUNCHING, OTHER_PORTS)) == 1


@pytest.mark.parametrize("between", [HOLE, PunchingAgain("link lost"), Punching("2001:db8::7", 20, [10240])])
def test_a_state_is_told_again_when_another_one_was_between(between: Event) -> None:
    lines = told(1, PUNCHING, OTHER_PORTS, between, OTHER_PORTS)
    assert len(lines) == 3
    assert lines[2] == "punchtunnel: punching towards 203.0.113.7 on 19 ports\n"


def test_what_is_not_told_ends_no_state() -> None:
    assert len(told(1, PUNCHING, Unresolved("no name server"), OTHER_PORTS)) == 1


def test_a_state_that_goes_on_for_long_is_told_now_and_then() -> None:
    now = 0.0
    sentences = Sentences(1, monotonic=lambda: now)
    lines = 0
    for second in range(0, int(3 * AGAIN), 50):
        now = float(second)
        lines += bool(sentences(PUNCHING))
    assert lines == 3


def test_vv_tells_of_every_change_of_ports() -> None:
    assert len(told(2, PUNCHING, OTHER_PORTS, PUNCHING)) == 3


@pytest.mark.parametrize("event", [event for event in EVENTS.values() if event.lasting])
def test_what_tells_states_apart_is_a_field(event: type[Event]) -> None:
    assert event.lasting in get_type_hints(event)


@pytest.mark.parametrize("event", EVENTS.values())
def test_vvv_tells_every_event_with_all_of_its_fields_and_what_vv_says(event: type[Event]) -> None:
    """It was the same as -vv."""
    one = sample(event)
    (line,) = told(TRACE, one)
    assert one.fill(one.sentence) in line
    assert json.loads(line.partition(f"[{event.name} ")[2].removesuffix("]\n")) == one.fields
    assert line.count("\n") == 1


def test_vvv_leaves_out_repetitions_that_tell_nothing_new() -> None:
    now = 0.0
    sentences = Sentences(TRACE, monotonic=lambda: now)
    lines = []
    for tenth in range(int(PERIOD * 100)):
        now = tenth / 10
        lines.append(sentences(Waiting(now, int(now), "silent")))
        lines.append(sentences(Traffic(now, 0, 0, 0)))
    waiting = [line for line in lines if "waiting" in line]
    assert 10 <= len(waiting) <= 11
    assert len([line for line in lines if "traffic" in line]) == 1


@pytest.mark.parametrize(("verbosity", "count"), [(-1, 1), (0, 2), (1, 3), (2, 5), (3, 6)])
def test_each_v_is_more_than_the_one_before(verbosity: int, count: int) -> None:
    events = [
        Started(1, "0", 1), RoundTrip(0.1), DialFailed(1, "x", "refused"), PUNCHING, Listening("here"),
        Exited(1, "lost"),
    ]  # fmt: skip
    assert len(told(verbosity, *events)) == count
