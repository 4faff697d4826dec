"""The extras of a scene: small programs that run beside the two ends.

    python -m tests.natlab.actors service PORT [BANNER]    accepts everybody
    python -m tests.natlab.actors scanner ADDRESS          connects to every port
    python -m tests.natlab.actors caller ADDRESS PORT...   connects to these
    python -m tests.natlab.actors misfit ADDRESS CHANNEL PORT...   the same, and says a hello that does not fit
    python -m tests.natlab.actors hog SHARE                binds a share of all local ports
    python -m tests.natlab.actors take PORT...             binds these
    python -m tests.natlab.actors map GATEWAY PORT...      has these TCP ports mapped by UPnP, listens on none
    python -m tests.natlab.actors time PORT SECONDS        tells the time by NTP, so much off

Each prints "ready" when it has begun, and ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
import select
import socket
import struct
import sys
import threading
import time

from punchtunnel.protocol import schedule
from punchtunnel.protocol.hello import NONCE_SIZE, Hello, Role

from .portmaps import upnp_map

# What the ends could use: the tool's range and the baseline's.
USED_PORTS = range(10240, 61000)
# Connections a second: the tool's range, which comes first, is through after
# twelve seconds.  Twice as many keep the internet process so
# busy that the ends' own packets are late.
SCAN_RATE = 2000
SCAN_PAUSE = 0.01
# A scanner that gets a connection talks HTTP, as zgrab and its like do.
SCAN_GREETING = b"GET / HTTP/1.0\r\n\r\n"
# Seconds between the calls of a caller.
CALL_PAUSE = 0.5
# Connections the scanner keeps open; the oldest are closed first.
SCAN_HELD = 400
BACKLOG = 512
# Seconds from 1900 to 1970.
NTP_TO_UNIX = 2208988800


def service(port: int, banner: bytes) -> None:
    """Accept every connection, say `banner` if there is one, and hold it open."""
    listener = socket.create_server(("0.0.0.0", port), backlog=BACKLOG)
    _ready()
    held: list[socket.socket] = []
    while True:
        connection, _address = listener.accept()
        with contextlib.suppress(OSError):
            connection.sendall(banner)
        held.append(connection)


def scanner(address: str) -> None:
    """Connect to every port of `address`, over and over, and talk to whatever answers."""
    poller = select.epoll()
    held: dict[int, socket.socket] = {}
    _ready()
    while True:
        for count, port in enumerate(USED_PORTS):
            if count % int(SCAN_RATE * SCAN_PAUSE) == 0:
                _talk(poller, held)
            probe = socket.socket()
            probe.setblocking(False)
            probe.connect_ex((address, port))
            poller.register(probe, select.EPOLLOUT | select.EPOLLONESHOT)
            held[probe.fileno()] = probe


def caller(address: str, ports: list[int], said: bytes = SCAN_GREETING) -> None:
    """Connect to these ports again and again, from whatever port comes, and talk HTTP, or something else."""
    _ready()
    while True:
        for port in ports:
            with contextlib.suppress(OSError), socket.create_connection((address, port), CALL_PAUSE) as call:
                call.settimeout(CALL_PAUSE)
                call.sendall(said)
                call.recv(1)
        time.sleep(CALL_PAUSE)


def misfit(channel: str) -> bytes:
    """Return a hello without a role: 36 bytes that nobody can be linked to."""
    return Hello(os.urandom(NONCE_SIZE), schedule.channel_tag(channel), Role(0)).encode()


def _talk(poller: select.epoll, held: dict[int, socket.socket]) -> None:
    """Greet what has connected, drop what has failed, and keep the pace."""
    deadline = time.monotonic() + SCAN_PAUSE
    while (left := deadline - time.monotonic()) > 0:
        for descriptor, events in poller.poll(left):
            if events & (select.EPOLLERR | select.EPOLLHUP):
                held.pop(descriptor).close()
                continue
            with contextlib.suppress(OSError):
                held[descriptor].send(SCAN_GREETING)
    while len(held) > SCAN_HELD:
        held.pop(next(iter(held))).close()


def hog(share: float) -> None:
    """Occupy a share of all local ports with listeners that nobody can share."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rng = random.Random("busy ports")
    held = []
    for port in USED_PORTS:
        if rng.random() < share:
            one = socket.socket()
            with contextlib.suppress(OSError):
                one.bind(("0.0.0.0", port))
            held.append(one)
    _ready()
    threading.Event().wait()


def take(ports: list[int]) -> None:
    """Occupy some ports without listening: whoever dials them is refused."""
    held = []
    for port in ports:
        held.append(socket.socket())
        held[-1].bind(("0.0.0.0", port))
    _ready()
    threading.Event().wait()


def map_ports(gateway: str, ports: list[int]) -> None:
    """Have a router forward these TCP ports to this host, by UPnP."""
    for port in ports:
        result, _address, _port = upnp_map(gateway, port)
        if result != 0:
            raise SystemExit(f"port {port} was not mapped: error {result}")
    _ready()
    threading.Event().wait()


def time_server(port: int, offset_s: float) -> None:
    """Answer NTP questions with this machine's time and a bit more (RFC 4330 §5)."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("0.0.0.0", port))
    _ready()
    while True:
        question, client = server.recvfrom(512)
        now = struct.pack("!Q", int((time.time() + offset_s + NTP_TO_UNIX) * 2**32))
        # No leap warning, version 4, mode 4; stratum 2; T1 is what the client sent as its T3.
        server.sendto(bytes([0x24, 2]) + bytes(22) + question[40:48] + now + now, client)


def _ready() -> None:
    """Tell the laboratory, and end with it: a thread waits for the end of stdin."""
    ended = threading.Thread(target=_exit_at_eof, daemon=True)
    ended.start()
    print("ready", flush=True)


def _exit_at_eof() -> None:
    sys.stdin.read()
    # The main thread may be in accept(); nothing needs tidying.
    os._exit(0)


def main(arguments: list[str]) -> None:
    """Be the actor that the command line names."""
    match arguments:
        case ["service", port, *banner]:
            service(int(port), " ".join(banner).encode())
        case ["scanner", address]:
            scanner(address)
        case ["caller", address, *ports]:
            caller(address, [int(port) for port in ports])
        case ["misfit", address, channel, *ports]:
            caller(address, [int(port) for port in ports], misfit(channel))
        case ["hog", share]:
            hog(float(share))
        case ["time", port, offset_s]:
            time_server(int(port), float(offset_s))
        case ["map", gateway, *ports]:
            map_ports(gateway, [int(port) for port in ports])
        case ["take", *ports]:
            take([int(port) for port in ports])
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
