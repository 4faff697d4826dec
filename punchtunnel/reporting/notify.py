"""Tell a service manager how it goes, as sd_notify(3) says: one datagram for each change.

systemd names the socket in NOTIFY_SOCKET for a unit of Type=notify.  READY is
said when the link is up, and the state in words at every change of it, so that
`systemctl status` shows what a person would see on a terminal.
"""

from __future__ import annotations

import contextlib
import socket

from punchtunnel.reporting.events import Event, Report

VARIABLE = "NOTIFY_SOCKET"
# Seconds.  A manager that does not read its socket must not hold up a tunnel.
PATIENCE = 0.5


def teller(address: str | None) -> Report | None:
    """Return what tells the service manager of an event; None if there is no manager.

    Args:
        address: What NOTIFY_SOCKET has: a path, or @name for an abstract socket.
    """
    if not address:
        return None

    def tell(event: Event) -> None:
        if event.notice:
            _send(address, event.fill(event.notice))

    return tell


def _send(address: str, text: str) -> None:
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    # Nobody can be told that it did not work, and the tunnel works without.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.sendto(text.encode(errors="replace"), address)
