"""The words for the state of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from punchtunnel.punching.diagnosis import Cause
from punchtunnel.reporting import line
from punchtunnel.reporting.display import fit
from punchtunnel.reporting.events import Announced, Event, LinkEnded, Lost, Resumed, RoundTrip, Waiting
from punchtunnel.reporting.line import Part
from punchtunnel.reporting.state import State
from punchtunnel.words import reach

from .runs import HOLE, MIB, NOON, PUNCHING, SEALED, punching, told, traffic


def text_of(parts: list[Part]) -> str:
    return line.joined(parts)


def waiting(met: str, wait: float = 120.0, synchronised: bool | None = True) -> str:
    state = told(PUNCHING, Waiting(62.0, dials=3, met=met))
    return text_of(line.punching(state, wait, NOON, synchronised))


def test_while_punching_it_says_where_to_for_how_long_and_what_the_dials_meet() -> None:
    assert waiting("refused") == "punching towards 203.0.113.7 on 20 ports, 1:02 of 2:00, all refused"
    assert waiting("silent", wait=0.0) == "punching towards 203.0.113.7 on 20 ports, 1:02, no answer"
    assert waiting("partly_refused").endswith(", some refused")
    assert waiting("unreachable").endswith(", no route")
    # Nothing is known yet.
    assert waiting("").endswith(", 1:02 of 2:00")


def test_there_are_words_for_everything_that_dials_can_meet() -> None:
    assert {*Cause, reach.PARTLY_REFUSED, reach.REJECTED} == reach.MET.keys()
    assert all(waiting(met).endswith(f", {text}") for met, text in reach.MET.items())


@pytest.mark.parametrize(
    ("met", "synchronised", "end"),
    [
        ("silent", True, "no answer"),
        ("silent", False, "no answer, clock not synchronised, it is 12:34:56 UTC here"),
        ("refused", None, "all refused, it is 12:34:56 UTC here"),
        # No clock is to blame for these.
        ("unreachable", False, "no route"),
        ("mute", None, "another program answers"),
    ],
)
def test_the_clock_is_shown_only_where_it_may_be_the_reason(met: str, synchronised: bool | None, end: str) -> None:
    assert waiting(met, synchronised=synchronised).endswith(f" of 2:00, {end}")


def test_a_narrow_line_says_what_is_met_before_what_the_clock_says() -> None:
    state = told(PUNCHING, Waiting(62.0, dials=3, met="refused"))
    parts = line.punching(state, 120.0, NOON, False)
    assert text_of(fit(parts, 79)) == "punching towards 203.0.113.7, 1:02 of 2:00, all refused, clock not synchronised"
    assert text_of(fit(parts, 39)) == "203.0.113.7, 1:02, all refused"


def test_a_tunnel_says_where_to_how_far_how_safe_and_how_much() -> None:
    state = told(*punching(), HOLE, SEALED, traffic(2.0, 3 * MIB, 2048, streams=3))
    assert text_of(line.traffic(state)) == (
        "up 0:02, connected to 203.0.113.7:10240 from port 10241, 24.1 ms, sealed, authenticated, 3 streams, "
        "in 3.0 MiB at 1.5 MiB/s, out 2.0 KiB at 1.0 KiB/s"
    )
    state.take(traffic(2.0, 3 * MIB, 2048, streams=1))
    assert ", 1 stream, " in text_of(line.traffic(state))


# As wide as numbers become.
MOST = 1023 * MIB


def test_80_columns_have_time_round_trip_bytes_and_rates_however_large_and_40_the_bytes() -> None:
    """At 80 columns the rates, and what was sent, were missing; at 40 there was no byte."""
    far = replace(HOLE, remote="[2001:db8:1111:2222:3333:4444:5555:6666]:10240", rtt_s=1.234)
    state = told(far, SEALED, traffic(0.0, 0, 0), traffic(359999.0, MOST, MOST, streams=100))
    state.inward.rate = state.outward.rate = 1023 * 1024
    assert text_of(fit(line.traffic(state), 79)) == (
        "up 99:59:59, 1234 ms, in 1023 MiB at 1023 KiB/s, out 1023 MiB at 1023 KiB/s"
    )
    assert text_of(fit(line.traffic(state), 39)) == "up 99:59:59, in 1023 MiB, out 1023 MiB"
    assert text_of(fit(line.progress(state, over=False), 79)) == (
        "99:59:59, 1234 ms, out 1023 MiB at 1023 KiB/s, in 1023 MiB at 1023 KiB/s"
    )
    assert text_of(fit(line.progress(state, over=False), 39)) == "99:59:59, out 1023 MiB, in 1023 MiB"


def test_a_session_without_a_hole_is_not_called_up() -> None:
    """It read "connected to" while the peer was looked for."""
    state = told(HOLE, SEALED, traffic(2.0, MIB, 0), Lost(reason="", streams=1), traffic(7.0, MIB, 0))
    assert text_of(line.traffic(state)).startswith(
        "reconnecting, 0:05, sealed, authenticated, 1 stream, in 1.0 MiB at "
    )
    assert text_of(line.progress(state, over=False)).startswith("0:07, reconnecting, 0:05, in 1.0 MiB at ")
    state.take(Resumed(local="192.0.2.1:10242", remote="203.0.113.7:10241", lost_s=5.0))
    assert text_of(line.traffic(state)).startswith("up 0:07, connected to 203.0.113.7:10241 from port 10242, ")


def test_a_service_is_up_as_long_as_one_session_has_a_hole() -> None:
    events: list[Event] = [traffic(2.0, MIB, 0), traffic(3.0, MIB, 0), Lost(reason="", streams=0)]
    for number, event in zip((1, 2, 2), events, strict=True):
        event.belong(number)
    assert text_of(line.traffic(told(HOLE, *events))).startswith("up 0:03")
    lost = Lost(reason="", streams=0)
    lost.belong(1)
    assert text_of(line.traffic(told(HOLE, *events, lost))).startswith("reconnecting, 0:00")


def test_a_lost_hole_is_counted_by_the_clock_of_its_own_session() -> None:
    """A session of an hour that ended gave another one's loss its own time: "0:00" after 40 s."""
    old, young = traffic(3600.0, MIB, 0), traffic(60.0, MIB, 0)
    lost = Lost(reason="", streams=0), Lost(reason="", streams=0)
    later, over = traffic(100.0, MIB, 0), LinkEnded(reason="", elapsed_s=3640.0, bytes_in=0, bytes_out=0, status=0)
    for number, event in ((1, old), (2, young), (1, lost[0]), (2, lost[1]), (2, later), (1, over)):
        event.belong(number)
    state = told(HOLE, old, young, *lost, later, over)
    assert text_of(line.traffic(state)).startswith("reconnecting, 0:40")


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
    assert progress(traffic(27.0, 0, 27 * MIB)) == "0:27, 24.1 ms, out 27.0 MiB at 1.0 MiB/s, average 1.0 MiB/s"
    assert progress(traffic(27.0, 27 * MIB, 0)) == "0:27, 24.1 ms, in 27.0 MiB at 1.0 MiB/s, average 1.0 MiB/s"
    assert progress() == "0:00, 24.1 ms, 0 B"


def test_progress_knows_how_much_is_left_when_the_size_is_known() -> None:
    announced = Announced("in", 100 * MIB)
    assert progress(announced, traffic(25.0, 25 * MIB, 0)) == (
        "0:25, 24.1 ms, in 25.0 MiB at 1.0 MiB/s, average 1.0 MiB/s, 25 %, 1:15 left"
    )
    assert progress(announced, traffic(100.0, 100 * MIB, 0), over=True) == (
        "1:40, in 100 MiB, average 1.0 MiB/s, 100 %"
    )
    # A file that has grown meanwhile.
    assert progress(announced, traffic(200.0, 200 * MIB, 0), over=True).endswith(", 100 %")
    assert progress(announced).endswith("in 0 B at 0 B/s, average 0 B/s, 0 %")


def test_progress_shows_both_directions_when_both_are_used() -> None:
    text = progress(Announced("out", 1024), traffic(1.0, 512, 256), RoundTrip(0.1), over=True)
    assert text == "0:01, out 256 B, average 256 B/s, 25 %, in 512 B, average 512 B/s"
