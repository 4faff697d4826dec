"""Records that nobody can change unnoticed, cut, repeat or move."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchtunnel.errors import PeerError
from punchtunnel.protocol import records as module
from punchtunnel.protocol.records import HEADER, MAX_PLAINTEXT, MAX_RECORD, OVERHEAD, Opener, Sealer

from .test_agreement import VECTORS

BOTH = pytest.mark.parametrize("hardware_aes", [True, False], ids=["AES-256-GCM", "ChaCha20-Poly1305"])
KEY = bytes(range(32))


def sealed(sealer: Sealer, plaintext: bytes) -> bytes:
    record = memoryview(bytearray(len(plaintext) + OVERHEAD))
    size = sealer.seal_into(memoryview(plaintext), record)
    assert size == len(record)
    return bytes(record)


def opened(opener: Opener, stream: bytes) -> tuple[list[bytes], bool]:
    """Open records as link.py does; return what was delivered, and whether it ended with PeerError."""
    delivered: list[bytes] = []
    view = memoryview(stream)
    try:
        while len(view) >= OVERHEAD:
            size = opener.record_size(view[: HEADER.size])
            if len(view) < size:
                break
            delivered.append(bytes(opener.open(view[:size])))
            view = view[size:]
    except PeerError:
        return delivered, True
    return delivered, False


@BOTH
def test_first_two_records_of_the_vectors(hardware_aes: bool) -> None:
    name = "AES-256-GCM" if hardware_aes else "ChaCha20-Poly1305"
    sealer = Sealer(bytes.fromhex(VECTORS["key to the follower"]), hardware_aes)
    assert sealed(sealer, b"hello").hex() == VECTORS[f"{name}, record 0, hello"]
    assert sealed(sealer, b"").hex() == VECTORS[f"{name}, record 1, empty"]


def test_sizes_are_those_of_the_protocol_document() -> None:
    assert (OVERHEAD, MAX_PLAINTEXT) == (20, 524288)
    assert module.REKEY_AFTER == 2**36


PLAINTEXTS = [b"one", b"", b"three is longer", b"4"]


def records(hardware_aes: bool, plaintexts: Sequence[bytes] = PLAINTEXTS) -> list[bytes]:
    sealer = Sealer(KEY, hardware_aes)
    return [sealed(sealer, plaintext) for plaintext in plaintexts]


# Ends the wait for a record that a changed header makes longer.
FILLER = bytes(MAX_RECORD)


def assert_ends_with(stream: bytes, delivered: Sequence[bytes], hardware_aes: bool) -> None:
    assert opened(Opener(KEY, hardware_aes), stream + FILLER) == (list(delivered), True)


@BOTH
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000, 65536, MAX_PLAINTEXT - 1, MAX_PLAINTEXT])
def test_records_of_any_size_come_out_as_they_went_in(hardware_aes: bool, size: int) -> None:
    plaintexts = [os.urandom(size), os.urandom(size), b"end"]
    stream = b"".join(records(hardware_aes, plaintexts))
    assert opened(Opener(KEY, hardware_aes), stream) == (plaintexts, False)
    assert size < 8 or plaintexts[0] not in stream


@given(plaintexts=st.lists(st.binary(max_size=300), max_size=8), hardware_aes=st.booleans())
def test_any_records_come_out_in_order(plaintexts: list[bytes], hardware_aes: bool) -> None:
    stream = b"".join(records(hardware_aes, plaintexts))
    assert opened(Opener(KEY, hardware_aes), stream) == (plaintexts, False)


def test_a_record_is_a_header_the_ciphertext_and_a_tag() -> None:
    (record,) = records(True, [b"hello"])
    assert record[:4] == bytes.fromhex("01 00 00 05")
    assert len(record) == 4 + 5 + 16


def test_equal_plaintexts_give_different_records() -> None:
    stream = records(True, [b"same"] * 50)
    assert len(set(stream)) == 50


@BOTH
def test_one_flipped_bit_anywhere_ends_the_stream_and_delivers_a_prefix(hardware_aes: bool) -> None:
    stream = records(hardware_aes)
    for index, record in enumerate(stream):
        for bit in range(len(record) * 8):
            changed = bytearray(record)
            changed[bit // 8] ^= 1 << bit % 8
            tampered = [*stream[:index], bytes(changed), *stream[index + 1 :]]
            assert_ends_with(b"".join(tampered), PLAINTEXTS[:index], hardware_aes)


@BOTH
def test_a_cut_anywhere_delivers_whole_records_only(hardware_aes: bool) -> None:
    stream = records(hardware_aes)
    whole = b"".join(stream)
    for cut in range(len(whole)):
        delivered, failed = opened(Opener(KEY, hardware_aes), whole[:cut])
        assert not failed
        assert delivered == PLAINTEXTS[: len(delivered)]
        assert sum(map(len, stream[: len(delivered)])) <= cut
        assert_ends_with(whole[:cut], delivered, hardware_aes)


@BOTH
@pytest.mark.parametrize("index", range(4))
def test_a_record_that_is_repeated_dropped_or_moved_ends_the_stream(hardware_aes: bool, index: int) -> None:
    stream = records(hardware_aes)
    before, record, after = stream[:index], stream[index], stream[index + 1 :]
    assert_ends_with(b"".join([*before, record, record, *after]), PLAINTEXTS[: index + 1], hardware_aes)
    assert_ends_with(b"".join([*before, *after]), PLAINTEXTS[:index], hardware_aes)
    if after:
        assert_ends_with(b"".join([*before, after[0], record, *after[1:]]), PLAINTEXTS[:index], hardware_aes)


@BOTH
def test_a_byte_that_is_dropped_or_doubled_ends_the_stream(hardware_aes: bool) -> None:
    stream = records(hardware_aes)
    whole = b"".join(stream)
    borders = [sum(map(len, stream[: index + 1])) for index in range(len(stream))]
    for place in range(len(whole)):
        for tampered in (whole[:place] + whole[place + 1 :], whole[:place] + whole[place : place + 1] + whole[place:]):
            if tampered == whole or tampered.startswith(whole):
                continue
            same = next(i for i, (a, b) in enumerate(zip(whole, tampered + b"?", strict=False)) if a != b)
            count = sum(border <= same for border in borders)
            assert_ends_with(tampered, PLAINTEXTS[:count], hardware_aes)


def test_records_of_the_other_direction_session_or_cipher_do_not_open() -> None:
    for key, hardware_aes in ((KEY[::-1], True), (KEY, False)):
        assert opened(Opener(key, hardware_aes), b"".join(records(True))) == ([], True)


@settings(max_examples=200)
@given(garbage=st.binary(max_size=200) | st.binary(max_size=200).map(b"\x01\0\0".__add__), hardware_aes=st.booleans())
def test_garbage_opens_nothing(garbage: bytes, hardware_aes: bool) -> None:
    assert opened(Opener(KEY, hardware_aes), garbage + FILLER) == ([], True)


@given(st.binary(min_size=4, max_size=4))
def test_a_header_gives_the_size_of_its_record_or_peer_error(header: bytes) -> None:
    (value,) = struct.unpack("!I", header)
    possible = header[0] == 1 and value & 0xFFFFFF <= MAX_PLAINTEXT
    for given_header in (header, memoryview(header)):
        if possible:
            assert Opener.record_size(given_header) == (value & 0xFFFFFF) + OVERHEAD
        else:
            with pytest.raises(PeerError, match="impossible header"):
                Opener.record_size(given_header)


@pytest.mark.parametrize("header", ["00000005", "02000005", "81000005", "ff000000", "01080001", "01ffffff"])
def test_impossible_headers_are_refused_before_anything_is_held(header: str) -> None:
    with pytest.raises(PeerError, match="impossible header"):
        Opener.record_size(bytes.fromhex(header))


def test_the_largest_record_is_what_the_limits_say() -> None:
    assert Opener.record_size(bytes.fromhex("01080000")) == MAX_RECORD == MAX_PLAINTEXT + OVERHEAD
    assert Opener.record_size(bytes.fromhex("01000000")) == OVERHEAD


# ---- a new key on the way


@BOTH
def test_both_sides_change_the_key_after_the_same_record(monkeypatch: pytest.MonkeyPatch, hardware_aes: bool) -> None:
    monkeypatch.setattr(module, "REKEY_AFTER", 1000)
    sealer, opener = Sealer(KEY, hardware_aes), Opener(KEY, hardware_aes)
    keys, pairs = [], set()
    for number in range(100):
        keys.append(sealer._direction._key)
        pairs.add((sealer._direction._key, sealer._direction._count))
        plaintext = os.urandom(number)
        assert opened(opener, sealed(sealer, plaintext)) == ([plaintext], False)
    assert len(pairs) == 100, "a nonce came twice under one key"
    # 0 + 1 + … + 44 = 990 bytes do not reach the limit, 45 more do.
    assert set(keys[:46]) == {KEY}
    assert keys[46] != KEY
    assert len(set(keys)) >= 4


def test_a_replay_under_the_next_key_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REKEY_AFTER", 4)
    first, second = records(True, [b"four", b"more"])
    assert first[4:8] != second[4:8]
    assert opened(Opener(KEY, True), first + first) == ([b"four"], True)
    assert opened(Opener(KEY, True), first + second) == ([b"four", b"more"], False)


# ---- what is printed


def test_no_repr_shows_the_key() -> None:
    for text in map(repr, (Sealer(KEY, True), Opener(KEY, True), Sealer(KEY, True)._direction)):
        assert repr(KEY)[2:-1] not in text
        assert KEY.hex() not in text
