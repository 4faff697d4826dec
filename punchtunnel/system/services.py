"""Names of services, as /etc/services and its like know them."""

from __future__ import annotations

import socket


def port_of(name: str) -> int | None:
    """Return the TCP port of a service; None if this machine knows none of that name."""
    try:
        return socket.getservbyname(name, "tcp")
    except (OSError, ValueError):
        return None
