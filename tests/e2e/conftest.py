"""Every test gets a laboratory of its own, and nothing of it is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .ends import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Start processes, servers and threads that end with the test, also when it fails."""
    with Lab(tmp_path) as lab:
        yield lab
