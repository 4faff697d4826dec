"""Cells in which a router opens ports when it is asked, or has one open.  Data only.

The side behind that router is the left one.  The right one is behind a router
whose ports nobody can guess: without a mapped port, none of these pairs can
meet ("pairs: drop x random").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from .build import FORWARDED_PORT
from .cells import DATAGRAMS, NO_HOLE, PATIENCE, POLITE, SHORT_PATIENCE, Cell, Extra, Fails, Layout, Limit
from .incidents import Incident, Kind
from .wire import Path

BLOCK = "mapping"
# Rows whose source ports say nothing about the next one.
UNGUESSABLE = ("random", "sequential ports", "port block")
# All that the left host sends by UDP in a run: what it asks its router, with repeats, and multicast for UPnP.
FEW, NONE = Limit(DATAGRAMS, 0, inf, 60), Limit(DATAGRAMS, 0, inf, 0)
# What is sent to a router that does not open the port is dropped, or refused.
UNMET = Fails(NO_HOLE, "no answer at all|refused at once")
# Seconds for a session to go on.
GOES_ON = 20.0
# Seconds for a tool to notice that a router has forgotten what it mapped.
NOTICED = 20.0


def mapping_cells() -> Iterator[Cell]:
    """Yield the cells of this block."""
    yield from _daemons()
    yield from _refusals()
    yield from _surprises()
    yield from _losses()
    yield from _unasked()
    yield from _together()
    yield from _ipv6()
    yield from _forwarded()


def _cell(left: str, right: str = "random") -> Cell:
    return Cell(BLOCK, f"{left} x {right}", left, right, limits=(POLITE, FEW))


def _daemons() -> Iterator[Cell]:
    for left in ("mapper", "mapper, reset", "mapper, UPnP", "mapper, NAT-PMP", "mapper, PCP"):
        for right in UNGUESSABLE:
            yield replace(_cell(left, right), short=(left, right) == ("mapper, PCP", "random"))
    # The right one's router refuses what it does not expect; and pairs that need no mapped port.
    for right in ("random reset", "drop", "reset", "public"):
        yield _cell("mapper", right)
    yield _cell("mapper", "mapper")
    # The time from the later start, once the mapping stands.
    for left in ("mapper, PCP", "mapper, NAT-PMP", "mapper, UPnP"):
        stands = replace(_cell(left), name=f"the mapping stands when the peer comes, {left} x random")
        yield replace(stands, gap_s=4, left_first=True, wait_s=4 + PATIENCE)
    for left in ("mapper", "mapped"):
        yield replace(_cell(left), name=f"20 s apart, {left} x random", gap_s=20, wait_s=20 + PATIENCE, limits=())
    # As pf does by default: what it maps is all that is known of its ports.
    yield _cell("mapper, random")
    yield _cell("mapper, random", "drop")


def _refusals() -> Iterator[Cell]:
    """Yield cells in which the router opens none of the ports that were asked for."""
    for left in ("mapper denies", "mapper, other ports", "mapper behind a carrier"):
        short = left == "mapper denies"
        yield replace(_cell(left), wait_s=SHORT_PATIENCE, fails=UNMET, short=short)
        yield _cell(left, "drop")
    taken = replace(_cell("mapper"), name="all ports are another host's, mapper x random", extra=Extra.PORTS_TAKEN)
    yield replace(taken, wait_s=SHORT_PATIENCE, fails=UNMET)
    yield replace(taken, name="all ports are another host's, mapper x drop", right="drop")


def _surprises() -> Iterator[Cell]:
    for left in ("mapper", "mapper, UPnP"):
        yield replace(_cell(left), name=f"one port is another host's, {left} x random", extra=Extra.PORT_TAKEN)
    for left in ("mapper, UPnP", "mapper, NAT-PMP", "mapper, PCP"):
        # The left side has had its ports mapped, and the right one is not there yet.
        forgets = Incident(Kind.FORGET, ("left",), awaits="punching", after_s=4, by_any=True)
        late = replace(_cell(left), gap_s=10, left_first=True, wait_s=10 + NOTICED + PATIENCE, limits=())
        yield replace(late, name=f"the router forgets before the peer comes, {left} x random", happens=(forgets,))


def _losses() -> Iterator[Cell]:
    """Yield cells in which a session that has come through a mapping loses its hole."""
    cut = Incident(Kind.CUT, lasts_s=0.3)
    forgets = Incident(Kind.FORGET, ("left",))
    for left in ("mapper", "mapper, UPnP", "mapper, NAT-PMP", "mapper, PCP"):
        lost = replace(_cell(left), lasts_s=GOES_ON, back_s=GOES_ON, resumes=1, limits=())
        yield replace(lost, name=f"the hole is lost, {left} x random", happens=(cut,))
        name = f"the hole is lost after the router has forgotten everything, {left} x random"
        yield replace(lost, name=name, happens=(forgets, replace(cut, awaits="traffic")))


def _unasked() -> Iterator[Cell]:
    """Yield cells in which no router is asked."""
    forbidden = replace(_cell("mapper", "drop"), limits=(POLITE, NONE), options=(("--no-map",), ()))
    yield replace(forbidden, name="--no-map, mapper x drop")
    yield replace(forbidden, name="--no-map, mapper x random", right="random", wait_s=SHORT_PATIENCE, fails=UNMET)
    # The peer listens already, and nothing is further away than a tenth of a second.
    there = replace(_cell("mapper", "public"), name="the peer is there already, mapper x public", path=Path(0.001))
    yield replace(there, gap_s=-2.0, left_first=True, limits=(POLITE, NONE))


def _together() -> Iterator[Cell]:
    own = "11.0.0.10 is the address of this machine's own router, as that says itself.*this machine is 192.168.1"
    cell = Cell(BLOCK, "both behind one router that maps ports", "mapper", layout=Layout.ROUTER, wait_s=SHORT_PATIENCE)
    yield replace(cell, fails=Fails(NO_HOLE, f"{own}.2", f"{own}.3"), short=True)


def _ipv6() -> Iterator[Cell]:
    # A firewall that drops, and opens a pinhole: the right side's ports are rewritten in this family too.
    for left in ("mapper", "mapper, PCP"):
        yield replace(_cell(left, "random, IPv6 too"), name=f"IPv6, {left} x random, IPv6 too", family=6)
    yield replace(_cell("mapper", "drop"), name="IPv6, mapper x drop", family=6)
    none = replace(_cell("drop", "random, IPv6 too"), name="IPv6, drop x random, IPv6 too", family=6)
    yield replace(none, wait_s=SHORT_PATIENCE, fails=UNMET)


def _forwarded() -> Iterator[Cell]:
    options = (("--port", str(FORWARDED_PORT)), ())
    for right in (*UNGUESSABLE, "drop"):
        cell = replace(_cell("one port forwarded", right), left_port=FORWARDED_PORT, options=options)
        yield replace(cell, short=right == "random")
    untold = replace(_cell("one port forwarded"), name="no port is given, one port forwarded x random")
    yield replace(untold, wait_s=SHORT_PATIENCE, fails=UNMET)
