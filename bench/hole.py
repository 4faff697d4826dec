"""Two hosts with a slow path between them, for rows that are not about this machine's speed.

    +------ left ------+     +---- this process ----+     +------ right -----+
    | 203.0.113.1 wan  |-----| queue, rate, delay   |-----|  wan 203.0.113.2 |
    +------------------+ TUN |  , loss each way     | TUN +------------------+
     network namespace       +----------------------+      network namespace

    python -m bench.hole RATE DELAY QUEUE LOSS     Mbit/s, s, s, probability

The path is what a provider's line is: packets that come too fast wait in a
queue in front of the bottleneck; those that find it full, and some by chance,
are lost; the others arrive after the delay, in order.  It is done here because
not every kernel has netem, and in Python because that carries 800 Mbit/s of
1500-byte packets on one core of the machine that it was made on.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.natlab import sandbox
from tests.natlab.internet import DEVICE, READ_SIZE, open_device

from . import congestion

LEFT, RIGHT = "203.0.113.1", "203.0.113.2"
NAMES = ("left", "right")
# The devices' own queues must not lose what the path would not.
DEVICE_QUEUE = 10000
# Packets read from one side before the other side gets its turn.
BURST = 64
# What the largest bandwidth × delay of a row needs, four times; the usual 4 MiB
# of a send buffer would make plain TCP the bottleneck.
BUFFERS = "4096 131072 33554432"


@dataclass(frozen=True, slots=True)
class Path:
    """What each direction between the hosts does to packets."""

    rate_mbit_s: float
    delay_s: float
    # How much may wait in front of the bottleneck, as time.
    queue_s: float
    loss: float = 0.0
    # Of both hosts; "": that of the bench.
    congestion_control: str = field(default="", kw_only=True)


@dataclass(slots=True)
class Line:
    """One direction of a path while it is in use; pure."""

    path: Path
    rng: random.Random
    air: deque[tuple[float, bytes]] = field(default_factory=deque)
    # When the bottleneck will have sent all that waits for it.
    free: float = 0.0

    def enters(self, packet: bytes, now: float) -> None:
        """Take a packet, or lose it."""
        begins = max(now, self.free)
        if begins - now > self.path.queue_s:
            return
        self.free = begins + len(packet) * 8e-6 / self.path.rate_mbit_s
        if not self.path.loss or self.rng.random() >= self.path.loss:
            self.air.append((self.free + self.path.delay_s, packet))


@contextlib.contextmanager
def hosts(path: Path) -> Iterator[None]:
    """Make the namespaces "left" and "right" with this path between them; needs sandbox.enter()."""
    for name in NAMES:
        subprocess.run(["ip", "netns", "add", name], check=True)
    arguments = [path.rate_mbit_s, path.delay_s, path.queue_s, path.loss]
    command = [sys.executable, "-m", "bench.hole", *map(str, arguments)]
    carrier = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert carrier.stdout is not None
        if carrier.stdout.readline() != b"ready\n":
            raise RuntimeError("the path did not start")
        for name, own, other in ((NAMES[0], LEFT, RIGHT), (NAMES[1], RIGHT, LEFT)):
            _configure(name, own, other, path.congestion_control)
        yield
    finally:
        carrier.kill()
        carrier.communicate()
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], check=True)


def _configure(name: str, own: str, other: str, congestion_control: str) -> None:
    in_there = ["ip", "-n", name]
    subprocess.run([*in_there, "link", "set", "lo", "up"], check=True)
    subprocess.run([*in_there, "address", "add", own, "peer", other, "dev", DEVICE], check=True)
    subprocess.run([*in_there, "link", "set", DEVICE, "txqueuelen", str(DEVICE_QUEUE), "up"], check=True)
    # A new namespace has the machine's, not the bench's.
    congestion.use(congestion_control or congestion.in_use(), name)
    for setting in ("tcp_rmem", "tcp_wmem"):
        command = f"echo {BUFFERS} > /proc/sys/net/ipv4/{setting}"
        subprocess.run(["ip", "netns", "exec", name, "sh", "-c", command], check=True)


def carry(lines: list[Line], devices: list[int], stop: int) -> None:
    """Carry packets, line 0 from device 0 to device 1 and back on line 1, until `stop` can be read."""
    while True:
        now = time.monotonic()
        next_due = min((line.air[0][0] for line in lines if line.air), default=now + 60)
        readable, _, _ = select.select([*devices, stop], [], [], max(0.0, next_due - now))
        if stop in readable:
            return
        for number, line in enumerate(lines):
            if devices[number] in readable:
                with contextlib.suppress(BlockingIOError):
                    for _ in range(BURST):
                        line.enters(os.read(devices[number], READ_SIZE), time.monotonic())
            now, towards = time.monotonic(), devices[1 - number]
            # EIO: the device is not up yet.
            with contextlib.suppress(OSError):
                while line.air and line.air[0][0] <= now:
                    os.write(towards, line.air.popleft()[1])


def main() -> None:
    """Run as a process of its own, until stdin ends."""
    sandbox.die_with_parent()
    # A path does not wait for the processor, however busy the hosts are.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    path = Path(*map(float, sys.argv[1:]))
    devices = [open_device(name) for name in NAMES]
    print("ready", flush=True)
    carry([Line(path, random.Random(name)) for name in NAMES], devices, sys.stdin.fileno())


if __name__ == "__main__":
    main()
