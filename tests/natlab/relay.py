"""A relay on the internet, and a STUN server at its side: Debian's magic-wormhole-transit-relay, and coturn.

    python -m tests.natlab.relay DIRECTORY ADDRESS...     runs them at these addresses, in DIRECTORY

Says "ready" once each is listening at every address, and ends them when stdin ends.  When the relay alone ends,
another one is started, unless it is kept away (`keep_away`): then once that is over (`let_back`).
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path as FilePath

from . import daemon, sandbox

# Both default ports.
RELAY_PORT, STUN_PORT = 4001, 3478
RELAY4, RELAY6 = "198.51.100.40", "2001:db8:4:1::2"
# Where the machine has two addresses: a STUN server at both names the other one (RFC 5780).
SECOND4 = "198.51.100.41"
# Seconds for both to listen: half of one on an idle machine.
PATIENCE = 20.0
PAUSE = 0.02
_PLUGIN = FilePath("/usr/lib/python3/dist-packages/wormhole_transit_relay")
_PID, _AWAY = "relay.pid", "relay.away"


def missing() -> str | None:
    """Return why there can be no relay on this machine, or None if there can."""
    if shutil.which("twist3") is None or not _PLUGIN.is_dir():
        return "relays need twist3 transitrelay (Debian package magic-wormhole-transit-relay)"
    if shutil.which("turnserver") is None:
        return "relays need turnserver (Debian package coturn)"
    return None


def directory_of(namespace: str) -> FilePath:
    """Return where the relay of a namespace has its files."""
    return sandbox.SCRATCH / f"{namespace}.relay"


def keep_away(directory: FilePath) -> None:
    """Kill the relay, and let no other one be started."""
    (directory / _AWAY).touch()
    os.kill(int((directory / _PID).read_text()), signal.SIGKILL)


def let_back(directory: FilePath) -> None:
    """Let another relay be started."""
    (directory / _AWAY).unlink()


def relay_command() -> list[str]:
    """Return the command line of the relay, as it is by default: both families, port 4001."""
    return ["twist3", "--log-format=text", "transitrelay"]


def stun_command(scratch: FilePath, addresses: Sequence[str]) -> list[str]:
    """Return the command line of coturn in the foreground, with nothing but a scratch directory: STUN, by TCP alone."""
    return [
        "turnserver", "-n", "--stun-only", "--no-udp", "--no-tls", "--no-dtls", "--no-cli", "-m", "1",
        *(word for address in addresses for word in ("-L", address)), "-p", str(STUN_PORT),
        "-b", str(scratch / "db"), "-l", str(scratch / "log"), "--simple-log", "--pidfile", str(scratch / "pid"),
    ]  # fmt: skip


def listening(pid: int, port: int) -> set[str]:
    """Return the TCP addresses, as the kernel prints them, at which something in a process's namespace listens."""
    addresses = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in FilePath(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]:
                _, local, _, state, *_ = line.split()
                if local.endswith(f":{port:04X}") and state == "0A":
                    addresses.add(local)
    return addresses


def _start(command: list[str], directory: FilePath, port: int, addresses: int) -> subprocess.Popen[bytes]:
    """Start a program, and return once it listens at so many addresses."""
    # What is on the path for the tool's own Python is not for the system's.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    with (directory / "said").open("ab") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=directory, env=environment,
            preexec_fn=sandbox.die_with_parent,
        )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while len(listening(process.pid, port)) < addresses:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise SystemExit(f"{command[0]} does not listen: {(directory / 'said').read_text(errors='replace')}")
        time.sleep(PAUSE)
    return process


def _start_relay(directory: FilePath) -> subprocess.Popen[bytes]:
    # One socket is for both families.
    process = _start(relay_command(), directory, RELAY_PORT, 1)
    (directory / _PID).write_text(str(process.pid))
    return process


def serve(directory: FilePath, addresses: list[str]) -> None:
    """Run both until stdin ends, and another relay after each that ends before."""
    directory.mkdir()
    stun = _start(stun_command(directory, addresses), directory, STUN_PORT, len(addresses))
    relay = _start_relay(directory)
    try:
        print("ready", flush=True)
        while daemon.ended(relay):
            relay.wait()
            while (directory / _AWAY).exists():
                if select.select([sys.stdin], [], [], PAUSE)[0]:
                    return
            relay = _start_relay(directory)
    finally:
        for process in (relay, stun):
            process.terminate()
            process.wait()


if __name__ == "__main__":
    sandbox.die_with_parent()
    serve(FilePath(sys.argv[1]), sys.argv[2:])
