"""The token of a day, the vectors of docs/PROTOCOL.md, and which secrets make none."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.errors import UsageError
from punchtunnel.protocol import token
from punchtunnel.protocol.schedule import channel_tag
from punchtunnel.protocol.secret import fresh, is_fresh, normal

SECRET = normal("39dm-0teb-nmj3-k5sh-t62h-1tra-md")
# docs/PROTOCOL.md, "Meeting at a relay".
VECTORS = {
    ("", 20000): "6a69ee5bd77c1bf6b5af0dfb783b180ba5ebd845b51a70dc1dac8c4324064f07",
    ("", 20001): "6600b5e1ac8a511e269e9f2d69faae9dcb2f6ac18310783481964175387b7828",
    ("backup", 20000): "2c896a3e318f7c55ae59fc2aab05c9460856106b7fd613a924f847ba8f1dac5a",
}


@pytest.mark.parametrize(("channel", "day"), VECTORS)
def test_tokens_of_the_vectors(channel: str, day: int) -> None:
    made = token.token(SECRET, channel_tag(channel), day)
    assert made.hex() == VECTORS[channel, day]
    assert len(made) == token.TOKEN_SIZE


def test_another_secret_makes_another_token() -> None:
    other = normal(fresh(lambda size: bytes(range(100, 100 + size))))
    assert token.token(other, channel_tag(""), 20000).hex() not in VECTORS.values()


# ---- days


def test_around_midnight_there_are_two_tokens_and_otherwise_one() -> None:
    midnight = 20000 * token.DAY
    assert token.days(midnight - 901) == (19999,)
    assert token.days(midnight - 900) == (19999, 20000)
    assert token.days(midnight + 899) == (19999, 20000)
    assert token.days(midnight + 900) == (20000,)


@given(st.floats(0, 2**33), st.floats(0, 1800))
def test_two_clocks_half_an_hour_apart_share_a_token(t: float, difference: float) -> None:
    assert set(token.days(t)) & set(token.days(t + difference))


# ---- which secrets


@pytest.mark.parametrize(
    "secret",
    [
        "open sesame",
        "correct horse battery staple, as everybody knows from a comic strip",
        "a" * 26,
        "0000-0000-0000-0000-0000-0000-00",
        "0123456789abcdefghjkmnpqrs",
        "92dm-0teb-nmj3-k5sh-t62h-1tra-md",
        "39dm-0teb-nmj3-k5sh-t62h-1tra-m",
        "39dm-0teb-nmj3-k5sh-t62h-1tra-mdx",
        "3uuu-0teb-nmj3-k5sh-t62h-1tra-md",
    ],
)
def test_a_secret_that_people_can_think_of_makes_no_token(secret: str) -> None:
    with pytest.raises(UsageError, match=r"this secret is too weak to meet with: .*--new-secret"):
        token.token(normal(secret), channel_tag(""), 20000)


def test_without_a_secret_and_in_plain_there_is_no_token() -> None:
    with pytest.raises(UsageError, match="there is no secret to meet with"):
        token.check(b"", sealed=True)
    with pytest.raises(UsageError, match="not sealed"):
        token.check(SECRET, sealed=False)


def test_a_fresh_secret_makes_a_token() -> None:
    for seed in range(500):
        assert is_fresh(normal(fresh(Random(seed).randbytes)))


def test_bytes_that_are_no_text_are_no_fresh_secret() -> None:
    assert not is_fresh(b"\xff" * 26)
    assert not is_fresh(b"")
