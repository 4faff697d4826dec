"""What forwarders lead to: a process that swallows, mirrors or answers.

    python -m bench.target ADDRESS

It prints its two ports as JSON and serves until stdin ends.  A client speaks
first, one byte, and is answered with one byte, so that it knows when its
connection reaches all the way:

    work    "S" then blocks (8 bytes of length, the bytes), a length of 0 is the
                end and is answered with the count of bytes: a sink
            "E" then anything, which is sent back: a mirror
            "P" then the end
    answer  "P" and is closed behind the answer

The sink must not be slower than a forwarder: it throws away without copying
(MSG_TRUNC, tcp(7)) and without looking; hashes are compared with the mirror.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading

# One system call moves a block; large against a socket's buffer, so that no
# forwarder is kept waiting between two of them.
BLOCK = 1 << 20
LENGTH = struct.Struct("!Q")
ANSWER = b"."
SINK, MIRROR, PROBE = b"S", b"E", b"P"
BACKLOG = 1024
# Seconds for which a connection without a byte is not accepted.
DEFER_SECONDS = 30
# Threads of a thousand idle connections need no more.
STACK_BYTES = 256 * 1024


def exactly(sock: socket.socket, size: int) -> bytes:
    """Receive exactly so many bytes."""
    data = sock.recv(size, socket.MSG_WAITALL)
    if len(data) != size:
        raise ConnectionError(f"{len(data)} of {size} bytes, and then the end")
    return data


def serve(address: str) -> None:
    """Serve on two free ports until stdin ends."""
    work, answer = (socket.create_server((address, 0), backlog=BACKLOG) for _ in range(2))
    threading.Thread(target=_serve_work, args=(work,), daemon=True).start()
    threading.Thread(target=_serve_answers, args=(answer,), daemon=True).start()
    print(json.dumps({"work": work.getsockname()[1], "answer": answer.getsockname()[1]}), flush=True)
    sys.stdin.read()


def _serve_work(server: socket.socket) -> None:
    threading.stack_size(STACK_BYTES)
    while True:
        threading.Thread(target=_work, args=(server.accept()[0],), daemon=True).start()


def _work(sock: socket.socket) -> None:
    # A client that goes away, as probes do, ends its own connection only.
    with sock, contextlib.suppress(ConnectionError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kind = sock.recv(1)
        sock.sendall(ANSWER)
        if kind == SINK:
            _sink(sock)
        elif kind == MIRROR:
            _mirror(sock)


# Never touched by MSG_TRUNC, so one does for all threads.
_NOWHERE = bytearray(BLOCK)


def _sink(sock: socket.socket) -> None:
    total = 0
    while size := LENGTH.unpack(exactly(sock, LENGTH.size))[0]:
        left = size
        while left:
            received = sock.recv_into(_NOWHERE, min(left, BLOCK), socket.MSG_TRUNC | socket.MSG_WAITALL)
            if not received:
                raise ConnectionError("ended within a block")
            left -= received
        total += size
    sock.sendall(LENGTH.pack(total))


def _mirror(sock: socket.socket) -> None:
    buffer = memoryview(bytearray(1 << 18))
    while received := sock.recv_into(buffer):
        sock.sendall(buffer[:received])


def _serve_answers(server: socket.socket) -> None:
    # Accepted when the first byte is there, so that one thread never waits for it.
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_SECONDS)
    while True:
        sock = server.accept()[0]
        with sock, contextlib.suppress(ConnectionError, BlockingIOError):
            sock.recv(1, socket.MSG_DONTWAIT)
            sock.send(ANSWER)


if __name__ == "__main__":
    serve(sys.argv[1])
