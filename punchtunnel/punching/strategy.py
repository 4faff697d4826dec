"""Which candidates are dialled, when, and how: pure, without a socket or a clock.

A strategy is asked by a dialler, which performs it:

    candidates(addresses, wall) ──> one dial is kept for each
    begin(candidate, now) ────────> plain, or a hold with this TTL
    ended(candidate, fate, now) ──> when to dial it again

`ScheduledPorts` is the one that needs nothing but two addresses; race.py has others run beside it.

Words:

hold
    A dial whose first SYN has a small TTL: it opens the near router and dies
    before the far one, where it would provoke a RST.  One side that holds
    while the other dials plainly meets it with no timing at all.
captured
    A dial was accepted, but not by the peer: by a router, or by a host behind
    it to which everything is forwarded.  The far router then keeps that port
    for the capturer, and for minutes a plain dial of it is of no use.
plain only
    A family that has fallen back to plain dials, because ICMP time-exceeded
    ends its holds (other systems than Linux, slow ICMP): a hold there lasts
    no longer than a plain dial and opens less.  Two sides that refuse each
    other then meet only if their SYNs cross in flight.
open ports
    Those on which both sides listen, and which need no clock: a router that forwards
    any port to the peer forwards these.
fast ports
    The ports that are dialled faster in a family that is plain only.

Rule 1: an error dials again, after a wait with jitter.  Without it two sides
        behind routers that reject fall into step and miss each other for good:
        fixed waits of 0.2 s gave 27–72 %, of 1 s 8–30 % success in the laboratory.
Rule 2: a coin decides whether a dial is plain or a hold.
Rule 3: once a dial was captured, almost every dial is a hold, and a hold is
        made anew before the kernel would send a second, full SYN: that would be
        captured too.  None of these SYNs gets across, so they are not counted.
Rule 4: the open ports are dialled plainly at first, and anew when there was no answer for
        OPEN_LIFE: the peer listens on them, and its router may have been asked meanwhile
        to forward them.  The kernel would send the SYN again only after 8, 16, 32 s.
Rule 5: when the peer is heard, both sides dial every port once more and
        plainly.  A dial that is only closed leaves an entry in its router
        for two minutes.  If then a SYN of the peer passes it and finds no
        socket, Linux's conntrack stays in SYN_SENT2, where it takes neither
        that host's RST nor a new SYN, and the port is of no use to the next
        run.  A dial that has opened or was refused can be made again at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from punchtunnel.protocol import schedule
from punchtunnel.punching.candidates import Candidate, Fate, Kind
from punchtunnel.system.addresses import SOMEWHERE, Address

if TYPE_CHECKING:
    import random
    import socket

# TTLs of a hold: beyond a home router and its carrier's, short of the peer's.
HOLD_TTL = (2, 6)
HOLD_SHARE = 0.5
HOLD_SHARE_CAPTURED = 0.95
# Seconds.  Linux sends the second SYN after one (RFC 6298 §2.1).
HOLD_LIFE = 0.9
# Seconds: the kernel's second and third SYN are sent, after one and three.
OPEN_LIFE = 4.0
# Seconds without holds once the peer is heard: by then a connection is elected.
MEETING = 2.0

# The wait before a failed dial is made again, in seconds.  The first ones are
# short, because the peer may have started this very moment: its own dials are
# then only milliseconds away.
FIRST_WAIT = 0.04
WAIT_GROWTH = 3.0
SLOW_WAIT = 2.2
# Failures that a candidate of a later bucket begins with: short waits that it skips.
LATER_FAILURES = 3
# Failures after which a wait has its full length.
MOST_FAILURES = 16
# The fast ports have no listeners.  They are few, because for a given number of SYNs
# two of them cross the likelier in flight the fewer ports share them.
OPEN_PORTS = slice(schedule.LISTENERS_PER_BUCKET)
FAST_PORTS = slice(schedule.LISTENERS_PER_BUCKET, schedule.CLOCK_FREE_PORTS)
FAST_WAIT = 0.2
# SYNs of dials in so many seconds, after which what is refused waits.  What each
# port had in hand by then comes on top: where a bucket ends soon after the start,
# 28 ports, at most 233 SYNs together in 4200 runs of the simulation that is among
# the tests (without a limit 267, and 281 where no hold survives).
MOST_SYNS = 190
SYNS_SPAN = 10.0
# After this long without a peer politeness wins: a port is then dialled every
# PATIENT_WAIT seconds, and 28 of them together less than ten times a second.
PATIENT_AFTER = 300.0
PATIENT_WAIT = 6.0
PATIENT_FAST_WAIT = 1.0

NEVER = float("inf")


class ScheduledPorts:
    """The ports that both sides derive from the clock and the channel; on one machine they come in pairs.

    Args:
        channel: Decides the ports, with the clock.
        rng: Jitter and coins.
        now: Steady time in seconds, as in all methods.
    """

    def __init__(self, channel: str, rng: random.Random, now: float) -> None:
        self._channel = channel
        self._open = set(schedule.bucket_ports(channel, schedule.CLOCK_FREE, schedule.CLOCK_FREE_PORTS)[OPEN_PORTS])
        self._rng = rng
        self._started = now
        # How often each candidate has failed in a row.
        self._failures: dict[Candidate, int] = {}
        # When the last SYNs were sent.
        self._syns = deque([float("-inf")] * MOST_SYNS, MOST_SYNS)
        self._captured = False
        # By family and interface: a hold on a dead uplink says nothing of the others.
        self._plain_only: set[tuple[socket.AddressFamily, str]] = set()
        # From where the peer was heard: from an address of its own, from another one.
        self._met: set[bool] = set()
        self._meeting_ends = float("-inf")

    def candidates(self, addresses: Sequence[Address], wall: float) -> list[Candidate]:
        """Return what is to be dialled: the candidates so far without those that are over, and then the new ones.

        Args:
            addresses: The peer's.
            wall: Unix time in seconds, corrected.
        """
        wanted = self._made_of(addresses, schedule.current_buckets(wall))
        kept = wanted | self._made_of(addresses, schedule.retained_buckets(wall))
        self._failures = {candidate: failures for candidate, failures in self._failures.items() if candidate in kept}
        # The ports of a bucket that begins while we wait are new to both sides:
        # the peer need not be caught in the moment of its start.
        failures = LATER_FAILURES if self._failures else 0
        for candidate in wanted:
            self._failures.setdefault(candidate, failures)
        return list(self._failures)

    def listening(
        self, addresses: Sequence[Address], wall: float
    ) -> Iterator[tuple[socket.AddressFamily, str, int, list[int]]]:
        """Yield family, interface, how many ports shall listen, and of which: any that are free, in each bucket.

        A listener that is bound to no interface answers by the default way, wherever the SYN
        has come from: from a further one, with an address that is not of that network, and
        the router there drops it.  So each further way has one listener of its own, on a port
        where no other one is.

        Without an address of the peer, which dials us then, both families are listened in.
        """
        addresses = addresses or SOMEWHERE
        counts = _port_counts(addresses)
        for family, interface in dict.fromkeys((one.family, one.interface) for one in addresses if not one.own):
            for bucket in schedule.current_buckets(wall):
                numbers = schedule.bucket_ports(self._channel, bucket, counts.ports(bucket))
                if not interface:
                    yield family, "", schedule.LISTENERS_PER_BUCKET, numbers
                elif bucket != schedule.CLOCK_FREE:
                    # The fast ports, which have no listeners, are all that is left of that one.
                    yield family, interface, 1, numbers[schedule.LISTENERS_PER_BUCKET :]

    def begin(self, candidate: Candidate, now: float) -> int | None:
        """Take note of a dial that begins; return the TTL of its first SYN if it is a hold, None if it is plain."""
        held = self._rng.random() < self._hold_share(candidate, now)
        # The kernel sends a hold's SYN again.
        self._syns.extend([now] * (2 if held else 1))
        return self._rng.randint(*HOLD_TTL) if held else None

    def ended(self, candidate: Candidate, fate: Fate, now: float) -> float:
        """Take note of the end of a dial, or of the connection that it became; return when to dial again.

        A connection may outlive its candidate.
        """
        way = _way_of(candidate)
        fast = way in self._plain_only and candidate.own_port in fast_ports(self._channel)
        failures = self._failures[candidate] = self._failures.get(candidate, 0) + 1
        wait = redial_wait(failures, now - self._started, self._rng, fast=fast)
        if fate is Fate.EXPIRED:
            self._plain_only.add(way)
        self._captured |= fate is Fate.CAPTURED
        earliest = now if self._captured else max(now, self._syns[0] + SYNS_SPAN)
        return earliest + wait

    def renewal(self, candidate: Candidate, began: float, *, held: bool) -> float:
        """Return when a dial that began then, and is not answered, is to be made anew (rules 3 and 4)."""
        if self._captured:
            return began + HOLD_LIFE if held else NEVER
        return began + OPEN_LIFE if candidate.own_port in self._open else NEVER

    def held_out(self, candidate: Candidate, now: float) -> float:
        """Return when to dial again after a dial that was not answered in its time."""
        del candidate
        waited = now - self._started
        if waited < PATIENT_AFTER:
            return now
        return now + redial_wait(MOST_FAILURES, waited, self._rng)

    def meet(self, now: float, *, known: bool) -> bool:
        """Take note that the peer is heard; return whether every port is to be dialled at once (rule 5).

        Args:
            now: See above.
            known: It speaks from an address of the peer.  Others may be strangers, who must not use it up.
        """
        if known in self._met:
            return False
        self._met.add(known)
        self._meeting_ends = now + MEETING
        return True

    def start_over(self, now: float) -> None:
        """Forget what was learned: this machine may be in another network, which has other routers."""
        self._started = now
        self._failures = dict.fromkeys(self._failures, 0)
        self._captured = False
        self._plain_only.clear()
        self._met.clear()
        self._meeting_ends = float("-inf")

    def _made_of(self, addresses: Sequence[Address], buckets: Collection[int]) -> dict[Candidate, None]:
        made: dict[Candidate, None] = {}
        counts = _port_counts(addresses or SOMEWHERE)
        for address in addresses:
            if address.own:
                pairs = schedule.port_pairs(self._channel, buckets, counts)
                made.update({Candidate(Kind.PAIR, address, second, first): None for first, second in pairs})
            else:
                ports = schedule.ports_of(self._channel, buckets, counts)
                made.update({Candidate(Kind.SAME_PORT, address, port, port): None for port in ports})
        return made

    def _hold_share(self, candidate: Candidate, now: float) -> float:
        # A pair has no router between its ends.
        if candidate.kind is Kind.PAIR or now < self._meeting_ends or _way_of(candidate) in self._plain_only:
            return 0.0
        if self._captured:
            return HOLD_SHARE_CAPTURED
        # Not failed before: see rule 4.
        return 0.0 if candidate.own_port in self._open and not self._failures.get(candidate) else HOLD_SHARE


def _port_counts(addresses: Sequence[Address]) -> schedule.PortCounts:
    """Return how many ports of each bucket are used for so many addresses, one at least."""
    families = len({address.family for address in addresses})
    further = len({(address.family, address.interface) for address in addresses if address.interface})
    return schedule.port_counts(len(addresses), families, further)


def _way_of(candidate: Candidate) -> tuple[socket.AddressFamily, str]:
    return candidate.address.family, candidate.address.interface


def fast_ports(channel: str) -> list[int]:
    """Return the ports that are dialled faster in a family that is plain only."""
    return schedule.bucket_ports(channel, schedule.CLOCK_FREE, schedule.CLOCK_FREE_PORTS)[FAST_PORTS]


def redial_wait(failures: int, waited: float, rng: random.Random, *, fast: bool = False) -> float:
    """Return the seconds to wait before a failed dial is made again (rule 1).

    Args:
        failures: How often this candidate has failed in a row, from 1.
        waited: Seconds since punching began.
        rng: Source of the jitter.
        fast: The port is one of `fast_ports`, and its family is plain only.
    """
    if fast:
        slowest = FAST_WAIT if waited < PATIENT_AFTER else PATIENT_FAST_WAIT
    else:
        slowest = SLOW_WAIT if waited < PATIENT_AFTER else PATIENT_WAIT
    wait = min(slowest, FIRST_WAIT * WAIT_GROWTH ** min(failures - 1, MOST_FAILURES))
    return wait * rng.uniform(0.5, 1.5)
