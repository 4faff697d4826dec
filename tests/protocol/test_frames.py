"""Frames on the wire: literal bytes, any split, any garbage."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchtunnel.errors import PeerError
from punchtunnel.protocol.frames import HEADER, MAX_PAYLOAD, MAX_SIZE, Decoder, Flag, Header, Kind, decode_header
from punchtunnel.protocol.offers import MAX_OFFER
from punchtunnel.protocol.service import MAX_SERVICE

NO_FLAG = Flag(0)

# What it means, the header, its bytes.
KNOWN_HEADERS = [
    ("5 bytes on stream 1", Header(Kind.DATA, NO_FLAG, 1, 5), "00 00 0000 00000001 00000005"),
    ("the last data of stream 3", Header(Kind.DATA, Flag.FIN, 3, 1), "00 00 0004 00000003 00000001"),
    ("the largest frame", Header(Kind.DATA, NO_FLAG, 2, MAX_PAYLOAD), "00 00 0000 00000002 00100000"),
    ("256 KiB of credit", Header(Kind.WINDOW, NO_FLAG, 2, 262144), "00 01 0000 00000002 00040000"),
    ("open stream 1", Header(Kind.WINDOW, Flag.SYN, 1, 0), "00 01 0001 00000001 00000000"),
    ("stream 1 is joined", Header(Kind.WINDOW, Flag.ACK, 1, 0), "00 01 0002 00000001 00000000"),
    ("end of stream 1", Header(Kind.WINDOW, Flag.FIN, 1, 0), "00 01 0004 00000001 00000000"),
    ("reset, refused", Header(Kind.WINDOW, Flag.RST, 0xFFFFFFFF, 1), "00 01 0008 ffffffff 00000001"),
    ("are you there?", Header(Kind.PING, Flag.SYN, 0, 0xDEADBEEF), "00 02 0001 00000000 deadbeef"),
    ("yes", Header(Kind.PING, Flag.ACK, 0, 0xDEADBEEF), "00 02 0002 00000000 deadbeef"),
    ("goodbye", Header(Kind.GO_AWAY, NO_FLAG, 0, 0), "00 03 0000 00000000 00000000"),
    ("7 bytes to come", Header(Kind.SIZE, NO_FLAG, 1, 7), "00 04 0000 00000001 00000007"),
    ("5 GiB and 1 byte to come", Header(Kind.SIZE, NO_FLAG, 2, 5 * 2**30 + 1), "00 04 0001 00000002 40000001"),
    ("7 bytes received", Header(Kind.RECEIVED, NO_FLAG, 0, 7), "00 05 0000 00000000 00000007"),
    ("5 GiB and 1 byte received", Header(Kind.RECEIVED, NO_FLAG, 0, 5 * 2**30 + 1), "00 05 0001 00000000 40000001"),
    ("an offer of 16 bytes", Header(Kind.OFFER, NO_FLAG, 0, 16), "00 06 0000 00000000 00000010"),
    ("the longest offer", Header(Kind.OFFER, NO_FLAG, 0, MAX_OFFER), "00 06 0000 00000000 00000150"),
    ("9 bytes received at 258 us", Header(Kind.RECEIVED, NO_FLAG, 258, 9), "00 05 0000 00000102 00000009"),
    ("open stream 1 for ssh", Header(Kind.OPEN, NO_FLAG, 1, 3), "00 07 0000 00000001 00000003"),
    ("256 TiB to come", Header(Kind.SIZE, NO_FLAG, 1, MAX_SIZE), "00 04 ffff 00000001 ffffffff"),
]

BAD_HEADERS = [
    ("version 1", "01 00 0000 00000001 00000000"),
    ("type 8", "00 08 0000 00000001 00000001"),
    ("a service without a name", "00 07 0000 00000001 00000000"),
    ("a service with a name of 64 bytes", "00 07 0000 00000001 00000040"),
    ("a service on no stream", "00 07 0000 00000000 00000003"),
    ("an offer on a stream", "00 06 0000 00000001 00000010"),
    ("an empty offer", "00 06 0000 00000000 00000000"),
    ("an offer that is too long", "00 06 0000 00000000 00000151"),
    ("an offer of 256 TiB", "00 06 ffff 00000000 00000010"),
    ("the size of no stream", "00 04 0000 00000000 00000001"),
    ("a size of another version", "01 04 0000 00000001 00000001"),
    ("type 255", "00 ff 0000 00000000 00000000"),
    ("an unknown flag", "00 01 0010 00000001 00000000"),
    ("all flags", "00 01 ffff 00000001 00000000"),
    ("one byte too many", "00 00 0000 00000001 00100001"),
    ("4 GiB", "00 00 0000 00000001 ffffffff"),
    ("data on no stream", "00 00 0000 00000000 00000001"),
    ("credit for no stream", "00 01 0000 00000000 00000001"),
    ("a ping on a stream", "00 02 0001 00000001 00000000"),
    ("goodbye on a stream", "00 03 0000 00000002 00000000"),
    ("another protocol", "53 53 482d 322e302d 4f70656e"),
]

WITH_BODY = (Kind.OFFER, Kind.OPEN)


def bounded(kind: Kind, length: int) -> int:
    """Return a length that a frame of this kind may have."""
    return length if kind not in WITH_BODY else min(max(length, 1), MAX_SERVICE if kind is Kind.OPEN else MAX_OFFER)


HEADERS = st.builds(
    lambda kind, flags, stream, length: Header(
        kind,
        NO_FLAG if kind in (Kind.SIZE, Kind.RECEIVED, *WITH_BODY) else flags,
        0 if kind in (Kind.PING, Kind.GO_AWAY, Kind.OFFER) else stream,
        length << 40 if kind in (Kind.SIZE, Kind.RECEIVED) else bounded(kind, length),
    ),
    st.sampled_from(Kind),
    st.integers(0, 15).map(Flag),
    st.integers(1, 2**32 - 1),
    st.integers(0, 200),
)
WITH_PAYLOAD = (Kind.DATA, *WITH_BODY)
FRAMES = HEADERS.map(lambda header: header.encode() + (bytes(header.length) if header.kind in WITH_PAYLOAD else b""))
ALMOST_FRAMES = st.tuples(
    st.sampled_from([0, 0, 0, 1]), st.integers(0, 8), st.integers(0, 17), st.integers(0, 3), st.integers(0, 40)
).map(lambda fields: HEADER.pack(*fields))


def decode(pieces: Sequence[bytes]) -> tuple[list[Header | memoryview], bool, Decoder]:
    """Return what the pieces hold, whether an error ended it, and the decoder."""
    decoder = Decoder()
    items: list[Header | memoryview] = []
    try:
        for piece in pieces:
            items += decoder.feed(memoryview(piece))
    except PeerError:
        return items, True, decoder
    return items, False, decoder


def joined(items: Sequence[Header | memoryview]) -> list[Header | bytes]:
    """Join the pieces of each payload."""
    whole: list[Header | bytes] = []
    for item in items:
        if isinstance(item, Header):
            whole += [item, b""]
        else:
            last = whole[-1]
            assert isinstance(last, bytes)
            whole[-1] = last + bytes(item)
    return whole


@pytest.mark.parametrize(("meaning", "header", "raw"), KNOWN_HEADERS)
def test_every_frame_type_has_the_bytes_of_the_protocol_document(meaning: str, header: Header, raw: str) -> None:
    assert header.encode() == bytes.fromhex(raw), meaning
    assert decode_header(bytes.fromhex(raw)) == header, meaning


@pytest.mark.parametrize(("mistake", "raw"), BAD_HEADERS)
def test_a_header_with_a_mistake_is_a_peer_error(mistake: str, raw: str) -> None:
    assert len(bytes.fromhex(raw)) == HEADER.size == 12
    with pytest.raises(PeerError):
        decode_header(bytes.fromhex(raw))


@given(HEADERS)
def test_a_header_is_decoded_from_its_own_bytes(header: Header) -> None:
    assert decode_header(header.encode()) == header


def test_payload_is_a_view_into_the_received_bytes() -> None:
    received = memoryview(Header(Kind.DATA, NO_FLAG, 7, 3).encode() + b"abc")
    _, piece = Decoder().feed(received)
    assert isinstance(piece, memoryview)
    assert bytes(piece) == b"abc"
    assert piece.obj is received.obj


def test_payload_does_not_wait_for_the_whole_frame() -> None:
    decoder = Decoder()
    assert list(decoder.feed(memoryview(Header(Kind.DATA, NO_FLAG, 1, MAX_PAYLOAD).encode())))
    for size in (1, 1000, MAX_PAYLOAD - 1001):
        (piece,) = decoder.feed(memoryview(bytes(size)))
        assert isinstance(piece, memoryview)
        assert len(piece) == size
    assert decoder.between_frames


def test_a_frame_without_payload_is_followed_by_the_next_header() -> None:
    raw = Header(Kind.DATA, Flag.FIN, 1, 0).encode() + Header(Kind.PING, Flag.SYN, 0, 1).encode()
    assert decode([raw])[0] == [Header(Kind.DATA, Flag.FIN, 1, 0), Header(Kind.PING, Flag.SYN, 0, 1)]


@settings(max_examples=200)
@given(frames=st.lists(FRAMES | ALMOST_FRAMES, max_size=6), cuts=st.lists(st.integers(0, 300), max_size=12))
def test_any_split_of_the_stream_gives_the_same_frames(frames: list[bytes], cuts: list[int]) -> None:
    data = b"".join(frames)
    borders = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    whole, whole_failed, one = decode([data])
    pieces, pieces_failed, other = decode([data[start:end] for start, end in pairwise(borders)])
    assert joined(pieces) == joined(whole)
    assert pieces_failed is whole_failed
    assert whole_failed or one.between_frames is other.between_frames


@settings(max_examples=100)
@given(st.lists(FRAMES, max_size=6))
def test_byte_by_byte_gives_the_same_frames(frames: list[bytes]) -> None:
    data = b"".join(frames)
    items, failed, decoder = decode([data[i : i + 1] for i in range(len(data))])
    assert not failed
    assert decoder.between_frames
    assert joined(items) == joined(decode(frames)[0])


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=50) | FRAMES | ALMOST_FRAMES, max_size=8))
def test_garbage_gives_frames_or_peer_error_and_nothing_else(garbage: list[bytes]) -> None:
    items, _, _ = decode(garbage)
    for item in items:
        assert isinstance(item, Header | memoryview)
    held = sum(len(item) if isinstance(item, memoryview) else HEADER.size for item in items)
    assert held <= sum(map(len, garbage))


@pytest.mark.parametrize("cut", range(1, 15))
def test_the_link_may_end_only_between_frames(cut: int) -> None:
    raw = Header(Kind.DATA, NO_FLAG, 1, 3).encode() + b"abc"
    assert not decode([raw[:cut]])[2].between_frames
    assert decode([raw])[2].between_frames
    assert Decoder().between_frames


def test_an_offer_is_told_when_it_is_whole_and_held_apart_from_payload() -> None:
    decoder = Decoder()
    header = Header(Kind.OFFER, NO_FLAG, 0, 5)
    told: list[Header | memoryview] = []
    for byte in header.encode() + b"offer"[:4]:
        told += decoder.feed(memoryview(bytes([byte])))
        assert not decoder.between_frames
    assert (told, decoder.missing) == ([], 0)
    data = Header(Kind.DATA, NO_FLAG, 1, 2).encode() + b"ab"
    told += decoder.feed(memoryview(b"r" + data))
    assert told[0] == header
    assert bytes(decoder.body) == b"offer"
    assert joined(told[1:]) == joined(decode([data])[0])


def test_nothing_received_is_nothing_decoded() -> None:
    assert decode([b"", b""])[0] == []
