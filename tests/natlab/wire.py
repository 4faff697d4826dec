"""What a path does to a packet: delay, jitter, loss, reordering and hops.

Pure: the time and a packet's TTL in, its fate out.  One `Wire` for each
direction of each pair of sites, so a path can be asymmetric; each has its own
seeded randomness, so one direction's traffic does not change the other's luck.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

# A reordered packet comes this much later than it would have: behind several
# packets of a burst, yet far below any retransmission timer.
REORDER_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Path:
    """One direction between two sites; `loss` and `reorder` are probabilities."""

    delay_s: float = 0.01
    jitter_s: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    # Ten routers is an ordinary distance, and more than the lowest TTL that a
    # puncher would use to open only its own router.
    hops: int = 10
    # Larger packets disappear without an ICMP error; IPv4 without DF is cut into fragments.
    mtu: int = 1500
    # The same of IPv6, where it is less.
    mtu6: int = 1500
    # Nothing arrives between these seconds after the first packet.
    outage_s: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Arrives:
    """The packet is delivered at `due`, with `ttl` left."""

    due: float
    ttl: int


@dataclass(frozen=True, slots=True)
class Expires:
    """The TTL runs out; the answer of that router is back at `answer_due`."""

    answer_due: float
    hop: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The packet disappears."""


Fate = Arrives | Expires | Lost


class Wire:
    """One direction of a path while it is in use."""

    def __init__(self, path: Path, rng: random.Random, delay_back_s: float | None = None) -> None:
        self.path = path
        self._rng = rng
        self._delay_back_s = path.delay_s if delay_back_s is None else delay_back_s
        self._last_due = 0.0
        self._first: float | None = None

    def fate(self, now: float, ttl: int) -> Fate:
        """Decide about one packet that enters at `now` with `ttl`."""
        path = self.path
        self._first = now if self._first is None else self._first
        if path.outage_s[0] <= now - self._first < path.outage_s[1]:
            return Lost()
        if path.loss and self._rng.random() < path.loss:
            return Lost()
        if ttl <= path.hops:
            share = ttl / path.hops
            return Expires(now + share * (path.delay_s + self._delay_back_s), ttl)
        due = now + path.delay_s + path.jitter_s * self._rng.random()
        if path.reorder and self._rng.random() < path.reorder:
            return Arrives(due + REORDER_SECONDS, ttl - path.hops)
        # Jitter alone keeps the order, as queues do.
        self._last_due = due = max(due, self._last_due)
        return Arrives(due, ttl - path.hops)
