"""Cells in which the two sides name a relay.  Data only.

    left host ── router ──┐                ┌── router ── right host
                          ├── internet ────┤
                          └─ relay, STUN ──┘

What passes by the relay, and what does not, is counted in the packet log: the tool's own word is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from punchtunnel.punching.guesses import RANDOM_HOLDS

from .cells import (
    DIRECT,
    LOST,
    NO_HOLE,
    PATIENCE,
    RELAYED,
    SHORT_PATIENCE,
    SIXTY_FOUR_SOCKETS,
    Cell,
    Extra,
    Fails,
    Limit,
)
from .incidents import Incident, Kind
from .relay import RELAY4
from .wire import Path

BLOCK = "relay"
# As --new-secret prints it.
SECRET = "39dm-0teb-nmj3-k5sh-t62h-1tra-md"
# What the relay is called where a name is looked up.
RELAY_NAME = "relay.example"
RANDOM, SAME, KEEPS = "random", "same port for each", "drop"
# Each side sends 64 KiB, half of it when the session has moved, and LATER seconds after the first half if it does not.
WHOLE, HALVES, LATER = 2 * 65536, 65536, 20.0
# A guess comes after a try of five seconds, and lasts for ten, or for 25 where any port may be next.
GUESSED, GUESSED_OF_ALL = 22.0, 42.0
# Requests, hellos, keys, offers and goodbyes of several connections; never what the session carries.
WORDS_ONLY = 16384
ANY, NOTHING = Limit(RELAYED, 0, inf, inf), Limit(RELAYED, 0, inf, 0)
NO_PAYLOAD = Limit(RELAYED, 0, inf, WORDS_ONLY)
ALL_BY_RELAY = Limit(RELAYED, 0, inf, inf, WHOLE)
NONE_DIRECT, SOME_DIRECT, ANY_DIRECT = (
    Limit(DIRECT, 0, inf, WORDS_ONLY),
    Limit(DIRECT, 0, inf, inf, HALVES),
    Limit(DIRECT, 0, inf, inf),
)
# Seconds for a session to go on over the relay: the first tries come soon, the next ones after pauses that double.
GOES_ON = 30.0
DIRECT_ONLY = Fails(
    NO_HOLE,
    f"the peer was met at the relay {RELAY4}:4001, and there is no direct hole; .*"
    "both routers choose a new port for each connection.*--relay on both sides",
)


def relay_cells() -> Iterator[Cell]:
    """Yield the cells of this block."""
    yield from _carried()
    yield from _direct()
    yield from _hard()
    yield from _beside_a_punch()
    yield from _met()
    yield from _families()
    yield from _losses()


def _cell(left: str, right: str, *limits: Limit, option: str = "--relay") -> Cell:
    # By IPv6, which nobody translates here, all of them meet.
    named = (option, RELAY4, "-4")
    return Cell(
        BLOCK, f"{option}, {left} x {right}", left, right, secrets=(SECRET, SECRET), options=(named, named),
        relay=True, peerless=True, limits=limits, lasts_s=LATER + PATIENCE,
    )  # fmt: skip


def _carried() -> Iterator[Cell]:
    """Yield pairs that cannot meet."""
    for left, right in ((RANDOM, RANDOM), ("random reset", RANDOM), ("sequential ports", RANDOM)):
        yield replace(_cell(left, right, ALL_BY_RELAY, NONE_DIRECT), short=left == right)
    far = _cell(RANDOM, RANDOM, ALL_BY_RELAY, NONE_DIRECT)
    yield replace(far, name=f"{far.name}, RTT 300 ms", path=Path(0.15))
    yield replace(far, name=f"{far.name}, 5 s apart", gap_s=5, wait_s=5 + PATIENCE)


def _direct() -> Iterator[Cell]:
    """Yield pairs that meet without the relay once they know of each other."""
    for left, right in (
        (KEEPS, KEEPS), ("reset", "reset"), ("openwrt", "double nat"), ("public", KEEPS), ("public", RANDOM),
        ("public", "public"), ("public", SAME), (SAME, KEEPS), (SAME, "reset"), (SAME, SAME),
        ("full cone", RANDOM), ("mapper", RANDOM), ("firewall drop", KEEPS),
    ):  # fmt: skip
        short = (left, right) in ((KEEPS, KEEPS), (SAME, KEEPS), ("public", RANDOM))
        yield replace(_cell(left, right, SOME_DIRECT, ANY), pause_s=LATER, short=short)


def _hard() -> Iterator[Cell]:
    """Yield pairs of which one side's next port can be guessed at best; the share that is direct is in the report."""
    for left in ("sequential ports", "port block", "port block of 1008", "random per destination", RANDOM):
        late = GUESSED_OF_ALL if left in ("random per destination", RANDOM) else GUESSED
        for right, two in ((KEEPS, ""), (SAME, ""), (SAME, ", two STUN addresses")):
            guessed = _cell(left, right, ANY_DIRECT, ANY)
            guessed = replace(guessed, name=f"{guessed.name}{two}", two_stuns=bool(two))
            yield replace(guessed, pause_s=late, lasts_s=late + PATIENCE, sockets=RANDOM_HOLDS + SIXTY_FOUR_SOCKETS)


def _beside_a_punch() -> Iterator[Cell]:
    """Yield cells with PEER: a pair that punches does not need the relay, and does not let it know."""
    for left, right in ((KEEPS, KEEPS), ("public", RANDOM)):
        punched = replace(_cell(left, right, NOTHING), peerless=False, gap_s=0.5)
        yield replace(punched, name=f"PEER and --relay, {left} x {right}", short=left == KEEPS)
        # What the other one is to be as fast as.
        yield replace(punched, name=f"PEER alone, {left} x {right}", options=(("-4",), ("-4",)))
    needed = replace(_cell(RANDOM, RANDOM, ALL_BY_RELAY, NONE_DIRECT), peerless=False)
    yield replace(needed, name=f"PEER and --relay, {RANDOM} x {RANDOM}")
    needed = replace(_cell(SAME, KEEPS, SOME_DIRECT, ANY), peerless=False, pause_s=LATER)
    yield replace(needed, name=f"PEER and --relay, {SAME} x {KEEPS}")


def _met() -> Iterator[Cell]:
    """Yield cells with --meet: the session is direct, or there is none."""
    for left, right in ((KEEPS, KEEPS), (SAME, KEEPS), ("public", RANDOM)):
        yield replace(_cell(left, right, NO_PAYLOAD, SOME_DIRECT, option="--meet"), short=left == SAME)
    for right in ("--meet", "--relay"):
        none = replace(_cell(RANDOM, RANDOM, NO_PAYLOAD, NONE_DIRECT, option="--meet"), fails=DIRECT_ONLY)
        none = replace(none, options=(("--meet", RELAY4, "-4"), (right, RELAY4, "-4")), lasts_s=0.0)
        yield replace(none, name=f"--meet here, {right} there, {RANDOM} x {RANDOM}")
    alone = replace(none, right="drop", absent=True, options=(("--relay", RELAY4), ()), wait_s=SHORT_PATIENCE)
    yield replace(alone, name="--relay, nobody else there", fails=Fails(NO_HOLE, "nobody was met at the relay"))


def _families() -> Iterator[Cell]:
    both = ("--relay", RELAY4)
    beside = replace(_cell(RANDOM, RANDOM, SOME_DIRECT, ANY), options=(both, both), pause_s=LATER)
    yield replace(beside, name=f"--relay, {RANDOM} x {RANDOM}, and there is IPv6", short=True)
    named = ("--relay", RELAY_NAME)
    cell = replace(_cell(KEEPS, KEEPS, ALL_BY_RELAY, NONE_DIRECT), extra=Extra.ONE_FAMILY_EACH, options=(named, named))
    yield replace(cell, name="--relay, one side has IPv4 and the other IPv6", short=True)


def _losses() -> Iterator[Cell]:
    """Yield sessions whose relay is killed."""
    goes = Incident(Kind.RELAY_GOES, awaits="moved", after_s=1.0)
    moved = replace(_cell(KEEPS, KEEPS, SOME_DIRECT, ANY), happens=(goes,), back_s=3.0, lasts_s=GOES_ON + PATIENCE)
    yield replace(moved, name="the relay is killed after the move", short=True)
    anew = Incident(Kind.RELAY_STARTS_ANEW, awaits="link_up", after_s=4.0, lasts_s=3.0)
    carried = replace(_cell(RANDOM, RANDOM, ALL_BY_RELAY, NONE_DIRECT), happens=(anew,), resumes=1)
    carried = replace(carried, back_s=GOES_ON, lasts_s=GOES_ON + PATIENCE)
    yield replace(carried, name="the relay is killed while it carries, and comes back")
    briefly = ("--relay", RELAY4, "-4", "--resume", "5")
    gone = replace(carried, happens=(replace(anew, kind=Kind.RELAY_GOES),), options=(briefly, briefly), resumes=0)
    lost = Fails(LOST, "no other connection could be made in 5 s")
    yield replace(gone, name="the relay is killed while it carries, for good", fails=lost, back_s=0.0)
