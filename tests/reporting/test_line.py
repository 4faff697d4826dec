"""The words for the state of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from punchtunnel.reporting import line
from punchtunnel.reporting.events import Announced, Event, RoundTrip
from punchtunnel.reporting.line import Part
from punchtunnel.reporting.state import State

from .runs import HOLE, MIB, NOON, SEALED, punching, told, traffic


def text_of(parts: list[Part]) -> str:
    return line.joined(parts)


def test_while_punching_it_says_where_to_since_when_and_which_time_it_is_here() -> None:
    state = told(*punching(62.0))
    assert text_of(line.punching(state, NOON, None)) == (
        "punching towards 203.0.113.7 on 20 ports since 12:33:54 (1:02), it is 12:34:56 UTC here"
    )
    clock = line.clock_check(True, 12.4)
    assert text_of(line.punching(state, NOON, clock)).endswith(" UTC here, clock synchronised to 12 ms")


@pytest.mark.parametrize(
    ("synchronised", "error_ms", "text", "tone"),
    [
        (True, 3.2, "clock synchronised to 3 ms", "good"),
        (False, None, "clock not synchronised", "bad"),
    ],
)
def test_the_clock_is_what_the_kernel_says(synchronised: bool, error_ms: float | None, text: str, tone: str) -> None:
    part = line.clock_check(synchronised, error_ms)
    assert part is not None
    assert (part.text, part.tone) == (text, tone)
    assert line.clock_check(None, None) is None


def test_a_tunnel_says_where_to_how_far_how_safe_and_how_much() -> None:
    state = told(*punching(), HOLE, SEALED, traffic(2.0, 3 * MIB, 2048, streams=3))
    assert text_of(line.traffic(state)) == (
        "connected to 203.0.113.7:10240 from port 10241, 24.1 ms, sealed, authenticated, 3 streams, "
        "in 3.0 MiB at 1.5 MiB/s, out 2.0 KiB at 1.0 KiB/s"
    )
    state.take(traffic(2.0, 3 * MIB, 2048, streams=1))
    assert ", 1 stream, " in text_of(line.traffic(state))


def test_an_ipv6_hole_is_shown_with_its_ports() -> None:
    state = told(replace(HOLE, local="[2001:db8::1]:10241", remote="[2001:db8::7]:10240", rtt_s=None))
    assert text_of(line.connected(state)) == "connected to [2001:db8::7]:10240 from port 10241, plain"


def test_a_hole_through_a_command_has_no_port() -> None:
    state = State(local="this machine", remote="ssh (--via)")
    assert text_of(line.connected(state)) == "connected to ssh (--via), plain"
    path = line.path(state.local, state.remote, line.security(True, True), 0.1, 0.2, 0.3)
    assert path.startswith("connected to ssh (--via), sealed, authenticated; round trip ")


@pytest.mark.parametrize(
    ("sealed", "authenticated", "text", "tone"),
    [
        (True, True, "sealed, authenticated", "good"),
        (True, False, "sealed, not authenticated", "bad"),
        (False, False, "plain", "bad"),
    ],
)
def test_how_safe_it_is_is_said_and_coloured(sealed: bool, authenticated: bool, text: str, tone: str) -> None:
    part = line.security(sealed, authenticated)
    assert (part.text, part.tone) == (text, tone)


def progress(*happened: Event, over: bool = False) -> str:
    return text_of(line.progress(told(HOLE, *happened), over))


def test_progress_says_bytes_rate_average_and_time() -> None:
    assert progress(traffic(27.0, 0, 27 * MIB)) == "0:27, out 27.0 MiB at 1.0 MiB/s, average 1.0 MiB/s"
    assert progress(traffic(27.0, 27 * MIB, 0)) == "0:27, in 27.0 MiB at 1.0 MiB/s, average 1.0 MiB/s"
    assert progress() == "0:00, 0 B"


def test_progress_knows_how_much_is_left_when_the_size_is_known() -> None:
    announced = Announced("in", 100 * MIB)
    assert progress(announced, traffic(25.0, 25 * MIB, 0)) == (
        "0:25, in 25.0 MiB at 1.0 MiB/s, average 1.0 MiB/s, 25 %, 1:15 left"
    )
    assert progress(announced, traffic(100.0, 100 * MIB, 0), over=True) == (
        "1:40, in 100.0 MiB, average 1.0 MiB/s, 100 %"
    )
    # A file that has grown meanwhile.
    assert progress(announced, traffic(200.0, 200 * MIB, 0), over=True).endswith(", 100 %")
    assert progress(announced).endswith("in 0 B at 0 B/s, average 0 B/s, 0 %")


def test_progress_shows_both_directions_when_both_are_used() -> None:
    text = progress(Announced("out", 1024), traffic(1.0, 512, 256), RoundTrip(0.1), over=True)
    assert text == "0:01, out 256 B, average 256 B/s, 25 %, in 512 B, average 512 B/s"
