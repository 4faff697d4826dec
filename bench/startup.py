"""What it costs to start the tool: until help is printed, the first SYN leaves, there is a hole, a byte is back."""

from __future__ import annotations

import json
import os
import random
import shlex
import socket
import statistics
import subprocess
import time
from collections.abc import Callable

from .forwarders import start_sshd, tool_command, tool_ends
from .measures import CPU_TIME, FIRST50, FIRST_MOST, WALL_TIME
from .stage import Stage, environment, exact_cpu_seconds
from .table import Running, Sample
from .target import ANSWER, PROBE

# From <linux/if_ether.h> and the TCP header: flags are the 14th byte.
ETH_P_IP = 0x0800
SYN, FLAGS_BYTE = 0x02, 13
# Starts of one measurement.
STARTS = 3
# Seconds: the earlier side has waited for so long at most when the later one starts, at any moment of its schedule.
LATER = 2.0
# What ssh runs on the other host to answer.
REMOTE = "printf ."


def helped(stage: Stage) -> Running:
    """Measure --help to its end."""

    def measure(_seconds: float) -> Sample:
        began = time.monotonic()
        process = stage.left(*stage.program, "--help", env=environment(stage.tool))
        _pid, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"--help ended with status {process.returncode}")
        return {CPU_TIME.name: used.ru_utime + used.ru_stime, WALL_TIME.name: time.monotonic() - began}

    return Running(measure)


def first_syn(stage: Stage) -> Running:
    """Measure until the first SYN leaves; seen on the wire, which needs root."""

    def measure(_seconds: float) -> Sample:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP)) as wire:
            began = time.monotonic()
            command = tool_command(stage, stage.place.left, stage.place.right)
            process = stage.left(*command, "-n", env=environment(stage.tool))
            while not _is_first_syn(wire.recv(128), stage.place.right):
                pass
            used, took = exact_cpu_seconds(process.pid), time.monotonic() - began
        stage.end()
        return {CPU_TIME.name: used, WALL_TIME.name: took}

    return Running(measure)


def _is_first_syn(packet: bytes, target: str) -> bool:
    header = (packet[0] & 0x0F) * 4
    is_tcp = packet[9] == socket.IPPROTO_TCP
    return is_tcp and packet[16:20] == socket.inet_aton(target) and packet[header + FLAGS_BYTE] == SYN


def hole(stage: Stage) -> Running:
    """Measure from the later end's first dial until both have the hole."""

    def measure(_seconds: float) -> Sample:
        places = (stage.place.left, stage.place.right), (stage.place.right, stage.place.left)
        ends = [
            stage.left(
                *tool_command(stage, own, other), "-n", "--json",
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(stage.tool),
            )
            for own, other in places
        ]  # fmt: skip
        times = [_event_times(end) for end in ends]
        took = max(one["hole"] for one in times) - max(one["punching"] for one in times)
        return {WALL_TIME.name: took}

    return Running(measure)


def _event_times(end: subprocess.Popen[bytes]) -> dict[str, float]:
    """Return when each event happened first; waits for the end."""
    times: dict[str, float] = {}
    for line in end.communicate()[0].splitlines():
        event = json.loads(line)
        times.setdefault(event["event"], event["time_s"])
    return times


# ---- from the later start to the first byte


def _started(once: Callable[[Stage, float], float]) -> Callable[[Stage], Running]:
    """Return what starts everything anew a few times; `once` takes how late the later side starts, returns seconds."""
    # The same moments for every subject.
    rng = random.Random(0)

    def set_up(stage: Stage) -> Running:
        def measure(_seconds: float) -> Sample:
            times = []
            for _ in range(STARTS):
                times.append(1000 * once(stage, LATER * rng.random()))
                stage.end()
            return {FIRST50.name: statistics.median(times), FIRST_MOST.name: max(times)}

        return Running(measure)

    return set_up


def tool(sealed: bool) -> Callable[[Stage], Running]:
    """Measure --stdio from its start until a target at the other side has answered a byte."""

    def once(stage: Stage, late: float) -> float:
        left, env = _wait_on_the_right(stage, stage.target("answer"), sealed, late)
        return _seconds_to_answer(stage, [*left, "--stdio"], env)

    return _started(once)


def ssh() -> Callable[[Stage], Running]:
    """Measure ssh from its start until a command at the other side has answered."""

    def once(stage: Stage, _late: float) -> float:
        _server, _port, client = start_sshd(stage)
        return _seconds_to_answer(stage, [*client, stage.place.right, REMOTE])

    return _started(once)


def ssh_through_tool(sealed: bool) -> Callable[[Stage], Running]:
    """Measure the same of ssh with the tool as its ProxyCommand."""

    def once(stage: Stage, late: float) -> float:
        _server, port, client = start_sshd(stage)
        left, env = _wait_on_the_right(stage, port, sealed, late)
        # ssh_config(5): a percent sign begins a token.
        proxy = shlex.join([*left, "--stdio"]).replace("%", "%%")
        return _seconds_to_answer(stage, [*client, f"-oProxyCommand={proxy}", stage.place.right, REMOTE], env)

    return _started(once)


def _wait_on_the_right(stage: Stage, port: int, sealed: bool, late: float) -> tuple[list[str], dict[str, str]]:
    """Start the earlier side, wait until it has been punching for so long; return the later one's command and env."""
    left, right, env = tool_ends(stage, sealed)
    command = [*right, "--json", "--to", f"{stage.place.right}:{port}"]
    far = stage.right(*command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert far.stdout is not None
    for line in far.stdout:
        if json.loads(line)["event"] == "punching":
            time.sleep(late)
            return left, env
    raise RuntimeError("the earlier side ended before it had begun")


def _seconds_to_answer(stage: Stage, command: list[str], env: dict[str, str] | None = None) -> float:
    began = time.perf_counter()
    options = {"env": env} if env else {}
    near = stage.left(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)
    assert near.stdin is not None
    assert near.stdout is not None
    near.stdin.write(PROBE)
    near.stdin.flush()
    if near.stdout.read(1) != ANSWER:
        raise RuntimeError("ended without an answer")
    return time.perf_counter() - began
