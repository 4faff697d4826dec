"""One question to an NTP server: the arithmetic, both eras, and bytes of strangers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.doctor import sntp
from punchtunnel.errors import PeerError

COOKIE = b"question"
# In November 2026, and in 2040, when NTP's second era has begun.
TIMES = (1795264454.25, 2208988800.5)


def answer(arrived: float, left: float, stratum: int = 2, first: int = 0x24, cookie: bytes = COOKIE) -> bytes:
    stamps = [int((time + 2208988800) * 2**32) % 2**64 for time in (arrived, left)]
    return bytes([first, stratum]) + bytes(22) + cookie + struct.pack("!2Q", *stamps)


def test_question_is_48_bytes_of_a_client_of_version_4_and_the_cookie() -> None:
    assert sntp.request(COOKIE) == b"\x23" + bytes(39) + COOKIE


@pytest.mark.parametrize("now", TIMES)
@pytest.mark.parametrize("offset", [0.0, 0.25, -30.0, 3600.0])
def test_offset_and_delay_come_from_four_times(now: float, offset: float) -> None:
    # 40 ms there, 10 ms in the server, 40 ms back.
    data = answer(now + offset + 0.04, now + offset + 0.05)
    sample = sntp.read_answer(data, COOKIE, now, now + 0.09)
    assert sample.offset_s == pytest.approx(offset, abs=1e-6)
    assert sample.delay_s == pytest.approx(0.08, abs=1e-6)
    assert sample.stratum == 2


def test_a_way_back_that_takes_longer_shows_as_half_the_difference_and_within_half_the_delay() -> None:
    now = TIMES[0]
    sample = sntp.read_answer(answer(now + 0.01, now + 0.01), COOKIE, now, now + 0.11)
    assert sample.offset_s == pytest.approx(-0.045, abs=1e-6)
    assert abs(sample.offset_s) <= sample.delay_s / 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        answer(TIMES[0], TIMES[0])[:47],
        answer(TIMES[0], TIMES[0], cookie=b"another!"),
        # A client's question, unsynchronised, a kiss of death, and a stratum that means "no time".
        answer(TIMES[0], TIMES[0], first=0x23),
        answer(TIMES[0], TIMES[0], first=0xE4),
        answer(TIMES[0], TIMES[0], stratum=0),
        answer(TIMES[0], TIMES[0], stratum=16),
        answer(TIMES[0], -2208988800.0),
    ],
)
def test_what_is_no_answer_or_has_no_time_is_a_peer_error(data: bytes) -> None:
    with pytest.raises(PeerError):
        sntp.read_answer(data, COOKIE, TIMES[0], TIMES[0])


@given(st.binary(max_size=60).map((b"\x24\x02" + bytes(22) + COOKIE).__add__) | st.binary(max_size=60))
def test_garbage_is_a_sample_or_a_peer_error(garbage: bytes) -> None:
    try:
        sample = sntp.read_answer(garbage, COOKIE, TIMES[0], TIMES[0] + 0.1)
    except PeerError:
        return
    # Whatever is said, the nearest era is meant.
    assert abs(sample.offset_s) <= 2**31 + 1
    assert sample.delay_s >= 0
