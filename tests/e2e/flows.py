"""Bytes in and out of tests: descriptors, sockets, threads that feed, servers that answer.

Whatever waits here gives up after WAIT seconds: long enough for a busy
machine, so that it means "hung".
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

# Seconds after which something is called hung.
WAIT = 30.0
# Seconds without a byte after which a flow is called stalled.
QUIET = 1.0
MIB = 1024 * 1024
# struct linger {1, 0}: close() sends RST.
LINGER_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"


# ---- data


def noise(size: int, seed: int = 0) -> bytes:
    """Return bytes that nothing compresses and no offset repeats."""
    return random.Random(seed).randbytes(size)


def pattern(size: int) -> Iterator[bytes]:
    """Yield `size` bytes in chunks of 64 KiB that each carry their own offset."""
    tail = noise(64 * 1024 - 8)
    for offset in range(0, size, 64 * 1024):
        yield offset.to_bytes(8, "big") + tail


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- descriptors


def read(fd: int, count: int | None = None, wait: float = WAIT) -> bytes:
    """Read `count` bytes, or up to EOF; a terminal whose far end is gone counts as EOF."""
    data = bytearray()
    while count is None or len(data) < count:
        ready, _, _ = select.select([fd], [], [], wait)
        assert ready, f"nothing to read for {wait} s, after {len(data)} bytes"
        try:
            chunk = os.read(fd, MIB if count is None else min(MIB, count - len(data)))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            chunk = b""
        if not chunk:
            assert count is None, f"EOF after {len(data)} bytes instead of {count}"
            break
        data += chunk
    return bytes(data)


class Flow(threading.Thread):
    """Writes chunks to a descriptor and closes it; stops quietly when nobody reads any more.

    Attributes:
        written: Bytes taken so far.
    """

    def __init__(self, fd: int, chunks: Iterable[bytes]) -> None:
        super().__init__(daemon=True)
        # Sockets of Python that know a timeout do not block.
        os.set_blocking(fd, True)
        self._fd = fd
        self._chunks = chunks
        self.written = 0

    def run(self) -> None:
        """Write until the end, or until nobody reads."""
        try:
            for chunk in self._chunks:
                view = memoryview(chunk)
                while view:
                    count = os.write(self._fd, view)
                    view = view[count:]
                    self.written += count
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            os.close(self._fd)

    def wait_until_stalled(self) -> int:
        """Wait until nothing more is taken; return the bytes taken."""
        return wait_until_all_stall([self])[0]


def wait_until_all_stall(flows: Sequence[Flow]) -> list[int]:
    """Wait until no flow has had anything taken for QUIET seconds; return the bytes taken of each."""
    deadline = time.monotonic() + WAIT
    before: list[int] = []
    while before != (taken := [flow.written for flow in flows]):
        assert time.monotonic() < deadline, f"still flowing after {WAIT} s: {taken} bytes"
        before = taken
        time.sleep(QUIET)
    return before


class Collector(threading.Thread):
    """Reads a descriptor up to EOF and closes it.

    Attributes:
        data: Bytes read so far.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self.data = bytearray()
        self.start()

    def run(self) -> None:
        """Read until EOF, or until the far end of a terminal is gone."""
        with contextlib.suppress(OSError):
            while chunk := os.read(self._fd, MIB):
                self.data += chunk
        os.close(self._fd)

    def whole(self) -> bytes:
        """Wait for EOF and return everything."""
        self.join(WAIT)
        assert not self.is_alive(), f"no EOF after {WAIT} s and {len(self.data)} bytes"
        return bytes(self.data)


# ---- sockets


def receive(sock: socket.socket, count: int | None = None) -> bytes:
    """Receive `count` bytes, or everything up to EOF.

    Raises:
        ConnectionResetError: RST came instead of EOF.
    """
    sock.settimeout(WAIT)
    data = bytearray()
    while count is None or len(data) < count:
        chunk = sock.recv(MIB if count is None else min(MIB, count - len(data)))
        if not chunk:
            assert count is None, f"EOF after {len(data)} bytes instead of {count}"
            break
        data += chunk
    return bytes(data)


def reset(sock: socket.socket) -> None:
    """Close a socket with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
    sock.close()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def sockets(*states: str) -> list[str]:
    """Return the IPv4 TCP sockets of this machine in these states, as `local remote state`.

    Args:
        states: As in /proc/net/tcp: 01 is ESTABLISHED, 0A is LISTEN.
    """
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [f"{_place(row[1])} {_place(row[2])} {row[3]}" for row in rows if row[3] in states]


def _place(text: str) -> str:
    host, port = text.split(":")
    # The kernel prints the address as one number in the machine's own byte order.
    return f"{socket.inet_ntoa(int(host, 16).to_bytes(4, 'little'))}:{int(port, 16)}"


class Server:
    """Gives each connection to `handle` in a thread of its own, which owns it meanwhile.

    A connection may break, as servers are used to; a handler that fails in any
    other way fails the test when the server is closed.
    """

    def __init__(self, listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._handle = handle
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._errors: list[BaseException] = []
        self._closing = False
        self._accepter = threading.Thread(target=self._accept, daemon=True)
        self._accepter.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(sock)
            thread = threading.Thread(target=self._run, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, sock: socket.socket) -> None:
        try:
            with sock, contextlib.suppress(OSError):
                sock.settimeout(WAIT)
                self._handle(sock)
        except BaseException as error:
            if not self._closing:
                self._errors.append(error)

    def close(self) -> None:
        """Stop accepting, end what still runs, and raise what a handler has raised.

        Raises:
            AssertionError: A handler failed or hangs.
        """
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepter.join(WAIT)
        self._listener.close()
        for sock in self._connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(WAIT)
        assert not any(thread.is_alive() for thread in self._threads), "a server's thread hangs"
        assert not self._errors, f"a server failed: {self._errors[0]!r}"


def echo(sock: socket.socket) -> None:
    """Send everything back, then EOF."""
    while data := sock.recv(64 * 1024):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def discard(sock: socket.socket) -> None:
    """Read everything, answer nothing but EOF."""
    while sock.recv(MIB):
        pass
