"""The sockets of a punch: how long the segments are that they agree on."""

from __future__ import annotations

import socket
import sys

import pytest

from punchtunnel.punching import ports
from punchtunnel.system import tcp

A, B = "127.0.0.1", "127.0.0.2"
HEADERS = 40

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the size of its segments")


def packet_sizes(listener: socket.socket, dial: socket.socket) -> list[int]:
    """Connect, and return the bytes of a full packet of both ends."""
    dial.setblocking(True)
    listener.setblocking(True)
    dial.connect(listener.getsockname())
    accepted, _ = listener.accept()
    with accepted:
        told = [tcp.delivery(sock) for sock in (dial, accepted)]
    assert None not in told
    return [one.packet_size for one in told if one is not None]


def test_one_side_limits_the_segments_of_both_directions() -> None:
    """Through a path with an MTU of 1400 and no ICMP a hole opened and carried nothing."""
    limited = ports.LONGEST_SEGMENT + HEADERS
    with socket.create_server((B, 0)) as server, ports.dialling_socket(socket.AF_INET, A, 0) as dial:
        assert packet_sizes(server, dial) == [limited, limited]
    with (
        ports.listening_socket(socket.AF_INET, B, 0, shared=True) as listener,
        socket.socket(socket.AF_INET) as dial,
    ):
        assert packet_sizes(listener, dial) == [limited, limited]


def test_two_ends_on_one_machine_do_not_limit_themselves() -> None:
    with (
        ports.listening_socket(socket.AF_INET, B, 0, shared=False) as listener,
        ports.dialling_socket(socket.AF_INET, A, 0, local=True) as dial,
    ):
        assert min(packet_sizes(listener, dial)) > 10 * ports.LONGEST_SEGMENT
