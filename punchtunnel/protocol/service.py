"""The name of a service: what --to calls a target, and a stream that is opened for it says first.

    OPEN  stream 1  length 3  "ssh"        docs/PROTOCOL.md, "Streams"

Rule 1: only the side that connects says what a name stands for.
Rule 2: a name is not longer than MAX_SERVICE, and harmless where it is shown: it comes from the peer.
"""

from __future__ import annotations

import re

from punchtunnel.errors import PeerError
from punchtunnel.words import peer as words

# Characters, which are bytes: as many as a label of DNS has.
MAX_SERVICE = 63
# A number alone would look like a port, which the opener cannot choose.
_SERVICE = re.compile(rf"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_SERVICE - 1}}}")


def is_service(text: str) -> bool:
    """Tell whether a service can be called that."""
    return _SERVICE.fullmatch(text) is not None


def decode_service(data: bytes | bytearray) -> str:
    """Return the name that an OPEN frame carries.

    Raises:
        PeerError: It is none.
    """
    name = data.decode("ascii", "replace")
    if not is_service(name):
        raise PeerError(words.NOT_A_SERVICE)
    return name
