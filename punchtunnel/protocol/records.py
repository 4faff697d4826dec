"""Sealed records: each direction of a link after the key agreement.

    | type | length  | ciphertext       | tag |      type and length are
    |  1   |   3     | length           | 16  |      associated data

Rule 1: no primitive is our own: AES-256-GCM or ChaCha20-Poly1305 (RFC 5116,
        RFC 8439).
Rule 2: each direction has one key, and a counter as nonce.  A record that is
        changed, repeated, moved or missing fails, and with it the link.
Rule 3: a length that is not authenticated yet is not believed, and allocates
        nothing: the buffers have the largest size from the start.

No sockets, no clock and no randomness.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from punchtunnel.errors import RecordError
from punchtunnel.protocol.agreement import Keys, hkdf
from punchtunnel.words import peer as words

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

# The largest plaintext of a record.  The cipher runs at full speed from 64 KiB, but the rest of a turn does not:
# on a slow processor 256 KiB moved a tenth less, and 1 MiB 4 % more, for twice the memory (measured).
MAX_PLAINTEXT = 512 * 1024
HEADER = struct.Struct("!I")
AEAD_TAG_SIZE = 16
OVERHEAD = HEADER.size + AEAD_TAG_SIZE
# Four zero bytes and the number of the record under its key.
_NONCE = struct.Struct("!4xQ")
MAX_RECORD = MAX_PLAINTEXT + OVERHEAD
# Types of records: what the bytes of frames mean, and their EOF, is the multiplexer's
# business.  The others come first: on a hole that a session comes back by (resume.py), and
# on one through a relay (offers.py).
DATA = 1
RESUME = 2
OFFER = 3
# Bytes of plaintext under one key: with the overhead of records about 2^32 blocks of
# AES, at which an attacker's advantage from the block size is still below 2^-63.
REKEY_AFTER = 2**36


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

        Both sides change the key after the same record.
        """
        cipher, nonce = self._cipher, _NONCE.pack(self._count)
        self._count += 1
        self._bytes += length
        if self._bytes >= REKEY_AFTER:
            self._key = hkdf(self._key, b"rekey", 32)
            self._count = self._bytes = 0
            self._cipher = self._make()
        return cipher, nonce


class Sealer:
    """Seals plaintext into records, in order."""

    def __init__(self, key: bytes, hardware_aes: bool) -> None:
        self._direction = _Direction(key, hardware_aes)

    def seal(self, plaintext: bytes, kind: int = DATA) -> bytes:
        """Return one record for `plaintext`, which is short."""
        record = memoryview(bytearray(len(plaintext) + OVERHEAD))
        self.seal_into(memoryview(plaintext), record, kind)
        return bytes(record)

    def seal_into(self, plaintext: memoryview, record: memoryview, kind: int = DATA) -> int:
        """Write one record for at most MAX_PLAINTEXT bytes; return its size.

        `record` has room for the plaintext and OVERHEAD, and does not overlap it.
        """
        header = HEADER.pack(kind << 24 | len(plaintext))
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
    def record_size(data: memoryview | bytes, begin: int = 0, kind: int = DATA) -> int:
        """Return the size of the record that begins at `begin`, of which at least HEADER.size bytes are there.

        Raises:
            RecordError: No record of this type begins like that.
        """
        (value,) = HEADER.unpack_from(data, begin)
        length = value & 0xFFFFFF
        if value >> 24 != kind or length > MAX_PLAINTEXT:
            raise RecordError(words.IMPOSSIBLE_RECORD)
        return int(length) + OVERHEAD

    def open(self, record: memoryview) -> memoryview:
        """Return the plaintext of one whole record, valid until the next call.

        Raises:
            RecordError: The record is not the one that was sealed in this place.
        """
        length = len(record) - OVERHEAD
        plaintext = self._plaintext[:length]
        cipher, nonce = self._direction.next(length)
        try:
            cipher.decrypt_into(nonce, record[HEADER.size :], record[: HEADER.size], plaintext)
        except self._invalid as error:
            raise RecordError(words.CHANGED_RECORD) from error
        return plaintext


Seals = tuple[Sealer, Opener]


def seals_of(keys: Keys, *, fast_aes: bool) -> Seals:
    """Return what seals and opens the records of a hole; `fast_aes`: both processors have AES instructions."""
    return Sealer(keys.send, fast_aes), Opener(keys.receive, fast_aes)
