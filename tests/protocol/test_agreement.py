"""Keys that both sides share, and the vectors of docs/PROTOCOL.md."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchtunnel.errors import PeerError
from punchtunnel.protocol import schedule
from punchtunnel.protocol.agreement import MESSAGE_SIZE, TAG_SIZE, VERIFIER_SIZE, Agreement, Keys, hkdf, readable
from punchtunnel.protocol.hello import HELLO_SIZE, Hello, Role, Trait
from punchtunnel.protocol.records import OVERHEAD, Sealer
from punchtunnel.protocol.resume import SESSION_SIZE
from punchtunnel.punching.settings import Settings

TAG = schedule.channel_tag("")
LEADER = Hello(bytes(range(16, 32)), TAG, Role.STDIO, Trait.FAST_AES).encode()
FOLLOWER = Hello(bytes(range(16)), TAG, Role.TO, Trait.FAST_AES).encode()
SECRET = b"open sesame"


def fixed(first: int) -> Callable[[int], bytes]:
    """Return an entropy function with one known answer: the bytes that count up from `first`."""
    return lambda count: bytes(range(first, first + count))


def agree(
    secrets: tuple[bytes, bytes] = (SECRET, SECRET),
    identities: tuple[bytes, bytes] = (TAG, TAG),
    hellos: tuple[bytes, bytes] = (LEADER, FOLLOWER),
    heard: tuple[bytes, bytes] | None = None,
    entropy: tuple[Callable[[int], bytes], Callable[[int], bytes]] = (os.urandom, os.urandom),
) -> tuple[Keys, Keys]:
    """Return the keys of the leader, who knows `hellos`, and of the follower, who knows `heard`."""
    leader, follower = (Agreement(*each) for each in zip(secrets, identities, entropy, strict=True))
    return (
        leader.finish(follower.message, True, *hellos),
        follower.finish(leader.message, False, *(heard or hellos)),
    )


def parts(keys: Keys) -> list[bytes]:
    single = [getattr(keys, field.name) for field in fields(Keys) if field.name != "ticket"]
    return [*single, *keys.ticket]


def assert_nothing_in_common(one: Keys, other: Keys) -> None:
    assert not set(parts(one)) & set(parts(other))


# ---- known answers: docs/PROTOCOL.md, "Test vectors"


def test_hellos_of_the_vectors() -> None:
    assert LEADER.hex() == VECTORS["leader's hello"]
    assert FOLLOWER.hex() == VECTORS["follower's hello"]


def test_agreement_and_keys_of_the_vectors() -> None:
    leader = Agreement(SECRET, TAG, fixed(0))
    follower = Agreement(SECRET, TAG, fixed(64))
    assert leader.message.hex() == VECTORS["leader's SPAKE2 message"]
    assert follower.message.hex() == VECTORS["follower's SPAKE2 message"]
    keys = leader.finish(follower.message, True, LEADER, FOLLOWER)
    assert keys.send.hex() == VECTORS["key to the follower"]
    assert keys.receive.hex() == VECTORS["key to the leader"]
    assert keys.my_tag.hex() == VECTORS["leader's tag"]
    assert keys.their_tag.hex() == VECTORS["follower's tag"]
    assert keys.verifier.hex() == VECTORS["verifier"]
    assert keys.ticket.session.hex() == VECTORS["session"]
    assert keys.ticket.secret.hex() == VECTORS["session secret"]
    mirrored = follower.finish(leader.message, False, LEADER, FOLLOWER)
    assert parts(mirrored) == [keys.receive, keys.send, keys.their_tag, keys.my_tag, keys.verifier, *keys.ticket]


def test_keys_of_the_vectors_where_both_resume_a_session() -> None:
    leader, follower = Agreement(SECRET, TAG, fixed(0)), Agreement(SECRET, TAG, fixed(64))
    session_secret = bytes.fromhex(VECTORS["session secret"])
    keys = leader.finish(follower.message, True, LEADER, FOLLOWER, session_secret)
    assert keys.send.hex() == VECTORS["key to the follower, both resume that session"]
    assert keys.my_tag != follower.finish(leader.message, False, LEADER, FOLLOWER).their_tag


def test_sizes_are_those_of_the_protocol_document() -> None:
    keys, _ = agree()
    assert [len(part) for part in parts(keys)] == [32, 32, TAG_SIZE, TAG_SIZE, VERIFIER_SIZE, SESSION_SIZE, 32]
    assert (MESSAGE_SIZE, TAG_SIZE, HELLO_SIZE) == (33, 32, 36)
    assert VERIFIER_SIZE * 8 >= 160


def test_key_after_a_rekeying_of_the_vectors() -> None:
    key = bytes.fromhex(VECTORS["key to the follower"])
    assert hkdf(key, b"rekey", 32).hex() == VECTORS["key to the follower, rekeyed"]


# ---- agreement


@pytest.mark.parametrize("secret", [SECRET, b"", b"\0", bytes(4096), "größer".encode()])
def test_both_sides_derive_the_same_keys_the_other_way_round(secret: bytes) -> None:
    leader, follower = agree((secret, secret))
    assert (leader.send, leader.receive) == (follower.receive, follower.send)
    assert (leader.my_tag, leader.their_tag) == (follower.their_tag, follower.my_tag)
    assert leader.verifier == follower.verifier
    assert len(set(parts(leader))) == len(parts(leader))


@pytest.mark.parametrize("other", [b"", b"open sesam", b"Open sesame", b"open sesame\0", b"open sesame "])
def test_another_secret_changes_every_key(other: bytes) -> None:
    assert_nothing_in_common(*agree((SECRET, other)))


@pytest.mark.parametrize("other", [b"", TAG[:-1], TAG + b"\0", b"8 bytes."])
def test_another_channel_changes_every_key(other: bytes) -> None:
    assert_nothing_in_common(*agree(identities=(TAG, other)))


@pytest.mark.parametrize("whose", ["leader", "follower"])
def test_every_bit_of_both_hellos_changes_every_key(whose: str) -> None:
    base, _ = agree(entropy=(fixed(0), fixed(64)))
    seen = set(parts(base))
    shared = secure_shared()
    for bit in range(HELLO_SIZE * 8):
        hellos = [bytearray(LEADER), bytearray(FOLLOWER)]
        hellos[whose == "follower"][bit // 8] ^= 1 << bit % 8
        changed = shared(bytes(hellos[0]), bytes(hellos[1]))
        assert not seen & set(parts(changed)), f"bit {bit}"
        seen |= set(parts(changed))


def secure_shared() -> Callable[[bytes, bytes], Keys]:
    """Return `finish` of the leader of the vectors, with the group arithmetic done once."""
    leader, follower = Agreement(SECRET, TAG, fixed(0)), Agreement(SECRET, TAG, fixed(64))
    shared = leader._spake.finish(follower.message)

    class Done:
        def finish(self, message: bytes) -> bytes:
            return bytes(shared)

    leader._spake = Done()
    return lambda one, other: leader.finish(follower.message, True, one, other)


def test_exchanged_roles_change_every_key() -> None:
    leader, follower = Agreement(SECRET, TAG, os.urandom), Agreement(SECRET, TAG, os.urandom)
    one = leader.finish(follower.message, True, LEADER, FOLLOWER)
    assert_nothing_in_common(one, follower.finish(leader.message, False, FOLLOWER, LEADER))


def test_a_hello_that_was_changed_on_the_way_changes_every_key() -> None:
    changed = bytes([*LEADER[:10], LEADER[10] ^ 4, *LEADER[11:]])
    assert_nothing_in_common(*agree(heard=(changed, FOLLOWER)))


def test_two_sessions_with_one_secret_share_no_message_no_key_and_no_nonce_under_a_key() -> None:
    messages: set[bytes] = set()
    seen: set[bytes] = set()
    pairs: set[tuple[bytes, int]] = set()
    for _ in range(8):
        leader, follower = Agreement(SECRET, TAG, os.urandom), Agreement(SECRET, TAG, os.urandom)
        keys = leader.finish(follower.message, True, LEADER, FOLLOWER)
        assert not {leader.message, follower.message} & messages
        assert not set(parts(keys)) & seen
        messages |= {leader.message, follower.message}
        seen |= set(parts(keys))
        for key in (keys.send, keys.receive):
            used = nonces(Sealer(key, True), 20)
            assert len(used) == 20
            assert not pairs & used
            pairs |= used


def nonces(sealer: Sealer, count: int) -> set[tuple[bytes, int]]:
    """Return the (key, number) pairs of the next records; the number is the nonce."""
    pairs = set()
    for _ in range(count):
        pairs.add((sealer._direction._key, sealer._direction._count))
        sealer.seal_into(memoryview(b"x"), memoryview(bytearray(1 + OVERHEAD)))
    return pairs


# Points of small order, as an attacker would send them to learn something about
# the scalar or to make every secret give one key: the neutral element, its
# encodings with the sign bit and with y above the prime, orders 2, 4 and 8.
PRIME = 2**255 - 19


def encoded(y: int, sign: int = 0) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


MALFORMED = {
    "nothing": b"",
    "only the side": b"S",
    "one byte short": b"S" + encoded(4)[:-1],
    "zeros": bytes(MESSAGE_SIZE),
    "ones": b"\xff" * MESSAGE_SIZE,
    "neutral element": b"S" + encoded(1),
    "order 2": b"S" + encoded(PRIME - 1),
    "order 4": b"S" + encoded(0),
    "order 8": b"S" + bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    "side A": b"A" + encoded(1),
    "side B": b"B" + encoded(1),
    "no side": b"X" + encoded(1),
    "not on the curve": b"S" + encoded(2),
}
NEUTRAL_IN_DISGUISE = {
    "neutral element with a sign": b"S" + encoded(1, 1),
    "neutral element above the prime": b"S" + encoded(1 + PRIME),
    "neutral element above the prime with a sign": b"S" + encoded(1 + PRIME, 1),
}


def refused(message: bytes, secret: bytes = SECRET) -> bool:
    try:
        Agreement(secret, TAG, os.urandom).finish(message, True, LEADER, FOLLOWER)
    except PeerError:
        return True
    return False


@pytest.mark.parametrize("message", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_message_is_a_peer_error(message: bytes) -> None:
    assert refused(message)


@pytest.mark.parametrize("message", NEUTRAL_IN_DISGUISE.values(), ids=NEUTRAL_IN_DISGUISE.keys())
def test_another_encoding_of_the_neutral_element_is_a_peer_error(message: bytes) -> None:
    assert refused(message)


@pytest.mark.parametrize("side", [b"S", b"A", b"B", b"\0"])
def test_our_own_message_sent_back_is_a_peer_error(side: bytes) -> None:
    agreement = Agreement(SECRET, TAG, os.urandom)
    with pytest.raises(PeerError):
        agreement.finish(side + agreement.message[1:], True, LEADER, FOLLOWER)


@settings(max_examples=60)
@given(st.binary(max_size=40) | st.binary(min_size=32, max_size=32).map(b"S".__add__))
def test_garbage_gives_keys_or_peer_error_and_nothing_else(garbage: bytes) -> None:
    refused(garbage)


@given(entropy=st.binary(min_size=64, max_size=64))
@settings(max_examples=10)
def test_any_randomness_gives_a_message_of_one_size(entropy: bytes) -> None:
    message = Agreement(SECRET, TAG, lambda count: entropy[:count]).message
    assert len(message) == MESSAGE_SIZE
    assert message[:1] == b"S"


# ---- what is printed


def test_no_repr_shows_a_key_or_the_secret() -> None:
    keys, _ = agree()
    secret = b"correct horse"
    agreement = Agreement(secret, TAG, os.urandom)
    shown = [repr(keys), str(keys), f"{keys}", repr(Settings(["192.0.2.1"], secret=secret)), repr(agreement)]
    for text in shown:
        assert "correct horse" not in text
        for part in parts(keys):
            assert repr(part)[2:-1] not in text
            assert part.hex() not in text


VECTORS = {
    "leader's hello": "f050554e43480d0a02010400fcc196b49cd34045101112131415161718191a1b1c1d1e1f",
    "follower's hello": "f050554e43480d0a02040400fcc196b49cd34045000102030405060708090a0b0c0d0e0f",
    "leader's SPAKE2 message": "532309e10e205d80a9bf23b2ca149afee88d91697336c116d829e2580f8e00ee6a",
    "follower's SPAKE2 message": "53dbb31850014767fb6ce492f5d64383e3cd5f1b44969527aa0a6de7ea93f907cd",
    "key to the follower": "38e5d49f4104b356ad3b269cb5466b815ab6a8f5f3be8738b1c03ed297de319a",
    "key to the leader": "759470186977e3ab7e34eab47005b1045f0c9b430c737d5674d577e376a28a6d",
    "leader's tag": "47335a3acf3c0e41e64107b044949188c4e4351d18b36d663960b554e64a4023",
    "follower's tag": "8fadbd331a565f0e1442aa718e9b87cf57523673b3461edfd3fca783fe2c0555",
    "verifier": "57b57060c2708da432d7a7207c74b88e1265aba2",
    "AES-256-GCM, record 0, hello": "010000052b391b0a98449fdcadb6b87a7889d21a0c5b011098",
    "AES-256-GCM, record 1, empty": "0100000025e68e947fff3a39b27b04d5722e8a76",
    "ChaCha20-Poly1305, record 0, hello": "010000059f8cae1e7dbe5ce9ba3902445ed0ff4e5e45fd4f88",
    "ChaCha20-Poly1305, record 1, empty": "010000005c7bb6d75f6f17a27e6fe24f0bb076ab",
    "session": "40d31903cb9d551ff85ebbc1a7970663",
    "session secret": "ca934ed5df33a7e65ddbbe1f11510832fff8a747beeb65b687f1d3dff1aeca5c",
    "leader's RESUME, 5 bytes received": (
        "40d31903cb9d551ff85ebbc1a797066300000000000000051912b698e999ff1119e33decfb382f1ab4aadd2d15a887e51f41bf359ecbe21f"
    ),
    "follower's RESUME, 7 bytes received": (
        "40d31903cb9d551ff85ebbc1a797066300000000000000078f5162095a518771c2a5d7111df376370f4fd354fcbff9514805051c74bece13"
    ),
    "key to the follower, both resume that session": (
        "5291b0912d836ebf147aeb3e272aa865c06e8f5530826302addee8ad6e9f9853"
    ),
    "key to the follower, rekeyed": "771dd2f251767ccaca819e1d4cf4e748582efbc5cdf35352f27996f1127f0fab",
}


def test_a_verifier_is_groups_of_at_least_64_bits_that_can_be_read_aloud() -> None:
    assert readable(bytes.fromhex("35bfb770f25493f4507e")) == "gw73-o4hs-ksj7-iud6"
    assert len({readable(bytes([index]) * 10) for index in range(256)}) == 256
