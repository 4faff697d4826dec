"""Does what docs/RELAY.md says, line by line, on a public machine between two homes.

    left host ── router ── internet ── router ── right host
                              |
                     relay.example.org: a bare machine

`python -m tests.natlab.own_relay` prints one JSON object: each line of the page's shell blocks, and what went wrong
with it, or "".
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path as FilePath

from punchtunnel.reach import stun

from . import build, ends, internet, relay, sandbox
from .relay import RELAY_PORT, STUN_PORT
from .relay_cells import SECRET
from .rendezvous import meet, see
from .run import log_of, shell, standing
from .topology import BEHAVIOURS
from .wire import Path

PAGE = ends.ROOT / "docs" / "RELAY.md"
UNIT = ends.ROOT / "docs" / "examples" / "transit-relay.service"
NAME = "relay.example.org"
MET = "ok\nok\nhello"
TOOL = ["env", f"PUNCHTUNNEL_SECRET={SECRET}", sys.executable, "-m", "punchtunnel"]
# Seconds for a program to listen, or to end.
PATIENCE = 20.0
# As Debian's /etc/nftables.conf names it; and it lets nothing in but what belongs to something.
_FILTER = """\
nft -f - <<'END'
table inet filter {
  chain input { type filter hook input priority filter; policy drop
    ct state established,related accept
    meta l4proto ipv6-icmp accept
  }
}
END"""


def blocks(language: str) -> Iterator[str]:
    """Yield the page's code in one language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def lines() -> list[str]:
    """Return each line of the page that is for a shell."""
    return [line for block in blocks("sh") for line in block.splitlines()]


class Machine:
    """The one that is to be a relay, and the two homes.

    Args:
        scene: It stands.
    """

    def __init__(self, scene: build.Scene) -> None:
        self._scene = scene
        self._here = scene.hosts["relay"].namespace
        self._folder = sandbox.SCRATCH / "own"
        self._folder.mkdir(mode=0o755)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        # Of both homes.
        self._commands: list[list[str]] = []

    def close(self) -> None:
        """End all that runs."""
        for process in self._running.values():
            process.terminate()
            process.wait()

    def start(self, command: list[str], port: int, user: str = "nobody") -> None:
        """Start a program as a user without rights, in place of the one that had its port; wait until it listens."""
        if (before := self._running.pop(str(port), None)) is not None:
            before.terminate()
            before.wait()
        group = {"nobody": "nogroup"}.get(user, user)
        drops = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        bare = ["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", *drops, *command]
        with (self._folder / "said").open("ab") as said:
            process = subprocess.Popen(
                ends.in_namespace(self._here, bare), stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd="/",
                preexec_fn=sandbox.die_with_parent,
            )  # fmt: skip
        self._running[str(port)] = process
        deadline = time.monotonic() + PATIENCE
        while not relay.listening(process.pid, port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "said").read_text(errors="replace")[-500:])
            time.sleep(relay.PAUSE)

    # ---- what a line is to do

    def meets(self, port: int = RELAY_PORT, other: int = RELAY_PORT) -> None:
        """Let the homes meet at the relay by hand, by both families."""
        for version in (4, 6):
            met = meet(self._scene, version, port, other)
            assert met == MET, met

    def is_seen(self) -> None:
        """Let a home ask where it is seen."""
        assert see(self._scene, "left", 0, relay.RELAY4).startswith("198.51.100.10:")

    def relays_for_nobody(self) -> None:
        """Ask the STUN server to relay, which it does not answer, and then where this is seen."""
        with sandbox.inside(self._scene.hosts["left"].namespace):
            sock = socket.create_connection((relay.RELAY4, STUN_PORT), PATIENCE)
        with sock:
            # RFC 8656 §7.1, of a transport by UDP; and RFC 8489 §5.
            asked = struct.pack("!HHBxxx", 0x0019, 4, 17)
            sock.sendall(struct.pack("!HHI12s", 0x0003, len(asked), stun.MAGIC_COOKIE, bytes(12)) + asked)
            sock.sendall(stun.request(bytes(11) + b"1"))
            answer = sock.recv(4096)
            assert stun.read_answer(answer, bytes(11) + b"1") is not None, answer

    def takes_port_443(self) -> None:
        """Start the second relay that the page speaks of."""
        (line,) = re.findall(r"`(twist3 [^`]*443[^`]*)`", PAGE.read_text())
        self.start(shlex.split(line), 443, "root")
        # The page's rule still leads to the first one.
        assert len(relay.listening(self._running["443"].pid, 443)) == 1

    def has_ipv4_only(self) -> None:
        """Start the relay with the option that the page warns of."""
        (option,) = re.findall(r"`(--port=tcp:4001)`", PAGE.read_text())
        self.start(["twist3", "transitrelay", option], RELAY_PORT)
        assert meet(self._scene, 4) == MET
        try:
            meet(self._scene, 6)
        except ConnectionRefusedError:
            return
        raise AssertionError("it has IPv6 as well")

    async def reaches(self, serves: list[str], listens: list[str]) -> None:
        """Run the tool in both homes, and connect to what the left one serves."""
        port = int(listens[listens.index("-L") + 1])
        with contextlib.ExitStack() as stack:
            with sandbox.inside(self._scene.hosts["left"].namespace):
                service = stack.enter_context(socket.create_server(("127.0.0.1", int(serves[-1]))))
            service.settimeout(PATIENCE)
            lives = {}
            for side, words in (("left", serves), ("right", listens)):
                live = lives[side] = ends.Live()
                where = self._scene.hosts[side].namespace
                command = [*TOOL, *words, "--json"]
                stack.callback(asyncio.create_task(ends.run_end(where, command, b"", 3 * PATIENCE, live=live)).cancel)
            async with asyncio.timeout(2 * PATIENCE):
                await asyncio.gather(*(live.says("link_up") for live in lives.values()))
            assert await asyncio.to_thread(self._comes_through, service, port) == b"hello"

    def _comes_through(self, service: socket.socket, port: int) -> bytes:
        with sandbox.inside(self._scene.hosts["right"].namespace):
            client = socket.create_connection(("127.0.0.1", port), PATIENCE)
        served, _ = service.accept()
        with client, served:
            served.sendall(b"hello")
            return client.recv(5)

    def has_package(self, name: str) -> None:
        """Make sure that what the other lines start comes from this package."""
        said = subprocess.run(["dpkg-query", "-W", "-f", "${Status}", name], capture_output=True, text=True, check=True)
        assert said.stdout == "install ok installed", said.stdout

    async def does(self, line: str) -> None:
        """Do what a line says, and see that it has come true."""
        words = shlex.split(line)
        match words:
            case ["apt", "install", name]:
                self.has_package(name)
            case ["twist3", *_]:
                await asyncio.to_thread(self.start, words, RELAY_PORT)
                await asyncio.to_thread(self.meets)
            case ["turnserver", *_]:
                await asyncio.to_thread(self.start, words, STUN_PORT)
                await asyncio.to_thread(self.is_seen)
            case ["punchtunnel", *_]:
                self._commands.append(words[1:])
                if len(self._commands) == 2:
                    await self.reaches(*self._commands)
            case ["cp", name, place]:
                assert (name, place) == (UNIT.name, "/etc/systemd/system/")
            case ["systemctl", "enable", "--now", name]:
                assert f"{name}.service" == UNIT.name
                await asyncio.to_thread(self.is_a_service)
            case ["nft", "add", "rule", "inet", "filter", *_]:
                await self._shell(_FILTER)
                await self._shell(line)
                await asyncio.to_thread(self.meets)
                await asyncio.to_thread(self.is_seen)
            case ["nft", "add", "rule", *_]:
                await self._shell(line)
                await asyncio.to_thread(self.meets, 443, RELAY_PORT)
                await asyncio.to_thread(self.meets, RELAY_PORT, 443)
            case ["nft", "add", *_]:
                await self._shell(line)
            case _:
                raise AssertionError("nothing is known of this line")

    def is_a_service(self) -> None:
        """Have the unit verified, and run what it starts."""
        subprocess.run(["systemd-analyze", "verify", str(UNIT)], check=True, capture_output=True)
        (command,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.M)
        self.start(shlex.split(command), RELAY_PORT)
        self.meets()

    def is_configured(self) -> None:
        """Run coturn as Debian's service does, with the page's configuration."""
        (text,) = blocks("conf")
        file = self._folder / "turnserver.conf"
        # Its log is not to be this machine's.
        file.write_text(text.replace("syslog\n", "log-file=stdout\n"))
        self.start(["turnserver", "-c", str(file), "--pidfile="], STUN_PORT, "turnserver")
        self.is_seen()

    async def _shell(self, text: str) -> None:
        await shell(ends.in_namespace(self._here, ["sh", "-e"]), text)


async def play() -> dict[str, str]:
    """Do all of it, in the page's order; return what went wrong with each line."""
    scene = build.internet_scene("own", BEHAVIOURS["drop"], BEHAVIOURS["drop"], stranger=False, neighbours=False)
    build.add_relay(scene, runs=False)
    for side in ("left", "right"):
        scene.names[scene.hosts[side].namespace] = f"{relay.RELAY4} {NAME}\n{relay.RELAY6} {NAME}\n"
    plan = internet.Plan(tuple(scene.sites), (), Path(0.005), 0, True, str(log_of(scene)))
    wrong: dict[str, str] = {}
    async with standing(scene, plan, []):
        with contextlib.closing(Machine(scene)) as machine:
            for line in lines():
                wrong[line] = await _complaint(machine.does(line))
            further = machine.is_configured, machine.relays_for_nobody, machine.takes_port_443, machine.has_ipv4_only
            for also in further:
                wrong[also.__name__] = await _complaint(asyncio.to_thread(also))
    return wrong


async def _complaint(doing: object) -> str:
    assert asyncio.iscoroutine(doing)
    try:
        await doing
    except Exception as error:
        return repr(error)
    return ""


if __name__ == "__main__":
    os.umask(0o022)
    sandbox.die_with_parent()
    sandbox.enter()
    FilePath("/run/natlab").chmod(0o755)
    print(json.dumps(asyncio.run(play()), indent=1))
