"""From a pipe to a pipe: `pour | entry --- exit | drain`, as in a shell.

    pour --pipe--> entry process ===== exit process --pipe--> drain
                                       (ssh: the drain is the remote command)

The pipes are as a shell makes them (64 KiB).  Pour sends one byte first; when
the drain has it, everything is connected, and time begins.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from .forwarders import Process, start_sshd, tool_ends
from .measures import CHECK_BYTES, MIB, RATE
from .stage import ROOT, Stage, free_port, wait_until_listening
from .table import Running, Sample

PIPE = subprocess.PIPE
POUR = [sys.executable, "-m", "bench.pour"]

# Takes the pipe to read from and the drain's command; returns the process
# whose stdout is the drain's, and those that must end with status 0.
Start = Callable[[Stage, int, list[str]], tuple[Process, list[Process]]]


def piped(start: Start) -> Callable[[Stage], Running]:
    """Return what pours into one end and drains the other; both are started for each measurement."""

    def set_up(stage: Stage) -> Running:
        def measure(seconds: float) -> Sample:
            poured, drained = _transfer(stage, start, [f"{seconds}"], [])
            if poured["bytes"] != drained["bytes"]:
                raise ValueError(f"{drained['bytes']} of {poured['bytes']} bytes arrived")
            return {RATE.name: drained["bytes"] / MIB / (drained["ended"] - poured["began"])}

        def check() -> None:
            poured, drained = _transfer(stage, start, ["0", f"{CHECK_BYTES}"], ["hashed"])
            if poured["sha256"] != drained["sha256"]:
                raise ValueError("CORRUPT: other bytes came out of the pipe")

        return Running(measure, check)

    return set_up


def _transfer(
    stage: Stage, start: Start, pour_options: list[str], drain_options: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    taken, given = os.pipe()
    try:
        drain, hops = start(stage, taken, [*POUR, "drain", *drain_options])
        pour = stage.left(*POUR, "pour", *pour_options, stdin=PIPE, stdout=given, stderr=PIPE)
    finally:
        os.close(taken)
        os.close(given)
    assert drain.stdout is not None
    if drain.stdout.readline() != b"ready\n":
        raise RuntimeError("the pipe ended before it began")
    poured = json.loads(pour.communicate(b"go\n")[1])
    drained = json.loads(drain.stdout.readline())
    for hop in hops:
        if status := hop.wait():
            raise RuntimeError(f"{hop.args!r} ended with status {status}")
    return poured, drained


def _joined(stage: Stage, far: Process, near: Process, drain_command: list[str]) -> tuple[Process, list[Process]]:
    drain = stage.right(*drain_command, stdin=far.stdout, stdout=PIPE)
    assert far.stdout is not None
    # The drain's alone, so that the far end notices when the drain is gone.
    far.stdout.close()
    return drain, [far, near]


def punchtunnel(stage: Stage, source: int, drain_command: list[str], sealed: bool) -> tuple[Process, list[Process]]:
    """Start the tool with --stdio at both ends."""
    left, right, env = tool_ends(stage, sealed)
    far = stage.right(*right, "--stdio", stdout=PIPE, env=env)
    return _joined(stage, far, stage.left(*left, "--stdio", stdin=source, env=env), drain_command)


def socat(stage: Stage, source: int, drain_command: list[str], *options: str) -> tuple[Process, list[Process]]:
    """Start socat for one direction, which is its fastest."""
    port, right = free_port(), stage.place.right
    far = stage.right("socat", "-u", *options, f"TCP-LISTEN:{port},bind={right},reuseaddr", "-", stdout=PIPE)
    wait_until_listening(far, port)
    return _joined(
        stage, far, stage.left("socat", "-u", *options, "-", f"TCP:{right}:{port}", stdin=source), drain_command
    )


def ncat(stage: Stage, source: int, drain_command: list[str]) -> tuple[Process, list[Process]]:
    """Start ncat for one direction."""
    port, right = free_port(), stage.place.right
    far = stage.right("ncat", "--recv-only", "-l", right, str(port), stdout=PIPE)
    wait_until_listening(far, port)
    return _joined(stage, far, stage.left("ncat", "--send-only", right, str(port), stdin=source), drain_command)


def ssh(stage: Stage, source: int, drain_command: list[str]) -> tuple[Process, list[Process]]:
    """Run the drain by ssh."""
    _server, _port, client = start_sshd(stage)
    remote = f"cd {shlex.quote(str(ROOT))} && exec {shlex.join(drain_command)}"
    near = stage.left(*client, stage.place.right, remote, stdin=source, stdout=PIPE)
    return near, [near]
