"""The shared secret: where it comes from, and how a fresh one is written.

A secret is never an argument of a command (every user of the machine can list
those), never an event, and never printed but by --new-secret.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Mapping

from punchtunnel import words
from punchtunnel.errors import LocalError, UsageError
from punchtunnel.words import usage

VARIABLE = "PUNCHTUNNEL_SECRET"
# Where systemd puts what LoadCredential= names, out of everybody else's reach.
CREDENTIALS = "CREDENTIALS_DIRECTORY"
# 128 bits: not to be found by trying, by anybody.
FRESH_SIZE = 16
# Crockford's base 32: no i, l, o, u, so that nothing is misheard or misread.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_MISHEARD = str.maketrans("oil", "011")
GROUP = 4
# A secret is a line, not a document.
MAX_SIZE = 4096


def fresh(entropy: Callable[[int], bytes] = os.urandom) -> str:
    """Return a new secret of 128 bits, in groups that can be read over the phone."""
    value = int.from_bytes(entropy(FRESH_SIZE), "big")
    digits = [ALPHABET[value >> shift & 31] for shift in range(125, -1, -5)]
    text = "".join(digits)
    return "-".join(text[i : i + GROUP] for i in range(0, len(text), GROUP))


def normal(text: str) -> bytes:
    """Return the bytes that are agreed on for a secret as somebody typed it.

    Space around it does not count.  In one that `fresh` has written, case,
    dashes and spaces do not count either, and o, i and l are taken for 0 and 1.

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
    if len(bare) == 26 and set(bare) <= set(ALPHABET):
        return bare.encode()
    return data


def find(
    environment: Mapping[str, str],
    path: str | None,
    ask: Callable[[], str] | None,
    warn: Callable[[str], None],
) -> bytes:
    """Return the secret from the one place that was named, or b"" if none was.

    Args:
        environment: VARIABLE counts unless something more explicit is given.
        path: --secret-file.
        ask: --ask-secret: returns what was typed.
        warn: Takes a sentence, if others can read or change the file.

    Raises:
        UsageError: Two places are named, or the secret is unusable.
        LocalError: The file cannot be read.
    """
    if path is not None and ask is not None:
        raise UsageError(usage.FILE_AND_ASK)
    if ask is not None:
        return normal(ask())
    if path is not None:
        # The mode of a credential shows the mask of its ACL as if the group had access.
        kept = os.path.dirname(path) == environment.get(CREDENTIALS)
        return normal(_read(path, None if kept else warn))
    given = environment.get(VARIABLE)
    return b"" if given is None else normal(given)


def _read(path: str, warn: Callable[[str], None] | None) -> str:
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise LocalError(words.cannot(words.read_secret(path), error)) from error
    if warn is not None and stat.S_ISREG(info.st_mode):
        if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            warn(words.readable_secret(path))
        if info.st_uid not in (0, os.geteuid()):
            warn(words.foreign_secret(path))
    if len(data) > MAX_SIZE:
        raise UsageError(usage.LONG_SECRET_FILE.format(path=path, limit=MAX_SIZE))
    return data.decode("utf-8", "surrogateescape")
