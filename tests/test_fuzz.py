"""Five seconds of the fuzz target; `python -m tests.fuzz` runs longer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import strategies as st

from punchtunnel.protocol.hello import decode_hello

from .fuzz import TARGETS, fuzz


@pytest.mark.exhaustive
def test_five_seconds_of_noise_find_nothing(tmp_path: Path) -> None:
    passed, failed = fuzz(5.0, tmp_path)
    assert failed == 0
    assert passed >= len(TARGETS)


def test_a_finding_is_shown_kept_and_tried_first_by_the_next_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[bytes] = []

    def weak(draw: st.DataObject) -> None:
        """Fails."""
        data = draw.draw(st.binary(max_size=40))
        tried.append(data)
        if len(data) > 3:
            decode_hello(data)

    assert fuzz(60.0, tmp_path, [weak])[1] == 1
    assert "PeerError" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()]
    tried.clear()
    assert fuzz(60.0, tmp_path, [weak])[1] == 1
    assert len(tried[0]) > 3
