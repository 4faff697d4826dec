"""A PEER with a port, or a port that the peer's router forwards: dialled from any port of ours, and plainly.

    router of the peer, port 40022 ──> peer, --port 40022
                 ▲
                 └── this machine, from whatever port its router makes of ours

Where the port leads to the peer, the first SYN that finds it listening opens the hole,
whatever the routers do to ports.  A hold would only be late, and a fresh port each time leaves
nothing behind that the next dial could meet in a router.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from punchtunnel.address import Place
from punchtunnel.punching.candidates import ANY_PORT, Candidate, Fate, Kind
from punchtunnel.punching.race import Listening
from punchtunnel.punching.strategy import redial_wait
from punchtunnel.system.addresses import Address

if TYPE_CHECKING:
    import random

# Addresses and ports together: so many sockets come on top of those of the schedule (schedule.MAX_SOCKETS).
MOST_PLACES = 4
# Seconds for a SYN to be answered, and for the kernel to send it again (after one and three, RFC 6298): after
# that its waits grow, and a fresh dial comes sooner to a peer that has just begun to listen.
DIAL_LIFE = 4.0


class ForwardedPorts:
    """One candidate for each port that a PEER was given with, the first MOST_PLACES of them.

    Args:
        own_port: The one that this side listens on, or 0: a dial of it on this machine would reach ourselves.
        rng: Jitter.
        now: Steady time in seconds, as in all methods.
        offered: Ports that the peer has told of.

    Attributes:
        places: The peer's addresses with the ports that were given for them.
    """

    def __init__(self, own_port: int, rng: random.Random, now: float, offered: Collection[Place] = ()) -> None:
        self._own_port = own_port
        self._offered = tuple(offered)
        self._rng = rng
        self._started = now
        self.places: Collection[Place] = ()
        # How often each candidate has failed in a row.
        self._failures: dict[Candidate, int] = {}

    def candidates(self, addresses: Sequence[Address], wall: float) -> list[Candidate]:
        """Return what is to be dialled; see `strategy.ScheduledPorts`."""
        del wall
        wanted = [
            Candidate(Kind.FORWARDED, address, ANY_PORT, place.port)
            for address in addresses
            for place in dict.fromkeys((*self._offered, *self.places))
            if place.host == address.host and not (address.own and place.port == self._own_port)
        ][:MOST_PLACES]
        self._failures = {candidate: self._failures.get(candidate, 0) for candidate in wanted}
        return list(self._failures)

    def listening(self, addresses: Sequence[Address], wall: float) -> Listening:
        """Yield nothing: what is dialled is of no use as a listener."""
        del addresses, wall
        yield from ()

    def begin(self, candidate: Candidate, now: float) -> None:
        """Take note of a dial, which is always plain."""
        del candidate, now

    def ended(self, candidate: Candidate, fate: Fate, now: float) -> float:
        """Take note of the end of a dial, or of the connection that it became; return when to dial again."""
        del fate
        failures = self._failures[candidate] = self._failures.get(candidate, 0) + 1
        return now + redial_wait(failures, now - self._started, self._rng)

    def renewal(self, candidate: Candidate, began: float, *, held: bool) -> float:
        """Return when a dial that began then is to be made anew."""
        del candidate, held
        return began + DIAL_LIFE

    def held_out(self, candidate: Candidate, now: float) -> float:
        """Return when to dial again after one that was not answered in its time."""
        failures = self._failures.get(candidate, 0)
        return now + redial_wait(max(failures, 1), now - self._started, self._rng)

    def meet(self, now: float, *, known: bool) -> bool:
        """Tell that nothing is to be dialled at once: one port needs no good moment."""
        del now, known
        return False

    def start_over(self, now: float) -> None:
        """Forget what was learned."""
        self._started = now
        self._failures = dict.fromkeys(self._failures, 0)
