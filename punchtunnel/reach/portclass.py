"""How a NAT chooses the outside port of a connection, judged by samples: pure.

    own port   seen towards one server   and towards another
      12345             41201                  41201            endpoint-independent
      12346             50877                  50877

    12345 -> 12345                         preserving: what a punch needs
    12345 -> 1025, 12346 -> 1026, ...      sequential
    12345 -> 4711, 12346 -> 7002, ...      window: all close together
    12345 -> 50321, 12346 -> 2217, ...     random

The words are those of RFC 4787 §4.  It speaks of UDP and RFC 5382 of TCP, and a
NAT may treat the two differently: only connections show what it does to connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

# Two ports can lie close together by chance; three tell of an order.
FEWEST = 3
# Other connections of other machines take ports in between, so that the next port is a
# little further on and not just one.
CLOSE = 256
# A carrier gives each customer a block of ports, mostly of 512 to 4096.
WINDOW = 4096


class Kind(StrEnum):
    """What decides about the outside port."""

    PRESERVING = "preserving"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    SEQUENTIAL = "sequential"
    WINDOW = "window"
    RANDOM = "random"
    # The port is rewritten, but there are fewer than FEWEST samples.
    REWRITTEN = "rewritten"


@dataclass(frozen=True, slots=True)
class Sample:
    """One connection: from which port, and which port its far end sees."""

    own: int
    seen: int


@dataclass(frozen=True, slots=True)
class PortUse:
    """What the samples show.

    Attributes:
        kind: The class; an endpoint-independent NAT may choose by any rule.
        independent: Whether a second destination sees the same port; None if none was asked.
        low: The lowest port that was seen.
        high: The highest one.
    """

    kind: Kind
    independent: bool | None
    low: int
    high: int


def classify(samples: Sequence[Sample]) -> PortUse:
    """Return how the outside ports were chosen.

    Args:
        samples: At least one, in the order in which the connections were opened; all of
            them were open at the same time.  Samples of one own port went to
            different destinations.
    """
    by_own: dict[int, list[int]] = {}
    for sample in samples:
        by_own.setdefault(sample.own, []).append(sample.seen)
    several = [seen for seen in by_own.values() if len(seen) > 1]
    independent = any(len(set(seen)) == 1 for seen in several) if several else None
    seen = [sample.seen for sample in samples]
    return PortUse(_kind(by_own, seen, independent), independent, min(seen), max(seen))


def _kind(by_own: dict[int, list[int]], seen: list[int], independent: bool | None) -> Kind:
    # A router that keeps ports still rewrites one that another machine behind it has.
    if 2 * sum(own == first for own, (first, *_) in by_own.items()) >= len(by_own):
        return Kind.PRESERVING
    if independent:
        return Kind.ENDPOINT_INDEPENDENT
    if len(seen) < FEWEST:
        return Kind.REWRITTEN
    steps = {after - before for before, after in pairwise(seen)}
    if min(steps) > 0 and (len(steps) == 1 or seen[-1] - seen[0] <= CLOSE):
        return Kind.SEQUENTIAL
    return Kind.WINDOW if max(seen) - min(seen) < WINDOW else Kind.RANDOM
