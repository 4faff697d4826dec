"""Which of a peer's addresses are dialled at a time, where there are many: pure.

    turn 1    v6 a   v4 b   v6 c   v4 d   v4 e   v4 f      all, with few ports for each
    turn 2    v6 a   v4 b   v6 c                           some, with most ports
    turn 3                         v4 d   v4 e   v4 f      the others

Ways by further interfaces (system/uplinks.py) join the turns of all addresses only, so that
they push no address out.

A dial for each port of each address would be too many sockets.  With fewer ports for each
all are tried at once, and nearly every hole opens at once.  But those few ports are the ones
that the peer listens on, and where a router takes ports for itself (strategy.py: captured) it
soon has all of them: in the laboratory, eight addresses then took 18 s, or never met.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest

from punchtunnel.system.addresses import Address

# Addresses that are dialled at one time: in the turns of all, and in the others.
MOST = 8
FEW = 3
# Seconds.
TURN = 4.0
# All have had their turn within half a minute; a name with more addresses is not one machine.
MAX_ADDRESSES = 16


def likely_first(addresses: Sequence[Address]) -> tuple[Address, ...]:
    """Return addresses with the families in alternation (RFC 8305 §4), each in the resolver's order (RFC 6724)."""
    families = dict.fromkeys(address.family for address in addresses)
    columns = [[address for address in addresses if address.family == family] for family in families]
    return tuple(address for address in chain(*zip_longest(*columns)) if address is not None)


class Rota:
    """Whose turn it is."""

    def __init__(self) -> None:
        self._turn = 0
        self._ends = float("-inf")

    def dialled(
        self, addresses: Sequence[Address], now: float, *, busy: bool, further: Sequence[Address] = ()
    ) -> Sequence[Address]:
        """Return the addresses to dial.

        Args:
            addresses: All, the likely ones first.
            now: Steady time in seconds.
            busy: Somebody is on a connection: nothing changes before it is known who.
            further: The same by other interfaces than the usual one.
        """
        everything = [*addresses, *further]
        if len(everything) <= FEW:
            return everything
        if self._ends == float("-inf"):
            self._ends = now + TURN
        elif now >= self._ends and not busy:
            self._turn, self._ends = self._turn + 1, now + TURN
        turn = self._turn % (1 + -(-len(addresses) // FEW))
        return addresses[(turn - 1) * FEW : turn * FEW] if turn else everything[:MOST]
