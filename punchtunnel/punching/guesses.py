"""Meet a peer whose router chooses another port for each connection, which one of many holds may guess.

    easy side: one own port, whose outside number both know          hard side: a fresh own port each time
                          ┌── hold of port 41202 ──┤
      port 16049 ── 16049 ├── hold of port 41203 ──┤     41203 <── router ── dial of port 16049
                          └── hold of port 41204 ──┤

A hold opens the easy side's router for one port of the hard side's, and its SYNs die before they
arrive: nobody is scanned, and no refusal closes what was opened.  A dial that has one of these
ports passes, and meets the hold as a simultaneous open.

    the hard side's ports             holds         dials     success of one round
    sequential                        64            16        most
    a window of up to 2048 ports      128           40        92 % or more
    a window of up to 4096 ports      256           40        92 %
    any of 64512                      400           128       55 %

Rule 1: BATCH holds or dials a second, and never more of them than the table has, or than the user
        allows: a router keeps an entry for each for minutes, a carrier gives a customer some
        hundred ports, and he may need the rest.
Rule 2: the hard side begins when the holds are set, which both can compute.
Rule 3: a hold keeps its small TTL until the peer's SYN has come (dial.py).  It is made anew every
        HOLD_AGAIN: the waits between the kernel's own SYNs grow, and the SYN-ACK that the dial waits
        for, no longer than DIAL_LIFE, is sent when the next one of them would have been.
Rule 4: the peer's hello ends the round; a connection that fails opens it again.

IPv4 only: nothing gives ports to IPv6 by such a rule.  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from punchtunnel.protocol import schedule
from punchtunnel.protocol.offers import NO_PORT, Offer, PortUse, Source
from punchtunnel.punching.appointed import LOWEST_PORT, Appointment, outside4
from punchtunnel.punching.candidates import ANY_PORT, Candidate, Fate, Kind
from punchtunnel.punching.race import Listening
from punchtunnel.punching.strategy import HOLD_TTL, NEVER
from punchtunnel.system.addresses import SOMEWHERE, Address

if TYPE_CHECKING:
    import random

HIGHEST_PORT = 65535
# A second.
BATCH = 25
# Holds, and how many the user can allow: some home routers have 1024 entries in all.
SEQUENTIAL_HOLDS, WINDOW_HOLDS, WIDE_HOLDS, RANDOM_HOLDS, MOST_HOLDS = 64, 128, 256, 400, 512
# Up to this span of a window WINDOW_HOLDS are enough.
NARROW_WINDOW = 2048
# Dials, and how many the user can allow.
DIALS = {PortUse.SEQUENTIAL: 16, PortUse.WINDOW: 40, PortUse.RANDOM: 128}
MOST_DIALS = 1024
# Dials without an answer at one time.
MOST_OUTSTANDING = 64
# Seconds.  Linux has sent a SYN again after one, or after one and two (tcp_syn_linear_timeouts).
HOLD_AGAIN = 2.9
# Seconds for a SYN to be answered: it is repeated after one, and the holds answer after one more.
DIAL_LIFE = 3.0
# Seconds for the last dial to become a hole: some come late.
_LAST = 4.0


def hold_count(hard: Offer, birthday: int = 0) -> int:
    """Return how many holds are set for a hard side's offer."""
    match hard.port_use:
        case PortUse.SEQUENTIAL:
            return 2 * SEQUENTIAL_HOLDS if birthday else SEQUENTIAL_HOLDS
        case PortUse.WINDOW:
            return WINDOW_HOLDS if hard.high - hard.low < NARROW_WINDOW else WIDE_HOLDS
        case _:
            return max(RANDOM_HOLDS, min(birthday, MOST_HOLDS))


def dial_count(hard: Offer, birthday: int = 0) -> int:
    """Return how many dials the hard side makes."""
    polite = DIALS.get(hard.port_use, DIALS[PortUse.RANDOM])
    return max(polite, min(birthday, MOST_DIALS)) if hard.port_use is PortUse.RANDOM else polite


def round_seconds(appointment: Appointment) -> float:
    """Return how long one round takes: a time to wait for its hole."""
    mine = appointment.mine
    hard = mine if mine.port_use.is_hard else appointment.theirs
    count = hold_count(hard, appointment.birthday) + dial_count(hard, appointment.birthday)
    return count / BATCH + DIAL_LIFE + _LAST


def guessed_ports(hard: Offer, count: int, rng: random.Random) -> list[int]:
    """Return the ports to hold, in the order in which that is done.

    Those of a window are drawn from between what was seen, where all of them can be next: its
    ends are not known, and a hold beyond them would be lost.
    """
    if hard.port_use is PortUse.SEQUENTIAL and hard.last >= LOWEST_PORT:
        size = HIGHEST_PORT + 1 - LOWEST_PORT
        return [LOWEST_PORT + (hard.last + step - LOWEST_PORT) % size for step in range(1, count + 1)]
    low, high = LOWEST_PORT, HIGHEST_PORT
    if hard.port_use is PortUse.WINDOW and hard.low != NO_PORT:
        # What is too narrow for so many is widened, to both sides.
        missing = max(0, count - 1 - (hard.high - hard.low))
        low = max(LOWEST_PORT, min(hard.low - missing // 2, HIGHEST_PORT + 1 - count))
        high = min(HIGHEST_PORT, max(hard.high + missing - missing // 2, low + count - 1))
    return rng.sample(range(low, high + 1), count)


class _Paced:
    """What both sides of a guess have in common: candidates that become more with time.

    Args:
        appointment: What both sides know.
        total: So many at most.
        wait: Seconds before the first.
    """

    def __init__(self, appointment: Appointment, total: int, wait: float) -> None:
        there = outside4(appointment.theirs)
        self._host = there.host if there is not None else ""
        self._total = total
        self._wait = wait
        self._address: Address | None = None
        self._first_wall: float | None = None
        # The peer has said hello.
        self._met = False
        self.made = 0

    def due(self, addresses: Sequence[Address], wall: float, most: int) -> int:
        """Return how many more candidates there are to be, at most BATCH and `most`."""
        self._address = self._address or next((one for one in addresses if one.host == self._host), None)
        if self._address is None or self._address.own or self._met:
            return 0
        if self._first_wall is None:
            self._first_wall = wall
        passed = wall - self._first_wall - self._wait
        allowed = min(self._total, int((passed + 1) * BATCH)) if passed >= 0 else 0
        return max(0, min(allowed - self.made, BATCH, most))

    def meet(self, now: float, *, known: bool) -> bool:
        """Take note that the peer is heard (rule 4); nothing is to be dialled at once."""
        del now
        self._met |= known
        return False

    def start_over(self, now: float) -> None:
        """Go on: what was sent has left its entries in the routers."""
        del now


class GuessedPorts(_Paced):
    """The easy side's holds.

    Args:
        appointment: What both sides know.
        channel: Decides the own port of a side that has no OBSERVED one.
        rng: Chooses ports and TTLs.
    """

    def __init__(self, appointment: Appointment, channel: str, rng: random.Random) -> None:
        count = hold_count(appointment.theirs, appointment.birthday)
        super().__init__(appointment, count, 0.0)
        self._own_port = own_port_of(appointment, channel)
        self._ports = guessed_ports(appointment.theirs, count, rng)
        self._rng = rng
        self._candidates: list[Candidate] = []

    def candidates(self, addresses: Sequence[Address], wall: float) -> list[Candidate]:
        """Return the holds that there are to be now."""
        count = self.due(addresses, wall, len(self._ports))
        if count and (address := self._address) is not None:
            ports = self._ports[self.made : self.made + count]
            self._candidates += [Candidate(Kind.GUESSED, address, self._own_port, port) for port in ports]
            self.made += count
        return self._candidates

    def listening(self, addresses: Sequence[Address], wall: float) -> Listening:
        """Yield the one port: a router that lets everybody in needs no guess."""
        del addresses, wall
        yield SOMEWHERE[0].family, "", 1, [self._own_port]

    def begin(self, candidate: Candidate, now: float) -> int:
        """Return the TTL of a hold."""
        del candidate, now
        return self._rng.randint(*HOLD_TTL)

    def ended(self, candidate: Candidate, fate: Fate, now: float) -> float:
        """Return when to hold again after a hold has ended, or the connection that it became."""
        del candidate
        self._met &= fate not in (Fate.LOST, Fate.CAPTURED)
        return now + HOLD_AGAIN

    def renewal(self, candidate: Candidate, began: float, *, held: bool) -> float:
        """Return when a hold is made anew (rule 3); once the peer's SYN has come it is none."""
        del candidate
        return began + HOLD_AGAIN if held else NEVER

    def held_out(self, candidate: Candidate, now: float) -> float:
        """Hold again at once."""
        del candidate
        return now


class FreshPorts(_Paced):
    """The hard side's dials.

    Args:
        appointment: What both sides know.
        channel: Decides the far port of a side that has no OBSERVED one.
    """

    def __init__(self, appointment: Appointment, channel: str) -> None:
        hard, birthday = appointment.mine, appointment.birthday
        super().__init__(appointment, dial_count(hard, birthday), hold_count(hard, birthday) / BATCH)
        there = outside4(appointment.theirs)
        is_observed = there is not None and there.source is Source.OBSERVED
        self._far_port = there.port if there is not None and is_observed else scheduled_port(channel)
        # Without an answer.
        self._outstanding: dict[Candidate, None] = {}

    def candidates(self, addresses: Sequence[Address], wall: float) -> list[Candidate]:
        """Return the dials that are to go on, or to begin now."""
        count = self.due(addresses, wall, MOST_OUTSTANDING - len(self._outstanding))
        if self._address is not None:
            for number in range(self.made, self.made + count):
                self._outstanding[Candidate(Kind.FRESH, self._address, ANY_PORT, self._far_port, number)] = None
            self.made += count
        return list(self._outstanding)

    def listening(self, addresses: Sequence[Address], wall: float) -> Listening:
        """Yield nothing: nobody can know a port of this side."""
        del addresses, wall
        yield from ()

    def begin(self, candidate: Candidate, now: float) -> None:
        """Take note of a dial, which is always plain."""
        del candidate, now

    def ended(self, candidate: Candidate, fate: Fate, now: float) -> float:
        """Take note of the end of a dial, or of the connection that it became: it is made once."""
        del now
        self._outstanding.pop(candidate, None)
        self._met &= fate not in (Fate.LOST, Fate.CAPTURED)
        return NEVER

    def renewal(self, candidate: Candidate, began: float, *, held: bool) -> float:
        """Return when a dial is given up that is not answered."""
        del candidate, held
        return began + DIAL_LIFE

    def held_out(self, candidate: Candidate, now: float) -> float:
        """Give a dial up."""
        del now
        self._outstanding.pop(candidate, None)
        return NEVER


def scheduled_port(channel: str) -> int:
    """Return the port of a side that has no OBSERVED one: the first of those that need no clock."""
    return schedule.bucket_ports(channel, schedule.CLOCK_FREE, 1)[0]


def own_port_of(appointment: Appointment, channel: str) -> int:
    """Return the port of this machine that the peer dials as what was seen of it."""
    seen = outside4(appointment.mine)
    observed = [one for one in appointment.mine.candidates if one.source is Source.OBSERVED]
    found = (port for port, one in zip(appointment.own_ports, observed, strict=False) if one == seen)
    return next(found, scheduled_port(channel))
