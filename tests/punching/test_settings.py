"""The time that is left when a peer has only checked the path."""

from __future__ import annotations

import pytest

from punchtunnel.punching.settings import LAST_WAIT, LONGEST_EXTENSION, SHORTEST_WAIT, Settings


@pytest.mark.parametrize(
    ("wait", "spent", "left"),
    [
        (120.0, 20.04, 100.0),
        (3.0, 2.5, SHORTEST_WAIT),
        (3.0, 12.0, SHORTEST_WAIT),
        (3.0, 3.0 + LONGEST_EXTENSION, LAST_WAIT),
        (0.0, 1e6, 0.0),
    ],
    ids=["most of it", "a second at least", "also a little later", "but not for ever", "for ever"],
)
def test_a_check_takes_nothing_from_the_wait_but_time(wait: float, spent: float, left: float) -> None:
    """Whoever came with -z again and again kept a side punching beyond its -w."""
    assert Settings(["home"], wait=wait).after(spent).wait == left
