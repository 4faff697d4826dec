"""A sealed hop with nothing around it: what Python, AES-GCM and the kernel's sockets allow at most.

    python -m bench.bare near HOST:PORT HOST:PORT     listens, and connects to a far one
    python -m bench.bare far HOST:PORT HOST:PORT      listens, and connects to the target

    client --> near: recv, seal, send --> far: recv, open, send --> target

A connection and two threads for each client: no hole, no streams, no credit,
no event loop, and sockets that block.  Records are the tool's own.  No tool:
the key is known, and an end of one direction is all that is told of an error.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable

from punchtunnel.protocol.records import HEADER, MAX_PLAINTEXT, MAX_RECORD, Opener, Sealer

Move = Callable[[socket.socket, socket.socket], None]
KEY = bytes(32)
BACKLOG = 1024


def seal(source: socket.socket, hole: socket.socket) -> None:
    """Send records of what the source gives until it ends."""
    sealer, record = Sealer(KEY, True), memoryview(bytearray(MAX_RECORD))
    plaintext = memoryview(bytearray(MAX_PLAINTEXT))
    while count := source.recv_into(plaintext):
        hole.sendall(record[: sealer.seal_into(plaintext[:count], record)])


def unseal(hole: socket.socket, sink: socket.socket) -> None:
    """Send what the records hold until they end."""
    opener, record = Opener(KEY, True), memoryview(bytearray(MAX_RECORD))
    while hole.recv_into(record, HEADER.size, socket.MSG_WAITALL):
        size = opener.record_size(record)
        hole.recv_into(record[HEADER.size :], size - HEADER.size, socket.MSG_WAITALL)
        sink.sendall(opener.open(record[:size]))


def pump(move: Move, source: socket.socket, sink: socket.socket) -> None:
    """Run one direction, and pass its end on."""
    with contextlib.suppress(OSError):
        move(source, sink)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def serve(is_near: bool, listen: str, towards: str) -> None:
    """Forward every client until the process is ended."""
    (host, _, port), (next_host, _, next_port) = listen.rpartition(":"), towards.rpartition(":")
    server = socket.create_server((host, int(port)), backlog=BACKLOG)
    while True:
        client, _ = server.accept()
        onward = socket.create_connection((next_host, int(next_port)))
        for sock in (client, onward):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        there, back = (seal, unseal) if is_near else (unseal, seal)
        for way in ((there, client, onward), (back, onward, client)):
            threading.Thread(target=pump, args=way, daemon=True).start()


if __name__ == "__main__":
    serve(sys.argv[1] == "near", *sys.argv[2:])
