"""Direct tries by appointment: two sides that have met at a relay have told each other their ports.

    this side                     router            router                     the peer
    own port 0, seen as 41201 ──── 41201 ──────────> 50877 ──── own port 0, seen as 50877
    own port 1, seen as 7002  ──── 7002  ──────────> 1311  ──── own port 1, seen as 1311

A router that rewrites ports, but the same way towards everybody, is no obstacle once the peer
knows the outside port: each side dials from its own port k what was seen of the other's port k.
guesses.py has the routers that choose another port for each connection.

Rule 1: of what the peer tells, only addresses in the Internet are dialled, or those of one
        network where both sides are behind one router; few of them, and no port below 1024.
Rule 2: both sides pair the ports by the same rule.  Where one side has fewer of them, it has
        several pairs with the same port; a side without any dials from the number that it dials,
        which its router is expected to keep.
Rule 3: of the first dials of a pair one side's is a hold and the other's is plain, and so the other way round in
        the next pair.  With a coin for each of two pairs, all of them were holds in one of sixteen tries, and
        the kernel's next SYNs a second later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

from punchtunnel.address import Place, is_public
from punchtunnel.protocol.offers import Offer, Offered, Source
from punchtunnel.punching.candidates import ANY_PORT, Candidate, Kind
from punchtunnel.punching.race import Listening
from punchtunnel.punching.rota import MOST as MOST_HOSTS
from punchtunnel.punching.strategy import HOLD_SHARE, ScheduledPorts
from punchtunnel.system.addresses import SOMEWHERE, Address

if TYPE_CHECKING:
    import random

# Below are the ports of servers, which need privileges and are no business of ours.
LOWEST_PORT = 1024
# Ports of a side, in each IP version, that are paired, and pairs in all: so many sockets come on
# top of those of the schedule (schedule.MAX_SOCKETS).
MOST_PORTS = 2
MOST_PAIRS = 8
# Of one network that two sides share: RFC 1918, RFC 6598, RFC 4193.
_SHARED4 = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
_SHARED6 = IPv6Network("fc00::/7")


class Plan(Enum):
    """What is tried."""

    # The ports of the schedule, and those that were offered.
    DIRECT = "direct"
    # One side's router chooses another port for each connection: the other side holds many of those that may be next.
    GUESS = "guess"


@dataclass(frozen=True, slots=True)
class Appointment:
    """What both sides know when they begin.

    Attributes:
        mine: What this side has offered.
        theirs: What the peer has.
        own_ports: The ports of this machine that belong to the OBSERVED candidates of `mine`, in their order.
        plan: What is tried; both sides must have the same one.
        birthday: Holds or dials that the user allows for Plan.GUESS; 0 is as few as are polite.
    """

    mine: Offer
    theirs: Offer
    own_ports: tuple[int, ...]
    plan: Plan = Plan.DIRECT
    birthday: int = 0


def addresses_of(mine: Offer, theirs: Offer) -> list[str]:
    """Return the hosts of the peer's offer that may be dialled (rule 1), at most MOST_HOSTS."""
    seen = {one.host for one in mine.candidates if is_public(one.host)}
    together = any(one.host in seen for one in theirs.candidates)
    allowed = (one.host for one in theirs.candidates if is_public(one.host) or (together and _is_of_network(one)))
    return list(dict.fromkeys(allowed))[:MOST_HOSTS]


def _is_of_network(one: Offered) -> bool:
    address = ip_address(one.host)
    if address.version == 6:
        return one.source is Source.HOST and address in _SHARED6
    return one.source is Source.HOST and any(address in network for network in _SHARED4)


def plans_of(mine: Offer, theirs: Offer) -> tuple[Plan, ...]:
    """Return what is worth trying, in this order; both sides come to the same.

    A guess needs one router whose next port is not known, and one whose port is.  A side that
    could not ask a STUN server (UNKNOWN) counts among the latter: most routers keep ports, as
    the schedule expects of all, and if this one does not, the guess costs a few SYNs.  Two
    routers of the first kind never meet (2^32 pairs of ports).
    """
    hard, easy = (mine, theirs) if mine.port_use.is_hard else (theirs, mine)
    if hard.port_use.is_hard and not easy.port_use.is_hard and all(map(outside4, (hard, easy))):
        return Plan.DIRECT, Plan.GUESS
    return (Plan.DIRECT,)


def outside4(offer: Offer) -> Offered | None:
    """Return the candidate that tells how a side is seen over IPv4: the first OBSERVED, or HOST; None without any."""
    public = [one for one in offer.candidates if ":" not in one.host and is_public(one.host)]
    observed = [one for one in public if one.source is Source.OBSERVED and one.port >= LOWEST_PORT]
    return next(iter(observed or [one for one in public if one.source is Source.HOST]), None)


def forwarded_places(theirs: Offer) -> tuple[Place, ...]:
    """Return the ports that the peer's router forwards to it."""
    mapped = (one for one in theirs.candidates if one.source is Source.MAPPED and one.port >= LOWEST_PORT)
    return tuple(Place(one.host, one.port) for one in mapped)


@dataclass(frozen=True, slots=True)
class _Port:
    """A port of one side: its number there, which only that side knows, and where it is seen."""

    own: int
    seen: Offered


class AppointedPorts(ScheduledPorts):
    """Dials and holds between the offered ports, by the same rules as those of the schedule.

    Args:
        appointment: What both sides know.
        channel: Decides the ports of the schedule.
        rng: Jitter and coins.
        now: Steady time in seconds, as in all methods.
    """

    def __init__(self, appointment: Appointment, channel: str, rng: random.Random, now: float) -> None:
        super().__init__(channel, rng, now)
        mine, theirs = appointment.mine.candidates, appointment.theirs.candidates
        observed = [one for one in mine if one.source is Source.OBSERVED]
        own = [_Port(port, one) for port, one in zip(appointment.own_ports, observed, strict=False)]
        self._mine = {version: _of_version(own, version) for version in (4, 6)}
        far = [_Port(one.port, one) for one in theirs if one.source is Source.OBSERVED]
        self._theirs = {version: _of_version(far, version) for version in (4, 6)}
        self._hosts = list(dict.fromkeys(one.host for one in theirs if one.source is Source.HOST))
        # All that had their turn: a pair waits for none.
        self._known: dict[str, Address] = {}
        # Whether the first dial of a pair is a hold.
        self._holds: dict[Candidate, bool] = {}

    def listening(self, addresses: Sequence[Address], wall: float) -> Listening:
        """Yield the first of the own ports of each family: a peer whose port is another one than it knows comes there.

        The other one has no listener, for the reason that schedule.LISTENERS_PER_BUCKET has.
        """
        del addresses, wall
        for version, somewhere in zip((4, 6), SOMEWHERE, strict=True):
            if self._mine[version]:
                yield somewhere.family, "", 1, [self._mine[version][0].own]

    def _made_of(self, addresses: Sequence[Address], buckets: Collection[int]) -> dict[Candidate, None]:
        del buckets
        for address in addresses:
            if not (address.own or address.interface):
                self._known.setdefault(address.host, address)
        return dict.fromkeys(list(self._pairs())[:MOST_PAIRS])

    def _pairs(self) -> Iterator[Candidate]:
        for version in (4, 6):
            mine, theirs = self._mine[version], self._theirs[version]
            if mine and theirs:
                for number in range(max(len(mine), len(theirs))):
                    here, far = mine[number % len(mine)], theirs[number % len(theirs)].seen
                    for candidate in self._candidate(far.host, here.own, far.port):
                        # The peer compares the same two, the other way round.
                        self._holds[candidate] = (here.seen < far) == (number % 2 == 0)
                        yield candidate
            elif mine:
                for one in mine:
                    for host in (host for host in self._hosts if (":" in host) == (version == 6)):
                        yield from self._candidate(host, one.own, one.seen.port)
            else:
                for one in theirs:
                    yield from self._candidate(one.seen.host, one.seen.port, one.seen.port)

    def _hold_share(self, candidate: Candidate, now: float) -> float:
        share = super()._hold_share(candidate, now)
        if share != HOLD_SHARE or candidate not in self._holds or self._failures.get(candidate):
            return share
        return float(self._holds[candidate])

    def _candidate(self, host: str, own_port: int, far_port: int) -> Iterator[Candidate]:
        address = self._known.get(host)
        # ANY_PORT would be another one than the peer expects.
        if address is not None and own_port != ANY_PORT:
            yield Candidate(Kind.OBSERVED, address, own_port, far_port)


def _of_version(ports: Sequence[_Port], version: int) -> list[_Port]:
    """Return the ports of one IP version that are paired."""
    fitting = (one for one in ports if (":" in one.seen.host) == (version == 6))
    return [one for one in fitting if min(one.own, one.seen.port) >= LOWEST_PORT][:MOST_PORTS]
