"""Figures of the data path on this machine: one stream through -L and --to, beside socat in alternation.

Absolute figures depend on the machine; the ratio to socat, measured in the
same minute, does not.  Also: start-up, and the time of a punch over loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

RUNS = 5
SIZE = 1 << 30
CHUNK = bytes(1 << 20)
TOOL = [sys.executable, "-m", "punchtunnel"]
LEFT = ["127.0.0.2", "--bind", "127.0.0.1", "--channel", f"bench {os.getpid()}"]
RIGHT = ["127.0.0.1", "--bind", "127.0.0.2", "--channel", f"bench {os.getpid()}"]


def main() -> None:
    """Measure and print."""
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"--help                     {statistics.median(map(help_seconds, range(RUNS))):6.2f} s")
    print(
        f"punch over loopback        {statistics.median(map(punch_seconds, range(RUNS))):6.3f} s from the later start"
    )
    with sink() as target, tunnel(target) as ours:
        rates: dict[str, list[float]] = {"punchtunnel -L/--to": [], "socat -b1048576": []}
        for _ in range(RUNS):
            rates["punchtunnel -L/--to"].append(rate(ours))
            if shutil.which("socat"):
                with socat(target) as theirs:
                    rates["socat -b1048576"].append(rate(theirs))
    for name, values in rates.items():
        if values:
            print(f"{name:26} {statistics.median(values):6.0f} MiB/s, median of {len(values)} in alternation")


def help_seconds(_: int) -> float:
    """Return how long --help takes."""
    began = time.monotonic()
    subprocess.run([*TOOL, "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def punch_seconds(_: int) -> float:
    """Return the time from the later first dial to both sides holding the hole."""
    ends = [
        subprocess.Popen([*TOOL, *end, "-n", "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for end in (LEFT, RIGHT)
    ]
    times = [times_of(end) for end in ends]
    return max(each["hole"] for each in times) - max(each["punching"] for each in times)


def times_of(end: subprocess.Popen[str]) -> dict[str, float]:
    """Return when each event of a process happened first; waits for its end."""
    assert end.stderr is not None
    times: dict[str, float] = {}
    for line in end.stderr:
        event = json.loads(line)
        times.setdefault(event["event"], event["time_s"])
    end.wait(30)
    return times


def rate(port: int) -> float:
    """Send SIZE bytes to a port, wait until they have arrived, and return MiB/s."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as sock:
        for _ in range(SIZE // len(CHUNK)):
            sock.sendall(CHUNK)
        sock.shutdown(socket.SHUT_WR)
        count = int.from_bytes(sock.recv(8), "big")
    assert count == SIZE, f"{count} of {SIZE} bytes arrived"
    return SIZE / (1 << 20) / (time.monotonic() - began)


@contextlib.contextmanager
def sink() -> Iterator[int]:
    """Swallow what connections send, and answer each EOF with the count."""

    def swallow(sock: socket.socket) -> None:
        with sock:
            buffer, count = bytearray(1 << 20), 0
            while received := sock.recv_into(buffer):
                count += received
            sock.sendall(count.to_bytes(8, "big"))

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=swallow, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        yield server.getsockname()[1]


@contextlib.contextmanager
def tunnel(target: int) -> Iterator[int]:
    """Run two ends; the port leads to the target."""
    far = subprocess.Popen([*TOOL, *LEFT, "-q", "--to", str(target)])
    near = subprocess.Popen([*TOOL, *RIGHT, "--json", "-L", "0"], stderr=subprocess.PIPE, text=True)
    try:
        assert near.stderr is not None
        event = json.loads(near.stderr.readline())
        yield int(event["place"].rpartition(":")[2])
    finally:
        near.terminate()
        near.wait(30)
        far.wait(30)


@contextlib.contextmanager
def socat(target: int) -> Iterator[int]:
    """Run socat as a forwarder for one connection."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    listen = f"TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr"
    # Two hops, as the tunnel has.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        middle = probe.getsockname()[1]
    second = f"TCP-LISTEN:{middle},bind=127.0.0.1,reuseaddr"
    commands = [
        ["socat", "-b1048576", "-t10", second, f"TCP:127.0.0.1:{target}"],
        ["socat", "-b1048576", "-t10", listen, f"TCP:127.0.0.1:{middle}"],
    ]
    forwarders = [subprocess.Popen(command) for command in commands]
    try:
        for listening in (middle, port):
            wait_until_listening(listening)
        yield port
    finally:
        for forwarder in forwarders:
            forwarder.terminate()
            forwarder.wait(30)


def wait_until_listening(port: int) -> None:
    """Look into /proc until somebody listens; connecting would use the one connection up."""
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with open("/proc/net/tcp") as table:
            if wanted in table.read():
                return
        time.sleep(0.01)
    raise TimeoutError(f"nobody listens on port {port}")


if __name__ == "__main__":
    main()
