"""What nobody expected ends a run with a sentence that names it, and with an exit event."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

import pytest

from punchtunnel.cli import run as module
from punchtunnel.cli.options import Options
from punchtunnel.errors import Exit


def outcome(error: BaseException, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Let a run meet an error, and return its exit event."""

    def perform(*_: object) -> tuple[Exit, str]:
        raise error

    monkeypatch.setattr(module, "_perform", perform)
    try:
        status = module.run(Options(peers=["127.0.0.1"], as_json=True))
    finally:
        *_, last = capfd.readouterr().err.splitlines()
        told = json.loads(last)
    assert told["status"] == status
    return dict(told)


def test_an_error_of_the_system_names_the_call(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It was "cannot write: No space left on device", whatever had been refused."""
    told = outcome(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), monkeypatch, capfd)
    assert told["status"] == Exit.LOCAL
    assert told["reason"] == "the system refused a call: No space left on device, in `raise error`"


def test_an_error_that_has_a_sentence_keeps_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told = outcome(OSError(errno.ENOSPC, "cannot watch a connection"), monkeypatch, capfd)
    assert told["reason"] == "cannot watch a connection"


def test_no_memory_is_a_sentence(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """It was a traceback without an exit event."""
    told = outcome(MemoryError(), monkeypatch, capfd)
    assert told["status"] == Exit.LOCAL
    assert told["reason"].startswith("out of memory")


def test_a_bug_has_an_exit_event_before_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def perform(*_: object) -> tuple[Exit, str]:
        raise KeyError("what")

    monkeypatch.setattr(module, "_perform", perform)
    with pytest.raises(KeyError):
        module.run(Options(peers=["127.0.0.1"], as_json=True))
    *_, last = capfd.readouterr().err.splitlines()
    assert json.loads(last)["reason"] == "internal error, which is a bug: KeyError: 'what'"
