"""Every sentence that a person reads: right for what happened, and in one tone."""

from __future__ import annotations

import ast
import errno
import os
import re
import string
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

import punchtunnel
from punchtunnel import words
from punchtunnel.protocol.frames import Reason
from punchtunnel.protocol.hello import NO_TRAITS, Hello, Role, Trait, roles_fit
from punchtunnel.punching.hole import Counts
from punchtunnel.words import doctor, peer, usage
from punchtunnel.words.events import EVENTS, NOTICES, Level

PACKAGE = Path(punchtunnel.__file__).parent
REPORTERS = {"report", "_report", "status", "_status"}


def reported() -> Iterator[tuple[str, str, set[str]]]:
    """Yield place, event name and field names of every report in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        assigned = {
            target.id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            # One call may choose between two events: both are literals in its first argument,
            # or in what was assigned to it.
            choice = node.args[0]
            if isinstance(choice, ast.Name):
                choice = assigned.get(choice.id, choice)
            names = [
                part.value
                for part in ast.walk(choice)
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            if called in REPORTERS:
                assert names, f"{path.name}:{node.lineno} reports an event that no test can check"
                given = {keyword.arg for keyword in node.keywords if keyword.arg}
                yield from ((f"{path.name}:{node.lineno}", name, given) for name in names)


REPORTS = list(reported())


def placeholders(event: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(EVENTS[event][1]) if name}


def sample(field: str) -> object:
    return 1.5 if field.endswith("_s") else 7


@pytest.mark.parametrize(("place", "event", "given"), REPORTS, ids=[f"{place} {event}" for place, event, _ in REPORTS])
def test_every_report_of_the_package_has_a_sentence_and_its_fields(place: str, event: str, given: set[str]) -> None:
    assert event in EVENTS, place
    assert placeholders(event) <= given, place
    assert words.level(event) is EVENTS[event][0]
    assert words.sentence(event, {field: sample(field) for field in given}) == EVENTS[event][1].format(
        **{field: sample(field) for field in given}
    )


def test_no_sentence_is_left_that_nobody_says() -> None:
    assert EVENTS.keys() == {event for _, event, _ in REPORTS}


@pytest.mark.parametrize("event", NOTICES)
def test_what_a_service_manager_is_told_needs_only_what_every_report_has(event: str) -> None:
    needed = {name for _, name, _, _ in string.Formatter().parse(NOTICES[event]) if name}
    found = [given for _, name, given in REPORTS if name == event]
    assert found
    assert all(needed <= given for given in found)


@pytest.mark.parametrize("event", EVENTS)
def test_a_field_that_is_missing_or_of_another_type_does_not_raise(event: str) -> None:
    """None in the place of a number raised TypeError."""
    assert bool(words.sentence(event, {})) is bool(EVENTS[event][1])
    for value in ("text", None):
        assert bool(words.sentence(event, dict.fromkeys(placeholders(event), value))) is bool(EVENTS[event][1])


# ---- one place


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


# Modules whose names are sentences, beside tables of sentences and what those are made of.
SENTENCE_MODULES = {"usage": usage, "peer": peer, "doctor": doctor}


def constants(module: str) -> dict[str, str]:
    """Return the sentences of one module by their names."""
    names = vars(SENTENCE_MODULES[module]).items()
    return {name: text for name, text in names if name[0] != "_" and name.isupper() and isinstance(text, str)}


CONSTANTS = {name: text for module in SENTENCE_MODULES for name, text in constants(module).items()}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "words" not in path.parts)


@pytest.mark.parametrize("path", MODULES, ids=[path.stem for path in MODULES])
def test_no_module_has_a_sentence_of_its_own(path: Path) -> None:
    """What an error or an event says is a name of punchtunnel.words, filled in at most."""
    for call in calls(path):
        name = name_of(call.func)
        said: list[ast.expr] = []
        if name.endswith("Error") and name not in ("AssertionError", "AttributeError"):
            said = call.args
        elif name in REPORTERS:
            said = [keyword.value for keyword in call.keywords if keyword.arg in ("reason", "what")]
        elif name == "echo":
            said = call.args
        for argument in said:
            texts = [part.value for part in ast.walk(argument) if isinstance(part, ast.Constant)]
            spoken = [text for text in texts if isinstance(text, str) and re.search(r"[a-z] |[a-z]{2}.* ", text)]
            # The name of the program, before its version.
            assert spoken in ([], ["punchtunnel "]), f"{path.name}:{call.lineno}"


def templates() -> Iterator[tuple[str, str, set[str], str]]:
    """Yield place, name, fields given and text of every sentence that is filled in by `format`."""
    for path in MODULES:
        for call in calls(path):
            if name_of(call.func) == "format" and isinstance(call.func, ast.Attribute):
                name = name_of(call.func.value)
                given = {keyword.arg for keyword in call.keywords if keyword.arg}
                yield f"{path.name}:{call.lineno}", name, given, CONSTANTS[name]


TEMPLATES = list(templates())


@pytest.mark.parametrize(("place", "name", "given", "text"), TEMPLATES, ids=[f"{one[0]} {one[1]}" for one in TEMPLATES])
def test_a_sentence_is_filled_in_with_the_fields_it_has(place: str, name: str, given: set[str], text: str) -> None:
    fields = {field for _, field, _, _ in string.Formatter().parse(text) if field}
    assert given == fields, place


def test_every_sentence_is_used() -> None:
    sources = "".join(path.read_text() for path in MODULES)
    assert len(CONSTANTS) == sum(len(constants(module)) for module in SENTENCE_MODULES), "a name stands for two"
    for name, text in CONSTANTS.items():
        assert f".{name}" in sources, f"nobody says {text!r}"
        assert ("{" in text) == any(used == name for _, used, _, _ in TEMPLATES), name


# ---- why there is no hole

# What was counted, how the last dial of each port ended, a part of the sentence.
WHY_NO_HOLE: dict[str, tuple[Counts, dict[str, int], str]] = {
    "silence": (Counts(dials=40), {"pending": 20}, "no answer at all to 20"),
    "silence of all kinds": (Counts(dials=40), {"pending": 9, "silent": 2, "expired": 3}, "no answer at all to 14"),
    "refused": (Counts(dials=412, refused=412), {"refused": 20}, "412 refused at once: the peer is not punching yet"),
    "refused while most ports are held": (Counts(dials=40, refused=11), {"pending": 20}, "11 refused at once"),
    "one odd answer": (Counts(dials=40, refused=1), {"pending": 19, "refused": 1}, "no answer at all to 19"),
    "unreachable": (Counts(dials=40, unreachable=40), {"unreachable": 20}, "40 unreachable: there is no route"),
    "no IPv6 here": (Counts(dials=60, unreachable=40), {"unreachable": 20, "pending": 10}, "no answer at all to 10"),
    "no IPv6 here, refused": (
        Counts(dials=60, unreachable=40, refused=20),
        {"unreachable": 20, "refused": 10},
        "20 refused at once",
    ),
    "own firewall": (Counts(dials=40, forbidden=40), {"forbidden": 20}, "40 forbidden by this machine's own firewall"),
    "unusable": (Counts(dials=40, unusable=40), {"unusable": 20}, "20 ports of this machine in use"),
    "half of the ports unusable": (
        Counts(dials=174, unusable=160),
        {"pending": 12, "unusable": 8},
        "8 ports of this machine in use",
    ),
    "few ports unusable": (Counts(dials=40, unusable=20), {"pending": 18, "unusable": 2}, "no answer at all to 18"),
    "other channel": (Counts(dials=40, other_channel=1), {"pending": 20}, "give both sides the same --channel"),
    "strangers": (Counts(dials=40, strangers=20, mute=3), {"pending": 20}, "23 answered but not by a punchtunnel"),
    "strangers, and holds ever since": (
        Counts(dials=202, held_again=180, mute=22),
        {"pending": 20},
        "22 answered but not by a punchtunnel",
    ),
    "what is sent is dropped here": (
        Counts(dials=20),
        {"forbidden": 20},
        "20 forbidden by this machine's own firewall",
    ),
    "rewritten": (
        Counts(dials=40, refused=30, rewritten=5, strangers=5),
        {"refused": 20},
        "5 connections came from the peer's address, but from another port than expected",
    ),
    "rewritten, but more dials were answered": (
        Counts(dials=40, rewritten=5, strangers=25),
        {"pending": 20},
        "20 answered but not by a punchtunnel",
    ),
    "foreign": (Counts(dials=40, foreign=5), {"pending": 20}, "5 connections came from another address"),
}


@pytest.mark.parametrize(("counts", "outcomes", "why"), WHY_NO_HOLE.values(), ids=WHY_NO_HOLE.keys())
def test_why_there_is_no_hole_follows_from_what_was_counted(counts: Counts, outcomes: dict[str, int], why: str) -> None:
    text = words.no_hole(["203.0.113.7"], 60.0, counts, outcomes)
    assert text.startswith(f"no hole to 203.0.113.7 in 60 s: {counts.dials} dials")
    assert why in text


@pytest.mark.parametrize("outcomes", [{}, {"": 10}])
def test_nobody_is_blamed_when_nothing_was_dialled(outcomes: dict[str, int]) -> None:
    """Listening for the other terminal of one machine ended with "0 answered but not by a punchtunnel"."""
    text = words.no_hole(["127.0.0.1"], 1.0, Counts(), outcomes)
    assert "answered but" not in text
    assert "router" not in text


@pytest.mark.parametrize("kind", [field.name for field in fields(Counts)])
def test_no_count_or_outcome_alone_is_without_a_sentence(kind: str) -> None:
    assert words.no_hole(["home"], 0.5, Counts(**{kind: 1}), {kind: 1}).startswith("no hole to home in 0.5 s: ")


def test_several_peers_are_named_as_alternatives() -> None:
    assert "no hole to 192.0.2.1 or home in 120 s" in words.no_hole(["192.0.2.1", "home"], 120.0, Counts(), {})


# ---- why the peer was rejected

S, L, T, R = Role.STDIO, Role.LISTEN, Role.TO, Role.RAW
MISFITS = [
    (mine, theirs) for mine in (S, L, T, L | T, R) for theirs in (S, L, T, L | T, R) if not roles_fit(mine, theirs)
]


def rejected(mine: Role, theirs: Role) -> str:
    return words.rejected(mine, NO_TRAITS, 1, Hello(bytes(16), bytes(8), theirs))


@pytest.mark.parametrize(("mine", "theirs"), MISFITS)
def test_a_role_that_does_not_fit_is_named_with_what_to_change(mine: Role, theirs: Role) -> None:
    text = rejected(mine, theirs)
    assert text.startswith(f"roles do not fit: {words.role_name(mine)} here, {words.role_name(theirs)} there: ")
    advice = {
        (L, L): "both sides listen; one side needs --to HOST:PORT",
        (T, T): "both sides wait to dial a target; one side needs -L PORT",
        (S, L | T): "pair -L with --to",
        (L | T, S): "pair -L with --to",
    }
    assert advice.get((mine, theirs), "punchtunnel.punch() meets only punchtunnel.punch()") in text


def test_both_sides_of_a_misfit_get_the_same_advice() -> None:
    for mine, theirs in MISFITS:
        assert rejected(mine, theirs).rpartition(" there: ")[2] == rejected(theirs, mine).rpartition(" there: ")[2]


def test_two_sides_that_only_send_are_told_so() -> None:
    hello = Hello(bytes(16), bytes(8), S, Trait.NO_RECEIVE)
    assert words.rejected(S, Trait.NO_RECEIVE, 1, hello).startswith("both sides are --send-only")


@pytest.mark.parametrize("roles", [(S, S), (L, L), (L, T)])
def test_plain_on_one_side_only_is_named_before_anything_else(roles: tuple[Role, Role]) -> None:
    mine, theirs = roles
    here = words.rejected(mine, Trait.PLAIN, 1, Hello(bytes(16), bytes(8), theirs))
    there = words.rejected(mine, NO_TRAITS, 1, Hello(bytes(16), bytes(8), theirs, Trait.PLAIN))
    assert here == "--plain is given here but not on the other side: give it on both, or better on neither"
    assert there == here.replace("here", "there")


def test_the_bits_that_words_repeats_are_those_of_the_hello() -> None:
    assert (words.NO_RECEIVE, words.PLAIN) == (Trait.NO_RECEIVE, Trait.PLAIN)


def test_a_verifier_is_groups_of_at_least_64_bits_that_can_be_read_aloud() -> None:
    assert words.verifier(bytes.fromhex("35bfb770f25493f4507e")) == "gw73-o4hs-ksj7-iud6"
    assert len({words.verifier(bytes([index]) * 10) for index in range(256)}) == 256


def test_another_version_is_named() -> None:
    assert "version 2, not 1" in words.rejected(S, NO_TRAITS, 2, None)


@pytest.mark.parametrize(
    ("role", "name"), [(S, "--stdio"), (L, "-L"), (L | T, "-L and --to"), (R, "a library socket"), (Role(0), "nothing")]
)
def test_a_role_is_named_by_its_options(role: Role, name: str) -> None:
    assert words.role_name(role) == name


# ---- tone

REFUSED = OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
SENTENCES = [
    *(words.no_hole(["203.0.113.7"], 60.0, counts, outcomes) for counts, outcomes, _ in WHY_NO_HOLE.values()),
    *(rejected(mine, theirs) for mine, theirs in MISFITS),
    words.rejected(S, NO_TRAITS, 2, None),
    *(words.reset_reason(reason) for reason in Reason),
    words.all_ports_busy(20, "home"),
    words.unresolved("home", "Name or service not known"),
    words.not_our_address("192.0.2.1"),
    words.no_resources("Too many open files"),
    words.target_failed("nas:22", "Connection refused"),
    words.dead_link(40.0),
    words.broken_link(REFUSED),
    words.broken_link(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))),
    words.local_reset(REFUSED),
    words.protocol_error(1),
    words.idle_link(5.0),
    words.readable_secret("/home/me/secret"),
    words.rejected(S, Trait.PLAIN, 1, Hello(bytes(16), bytes(8), S)),
    words.cannot("listen on 127.0.0.1:22", REFUSED),
    *(value for name, value in vars(words).items() if name.isupper() and isinstance(value, str)),
    *(text for _, text in EVENTS.values() if text),
    *CONSTANTS.values(),
]


@pytest.mark.parametrize("text", SENTENCES)
def test_a_sentence_is_one_line_in_lower_case_without_exception_names(text: str) -> None:
    assert text.isprintable()
    assert not text[0].isupper()
    assert not text.endswith(".")
    for name in ("Error", "Exception", "errno", "Errno", "None", "Role.", "<"):
        assert name not in text


def test_every_reason_of_a_reset_has_words_and_a_later_one_gets_the_plainest() -> None:
    assert words.RESET_REASONS.keys() == {int(reason) for reason in Reason}
    assert len(set(words.RESET_REASONS.values())) == len(Reason)
    assert words.reset_reason(99) == words.reset_reason(Reason.RESET)


def test_an_error_without_a_text_of_the_system_shows_its_own() -> None:
    assert words.broken_link(OSError("gone")) == f"link lost: gone; {words.PUNCH_AGAIN}"
    assert words.cannot("read", OSError("gone")) == "cannot read: gone"


def test_levels_are_those_of_q_and_v() -> None:
    assert [int(level) for level in (Level.ERROR, Level.NOTE, Level.INFO, Level.DEBUG)] == [-1, 0, 1, 2]
    assert EVENTS["exit"][0] is Level.ERROR


def test_an_unreported_event_goes_nowhere() -> None:
    words.unreported("anything", field=1)
