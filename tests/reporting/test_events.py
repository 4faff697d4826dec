"""docs/EVENTS.md is true: its tables are those of the code, and of what real runs emit."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from punchtunnel.reporting.events import SCHEMA, Event, Exited, Level, unreported

TEXT = (Path(__file__).parents[2] / "docs" / "EVENTS.md").read_text()


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


CHECKS: dict[str, Callable[[object], bool]] = {
    "string": lambda value: isinstance(value, str),
    "integer": is_integer,
    "number": is_number,
    "boolean": lambda value: isinstance(value, bool),
    "number or null": lambda value: value is None or is_number(value),
    "integer or null": lambda value: value is None or is_integer(value),
    "object": lambda value: isinstance(value, dict),
    "list of integers": lambda value: isinstance(value, list) and all(map(is_integer, value)),
}


RUNS, _, DOCTOR = TEXT.partition("## The findings of --doctor\n")


def documented() -> dict[str, dict[str, str]]:
    """Return the type of every field of every event in the tables."""
    events = {}
    _, _, tables = RUNS.partition("\n## ")
    for name, cells in re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", tables, re.MULTILINE):
        fields = re.findall(r"`(\w+)` ([a-z ]+[a-z])", cells)
        assert len(fields) == cells.count("`") // 2, f"a field of {name} has no type"
        events[name] = dict(fields)
    return events


DOCUMENTED = documented()


def check(event: dict[str, object]) -> None:
    """Fail unless an event is as the document says."""
    fields = dict(event)
    assert is_number(fields.pop("time_s"))
    types = DOCUMENTED[str(fields.pop("event"))]
    assert is_integer(fields.pop("lost", 0))
    assert is_integer(fields.pop("left_out", 0))
    assert fields.keys() == types.keys(), event
    for name, value in fields.items():
        assert CHECKS[types[name]](value), f"{name} is no {types[name]}: {event}"


def check_finding(finding: dict[str, object]) -> None:
    """Fail unless a line of --doctor is as the document says."""
    types = dict(re.findall(r"^\| `(\w+)` \| (\w+)[^|]*\|[^|]*\|$", DOCTOR, re.MULTILINE))
    assert finding.keys() == types.keys(), finding
    for name, value in finding.items():
        assert CHECKS[types[name]](value), f"{name} is no {types[name]}: {finding}"
    assert f"`{finding['level']}`" in DOCTOR
    assert f"`{finding['check']}`" in DOCTOR
    assert finding["sentence"]


EVENTS: dict[str, type[Event]] = {event.name: event for event in Event.__subclasses__()}
# How each type of a field is written in the source.
WRITTEN = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "float | None": "number or null",
    "int | None": "integer or null",
    "list[int]": "list of integers",
}
SAMPLES = {
    "str": "text",
    "int": 7,
    "float": 1.5,
    "bool": True,
    "float | None": None,
    "int | None": None,
    "list[int]": [7],
}


def sample(event: type[Event]) -> Event:
    """Return an event with some value in every field."""
    return event(**{field.name: SAMPLES[str(field.type)] for field in fields(event)})  # type: ignore[arg-type]


def test_the_document_is_of_the_schema_that_is_told() -> None:
    assert f"# Events for programs, schema {SCHEMA}\n" in TEXT


def test_the_document_has_every_event_with_its_fields_in_their_order() -> None:
    assert {
        name: [(field.name, WRITTEN[str(field.type)]) for field in fields(event)]  # type: ignore[arg-type]
        for name, event in EVENTS.items()
    } == {name: list(types.items()) for name, types in DOCUMENTED.items()}


@pytest.mark.parametrize("event", EVENTS.values())
def test_a_sentence_and_a_notice_need_only_the_fields_that_the_event_has(event: type[Event]) -> None:
    told = sample(event)
    for text in (event.sentence, event.notice):
        assert bool(told.fill(text)) is bool(text)
    assert told.fields.keys() == {field.name for field in fields(event)}  # type: ignore[arg-type]


@pytest.mark.parametrize("event", [event for event in EVENTS.values() if event.progress])
def test_what_progresses_is_a_field(event: type[Event]) -> None:
    assert event.progress in sample(event).fields


def test_levels_are_those_of_q_and_v() -> None:
    assert [int(level) for level in (Level.ERROR, Level.NOTE, Level.INFO, Level.DEBUG)] == [-1, 0, 1, 2]
    assert Exited.level is Level.ERROR


def test_an_unreported_event_goes_nowhere() -> None:
    unreported(Exited(0, ""))


@pytest.mark.parametrize("event", DOCUMENTED)
def test_every_type_is_one_that_is_checked_and_names_tell_units(event: str) -> None:
    for name, kind in DOCUMENTED[event].items():
        assert kind in CHECKS, name
        assert name.endswith("_s") == kind.startswith("number"), f"{name}: a number needs a unit"


@pytest.mark.parametrize(
    "mistake",
    [
        {"event": "exit", "status": 0, "reason": ""},
        {"time_s": 1.0, "event": "exit", "status": 0},
        {"time_s": 1.0, "event": "exit", "status": "0", "reason": ""},
        {"time_s": 1.0, "event": "exit", "status": True, "reason": ""},
        {"time_s": 1.0, "event": "exit", "status": 0, "reason": "", "more": 1},
        {"time_s": 1.0, "event": "punching", "peer": "", "port_count": 1, "ports": ["1"]},
        {"time_s": 1.0, "event": "unheard of"},
    ],
)
def test_the_check_finds_mistakes(mistake: dict[str, object]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check(mistake)
