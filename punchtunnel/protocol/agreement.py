"""The key agreement: both sides of a connection derive the same keys, or learn that they cannot.

On the connection that the election picked, before anything else is said:

    leader                                   follower
      |  PICK    ‖ SPAKE2 message     --->     |
      |  <---  ACPT ‖ SPAKE2 message ‖ tag     |   the follower knows the secret
      |  tag                          --->     |   the leader knows it too

After that both directions are records (records.py).

Rule 1: no primitive is our own.  SPAKE2 (RFC 9382's predecessor, as in the
        `spake2` package: Ed25519 group, symmetric mode) and HKDF-SHA256
        (RFC 5869).
Rule 2: without a secret the agreement runs with the empty one.  An
        eavesdropper learns nothing.  An active attacker can impersonate each
        side to the other; the verifier, which two people can compare, shows
        it.
Rule 3: keys come from the agreement and both whole hellos, so that a changed
        role, cipher or nonce changes every key.

No sockets and no clock; randomness is an argument.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from punchtunnel.errors import PeerError
from punchtunnel.protocol.resume import SESSION_SIZE, Ticket
from punchtunnel.words import peer as words

MESSAGE_SIZE = 33
# The prime of Ed25519's field (RFC 8032 §5.1).
_FIELD = 2**255 - 19
TAG_SIZE = 32
# Bytes.  A man in the middle chooses freely on both sides, so a collision is all
# it needs: 2^80 steps, within the seconds of one agreement.
VERIFIER_SIZE = 20


def preload() -> None:
    """Import the two packages while the process waits for something else: it takes 90 ms."""
    import cryptography.hazmat.primitives.ciphers.aead
    import cryptography.hazmat.primitives.kdf.hkdf  # noqa: F401
    import spake2  # noqa: F401


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """What both sides derive; never printed.

    `verifier` is equal on both sides unless there is a man in the middle.  `ticket` is what the two sides of a
    session that begins on this connection know each other by, on its next one.
    """

    send: bytes
    receive: bytes
    my_tag: bytes
    their_tag: bytes
    verifier: bytes
    ticket: Ticket


class Agreement:
    """One side of one key agreement; use a fresh one for every connection.

    Args:
        secret: Shared secret; empty when there is none.
        identity: What both sides must also agree on, such as the channel.
        entropy: `os.urandom`, or a stand-in for tests with known answers.
    """

    def __init__(self, secret: bytes, identity: bytes, entropy: Callable[[int], bytes]) -> None:
        # Imported here: 60 ms that only a run with an open connection pays.
        from spake2 import SPAKE2_Symmetric

        self._spake = SPAKE2_Symmetric(secret, idSymmetric=b"punchtunnel 1 " + identity, entropy_f=entropy)
        self.message: bytes = self._spake.start()

    def finish(
        self, message: bytes, leads: bool, leader_hello: bytes, follower_hello: bytes, resumed: bytes = b""
    ) -> Keys:
        """Derive the keys from the peer's message.

        Args:
            message: MESSAGE_SIZE bytes of the peer.
            leads: From the election.
            leader_hello: The leader's hello as sent.
            follower_hello: The follower's.
            resumed: The secret of the session that both sides want to go on with, if there is one.

        Raises:
            PeerError: The message is not an element of the group, or is our own.
        """
        y = int.from_bytes(message[1:], "little") % 2**255
        if len(message) != MESSAGE_SIZE or y >= _FIELD or y in (1, _FIELD - 1):
            # spake2 recognizes the neutral element by its canonical bytes only; other encodings pass its check.
            raise PeerError(words.MALFORMED)
        try:
            shared = self._spake.finish(message)
        except Exception as error:  # the package raises ValueError, AssertionError and its own
            raise PeerError(words.MALFORMED) from error
        # `shared` has a fixed length, so nothing else gives the same bytes.
        length = 4 * 32 + VERIFIER_SIZE + SESSION_SIZE + 32
        material = hkdf(shared + resumed, leader_hello + follower_hello, length)
        to_follower, to_leader, leader_key, follower_key = (material[i : i + 32] for i in range(0, 128, 32))
        messages = (self.message, message) if leads else (message, self.message)
        transcript = leader_hello + follower_hello + b"".join(messages)
        leader_tag = hmac.digest(leader_key, transcript, sha256)
        follower_tag = hmac.digest(follower_key, transcript, sha256)
        verifier, rest = material[128 : 128 + VERIFIER_SIZE], material[128 + VERIFIER_SIZE :]
        ticket = Ticket(rest[:SESSION_SIZE], rest[SESSION_SIZE:])
        if leads:
            return Keys(to_follower, to_leader, leader_tag, follower_tag, verifier, ticket)
        return Keys(to_leader, to_follower, follower_tag, leader_tag, verifier, ticket)


def hkdf(key: bytes, salt: bytes, length: int, info: bytes = b"punchtunnel 1 keys") -> bytes:
    """Derive `length` bytes with HKDF-SHA256."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length, salt=salt, info=info).derive(key)


def readable(verifier: bytes) -> str:
    """Return a verifier as groups of letters and digits that two people can read to each other."""
    text = base64.b32encode(verifier).decode().lower()
    return "-".join(text[i : i + 4] for i in range(0, len(text), 4))
