r"""Ask a Magic Wormhole transit relay for the peer: bytes only.

    side                                       relay                              peer
      |  please relay TOKEN for side SIDE\n --->  |                                 |
      |                                           |  <--- the same, with its SIDE   |
      |  <--- ok\n                                |                        ok\n --->  |
      |  <================ whatever the two send, until one of them closes =======>  |

Two connections match if they have one token and different sides (transit.md of
magic-wormhole-protocols, and transit_server.py of magic-wormhole-transit-relay).

Rule 1: nothing may be sent before "ok\n": the relay answers "impatient\n", and closes.
Rule 2: bytes after "ok\n" are the peer's, also in the same segment.
Rule 3: an answer is refused at its first byte that is none of the relay's, so at most 13 bytes are ever held.
Rule 4: there is no half-close: a FIN of one side ends both directions.
"""

from __future__ import annotations

import hashlib
import hmac

from punchtunnel.errors import PeerError
from punchtunnel.protocol.token import TOKEN_SIZE
from punchtunnel.words import reach as words

# What the server's own help says.
DEFAULT_PORT = 4001
SIDE_SIZE = 8
_MET = b"ok\n"
# What the relay can say, and what that means.
_ANSWERS = {_MET: "", b"bad handshake\n": words.BAD_HANDSHAKE, b"impatient\n": words.IMPATIENT}
_LONGEST = max(map(len, _ANSWERS))


def side(key: bytes, token: bytes, role: int) -> bytes:
    """Return SIDE_SIZE bytes that stay the same for one user of one machine, one role and one token.

    A connection that this side has lost, and that the relay still takes for alive, then never matches its next one.
    The other side is told apart by its key.  Two machines with one key, because they share a home directory, meet if
    their roles differ.

    Args:
        key: Only this user knows it (`Memory.key`).
        token: TOKEN_SIZE bytes.
        role: Of the hello.
    """
    return hmac.digest(key, b"side" + token + bytes([role]), hashlib.sha256)[:SIDE_SIZE]


def request(token: bytes, side: bytes) -> bytes:
    """Return the line that asks for the peer: TOKEN_SIZE and SIDE_SIZE bytes in hexadecimal digits."""
    assert (len(token), len(side)) == (TOKEN_SIZE, SIDE_SIZE)
    return f"please relay {token.hex()} for side {side.hex()}\n".encode()


class Answer:
    """Reads what one relay answers on one connection."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes | None:
        """Add received bytes.

        Args:
            data: Bytes straight from the connection, any number of them.

        Returns:
            None while the peer is not there yet; then those of the bytes that are the peer's, and nothing more is
            to be fed.

        Raises:
            PeerError: The relay refuses, or is none; the connection is of no more use.
        """
        before = len(self._held)
        self._held += data[:_LONGEST]
        for line, refusal in _ANSWERS.items():
            if self._held.startswith(line):
                if refusal:
                    raise PeerError(refusal)
                return data[len(line) - before :]
        if not any(line.startswith(self._held) for line in _ANSWERS):
            raise PeerError(words.NO_RELAY)
        return None
