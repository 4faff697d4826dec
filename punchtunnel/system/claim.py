"""One process at a time waits for the same peers: Linux's abstract socket names, which end with their process."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import sys

# struct ucred: pid, uid, gid.
_CREDENTIALS = struct.Struct("3i")


def claim(what: str) -> socket.socket | None:
    """Claim something for this user of this machine (its network namespace), as long as the socket is open.

    Returns:
        What to close; None on systems that have no such names.

    Raises:
        OSError: Another process has it; see `holder`.
    """
    if sys.platform != "linux":
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(_name(what))
        sock.listen(1)
    except OSError:
        sock.close()
        raise
    return sock


def holder(what: str) -> int | None:
    """Return the process that has claimed something; None if that cannot be known."""
    if sys.platform != "linux":
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.setblocking(False)
            sock.connect(_name(what))
            data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return None
    pid: int = _CREDENTIALS.unpack(data)[0]
    return pid or None


def _name(what: str) -> bytes:
    # Hashed: it has any length, and others can list these names.
    return b"\0punchtunnel " + hashlib.sha256(f"{os.getuid()} {what}".encode()).digest()
