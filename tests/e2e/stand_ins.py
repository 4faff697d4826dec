"""Play programs that the tests' machine does not have, for what docs/RECIPES.md asks of them.

`python -m tests.e2e.stand_ins NAME ...` is `NAME ...`.  What a recipe does not ask is an error.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from . import dockerfile
from .flows import WAIT, noise, receive

UNIT = "punchtunnel.service"
# Of a screen of 4 x 4.
PIXELS = noise(4 * 4 * 4)


def script(name: str, **variables: object) -> str:
    """Return a shell script that is this program."""
    given = " ".join(f"{key}={value}" for key, value in variables.items())
    return f'{given} exec {sys.executable} -m tests.e2e.stand_ins {name} "$@"'


# ---- VNC (RFC 6143 §7)


def show_screen(sock: socket.socket) -> None:
    """Serve a screen; the server speaks first."""
    sock.sendall(b"RFB 003.008\n")
    assert receive(sock, 12) == b"RFB 003.008\n"
    # One kind of security: none.
    sock.sendall(b"\x01\x01")
    assert receive(sock, 1) == b"\x01"
    sock.sendall(bytes(4))
    receive(sock, 1)
    sock.sendall(bytes.fromhex("0004 0004 2018000100ff00ff00ff100800000000 00000004") + b"home")
    assert receive(sock, 10) == bytes.fromhex("03 00 0000 0000 0004 0004")
    sock.sendall(bytes.fromhex("00 00 0001 0000 0000 0004 0004 00000000") + PIXELS)


def vncviewer(place: str) -> None:
    """Print the name of a screen, and its pixels."""
    host, _, port = place.partition("::")
    with socket.create_connection((host, int(port)), WAIT) as sock:
        sock.sendall(receive(sock, 12))
        sock.sendall(receive(sock, 2)[1:])
        assert receive(sock, 4) == bytes(4)
        sock.sendall(b"\x01")
        name = receive(sock, 24 + 4)[24:]
        sock.sendall(bytes.fromhex("03 00 0000 0000 0004 0004"))
        receive(sock, 16)
        print(name.decode(), receive(sock, len(PIXELS)).hex())


# ---- systemd


def systemctl(*words: str) -> None:
    """Enable and start the unit of the root directory in ROOT; systemd looks at it, and does not run."""
    root = Path(os.environ["ROOT"])
    match words:
        case ["daemon-reload"]:
            _verify(root / "etc/systemd/system")
        case ["enable", "--now", "--no-block", "punchtunnel"]:
            path = shutil.which("systemctl", path="/usr/bin:/bin")
            assert path is not None
            subprocess.run([path, "--quiet", f"--root={root}", "enable", "punchtunnel"], check=True)
            # It does not wait for a hole.
            os.posix_spawnp((command := _exec_start(root))[0], command, os.environ)
        case _:
            raise AssertionError(words)


def _verify(units: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(units, folder, dirs_exist_ok=True)
        unit = Path(folder, UNIT)
        # It must not complain that the tool is not installed on this machine.
        unit.write_text(unit.read_text().replace("/usr/local/bin/punchtunnel", "/bin/true"))
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)],
            env=os.environ | {"SYSTEMD_UNIT_PATH": f"{folder}:"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


def _exec_start(root: Path) -> list[str]:
    """Return the command that the unit and its drop-ins start."""
    unit = root / "etc/systemd/system" / UNIT
    lines = [
        line for path in (unit, *sorted(Path(f"{unit}.d").glob("*.conf"))) for line in path.read_text().split("\n")
    ]
    variables = dict(one.split("=", 1) for words in _settings(lines, "Environment") for one in shlex.split(words))
    (credential,) = _settings(lines, "LoadCredential")
    (command,) = _settings(lines, "ExecStart")
    command = command.replace("/usr/local/bin/", "").replace("%d/secret", f"{root}{credential.partition(':')[2]}")
    for name, value in variables.items():
        command = command.replace(f"${{{name}}}", shlex.quote(value)).replace(f"${name}", value)
    return shlex.split(command)


def _settings(lines: list[str], name: str) -> Iterator[str]:
    return (line.partition("=")[2] for line in lines if line.startswith(f"{name}="))


# ---- docker


def docker(*words: str) -> None:
    """Look whether the image could be built, and run the tool in its place."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    if words[0] == "build":
        parser.add_argument("-t")
        parser.add_argument("-f", type=Path)
        parser.add_argument("context", type=Path)
        given = parser.parse_args(words[1:])
        assert given.t == "punchtunnel"
        for source in dockerfile.sources(given.f.read_text()):
            assert (given.context / source).exists(), source
        return
    assert words[0] == "run"
    parser.add_argument("--rm", action="store_true")
    parser.add_argument("--network", choices=["host"], required=True)
    parser.add_argument("-e", action="append", default=[])
    parser.add_argument("image", choices=["punchtunnel"])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(words[1:])
    kept = {"PATH", *given.e}
    os.execvpe("punchtunnel", ["punchtunnel", *given.command], {name: os.environ[name] for name in kept})


PROGRAMS: dict[str, Callable[..., None]] = {"docker": docker, "systemctl": systemctl, "vncviewer": vncviewer}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
