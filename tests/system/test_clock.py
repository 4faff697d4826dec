"""What the kernel says about the clock, and nothing that it does not say."""

from __future__ import annotations

import sys

import pytest

from punchtunnel.system import clock


@pytest.mark.parametrize(
    ("answer", "synchronised", "error_ms"),
    [
        ((0x2001, 3250), True, 3.25),
        ((0x2041, 16_000_000), False, None),
        ((0x40, 0), False, None),
        (None, None, None),
    ],
)
def test_the_answer_of_the_kernel_is_read(
    answer: tuple[int, int] | None, synchronised: bool | None, error_ms: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_ask", lambda: answer)
    assert (clock.synchronised(), clock.error_bound_ms()) == (synchronised, error_ms)


@pytest.mark.skipif(sys.platform != "linux", reason="adjtimex is Linux's")
def test_this_kernel_answers_and_both_answers_agree() -> None:
    answer = clock._ask()
    # A sandbox may forbid the question.
    if answer is not None:
        status, error = answer
        assert 0 <= status < 1 << 16
        assert 0 <= error <= 16_000_000
    assert (clock.error_bound_ms() is not None) == bool(clock.synchronised())


def test_another_system_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert (clock.synchronised(), clock.error_bound_ms()) == (None, None)
