"""Streams over one connection with little around them: what one link for all costs in Python at least.

    python -m bench.barestreams near HOST:PORT HOST:PORT [sealed]    listens, and connects to a far one
    python -m bench.barestreams far HOST:PORT HOST:PORT [sealed]     listens, and connects to the target

    clients --> near: accept, recv --> [ header | payload ] ... --> far: connect, send --> target

One edge-triggered epoll and no event loop around it, and sockets that do not block.
Streams take turns of one frame each, and only while the hole takes them; what a slow
sink does not take waits for it alone, and credit bounds how much that is.  Headers
are yamux's; SYN and FIN ride on payload, short frames go together in one record, and
what is not urgent waits a little for something to go with.  In clear, records are the
same, with nothing in the place of the tag.

What the tool has and this has not: windows that grow and a bound for all of them,
frames that fit the line's rate, signs of life, another hole, ends that are no sockets,
events that are told, a look at who waits for what before it sleeps.  A stream opens
with its client's first byte, and a reset is passed on as an end.  No tool: the key is
known.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys
import time
from collections import deque

from punchtunnel.protocol.frames import DATA, FIN, SYN, VERSION, WINDOW
from punchtunnel.protocol.frames import HEADER as FRAME
from punchtunnel.protocol.records import AEAD_TAG_SIZE, HEADER, MAX_PLAINTEXT, MAX_RECORD, OVERHEAD, Opener, Sealer
from punchtunnel.protocol.records import DATA as RECORD

READ, WRITE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR, select.EPOLLOUT
WATCHED = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
KEY = bytes(32)
BACKLOG = 1024
# Bytes on their way on one stream, and after how many credit is returned.
CREDIT, OWED = 4 * 1024 * 1024, 1024 * 1024
# Bytes: frames up to this go together; so much of the hole is read at once where records are short.
SHORT, SHORT_RECORDS = 4096, 64 * 1024
# Seconds for which what is not urgent waits.
PATIENCE = 0.02
# Reads of the hole until the others have their turn.
STEPS = 16


class Stream:
    """A client, or a connection to the target, and what is under way."""

    __slots__ = (
        "credit", "ended_here", "ended_there", "flags", "hung_up", "in_ring", "number", "owed", "ready", "sock",
        "waits",
    )  # fmt: skip

    def __init__(self, number: int, sock: socket.socket, flags: int) -> None:
        self.number, self.sock, self.flags = number, sock, flags
        self.credit, self.owed = CREDIT, 0
        self.ended_here = self.ended_there = False
        # A read may give something, and after that the end; it waits for its turn.
        self.ready = self.hung_up = self.in_ring = False
        # What the socket has not taken.
        self.waits = bytearray()

    def read_into(self, room: memoryview) -> int:
        """Read until there is nothing more, or the end, or no room; return the bytes."""
        count = 0
        while self.ready and count < len(room):
            try:
                more = self.sock.recv_into(room[count:])
            except BlockingIOError:
                self.ready = False
                break
            except ConnectionError:
                # A load that has measured enough resets.
                more = 0
            count += more
            self.ended_here = not more
            # After less than there was room for, nothing is left but an end.
            self.ready = more > 0 and (count == len(room) or self.hung_up)
        return count


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
        # Frames without payload, and when they have waited long enough.
        self._control, self._is_urgent, self._due = bytearray(), False, 0.0
        # Where a record is put together, in clear with its header, and where it is sealed to.
        self._clear, self._sealed = (memoryview(bytearray(MAX_RECORD)) for _ in range(2))
        self._room = self._clear[HEADER.size : HEADER.size + MAX_PLAINTEXT]
        self._unsent = self._clear[:0]
        # Of the record that has begun: what is here of it, its size, and what the kernel was told to wait for.
        self._buffer, self._held, self._size, self._told = memoryview(bytearray(MAX_RECORD + HEADER.size)), 0, 0, 1
        self._hung_up = self._is_over = False

    def serve(self) -> None:
        """Forward until the hole ends."""
        hole, server = self._hole.fileno(), -1 if self._server is None else self._server.fileno()
        self._epoll.register(hole, WATCHED | WRITE)
        if self._server is not None:
            self._epoll.register(server, select.EPOLLIN)
        may_read = False
        while not self._is_over:
            for fd, events in self._epoll.poll(0 if may_read else PATIENCE if self._control else None):
                if fd == hole:
                    may_read = may_read or events & READ != 0
                    self._hung_up = self._hung_up or events & READ > select.EPOLLIN
                elif fd == server:
                    self._accept()
                elif (stream := self._by_fd.get(fd)) is not None:
                    self._on_events(stream, events)
            for _ in range(STEPS):
                if not may_read:
                    break
                may_read = self._receive()
                self._send()
            if self._control and not self._is_urgent:
                self._is_urgent = time.monotonic() >= self._due
            self._send()

    def _on_events(self, stream: Stream, events: int) -> None:
        if events & WRITE and stream.waits:
            self._deliver_waiting(stream)
        if events & READ and not stream.ended_here:
            stream.ready, stream.hung_up = True, events & READ != select.EPOLLIN
            self._queue(stream)

    # ---- ends -> hole

    def _accept(self) -> None:
        assert self._server is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._server.accept()
                # It has mostly spoken when it is accepted.
                self._join(self._next, sock, SYN, ready=True)
                self._next += 2

    def _join(self, number: int, sock: socket.socket, flags: int, *, ready: bool) -> None:
        sock.setblocking(False)
        self._streams[number] = self._by_fd[sock.fileno()] = stream = Stream(number, sock, flags)
        self._epoll.register(sock.fileno(), WATCHED)
        stream.ready = ready
        self._queue(stream)

    def _queue(self, stream: Stream) -> None:
        if stream.ready and stream.credit and not stream.in_ring:
            stream.in_ring = True
            self._ring.append(stream)

    def _say(self, kind: int, flags: int, number: int, length: int, *, urgent: bool) -> None:
        if not self._control:
            self._due = time.monotonic() + PATIENCE
        self._control += FRAME.pack(VERSION, kind, flags, number, length)
        self._is_urgent = self._is_urgent or urgent

    def _send(self) -> None:
        """Send by turns until the hole takes no more, or nothing is there."""
        while True:
            if not self._unsent:
                size = self._load()
                if not size:
                    return
                self._unsent = self._record(size)
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
            free = MAX_PLAINTEXT - size
            count = min(len(self._control), free - free % FRAME.size)
            self._room[size : size + count] = self._control[:count]
            del self._control[:count]
            size += count
            self._is_urgent = len(self._control) > 0
        return size

    def _read(self, stream: Stream, begin: int) -> int:
        """Read one frame of a stream into the room; return its size."""
        stream.in_ring = False
        payload = begin + FRAME.size
        # The frames that wait have their place behind.
        limit = min(stream.credit, MAX_PLAINTEXT - SHORT - payload)
        count = stream.read_into(self._room[payload : payload + limit])
        if not (count or stream.ended_here):
            return 0
        stream.credit -= count
        self._queue(stream)
        flags, stream.flags = stream.flags, 0
        if stream.ended_here:
            flags |= FIN
            self._close_if_done(stream)
            if stream.ended_there and not count:
                # It is urgent to nobody.
                self._say(DATA, flags, stream.number, 0, urgent=False)
                return 0
        FRAME.pack_into(self._room, begin, VERSION, DATA, flags, stream.number, count)
        return FRAME.size + count

    def _record(self, size: int) -> memoryview:
        if self._seals is not None:
            return self._sealed[: self._seals[0].seal_into(self._room[:size], self._sealed)]
        HEADER.pack_into(self._clear, 0, RECORD << 24 | size)
        return self._clear[: size + OVERHEAD]

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
        return count == wanted or (self._hung_up and count > 0)

    def _open(self, end: int) -> None:
        begin, buffer = 0, self._buffer
        while end - begin >= HEADER.size:
            self._size = self._size or Opener.record_size(buffer, begin)
            if end - begin < self._size:
                break
            record = buffer[begin : begin + self._size]
            self._take(self._seals[1].open(record) if self._seals is not None else record[HEADER.size : -AEAD_TAG_SIZE])
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
                sock = socket.socket()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # The target is on the same host: the call ends with the handshake.
                sock.connect(self._target)
                self._join(number, sock, 0, ready=False)
            stream = self._streams.get(number)
            if kind == WINDOW:
                if stream is not None:
                    stream.credit += length
                    self._queue(stream)
                continue
            if stream is not None:
                stream.ended_there = flags & FIN != 0
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
            self._say(WINDOW, 0, stream.number, stream.owed, urgent=True)
            stream.owed = 0
        return taken

    def _finish_if_done(self, stream: Stream) -> None:
        """Pass the end on as soon as nothing waits before it."""
        if stream.ended_there and not stream.waits:
            if not stream.ended_here:
                with contextlib.suppress(OSError):
                    stream.sock.shutdown(socket.SHUT_WR)
            self._close_if_done(stream)

    def _close_if_done(self, stream: Stream) -> None:
        if stream.ended_here and stream.ended_there and not stream.waits:
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
