"""docs/RECIPES.md, and two machines on this one that do what it says.

    On `home`:                             a block that is started, and left to itself if laptop is next
    On `laptop`, in `~/.ssh/config`:       a file that is written
    On `laptop`:                           a block that is run to its end, which must be a good one

A machine is a folder that its user has for a home: with `punchtunnel` on the
PATH, and with the other machine among the saved peers.  The lines are run by
bash as they stand, but for addresses, ports, and names that only people have.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .ends import COMMAND, ROOT, Lab, environment
from .flows import WAIT

PAGE = ROOT / "docs" / "RECIPES.md"
SECRET = "39dm-0teb-nmj3-k5sh-t62h-1tra-md"
_STEP = re.compile(r"\b[Oo]n `(home|laptop)`(?:, in `(\S+)`)?([^`\n]*):\n\n```\w*\n(.*?)^```$", re.M | re.S)
# Seconds between two looks.
PAUSE = 0.02

Replacements = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Step:
    """A block of a recipe.

    Attributes:
        machine: home or laptop.
        file: Where the text goes; "" if it is for the shell.
        where: What is said besides, as ", in a clone".
        text: The lines.
    """

    machine: str
    file: str
    where: str
    text: str


def recipes() -> dict[str, list[Step]]:
    """Return the steps of every recipe by its heading."""
    _, *sections = re.split(r"^## (.*)$", PAGE.read_text(), flags=re.M)
    return {
        title: [Step(*found) for found in _STEP.findall(text)]
        for title, text in zip(sections[::2], sections[1::2], strict=True)
    }


def replaced(text: str, replacements: Replacements) -> str:
    """Put something else in the place of words; neither a letter, a digit nor a dot stands next to a word."""
    for word, other in replacements.items():
        before, after = (r"(?<![\w.])" if word[0].isalnum() else ""), (r"(?![\w.])" if word[-1].isalnum() else "")
        text = re.sub(f"{before}{re.escape(word)}{after}", lambda _: str(other), text)  # noqa: B023 -- called at once
    return text


class Machine:
    """One of the two.

    Attributes:
        home: Its user's, short: the path of a Unix socket has 107 characters at most.
        log: What punchtunnel says under the name of the other machine.
    """

    def __init__(self, lab: Lab, name: str, own: str, other: str, peer: str) -> None:
        self._lab = lab
        self._name = name
        self.home = Path(lab.enter(tempfile.TemporaryDirectory(prefix=f"{name}-")))
        self.log = self.home / "log"
        self._bin = self.home / "bin"
        self._bin.mkdir()
        self.provide("punchtunnel", f'exec {" ".join(COMMAND)} "$@"')
        # A shim of pyenv would look for its own in this home.
        self.provide("python3", f'exec {sys.executable} "$@"')
        self.write(
            ".config/punchtunnel/peers.toml",
            f'[{peer}]\nsecret = "{SECRET}"\npeers = ["{other}"]\nbind = "{own}"\nchannel = "{lab.channel}"\n'
            f'log = "{self.log}"\n',
        )
        lab.defer(self.clear)

    def provide(self, name: str, script: str) -> None:
        """Put a program on the PATH, before all others."""
        path = self._bin / name
        path.write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def saves(self, line: str) -> None:
        """Add an option to the saved peer."""
        with (self.home / ".config/punchtunnel/peers.toml").open("a") as file:
            file.write(f"{line}\n")

    def write(self, name: str, text: str) -> None:
        """Write a file below the user's home that only the user can read."""
        path = self.home / name
        assert path.is_relative_to(self.home)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o600)
        path.write_text(text)

    def start(self, text: str, folder: Path | None = None) -> subprocess.Popen[bytes]:
        """Start the lines in a folder, the user's home unless given; what they print is in the file `printed`."""
        variables = environment() | {"HOME": str(self.home), "PATH": f"{self._bin}:{os.environ['PATH']}"}
        variables |= {"PUNCHTUNNEL_SECRET": SECRET}
        variables.pop("XDG_CONFIG_HOME", None)
        with (self.home / "said").open("ab") as said, (self.home / "printed").open("wb") as printed:
            # Files, because what goes to the background would keep a pipe.
            return self._lab.program(
                "/bin/bash", "-e", "-c", f"cd {folder or self.home}\n{text}", stdout=printed, stderr=said, env=variables
            )

    def run(self, text: str, status: int = 0) -> str:
        """Run the lines in the user's home to their end; return what they printed."""
        started = self.start(text)
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(2 * WAIT)
        assert started.returncode == status, f"{self._name}: {text}\nstatus {started.returncode}: {self.said}"
        return (self.home / "printed").read_text()

    @property
    def said(self) -> str:
        """All that came to stderr."""
        return (self.home / "said").read_text()

    def running(self, program: str = "") -> list[int]:
        """Return the processes of this user, also in the background, whose command lines have `program`."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"HOME={self.home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    words = (folder / "cmdline").read_bytes().split(b"\0")
                    if not program or program.encode() in words:
                        found.append(int(folder.name))
        return found

    def kill(self, program: str = "", number: int = signal.SIGKILL) -> None:
        """End such processes, and wait until they are gone."""
        for pid in self.running(program):
            with contextlib.suppress(ProcessLookupError):
                end = os.pidfd_open(pid)
                try:
                    os.kill(pid, number)
                    assert select.select([end], [], [], WAIT)[0]
                finally:
                    os.close(end)

    def clear(self) -> None:
        """End everything that still runs."""
        with contextlib.suppress(OSError):
            for mount in Path("/proc/mounts").read_text().splitlines():
                if (place := mount.split()[1]).startswith(f"{self.home}/"):
                    subprocess.run(["umount", "--lazy", place], check=False)
        while self.running():
            self.kill()


class Pair:
    """Both machines.

    Args:
        lab: It owns all that is started.
    """

    def __init__(self, lab: Lab) -> None:
        self.home = Machine(lab, "home", lab.left, lab.right, "laptop")
        self.laptop = Machine(lab, "laptop", lab.right, lab.left, "home")
        self._started: list[subprocess.Popen[bytes]] = []

    def play(self, title: str, home: Replacements | None = None, laptop: Replacements | None = None) -> list[str]:
        """Do what a recipe says, in its order; return what laptop's blocks printed."""
        printed = []
        steps = recipes()[title]
        for number, step in enumerate(steps):
            machine = self.home if step.machine == "home" else self.laptop
            given = (home if machine is self.home else laptop) or {}
            text, file = (replaced(words, {**given, "~/": f"{machine.home}/"}) for words in (step.text, step.file))
            # RFC 5737: nobody's, and yet not to be dialled.
            assert not re.search(r"203\.0\.113\.|198\.51\.100\.", text), f"replace the address: {text}"
            if file:
                machine.write(file, text)
            elif machine is self.home:
                started = machine.start(text, ROOT if "in a clone" in step.where else None)
                self._started.append(started)
                if steps[number + 1].machine == step.machine:
                    # The next block builds on it.
                    assert started.wait(2 * WAIT) == 0, machine.said
            else:
                printed.append(machine.run(text))
        return printed

    def statuses(self) -> list[int]:
        """Wait until home's blocks have ended; return their exit statuses."""
        return [started.wait(2 * WAIT) for started in self._started]


def wait_until(condition: Callable[[], object]) -> None:
    """Look again and again; fails after WAIT seconds."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, f"hung for {WAIT} s"
        time.sleep(PAUSE)
