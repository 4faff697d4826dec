"""Does what README says in its first section, word for word, in two homes behind routers that drop.

    home ── router ──( internet )── router ── laptop
    sshd                                      ssh

`python -m tests.natlab.newcomer` prints one JSON object: what came out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path as FilePath

from . import build, ends, incidents, internet, relay, sandbox
from .incidents import Kind
from .programs import ssh_server
from .run import log_of, shell, standing
from .topology import BEHAVIOURS
from .wire import Path

SECTION = "Ten minutes to ssh through two routers"
# Which home is which host of the scene, and what README calls its public address.
SIDES = {"home": ("left", "198.51.100.7"), "laptop": ("right", "203.0.113.9")}
_LINE = re.compile(r"^(home|laptop)\$ +(.*?)(?: {2,}#.*)?$", re.M)
# Lines that are typed into ssh; the routers cut what passes after some of them.
LINES, CUT_AFTER = 40, 10
PAUSE = 0.05
CUT_S = 0.3
# Seconds for anything that must come.
PATIENCE = 60.0


def lines() -> list[tuple[str, str]]:
    """Return the commands of the section, each with the machine that it is for."""
    _, found, text = (ends.ROOT / "README.md").read_text().partition(f"\n## {SECTION}\n")
    assert found
    return _LINE.findall(text.partition("\n## ")[0])


@dataclass(slots=True)
class Played:
    """What came out.

    Attributes:
        paired: Exit statuses of the two that paired.
        answers: Lines that ssh was answered, in order.
        status: Of ssh.
        said: What each punchtunnel has said, by machine.
    """

    paired: list[int] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    status: int | None = None
    said: dict[str, str] = field(default_factory=dict)


class Machine:
    """One of the two, and the folder that its user has for a home.

    Args:
        namespace: Where it is.
        folder: Of the user's.
        programs: What stands on its PATH before all others: scripts by their names.
        replacements: What stands for the words of README.
    """

    def __init__(
        self, namespace: str, folder: FilePath, programs: Mapping[str, str], replacements: Mapping[str, str]
    ) -> None:
        self._namespace = namespace
        self._folder = folder
        self._replacements = replacements
        self.said = folder / "said"
        (folder / "bin").mkdir(parents=True)
        for name, script in programs.items():
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / "bin" / name).chmod(0o755)

    async def start(self, command: str) -> asyncio.subprocess.Process:
        """Start a line of README."""
        for words, other in self._replacements.items():
            command = re.sub(rf"(?<![\w.]){re.escape(words)}(?![\w.])", other, command)
        variables = ends.environment() | {"HOME": str(self._folder)}
        variables["PATH"] = f"{self._folder}/bin:{os.environ['PATH']}"
        variables.pop("XDG_CONFIG_HOME", None)
        pipe = asyncio.subprocess.PIPE
        with self.said.open("ab") as said:
            return await asyncio.create_subprocess_exec(
                *ends.in_namespace(self._namespace, ["/bin/sh", "-c", f"exec {command}"]),
                stdin=pipe, stdout=pipe, stderr=said, env=variables, cwd=self._folder,
            )  # fmt: skip


async def _pair(first: asyncio.subprocess.Process, second: asyncio.subprocess.Process) -> list[int]:
    """Copy the code from one to the other, and press Enter where the answer is asked for."""
    assert first.stdin is not None
    assert first.stdout is not None
    first.stdin.write(b"\n")
    code = await first.stdout.readline()
    first.stdin.write(b"\n")
    await second.communicate(code)
    await first.communicate()
    return [one.returncode if one.returncode is not None else -1 for one in (first, second)]


async def _type(ssh: asyncio.subprocess.Process, scene: build.Scene) -> list[str]:
    """Type lines into ssh, let both routers cut what passes meanwhile, and return what is answered."""
    assert ssh.stdin is not None
    assert ssh.stdout is not None
    answers, cut = [], None
    for number in range(LINES):
        if number == CUT_AFTER:
            cut = asyncio.create_task(_cut(scene))
        ssh.stdin.write(f"{number}\n".encode())
        answers.append((await ssh.stdout.readline()).decode().strip())
        await asyncio.sleep(PAUSE)
    ssh.stdin.close()
    if cut is not None:
        await cut
    return answers


async def _cut(scene: build.Scene) -> None:
    """Let both routers reset all that passes for a moment."""
    routers = [one for one in scene.namespaces if one.endswith("-box0")]
    for begins in (True, False):
        for router in routers:
            keep = str(sandbox.SCRATCH / f"{router}.nft")
            said = incidents.begin(Kind.CUT, router, keep, "", "") if begins else incidents.end(Kind.CUT, keep)
            await shell(ends.in_namespace(router, ["sh", "-e"]), "\n".join(said))
        await asyncio.sleep(CUT_S)


async def _use(scene: build.Scene, machines: Mapping[str, Machine], stack: contextlib.AsyncExitStack) -> Played:
    played = Played()
    (first, pairs), (second, answers), *rest = lines()
    running = [await machines[first].start(pairs), await machines[second].start(answers)]
    played.paired = await asyncio.wait_for(_pair(*running), PATIENCE)
    for machine, command in rest:
        started = await machines[machine].start(command)
        stack.push_async_callback(_end, started)
        if command.startswith("ssh"):
            played.answers = await asyncio.wait_for(_type(started, scene), PATIENCE)
            played.status = await asyncio.wait_for(started.wait(), PATIENCE)
        elif " -L " in command:
            async with asyncio.timeout(PATIENCE):
                while not relay.listening(started.pid, int(command.rpartition(" ")[2])):  # noqa: ASYNC110
                    await asyncio.sleep(relay.PAUSE)
    played.said = {name: machine.said.read_text() for name, machine in machines.items()}
    return played


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await process.wait()


@contextlib.contextmanager
def _machines(scene: build.Scene) -> Iterator[dict[str, Machine]]:
    with tempfile.TemporaryDirectory() as where:
        folder = FilePath(where)
        with ssh_server(scene.hosts["left"].namespace, folder) as server:
            user = re.findall(r"^User (.*)$", server.config, re.M)[0]
            loop = "while read line; do echo answer $line; done"
            programs = {
                "punchtunnel": f'exec {sys.executable} -m punchtunnel "$@"',
                "ssh": f"exec {shutil.which('ssh')} {' '.join(server.options)} \"$@\" '{loop}'",
            }
            replacements = {shown: scene.hosts[side].dial4 for side, shown in SIDES.values()}
            replacements |= {"22": str(server.port), "me@localhost": f"{user}@localhost"}
            yield {
                name: Machine(scene.hosts[side].namespace, folder / name, programs, replacements)
                for name, (side, _) in SIDES.items()
            }


async def play() -> Played:
    """Do all of it, in the order of the page."""
    scene = build.internet_scene("newcomer", BEHAVIOURS["drop"], BEHAVIOURS["drop"], stranger=False, neighbours=False)
    plan = internet.Plan(tuple(scene.sites), (), Path(0.01), 0, True, str(log_of(scene)))
    async with standing(scene, plan, []):
        with _machines(scene) as machines:
            async with contextlib.AsyncExitStack() as stack:
                return await _use(scene, machines, stack)


if __name__ == "__main__":
    sandbox.die_with_parent()
    sandbox.enter()
    # sshd's own, empty.
    (sandbox.RUN / "sshd").mkdir()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    print(json.dumps(asdict(asyncio.run(play())), indent=1))
