"""What is sent through a forwarder: clients of target.py, each a process of its own.

    python -m bench.load probe HOST PORT       until a connection goes through
    python -m bench.load bulk HOST PORT ...    how much arrives in a given time
    python -m bench.load check HOST PORT ...   whether what arrives is what was sent
    python -m bench.load echo HOST PORT ...    how long 64 bytes take there and back
    python -m bench.load answers HOST PORT ... how many new connections a second
    python -m bench.load first HOST PORT ...   how long a new connection takes to its first byte

No client may be slower than a forwarder: bulk sends large blocks that stay in
the cache (sendfile from a file in memory was tried: it moves single pages and
is slower) and spends its time in system calls, so Python's lock is free.

Results are one line of JSON on stdout; any error is a traceback and status 1.
Nothing here has a time limit of its own: who starts a load bounds it.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable

from .target import ANSWER, BLOCK, LENGTH, MIRROR, PROBE, SINK, exactly

PING = 64
# A probe that has not succeeded after this long never will.
PROBE_SECONDS = 30
# Between two new connections: the end of one has passed the path before the next begins.
FIRST_PAUSE = 0.1
# Write sizes of a checked stream: below, at and above what forwarders have as
# buffers, and odd ones.
CHECKED_WRITES = (1, 100, 4096, 16384, 65537, 300_000)


def connected(host: str, port: int, kind: bytes) -> socket.socket:
    """Connect, and wait until the answer shows that the far end is there."""
    sock = socket.create_connection((host, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(kind)
    if sock.recv(1) != ANSWER:
        raise ConnectionError("closed without an answer")
    return sock


def together(work: Callable[[int], None], count: int) -> None:
    """Do something in several threads, and raise what one of them raised."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def probe(host: str, port: int) -> dict[str, float]:
    """Try until one connection goes through."""
    began = time.monotonic()
    while True:
        try:
            connected(host, port, PROBE).close()
            return {"seconds": time.monotonic() - began}
        except OSError:
            if time.monotonic() - began > PROBE_SECONDS:
                raise
            time.sleep(0.02)


def bulk(host: str, port: int, seconds: float, streams: int, idle: int, record: int) -> dict[str, float]:
    """Send on some streams, while others are open, until the time is over and all has arrived.

    Args:
        host, port: Where to.
        seconds: How long to send; what is under way then still counts.
        streams: How many send.
        idle: How many more are open.
        record: Bytes of each write, a power of two up to BLOCK.
    """
    resting = [connected(host, port, SINK) for _ in range(idle)]
    socks = [connected(host, port, SINK) for _ in range(streams)]
    piece = os.urandom(record)
    sent = [0] * streams
    began = time.monotonic()

    def one(number: int) -> None:
        sock = socks[number]
        while time.monotonic() < began + seconds:
            sock.sendall(LENGTH.pack(BLOCK), socket.MSG_MORE)
            for _ in range(BLOCK // record):
                sock.sendall(piece)
            sent[number] += BLOCK
        sock.sendall(LENGTH.pack(0))
        (arrived,) = LENGTH.unpack(exactly(sock, LENGTH.size))
        if arrived != sent[number]:
            raise ConnectionError(f"{arrived} of {sent[number]} bytes arrived")

    together(one, streams)
    took = time.monotonic() - began
    for sock in resting:
        sock.close()
    return {"bytes": sum(sent), "seconds": took}


def check(host: str, port: int, streams: int, size: int) -> dict[str, float]:
    """Send random bytes to the mirror and raise if the hash of what comes back differs."""

    def one(number: int) -> None:
        rng = random.Random(number)
        data = memoryview(rng.randbytes(size))
        with connected(host, port, MIRROR) as sock:
            feeder = threading.Thread(target=_feed, args=(sock, data, rng), daemon=True)
            feeder.start()
            back, left = hashlib.sha256(), size
            while left:
                piece = sock.recv(min(left, 1 << 18))
                if not piece:
                    raise ConnectionError(f"{left} of {size} bytes are missing on stream {number}")
                back.update(piece)
                left -= len(piece)
            feeder.join()
        if back.digest() != hashlib.sha256(data).digest():
            raise ValueError(f"CORRUPT: other bytes came back on stream {number}")

    together(one, streams)
    return {"bytes": streams * size}


def _feed(sock: socket.socket, data: memoryview, rng: random.Random) -> None:
    at = 0
    while at < len(data):
        size = rng.choice(CHECKED_WRITES)
        sock.sendall(data[at : at + size])
        at += size


def echo(host: str, port: int, seconds: float, rate: float) -> dict[str, object]:
    """Return the round trips of 64 bytes in µs, as percentiles.

    With a rate the pings leave on time, whether or not earlier ones are back:
    a stall then costs every ping that falls into it, as it would cost users.
    Without one, each leaves when the one before is back.
    """
    with connected(host, port, MIRROR) as sock:
        times = _paced(sock, seconds, rate) if rate else _in_turn(sock, seconds)
    return {"percentiles": percentiles(times), "count": len(times)}


def ping(sock: socket.socket, number: int) -> None:
    """Send 64 bytes, and wait until they are back."""
    data = number.to_bytes(PING, "big")
    sock.sendall(data)
    if exactly(sock, PING) != data:
        raise ValueError("CORRUPT: another ping came back")


def _in_turn(sock: socket.socket, seconds: float) -> list[int]:
    times: list[int] = []
    end = time.perf_counter_ns() + int(seconds * 1e9)
    for number in itertools.count():
        began = time.perf_counter_ns()
        if began > end:
            return times
        ping(sock, number)
        times.append(time.perf_counter_ns() - began)
    raise AssertionError("a count never ends")


def _paced(sock: socket.socket, seconds: float, rate: float) -> list[int]:
    count = int(seconds * rate)
    leaves: list[int] = []

    def send(_: int) -> None:
        began = time.monotonic()
        for number in range(count):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            # The moment it was due: being late is part of the wait.
            leaves.append(int((began + number / rate) * 1e9))
            sock.sendall(number.to_bytes(PING, "big"))

    sender = threading.Thread(target=send, args=(0,), daemon=True)
    sender.start()
    times = []
    for number in range(count):
        if exactly(sock, PING) != number.to_bytes(PING, "big"):
            raise ValueError("CORRUPT: another ping came back")
        times.append(time.monotonic_ns() - leaves[number])
    return times


def percentiles(times: Iterable[int]) -> list[float]:
    """Return percentiles 0 to 100 in steps of a half, in µs."""
    ordered = sorted(times)
    return [ordered[round((len(ordered) - 1) * half / 200)] / 1000 for half in range(201)]


def answers(host: str, port: int, seconds: float, at_a_time: int) -> dict[str, float]:
    """Connect, send a byte, receive one, close; over and over, some at a time."""
    counts = [0] * at_a_time
    began = time.monotonic()

    def one(number: int) -> None:
        while time.monotonic() < began + seconds:
            answered(host, port)
            counts[number] += 1

    together(one, at_a_time)
    return {"count": sum(counts), "seconds": time.monotonic() - began}


def answered(host: str, port: int) -> None:
    """Connect, send a byte, receive one, close."""
    with socket.socket() as sock:
        sock.connect((host, port))
        sock.send(PROBE)
        if sock.recv(1) != ANSWER:
            raise ConnectionError("closed without an answer")


def first(host: str, port: int, seconds: float) -> dict[str, object]:
    """Return how long new connections take until a byte of theirs is answered, in µs, as percentiles."""
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter_ns()
        answered(host, port)
        times.append(time.perf_counter_ns() - began)
        time.sleep(FIRST_PAUSE)
    return {"percentiles": percentiles(times), "count": len(times)}


def main() -> None:
    """Be the client that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what")
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    for name in ("streams", "idle", "size", "at-a-time"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--record", type=int, default=BLOCK)
    for name in ("seconds", "rate"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    given = parser.parse_args()
    place = given.host, given.port
    clients: dict[str, Callable[[], object]] = {
        "probe": lambda: probe(*place),
        "bulk": lambda: bulk(*place, given.seconds, given.streams, given.idle, given.record),
        "check": lambda: check(*place, given.streams, given.size),
        "echo": lambda: echo(*place, given.seconds, given.rate),
        "answers": lambda: answers(*place, given.seconds, given.at_a_time),
        "first": lambda: first(*place, given.seconds),
    }
    print(json.dumps(clients[given.what]()), flush=True)


if __name__ == "__main__":
    main()
