"""What two sides tell each other through a relay: the bytes of docs/PROTOCOL.md, and what a hostile peer may write."""

from __future__ import annotations

import random

import pytest

from punchtunnel.errors import PeerError
from punchtunnel.protocol.offers import MAX_CANDIDATES, MAX_OFFER, Flag, Offer, Offered, PortUse, Source, decode_offer

HOST = Offered(Source.HOST, "203.0.113.9")
OFFER = Offer(
    7,
    Flag.DIRECT_ONLY,
    2.5,
    PortUse.WINDOW,
    40100,
    40000,
    40511,
    (HOST, Offered(Source.MAPPED, "2001:db8::7", 41641), Offered(Source.OBSERVED, "203.0.113.9", 40100)),
)
BYTES = bytes.fromhex(
    "01 01 0007 000009c4 04 9ca4 9c40 9e3f 03"
    "01 04 0000 cb007109 000000000000000000000000"
    "02 06 a2a9 20010db8000000000000000000000007"
    "03 04 9ca4 cb007109 000000000000000000000000"
)


def test_an_offer_has_these_bytes() -> None:
    assert OFFER.encode() == BYTES
    assert decode_offer(BYTES) == OFFER


def test_an_empty_offer_asks_for_a_try() -> None:
    assert decode_offer(Offer(0).encode()) == Offer(0)


def test_no_more_candidates_than_the_most_are_said() -> None:
    said = Offer(1, candidates=(HOST,) * 40).encode()
    assert len(said) == MAX_OFFER
    assert len(decode_offer(said).candidates) == MAX_CANDIDATES


def test_kinds_and_flags_of_later_versions_are_left_out() -> None:
    later = bytearray(BYTES)
    later[1], later[16] = 0xFF, 9
    assert decode_offer(bytes(later)) == OFFER._replace(candidates=OFFER.candidates[1:])


@pytest.mark.parametrize(("at", "value"), [(16, Source.MAPPED), (36, Source.HOST)])
def test_a_port_that_does_not_fit_the_kind_is_left_out(at: int, value: int) -> None:
    """HOST has no port, and the others have one."""
    odd = bytearray(BYTES)
    odd[at] = value
    assert len(decode_offer(bytes(odd)).candidates) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        BYTES[:15],
        BYTES[:-1],
        BYTES + b"\0",
        b"\2" + BYTES[1:],
        BYTES[:8] + b"\6" + BYTES[9:],
        BYTES[:15] + b"\4" + BYTES[16:],
        BYTES[:15] + bytes([MAX_CANDIDATES + 1]) + bytes(20 * (MAX_CANDIDATES + 1)),
        BYTES[:17] + b"\5" + BYTES[18:],
    ],
    ids=["empty", "head", "cut", "long", "version", "port use", "count", "too many", "IP version"],
)
def test_what_is_no_offer_is_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        decode_offer(data)


def test_any_bytes_are_an_offer_or_refused() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        data = bytearray(BYTES)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            offer = decode_offer(bytes(data))
        except PeerError:
            continue
        assert decode_offer(offer.encode()) == offer._replace(waited=decode_offer(offer.encode()).waited)
