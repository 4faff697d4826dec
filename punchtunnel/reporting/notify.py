"""Tell a service manager the state of a run, as sd_notify(3) describes: one datagram for each change.

systemd names the socket in NOTIFY_SOCKET for a unit of Type=notify.  READY=1
is sent when the link is up, and STATUS= at every change of state, so that
`systemctl status` shows what a person would see on a terminal.
"""

from __future__ import annotations

import contextlib
import socket

from punchtunnel.reporting.events import Event, Report

VARIABLE = "NOTIFY_SOCKET"
# Seconds that a datagram waits: a manager that does not read its socket must not hold up a tunnel.
PATIENCE = 0.5


def teller(address: str | None) -> Report | None:
    """Return what tells the service manager of an event; None if there is no manager.

    Args:
        address: The value of NOTIFY_SOCKET: a path, or @name for an abstract socket.
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
    # The tunnel works without a manager, so a failure is not worth a message.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.sendto(text.encode(errors="replace"), address)
