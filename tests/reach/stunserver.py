"""A STUN server on loopback that says what a test wants."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from punchtunnel.address import Place

# Seconds after which something hangs.
WAIT = 20.0


def mapped(address: tuple[str, int], name: int = 0x0001) -> bytes:
    return struct.pack("!HHBBH", name, 8, 0, 1, address[1]) + socket.inet_aton(address[0])


Reply = Callable[[bytes, tuple[str, int]], bytes]


def honest(request: bytes, client: tuple[str, int]) -> bytes:
    body = mapped(client)
    return struct.pack("!HH", 0x0101, len(body)) + request[4:] + body


def moved(request: bytes, client: tuple[str, int]) -> bytes:
    return honest(request, (client[0], 4711))


@contextlib.contextmanager
def server(reply: Reply, together: int = 1, host: str = "127.0.0.1") -> Iterator[Place]:
    """Answer each connection's first 20 bytes with what `reply` makes of them, and keep it open.

    Of so many connections `together` none is answered before all of them are open.
    """
    listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    held: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                waiting = [listener.accept() for _ in range(together)]
                held.extend(sock for sock, _ in waiting)
                for sock, client in waiting:
                    sock.sendall(reply(sock.recv(20, socket.MSG_WAITALL), client))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield Place(*listener.getsockname()[:2])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(WAIT)
        for sock in (listener, *held):
            sock.close()
        assert not thread.is_alive()
