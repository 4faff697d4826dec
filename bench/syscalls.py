"""Count the system calls that a MiB costs, at either end and in every mode, with strace.

    python -m bench.syscalls          as root, or where ptrace of one's own children is allowed

strace makes everything several times slower, so some reads find less than
they would otherwise; the counts are what each path does, not how fast it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOL = [sys.executable, "-m", "punchtunnel"]
MIB = 1 << 20
# So much that the first frames, which are short until the rate is known, do not count.
SIZE = 4096 * MIB
MODES = {
    "plain, spliced": (["--plain"], {}),
    "plain, copied": (["--plain"], {"PUNCHTUNNEL_NO_SPLICE": "1"}),
    "sealed": ([], {}),
}
# What moves bytes or waits; the rest comes once.
SHOWN = ("splice", "sendto", "recvfrom", "epoll_wait", "epoll_pwait")


def main() -> None:
    """Print a table: system calls for a MiB, by kind, sender and receiver."""
    if not shutil.which("strace"):
        sys.exit("strace is missing: apt-get install strace")
    print(f"{'':34}" + "".join(f"{name:>12}" for name in (*SHOWN, "all")))
    for mode, (options, extra) in MODES.items():
        for end, counts in measure(options, extra).items():
            shown = [counts.get(name, 0) for name in SHOWN]
            figures = "".join(f"{count * MIB / SIZE:12.2f}" for count in (*shown, sum(counts.values())))
            print(f"{f'{mode}, {end}':34}{figures}")


def measure(options: list[str], extra: dict[str, str]) -> dict[str, dict[str, int]]:
    """Send SIZE bytes through -L and --to, and return the calls of both ends by name."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | extra
    channel = ["--channel", f"system calls {os.getpid()}", *options]
    with sink() as target, tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        far = ["127.0.0.2", "--bind", "127.0.0.1", *channel, "-q", "--to", str(target)]
        near = ["127.0.0.1", "--bind", "127.0.0.2", *channel, "--json", "-L", "0"]
        ends = {
            "receiver": subprocess.Popen([*TOOL, *far], env=env, text=True),
            "sender": subprocess.Popen([*TOOL, *near], env=env, stderr=subprocess.PIPE, text=True),
        }
        for end in ends.values():
            stack.callback(end.wait, 30)
        stack.callback(ends["sender"].terminate)
        port = port_of(ends["sender"])
        transfer(port, MIB)
        tracers = []
        for name, end in ends.items():
            command = ["strace", "-c", "-f", "-p", str(end.pid), "-o", f"{folder}/{name}"]
            tracers.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        for tracer in tracers:
            assert tracer.stderr is not None
            # "strace: Process 123 attached"
            tracer.stderr.readline()
        transfer(port, SIZE)
        for tracer in tracers:
            tracer.terminate()
            tracer.communicate(timeout=30)
        return {name: counts_in(Path(folder, name).read_text()) for name in ends}


def counts_in(table: str) -> dict[str, int]:
    """Return the calls by name of what `strace -c` has written."""
    rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", table, re.MULTILINE)
    return {name: int(count) for count, name in rows if name != "total"}


def port_of(near: subprocess.Popen[str]) -> int:
    """Return the port of -L once the link is up."""
    assert near.stderr is not None
    port = 0
    for line in near.stderr:
        event = json.loads(line)
        if event["event"] == "listening":
            port = int(event["place"].rpartition(":")[2])
        if event["event"] == "link_up":
            break
    threading.Thread(target=near.stderr.read, daemon=True).start()
    return port


def transfer(port: int, size: int) -> None:
    """Send `size` bytes and wait until the sink has counted them."""
    chunk = bytes(MIB)
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        for _ in range(size // MIB):
            sock.sendall(chunk)
        sock.shutdown(socket.SHUT_WR)
        assert int.from_bytes(sock.recv(8), "big") == size


@contextlib.contextmanager
def sink() -> Iterator[int]:
    """Swallow what connections send, and answer each EOF with the count."""

    def swallow(sock: socket.socket) -> None:
        with sock:
            buffer, count = bytearray(MIB), 0
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


if __name__ == "__main__":
    main()
