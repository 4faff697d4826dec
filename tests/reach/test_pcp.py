"""PCP: the layouts of RFC 6887 as bytes, cut anywhere, and bytes of strangers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.address import Place
from punchtunnel.errors import PeerError
from punchtunnel.reach import pcp

NONCE = bytes(range(12))
# §7.1 and §11.1: the header with the client's address, and a MAP of TCP port 16049.
REQUEST = bytes.fromhex(
    "02 01 0000 00000258 00000000000000000000ffffc0a80702"
    "000102030405060708090a0b 06 000000 3eb1 3eb1 00000000000000000000ffff00000000"
)
# §7.2: the header with result and epoch, and what was granted.
GRANTED = bytes.fromhex(
    "02 81 00 00 00000258 00000e10 000000000000000000000000"
    "000102030405060708090a0b 06 000000 3eb1 0400 00000000000000000000ffffcb007105"
)


def test_a_request_is_the_bytes_of_the_rfc() -> None:
    assert pcp.ask_mapping("192.168.7.2", NONCE, 16049, Place("0.0.0.0", 16049), 600) == REQUEST


def test_a_request_of_ipv6_has_its_addresses_as_they_are() -> None:
    data = pcp.ask_mapping("2001:db8::2", NONCE, 16049, Place("::", 16049), 600)
    assert data[8:24] == bytes.fromhex("20010db8000000000000000000000002")
    assert data[44:] == bytes(16)


def test_an_answer_is_read() -> None:
    assert pcp.read_answer(GRANTED) == pcp.Granted(NONCE, 16049, Place("203.0.113.5", 1024), 600, 3600)
    ipv6 = GRANTED[:44] + bytes.fromhex("20010db8000000000000000000000002")
    assert pcp.read_answer(ipv6) == pcp.Granted(NONCE, 16049, Place("2001:db8::2", 1024), 600, 3600)


def test_the_age_of_the_table_is_asked_for_by_a_header_alone() -> None:
    assert pcp.ask_epoch("192.168.7.2") == b"\2\0" + bytes(6) + REQUEST[8:24]
    assert pcp.read_answer(b"\2\x80\0\0" + GRANTED[4:24]) == pcp.Announced(3600)
    with pytest.raises(PeerError):
        pcp.read_answer(b"\2\x80\0\4" + GRANTED[4:24])


def test_a_refusal_is_told_with_what_it_is_about_if_it_says_so() -> None:
    refused = GRANTED[:3] + bytes([pcp.NOT_AUTHORIZED]) + GRANTED[4:]
    assert pcp.read_answer(refused) == pcp.Refusal(NONCE, 16049, pcp.NOT_AUTHORIZED)
    assert pcp.read_answer(refused[:24]) == pcp.Refusal(b"", 0, pcp.NOT_AUTHORIZED)


def test_an_answer_in_another_version_is_a_refusal_of_ours() -> None:
    assert pcp.read_answer(b"\1" + GRANTED[1:24]) == pcp.Refusal(b"", 0, pcp.UNSUPPORTED_VERSION)


def test_an_answer_that_is_cut_is_none() -> None:
    for size in range(len(GRANTED)):
        with pytest.raises(PeerError):
            pcp.read_answer(GRANTED[:size])


def test_options_behind_it_are_skipped_up_to_the_size_of_a_message() -> None:
    longest = GRANTED + bytes(pcp.MAX_MESSAGE - len(GRANTED))
    assert pcp.read_answer(longest) == pcp.read_answer(GRANTED)
    with pytest.raises(PeerError):
        pcp.read_answer(longest + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        REQUEST,
        b"\0" + GRANTED[1:],
        b"\2\x80\0\2" + GRANTED[4:],
        b"\2\x82" + GRANTED[2:],
        GRANTED[:36] + b"\x11" + GRANTED[37:],
    ],
)
def test_requests_other_opcodes_and_udp_are_no_answers(data: bytes) -> None:
    with pytest.raises(PeerError):
        pcp.read_answer(data)


@given(
    st.binary(max_size=80)
    | st.binary(max_size=80).map(b"\2\x81".__add__)
    | st.binary(min_size=56).map(GRANTED[:4].__add__)
)
def test_garbage_is_an_answer_or_a_peer_error(garbage: bytes) -> None:
    try:
        answer = pcp.read_answer(garbage)
    except PeerError:
        return
    assert isinstance(answer, pcp.Granted | pcp.Announced | pcp.Refusal)
