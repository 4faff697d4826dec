"""What it costs to start the tool: until help is printed, until the first SYN leaves, until there is a hole."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time

from .forwarders import tool_command
from .measures import CPU_TIME, WALL_TIME
from .stage import Stage, environment, exact_cpu_seconds
from .table import Running, Sample

# From <linux/if_ether.h> and the TCP header: flags are the 14th byte.
ETH_P_IP = 0x0800
SYN, FLAGS_BYTE = 0x02, 13


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
