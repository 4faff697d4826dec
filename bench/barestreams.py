"""Streams over one connection with little around them: what one link for all costs in Python at least.

    python -m bench.barestreams near HOST:PORT HOST:PORT [sealed]    listens, and connects to a far one
    python -m bench.barestreams far HOST:PORT HOST:PORT [sealed]     listens, and connects to the target

    clients --> near: accept, recv --> [ header | payload ] ... --> far: connect, send --> target

One edge-triggered epoll and no event loop around it; sockets that do not block;
turns of one frame each; credit, so that nothing is read that cannot be sent, and
a sink that takes nothing stops only its own stream.  The headers are yamux's, and
SYN and FIN ride on payload.  Short frames go together in one record, and what is
not urgent waits for something to go with.  In clear, records are the same but for
the cipher.

What the tool has and this has not: windows that grow and a bound for all of them,
frames that fit the line's rate, signs of life, another hole, ends that are no
sockets, refusals, events that are told.  No tool: the key is known.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections import deque

from punchtunnel.protocol.frames import DATA, FIN, SYN, VERSION, WINDOW
from punchtunnel.protocol.frames import HEADER as FRAME
from punchtunnel.protocol.records import HEADER, MAX_PLAINTEXT, MAX_RECORD, OVERHEAD, Opener, Sealer

READ, WRITE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR, select.EPOLLOUT
WATCHED = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
KEY = bytes(32)
BACKLOG = 1024
# Bytes on their way on one stream, and after how many credit is returned.
CREDIT, OWED = 4 * 1024 * 1024, 1024 * 1024
# Frames up to this go together; so much of the hole is read at once where records are short.
SHORT, SHORT_RECORDS = 4096, 64 * 1024
# Seconds for which what is not urgent waits.
PATIENCE = 0.02


class Stream:
    """A client, or a connection to the target, and what is under way."""

    __slots__ = (
        "credit", "ended", "flags", "has_ended", "hung_up", "in_ring", "number", "owed", "ready", "sock", "waits",
    )  # fmt: skip

    def __init__(self, number: int, sock: socket.socket, flags: int) -> None:
        self.number, self.sock, self.flags = number, sock, flags
        self.credit, self.owed = CREDIT, 0
        # The end has come: of what is read here, and from the other side.
        self.ended = self.has_ended = False
        # A read may give something, and after that the end; it waits for its turn.
        self.ready = self.hung_up = self.in_ring = False
        # What the socket has not taken.
        self.waits = bytearray()


class Hop:
    """One end: `server` accepts clients, or streams of the other end lead to `target`."""

    def __init__(
        self, hole: socket.socket, server: socket.socket | None, target: tuple[str, int], sealed: bool
    ) -> None:
        self._hole, self._server, self._target = hole, server, target
        self._seals = (Sealer(KEY, True), Opener(KEY, True)) if sealed else None
        self._epoll = select.epoll()
        self._streams: dict[int, Stream] = {}
        self._by_fd: dict[int, Stream] = {}
        self._next = 1
        # Streams whose source may have something.
        self._ring: deque[Stream] = deque()
        self._control, self._is_urgent = bytearray(), False
        self._room, self._record = (memoryview(bytearray(MAX_RECORD)) for _ in range(2))
        self._unsent = self._record[:0]
        # Of the record that has begun: what is here of it, its size, and what the kernel was told to wait for.
        self._buffer, self._held, self._size, self._told = memoryview(bytearray(MAX_RECORD + HEADER.size)), 0, 0, 1
        self._is_over = False

    def serve(self) -> None:
        """Forward until the hole ends."""
        hole, server = self._hole.fileno(), -1 if self._server is None else self._server.fileno()
        self._epoll.register(hole, WATCHED | WRITE)
        if self._server is not None:
            self._epoll.register(server, select.EPOLLIN)
        while not self._is_over:
            batch, may_read = self._epoll.poll(PATIENCE if self._control else None), False
            self._is_urgent |= not batch
            for fd, events in batch:
                if fd == hole:
                    may_read = events & READ != 0
                elif fd == server:
                    self._accept()
                elif (stream := self._by_fd.get(fd)) is not None:
                    if events & WRITE and stream.waits:
                        self._deliver_waiting(stream)
                    if events & READ:
                        stream.ready, stream.hung_up = True, events & READ != select.EPOLLIN
                        self._queue(stream)
            while may_read:
                may_read = self._receive()
                self._send()
            self._send()

    # ---- ends -> hole

    def _accept(self) -> None:
        assert self._server is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._server.accept()
                self._join(self._next, sock, SYN)
                self._next += 2

    def _join(self, number: int, sock: socket.socket, flags: int = 0) -> None:
        sock.setblocking(False)
        self._streams[number] = self._by_fd[sock.fileno()] = stream = Stream(number, sock, flags)
        self._epoll.register(sock.fileno(), WATCHED)
        # A client has mostly spoken when it is accepted.
        stream.ready = flags != 0
        self._queue(stream)

    def _queue(self, stream: Stream) -> None:
        if stream.ready and not (stream.in_ring or stream.ended) and stream.credit:
            stream.in_ring = True
            self._ring.append(stream)

    def _send(self) -> None:
        """Send by turns until the hole takes no more, or nothing is there."""
        while True:
            if not self._unsent:
                size = self._load()
                if not size:
                    return
                self._unsent = self._sealed(size)
            try:
                self._unsent = self._unsent[self._hole.send(self._unsent) :]
            except BlockingIOError:
                return

    def _load(self) -> int:
        """Put one record together in the room; return its size."""
        size = 0
        while self._ring and size <= SHORT:
            size += self._read(self._ring.popleft(), size)
        if self._control and (size or self._is_urgent):
            count = min(len(self._control), MAX_PLAINTEXT - size)
            self._room[size : size + count] = self._control[:count]
            del self._control[:count]
            size += count
            self._is_urgent = len(self._control) > 0
        return size

    def _read(self, stream: Stream, begin: int) -> int:
        """Read one frame of a stream into the room; return its size."""
        stream.in_ring = False
        payload = begin + FRAME.size
        # What is not urgent has its place behind.
        limit = min(stream.credit, MAX_PLAINTEXT - SHORT - payload)
        try:
            count = stream.sock.recv_into(self._room[payload : payload + limit])
        except BlockingIOError:
            stream.ready = False
            return 0
        except ConnectionError:
            # A load that has measured enough resets.
            count = 0
        flags, stream.flags = stream.flags, 0
        if not count:
            flags |= FIN
            stream.ended = True
            self._close_if_done(stream)
            if stream.has_ended:
                # Nobody waits for it.
                self._control += FRAME.pack(VERSION, DATA, flags, stream.number, 0)
                return 0
        stream.credit -= count
        stream.ready = count == limit or stream.hung_up
        self._queue(stream)
        FRAME.pack_into(self._room, begin, VERSION, DATA, flags, stream.number, count)
        return FRAME.size + count

    def _sealed(self, size: int) -> memoryview:
        if self._seals is not None:
            return self._record[: self._seals[0].seal_into(self._room[:size], self._record)]
        HEADER.pack_into(self._record, 0, 1 << 24 | size)
        self._record[HEADER.size : HEADER.size + size] = self._room[:size]
        return self._record[: size + OVERHEAD]

    # ---- hole -> ends

    def _receive(self) -> bool:
        """Read the hole once and act on whole records; False if nothing is left there."""
        wanted = (self._size if self._size > SHORT_RECORDS else SHORT_RECORDS) + HEADER.size - self._held
        try:
            count = self._hole.recv_into(self._buffer[self._held : self._held + wanted])
        except BlockingIOError:
            count = -1
        if count > 0:
            self._open(self._held + count)
        if count < wanted:
            # The rest of a long record wakes us once.
            needed = self._size - self._held if self._size > SHORT_RECORDS else 1
            if needed != self._told:
                self._told = needed
                self._hole.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, needed)
        self._is_over = not count
        return count == wanted

    def _open(self, end: int) -> None:
        begin, buffer = 0, self._buffer
        while end - begin >= HEADER.size:
            self._size = self._size or Opener.record_size(buffer, begin)
            if end - begin < self._size:
                break
            record = buffer[begin : begin + self._size]
            self._take(record[HEADER.size : -16] if self._seals is None else self._seals[1].open(record))
            begin, self._size = begin + self._size, 0
        self._held = end - begin
        if begin and self._held:
            buffer[: self._held] = buffer[begin:end]

    def _take(self, frames: memoryview) -> None:
        begin = 0
        while begin < len(frames):
            _, kind, flags, number, length = FRAME.unpack_from(frames, begin)
            begin += FRAME.size
            if flags & SYN:
                sock = socket.create_connection(self._target)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._join(number, sock)
            stream = self._streams.get(number)
            if kind == WINDOW:
                if stream is not None:
                    stream.credit += length
                    self._queue(stream)
                continue
            if stream is not None:
                stream.has_ended = flags & FIN != 0
                self._deliver(stream, frames[begin : begin + length])
            begin += length

    def _deliver(self, stream: Stream, data: memoryview) -> None:
        """Write what has come, unless older bytes wait; what is not taken waits, too."""
        if not stream.waits:
            taken = self._write(stream, data)
            if taken < len(data):
                self._epoll.modify(stream.sock.fileno(), WATCHED | WRITE)
            data = data[taken:]
        stream.waits += data
        self._finish_if_done(stream)

    def _deliver_waiting(self, stream: Stream) -> None:
        with memoryview(stream.waits) as waits:
            taken = self._write(stream, waits)
        del stream.waits[:taken]
        self._finish_if_done(stream)

    def _write(self, stream: Stream, data: memoryview) -> int:
        """Write as much as is taken, and give credit for it; return how much."""
        try:
            taken = stream.sock.send(data) if data else 0
        except BlockingIOError:
            return 0
        except ConnectionError:
            taken = len(data)
        stream.owed += taken
        if stream.owed >= OWED:
            self._control += FRAME.pack(VERSION, WINDOW, 0, stream.number, stream.owed)
            stream.owed, self._is_urgent = 0, True
        return taken

    def _finish_if_done(self, stream: Stream) -> None:
        """Pass the end on as soon as nothing waits before it."""
        if stream.has_ended and not stream.waits:
            if not stream.ended:
                with contextlib.suppress(OSError):
                    stream.sock.shutdown(socket.SHUT_WR)
            self._close_if_done(stream)

    def _close_if_done(self, stream: Stream) -> None:
        if stream.ended and stream.has_ended and not stream.waits:
            del self._streams[stream.number], self._by_fd[stream.sock.fileno()]
            stream.sock.close()


def main(role: str, listen: str, towards: str, *sealed: str) -> None:
    """Be one end until the other one is gone."""
    (host, _, port), (next_host, _, next_port) = listen.rpartition(":"), towards.rpartition(":")
    server, onward = socket.create_server((host, int(port)), backlog=BACKLOG), (next_host, int(next_port))
    # Clients inherit it.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    hole = socket.create_connection(onward) if role == "near" else server.accept()[0]
    hole.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for sock in (hole, server):
        sock.setblocking(False)
    Hop(hole, server if role == "near" else None, onward, bool(sealed)).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
