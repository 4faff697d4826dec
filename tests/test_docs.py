"""The documents can be read in a terminal and in a diff, and their links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
WIDTH = 100
# A line that is one link, one picture or one address cannot be broken.
LINK = re.compile(r"\s*(?:- )?(?:!?\[[^]]*\]\(\S*\)|<?https?://\S+)[.,:]?")


def long_lines(text: str) -> Iterator[str]:
    """Yield the lines that are too long, with their numbers; a table, code or a link may be."""
    fenced = indented = False
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        # In a list, text that continues a line is indented too.
        indented = line.startswith("    ") and (indented or not before)
        before = line
        if line.startswith("```"):
            fenced = not fenced
        elif not (fenced or indented or line.startswith("|") or LINK.fullmatch(line)) and len(line) > WIDTH:
            yield f"{number}: {line}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_lines_of_a_document_are_short(document: Path) -> None:
    assert not list(long_lines(document.read_text()))


def test_what_cannot_be_wrapped_may_be_long_and_nothing_else() -> None:
    long = "word " * 21
    fine = f"{'x' * WIDTH}\n| {long} |\n```\n{long}\n```\n\n    {long}\n![{long}](docs/a.svg)\n"
    assert list(long_lines(fine)) == []
    for line in (long, f"- {long}", f"  - a\n    {long}", f"{long}[a](b)"):
        assert [found.partition(": ")[2] for found in long_lines(f"{fine}{line}\n")] == line.splitlines()[-1:]


def anchors(text: str) -> set[str]:
    """Return what GitHub calls the headings of a document in an address."""
    return {
        re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


def dead_links(document: Path, text: str) -> Iterator[str]:
    """Yield the links to files that are not there, and to headings that they have not got."""
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if "://" not in link and not (target.exists() and (not anchor or anchor in anchors(target.read_text()))):
            yield link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_a_document_lead_somewhere(document: Path) -> None:
    assert not list(dead_links(document, document.read_text()))


def test_a_link_that_leads_nowhere_is_noticed() -> None:
    fine = "[a](FAQ.md) [b](FAQ.md#what-is-it) [c](#how) [d](https://example.org/x#y)"
    page = ROOT / "docs" / "PUNCHING.md"
    assert list(dead_links(page, fine)) == ["FAQ.md#what-is-it", "#how"]
    assert list(dead_links(page, "[a](#sources) [b](NONE.md) ![c](natlab.svg)")) == ["NONE.md"]
