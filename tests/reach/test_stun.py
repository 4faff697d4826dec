"""STUN over TCP: the samples of RFC 5769, any split, and bytes of strangers."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.address import Place
from punchtunnel.errors import PeerError
from punchtunnel.reach import stun

# RFC 5769 §2.2 and §2.3.
TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9fa"
    "a5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
SAMPLES = {IPV4: Place("192.0.2.1", 32853), IPV6: Place("2001:db8:1234:5678:11:2233:4455:6677", 32853)}


def message(kind: int, *attributes: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("!HH", name, len(value)) + value + bytes(-len(value) % 4) for name, value in attributes)
    return struct.pack("!HHI", kind, len(body), stun.MAGIC_COOKIE) + TRANSACTION + body


def test_request_is_twenty_bytes_with_the_cookie_and_the_transaction() -> None:
    assert stun.request(TRANSACTION) == bytes.fromhex("000100002112a442") + TRANSACTION


@pytest.mark.parametrize(("sample", "seen"), SAMPLES.items(), ids=["IPv4", "IPv6"])
def test_samples_of_rfc_5769_are_read(sample: bytes, seen: Place) -> None:
    assert stun.read_answer(sample, TRANSACTION) == stun.Answer(seen)


@pytest.mark.parametrize("sample", SAMPLES)
def test_an_answer_is_read_when_it_is_whole_and_not_before(sample: bytes) -> None:
    for size in range(len(sample)):
        assert stun.read_answer(sample[:size], TRANSACTION) is None
    assert stun.read_answer(sample + b"more", TRANSACTION) is not None


def test_a_plain_address_and_the_servers_other_one_are_read() -> None:
    mapped = 0x0001, b"\0\1" + struct.pack("!H", 4711) + bytes([192, 0, 2, 7])
    other = 0x802C, b"\0\1" + struct.pack("!H", 3479) + bytes([192, 0, 2, 8])
    answer = stun.read_answer(message(0x0101, mapped, other), TRANSACTION)
    assert answer == stun.Answer(Place("192.0.2.7", 4711), Place("192.0.2.8", 3479))


def test_of_two_addresses_of_one_kind_the_first_counts() -> None:
    first, second = ((0x0001, b"\0\1\0\1" + bytes([192, 0, 2, number])) for number in (7, 8))
    answer = stun.read_answer(message(0x0101, first, second), TRANSACTION)
    assert answer == stun.Answer(Place("192.0.2.7", 1))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "no STUN server"),
        (IPV4[:8] + bytes(12) + IPV4[20:], "no STUN server"),
        (IPV4[:2] + b"\xff\xfc" + IPV4[4:], "no STUN server"),
        (message(0x0101), "does not say"),
        (message(0x0101, (0x0020, b"\0\3\0\1" + bytes(4))), "unknown family"),
        (message(0x0101, (0x0020, b"\0\1\0\1" + bytes(5))), "unknown family"),
        (message(0x0101, (0x0020, b"")), "unknown family"),
        (message(0x0101)[:2] + b"\0\4" + message(0x0101)[4:] + b"\x80\x22\0\x09", "cut short"),
        (message(0x0111, (0x0009, b"\0\0\4\1Unauthorized\n\x1b[2J")), "401 Unauthorized[2J"),
        (message(0x0111), "refuses"),
        (message(0x0001), "refuses"),
    ],
)
def test_what_is_no_answer_is_an_error_with_a_reason(data: bytes, why: str) -> None:
    with pytest.raises(PeerError) as raised:
        stun.read_answer(data, TRANSACTION)
    assert why in str(raised.value)
    assert str(raised.value).isprintable()


@given(st.binary(max_size=200) | st.binary(max_size=200).map((message(0x0101)[:2] + b"\0\x40" + IPV4[4:20]).__add__))
def test_garbage_is_no_answer_yet_or_an_address_or_a_peer_error(garbage: bytes) -> None:
    try:
        answer = stun.read_answer(garbage, TRANSACTION)
    except PeerError:
        return
    assert answer is None or 0 <= answer.seen.port <= 65535


def test_no_more_is_waited_for_than_an_answer_may_have() -> None:
    longest = message(0x0101, (0x8022, bytes(stun.MAX_ANSWER - 4)))
    assert stun.read_answer(longest[:-1], TRANSACTION) is None
    with pytest.raises(PeerError):
        stun.read_answer(message(0x0101, (0x8022, bytes(stun.MAX_ANSWER)))[:20], TRANSACTION)
