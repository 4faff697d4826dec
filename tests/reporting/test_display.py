"""The line of a terminal, seen from the terminal: a pseudo-terminal and what came out of it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.reporting.display import HINT_AFTER, LINE_EVERY, PERIOD, Display, Shows, fit
from punchtunnel.reporting.events import (
    Event,
    Exited,
    Joining,
    LinkEnded,
    LinkUp,
    Lost,
    Moved,
    PathMeasured,
    PunchingAgain,
    Rejected,
    RoundTrip,
    Unauthenticated,
    Unsealed,
    ViaStarted,
    Waiting,
    Warned,
)
from punchtunnel.reporting.line import Part
from punchtunnel.reporting.output import Output
from punchtunnel.reporting.status import Status
from punchtunnel.words import ending

from .runs import HOLE, NOON, PUNCHING, SEALED, punching, traffic
from .terminal import COLOUR, Terminal
from .test_events import sample

LINK_UP = LinkUp("uvloop", "leading")
ENDED = LinkEnded("", elapsed_s=4.0, bytes_in=4096, bytes_out=0, status=0)
STATES = Shows(states=True, wait=120.0)
TUNNEL = Shows(states=True, streams=True, wait=120.0)
PROGRESS = Shows(progress=True)


def play(display: Display, *happened: Event) -> None:
    for event in happened:
        display.take(event)


# ---- one line


def test_one_line_follows_the_state_and_is_rewritten_in_place(terminal: Terminal) -> None:
    display = terminal.display(TUNNEL)
    play(display, *punching(5.0))
    (row,) = terminal.rows
    assert row.startswith("punching towards 203.0.113.7 on 20 ports, 0:05 of 2:00, no answer")
    play(display, HOLE, SEALED, LINK_UP)
    assert terminal.rows == ["connected to 203.0.113.7:10240 from port 10241, 24.1 ms, sealed, authenticated"]
    play(display, traffic(2.0, 2048, 0))
    assert terminal.rows[0].startswith("up 0:02, connected to 203.0.113.7:10240 from port 10241, 24.1 ms, ")
    assert terminal.rows[0].endswith(", 1 stream, in 2.0 KiB at 1.0 KiB/s, out 0 B at 0 B/s")
    assert len(terminal.rows) == 1
    display.close()
    assert terminal.rows[1:] == [""]


def test_with_stdio_one_line_stays_when_the_hole_is_up_and_nothing_follows(terminal: Terminal) -> None:
    """Behind a pipe there may be ssh or less, and the terminal is theirs."""
    display = terminal.display(STATES)
    play(display, *punching(), HOLE, SEALED, LINK_UP)
    before = terminal.raw
    assert before.endswith("\n")
    play(display, traffic(1.0, 1, 1), RoundTrip(0.1), traffic(2.0, 2, 2), ENDED)
    display.close()
    assert terminal.raw == before
    assert display.traffic_every == 0


def test_the_next_punch_of_k_gets_its_line_again(terminal: Terminal) -> None:
    display = terminal.display(TUNNEL)
    play(display, *punching(), HOLE, LINK_UP, ENDED, PunchingAgain("x"), *punching(), HOLE, LINK_UP)
    assert [row.split()[0] for row in terminal.rows] == ["up", "connected"]


def test_a_message_stands_above_the_line(terminal: Terminal) -> None:
    status = terminal.status(TUNNEL)
    for event in punching():
        status(event)
    status(Warned("look"))
    status(Exited(1, "why"))
    rows = terminal.rows
    assert rows[0] == "punchtunnel: look"
    assert rows[1].startswith("punching towards 203.0.113.7")
    assert rows[2:] == ["punchtunnel: why", ""]


@pytest.mark.parametrize(
    ("event", "words"), [(Unauthenticated(), "not authenticated"), (Unsealed(), "anybody on the way can read")]
)
def test_a_person_and_a_log_are_told_that_nobody_is_authenticated_but_not_with_q(
    event: Event, words: str, terminal: Terminal
) -> None:
    """A log was told nothing: a neighbour had received a whole file, and stderr was empty."""
    terminal.status(TUNNEL)(event)
    assert words in terminal.raw
    for verbosity in (0, -1):
        log = io.StringIO()
        Status(verbosity, Output(log), None, Display(Output(log), log, PROGRESS, wall=lambda: NOON))(event)
        assert (words in log.getvalue()) is (verbosity == 0)


def test_closing_twice_ends_the_line_once(terminal: Terminal) -> None:
    display = terminal.display(STATES)
    play(display, *punching())
    display.close()
    display.close()
    assert terminal.raw.count("\n") == 1


@pytest.mark.parametrize("event", Event.__subclasses__())
@pytest.mark.parametrize("shows", [TUNNEL, STATES, PROGRESS])
def test_any_event_may_be_the_first(event: type[Event], shows: Shows, terminal: Terminal) -> None:
    """The state line of a terminal raised KeyError."""
    status = terminal.status(shows)
    status(sample(event))
    status.close()


def test_a_terminal_that_goes_away_ends_no_transfer(terminal: Terminal) -> None:
    status = terminal.status(TUNNEL)
    for event in punching():
        status(event)
    os.close(terminal.fd)
    for event in (HOLE, LINK_UP, traffic(1.0, 1, 1), ENDED):
        status(event)
    status.close()
    terminal.fd = os.open(os.devnull, os.O_RDONLY)


def test_a_check_clears_its_line_for_what_it_prints_on_stdout(terminal: Terminal) -> None:
    display = terminal.display(STATES)
    play(display, *punching(1.0), HOLE, SEALED, PathMeasured("", "", 0.1, 0.1, 0.1))
    assert terminal.rows == [""]
    play(display, traffic(1.0, 0, 0), ENDED)
    assert terminal.rows == [""]


@pytest.mark.parametrize("shows", [STATES, TUNNEL], ids=["stdio", "-L"])
def test_a_peer_that_only_checks_leaves_no_line(shows: Shows, terminal: Terminal) -> None:
    """It said "connected" for good, with the streams and bytes of a link that never carried any."""
    display = terminal.display(shows)
    play(display, *punching(1.0), HOLE, SEALED, ENDED)
    assert terminal.rows == [""]


def test_while_a_name_is_looked_up_no_ports_are_told(terminal: Terminal) -> None:
    """It said "punching towards  on 0 ports"."""
    display = terminal.display(STATES)
    play(display, Waiting(1.0, dials=0, met=""))
    assert terminal.rows[0].startswith("looking up the peer's address, 0:01")


def test_a_command_alone_is_no_look_up(terminal: Terminal) -> None:
    """It said that an address is looked up, where there is none."""
    display = terminal.display(STATES)
    play(display, ViaStarted(remote="ssh (--via)"), Waiting(1.0, dials=0, met=""))
    assert terminal.rows[0].startswith("waiting for the peer by ssh (--via), 0:01")


def test_a_relay_alone_is_no_look_up_either(terminal: Terminal) -> None:
    display = terminal.display(STATES)
    play(display, Joining(relays="relay.example.org:4001"), Waiting(1.0, dials=0, met=""))
    assert terminal.rows[0].startswith("waiting for the peer at the relay relay.example.org:4001, 0:01")


def test_a_session_that_moves_says_where_to_from_then_on(terminal: Terminal) -> None:
    display = terminal.display(TUNNEL)
    relayed = replace(HOLE, remote="the peer through the relay r:4001")
    play(display, *punching(1.0), relayed, SEALED, LINK_UP, traffic(1.0, 0, 0))
    assert "connected to the peer through the relay r:4001" in terminal.rows[-1]
    play(display, Moved(local="192.0.2.1:10241", remote="203.0.113.7:10240", paused_s=0.01), traffic(2.0, 0, 0))
    assert "connected to 203.0.113.7:10240 from port 10241" in terminal.rows[-1]


def test_the_first_syns_go_before_the_first_line(terminal: Terminal) -> None:
    """Loading rich took 20 ms before the first dial."""
    play(terminal.display(TUNNEL), *punching()[:1])
    assert terminal.raw == ""


# ---- narrow, wide, resized


@pytest.mark.parametrize("columns", [200, 120, 80, 60, 40, 20, 10, 2, 1])
def test_a_line_never_fills_its_row(columns: int, terminal: Terminal) -> None:
    terminal.resize(columns)
    play(terminal.display(TUNNEL), *punching(3.0), HOLE, SEALED, LINK_UP, traffic(1.0, 1 << 30, 1 << 20))
    for part in COLOUR.sub("", terminal.raw).split("\r"):
        assert len(part.replace("\x1b[K", "")) <= max(columns - 1, 1)
    assert len(terminal.rows) == 1


def test_a_narrow_line_keeps_what_matters_most(terminal: Terminal) -> None:
    terminal.resize(60)
    play(terminal.display(TUNNEL), HOLE, SEALED, LINK_UP, traffic(1.0, 2048, 1024))
    assert terminal.rows == ["up 0:01, 24.1 ms, in 2.0 KiB at 2.0 KiB/s, out 1.0 KiB"]


def test_what_does_not_fit_at_all_is_cut_with_an_ellipsis(terminal: Terminal) -> None:
    terminal.resize(20)
    play(terminal.display(TUNNEL), HOLE, SEALED, LINK_UP)
    assert terminal.rows == ["connected to 203.0…"]


def test_a_terminal_without_unicode_gets_no_ellipsis(terminal: Terminal) -> None:
    terminal.stream.reconfigure(encoding="ascii", errors="backslashreplace")
    terminal.resize(20)
    play(terminal.display(TUNNEL), HOLE, SEALED, LINK_UP)
    assert terminal.rows == ["connected to 203.0."]


def test_the_width_is_looked_at_with_every_line(terminal: Terminal) -> None:
    display = terminal.display(TUNNEL)
    play(display, HOLE, SEALED, LINK_UP, traffic(1.0, 2048, 1024))
    wide = terminal.rows[0]
    terminal.resize(60)
    play(display, traffic(2.0, 2048, 1024))
    assert len(terminal.rows[0]) < 60 < len(wide)
    terminal.resize(200)
    play(display, traffic(3.0, 2048, 1024))
    assert len(terminal.rows[0]) > 100


def test_a_terminal_that_does_not_know_its_width_has_80_columns(terminal: Terminal) -> None:
    terminal.resize(0)
    play(terminal.display(TUNNEL), HOLE, SEALED, LINK_UP, traffic(1.0, 2048, 1024))
    assert 40 < len(terminal.rows[0]) < 80


PARTS = st.lists(st.builds(Part, st.text("ab ü漢", max_size=12), st.integers(0, 5)), max_size=8)


@given(PARTS, st.integers(1, 80))
def test_parts_are_left_out_by_rank_and_never_change_their_order(parts: list[Part], width: int) -> None:
    kept = fit(parts, width)
    assert all(part in kept for part in parts if not part.rank)
    assert kept == [part for part in parts if part in kept] or len(set(parts)) < len(parts)
    dropped = [part.rank for part in parts if part not in kept]
    assert not dropped or max((part.rank for part in kept), default=0) <= min(dropped)


# ---- colours, and terminals that can do less


def test_a_terminal_with_colours_shows_what_is_good_and_what_is_not(terminal: Terminal) -> None:
    play(terminal.display(TUNNEL), HOLE, SEALED, LINK_UP)
    assert "\x1b[32msealed, authenticated\x1b[0m" in terminal.raw
    play(terminal.display(TUNNEL), HOLE, LINK_UP)
    assert "\x1b[33mplain\x1b[0m" in terminal.raw


def test_no_color_means_no_colour_and_still_one_line(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    play(terminal.display(TUNNEL), *punching(), HOLE, SEALED, LINK_UP)
    assert not COLOUR.search(terminal.raw)
    assert len(terminal.rows) == 1


@pytest.mark.parametrize("term", ["dumb", "unknown", ""])
def test_a_dumb_terminal_gets_whole_lines_at_changes_of_state(
    term: str, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", term)
    display = terminal.display(TUNNEL)
    play(display, *punching(), *punching(1.0), HOLE, SEALED, LINK_UP, traffic(1.0, 1, 1), traffic(2.0, 1, 1), ENDED)
    display.close()
    assert "\x1b" not in terminal.raw
    assert [row.partition(" t")[0] for row in terminal.rows] == [
        "punchtunnel: punching",
        "punchtunnel: connected",
        "",
    ]


def test_a_dumb_terminal_wraps_no_line(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal.resize(66)
    play(terminal.display(TUNNEL), *punching(), HOLE, SEALED, LINK_UP)
    assert terminal.rows == [
        "punchtunnel: punching towards 203.0.113.7, 0:00 of 2:00, no answer",
        "punchtunnel: connected to 203.0.113.7:10240, 24.1 ms",
        "",
    ]


# ---- the command for the other machine


def test_the_command_for_the_other_machine_is_shown_once_if_nobody_comes(terminal: Terminal) -> None:
    display = terminal.display(Shows(states=True, hint=lambda: "on the other machine: punchtunnel home"))
    play(display, *punching(0.0), *punching(HINT_AFTER / 2))
    assert "other machine" not in terminal.raw
    play(display, *punching(HINT_AFTER), *punching(HINT_AFTER + 1))
    assert terminal.rows[0] == "punchtunnel: on the other machine: punchtunnel home"
    assert terminal.raw.count("other machine") == 1
    assert len(terminal.rows) == 2


def test_the_command_for_the_other_machine_is_not_shown_where_it_would_not_help(terminal: Terminal) -> None:
    """It was shown to a machine without a network, and below the news that the peer has another secret."""
    hint = Shows(states=True, hint=lambda: "on the other machine: punchtunnel home")
    play(terminal.display(hint), PUNCHING, Waiting(5.0, dials=0, met="unreachable"))
    play(terminal.display(hint), Rejected("203.0.113.7:10240", "wrong secret"), *punching(5.0))
    play(terminal.display(hint), *punching(), HOLE, LINK_UP, ENDED, *punching(5.0))
    assert "other machine" not in terminal.raw


# ---- the end of a pipe


@pytest.mark.parametrize(
    ("bytes_in", "bytes_out", "text"),
    [
        (0, 57 * 1024 * 1024, "57.0 MiB delivered in 6 s"),
        (1024, 0, "1.0 KiB received in 6 s"),
        (1024, 2048, "2.0 KiB delivered and 1.0 KiB received in 6 s"),
        (0, 0, "0 B delivered in 6 s"),
    ],
)
def test_a_pipe_ends_with_what_was_delivered(bytes_in: int, bytes_out: int, text: str, terminal: Terminal) -> None:
    display = terminal.display(Shows(states=True, sums=True))
    play(display, *punching(), HOLE, SEALED, LINK_UP, LinkEnded("", 6.2, bytes_in, bytes_out, status=0))
    assert terminal.rows[1:] == [f"punchtunnel: {text}", ""]


def test_what_was_cut_is_not_called_delivered(terminal: Terminal) -> None:
    display = terminal.display(Shows(states=True, sums=True))
    play(display, *punching(), HOLE, SEALED, LINK_UP, LinkEnded("", 6.2, 1024, 0, status=130))
    assert terminal.rows[1:] == [""]


@pytest.mark.parametrize(
    ("bytes_in", "bytes_out", "text"),
    [
        (1024, 0, "cut after 6 s: 1.0 KiB had arrived here"),
        (0, 2048, "cut after 6 s: 2.0 KiB had been sent, of which not all may have arrived"),
        (
            1024,
            2048,
            "cut after 6 s: 1.0 KiB had arrived here, 2.0 KiB had been sent, of which not all may have arrived",
        ),
    ],
)
def test_how_much_had_arrived_is_told_for_each_direction(bytes_in: int, bytes_out: int, text: str) -> None:
    assert ending.cut(6.2, bytes_in, bytes_out) == text


def test_a_lost_hole_is_looked_for_on_the_same_line_and_with_stdio_on_none(terminal: Terminal) -> None:
    """A punch for another hole drew its line over whatever used the terminal by then."""
    lost = Lost(reason="gone", streams=0)
    display = terminal.display(TUNNEL)
    play(display, HOLE, LINK_UP, traffic(2.0, 0, 0), lost)
    assert terminal.rows[0].startswith("reconnecting, 0:00, ")
    play(display, *punching(1.0), traffic(4.0, 0, 0))
    assert len(terminal.rows) == 1
    assert terminal.rows[0].startswith("reconnecting, 0:02, ")
    play(display, LinkEnded("link lost", 5.0, 0, 0, status=1))
    assert terminal.rows[0].startswith("reconnecting, 0:03, ")
    pipe = terminal.display(STATES)
    play(pipe, HOLE, LINK_UP)
    before = terminal.raw
    play(pipe, lost, *punching(1.0))
    assert terminal.raw == before


# ---- --progress


def test_progress_rewrites_its_line_and_the_last_one_stays(terminal: Terminal) -> None:
    display = terminal.display(PROGRESS)
    play(display, *punching(), HOLE, LINK_UP, traffic(1.0, 1024, 0), traffic(2.0, 2048, 0))
    assert terminal.rows == ["0:02, 24.1 ms, in 2.0 KiB at 1.0 KiB/s, average 1.0 KiB/s"]
    play(display, ENDED)
    assert terminal.rows == ["0:04, in 4.0 KiB, average 1.0 KiB/s", ""]
    assert display.traffic_every == LINE_EVERY


def test_progress_in_a_log_is_a_line_now_and_then() -> None:
    log = io.StringIO()
    display = Display(Output(log), log, PROGRESS, wall=lambda: NOON)
    play(display, *punching(), HOLE, LINK_UP, traffic(10.0, 10240, 0), traffic(20.0, 10240, 0), ENDED)
    assert log.getvalue().splitlines() == [
        "punchtunnel: 0:10, 24.1 ms, in 10.0 KiB at 1.0 KiB/s, average 1.0 KiB/s",
        "punchtunnel: 0:20, 24.1 ms, in 10.0 KiB at 0 B/s, average 512 B/s",
        "punchtunnel: 0:04, in 4.0 KiB, average 1.0 KiB/s",
    ]
    assert display.traffic_every == PERIOD


def test_progress_gives_way_to_what_comes_out_of_the_tunnel(terminal: Terminal) -> None:
    """stdout on the same terminal began at the end of the line, and was overwritten by the next one."""
    display = terminal.display(PROGRESS)
    play(display, HOLE, LINK_UP, traffic(1.0, 0, 0))
    display.give_way()
    terminal.stream.write("what the peer has sent\n")
    terminal.stream.flush()
    display.give_way()
    play(display, traffic(2.0, 23, 0), traffic(3.0, 23, 0), ENDED)
    assert terminal.rows == ["what the peer has sent", "punchtunnel: 0:04, in 4.0 KiB, average 1.0 KiB/s", ""]


def test_progress_leaves_a_person_who_types_alone_until_the_end(terminal: Terminal) -> None:
    display = terminal.display(Shows(states=True, progress=True, talks=True))
    play(display, *punching(), HOLE, SEALED, LINK_UP)
    before = terminal.raw
    assert before.endswith("\n")
    play(display, traffic(1.0, 1, 1), traffic(2.0, 2, 2))
    assert terminal.raw == before
    play(display, ENDED)
    assert terminal.rows[1:] == ["punchtunnel: 0:04, in 4.0 KiB, average 1.0 KiB/s", ""]
    assert display.traffic_every == 0


# ---- background jobs

# A shell's part: a session of its own with this terminal, and a job that is
# either in front or not.  Arguments: the terminal, and "front" or "back".
JOB = """
import fcntl, os, signal, sys, termios
from tests.reporting.test_display import *
os.setsid()
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
if os.fork() == 0:
    os.setpgid(0, 0)
    os.dup2(fd, 2)
    if sys.argv[2] == "front":
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        os.tcsetpgrp(fd, os.getpgrp())
    output = Output(sys.stderr)
    shows = Shows(states=True, streams=True, hint=lambda: "a hint")
    status = Status(0, output, None, Display(output, sys.stderr, shows, wall=lambda: NOON))
    for event in (*punching(5.0), HOLE, SEALED, LINK_UP, traffic(1.0, 1, 1), ENDED):
        status(event)
    status(Exited(1, "why"))
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def run_job(terminal: Terminal, place: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", JOB, os.ttyname(terminal.stream.fileno()), place],
        cwd=Path(__file__).parents[2],
        timeout=60,
        check=False,
    )
    assert done.returncode == 0


def test_a_job_in_the_background_writes_only_why_it_failed(terminal: Terminal) -> None:
    run_job(terminal, "back")
    assert terminal.rows == ["punchtunnel: why", ""]
    assert "\x1b" not in terminal.raw


def test_a_job_in_the_foreground_shows_its_line(terminal: Terminal) -> None:
    run_job(terminal, "front")
    assert terminal.rows[0] == "punchtunnel: a hint"
    assert terminal.rows[1].startswith("up 0:04, connected to 203.0.113.7:10240")
    assert terminal.rows[2:] == ["punchtunnel: why", ""]


# ---- what it costs


def loaded_by(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}\nprint(*sorted(sys.modules))"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_rich_is_loaded_for_a_terminal_only() -> None:
    log = (
        "import io\n"
        "from punchtunnel.reporting.display import *\n"
        "from punchtunnel.reporting.events import Traffic\n"
        "log = io.StringIO()\n"
        "display = Display(Output(log), log, Shows(progress=True), lambda: 0.0)\n"
        "display.take(Traffic(1.0, 1, 1, streams=1))\n"
        "assert log.getvalue()\n"
    )
    assert not {name for name in loaded_by(log) if name.startswith("rich")}
