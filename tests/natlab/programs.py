"""Programs that nobody here wrote go on through -L and --to while holes are lost.

    +------+     +--------+                    +--------+     +-------+
    | left |-----| router |===( internet )=====| router |-----| right |
    +------+     +--------+                    +--------+     +-------+
    rsync, ssh                                                 sshd

`python -m tests.natlab.programs PATTERN` plays the cases whose name matches and
prints one JSON object: name -> what came out.
"""

from __future__ import annotations

import asyncio
import contextlib
import filecmp
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path as FilePath
from typing import Any, cast

from tests.e2e.ends import Lab
from tests.e2e.programs import SshServer

from . import ends, sandbox
from .cells import Cell
from .drama import Drama
from .incidents import BOTH, ONE_SIDE, Incident, Kind
from .run import shell, stage_of
from .subjects import TOOL, Call

PORT = 2222
FILES, FILE_SIZE = 5, 4 * 1024 * 1024
# So that it is under way for as long as things happen.
RATE = "4m"
PAUSE_BETWEEN_LINES = 0.05
LINES = 60
PATIENCE = 200.0

_CUT = Incident(Kind.CUT, lasts_s=0.3, after_s=1.5)
_PLAIN = Cell("programs", "")
CASES = (
    replace(_PLAIN, name="both routers reset what passes, twice", happens=(_CUT, replace(_CUT, awaits="resumed"))),
    replace(_PLAIN, name="a router is rebooted", happens=(Incident(Kind.REBOOT, ONE_SIDE, 10, after_s=1.5),)),
    replace(_PLAIN, name="no packets for 40 s", happens=(Incident(Kind.DARK, lasts_s=40, after_s=1.5),)),
    replace(_PLAIN, name="both ends stand still for 60 s", happens=(Incident(Kind.STOP, lasts_s=60, after_s=1.5),)),
)


@dataclass(frozen=True, slots=True)
class Played:
    """What came out of one case.

    Attributes:
        resumed: Holes after the first one, of both ends.
        late: The programs were still at it when the last incident was over.
        same: rsync has copied every byte.
        answers: Lines that ssh was answered, in order.
        statuses: Of rsync and ssh.
        said: What they complained about.
    """

    resumed: tuple[int, int]
    late: bool
    same: bool
    answers: list[str]
    statuses: tuple[int | None, int | None]
    said: str


class Server:
    """What SshServer needs of a laboratory, in one namespace."""

    def __init__(self, namespace: str, folder: FilePath) -> None:
        self.folder = folder
        self._namespace = namespace
        self._programs: list[subprocess.Popen[bytes]] = []

    def program(self, *command: str, stderr: int) -> subprocess.Popen[bytes]:
        """Start a program there."""
        started = subprocess.Popen(ends.in_namespace(self._namespace, command), stderr=stderr)
        self._programs.append(started)
        return started

    def stop(self) -> None:
        """End every program."""
        for program in self._programs:
            program.kill()
            program.wait()
            if program.stderr is not None:
                program.stderr.close()


@contextlib.contextmanager
def ssh_server(namespace: str, folder: FilePath) -> Iterator[SshServer]:
    """Start an sshd on the loopback of a namespace."""
    server = Server(namespace, folder)
    try:
        yield SshServer(cast(Lab, server))
    finally:
        server.stop()


async def _run(namespace: str, command: Sequence[str], lines: int = 0) -> tuple[int | None, list[str], str]:
    """Run a program, type so many lines into it, and return its status, what it answered, what it complained."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *ends.in_namespace(namespace, command), stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    answers = []
    try:
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                for number in range(lines):
                    process.stdin.write(f"{number}\n".encode())
                    answers.append((await process.stdout.readline()).decode().strip())
                    await asyncio.sleep(PAUSE_BETWEEN_LINES)
                process.stdin.close()
            said = (await process.stderr.read()).decode()
            return await process.wait(), answers, said
    except TimeoutError:
        return None, answers, "it hangs"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def play(case: Cell, number: int) -> Played:
    """Set the scene, and let rsync and ssh work while it happens."""
    async with stage_of(case, 0, f"programs{number}") as stage:
        hosts = stage.scene.hosts
        with tempfile.TemporaryDirectory() as where:
            folder = FilePath(where)
            (folder / "from").mkdir()
            for index in range(FILES):
                (folder / "from" / str(index)).write_bytes(os.urandom(FILE_SIZE))
            with ssh_server(hosts["right"].namespace, folder) as server:
                drama = Drama(stage.scene, shell, case.happens)
                roles = {"left": ("-L", str(PORT)), "right": ("--to", str(server.port), "--no-secret")}
                running = [asyncio.create_task(_end(drama, side, roles[side])) for side in BOTH]
                try:
                    return await _work(drama, folder, server)
                finally:
                    for live in drama.lives.values():
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(live.pid, signal.SIGTERM)
                    await asyncio.gather(*running)


async def _end(drama: Drama, side: str, role: tuple[str, ...]) -> ends.Outcome:
    hosts = drama.scene.hosts
    own, other = hosts[side], hosts["right" if side == "left" else "left"]
    command = TOOL.command(Call(own.dial4, (other.dial4,), "lab", 0.0, 20.0, role))
    return await ends.run_end(own.namespace, command, b"", PATIENCE, live=drama.lives[side])


async def _work(drama: Drama, folder: FilePath, server: SshServer) -> Played:
    left = drama.scene.hosts["left"].namespace
    for live in drama.lives.values():
        await live.says("link_up")
    there = ("-p", str(PORT), "127.0.0.1")
    loop = "while read line; do echo answer $line; done"
    rsync = ["rsync", "-r", f"--bwlimit={RATE}", "-e", shlex.join(server.ssh("-p", str(PORT)))]
    copy = asyncio.create_task(_run(left, [*rsync, f"{folder}/from/", f"127.0.0.1:{folder}/to/"]))
    typed = asyncio.create_task(_run(left, server.ssh(*there, loop), LINES))
    await drama.happen()
    late = not copy.done()
    (copied, _, complaint), (status, answers, other) = await asyncio.gather(copy, typed)
    names = sorted(os.listdir(folder / "from"))
    match, _, _ = filecmp.cmpfiles(folder / "from", folder / "to", names, shallow=False)
    resumed = [sum(one["event"] == "resumed" for one in live.events) for live in drama.lives.values()]
    return Played((resumed[0], resumed[1]), late, match == names, answers, (copied, status), complaint + other)


async def play_all(pattern: str) -> dict[str, Any]:
    """Play the cases whose name matches, one after the other."""
    cases = [case for case in CASES if re.search(pattern, case.name)]
    return {case.name: asdict(await play(case, number)) for number, case in enumerate(cases)}


def main() -> None:
    """Play in private namespaces, as the laboratory does."""
    tied, pattern = "--tied" in sys.argv, sys.argv[-1]
    if tied:
        sandbox.die_with_parent()
    sandbox.enter()
    # sshd's own, empty.
    (sandbox.RUN / "sshd").mkdir()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    json.dump(asyncio.run(play_all(pattern)), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
