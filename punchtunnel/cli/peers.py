"""Saved peers: the names that stand for addresses, a secret, and any options, in peers.toml.

    [laptop]
    secret = "39dm-0teb-nmj3-k5sh-t62h-1tra-md"
    peers = ["203.0.113.9"]
    relay = ["relay.example.org"]
    to = ["ssh=22", "web=8080"]     # any option, by its long name without the dashes

Rule 1: what is given on the command line goes before what is saved.
Rule 2: the file holds secrets, so others must not be able to read it.
Rule 3: a PEER that is an address, or has a port, is no name of a saved peer.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from punchtunnel import words
from punchtunnel.address import is_literal
from punchtunnel.errors import LocalError, UsageError
from punchtunnel.protocol.secret import normal
from punchtunnel.words import usage

# Bytes; a list, not a database.
MAX_SIZE = 1024 * 1024
# What a peer can be called: neither an option nor a path, and a bare key of TOML.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
# Keys that are no options.
_SECRET, _PEERS = "secret", "peers"
# An option that is a flag, or has the name of a service, which is a parameter of its own.
_STDIO, _SERVICE = "stdio", "service"
# What the reader of TOML says of mistakes whose names help to find them.
_MISTAKES = {
    "Cannot overwrite": usage.TOML_TWICE,
    "Cannot declare": usage.TOML_TWICE,
    "Duplicate": usage.TOML_TWICE,
    "Expected ']' at the end of a table": usage.TOML_NAME,
}

Value = str | int | float | bool | list[str]


@dataclass(frozen=True, slots=True)
class Saved:
    """One saved peer.

    Attributes:
        name: As it is given for PEER.
        peers: Addresses and names; empty where a relay is all that is known.
        secret: In its normal form; empty if there is none.
        options: What else is saved, by the options' long names without the dashes.
    """

    name: str
    peers: tuple[str, ...] = ()
    secret: bytes = field(default=b"", repr=False)
    options: Mapping[str, Value] = field(default_factory=dict)


class Kind(Enum):
    """What an option takes in the file."""

    FLAG = usage.A_FLAG
    COUNT = usage.A_COUNT
    NUMBER = usage.A_NUMBER
    TEXT = usage.A_TEXT
    LIST = usage.A_LIST
    # Of which the option's own parser says more.
    PARSED = usage.A_NUMBER_OR_TEXT

    def takes(self, value: Value) -> bool:
        """Tell whether a value is of this kind."""
        is_number = isinstance(value, int) and not isinstance(value, bool)
        match self:
            case Kind.FLAG:
                return isinstance(value, bool)
            case Kind.COUNT:
                return is_number and value in range(sys.maxsize)
            case Kind.NUMBER:
                return is_number
            case Kind.TEXT:
                return isinstance(value, str)
            case Kind.LIST:
                return is_number or isinstance(value, str | list)
            case Kind.PARSED:
                return not isinstance(value, list)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of the command line: its name, and what it takes."""

    name: str
    kind: Kind


def path_of(environment: Mapping[str, str]) -> Path:
    """Return where saved peers are: $XDG_CONFIG_HOME/punchtunnel/peers.toml, below ~/.config by default."""
    home = environment.get("XDG_CONFIG_HOME", "")
    # A relative path is to be ignored (XDG Base Directory Specification).
    folder = Path(home) if os.path.isabs(home) else Path(environment.get("HOME") or "/", ".config")
    return folder / "punchtunnel" / "peers.toml"


def is_name(text: str) -> bool:
    """Tell whether a saved peer can be called that."""
    return _NAME.fullmatch(text) is not None and not is_literal(text)


def find(path: Path, given: Sequence[str]) -> Saved | None:
    """Return the saved peer that a command line means, or None.

    Args:
        path: Of the file, which need not be there.
        given: The PEERs of the command line.

    Raises:
        LocalError: The file cannot be read, or others can read it.
        UsageError: The file, or what it says of that peer, is wrong; or others are given beside that peer.
    """
    names = list(filter(is_name, given))
    saved = read(path) if names else {}
    found = [saved[name] for name in names if name in saved]
    if found and len(given) > 1:
        raise UsageError(usage.ONE_SAVED_PEER.format(name=found[0].name))
    return found[0] if found else None


def read(path: Path) -> dict[str, Saved]:
    """Return all saved peers by their names.

    Raises:
        LocalError: The file cannot be read, or others can read it.
        UsageError: The file is wrong.
    """
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            data = file.read(MAX_SIZE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise LocalError(words.cannot(words.read_secret(str(path)), error)) from error
    if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO) and data.strip():
        raise LocalError(words.readable_secret(str(path)))
    if len(data) > MAX_SIZE:
        raise UsageError(usage.LONG_PEERS.format(path=path))
    try:
        tables = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # `from None`: the cause could show a secret.
        raise UsageError(_mistake_in(path, error)) from None
    return {name: _saved(path, name, table) for name, table in tables.items()}


def _mistake_in(path: Path, error: tomllib.TOMLDecodeError | UnicodeDecodeError) -> str:
    """Say where a file is wrong, and why if that can be told without what it says there."""
    if isinstance(error, UnicodeDecodeError):
        return usage.PEERS_NOT_UTF8.format(path=path)
    reason, _, place = str(error).rpartition(" (at ")
    why = next((f" ({name})" for begin, name in _MISTAKES.items() if reason.startswith(begin)), "")
    return usage.PEERS_NOT_TOML.format(path=path, place=place.removesuffix(")"), why=why)


def _saved(path: Path, name: str, table: object) -> Saved:
    if not isinstance(table, dict) or not is_name(name):
        raise UsageError(usage.NOT_A_SAVED_PEER.format(path=path, name=name))
    options = {key: value for key, value in table.items() if key not in (_SECRET, _PEERS)}
    peers = table.get(_PEERS, [])
    secret = table.get(_SECRET, "")
    if not isinstance(secret, str) or not _are_texts(peers):
        raise UsageError(usage.NOT_A_SAVED_PEER.format(path=path, name=name))
    for key, value in options.items():
        if not (isinstance(value, str | int | float | bool) or _are_texts(value)):
            raise UsageError(wrong_value(path, name, key, usage.NO_VALUE))
    try:
        return Saved(name, tuple(peers), normal(secret) if secret else b"", options)
    except UsageError as error:
        raise UsageError(wrong_value(path, name, _SECRET, str(error))) from None


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def wrong_value(path: Path, name: str, key: str, reason: str) -> str:
    """Say where a value stands, and what is wrong with it."""
    return usage.NOT_A_SAVED_VALUE.format(path=path, name=name, key=key, reason=reason)


def defaults_of(saved: Saved, parameters: Mapping[str, Parameter], path: Path) -> dict[str, Value]:
    """Return what is saved by the names of parameters.

    Args:
        saved: The peer.
        parameters: By the options' long names without the dashes; of a list, one text or number is a list of one.
        path: Of the file.

    Raises:
        UsageError: There is no such option, or it takes no such value.
    """
    found: dict[str, Value] = {}
    for key, value in saved.options.items():
        if key not in parameters:
            raise UsageError(usage.NOT_A_SAVED_OPTION.format(path=path, name=saved.name, key=key))
        name, kind = parameters[key].name, parameters[key].kind
        if key == _STDIO and isinstance(value, str):
            # As --stdio=NAME.
            found[_SERVICE] = value
        elif not kind.takes(value):
            wanted = usage.A_FLAG_OR_SERVICE if key == _STDIO else kind.value
            raise UsageError(wrong_value(path, saved.name, key, usage.NEEDS.format(kind=wanted)))
        elif kind is Kind.LIST and not isinstance(value, list):
            found[name] = [str(value)]
        else:
            # As the file has it: Python writes True.
            found[name] = json.dumps(value) if kind is Kind.PARSED and isinstance(value, bool) else value
    return found


def prepare(path: Path) -> None:
    """Make the folder of the file, and find out whether a peer can be written.

    Raises:
        LocalError: It cannot.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = _temporary(path.resolve())
        os.close(descriptor)
        temporary.unlink()
    except OSError as error:
        raise LocalError(words.cannot(words.write_file(str(path)), error)) from error


def add(path: Path, saved: Saved, secret: str) -> None:
    """Write a peer into the file, behind what is there.

    Args:
        path: Of the file; made, with its folder, if it is not there.
        saved: The peer.
        secret: As it is written.

    Raises:
        LocalError: It cannot be written.
        UsageError: There is a peer of that name.
    """
    if saved.name in read(path):
        raise UsageError(usage.PEER_IS_SAVED.format(path=path, name=saved.name))
    table = {_SECRET: secret, _PEERS: list(saved.peers), **saved.options}
    # TOML's strings of one line, and its lists of them, are JSON's.
    lines = [f"[{saved.name}]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = path.read_text("utf-8") if path.exists() else ""
        if before and not before.endswith("\n"):
            before += "\n"
        gap = "\n" if before else ""
        _replace(path, before + gap + "\n".join(lines) + "\n")
    except OSError as error:
        raise LocalError(words.cannot(words.write_file(str(path)), error)) from error


def _replace(path: Path, text: str) -> None:
    """Put a new text in the place of the file, so that no reader sees half of it."""
    # A link stays one: the file may be kept elsewhere.
    target = path.resolve()
    descriptor, temporary = _temporary(target)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _temporary(target: Path) -> tuple[int, Path]:
    """Open a new file beside another one, for the owner alone."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), temporary
