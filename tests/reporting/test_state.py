"""A run as its events tell it, and the words for it: no clock, no terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from punchtunnel.reporting import line
from punchtunnel.reporting.events import Announced, Event, HoleOpened, Punching, RoundTrip, Sealed, Traffic, Waiting
from punchtunnel.reporting.line import Part
from punchtunnel.reporting.state import RATE_SPAN, State
from punchtunnel.words import quantities

MIB = 1024 * 1024
# 12:34:56 UTC of some day.
NOON = 1_789_000_000 // 86400 * 86400 + 45296.0


def told(*happened: Event) -> State:
    state = State()
    for event in happened:
        state.take(event)
    return state


def punching(waited: float = 0.0) -> list[Event]:
    return [Punching("203.0.113.7", 20, [10240]), Waiting(waited, dials=3)]


HOLE = HoleOpened("192.0.2.1:10241", "203.0.113.7:10240", 0.0241, "-L", leads=True, waited_s=0.1, dials=3)
SEALED = Sealed(authenticated=True, verifier="aaaa")


def traffic(elapsed: float, bytes_in: int, bytes_out: int, streams: int = 1) -> Traffic:
    return Traffic(elapsed, bytes_in, bytes_out, streams)


# ---- what is known


def test_rates_are_of_the_last_seconds_and_averages_of_all() -> None:
    state = told(HOLE, *(traffic(float(second), second * MIB, 0) for second in range(100)))
    assert (state.inward.rate, state.inward.average) == (MIB, MIB)
    for second in range(100, 110):
        state.take(traffic(float(second), 99 * MIB, 10 * MIB))
    assert state.inward.rate == 0.0
    assert state.inward.average == pytest.approx(99 * MIB / 109)
    assert state.outward.average == pytest.approx(10 * MIB / 109)


@pytest.mark.parametrize("step", [0.5, RATE_SPAN, 10.0])
def test_a_rate_is_right_however_seldom_it_is_asked_for(step: float) -> None:
    state = told(HOLE, *(traffic(count * step, int(count * step * 1000), 0) for count in range(20)))
    assert state.inward.rate == pytest.approx(1000)


def test_nothing_is_divided_by_no_time() -> None:
    state = told(HOLE, traffic(0.0, 5, 5), traffic(0.0, 5, 5))
    assert (state.inward.rate, state.inward.average, state.inward.seconds_left) == (0.0, 0.0, None)


def test_the_round_trip_is_the_smallest_that_was_seen() -> None:
    """The first ping of a peer that was still loading its loop read 127 ms on loopback."""
    state = told(HOLE, RoundTrip(0.127))
    assert state.rtt_s == 0.0241
    state.take(RoundTrip(0.02))
    assert state.rtt_s == 0.02


def test_another_hole_begins_from_nothing() -> None:
    state = told(*punching(3.0), HOLE, SEALED, traffic(5.0, 7, 8, streams=3), RoundTrip(0.001))
    state.take(replace(HOLE, rtt_s=None))
    fresh = told(*punching(3.0), replace(HOLE, rtt_s=None))
    assert state == fresh
    assert (state.sealed, state.rtt_s, state.streams, state.inward.size) == (False, None, 0, 0)


# ---- the words


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


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (1024**2, "1.0 MiB"),
        (1024**3 * 2.5, "2.5 GiB"),
        (1024**4 * 1.25, "1.2 TiB"),
        (1024**5, "1024.0 TiB"),
    ],
)
def test_sizes_are_read_by_people(count: float, text: str) -> None:
    assert quantities.size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.9, "0:00"), (59.9, "0:59"), (60, "1:00"), (3661, "1:01:01")])
def test_durations_are_those_of_a_stopwatch(seconds: float, text: str) -> None:
    assert quantities.duration(seconds) == text


@pytest.mark.parametrize(("t", "text"), [(0, "00:00:00"), (86399.9, "23:59:59"), (NOON, "12:34:56")])
def test_times_are_utc(t: float, text: str) -> None:
    assert quantities.utc(t) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.0241, "24.1 ms"), (0.00004, "0.04 ms"), (1.5, "1500.0 ms")])
def test_round_trips_keep_two_digits(seconds: float, text: str) -> None:
    assert quantities.milliseconds(seconds) == text
