"""The plain published algorithm, as PUNCHING.md §1 describes it, to compare with.

    bucket = floor((t - 20) / 42), computed once, at the start
    ports  = 16 numbers from random.Random(bucket), 10240..60999
    loop   : connect_ex on all 16 sockets, again every 10-50 ms; no listener
    winner : the side with the greater address sends one byte on the first
             socket that it finds open; the other takes the socket it gets it on

It has the part of the tool's command line that the laboratory uses, and
`--own ADDR`, because it cannot know its public address.
"""

from __future__ import annotations

import argparse
import errno
import ipaddress
import json
import math
import os
import random
import selectors
import socket
import sys
import time

BUCKET_SECONDS = 42
BUCKET_BORDER = 20
PORTS = 16
FIRST_PORT, LAST_PORT = 10240, 60999
SHORTEST_WAIT, LONGEST_WAIT = 0.010, 0.050
NO_HOLE, LOCAL = 3, 5
CHUNK = 65536


def emit(event: str, **fields: object) -> None:
    """Write one event as the tool does with --json."""
    print(json.dumps({"time_s": time.time(), "event": event, **fields}), file=sys.stderr, flush=True)


def bucket_ports(t: float) -> list[int]:
    """Return the ports of the bucket that `t` lies in."""
    rng = random.Random(math.floor((t - BUCKET_BORDER) / BUCKET_SECONDS))
    return [rng.randint(FIRST_PORT, LAST_PORT) for _ in range(PORTS)]


def open_sockets(ports: list[int], family: socket.AddressFamily) -> dict[int, socket.socket]:
    """Return a bound, non-blocking socket for each port that is free."""
    sockets = {}
    for port in dict.fromkeys(ports):
        one = socket.socket(family)
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            one.bind(("", port))
        except OSError:
            one.close()
        else:
            sockets[port] = one
    return sockets


def punch(peer: str, sockets: dict[int, socket.socket], leads: bool, deadline: float) -> socket.socket | None:
    """Dial until a winner is known or the deadline is over."""
    open_ones: list[socket.socket] = []
    while time.time() < deadline:
        for port, one in list(sockets.items()):
            # An open socket answers EISCONN; after an error Linux lets the
            # same socket dial again.
            if one.connect_ex((peer, port)) in (0, errno.EISCONN):
                open_ones.append(sockets.pop(port))
        for one in open_ones:
            if leads:
                one.send(b"!")
                return one
            try:
                if one.recv(1) == b"!":
                    return one
            except OSError:
                continue
        time.sleep(random.uniform(SHORTEST_WAIT, LONGEST_WAIT))
    return None


def bridge(winner: socket.socket) -> None:
    """Carry stdin and stdout until both directions have ended."""
    winner.setblocking(True)
    ways = {0: True, winner.fileno(): True}
    selector = selectors.DefaultSelector()
    for descriptor in ways:
        selector.register(descriptor, selectors.EVENT_READ)
    while selector.get_map():
        for key, _events in selector.select():
            data = os.read(key.fd, CHUNK)
            if not data:
                selector.unregister(key.fd)
                if key.fd == 0:
                    winner.shutdown(socket.SHUT_WR)
            elif key.fd == 0:
                winner.sendall(data)
            else:
                sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def main() -> int:
    """Run one side; return the exit status."""
    options = argparse.ArgumentParser()
    options.add_argument("peer")
    options.add_argument("--own", required=True)
    options.add_argument("--stdio", action="store_true")
    options.add_argument("--json", action="store_true")
    options.add_argument("--clock-offset", type=float, default=0.0)
    options.add_argument("-w", type=float, default=120.0)
    given = options.parse_args()
    family = socket.AF_INET6 if ":" in given.peer else socket.AF_INET
    sockets = open_sockets(bucket_ports(time.time() + given.clock_offset), family)
    if not sockets:
        emit("exit", status=LOCAL, reason="no port could be bound")
        return LOCAL
    emit("punching")
    leads = ipaddress.ip_address(given.own).packed > ipaddress.ip_address(given.peer).packed
    winner = punch(given.peer, sockets, leads, time.time() + given.w)
    if winner is None:
        emit("exit", status=NO_HOLE, reason="no hole in time")
        return NO_HOLE
    emit("hole")
    for other in sockets.values():
        other.close()
    bridge(winner)
    emit("exit", status=0, reason="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
