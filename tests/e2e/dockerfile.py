"""docs/examples/Dockerfile, read, and played without Docker: this machine is the base image.

    lower: /          what the base image has: an interpreter, pip
    upper: a tmpfs    what the instructions add, one for each stage

A stage is an overlay in a private mount namespace, and RUN a chroot into it.
So nothing is changed, and everything is gone when the process has ended.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from .ends import ROOT

PAGE = ROOT / "docs" / "examples" / "Dockerfile"
# What python:3-slim has on its PATH.
_BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
_START = """\
set -e
mount -t tmpfs -o mode=755 tmpfs $top
# Of a folder, COPY takes what is in it.
copy() {
  to=$1; shift
  case $to in */) mkdir -p "$to";; esac
  for from; do
    if [ -d "$from" ]; then mkdir -p "$to"; cp -r "$from/." "$to"; else cp "$from" "$to"; fi
  done
}"""


def instructions(text: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments."""
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.M).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def sources(text: str) -> list[str]:
    """Return what is copied from the checkout."""
    copied = [rest.split()[:-1] for word, rest in instructions(text) if word == "COPY" and "--from" not in rest]
    return [source for words in copied for source in words]


def played(text: str, folder: Path, version: Path) -> list[str]:
    """Return a command that builds the image and then is its container; its arguments are the entry point's.

    Args:
        text: Of the Dockerfile.
        folder: Empty, and for others it stays so.
        version: A file that gets what the entry point says to --version.
    """
    script = "\n".join([f"top={folder}", _START, *_script(text, version)])
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


def _script(text: str, version: Path) -> Iterator[str]:
    stages = dict[str, str]()
    root, folder, path, user = "", "/", _BASE_PATH, "0:0"
    entry: list[str] = []

    def inside(command: str, who: str = "0:0") -> str:
        return f"env PATH={path} chroot --userspec={who} {root} {command}"

    for word, rest in instructions(text):
        match word:
            case "FROM":
                name = rest.partition(" AS ")[2] or str(len(stages))
                stages[name] = root = f"$top/{len(stages)}/root"
                folder, path, user = "/", _BASE_PATH, "0:0"
                yield from _base(root)
            case "WORKDIR":
                folder = rest
                yield f"mkdir -p {root}{folder}"
            case "ENV":
                variable, _, value = rest.partition("=")
                assert variable == "PATH"
                path = value.replace("$PATH", path)
            case "COPY":
                yield _copy(rest.split(), root, folder, stages)
            case "RUN":
                yield inside(f"sh -c {shlex.quote(f'cd {folder} && {rest}')} >&2")
            case "USER":
                user = rest
            case "ENTRYPOINT":
                entry = json.loads(rest)
            case _:
                raise AssertionError(f"{word} is not played")
    yield inside(f"{shlex.join(entry)} --version", user) + f" > {shlex.quote(str(version))}"
    yield f'exec {inside(shlex.join(entry), user)} "$@"'


def _base(root: str) -> Iterator[str]:
    """Make this machine's files a base image, with an interpreter that everybody may run."""
    part = root.removesuffix("/root")
    yield f"mkdir -p {part}/upper {part}/work {root}"
    yield f"mount -t overlay overlay -o lowerdir=/,upperdir={part}/upper,workdir={part}/work {root}"
    # The last one may be a file system of its own.
    for place in ("/dev", "/proc", "/sys", sys.prefix):
        yield f"mount --rbind {place} {root}{place}"
    for name, command in (("python", sys.executable), ("pip", f"{sys.executable} -m pip")):
        yield f"printf '#!/bin/sh\\nexec {command} \"$@\"\\n' > {root}/usr/local/bin/{name}"
        yield f"chmod 755 {root}/usr/local/bin/{name}"
    for parent in Path(sys.executable).resolve().parents:
        yield f"chmod a+rx {root}{parent}"


def _copy(words: list[str], root: str, folder: str, stages: dict[str, str]) -> str:
    origin = str(ROOT)
    if words[0].startswith("--from="):
        origin = stages[words.pop(0).removeprefix("--from=")]
    *names, target = words
    target = target if target.startswith("/") else f"{folder}/{target}"
    return " ".join(["copy", f"{root}{target}", *(f"{origin}/{name}" for name in names)])
