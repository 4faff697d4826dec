"""docs/TROUBLESHOOTING.md is complete and readable; tests/natlab and tests/e2e play its entries."""

from __future__ import annotations

import re

import pytest

from punchtunnel import words

from .troubleshooting import ROWS, TEXT, Row, rows_of

HEADINGS = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
SENTENCES = [row.sentence for row in ROWS]


def anchor(heading: str) -> str:
    """Return what GitHub calls a heading in an address."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_every_play_has_a_key_of_its_own() -> None:
    keys = [(row.key, row.consultation) for row in ROWS]
    assert len(keys) == len(set(keys))
    assert len(keys) > 80


@pytest.mark.parametrize("cause", words.NO_HOLE)
def test_every_cause_of_no_hole_has_a_sentence(cause: str) -> None:
    assert any(words.NO_HOLE[cause] in sentence for sentence in SENTENCES)


def test_a_row_takes_its_sentence_and_no_other() -> None:
    (row,) = [row for row in ROWS if row.key == "no-name"]
    assert row.matches(words.unresolved("home", "it failed"))
    assert not row.matches(words.unresolved("home", "it failed") + "; now")
    assert row.statuses == (3,)


def test_the_list_at_the_top_leads_to_every_heading_of_a_run() -> None:
    top = TEXT.partition("\n## No hole")[0]
    linked = set(re.findall(r"\]\(#([^)]+)\)", top))
    assert linked >= {anchor(row.heading) for row in ROWS if not row.consultation}


def test_every_link_within_the_page_leads_to_a_heading() -> None:
    anchors = list(map(anchor, HEADINGS))
    assert len(anchors) == len(set(anchors))
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= set(anchors)


def test_there_is_no_table_to_scroll_sideways() -> None:
    assert not re.search(r"^\|", TEXT, re.MULTILINE)


# ---- the parser

PAGE = """\
## Something: exit status 3 or 4

### It happens

<!-- play: one; cell: pairs: a x b -->
<!-- play: two -->
> what is
> said to {peer}

Do something.

## What the doctor says

### The clock

<!-- play: clock; consultation: far too slow -->
> it is late
>
> try: set
> it

As it says.
"""


def test_a_page_gives_one_row_a_play() -> None:
    assert rows_of(PAGE) == [
        Row("one", "pairs: a x b", "", "what is said to {peer}", "", (3, 4), "It happens"),
        Row("two", "", "", "what is said to {peer}", "", (3, 4), "It happens"),
        Row("clock", "", "far too slow", "it is late", "set it", (), "The clock"),
    ]


@pytest.mark.parametrize(
    ("good", "broken", "why"),
    [
        ("<!-- play: two -->", "<!-- two -->", "is no play"),
        ("; cell: pairs", "; sell: pairs", "is no play"),
        ("> what is\n> said to {peer}\n", "", "no sentence after the play one"),
        ("<!-- play: one; cell: pairs: a x b -->\n<!-- play: two -->\n", "", "no play before"),
        ("Do something.\n", "", "nothing says what to do"),
        (": exit status 3 or 4", "", "names no exit status"),
        (
            "<!-- play: one; cell: pairs: a x b -->\n<!-- play: two -->\n> what is\n> said to {peer}\n",
            "",
            "no run shows",
        ),
        ("> try: set\n", "> try: set\n>\n", "too many paragraphs"),
        ("> what is\n", "> what is\n\n", "no play before"),
    ],
)
def test_a_broken_entry_is_noticed(good: str, broken: str, why: str) -> None:
    assert good in PAGE
    with pytest.raises(ValueError, match=why):
        rows_of(PAGE.replace(good, broken))
