"""The one place that the secret comes from, and what is said of a file that is not well kept."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from punchtunnel import words
from punchtunnel.cli.options import SECRET_VARIABLE, Options
from punchtunnel.cli.secret import CREDENTIALS, find, find_secret
from punchtunnel.errors import LocalError, UsageError
from punchtunnel.protocol.secret import MAX_SIZE
from punchtunnel.reporting.events import Event, Warned


def no_warning(reason: str) -> None:
    raise AssertionError(reason)


def read(path: Path, warn: Callable[[str], None] = no_warning) -> bytes:
    return find({SECRET_VARIABLE: "not this one"}, str(path), None, warn)


def keep(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_there_is_none_if_none_is_given() -> None:
    assert find({}, None, None, no_warning) == b""


def test_the_variable_counts_unless_something_more_explicit_is_given(tmp_path: Path) -> None:
    assert find({SECRET_VARIABLE: "from the variable"}, None, None, no_warning) == b"from the variable"
    assert find({SECRET_VARIABLE: "x"}, None, lambda: "from the terminal", no_warning) == b"from the terminal"
    assert read(keep(tmp_path, b"from the file\n")) == b"from the file"


@pytest.mark.parametrize(("secret", "is_weak"), [("tiger", True), ("correct horse battery staple", False)])
def test_a_weak_secret_is_warned_of_without_a_letter_of_it(
    secret: str, is_weak: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, secret)
    told: list[Event] = []
    assert find_secret(Options(["198.51.100.7"]), told.append) == secret.encode()
    assert told == [Warned(words.WEAK_SECRET)] * is_weak
    assert secret not in words.WEAK_SECRET


@pytest.mark.parametrize("value", ["", "  "])
def test_a_variable_that_is_set_and_empty_is_a_mistake_and_not_no_secret(value: str) -> None:
    with pytest.raises(UsageError, match="PUNCHTUNNEL_SECRET is set and empty"):
        find({SECRET_VARIABLE: value}, None, None, no_warning)


def test_two_places_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contradict"):
        find({}, str(tmp_path), lambda: "x", no_warning)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o777])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """As ssh refuses such a key.  It was used, with a warning in a log that nobody reads."""
    path = keep(tmp_path, b"open sesame", mode)
    with pytest.raises(LocalError, match=f"chmod 600 {path}") as refused:
        read(path)
    assert "sesame" not in str(refused.value)


def test_no_core_dump_has_the_secret_in_it() -> None:
    code = (
        "import resource\n"
        "from punchtunnel.cli.options import Options\n"
        "from punchtunnel.cli.secret import find_secret\n"
        "find_secret(Options(['127.0.0.1']), print)\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "(0, 0)\n"


def test_a_file_that_somebody_else_may_change_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep(tmp_path, b"open sesame")
    os.chown(path, os.geteuid() or 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    warnings: list[str] = []
    assert read(path, warnings.append) == b"open sesame"
    assert len(warnings) == 1
    assert "another user" in warnings[0]


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_ones_own_is_not_warned_about(tmp_path: Path, mode: int) -> None:
    assert read(keep(tmp_path, b"open sesame", mode)) == b"open sesame"


def test_a_credential_of_systemd_is_not_warned_about(tmp_path: Path) -> None:
    """Its mode is 0440 because of an ACL for the service's user: "chmod 600" was bad advice."""
    path = keep(tmp_path, b"open sesame", 0o440)
    assert find({CREDENTIALS: str(tmp_path)}, str(path), None, no_warning) == b"open sesame"


@pytest.mark.parametrize("name", ["nothing here", "."])
def test_a_file_that_cannot_be_read_is_a_local_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(LocalError, match="cannot read the secret from"):
        read(tmp_path / name)


def test_a_pipe_of_the_shell_is_a_file_too() -> None:
    """As `--secret-file <(pass show tunnel)`: others cannot read it, whatever its mode says."""
    inner, outer = os.pipe()
    os.write(outer, b"open sesame\n")
    os.close(outer)
    assert read(Path(f"/dev/fd/{inner}")) == b"open sesame"
    os.close(inner)


def test_a_file_that_is_no_line_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"\n\n", b"two\nlines\n", b"x" * (MAX_SIZE + 1), bytes(10)):
        with pytest.raises(UsageError, match="the secret"):
            read(keep(tmp_path, content))


@pytest.mark.parametrize("content", ["é" * 3000, "x" * MAX_SIZE + "\nanother line"], ids=["not ASCII", "two lines"])
def test_a_long_file_gives_what_the_same_text_gives_elsewhere(tmp_path: Path, content: str) -> None:
    """One side with the file and one with the variable had different secrets, and nobody said so."""

    def outcome(find_it: Callable[[], bytes]) -> bytes:
        try:
            return find_it()
        except UsageError:
            return b""

    path = keep(tmp_path, content.encode())
    assert outcome(lambda: read(path)) == outcome(lambda: find({SECRET_VARIABLE: content}, None, None, no_warning))
