"""The outside ports that were seen, and the rule that they show."""

from __future__ import annotations

import random

import pytest

from punchtunnel.reach.portclass import FEWEST, WINDOW, Kind, Sample, classify

# What each own port was seen as, in the order of opening; the kind; whether each destination sees the same one.
TABLE: list[tuple[str, list[tuple[int, int]], Kind, bool | None]] = [
    ("one, kept", [(12345, 12345)], Kind.PRESERVING, None),
    ("all kept", [(1, 1), (2, 2), (3, 3), (4, 4)], Kind.PRESERVING, None),
    ("kept towards both", [(1, 1), (1, 1), (2, 2), (2, 2), (3, 3), (4, 4)], Kind.PRESERVING, True),
    ("kept towards the first only", [(1, 1), (1, 40000), (2, 2), (2, 40001), (3, 3)], Kind.PRESERVING, False),
    # Another machine behind the router has port 1.
    ("one taken", [(1, 40000), (1, 40001), (2, 2), (2, 2), (3, 3), (4, 4)], Kind.PRESERVING, True),
    ("half of them taken", [(1, 40000), (2, 2), (3, 50000), (4, 4)], Kind.PRESERVING, None),
    ("most of them taken", [(1, 40000), (2, 2), (3, 50000), (4, 9)], Kind.RANDOM, None),
    ("the same for each, at random", [(1, 9000), (1, 9000), (2, 60000), (2, 60000)], Kind.ENDPOINT_INDEPENDENT, True),
    ("the same for each, in a row", [(1, 9000), (1, 9000), (2, 9001), (2, 9001)], Kind.ENDPOINT_INDEPENDENT, True),
    ("the same for each, one port", [(1, 9000), (1, 9000)], Kind.ENDPOINT_INDEPENDENT, True),
    ("in a row", [(1, 1025), (1, 1026), (2, 1027), (2, 1028), (3, 1029)], Kind.SEQUENTIAL, False),
    ("in a row, one server", [(1, 1025), (2, 1026), (3, 1027), (4, 1028)], Kind.SEQUENTIAL, None),
    ("by twos", [(1, 1025), (2, 1027), (3, 1029)], Kind.SEQUENTIAL, None),
    ("a constant step beyond 256", [(1, 2000), (2, 2512), (3, 3024), (4, 3536)], Kind.SEQUENTIAL, None),
    ("others in between", [(1, 2000), (2, 2003), (3, 2100), (4, 2256)], Kind.SEQUENTIAL, None),
    ("others in between, too many", [(1, 2000), (2, 2003), (3, 2100), (4, 2257)], Kind.WINDOW, None),
    ("close, without order", [(1, 2000), (2, 2001), (3, 1999), (4, 2002)], Kind.WINDOW, None),
    ("downwards", [(1, 2003), (2, 2002), (3, 2001), (4, 2000)], Kind.WINDOW, None),
    ("one port again and again", [(1, 2003), (2, 2003), (3, 2003)], Kind.WINDOW, None),
    ("a block", [(1, 4096), (2, 8191), (3, 5000), (4, 6000)], Kind.WINDOW, None),
    ("more than a block", [(1, 4096), (2, 8192), (3, 5000), (4, 6000)], Kind.RANDOM, None),
    ("anything", [(1, 50000), (1, 3000), (2, 20000), (2, 61000)], Kind.RANDOM, False),
    ("one, rewritten", [(1, 4711)], Kind.REWRITTEN, None),
    ("two destinations, and no more", [(1, 4711), (1, 4712)], Kind.REWRITTEN, False),
    ("two ports, and no more", [(1, 4711), (2, 60000)], Kind.REWRITTEN, None),
]


@pytest.mark.parametrize(("name", "seen", "kind", "independent"), TABLE, ids=[name for name, *_ in TABLE])
def test_a_rule_is_recognised(name: str, seen: list[tuple[int, int]], kind: Kind, independent: bool | None) -> None:
    use = classify([Sample(*pair) for pair in seen])
    assert (use.kind, use.independent) == (kind, independent)
    assert (use.low, use.high) == (min(port for _, port in seen), max(port for _, port in seen))


def test_every_kind_is_in_the_table() -> None:
    assert {kind for _, _, kind, _ in TABLE} == set(Kind)


@pytest.mark.parametrize("count", [FEWEST + 1, 6])
def test_ports_at_random_are_hardly_ever_taken_for_a_row(count: int) -> None:
    rng = random.Random(5)
    kinds = [classify([Sample(own, rng.randint(1024, 65535)) for own in range(count)]).kind for _ in range(2000)]
    assert kinds.count(Kind.SEQUENTIAL) == 0
    assert kinds.count(Kind.WINDOW) < 20


@pytest.mark.parametrize("size", [256, 2048, WINDOW])
def test_a_block_of_a_customer_is_never_taken_for_the_whole_range(size: int) -> None:
    rng = random.Random(6)
    for _ in range(200):
        first = rng.randint(1024, 65536 - size)
        seen = [Sample(own, first + rng.randrange(size)) for own in range(4)]
        assert classify(seen).kind in (Kind.WINDOW, Kind.SEQUENTIAL)
