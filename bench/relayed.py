"""Small messages beside bulk through a transit relay, over a slow line on either half.

    load --> [ side ] ===> relay ===> [ side ] --> target
                       the line is one of these two halves

    python -m bench.relayed [SECONDS]        needs root, and the package magic-wormhole-transit-relay

For each line, each half and each direction of bulk: what a message of 64 bytes needs there and
back beside bulk, and how much of the line bulk takes; with the window of link/flight.py, and
without it.  Run by hand: its rows are no part of the bench, because they need the relay.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from punchtunnel.address import Place, parse_target
from punchtunnel.protocol.hello import Role
from punchtunnel.protocol.resume import Ticket
from punchtunnel.reporting.events import Event, Report
from punchtunnel.session.comeback import Return
from punchtunnel.session.plan import Plan
from punchtunnel.session.roles import Listener, Ports
from punchtunnel.session.seeker import seekers
from punchtunnel.session.session import Session
from punchtunnel.system.signals import Wake
from tests.e2e.relaypair import ask, met, running_relay
from tests.natlab import sandbox

from .hole import LEFT, NAMES, RIGHT, Path, hosts

LOCAL = "127.0.0.1"
PIECE = bytes(64 * 1024)
# Seconds before anything is measured, and between two messages.
WARM = 3.0
EVERY = 0.02
LINES = [Path(100, 0.001, 0.2), Path(10, 0.02, 0.2), Path(1, 0.1, 0.5), Path(50, 0.05, 0.2)]


class Nowhere:
    """Finds no other hole."""

    def again(self, ticket: Ticket, received: int, deadline: float, signals: Wake, report: Report) -> Return:
        raise RuntimeError


async def side(relay: Place, leads: bool, flag: str, port: int) -> None:
    """Run one side: the leader listens and prints the port, the other one connects to `port`."""
    hole = met(await asyncio.to_thread(ask, relay), leads, flag)
    listener = socket.create_server((LOCAL, 0))
    ends = Ports([Listener(listener)]) if leads else Ports(targets={"": parse_target(str(port))})

    def report(event: Event) -> None:
        print(event, file=sys.stderr, flush=True)

    plan = Plan(Role.LISTEN if leads else Role.TO, ends, resume=60.0)
    session = Session(asyncio.get_running_loop(), hole, plan, report, seekers(Nowhere()), own_loop=True)
    session.start(b"")
    print(listener.getsockname()[1], flush=True)
    await session.ended


def target() -> None:
    """Do what the first byte of a connection says: echo, discard and then tell that all came, or pour."""
    server = socket.create_server((LOCAL, 0))
    print(server.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=_serve, args=[server.accept()[0]], daemon=True).start()


def _serve(sock: socket.socket) -> None:
    with sock, contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        what = sock.recv(1)
        while what == b"p":
            sock.sendall(PIECE)
        while data := sock.recv(len(PIECE)):
            if what == b"e":
                sock.sendall(data)
        sock.sendall(b".")


def load(port: int, ways: str, seconds: float) -> None:
    """Print milliseconds of a message, p50 and p99, without bulk and beside it, and Mbit/s of bulk."""
    quiet = _messages(port, 1.0)
    rates: list[float] = []
    bulk = [threading.Thread(target=_bulk, args=[port, way, WARM + seconds, rates]) for way in ways]
    for thread in bulk:
        thread.start()
    first = _messages(port, WARM)
    busy = _messages(port, seconds)
    for thread in bulk:
        thread.join()
    print(*(f"{value:.1f}" for value in (quiet[0], max(first), busy[0], busy[1], *rates)), flush=True)


def _messages(port: int, seconds: float) -> tuple[float, float]:
    times, until = [], time.monotonic() + seconds
    with socket.create_connection((LOCAL, port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"e")
        while (began := time.monotonic()) < until:
            sock.sendall(bytes(64))
            missing = 64
            while missing:
                missing -= len(sock.recv(missing))
            times.append((time.monotonic() - began) * 1e3)
            time.sleep(EVERY)
    times.sort()
    return times[len(times) // 2], times[len(times) * 99 // 100]


def _bulk(port: int, way: str, seconds: float, rates: list[float]) -> None:
    """Send (d) or receive (p) for so many seconds."""
    began, count = time.monotonic(), 0
    with socket.create_connection((LOCAL, port)) as sock:
        sock.sendall(way.encode())
        while time.monotonic() - began < seconds:
            count += sock.send(PIECE) if way == "d" else len(sock.recv(len(PIECE)))
        if way == "d":
            sock.shutdown(socket.SHUT_WR)
            sock.recv(1)
    rates.append(count * 8e-6 / (time.monotonic() - began))


@contextlib.contextmanager
def running(namespace: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run one of the functions above as a process of its own."""
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "bench.relayed", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line of a process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def measure(half: int, flag: str, ways: str, seconds: float) -> str:
    """Return a row: the relay is on the host of the second or of the first side."""
    near, far = NAMES
    # On both hosts, and it says the same to both.
    home = (RIGHT, LEFT)[half]
    with contextlib.ExitStack() as stack:
        namespace = ("ip", "netns", "exec", (far, near)[half])
        relay = stack.enter_context(running_relay(home, namespace=namespace))
        port = line_of(stack.enter_context(running(far, "target")))
        sides = [
            stack.enter_context(running(name, "side", relay.host, relay.port, leads, flag, port))
            for name, leads in ((near, 1), (far, 0))
        ]
        listening = line_of(sides[0])
        line_of(sides[1])
        return line_of(stack.enter_context(running(near, "load", listening, ways, seconds)))


def main(arguments: list[str]) -> None:
    """Measure, or be one of the processes."""
    match arguments:
        case ["target"]:
            target()
        case ["side", host, port, leads, flag, there]:
            asyncio.run(side(Place(host, int(port)), leads == "1", flag.strip("-"), int(there)))
        case ["load", port, ways, seconds]:
            load(int(port), ways, float(seconds))
        case _:
            duration = float(arguments[0]) if arguments else 10.0
            sandbox.enter()
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            print("ms without bulk | worst of the first 3 s | p50 | p99 | Mbit/s of bulk", flush=True)
            for path in LINES:
                for ways in ("d", "p", "dp"):
                    for half in (0, 1):
                        for flag in ("-", "relay"):
                            with hosts(path):
                                row = measure(half, flag, ways, duration)
                            name = f"{path.rate_mbit_s:g} Mbit/s, {2e3 * path.delay_s:g} ms, half {half}, {ways}"
                            print(f"{name:32} {'window' if flag != '-' else 'none':7} {row}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
