"""The shared secret as both sides must agree on it: how a fresh one is written, and which bytes stand for a typed one.

A secret is never an argument of a command (every user of the machine can list
those), never part of an event, and printed by --new-secret only.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable

from punchtunnel.errors import UsageError
from punchtunnel.words import usage

# 128 bits: nobody finds it by trying.
FRESH_SIZE = 16
# Crockford's base 32: without i, l, o and u, nothing is misheard or misread.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_MISHEARD = str.maketrans("oil", "011")
_DIGITS = 26
# The first of the digits has three bits: the others have 125.
_FIRST_DIGITS = ALPHABET[:8]
GROUP = 4
# Bytes; a secret is a line, not a document.
MAX_SIZE = 4096
# Bits.  Below that a guesser with years to spend, and many addresses, may get in.
WEAK_BELOW = 40.0
# What guessers try first: each is worth no more than a choice among these.
_COMMON = (
    "passwort", "password", "passw0rd", "letmein", "welcome", "qwertz", "qwerty", "asdf", "secret", "geheim", "sesame",
    "tunnel", "punch", "admin", "monkey", "dragon", "test",
)  # fmt: skip
_COMMON_BITS = 4.0
# Bits that `strength` gives to every secret of `fresh`, but for one among a billion, and to no row of equal or
# successive letters.
_FRESH_STRENGTH = 64.0


def fresh(entropy: Callable[[int], bytes]) -> str:
    """Return a new secret of 128 bits, in groups that can be read over the phone.

    Args:
        entropy: Returns that many random bytes: `os.urandom`.
    """
    value = int.from_bytes(entropy(FRESH_SIZE), "big")
    text = "".join(ALPHABET[value >> 5 * digit & 31] for digit in reversed(range(_DIGITS)))
    return "-".join(text[i : i + GROUP] for i in range(0, len(text), GROUP))


def normal(text: str) -> bytes:
    """Return the bytes that both sides agree on for a secret as it was typed.

    Space around it does not count.  In a secret that `fresh` has written, case,
    dashes and spaces do not count either, and o, i and l are read as 0 and 1.

    Raises:
        UsageError: It is empty, longer than MAX_SIZE, or more than a line.
    """
    text = text.strip()
    if not text:
        raise UsageError(usage.EMPTY_SECRET)
    # The same letters can be typed as different code points.
    text = unicodedata.normalize("NFC", text)
    data = text.encode("utf-8", "surrogateescape")
    if len(data) > MAX_SIZE or b"\n" in data or b"\0" in data:
        raise UsageError(usage.LONG_SECRET.format(limit=MAX_SIZE))
    bare = text.lower().replace("-", "").replace(" ", "").translate(_MISHEARD)
    if len(bare) == _DIGITS and set(bare) <= set(ALPHABET):
        return bare.encode()
    return data


def is_fresh(secret: bytes) -> bool:
    """Tell whether a secret can be one that `fresh` has written, so that nobody finds it by trying.

    Only the form can show it: a sentence of any length may be found among those that people think of.

    Args:
        secret: In its normal form.
    """
    text = secret.decode("ascii", "replace")
    has_form = len(text) == _DIGITS and set(text) <= set(ALPHABET) and text[0] in _FIRST_DIGITS
    return has_form and strength(secret) >= _FRESH_STRENGTH


def strength(secret: bytes) -> float:
    """Estimate how many bits a secret has, at most: what a guesser must choose who knows how it was made.

    A character is worth the logarithm of the alphabet that is used, but no more
    than half a bit if it follows from the one before it (aaa, 123, cba).  A common
    word is worth _COMMON_BITS.  Words of a language are taken for random letters,
    so the truth may be less.

    Args:
        secret: In its normal form.
    """
    text = secret.decode("utf-8", "surrogateescape")
    bits = 0.0
    for word in _COMMON:
        bits += _COMMON_BITS * text.lower().count(word)
        text = re.sub(re.escape(word), "\0", text, flags=re.IGNORECASE)
    each = math.log2(max(_alphabet(text), 2))
    before = ""
    for character in text:
        if character != "\0":
            follows = before != "" and abs(ord(character) - ord(before)) <= 1
            bits += 0.5 if follows else each
        before = character
    return bits


def _alphabet(text: str) -> int:
    """Return how many characters there are of the kinds that a text uses."""
    sizes = {"lower": 26, "upper": 26, "digit": 10, "other": 33, "foreign": 100}
    kinds = {
        "foreign" if ord(one) > 127 else "digit" if one.isdigit() else "lower" if one.islower()
        else "upper" if one.isupper() else "other"
        for one in text if one != "\0"
    }  # fmt: skip
    return sum(sizes[kind] for kind in kinds)
