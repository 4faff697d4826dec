"""Streams over one connection with nothing around them: what a connection and a message cost in Python at least.

    python -m bench.barestreams near HOST:PORT HOST:PORT [sealed]    listens, and connects to a far one
    python -m bench.barestreams far HOST:PORT HOST:PORT [sealed]     listens, and connects to the target

    clients --> near: accept, recv --> [ header | payload ] ... --> far: connect, send --> target

One edge-triggered epoll and no event loop around it; all frames of a turn in one
send, and in one record.  The headers are yamux's.  No credit, nothing that waits:
what a socket does not take at once is lost, so that only short connections and
messages can be measured.  No tool: the key is known, and an error ends it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

from punchtunnel.protocol.frames import DATA, FIN, SYN, VERSION, WINDOW
from punchtunnel.protocol.frames import HEADER as FRAME
from punchtunnel.protocol.records import Opener, Sealer

WATCHED = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
RECEIVE_SIZE = 256 * 1024
KEY = bytes(32)
BACKLOG = 1024


class Hop:
    """One end: `server` accepts clients, or streams of the other end lead to `target`."""

    def __init__(
        self, hole: socket.socket, server: socket.socket | None, target: tuple[str, int], sealed: bool
    ) -> None:
        self._hole, self._server, self._target = hole, server, target
        self._seals = (Sealer(KEY, True), Opener(KEY, True)) if sealed else None
        self._epoll = select.epoll()
        self._socks: dict[int, socket.socket] = {}
        self._numbers: dict[int, int] = {}
        # Ends of a stream that have come: 1 from here, 2 from the other side.
        self._ended: dict[int, int] = {}
        self._out = bytearray()
        self._next = 1

    def serve(self) -> None:
        """Forward until the hole ends."""
        hole, server = self._hole, self._server
        for sock in filter(None, (hole, server)):
            sock.setblocking(False)
            self._epoll.register(sock.fileno(), WATCHED if sock is hole else select.EPOLLIN)
        while True:
            for fd, _ in self._epoll.poll():
                if fd == hole.fileno():
                    data = hole.recv(RECEIVE_SIZE)
                    if not data:
                        return
                    self._take(data if self._seals is None else self._open(data))
                elif server is not None and fd == server.fileno():
                    self._join(server.accept()[0], self._next)
                    self._say(WINDOW, SYN, self._next)
                    self._read(self._next)
                    self._next += 2
                elif fd in self._numbers:
                    self._read(self._numbers[fd])
            if self._out:
                hole.send(self._out if self._seals is None else self._seals[0].seal(bytes(self._out)))
                self._out.clear()

    def _open(self, data: bytes) -> bytes:
        """Open whole records: each was sent at once, and is short."""
        assert self._seals is not None
        begin, found, record = 0, b"", memoryview(data)
        while begin < len(data):
            size = self._seals[1].record_size(data, begin)
            found += self._seals[1].open(record[begin : begin + size])
            begin += size
        return found

    def _say(self, kind: int, flags: int, number: int, payload: bytes = b"") -> None:
        self._out += FRAME.pack(VERSION, kind, flags, number, len(payload)) + payload

    def _join(self, sock: socket.socket, number: int) -> None:
        sock.setblocking(False)
        self._socks[number], self._numbers[sock.fileno()], self._ended[number] = sock, number, 0
        self._epoll.register(sock.fileno(), WATCHED)

    def _read(self, number: int) -> None:
        if self._ended[number] & 1:
            return
        try:
            payload = self._socks[number].recv(RECEIVE_SIZE)
        except BlockingIOError:
            return
        except ConnectionError:
            # A load that has measured enough resets.
            payload = b""
        self._say(DATA, 0 if payload else FIN, number, payload)
        if not payload:
            self._end(number, 1)

    def _take(self, data: bytes) -> None:
        begin = 0
        while begin < len(data):
            _, _, flags, number, length = FRAME.unpack_from(data, begin)
            begin += FRAME.size
            if flags & SYN:
                sock = socket.create_connection(self._target)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._join(sock, number)
            if length:
                with contextlib.suppress(ConnectionError):
                    self._socks[number].send(data[begin : begin + length])
                begin += length
            if flags & FIN:
                with contextlib.suppress(OSError):
                    self._socks[number].shutdown(socket.SHUT_WR)
                self._end(number, 2)

    def _end(self, number: int, side: int) -> None:
        self._ended[number] |= side
        if self._ended[number] == 3:
            sock = self._socks.pop(number)
            del self._numbers[sock.fileno()], self._ended[number]
            sock.close()


def main(role: str, listen: str, towards: str, *sealed: str) -> None:
    """Be one end until the other one is gone."""
    (host, _, port), (next_host, _, next_port) = listen.rpartition(":"), towards.rpartition(":")
    server, onward = socket.create_server((host, int(port)), backlog=BACKLOG), (next_host, int(next_port))
    # Clients inherit it.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    hole = socket.create_connection(onward) if role == "near" else server.accept()[0]
    hole.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    Hop(hole, server if role == "near" else None, onward, bool(sealed)).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
