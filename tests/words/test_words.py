"""Every sentence that a person reads: right for what happened, and in one tone."""

from __future__ import annotations

import ast
import errno
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

import punchtunnel
from punchtunnel import words
from punchtunnel.protocol.frames import Reason
from punchtunnel.reporting.events import Event
from punchtunnel.words import doctor, peer, reach, usage

PACKAGE = Path(punchtunnel.__file__).parent
# ---- one place


def name_of(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def constants(module: ModuleType) -> dict[str, str]:
    """Return the sentences of one module by their names."""
    names = vars(module).items()
    return {name: text for name, text in names if name[0] != "_" and name.isupper() and isinstance(text, str)}


# Modules whose names are sentences, beside tables of sentences and what those are made of.
SENTENCE_MODULES = [usage, peer, doctor]
CONSTANTS = {name: text for module in SENTENCE_MODULES for name, text in constants(module).items()}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "words" not in path.parts)
SOURCES = "".join(path.read_text() for path in MODULES)


@pytest.mark.parametrize("path", MODULES, ids=[path.stem for path in MODULES])
def test_no_module_has_a_sentence_of_its_own(path: Path) -> None:
    """What an error or an event says is a name of punchtunnel.words, filled in at most."""
    for call in ast.walk(ast.parse(path.read_text())):
        if not isinstance(call, ast.Call):
            continue
        name = name_of(call.func)
        said: list[ast.expr] = []
        if name.endswith("Error") and name not in ("AssertionError", "AttributeError"):
            said = call.args
        elif isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "events":
            said = [keyword.value for keyword in call.keywords if keyword.arg in ("reason", "what")]
        elif name == "echo":
            said = call.args
        for argument in said:
            texts = [part.value for part in ast.walk(argument) if isinstance(part, ast.Constant)]
            spoken = [text for text in texts if isinstance(text, str) and re.search(r"[a-z] |[a-z]{2}.* ", text)]
            # The name of the program, before its version.
            assert spoken in ([], ["punchtunnel "]), f"{path.name}:{call.lineno}"


@pytest.mark.parametrize("name", CONSTANTS)
def test_every_sentence_is_used_and_filled_in_if_it_has_fields(name: str) -> None:
    assert re.search(rf"\.{name}\b", SOURCES), "nobody says it"
    assert (f".{name}.format(" in SOURCES) is ("{" in CONSTANTS[name])


def test_mypy_knows_each_text_and_checks_the_fields_that_it_is_given() -> None:
    """It does so for what is Final."""
    for module in SENTENCE_MODULES:
        assert constants(module).keys() <= module.__annotations__.keys()
    assert len(CONSTANTS) == sum(len(constants(module)) for module in SENTENCE_MODULES), "a name stands for two"


# ---- tone

REFUSED = OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
SENTENCES = [
    *(words.no_hole(["203.0.113.7"], ["IPv4"], 60.0, 40, cause, 7, "192.0.2.1") for cause in words.NO_HOLE),
    *(words.reset_reason(reason) for reason in Reason),
    words.all_ports_busy(20, "home"),
    words.unresolved("home", "Name or service not known"),
    words.not_our_address("192.0.2.1"),
    words.no_resources("Too many open files"),
    words.target_failed("nas:22", "Connection refused"),
    words.narrow_hole(63),
    words.dead_link(40.0),
    words.deaf_link(80.0),
    words.black_hole(1260),
    words.broken_link(REFUSED),
    words.broken_link(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))),
    words.local_reset(REFUSED),
    words.goodbye(1),
    words.idle_link(5.0),
    words.readable_secret("/home/me/secret"),
    words.cannot("listen on 127.0.0.1:22", REFUSED),
    *(value for name, value in vars(words).items() if name.isupper() and isinstance(value, str)),
    *(event.sentence for event in Event.__subclasses__() if event.sentence),
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
    assert words.broken_link(OSError("gone")) == "link lost: gone"
    assert words.cannot("read", OSError("gone")) == "cannot read: gone"


def test_what_one_stun_server_has_seen_is_no_proof_that_no_hole_can_open() -> None:
    assert "no direct hole can open" in reach.ports_rewritten(True, True, True)
    unsure = reach.ports_rewritten(True, True, False)
    assert "no direct hole can open" not in unsure
    assert "--stun" in unsure
    assert reach.ports_rewritten(False, True, False) == reach.ports_rewritten(False, True, True)
