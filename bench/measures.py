"""One measurement of one subject: each function returns what sets a subject up for it."""

from __future__ import annotations

import contextlib
import math
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial

from tests.e2e.cuts import cut
from tests.natlab import sandbox

from .forwarders import Forwarder, Start
from .load import connected, ping
from .stage import LEFT, Stage, cpu_seconds, peak_memory_mb, result
from .table import Metric, Running, Sample
from .target import BLOCK, MIRROR

RATE = Metric("rate", "MiB/s", 0, more_is_better=True)
CPU = Metric("CPU", "s/GiB", 3)
MEMORY = Metric("memory", "MB", 0)
CONNECTIONS = Metric("connections", "/s", 0, more_is_better=True)
CPU_EACH = Metric("CPU", "µs each", 0)
FIRST50 = Metric("first byte p50", "ms", 0)
FIRST_MOST = Metric("first byte, at most", "ms", 0)
P50 = Metric("p50", "µs", 0)
P99 = Metric("p99", "µs", 0)
IDLE99 = Metric("idle p99", "ms", 1)
BUSY50 = Metric("busy p50", "ms", 1)
BUSY99 = Metric("busy p99", "ms", 1)
MORE99 = Metric("p99 more than idle", "ms", 1)
BACK50 = Metric("back p50", "ms", 0)
BACK_MOST = Metric("back, at most", "ms", 0)
MBITS = Metric("rate", "Mbit/s", 1, more_is_better=True)
CPU_TIME = Metric("CPU", "s", 3)
WALL_TIME = Metric("time", "s", 3)

GIB = 1 << 30
MIB = 1 << 20
# Random bytes of each check, on all streams together.
CHECK_BYTES = 64 * MIB + 7
SLOW_CHECK_BYTES = 2 * MIB + 7
# A bulk stream has filled the path and its queue by then.
WARM_SECONDS = 2.0
PINGS_PER_SECOND = 100

Load = Callable[[Stage, Forwarder, float], Sample]


def through(
    start: Start, load: Load, kind: str = "work", streams: int = 1, slow: bool = False
) -> Callable[[Stage], Running]:
    """Return what starts a forwarder and puts a load on it; `streams` are checked at once."""

    def set_up(stage: Stage) -> Running:
        forwarder = start(stage, stage.target(kind))
        size = (SLOW_CHECK_BYTES if slow else CHECK_BYTES) // streams

        def check() -> None:
            stage.load("check", forwarder.host, forwarder.port, streams=streams, size=size)

        can_check = kind == "work" and not forwarder.speaks_iperf
        return Running(partial(load, stage, forwarder), check if can_check else None)

    return set_up


def bulk(
    stage: Stage, forwarder: Forwarder, seconds: float, streams: int, idle: int = 0, record: int = BLOCK
) -> Sample:
    """Measure throughput, processor time of both hops, and memory of the larger one."""
    hops = [hop.pid for hop in forwarder.hops]
    before = cpu_seconds(hops)
    if forwarder.speaks_iperf:
        moved, took = _iperf3(stage, forwarder, seconds, streams)
    else:
        options = {"seconds": seconds, "streams": streams, "idle": idle, "record": record}
        found = stage.load("bulk", forwarder.host, forwarder.port, **options)
        moved, took = found["bytes"], found["seconds"]
    used = cpu_seconds(hops) - before
    rate = moved / MIB / took
    return {RATE.name: rate, **({CPU.name: used / (moved / GIB)} if hops else {}), **_memory(forwarder)}


def _memory(forwarder: Forwarder) -> Sample:
    hops = [hop.pid for hop in forwarder.hops]
    return {MEMORY.name: max(map(peak_memory_mb, hops))} if hops else {}


def mbits(stage: Stage, forwarder: Forwarder, seconds: float) -> Sample:
    """Measure throughput of one stream as providers count it, and memory of the larger hop."""
    found = stage.load("bulk", forwarder.host, forwarder.port, seconds=seconds, streams=1)
    return {MBITS.name: found["bytes"] * 8e-6 / found["seconds"], **_memory(forwarder)}


def _iperf3(stage: Stage, forwarder: Forwarder, seconds: float, streams: int) -> tuple[float, float]:
    # It takes whole seconds, and 0 for ever.
    words = f"-c {forwarder.host} -p {forwarder.port} -t {math.ceil(seconds)} -P {streams} -J"
    client = stage.left("iperf3", *words.split(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    received = result(client)["end"]["sum_received"]
    return received["bytes"], received["seconds"]


def connections(stage: Stage, forwarder: Forwarder, seconds: float, at_a_time: int) -> Sample:
    """Measure how many connections a second open, carry a byte and close, and processor time of both hops."""
    hops = [hop.pid for hop in forwarder.hops]
    before = cpu_seconds(hops)
    found = stage.load("answers", forwarder.host, forwarder.port, seconds=seconds, at_a_time=at_a_time)
    used = cpu_seconds(hops) - before
    rate = found["count"] / found["seconds"]
    return {CONNECTIONS.name: rate, **({CPU_EACH.name: used * 1e6 / found["count"]} if hops else {})}


def first_byte(stage: Stage, forwarder: Forwarder, seconds: float) -> Sample:
    """Measure how long a new connection takes until its first byte is answered."""
    found = stage.load("first", forwarder.host, forwarder.port, seconds=seconds)["percentiles"]
    return {FIRST50.name: found[100] / 1000, FIRST_MOST.name: found[-1] / 1000}


def echo(stage: Stage, forwarder: Forwarder, seconds: float) -> Sample:
    """Measure round trips of 64 bytes, one after another."""
    found = stage.load("echo", forwarder.host, forwarder.port, seconds=seconds)["percentiles"]
    return {P50.name: found[100], P99.name: found[198], "percentiles": found}


def comeback(stage: Stage, forwarder: Forwarder, seconds: float) -> Sample:
    """Cut the hole again and again, and measure until the next 64 bytes are there and back."""
    pauses: list[float] = []
    end = time.perf_counter() + seconds
    # A socket stays where it was made.
    with sandbox.inside(LEFT) if stage.place.at_left else contextlib.nullcontext():
        sock = connected(forwarder.host, forwarder.port, MIRROR)
    with sock:
        while time.perf_counter() < end or not pauses:
            ping(sock, 2 * len(pauses))
            began = time.perf_counter()
            if not cut(forwarder.hops[-1].pid, (stage.place.right,)):
                raise ValueError("there is no hole to cut")
            ping(sock, 2 * len(pauses) + 1)
            pauses.append((time.perf_counter() - began) * 1000)
    return {BACK50.name: statistics.median(pauses), BACK_MOST.name: max(pauses)}


def echo_beside_bulk(stage: Stage, forwarder: Forwarder, seconds: float) -> Sample:
    """Measure round trips on an idle path, and again while another stream fills it."""
    ping = partial(stage.load, "echo", forwarder.host, forwarder.port, rate=PINGS_PER_SECOND)
    idle = ping(seconds=seconds / 2)["percentiles"]
    long = WARM_SECONDS + seconds + 1
    stream = stage.start_load("bulk", forwarder.host, forwarder.port, seconds=long, streams=1)
    time.sleep(WARM_SECONDS)
    busy = ping(seconds=seconds)["percentiles"]
    moved = result(stream)
    return {
        IDLE99.name: idle[198] / 1000, BUSY50.name: busy[100] / 1000, BUSY99.name: busy[198] / 1000,
        MORE99.name: (busy[198] - idle[198]) / 1000, MBITS.name: moved["bytes"] * 8e-6 / moved["seconds"],
        "percentiles": busy,
    }  # fmt: skip
