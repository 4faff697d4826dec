"""Key agreement and sealed records: what makes a hole a private link.

On the connection that the election picked, before anything else is said:

    leader                                   follower
      |  PICK    ‖ SPAKE2 message     --->     |
      |  <---  ACPT ‖ SPAKE2 message ‖ tag     |   the follower knows the secret
      |  tag                          --->     |   the leader knows it too

Then both directions are records:

    | type | length  | ciphertext       | tag |      type and length are
    |  1   |   3     | length           | 16  |      associated data

Rule 1: no primitive is our own.  SPAKE2 (RFC 9382's predecessor, as in the
        `spake2` package: Ed25519 group, symmetric mode), HKDF-SHA256
        (RFC 5869), AES-256-GCM or ChaCha20-Poly1305 (RFC 5116, RFC 8439).
Rule 2: without a secret the agreement runs with the empty one: an onlooker
        learns nothing, an active attacker can stand in the middle, and the
        verifier, which two people can compare, shows it.
Rule 3: keys come from the agreement and both whole hellos, so that a changed
        role, cipher or nonce changes every key.
Rule 4: one key a direction, and a counter as nonce; a record that is changed,
        repeated, moved or missing fails, and with it the link.
Rule 5: nothing is believed, and nothing is allocated, from a length that has
        not been authenticated: the buffers have the largest size from the
        start.

No sockets and no clock; randomness is an argument.
"""

from __future__ import annotations

import base64
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from punchtunnel.errors import PeerError
from punchtunnel.words import peer as words

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

MESSAGE_SIZE = 33
# The prime of Ed25519's field (RFC 8032 §5.1).
_FIELD = 2**255 - 19
TAG_SIZE = 32
# The largest plaintext of a record.  Larger ones gain nothing: the cipher runs
# at full speed from 64 KiB, and the loop's cost a record is small at 256 KiB.
MAX_PLAINTEXT = 256 * 1024
HEADER = struct.Struct("!I")
AEAD_TAG_SIZE = 16
OVERHEAD = HEADER.size + AEAD_TAG_SIZE
# Four zero bytes and the number of the record under its key.
_NONCE = struct.Struct("!4xQ")
MAX_RECORD = MAX_PLAINTEXT + OVERHEAD
# The one type of record there is; what the bytes mean is the multiplexer's
# business, also its EOF.
DATA = 1
# Bytes under one key, with what a record costs: about 2^32 blocks of AES, at which
# an attacker's advantage from the size of a block is still below 2^-63.
REKEY_AFTER = 2**36
# Bytes.  Whoever stands in the middle may choose freely on both sides, so it
# needs a collision only: 2^80 steps, within the seconds of one agreement.
VERIFIER_SIZE = 20


def preload() -> None:
    """Load the two packages, 90 ms, while something else is being waited for."""
    import cryptography.hazmat.primitives.ciphers.aead
    import cryptography.hazmat.primitives.kdf.hkdf  # noqa: F401
    import spake2  # noqa: F401


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """What both sides derive; never printed.

    `verifier` is equal on both sides unless somebody stands in the middle.
    """

    send: bytes
    receive: bytes
    my_tag: bytes
    their_tag: bytes
    verifier: bytes


class Agreement:
    """One side of one key agreement; use a fresh one for every connection.

    Args:
        secret: Shared secret; empty when there is none.
        identity: What both sides must agree on besides, such as the channel.
        entropy: `os.urandom`, or a stand-in for tests with known answers.
    """

    def __init__(self, secret: bytes, identity: bytes, entropy: Callable[[int], bytes]) -> None:
        # Imported now: 60 ms that only a run with an open connection pays.
        from spake2 import SPAKE2_Symmetric

        self._spake = SPAKE2_Symmetric(secret, idSymmetric=b"punchtunnel 1 " + identity, entropy_f=entropy)
        self.message: bytes = self._spake.start()

    def finish(self, message: bytes, leads: bool, leader_hello: bytes, follower_hello: bytes) -> Keys:
        """Derive the keys from the peer's message.

        Args:
            message: MESSAGE_SIZE bytes of the peer.
            leads: From the election.
            leader_hello: The leader's hello as sent.
            follower_hello: The follower's.

        Raises:
            PeerError: The message is no element of the group, or our own.
        """
        y = int.from_bytes(message[1:], "little") % 2**255
        if len(message) != MESSAGE_SIZE or y >= _FIELD or y in (1, _FIELD - 1):
            # spake2 knows the neutral element by its usual bytes only, and takes others for it.
            raise PeerError(words.MALFORMED)
        try:
            shared = self._spake.finish(message)
        except Exception as error:  # the package raises ValueError, AssertionError and its own
            raise PeerError(words.MALFORMED) from error
        material = _hkdf(shared, leader_hello + follower_hello, 4 * 32 + VERIFIER_SIZE)
        to_follower, to_leader, leader_key, follower_key = (material[i : i + 32] for i in range(0, 128, 32))
        messages = (self.message, message) if leads else (message, self.message)
        transcript = leader_hello + follower_hello + b"".join(messages)
        leader_tag = hmac.digest(leader_key, transcript, sha256)
        follower_tag = hmac.digest(follower_key, transcript, sha256)
        if leads:
            return Keys(to_follower, to_leader, leader_tag, follower_tag, material[128:])
        return Keys(to_leader, to_follower, follower_tag, leader_tag, material[128:])


def _hkdf(key: bytes, salt: bytes, length: int) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length, salt=salt, info=b"punchtunnel 1 keys").derive(key)


class _Direction:
    """Key, counter and bytes of one direction."""

    def __init__(self, key: bytes, hardware_aes: bool) -> None:
        self._hardware_aes = hardware_aes
        self._key = key
        self._count = 0
        self._bytes = 0
        self._cipher = self._make()

    def _make(self) -> AESGCM | ChaCha20Poly1305:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

        return AESGCM(self._key) if self._hardware_aes else ChaCha20Poly1305(self._key)

    def next(self, length: int) -> tuple[AESGCM | ChaCha20Poly1305, bytes]:
        """Return the cipher and the nonce of the next record, which has `length` bytes, and count it.

        Both sides change the key behind the same record.
        """
        cipher, nonce = self._cipher, _NONCE.pack(self._count)
        self._count += 1
        self._bytes += length
        if self._bytes >= REKEY_AFTER:
            self._key = _hkdf(self._key, b"rekey", 32)
            self._count = self._bytes = 0
            self._cipher = self._make()
        return cipher, nonce


class Sealer:
    """Seals plaintext into records, in order."""

    def __init__(self, key: bytes, hardware_aes: bool) -> None:
        self._direction = _Direction(key, hardware_aes)

    def seal_into(self, plaintext: memoryview, record: memoryview) -> int:
        """Write one record for at most MAX_PLAINTEXT bytes; return its size.

        `record` has room for the plaintext and OVERHEAD, and does not overlap it.
        """
        header = HEADER.pack(DATA << 24 | len(plaintext))
        record[: HEADER.size] = header
        end = OVERHEAD + len(plaintext)
        cipher, nonce = self._direction.next(len(plaintext))
        cipher.encrypt_into(nonce, plaintext, header, record[HEADER.size : end])
        return end


class Opener:
    """Opens records, in order, from bytes that come in any pieces."""

    def __init__(self, key: bytes, hardware_aes: bool) -> None:
        from cryptography.exceptions import InvalidTag

        self._invalid = InvalidTag
        self._direction = _Direction(key, hardware_aes)
        self._plaintext = memoryview(bytearray(MAX_PLAINTEXT))

    @staticmethod
    def record_size(data: memoryview | bytes, begin: int = 0) -> int:
        """Return the size of the record of which HEADER.size bytes, or more, begin there.

        Raises:
            PeerError: No record begins like that.
        """
        (value,) = HEADER.unpack_from(data, begin)
        length = value & 0xFFFFFF
        if value >> 24 != DATA or length > MAX_PLAINTEXT:
            raise PeerError(words.IMPOSSIBLE_RECORD)
        return int(length) + OVERHEAD

    def open(self, record: memoryview) -> memoryview:
        """Return the plaintext of one whole record, valid until the next call.

        Raises:
            PeerError: The record is not the one that was sealed in this place.
        """
        length = len(record) - OVERHEAD
        plaintext = self._plaintext[:length]
        cipher, nonce = self._direction.next(length)
        try:
            cipher.decrypt_into(nonce, record[HEADER.size :], record[: HEADER.size], plaintext)
        except self._invalid as error:
            raise PeerError(words.CHANGED_RECORD) from error
        return plaintext


def readable(verifier: bytes) -> str:
    """Return a verifier as groups of letters and digits that two people can read to each other."""
    text = base64.b32encode(verifier).decode().lower()
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))
