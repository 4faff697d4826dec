"""TCP's congestion control of the bench: every subject of a row uses the same one.

By default it is cubic, as on most machines, so that figures of two machines can
be compared: with bbr, which paces over loopback too, every program here moves
about half as much.  Where the kernel has no cubic, or without root, it is the
machine's own, and the table says which.

It is an attribute of routes (ip-route(8), `congctl`) in the bench's own network
namespaces.  Their sysctl would take only what every user of the machine may use
(tcp_allowed_congestion_control), also from root, and the machine's own sysctl
is not the bench's to change.
"""

from __future__ import annotations

import socket
import subprocess

USUAL = "cubic"
# TCP_CA_NAME_MAX of <net/tcp.h>.
NAME_SIZE = 16


def in_use() -> str:
    """Return the congestion control of a new connection over loopback, in the current network namespace."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        name = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, NAME_SIZE)
    return name.rstrip(b"\0").decode()


def is_usable(name: str) -> bool:
    """Tell whether this process may use it: for root, whether the kernel has it, perhaps as a module."""
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
        except OSError:
            return False
    return True


def use(name: str, namespace: str = "") -> None:
    """Make every new IPv4 connection of a network namespace use it, by all routes that are there now.

    Args:
        name: One that is usable.
        namespace: As ip-netns(8) knows it; "" is the current one, which must be the bench's own.
    """
    ip = ["ip", "-4", *(["-netns", namespace] if namespace else [])]
    shown = subprocess.run([*ip, "route", "show", "table", "all"], capture_output=True, text=True, check=True)
    for route in shown.stdout.splitlines():
        # Nothing connects to a broadcast address.
        if not route.startswith("broadcast"):
            subprocess.run([*ip, "route", "replace", *route.split(), "congctl", name], check=True)
