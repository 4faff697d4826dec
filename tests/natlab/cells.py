"""The table of cells: what is tried, and what must come out.  Data only.

A cell is one line here and one line of the report.

`make lab` runs all of it, `--short` and pytest run the cells that carry
`short`; there is no second list anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations_with_replacement
from typing import Any

from punchtunnel.protocol import schedule

from .incidents import ONE_SIDE, Incident, Kind
from .topology import BEHAVIOURS, PAIR_ROWS, Behaviour, Unsolicited, can_meet
from .wire import Path


class Layout(StrEnum):
    """What lies between the two ends."""

    INTERNET = "internet"
    # Both are behind the left router, and were given its public address.
    ROUTER = "same router"
    LAN = "same LAN"
    LOOPBACK = "same host, loopback"
    OWN_ADDRESS = "same host, own address"


class Extra(StrEnum):
    """What else happens in the scene."""

    BUSY_PORTS = "a third of the local ports are taken on both sides"
    REFUSER = "the decoys are a stranger, who refuses at once"
    ACCEPTER = "the decoys are a stranger, who accepts everything"
    PRIVACY = "the left host has a temporary IPv6 address besides the one that the right one was given"
    VPN = "the left host has a VPN as its default route, behind which nobody is"
    UPLINKS = "the left host has a second uplink, and the right one knows that address"
    DEAD_UPLINK = "the same, and the first uplink, which has the default route, carries nothing"
    INTERFACES = "the left host has two interfaces behind its router"
    DARK6 = "the left router carries no IPv6"
    NEIGHBOUR = "another host of the left LAN dials elsewhere from the same ports"
    SCANNER = "a stranger connects to every port of the left host"
    CALLER = "another program at the right address connects to ports that the left side listens on"
    MISFIT = "another program at the right address says hellos that do not fit to the left side"
    FORBIDDEN = "the left host's own firewall drops the TCP that it sends"
    NO_ROUTE = "the left host has no default route"
    ONLY_IPV6 = "the left host has no IPv4, and its network no NAT64"
    ONE_FAMILY_EACH = "the left host has no IPv4, and the right one no IPv6"
    LOST_ROUTE = "the left host loses its default route after its first SYNs"
    NO_FIXED_PORTS = "the ports that need no clock are taken on the right host"
    UNSCALED = "the left host's TCP does not scale windows"
    PORT_TAKEN = "another host of the left LAN has the first of the ports mapped that need no clock"
    PORTS_TAKEN = "another host of the left LAN has all ports mapped that need no clock"


DATAGRAMS = "datagrams"
# TCP payload, without repeats on the wire being told apart: sent by either side to the relay, and to each other.
RELAYED, DIRECT = "relayed bytes", "direct bytes"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` SYNs, or percent of a core, between two moments after the first dial.

    UDP datagrams and bytes are counted from the beginning to the end of a run.
    """

    measure: str
    since_s: float
    until_s: float
    most: float
    least: float = 0.0

    @property
    def name(self) -> str:
        """Return how reports call what was measured."""
        if self.measure in (DATAGRAMS, RELAYED, DIRECT):
            return f"{self.measure} in all"
        return f"{self.measure} in {self.since_s:g}-{self.until_s:g} s"


@dataclass(frozen=True, slots=True)
class Fails:
    """Every end must exit with `status` and a reason that matches `words`, in time.

    `others` is for the right end, or the second one of two left ones, where it says something else.
    """

    status: int
    words: str
    others: str = ""


LOST, USAGE, NO_HOLE, REJECTED = 1, 2, 3, 4
SILENCE = Fails(NO_HOLE, "no answer at all")
REFUSAL = Fails(NO_HOLE, "refused at once: ")
MUTE = "answered but not by a punchtunnel"
CAPTURE = Fails(NO_HOLE, MUTE)
ROLES = Fails(REJECTED, "roles do not fit")
SECRET = Fails(REJECTED, "wrong secret")
# A channel that shares a port of those that need no clock with "lab".
NEAR_CHANNEL = "19"

PLAIN_PATH = Path()
# Seconds to wait for a hole.  The target for the worst case is 3 s; a cell
# that needs more than 20 is broken.
PATIENCE = 20.0
# Long enough to see the routers' answers, short enough to wait out often.
SHORT_PATIENCE = 8.0
# A new bucket begins every 50 s.
NEXT_BUCKET = 50.0
# Starts are spread over this many seconds unless a cell fixes them.
SPREAD = 1.5
HOUR = 3600.0
# The right side's, if it is public.
RIGHT4 = "198.51.100.20"
# The left side's, by its first uplink.
FIRST4 = "198.51.100.10"
# A name that the left side knows the right one by, wherever it is.
NAME = "moves.example"
# An address of nobody: packets to it vanish.
NOBODY = "198.51.100.99"
POLITE = Limit("syns", 0, 10, 250)
SIXTY_FOUR_SOCKETS = 64
# Of a session that seeks another hole: those of the punch, eight of wake-up pairs, the one that hears of changes of
# addresses, and up to three that ask routers.
SOCKETS_OF_A_SESSION = schedule.MAX_SOCKETS + 12


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the matrix; the defaults are the plainest case."""

    block: str
    name: str
    left: str = "drop"
    right: str = "drop"
    layout: Layout = Layout.INTERNET
    # 4, 6, or both at once: 46, or 64 where IPv6 is dialled first.
    family: int = 4
    path: Path = PLAIN_PATH
    # The way back, from right to left, where it differs.
    back: Path | None = None
    answers_expired: bool = True
    # Seconds between the starts; None spreads them over 0 to SPREAD.  The
    # order alternates from run to run, unless the left side is always first.
    gap_s: float | None = None
    left_first: bool = False
    clocks: tuple[float, float] = (0.0, 0.0)
    # Both clocks are moved so that a bucket border falls so many seconds after the first start.
    border_s: float | None = None
    channels: tuple[str, ...] = ("lab",)
    # Seconds by which the ends of each further channel start later.
    channel_gap_s: float = 0.0
    # Holes in a row in the same scene, without a pause.
    repeats: int = 1
    extra: Extra | None = None
    # The right end is not started.
    absent: bool = False
    role: tuple[str, ...] = ("--stdio",)
    wait_s: float = PATIENCE
    # None: must connect.
    fails: Fails | None = None
    limits: tuple[Limit, ...] = ()
    short: bool = False
    # Minutes long, mostly waiting: only in the full matrix, few runs.
    most_runs: int | None = None
    # The second half of what is sent comes so much later than the first, or as soon as the session has moved.
    pause_s: float = 0.0
    # Seconds that the link may last, beside those of the punch.
    lasts_s: float = 0.0
    # Of the left and the right side; "" is none.
    secrets: tuple[str, str] = ("", "")
    # Further options of the left and the right side.
    options: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    # What the left side is given for PEER instead of the right one's address, or before it.
    peer: str = ""
    decoys: tuple[str, ...] = ()
    # The port of the left side that the right one is given with its address; 0: none.
    left_port: int = 0
    # What happens to the session, one after the other; both ends send until it goes on after the last one.
    happens: tuple[Incident, ...] = ()
    # What each end sends, in pieces of 64 KiB; 0: what it can until all has happened.
    pieces: int = 0
    # Seconds from the end of all that happens to the first bytes of either end after it, at most; 0: any.
    back_s: float = 0.0
    # Holes by which the session has gone on, at least, on either side.
    resumes: int = 0
    # A relay, and a STUN server beside it, are on the internet.
    relay: bool = False
    # That STUN server has two addresses.
    two_stuns: bool = False
    # Neither side is given the address of the other.
    peerless: bool = False
    # That either side may have at one time.
    sockets: int = SIXTY_FOUR_SOCKETS

    @property
    def title(self) -> str:
        """Return the name that is unique in the table."""
        return f"{self.block}: {self.name}"

    @property
    def rtt_s(self) -> float:
        """Return the round-trip time of the path, without jitter."""
        return self.path.delay_s + (self.back or self.path).delay_s if self.layout is Layout.INTERNET else 0.0

    @property
    def longest_s(self) -> float:
        """Return how long one run may take; a hole that opens soon is not counted on where none may."""
        return (self.wait_s if self.fails else self.repeats + (self.gap_s or 0.0)) + self.lasts_s

    @property
    def maps_ports(self) -> bool:
        """Tell whether a port-mapping daemon is needed."""
        return any(BEHAVIOURS[name].maps_ports for name in (self.left, self.right))

    @property
    def kills(self) -> bool:
        """Tell whether the right end is killed: only the left one is judged."""
        return any(one.kind in (Kind.KILL, Kind.RESTART) for one in self.happens)

    def gap(self, run: int) -> float:
        """Return the seconds by which the right side starts after the left one in run `run`."""
        # Multiples of the golden ratio fill the spread evenly for any number of runs.
        size = SPREAD * (run * 0.618034 % 1) if self.gap_s is None else self.gap_s
        return size if self.left_first or run % 2 == 0 else -size


PAIRS, LOSSES = "pairs", "losses"
# The pairs that pytest runs: each behaviour at least once, and the ones that
# a fixed retry interval or a single SYN fails in.
SHORT_PAIRS = {
    ("drop", "drop"), ("drop", "reset"), ("reset", "reset"), ("accept", "accept"), ("icmp", "icmp"),
    ("reset", "icmp"), ("public", "reset"), ("public", "random"), ("mapped", "random"),
    ("firewall drop", "firewall reset"), ("openwrt", "double nat"), ("reset", "full cone"), ("random", "random"),
}  # fmt: skip


def _cannot_meet(cell: Cell) -> Cell:
    """Return a cell whose ends do not meet: each sees what the other one's router does with what it does not expect."""
    answers = [_ANSWERS[_unsolicited(BEHAVIOURS[far])] for far in (cell.right, cell.left)]
    return replace(
        cell, fails=Fails(NO_HOLE, *(f"{answer}.* rewrites ports" for answer in answers)), wait_s=SHORT_PATIENCE
    )


# What a SYN finds at a router that does not expect it.
_ANSWERS = {
    Unsolicited.DROP: SILENCE.words,
    Unsolicited.RESET: REFUSAL.words,
    Unsolicited.ACCEPT: REFUSAL.words,
    Unsolicited.ICMP_PORT: REFUSAL.words,
}


def _unsolicited(behaviour: Behaviour) -> Unsolicited:
    """Return what the outermost box does; the one in userspace drops."""
    return behaviour.routers[0].unsolicited if behaviour.routers else Unsolicited.DROP


def _pairs() -> Iterator[Cell]:
    for left, right in combinations_with_replacement(PAIR_ROWS, 2):
        names = (left.name, right.name)
        cell = Cell(PAIRS, " x ".join(names), *names, short=names in SHORT_PAIRS)
        yield cell if can_meet(left, right) else _cannot_meet(cell)


def _against(block: str, left: str, rights: str, short: str = "") -> Iterator[Cell]:
    """Yield one cell for each of the comma-separated `rights`; the ones in `short` are in the short list."""
    for right in rights.split(", "):
        cell = Cell(block, f"{left} x {right}", left, right, short=right in short.split(", "))
        meets = can_meet(BEHAVIOURS[left], BEHAVIOURS[right])
        yield cell if meets else _cannot_meet(cell)


def _routers() -> Iterator[Cell]:
    block = "routers"
    yield from _against(block, "icmp prohibited", "icmp prohibited, reset, drop")
    yield from _against(block, "invalid drop", "invalid drop, reset")
    yield from _against(block, "invalid drop reset", "invalid drop reset, invalid drop, drop")
    yield from _against(block, "router accepts", "router accepts, drop, reset, public", "reset")
    yield from _against(block, "stranger accepts", "stranger accepts, drop, reset, public")
    # The DMZ host takes every port whose plain SYN it swallows, without a sign.
    # A side that starts after that meets on the ports of the next bucket.
    for cell in _against(block, "dmz drops", "dmz drops, drop, reset, public"):
        yield replace(cell, wait_s=NEXT_BUCKET + PATIENCE)
    yield from _against(block, "nat64", "public, drop, reset, random", "public, reset")
    yield from _against(block, "nat64, random ports", "public, drop")
    yield from _against(block, "sequential ports", "public, mapped, full cone, drop")
    yield from _against(block, "random per destination", "public, mapped, full cone, reset")
    yield from _against(block, "bare SYN dropped", "drop, reset, accept, public, bare SYN dropped", "reset")
    yield from _against(block, "RST kills mapping", "reset, accept, openwrt, RST kills mapping", "reset")
    yield from _against(block, "ICMP kills mapping", "drop, icmp, reset, ICMP kills mapping", "icmp")
    yield from _against(block, "address filter", "drop, reset, random")
    yield from _against(block, "syn limit", "drop, reset, syn limit", "syn limit")
    yield from _against(block, "syn limit drop", "syn limit drop, reset")
    yield from _against(block, "random reset", "random reset, random", "random reset")
    for one, other in (("short syn_sent", "short syn_sent"), ("short syn_sent reset", "short syn_sent reset"),
                       ("short syn_sent", "reset")):  # fmt: skip
        # The gap is longer than the router remembers the first SYN.
        yield Cell(block, f"{one} x {other}, 15 s apart", one, other, gap_s=15, wait_s=15 + PATIENCE)
    for right in ("drop", "reset"):
        yield Cell(block, f"neighbour with the same ports, drop x {right}", "drop", right, extra=Extra.NEIGHBOUR)


# The pairs that every other axis is tried with: one where the first SYN simply
# stays open, and one where every SYN that comes too early is refused.
AXIS_PAIRS = (("drop", "drop"), ("reset", "reset"))


def _axis(block: str, name: str, short: bool = False, **changes: Any) -> Iterator[Cell]:
    """Yield one cell for each axis pair, with `changes` to the plain case."""
    for left, right in AXIS_PAIRS:
        refused = short and left == "reset"
        yield replace(Cell(block, f"{name}, {left} x {right}", left, right, short=refused), **changes)


def _ipv6() -> Iterator[Cell]:
    for left, right in (*AXIS_PAIRS, ("drop", "reset"), ("public", "drop"), ("public", "reset")):
        yield Cell("ipv6", f"{left} x {right}", left, right, family=6, short=right == "reset" == left)
    # Nothing is translated, so only a router that drops what conntrack calls
    # INVALID shows a SYN-ACK of a wrong socket.
    yield Cell("ipv6", "openwrt x openwrt", "openwrt", "openwrt", family=6)
    for one in ("reset", "openwrt"):
        yield Cell("ipv6", f"{one} x {one}, 3 s apart", one, one, family=6, gap_s=3, wait_s=3 + PATIENCE)
    yield Cell("ipv6", "temporary addresses, drop x drop", family=6, extra=Extra.PRIVACY, short=True)
    yield Cell("ipv6", "random ports on IPv4, both families dialled", "random", "random", family=46, short=True)


def _distance() -> Iterator[Cell]:
    block = "distance"
    for rtt_ms in (1, 20, 80, 300):
        yield from _axis(block, f"RTT {rtt_ms} ms", rtt_ms in (1, 300), path=Path(rtt_ms / 2000))
    yield from _axis(block, "RTT 5 + 145 ms", True, path=Path(0.005), back=Path(0.145))
    yield from _axis(block, "jitter 20 ms, reordering 10 %", path=Path(0.02, jitter_s=0.02, reorder=0.1))
    for percent in (1, 5, 10, 20):
        yield from _axis(block, f"loss {percent} %", percent == 10, path=Path(loss=percent / 100), wait_s=40)
    yield from _axis(block, "RTT 300 ms, loss 10 %", path=Path(0.15, loss=0.1), wait_s=40)
    yield from _axis(block, "no ICMP when the TTL runs out", answers_expired=False)
    for family, mtu in ((4, 1400), (4, 1492), (6, 1400), (46, 1400), (64, 1400)):
        black = Cell(block, f"MTU black hole, {mtu}, IPv{family}", family=family, path=Path(mtu=mtu))
        yield replace(black, short=mtu == 1400, secrets=("one", "one"))
    # Below what segments are limited to: only fragments get through, or nothing at all.
    narrow = Cell(block, "", path=Path(mtu=1000), lasts_s=60)
    yield replace(narrow, name="MTU black hole, 1000, IPv4", short=True)
    vanish = Fails(LOST, "packets of 1280 bytes vanish")
    # The side that sends knows more than the one that hears nothing.
    either = Fails(LOST, f"{vanish.words}|long packets are lost on the way here")
    yield replace(narrow, name="MTU black hole, 1000, IPv6", family=6, fails=either)
    yield replace(narrow, name="MTU black hole, 1000 in IPv6 alone", family=64, path=Path(mtu6=1000), short=True)
    both = (("-z",), ("-z",))
    yield replace(narrow, name="MTU black hole, 1000, IPv6, -z", family=6, options=both, fails=vanish, short=True)
    # Where a bare SYN comes to a dial of the side that scales, the window there is read as a 128th or less.
    yield from _axis(block, "one side does not scale windows", True, extra=Extra.UNSCALED)
    lost = Cell(block, "", lasts_s=80, pause_s=14, most_runs=2)
    yield replace(lost, name="outage of 39 s", path=Path(outage_s=(6, 45)))
    briefly = ("--resume", "5")
    silence = Fails(LOST, "nothing heard from the peer for \\d+ s: its machine or the way there is gone")
    yield replace(
        lost,
        name="outage for ever",
        path=Path(outage_s=(6, HOUR)),
        fails=silence,
        options=(briefly, briefly),
        short=True,
    )
    for seconds in (60, 300):
        # As much silence as the shortest timers that routers are known for: pings are all that keeps the mapping.
        forgetful = replace(lost, name=f"mappings of {seconds} s, idle for longer", path=Path(), pause_s=seconds + 15)
        alone = ("--resume", "0")
        left = f"forgets in {seconds} s"
        yield replace(forgetful, left=left, right=left, lasts_s=seconds + 60, options=(alone, alone), most_runs=1)
    yield from _axis(block, "25 hops", path=Path(hops=25))
    yield from _axis(block, "3 hops", path=Path(hops=3))


# What is noticed by silence alone takes both sides most of a minute, and then another one to come back.
BY_SILENCE = 150.0
# Kernels before Linux 6.15 double the time between two tries, up to the 40 s after which a hole is given up:
# after 20 s without packets the next try may be 20 s away, and then another hole has to be made.
GOES_ON = 30.0
# Seconds between two words of a session that is idle while it loses its hole.
IDLE = 80.0


def _losses() -> Iterator[Cell]:
    """Yield cells in which a session loses its hole, or might."""
    block = LOSSES
    soon, late = Cell(block, "", lasts_s=30), Cell(block, "", lasts_s=BY_SILENCE, most_runs=2)
    for router in ("drop", "reset", "openwrt", "double nat"):
        both = replace(late, left=router, right=router)
        title, refuses = f"{router} x {router}", router == "reset"
        flush, reboot, move = Incident(Kind.FLUSH), Incident(Kind.REBOOT, ONE_SIDE, 10), Incident(Kind.MOVE, ONE_SIDE)
        yield replace(both, name=f"routers forget all connections, {title}", happens=(flush,), short=refuses)
        yield replace(both, name=f"a router is rebooted, {title}", happens=(reboot,), short=refuses)
        yield replace(
            both, name=f"the address changes, and the name, {title}", happens=(move,), peer=NAME, resumes=1,
            short=refuses,
        )  # fmt: skip
    for left in ("public", "mapped"):
        moves = replace(late, left=left, happens=(Incident(Kind.MOVE, ONE_SIDE),), resumes=1)
        yield replace(moves, name=f"the address changes, the other side knows the old one, {left} x drop")
        yield replace(moves, name=f"the same of an idle session, {left} x drop", pause_s=IDLE)
    for lasts_s in (10, 20, 25, 31, 36, 40, 70):
        dark = replace(late, happens=(Incident(Kind.DARK, lasts_s=lasts_s),))
        yield replace(dark, name=f"no packets for {lasts_s} s", back_s=GOES_ON)
        if lasts_s >= 40:
            yield replace(dark, name=f"no packets for {lasts_s} s, idle", pause_s=IDLE)
    for lasts_s in (20, 60):
        still = Incident(Kind.STOP, lasts_s=lasts_s)
        yield replace(late, name=f"both ends stand still for {lasts_s} s", happens=(still,))
        yield replace(late, name=f"one end stands still for {lasts_s} s", happens=(replace(still, sides=ONE_SIDE),))
        # As laptops: what is in their routers' tables does not outlive the sleep.
        yield replace(
            late, name=f"both ends stand still for {lasts_s} s, and routers forget", left="reset", right="reset",
            happens=(replace(still, meanwhile=Kind.FLUSH),),
        )  # fmt: skip
    still = Incident(Kind.STOP, ONE_SIDE, lasts_s=100)
    yield replace(late, name="one end stands still for 100 s", happens=(still,), resumes=1)
    cut = Incident(Kind.CUT, lasts_s=0.3)
    again = replace(cut, awaits="resumed")
    yield replace(soon, name="three losses in a row", happens=(cut, again, again), resumes=3, short=True)
    yield replace(soon, name="ten losses in a row", happens=(cut, *(again,) * 9), lasts_s=120, resumes=10)
    # The round trips of a punch: hellos, keys, the choice; and then one for the words of the two that come back.
    for after_s in (0.1, 0.3, 0.6, 0.9, 1.2):
        yield replace(
            late, name=f"a loss {after_s} s after a connection for the session opens", path=Path(0.25), resumes=1,
            happens=(cut, replace(cut, awaits="opened", by_any=True, after_s=after_s)),
        )  # fmt: skip
    ended = replace(late, path=Path(0.25), pieces=2)
    for after_s in (0, 0.2, 0.4):
        # One side may be through with its goodbye, and the other one not.
        parts = replace(cut, awaits="stream_closed", after_s=after_s)
        yield replace(ended, name=f"a loss {after_s} s after both streams have ended", happens=(parts,))
    parts = replace(cut, awaits="stream_closed", by_any=True, after_s=0)
    yield replace(ended, name="a loss when the stream of one side has ended", happens=(parts,))
    yield replace(soon, name="losses at full speed", happens=(cut, *(again,) * 4), pause_s=0.001, resumes=5, lasts_s=90)
    other = Incident(Kind.DARK4, lasts_s=60)
    # A veth that comes up is a change of addresses a second later, about which that side asks its peer.  If it does so
    # just now, it knows 35 s before the other one, and punches alone by both families, with all that a punch may have.
    alone = replace(late, family=46, path=Path(0.01), sockets=SOCKETS_OF_A_SESSION)
    yield replace(alone, name="IPv4 is gone, IPv6 is left", happens=(other,), resumes=1)
    scanned = replace(late, left="public", right="reset", extra=Extra.SCANNER)
    yield replace(scanned, name="losses beside a port scanner", happens=(cut, again), resumes=2)
    yield from _killings(soon)


def _killings(soon: Cell) -> Iterator[Cell]:
    gone = replace(soon, fails=Fails(LOST, "no other connection could be made in 5 s"), options=(("--resume", "5"), ()))
    yield replace(gone, name="an end is killed", happens=(Incident(Kind.KILL, ONE_SIDE),), short=True)
    anew = (Incident(Kind.RESTART, ONE_SIDE),)
    # Anybody could say so.
    yield replace(gone, name="an end is killed, and started again, no secret", happens=anew)
    yield replace(
        soon, name="an end is killed, and started again", secrets=("one", "one"), happens=anew, short=True,
        fails=Fails(LOST, "was started anew, and knows nothing of this session"),
    )  # fmt: skip


def _starts() -> Iterator[Cell]:
    block = "starts"
    for gap_s in (0, 1, 3, 12):
        yield from _axis(block, f"{gap_s} s apart", gap_s == 3, gap_s=gap_s, wait_s=gap_s + PATIENCE)
    for gap_s in (30, 60):
        yield from _axis(block, f"{gap_s} s apart", gap_s=gap_s, wait_s=gap_s + PATIENCE, most_runs=5)
    yield from _axis(block, "bucket border between the starts", True, gap_s=4, border_s=2)
    yield Cell(block, "10 minutes apart, reset x reset", "reset", "reset", gap_s=600, wait_s=640, most_runs=1)


def _clocks() -> Iterator[Cell]:
    for name, clocks in (("1 s", (1.0, 0.0)), ("20 s against 20 s", (20.0, -20.0)), ("one hour", (HOUR, 0.0))):
        yield from _axis("clocks", f"{name} wrong", name == "one hour", clocks=clocks)


def _hosts() -> Iterator[Cell]:
    block = "hosts"
    yield from _axis(block, "the same secret", secrets=("one", "one"))
    yield from _axis(block, "busy local ports", True, extra=Extra.BUSY_PORTS)
    yield from _axis(block, "ten runs in a row", repeats=10)
    yield Cell(block, "ten runs in a row, public x public", "public", "public", repeats=10)
    yield from _axis(block, "two channels at once", True, channels=("lab", "other"))
    scanned = Cell(block, "", extra=Extra.SCANNER, left_first=True, wait_s=30)
    yield replace(scanned, name="port scanner, public x drop", left="public", gap_s=13)
    yield replace(scanned, name="port scanner, public x reset", left="public", right="reset", gap_s=3, short=True)
    yield replace(scanned, name="port scanner, full cone x drop", left="full cone", gap_s=3)
    yield Cell(
        block, "hellos that do not fit from the peer's address", left="public", right="public", extra=Extra.MISFIT,
        left_first=True, gap_s=3, wait_s=30, short=True,
    )  # fmt: skip
    decoys = tuple(f"198.51.100.{number}" for number in range(91, 98))
    for extra in (None, Extra.REFUSER, Extra.ACCEPTER):
        many = Cell(block, f"eight addresses, {extra or 'seven of nobody'}", "reset", "reset", decoys=decoys)
        yield replace(many, short=extra is None, extra=extra)
    # A router that takes ports has all those that eight addresses share, in one turn.
    many = replace(many, name="eight addresses, stranger accepts x reset", left="stranger accepts", extra=None)
    yield replace(many, wait_s=30, most_runs=5)
    yield from _several_interfaces(block)
    for bind in ("192.168.1.2", "eth0"):
        beside = Cell(block, f"beside a VPN, --bind {bind}", extra=Extra.VPN, options=(("--bind", bind), ()))
        yield replace(beside, short=bind == "192.168.1.2")
    yield Cell(
        block, "both behind one router that sends back to whoever it is for", "full cone, hairpins",
        layout=Layout.ROUTER,
    )  # fmt: skip
    yield Cell(block, "same LAN", layout=Layout.LAN, short=True)
    yield Cell(block, "same LAN, IPv6", layout=Layout.LAN, family=6)
    yield Cell(block, "same host, loopback", layout=Layout.LOOPBACK, short=True)
    yield Cell(block, "same host, IPv6 loopback", layout=Layout.LOOPBACK, family=6)
    yield Cell(block, "same host, own address", layout=Layout.OWN_ADDRESS)
    yield Cell(block, "same host, ten runs in a row", layout=Layout.LOOPBACK, repeats=10)


def _several_interfaces(block: str) -> Iterator[Cell]:
    """Yield cells in which the left host's default route is not the way to the peer, or not the only one."""
    vpn = Cell(block, "beside a VPN", extra=Extra.VPN)
    yield replace(vpn, short=True)
    yield replace(vpn, name="beside a VPN, reset x reset", left="reset", right="reset")
    yield replace(vpn, name="beside a VPN, mapped x random", left="mapped", right="random")
    for extra, name in ((Extra.UPLINKS, "two uplinks"), (Extra.DEAD_UPLINK, "the first uplink is dead")):
        for left, right in AXIS_PAIRS:
            uplinks = Cell(block, f"{name}, {left} x {right}", left, right, extra=extra)
            yield replace(uplinks, short=left == "reset" and extra is Extra.DEAD_UPLINK)
    both = replace(uplinks, name="two uplinks, and the right one knows both addresses", extra=Extra.UPLINKS)
    yield replace(both, options=((), (FIRST4,)))
    yield replace(both, name="two uplinks, both families dialled", family=46)
    for left, right in AXIS_PAIRS:
        yield Cell(block, f"two interfaces behind one router, {left} x {right}", left, right, extra=Extra.INTERFACES)
    dark = replace(both, family=64, extra=Extra.DARK6, short=True)
    yield replace(dark, name="IPv6 black hole beside IPv4, reset x reset")
    absent = replace(both, absent=True, wait_s=11, limits=(POLITE,), fails=REFUSAL)
    yield replace(absent, name="two uplinks, peer absent")
    yield replace(absent, name="two uplinks, the first one dead, peer absent", extra=Extra.DEAD_UPLINK)


def _failures() -> Iterator[Cell]:
    block = "failures"
    absent = Cell(block, "", absent=True, wait_s=SHORT_PATIENCE)
    causes = {"drop": SILENCE, "reset": REFUSAL, "accept": REFUSAL, "public": REFUSAL, "icmp": REFUSAL}
    for right, fails in causes.items():
        short = right in ("drop", "reset")
        yield replace(absent, name=f"peer absent behind {right}", right=right, fails=fails, short=short)
    for right in ("router accepts", "stranger accepts"):
        yield replace(absent, name=f"peer absent, {right}", right=right, fails=CAPTURE, short=right == "router accepts")
    roles = Cell(block, "", wait_s=SHORT_PATIENCE, fails=ROLES, short=True)
    yield replace(roles, name="both sides --to", role=("--to", "22", "--no-secret"))
    served = Fails(USAGE, "whoever answers at the peer's address")
    yield replace(roles, name="--to without a secret", role=("--to", "22"), fails=served)
    yield replace(roles, name="both sides -L", role=("-L", "0"))
    secret = Cell(block, "", wait_s=SHORT_PATIENCE, fails=SECRET)
    yield replace(secret, name="wrong secret", secrets=("one", "another"), short=True)
    yield replace(secret, name="a secret on one side only", secrets=("one", ""))
    plain = Fails(REJECTED, "--plain is given here but", "--plain is given on the other side but not here")
    yield Cell(
        block, "--plain on one side only", options=(("--plain",), ()), wait_s=SHORT_PATIENCE, fails=plain, short=True
    )
    yield from _misunderstandings(replace(absent, short=True))


def _misunderstandings(absent: Cell) -> Iterator[Cell]:
    """Yield cells in which one side is set up wrongly; `absent` has no right side."""
    both = replace(absent, absent=False, left="public", right="public")
    yield replace(both, name="another channel there", options=((), ("--channel", "other")), fails=REFUSAL)
    yield replace(
        both, name="another channel there that shares a port", left="drop", right="drop",
        options=((), ("--channel", NEAR_CHANNEL)), fails=Fails(NO_HOLE, "uses another channel"),
    )  # fmt: skip
    yield replace(
        both, name="the peer comes from another address", peer=NOBODY,
        fails=Fails(NO_HOLE, "connections came from 198.51.100.20, which is not the peer's", "were closed at once by"),
    )  # fmt: skip
    yield replace(
        both, name="one dials IPv4, the other IPv6", peer=RIGHT4, family=6,
        fails=Fails(NO_HOLE, "came from 2001:db8:2:1::2, which is not", "came from 198.51.100.10, which is not"),
    )  # fmt: skip
    lan = replace(absent, layout=Layout.LAN, peer="192.168.1.77", fails=Fails(NO_HOLE, "nobody in this machine's own"))
    yield replace(lan, name="nobody has that address in the own LAN")
    yield replace(lan, name="nobody has that address in the own LAN, a short wait", wait_s=1.5)
    yield replace(
        both, name="clocks one hour apart, and no port without a clock", clocks=(HOUR, 0.0),
        extra=Extra.NO_FIXED_PORTS, fails=REFUSAL,
    )  # fmt: skip
    yield replace(
        absent, name="another program calls from the peer's address", left="public", right="public",
        extra=Extra.CALLER, fails=Fails(NO_HOLE, "from another port than expected"),
    )  # fmt: skip
    # The first of the two meets silence: the second has no port left.
    taken = Fails(NO_HOLE, "no answer at all", "in use, most likely by another punchtunnel")
    yield replace(absent, name="two at once on one channel", channels=("lab", "lab"), channel_gap_s=1, fails=taken)
    yield from _behind_one_router(absent, replace(both, layout=Layout.ROUTER, left_first=True, gap_s=1.0))
    forbidden = Fails(NO_HOLE, "forbidden by this machine's own firewall")
    yield replace(absent, name="own firewall", extra=Extra.FORBIDDEN, fails=forbidden)
    no_route = Fails(NO_HOLE, "there is no route")
    yield replace(absent, name="no route", extra=Extra.NO_ROUTE, fails=no_route)
    no_nat64 = Fails(NO_HOLE, "IPv4 has no route from here, and no NAT64 was found")
    yield replace(absent, name="IPv6 only, no NAT64", extra=Extra.ONLY_IPV6, fails=no_nat64)
    silence = Fails(NO_HOLE, "through the NAT64 64:ff9b::/96 .* no answer at all .* not by IPv4, its address is wrong")
    yield replace(absent, name="peer absent, behind a NAT64 here", left="nat64", fails=silence)
    yield replace(absent, name="no route after a while", extra=Extra.LOST_ROUTE, fails=no_route)
    unresolved = Fails(NO_HOLE, "cannot be resolved")
    yield replace(absent, name="no name server", extra=Extra.NO_ROUTE, peer="home.example", fails=unresolved)


def _behind_one_router(absent: Cell, both: Cell) -> Iterator[Cell]:
    """Yield cells in which both sides were given the public address of the one router that both are behind."""
    own = "that of this machine is 192.168.1"
    together = f"came back to this machine itself: 198.51.100.10 is the address of its own router.*{own}.2"
    alone = replace(absent, left="address and port filter, hairpins", peer="198.51.100.10")
    lonely = replace(alone, name="behind one router that sends back, the peer absent", short=False)
    yield replace(lonely, fails=Fails(NO_HOLE, together))
    # The ports are the first one's, and what the second one sends gets others.  New ones, after
    # a border, are those of whichever dials first.
    yield replace(
        both, name="both behind one router that sends back", left=alone.left, border_s=40,
        fails=Fails(NO_HOLE, together, SILENCE.words),
    )  # fmt: skip
    refused = "refused at once by this machine's own router: either 198.51.100.10 is its address.*" + own
    for left in ("drop", "reset"):
        fails = Fails(NO_HOLE, f"{refused}.2", f"{refused}.3")
        yield replace(both, name=f"both behind one router, {left}", left=left, fails=fails, short=left == "drop")


def _politeness() -> Iterator[Cell]:
    block = "politeness"
    absent = Cell(block, "", right="reset", absent=True, fails=Fails(NO_HOLE, ""))
    idle = Limit("cpu percent", 2, 10, 2)
    yield replace(absent, name="first 10 s, refused", wait_s=11, limits=(POLITE, idle), short=True)
    yield replace(absent, name="first 10 s, silence", right="drop", wait_s=11, limits=(POLITE, idle))
    yield replace(absent, name="first 10 s, ICMP", right="icmp", wait_s=11, limits=(POLITE, idle))
    later = (POLITE, Limit("syns", 60, 120, 30 * 60), Limit("cpu percent", 60, 120, 2))
    yield replace(absent, name="second minute, refused", wait_s=122, limits=later, most_runs=2)
    much_later = (Limit("syns", 600, 660, 10 * 60), Limit("cpu percent", 600, 660, 2))
    yield replace(absent, name="after ten minutes, refused", wait_s=662, limits=much_later, most_runs=1)


# All but those of mapping_cells.py; table.py has everything.
PLAIN_CELLS = (
    *_pairs(), *_routers(), *_ipv6(), *_distance(), *_losses(), *_starts(), *_clocks(), *_hosts(), *_failures(),
    *_politeness(),
)  # fmt: skip
