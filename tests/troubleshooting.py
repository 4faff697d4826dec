"""The entries of docs/TROUBLESHOOTING.md as data.

    ### What a person sees
    <!-- play: KEY; cell: TITLE -->     how a run produces it: one line a play
    > the sentence, with {fields}       for all plays above it
    > try: the remedy                   in a paragraph of its own: of the doctor's findings only
    why it comes, and what to do

A play without a cell of the laboratory, and without a consultation of its
doctor, is one of two processes on one machine (tests/e2e/).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "TROUBLESHOOTING.md").read_text()

_PLAY = re.compile(
    r"<!-- play: (?P<key>[\w-]+)(?:; cell: (?P<cell>[^;]+)|; consultation: (?P<consultation>[^;]+))? -->"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One play of a sentence.

    Attributes:
        key: What the play is called.
        cell: The title of a cell of the laboratory, or "".
        consultation: The name of one of its doctor's, or "".
        sentence, remedy: As they are printed; `{name}` stands for anything.
        statuses: The exit statuses that its section's heading names.
        heading: What a person sees.
    """

    key: str
    cell: str
    consultation: str
    sentence: str
    remedy: str
    statuses: tuple[int, ...]
    heading: str

    def matches(self, sentence: str) -> bool:
        """Tell whether a sentence is the one of this row."""
        return _fits(self.sentence, sentence)

    def advises(self, remedy: str) -> bool:
        """Tell whether a remedy is the one of this row."""
        return _fits(self.remedy, remedy)


def rows_of(text: str) -> list[Row]:
    """Return all plays of a page, in its order.

    Raises:
        ValueError: An entry is broken: a comment that is no play, a play without a sentence or the other way round,
            a heading below which nothing is explained, or a section that names no exit status for a run that has one.
    """
    return [row for section, body in _parts("## ", text) for row in _rows_of_section(section, body)]


def _rows_of_section(section: str, body: str) -> Iterator[Row]:
    statuses = tuple(map(int, re.findall(r"\d+", section.partition("exit status")[2])))
    for heading, entry in _parts("### ", body):
        rows = list(_rows_of_entry(heading, entry, statuses))
        if statuses and not rows:
            raise ValueError(f"{heading}: no run shows it")
        yield from rows


def _rows_of_entry(heading: str, entry: str, statuses: tuple[int, ...]) -> Iterator[Row]:
    plays: list[dict[str, str]] = []
    quote: list[str] = []
    explained = sentences = 0
    for line in [*entry.splitlines(), ""]:
        if line.startswith(">"):
            quote.append(line[1:].strip())
        elif quote:
            yield from _rows_of_sentence(heading, plays, quote, statuses)
            plays, quote, sentences = [], [], sentences + 1
        if line.startswith("<!--"):
            found = _PLAY.fullmatch(line)
            if found is None:
                raise ValueError(f"{heading}: {line} is no play")
            plays.append(found.groupdict(""))
        explained += bool(line) and line[0] not in "<>"
    if plays:
        raise ValueError(f"{heading}: no sentence after the play {plays[0]['key']}")
    if sentences and not explained:
        raise ValueError(f"{heading}: nothing says what to do")


def _rows_of_sentence(
    heading: str, plays: list[dict[str, str]], quote: list[str], statuses: tuple[int, ...]
) -> Iterator[Row]:
    sentence, *more = " ".join(line or "\n" for line in quote).split(" \n ")
    if not plays or len(more) > 1:
        raise ValueError(f"{heading}: no play before, or too many paragraphs in: {sentence}")
    for play in plays:
        remedy = more[0].removeprefix("try: ") if more else ""
        if not (statuses or play["consultation"]):
            raise ValueError(f"{heading}: its section names no exit status")
        yield Row(sentence=sentence, remedy=remedy, statuses=statuses, heading=heading, **play)


def _parts(mark: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield each heading of a level and what is below it."""
    for part in re.split(f"^{mark}", text, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        yield heading, body


def _fits(pattern: str, sentence: str) -> bool:
    return re.fullmatch(".*?".join(map(re.escape, re.split(r"\{\w+\}", pattern))), sentence) is not None


ROWS = rows_of(TEXT)
