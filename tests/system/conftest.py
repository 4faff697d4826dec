"""A /proc of a test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from punchtunnel.system import proc

# Writes one file, named as `proc.read` names it.
Write = Callable[[str, str], None]


@pytest.fixture
def write_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Make /proc an empty folder, and return what puts files into it."""
    monkeypatch.setattr(proc, "ROOT", tmp_path)

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write
