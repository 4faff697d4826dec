"""Where the secret comes from, and what a fresh one looks like."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.errors import LocalError, UsageError
from punchtunnel.protocol import secret
from punchtunnel.protocol.secret import ALPHABET, MAX_SIZE, VARIABLE, find, fresh, normal


def no_warning(reason: str) -> None:
    raise AssertionError(reason)


def read(path: Path, warn: Callable[[str], None] = no_warning) -> bytes:
    return find({VARIABLE: "not this one"}, str(path), None, warn)


def keep(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    return path


# ---- fresh ones


def test_a_fresh_secret_is_128_bits_in_groups_that_can_be_read_over_the_phone() -> None:
    assert fresh(lambda count: bytes(range(count))) == "0004-1061-050r-3gg2-8a1c-60t3-gf"
    assert fresh(lambda count: bytes(count)) == "0000-0000-0000-0000-0000-0000-00"
    assert fresh(lambda count: b"\xff" * count) == "7zzz-zzzz-zzzz-zzzz-zzzz-zzzz-zz"
    assert not set("ilou") & set(ALPHABET)
    assert len(set(ALPHABET)) == 32


@given(st.binary(min_size=16, max_size=16))
def test_a_fresh_secret_keeps_every_bit(entropy: bytes) -> None:
    value = 0
    for digit in fresh(lambda _: entropy).replace("-", ""):
        value = value << 5 | ALPHABET.index(digit)
    assert value.to_bytes(16, "big") == entropy


def test_no_fresh_secret_comes_twice() -> None:
    assert len({fresh() for _ in range(1000)}) == 1000


@given(st.binary(min_size=16, max_size=16), st.data())
def test_a_fresh_secret_may_be_typed_as_it_was_heard(entropy: bytes, data: st.DataObject) -> None:
    text = fresh(lambda _: entropy)
    heard = "".join(
        data.draw(st.sampled_from([letter, letter.upper(), f" {letter}", f"{letter}-", f" -{letter} "]))
        for letter in text.replace("-", "")
    )
    assert normal(heard) == normal(text)


# ---- typed ones


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("open sesame", b"open sesame"),
        ("  open sesame\n", b"open sesame"),
        ("Open-Sesame", b"Open-Sesame"),
        ("größer", "größer".encode()),
        ("\udcff\udc80", b"\xff\x80"),
        ("x" * MAX_SIZE, b"x" * MAX_SIZE),
        # 26 letters, but one of them is in no fresh secret.
        ("abcdefghijklmnopqrstuvwxyz", b"abcdefghijklmnopqrstuvwxyz"),
        ("0000-0000-0000-0000-0000-0000-0", b"0000-0000-0000-0000-0000-0000-0"),
    ],
)
def test_a_secret_of_ones_own_counts_as_typed(text: str, data: bytes) -> None:
    assert normal(text) == data


@pytest.mark.parametrize("text", ["", " ", "\n\t", "two\nlines", "zero\0byte", "x" * (MAX_SIZE + 1)])
def test_what_is_no_line_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the secret"):
        normal(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_any_text_is_a_secret_or_wrong_usage(text: str) -> None:
    try:
        data = normal(text)
    except UsageError:
        assert not text.strip() or "\n" in text or "\0" in text
    else:
        assert data


# ---- places


def test_there_is_none_if_none_is_given() -> None:
    assert find({}, None, None, no_warning) == b""


def test_the_variable_counts_unless_something_more_explicit_is_given(tmp_path: Path) -> None:
    assert find({VARIABLE: "from the variable"}, None, None, no_warning) == b"from the variable"
    assert find({VARIABLE: "x"}, None, lambda: "from the terminal", no_warning) == b"from the terminal"
    assert read(keep(tmp_path, b"from the file\n")) == b"from the file"


@pytest.mark.parametrize("value", ["", "  "])
def test_a_variable_that_is_set_and_empty_is_a_mistake_and_not_no_secret(value: str) -> None:
    with pytest.raises(UsageError, match="empty"):
        find({VARIABLE: value}, None, None, no_warning)


def test_two_places_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contradict"):
        find({}, str(tmp_path), lambda: "x", no_warning)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o777])
def test_a_file_that_others_may_read_is_warned_about_and_used(tmp_path: Path, mode: int) -> None:
    warnings: list[str] = []
    path = keep(tmp_path, b"open sesame", mode)
    assert read(path, warnings.append) == b"open sesame"
    assert len(warnings) == 1
    assert f"chmod 600 {path}" in warnings[0]
    assert "sesame" not in warnings[0]


def test_a_file_that_somebody_else_may_change_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep(tmp_path, b"open sesame")
    os.chown(path, os.geteuid() or 12345, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    warnings: list[str] = []
    assert read(path, warnings.append) == b"open sesame"
    assert len(warnings) == 1
    assert "another user" in warnings[0]


def test_letters_that_are_taken_for_digits_over_the_phone_are_digits() -> None:
    secret = fresh(lambda size: bytes(range(size)))
    assert "0" in secret
    assert "1" in secret
    heard = secret.replace("0", "O").replace("1", "l")
    assert normal(heard) == normal(secret)
    assert normal("all in one, o lily") == b"all in one, o lily", "only in what `fresh` has made"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_ones_own_is_not_warned_about(tmp_path: Path, mode: int) -> None:
    assert read(keep(tmp_path, b"open sesame", mode)) == b"open sesame"


def test_a_credential_of_systemd_is_not_warned_about(tmp_path: Path) -> None:
    """Its mode is 0440 because of an ACL for the service's user: "chmod 600" was bad advice."""
    path = keep(tmp_path, b"open sesame", 0o440)
    assert find({"CREDENTIALS_DIRECTORY": str(tmp_path)}, str(path), None, no_warning) == b"open sesame"


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
    assert outcome(lambda: read(path)) == outcome(lambda: find({VARIABLE: content}, None, None, no_warning))


def test_the_module_prints_nothing_and_knows_no_argument() -> None:
    text = Path(secret.__file__).read_text()
    assert "print(" not in text
    assert "argv" not in text.replace("never an argument", "")
