"""What a fresh secret looks like, and which bytes stand for a typed one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.errors import UsageError
from punchtunnel.protocol.secret import ALPHABET, MAX_SIZE, WEAK_BELOW, fresh, normal, strength

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


@given(st.binary(min_size=16, max_size=16), st.data())
def test_a_fresh_secret_may_be_typed_as_it_was_heard(entropy: bytes, data: st.DataObject) -> None:
    text = fresh(lambda _: entropy)
    heard = "".join(
        data.draw(st.sampled_from([letter, letter.upper(), f" {letter}", f"{letter}-", f" -{letter} "]))
        for letter in text.replace("-", "")
    )
    assert normal(heard) == normal(text)


def test_a_letter_that_was_misheard_is_the_digit_it_sounds_like() -> None:
    fresh_one = fresh(lambda size: bytes(range(size)))
    assert "0" in fresh_one
    assert "1" in fresh_one
    heard = fresh_one.replace("0", "O").replace("1", "l")
    assert normal(heard) == normal(fresh_one)
    assert normal("all in one, o lily") == b"all in one, o lily", "only in what `fresh` has made"


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


# ---- how strong


@pytest.mark.parametrize(
    "weak",
    ["1", "0000", "1234", "20261129", "hunter2", "tiger", "password", "Passw0rd!", "secretsecretsecret", "a" * 40,
     "abcdefghijklmnopqrstuvwxyz", "0123456789" * 4, "qwerty123456", "Test1234", "öäü"],
)  # fmt: skip
def test_what_can_be_guessed_is_weak(weak: str) -> None:
    assert strength(normal(weak)) < WEAK_BELOW


@pytest.mark.parametrize("strong", ["correct horse battery staple", "x7#Kq9!vB2$z", "8359027416385902", "jwqkzpvmxtrn"])
def test_what_is_long_and_has_no_order_is_not(strong: str) -> None:
    assert strength(normal(strong)) >= WEAK_BELOW


@given(st.binary(min_size=16, max_size=16))
def test_a_fresh_secret_is_as_good_as_never_weak(entropy: bytes) -> None:
    secret = normal(fresh(lambda _: entropy))
    # Unless chance has made a row of equal letters of it, as hypothesis does.
    assert strength(secret) >= WEAK_BELOW or len(set(secret)) < 10


@given(st.text(min_size=1))
def test_any_secret_has_a_strength(text: str) -> None:
    try:
        secret = normal(text)
    except UsageError:
        return
    assert 0 <= strength(secret) < 10 * MAX_SIZE
