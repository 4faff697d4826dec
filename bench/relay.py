"""What a transit relay costs the machine that it runs on: `python -m bench.relay`, with Debian's twist3.

    waiting     connections that have asked, and whose peer is not there
    pairs       joined, and idle
    one pair    as fast as it goes, for SECONDS

It runs on the loopback, at a port that the system chooses, and is gone afterwards.  Sender and receiver run beside it
on the same machine, so the speed is that of a core of it at most.
"""

from __future__ import annotations

import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

COMMAND = ["twist3", "--log-format=text", "transitrelay", "--port=tcp:0:interface=127.0.0.1"]
WAITING, PAIRS, SECONDS = 1000, 1000, 5.0
KIB, MB = 1024, 1e6
_CHUNK = 1 << 20


class Relay:
    """A relay that runs."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process, self._port = process, port

    def ask(self, token: int, side: int) -> socket.socket:
        """Connect, and ask for the peer."""
        sock = socket.create_connection(("127.0.0.1", self._port), 60)
        sock.sendall(f"please relay {token:064x} for side {side:016x}\n".encode())
        return sock

    def pair(self, token: int) -> tuple[socket.socket, socket.socket]:
        """Return two connections that are joined."""
        ends = self.ask(token, 1), self.ask(token, 2)
        for end in ends:
            assert end.recv(3, socket.MSG_WAITALL) == b"ok\n"
        return ends

    @property
    def memory(self) -> int:
        """Resident bytes."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * KIB for line in lines if line.startswith("VmRSS:"))

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


@contextmanager
def running() -> Iterator[Relay]:
    """Start a relay, and end it."""
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            found = next(filter(None, (re.search(r"Transit starting on (\d+)", line) for line in process.stdout)))
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield Relay(process, int(found[1]))
        finally:
            process.terminate()


def pour(relay: Relay, seconds: float) -> tuple[float, float]:
    """Return bytes a second by one pair, and the share of a core that the relay took."""
    near, far = relay.pair(1 << 200)
    done, count = threading.Event(), 0

    def send() -> None:
        data = bytes(_CHUNK)
        while not done.is_set():
            near.sendall(data)
        near.close()

    sender = threading.Thread(target=send)
    began, cpu_s = time.monotonic(), relay.cpu_s
    sender.start()
    while time.monotonic() < began + seconds:
        count += len(far.recv(_CHUNK))
    took = time.monotonic() - began
    share = (relay.cpu_s - cpu_s) / took
    done.set()
    while far.recv(_CHUNK):
        pass
    sender.join()
    far.close()
    return count / took, share


def main() -> None:
    """Measure, and print."""
    with running() as relay, ExitStack() as stack:
        idle = relay.memory
        print(f"idle: {idle / MB:.0f} MB")
        for token in range(WAITING):
            stack.enter_context(relay.ask(token, 1))
        # A pair is met only after all that has been asked before is read.
        for end in relay.pair(1 << 100):
            end.close()
        waiting = relay.memory
        print(f"{WAITING} waiting: {waiting / MB:.0f} MB, {(waiting - idle) / WAITING / KIB:.1f} KiB for each")
        for token in range(PAIRS):
            for end in relay.pair(token + (1 << 64)):
                stack.enter_context(end)
        joined = relay.memory
        print(f"{PAIRS} pairs more: {joined / MB:.0f} MB, {(joined - waiting) / PAIRS / KIB:.1f} KiB for each")
        began = time.monotonic()
        speed, share = pour(relay, SECONDS)
        assert time.monotonic() - began < 4 * SECONDS
        print(f"one pair: {speed / MB:.0f} MB/s, with {share:.0%} of a core; memory then {relay.memory / MB:.0f} MB")


if __name__ == "__main__":
    main()
