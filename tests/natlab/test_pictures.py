"""Pictures are drawn from what was recorded: terminals, and packets of a punch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path as FilePath
from xml.etree import ElementTree

import pytest

from . import drawing, sandbox, timeline
from .ends import ROOT
from .legible import DARK, LIGHT, Picture, contrast
from .packetlog import DELIVERED, PacketLog, Record
from .packets import ACK, PSH, RST, SYN, TCP
from .recording import ROWS, Frame, Screen, Terminal, states, svg

REASON = sandbox.missing()
NAMES = {"left": "home", "right": "laptop"}
PICTURES = sorted(path.name for path in (ROOT / "docs").glob("*.svg"))


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("one\r\ntwo", ("one", "two")),
        ("punching\r\x1b[Kconnected\r\n$ ", ("connected", "$")),
        ("abc\b\bX", ("aXc",)),
        ("longer than ten\r\nx", ("longer tha", "n ten", "x")),
        ("\x1b[?2004hprompt\x1b]0;title\x07\x1b[1;32m!", ("prompt!",)),
    ],
)
def test_a_screen_shows_what_a_terminal_would(written: str, shown: tuple[str, ...]) -> None:
    whole, pieces = Screen(10), Screen(10)
    whole.feed(written)
    assert whole.lines(len(shown)) == shown
    if "\x1b" not in written:
        for character in written:
            pieces.feed(character)
        assert pieces.lines(len(shown)) == shown


def test_a_screen_scrolls() -> None:
    screen = Screen(10)
    screen.feed("1\r\n2\r\n3")
    assert screen.lines(2) == ("2", "3")


def test_each_state_of_a_line_is_shown_from_its_frame_to_the_next_change() -> None:
    frames: list[Frame] = [(0.0, ("$",)), (1.0, ("$ l",)), (1.5, ("$ l",)), (2.0, ("",)), (3.0, ("end",))]
    assert list(states(frames, 0, 5.0)) == [("$", 0.0, 1.0), ("$ l", 1.0, 2.0), ("end", 3.0, None)]


# ---- a punch

PORT = 12345


def packet(ms: float, origin: str, flags: int, length: int = 0, ttl: int = 63, port: int = PORT, **more: int) -> Record:
    fate = DELIVERED if ttl > 10 else f"ttl ran out at hop {ttl}"
    towards = "right" if origin == "left" else "left"
    return Record(
        1000 + ms / 1000, origin, towards, TCP, "a", port, "b", port, flags,
        more.get("sequence", 0), more.get("acknowledged", 0), ttl, length, fate,
    )  # fmt: skip


def a_punch() -> PacketLog:
    refused = [
        one
        for port in (1, 2, 3, 4)
        for one in (
            packet(port, "right", SYN, port=port, sequence=port),
            packet(port + 20, "left", RST | ACK, port=port, ttl=64, acknowledged=port + 1),
        )
    ]
    hole = [
        packet(0, "right", SYN, ttl=3),
        packet(80, "left", SYN),
        packet(100, "right", SYN | ACK),
        packet(120, "left", ACK),
        packet(121, "left", ACK | PSH, timeline.HELLO),
        packet(130, "right", ACK | PSH, timeline.HELLO),
        packet(150, "left", ACK | PSH, timeline.PICK),
        packet(170, "right", ACK | PSH, timeline.ACCEPT),
        packet(190, "left", ACK | PSH, timeline.PROOF),
        # A record of the link that happens to have the size of a message before.
        packet(900, "right", ACK | PSH, timeline.PICK),
        packet(950, "right", ACK | PSH, timeline.PROOF),
    ]
    return PacketLog(sorted(refused + hole, key=lambda one: one.time_s))


def test_a_timeline_tells_what_happened_on_the_port_of_the_hole() -> None:
    log = a_punch()
    assert timeline.winner(log) == PORT
    assert timeline.tells(log)
    picture = timeline.svg(log, 0.02, NAMES)
    texts = ["".join(one.itertext()) for one in ElementTree.fromstring(picture).iter() if one.tag.endswith("text")]
    for text in ("home", "laptop", "SYN-ACK", "HELLO", "PICK", "ACCEPT", "proof", "4 refused: dialled again"):
        assert text in texts
    assert "laptop starts on 5 ports:" in texts
    assert f"port {PORT} is a hold:" in texts
    assert "130 ms after home" in texts
    # The hold ends on the way; what was refused ends at the router.
    assert len(re.findall('<circle class="hold winner"', picture)) == 1


def test_a_log_without_a_hole_has_no_picture() -> None:
    log = PacketLog([packet(0, "left", SYN)])
    assert not timeline.tells(log)
    with pytest.raises(ValueError, match="no hole"):
        timeline.svg(log, 0.02, NAMES)


def test_a_punch_in_which_both_dials_crossed_is_not_the_one_to_show() -> None:
    records = [one for one in a_punch().records if not (one.source_port == PORT and one.ttl == 3)]
    assert not timeline.tells(PacketLog(records))


# ---- for real


@pytest.mark.parametrize("mode", [LIGHT, DARK])
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_the_documents_is_readable_where_github_shows_it(name: str, mode: str) -> None:
    """Some had text of 5 pixels, and grey on white."""
    picture = Picture((ROOT / "docs" / name).read_text(), mode)
    assert picture.width == drawing.WIDTH
    assert len(picture.texts) > 10
    for said in picture.texts:
        assert said.size >= 11, said
        assert contrast(said.colour, said.behind) >= 4.5, said
        assert said.right <= drawing.WIDTH, said
    assert picture.page != Picture((ROOT / "docs" / name).read_text(), LIGHT if mode == DARK else DARK).page


@pytest.mark.parametrize("mode", [LIGHT, DARK])
@pytest.mark.parametrize("name", ["punch.svg", "bench.svg"])
def test_every_line_of_a_picture_stands_out(name: str, mode: str) -> None:
    """In the dark mode, one was nearly black."""
    picture = Picture((ROOT / "docs" / name).read_text(), mode)
    drawn = {kind for kind in picture.kinds("line", "polyline") if kind.startswith("line-")}
    assert len(drawn) >= 4
    for kind in drawn:
        assert contrast(picture.colour({kind}, "stroke"), picture.page) >= 3, kind


def test_every_line_of_the_charts_is_in_the_legend() -> None:
    picture = Picture((ROOT / "docs" / "bench.svg").read_text(), LIGHT)
    drawn = {kind.removeprefix("line-") for kind in picture.kinds("polyline") if kind.startswith("line-")}
    assert drawn <= picture.kinds("rect")


@pytest.mark.parametrize("broken", ["font: 10px", "fill: #eeeeee"])
def test_text_that_is_too_small_or_too_pale_is_noticed(broken: str) -> None:
    style = f".weak {{ {broken} }}\n"
    picture = Picture(drawing.document(40, drawing.text(8, 20, "weak", "weak"), {}, style), LIGHT)
    (said,) = picture.texts
    assert said.size < 11 or contrast(said.colour, said.behind) < 4.5


def test_the_terminals_begin_with_what_they_end_with() -> None:
    """They began empty, and whoever does not wait saw nothing."""
    terminal = Terminal("home", "home", subprocess.Popen(["true"]), 0)
    terminal.process.wait()
    blank = ("",) * (ROWS - 1)
    terminal.frames = [(0.0, ("home$", *blank)), (1.0, ("home$ x", *blank))]
    picture = svg([terminal], 5.0)
    rules = dict(re.findall(r"@keyframes (k\d) \{ (.*) \}$", picture, re.MULTILINE))
    assert list(rules.values()) == [
        "0% { visibility: hidden } 50.000% { visibility: visible } 60.000% { visibility: hidden }",
        "0% { visibility: visible } 50.000% { visibility: hidden } 60.000% { visibility: visible }",
    ]
    # Without animation: the last state alone.
    assert re.findall(r"animation-name:(k\d)[^>]*hidden", picture) == ["k0"]


@pytest.mark.exhaustive
@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_two_terminals_are_recorded_while_they_do_what_the_readme_says(tmp_path: FilePath) -> None:
    picture = tmp_path / "session.svg"
    command = [sys.executable, "-m", "tests.natlab.pictures", "--session", str(picture)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    texts = ["".join(one.itertext()) for one in ElementTree.parse(picture).iter() if one.tag.endswith("text")]
    for text in (
        "photos/alps-1.jpg",
        "hello from behind the other router",
        "home$ punchtunnel 198.51.100.20 --to 8000",
    ):
        assert text in texts
