"""--pair: one code that is copied from one machine to the other, and an answer, make a saved peer on both.

    punchtunnel --pair laptop                        punchtunnel --pair home
      prints a code: secret, own addresses, relay  ──>  is given it, and saves `home`
      is given the answer, and saves `laptop`      <──  prints an answer: own addresses

    code   = digits of Crockford's base 32, in groups of four, of
    bytes  = version and kind (1) | secret (16, in a code) | count | addresses | length | relay | checksum (2)

Rule 1: a code is a secret, and comes from the terminal or a pipe, never from a command line.
Rule 2: the answer holds no secret.  It may be left out where a relay is named, or this machine's
        address is all that is needed.
Rule 3: each pairing has a channel of its own, made of its secret.

Pure but for what `pair` is given.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from punchtunnel.errors import UsageError
from punchtunnel.protocol.secret import ALPHABET, FRESH_SIZE, GROUP, fresh
from punchtunnel.words import usage

VERSION = 1
_CODE, _ANSWER = 1, 0
_CHECKSUM = 2
# What is left of addresses: a machine is reached at one of each IP version, as a rule.
MOST_ADDRESSES = 4
LONGEST_RELAY = 100
# Characters that may be typed; a code has 150 at most.
LONGEST_CODE = 400
_MISREAD = str.maketrans("oil", "011")


@dataclass(frozen=True, slots=True)
class Code:
    """What one machine tells the other.

    Attributes:
        secret: FRESH_SIZE bytes; empty in an answer.
        addresses: Its own, by which others reach it.
        relay: HOST[:PORT] of the meeting place, or "".
    """

    secret: bytes = field(default=b"", repr=False)
    addresses: tuple[str, ...] = ()
    relay: str = ""

    @property
    def text(self) -> str:
        """It as it is copied."""
        kind = _CODE if self.secret else _ANSWER
        relay = self.relay.encode()[:LONGEST_RELAY]
        shown = self.addresses[:MOST_ADDRESSES]
        data = bytes([VERSION << 4 | kind]) + self.secret + bytes([len(shown)])
        data += b"".join(bytes([ip_address(one).version]) + ip_address(one).packed for one in shown)
        data += bytes([len(relay)]) + relay
        data += _checksum(data)
        count = -(-len(data) * 8 // 5)
        value = int.from_bytes(data, "big") << (count * 5 - len(data) * 8)
        text = "".join(ALPHABET[value >> 5 * digit & 31] for digit in reversed(range(count)))
        return "-".join(text[at : at + GROUP] for at in range(0, len(text), GROUP))


def read_code(text: str) -> Code:
    """Read a code as it was copied or typed: case, dashes and spaces do not count.

    Raises:
        UsageError: It is none, or was mistyped.
    """
    bare = "".join(text.lower().replace("-", "").split()).translate(_MISREAD)
    if not bare or len(bare) > LONGEST_CODE or not set(bare) <= set(ALPHABET):
        raise UsageError(usage.NOT_A_CODE)
    value = 0
    for digit in bare:
        value = value << 5 | ALPHABET.index(digit)
    size, rest = divmod(len(bare) * 5, 8)
    try:
        if rest >= 5 or value & ((1 << rest) - 1):
            # Another digit, or one that was mistyped.
            raise ValueError
        return _decoded((value >> rest).to_bytes(size, "big"))
    except (IndexError, ValueError):
        # `from None`: the cause could show the secret.
        raise UsageError(usage.MISTYPED_CODE) from None


def _decoded(data: bytes) -> Code:
    """Decode the bytes of a code.

    Raises:
        IndexError, ValueError: It is none.
    """
    body, checksum = data[:-_CHECKSUM], data[-_CHECKSUM:]
    version, kind = divmod(body[0], 16)
    if not hmac.compare_digest(_checksum(body), checksum) or version != VERSION or kind not in (_CODE, _ANSWER):
        raise ValueError
    at = 1 + (FRESH_SIZE if kind == _CODE else 0)
    secret, count = body[1:at], body[at]
    at += 1
    addresses = []
    for _ in range(count):
        size = {4: 4, 6: 16}.get(body[at], 0)
        # Of another size it is none.
        addresses.append(str(ip_address(body[at + 1 : at + 1 + size])))
        at += 1 + size
    relay = body[at + 1 : at + 1 + body[at]].decode()
    if at + 1 + body[at] != len(body) or count > MOST_ADDRESSES or not relay.isprintable():
        raise ValueError
    return Code(secret, tuple(addresses), relay)


def _checksum(data: bytes) -> bytes:
    return hashlib.sha256(b"punchtunnel pair" + data).digest()[:_CHECKSUM]


@dataclass(frozen=True, slots=True)
class Pairing:
    """What both machines have in common after it, and the other one's addresses.

    Attributes:
        secret: As it is written.
        channel: Its name.
        addresses: The other machine's.
        relay: Where the two meet, or "".
        is_answered: Nothing that the other machine has printed was left out.
    """

    secret: str = field(repr=False)
    channel: str
    addresses: tuple[str, ...]
    relay: str
    is_answered: bool


def pair(
    addresses: Sequence[str],
    relay: str,
    entropy: Callable[[int], bytes],
    ask: Callable[[str, Callable[[str], Code]], Code | None],
    tell: Callable[[str, str], None],
) -> Pairing:
    """Pair with the other machine.

    Args:
        addresses: By which others reach this machine; may be empty.
        relay: That is named here, or "".
        entropy: Returns so many random bytes: `os.urandom`.
        ask: Returns what a reader makes of what is typed after a prompt, or None if that is nothing.  A mistake of a
            person, for which the reader raises UsageError, is no end: the other machine may have saved this one.
        tell: Shows a code, after a sentence.

    Raises:
        UsageError: What was typed is no code, or the one of this machine.
    """
    own = tuple(addresses)
    code = ask(usage.ASK_FOR_CODE, _read_first)
    if code is not None:
        tell(usage.TELL_ANSWER, Code(addresses=own).text)
        return _of(code.secret, code, code.relay or relay)
    secret = entropy(FRESH_SIZE)
    tell(usage.TELL_CODE, Code(secret, own, relay).text)
    return _of(secret, ask(usage.ASK_FOR_ANSWER, _read_answer), relay)


def _read_first(text: str) -> Code:
    """Read what begins it on the second machine.

    Raises:
        UsageError: It is an answer, or no code at all.
    """
    code = read_code(text)
    if not code.secret:
        raise UsageError(usage.ANSWER_WITHOUT_CODE)
    return code


def _read_answer(text: str) -> Code:
    """Read what ends it on the first machine.

    Raises:
        UsageError: It is a code with a secret, or no code at all.
    """
    code = read_code(text)
    if code.secret:
        raise UsageError(usage.TWO_CODES)
    return code


def _of(secret: bytes, other: Code | None, relay: str) -> Pairing:
    channel = hmac.digest(secret, b"punchtunnel pair", hashlib.sha256).hex()[:12]
    addresses = other.addresses if other else ()
    return Pairing(fresh(lambda _: secret), f"pair-{channel}", addresses, relay, other is not None)
