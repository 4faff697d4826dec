"""NAT-PMP: the layouts of RFC 6886 as bytes, cut anywhere, and bytes of strangers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.errors import PeerError
from punchtunnel.reach import natpmp

# §3.2 and §3.3: version, opcode, result, epoch, and then the address, or own port, external port and lifetime.
SEEN = bytes.fromhex("00 80 0000 00000e10 cb007105")
MAPPED = bytes.fromhex("00 82 0000 00000e10 3eb1 0400 00000258")


def test_requests_are_the_bytes_of_the_rfc() -> None:
    assert natpmp.ask_address() == bytes.fromhex("00 00")
    assert natpmp.ask_mapping(16049, 1024, 600) == bytes.fromhex("00 02 0000 3eb1 0400 00000258")


def test_a_deletion_has_external_port_0_and_lifetime_0() -> None:
    assert natpmp.ask_mapping(16049, 1024, 0) == bytes.fromhex("00 02 0000 3eb1 0000 00000000")


def test_answers_are_read() -> None:
    assert natpmp.read_answer(SEEN) == natpmp.Seen("203.0.113.5", 3600)
    assert natpmp.read_answer(MAPPED) == natpmp.Mapped(16049, 1024, 600, 3600)


@pytest.mark.parametrize(
    ("answer", "refusal"),
    [
        # To a MAP of PCP's, as a router answers that knows no other version.
        ("00 81 0001 00000e10", natpmp.Refusal(1, natpmp.UNSUPPORTED_VERSION)),
        ("00 82 0002 00000e10 3eb1 0000 00000000", natpmp.Refusal(2, natpmp.NOT_AUTHORIZED)),
        ("00 80 0003 00000e10 00000000", natpmp.Refusal(0, natpmp.NETWORK_FAILURE)),
    ],
)
def test_a_refusal_is_told_with_its_opcode_also_when_it_ends_early(answer: str, refusal: natpmp.Refusal) -> None:
    assert natpmp.read_answer(bytes.fromhex(answer)) == refusal


@pytest.mark.parametrize("whole", [SEEN, MAPPED])
def test_an_answer_that_is_cut_is_none(whole: bytes) -> None:
    for size in range(len(whole)):
        with pytest.raises(PeerError):
            natpmp.read_answer(whole[:size])


@pytest.mark.parametrize("data", [b"\2" + MAPPED[1:], b"\0\2" + MAPPED[2:], b"\0\x81" + MAPPED[2:]])
def test_another_version_a_request_and_an_unknown_opcode_are_no_answers(data: bytes) -> None:
    with pytest.raises(PeerError):
        natpmp.read_answer(data)


@given(
    st.binary(max_size=40) | st.binary(max_size=40).map(SEEN[:4].__add__) | st.binary(max_size=40).map(b"\0".__add__)
)
def test_garbage_is_an_answer_or_a_peer_error(garbage: bytes) -> None:
    try:
        answer = natpmp.read_answer(garbage)
    except PeerError:
        return
    assert isinstance(answer, natpmp.Seen | natpmp.Mapped | natpmp.Refusal)
