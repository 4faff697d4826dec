"""Bytes, rates and times as a person reads them."""

from __future__ import annotations

import pytest

from punchtunnel.words import quantities


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (1024**2, "1.0 MiB"),
        (99.9 * 1024**2, "99.9 MiB"),
        (99.96 * 1024**2, "100 MiB"),
        (1023.6 * 1024**2, "1.0 GiB"),
        (1024**3 * 2.5, "2.5 GiB"),
        (1024**4 * 1.25, "1.2 TiB"),
        (1024**5, "1024 TiB"),
    ],
)
def test_sizes_are_read_by_people(count: float, text: str) -> None:
    assert quantities.size(count) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.9, "0:00"), (59.9, "0:59"), (60, "1:00"), (3661, "1:01:01")])
def test_durations_are_those_of_a_stopwatch(seconds: float, text: str) -> None:
    assert quantities.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.01 s"), (0.04, "0.04 s"), (0.3, "0.3 s"), (6.2, "6 s"), (59.6, "1:00"), (3661.0, "1:01:01")],
)
def test_a_span_is_told_in_a_sentence(seconds: float, text: str) -> None:
    assert quantities.span(seconds) == text


@pytest.mark.parametrize(("t", "text"), [(0, "00:00:00"), (86399.9, "23:59:59"), (1_789_043_696, "12:34:56")])
def test_times_are_utc(t: float, text: str) -> None:
    assert quantities.utc(t) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0241, "24.1 ms"), (0.00004, "0.04 ms"), (0.12345, "123 ms"), (1.5, "1500 ms")]
)
def test_round_trips_keep_two_digits(seconds: float, text: str) -> None:
    assert quantities.milliseconds(seconds) == text
