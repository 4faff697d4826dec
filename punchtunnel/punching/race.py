"""Several strategies in one race: the dialler performs all of them as one, and whichever opens first may win.

addresses ──> ScheduledPorts ──┐
└──> ForwardedPorts ──┴──> candidates ──> dialler ──> fates ──> whose it was
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from punchtunnel.punching.candidates import Candidate, Fate, Kind
from punchtunnel.system.addresses import Address

if TYPE_CHECKING:
    import socket

# Family, interface, how many ports shall listen, and of which.
Listening = Iterator[tuple["socket.AddressFamily", str, int, list[int]]]


class Strategy(Protocol):
    """What the dialler asks; `strategy.ScheduledPorts` says what each answer means.  Times are in seconds."""

    def candidates(self, addresses: Sequence[Address], wall: float) -> list[Candidate]:
        """Return what is to be dialled."""

    def listening(self, addresses: Sequence[Address], wall: float) -> Listening:
        """Yield the ports of which some shall listen."""

    def begin(self, candidate: Candidate, now: float) -> int | None:
        """Return the TTL of a hold, or None for a plain dial."""

    def ended(self, candidate: Candidate, fate: Fate, now: float) -> float:
        """Return when to dial again after a dial has ended."""

    def renewal(self, candidate: Candidate, began: float, *, held: bool) -> float:
        """Return when a dial that is not answered is to be made anew."""

    def held_out(self, candidate: Candidate, now: float) -> float:
        """Return when to dial again after that."""

    def meet(self, now: float, *, known: bool) -> bool:
        """Return whether everything is to be dialled at once, now that the peer is heard."""

    def start_over(self, now: float) -> None:
        """Forget what was learned."""


class Race:
    """A strategy of several: each candidate belongs to that of its kind, which alone hears of it.

    Args:
        strategies: By the kinds of their candidates; what comes first is dialled first.
    """

    def __init__(self, strategies: Mapping[Kind, Strategy]) -> None:
        self._owners = strategies
        self._strategies = list(dict.fromkeys(strategies.values()))

    def candidates(self, addresses: Sequence[Address], wall: float) -> list[Candidate]:
        """Return what all want to dial."""
        return [one for strategy in self._strategies for one in strategy.candidates(addresses, wall)]

    def listening(self, addresses: Sequence[Address], wall: float) -> Listening:
        """Yield the ports of all."""
        for strategy in self._strategies:
            yield from strategy.listening(addresses, wall)

    def begin(self, candidate: Candidate, now: float) -> int | None:
        """Ask whose it is."""
        return self._owners[candidate.kind].begin(candidate, now)

    def ended(self, candidate: Candidate, fate: Fate, now: float) -> float:
        """Ask whose it is."""
        return self._owners[candidate.kind].ended(candidate, fate, now)

    def renewal(self, candidate: Candidate, began: float, *, held: bool) -> float:
        """Ask whose it is."""
        return self._owners[candidate.kind].renewal(candidate, began, held=held)

    def held_out(self, candidate: Candidate, now: float) -> float:
        """Ask whose it is."""
        return self._owners[candidate.kind].held_out(candidate, now)

    def meet(self, now: float, *, known: bool) -> bool:
        """Tell all."""
        wanted = [strategy.meet(now, known=known) for strategy in self._strategies]
        return any(wanted)

    def start_over(self, now: float) -> None:
        """Tell all."""
        for strategy in self._strategies:
            strategy.start_over(now)
