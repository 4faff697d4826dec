"""From what happened while punching to why: the cause of a failure, pure.

    Counts, fates ──> Finding ──┐
                                ├──> a sentence of words
    hellos that do not fit ─────┘

A cause is chosen by evidence, here and nowhere else, and the strongest stands
first: what was heard from the peer itself, then what came to our listeners,
then what our dials met at the far end, and last what only says that they met
nothing.  A weaker kind of evidence never hides a stronger one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from punchtunnel import words
from punchtunnel.protocol.hello import VERSION, Hello, Role, Trait
from punchtunnel.punching.candidates import Candidate, Fate
from punchtunnel.punching.hole import Counts
from punchtunnel.words import peer as peer_words
from punchtunnel.words import reach


class Cause(StrEnum):
    """Why there is no hole; the values are the keys of words.NO_HOLE, but for STARVED: words.no_resources tells it."""

    # All addresses are this machine's own, nothing was dialled, and nobody came.
    NOBODY = "nobody"
    CHECKED = "checked"
    CHANNEL = "channel"
    TOGETHER = "together"
    # The router that forwards ports for this machine has the peer's address.
    OWN_ROUTER = "own_router"
    FOREIGN = "foreign"
    REWRITTEN = "rewritten"
    MUTE = "mute"
    # Most of what has opened was closed without a word, on the ports that a punchtunnel there listens on.
    HUNG_UP = "hung_up"
    # The router next to this machine refuses, and nobody beyond it.
    NEXT_DOOR = "next_door"
    REFUSED = "refused"
    # This process had too few descriptors, or the system too little memory.
    STARVED = "starved"
    FORBIDDEN = "forbidden"
    UNUSABLE = "unusable"
    ABSENT = "absent"
    UNREACHABLE = "unreachable"
    # The same, and IPv4 has no route here, and the network no NAT64.
    NO_NAT64 = "no_nat64"
    SILENT = "silent"


class Finding(NamedTuple):
    """Why there is no hole, how often that was met, and whose address is the reason, if one is."""

    cause: Cause
    times: int = 0
    who: str = ""


# What the ports have met, in this order: the first that more ports show than chance does.
_SHOWN_BY = {
    Cause.MUTE: (Fate.CAPTURED, Fate.LOST),
    Cause.REFUSED: (Fate.REFUSED,),
    Cause.STARVED: (Fate.STARVED,),
    Cause.FORBIDDEN: (Fate.FORBIDDEN,),
    Cause.UNUSABLE: (Fate.UNUSABLE,),
    Cause.SILENT: (Fate.PENDING, Fate.SILENT, Fate.EXPIRED, Fate.UNTRIED),
}
# These say that an address was not reached at all, so that what the peer's other addresses show counts more: a
# host without IPv6 finds every IPv6 address unreachable.
_NOT_REACHED = {Cause.ABSENT: (Fate.ABSENT,), Cause.UNREACHABLE: (Fate.UNREACHABLE,)}
# Only somebody at the far end can have done that.
_FROM_AFAR = {Fate.CAPTURED, Fate.LOST, Fate.REFUSED}
# The share of the ports that may show something by chance: of twenty ports, a program of the far host can have one
# or two, or another process here.
_CHANCE = 0.1


def evidence_of(met: Mapping[Candidate, Fate]) -> Counter[Fate]:
    """Count the candidates by what they have met.

    A second uplink that is dead, or that a firewall keeps for something else, says nothing
    about the peer.  So further ways count only if the far end has answered there, and nobody
    by the default way.
    """
    found: Counter[Fate] = Counter()
    further: Counter[Fate] = Counter()
    for candidate, fate in met.items():
        (further if candidate.address.interface else found)[fate] += 1
    if not _FROM_AFAR & found.keys():
        found.update({fate: further[fate] for fate in _FROM_AFAR & further.keys()})
    return found


def cause_of(
    counts: Counts,
    fates: Mapping[Fate, int],
    *,
    checked: bool = False,
    no_nat64: bool = False,
    router: str = "",
    own_router: str = "",
) -> Finding:
    """Return why there is no hole.

    Args:
        counts: What happened in all.
        fates: How many candidates there are by the most telling fate of their dials.
        checked: The peer was met within this wait, but has only checked the path (-z).
        no_nat64: IPv4 has no route here, IPv6 has one, and no NAT64 was found that joins them.
        router: The address of the peer that has refused, if this machine's own router has done it.
        own_router: The address of the peer that this machine's own router says is its own.
    """
    if checked:
        return Finding(Cause.CHECKED)
    if not counts.dials:
        # Who has no descriptors left to listen with, or to accept with, does not see who comes.
        starved = counts.untaken or _shown_by_ports(fates) is Cause.STARVED
        return Finding(Cause.STARVED, _share(fates, _SHOWN_BY[Cause.STARVED])) if starved else Finding(Cause.NOBODY)
    if counts.other_channel:
        return Finding(Cause.CHANNEL, counts.other_channel)
    if counts.myself:
        return Finding(Cause.TOGETHER, counts.myself)
    if own_router:
        return Finding(Cause.OWN_ROUTER, counts.dials, own_router)
    if counts.foreign_punches.total():
        # It comes from the port that the schedule has: that is a punch, and no scanner.
        ((who, _),) = counts.foreign_punches.most_common(1)
        return Finding(Cause.FOREIGN, counts.foreign[who], who)
    if counts.untaken:
        # Somebody is at the door, and it may be the peer.
        return Finding(Cause.STARVED, counts.untaken)
    # What our dials met; the others came to our listeners.
    answered = max(0, counts.strangers + counts.mute - counts.rewritten)
    if counts.rewritten > answered:
        return Finding(Cause.REWRITTEN, counts.rewritten)
    if counts.hung_up * 2 > answered:
        # How many of these ports were dialled plainly is a matter of coins, and says nothing.
        return Finding(Cause.HUNG_UP, counts.hung_up)
    cause = _shown_by_ports(fates)
    if counts.foreign and cause in (Cause.SILENT, *_NOT_REACHED):
        ((who, count),) = counts.foreign.most_common(1)
        return Finding(Cause.FOREIGN, count, who)
    met = {Cause.MUTE: answered, Cause.REFUSED: counts.failed[Fate.REFUSED]}
    shown_by = _SHOWN_BY | _NOT_REACHED
    # A dial that this machine refuses is made again and again, so that its ports say more.
    times = met.get(cause) or _share(fates, shown_by[cause])
    if cause is Cause.REFUSED and router:
        return Finding(Cause.NEXT_DOOR, times, router)
    return Finding(Cause.NO_NAT64 if no_nat64 and cause is Cause.UNREACHABLE else cause, times)


def _shown_by_ports(fates: Mapping[Fate, int]) -> Cause:
    reached = {cause: _share(fates, shown_by) for cause, shown_by in _SHOWN_BY.items()}
    if total := sum(reached.values()):
        return next(cause for cause, count in reached.items() if count > total * _CHANCE)
    not_reached = (cause for cause, shown_by in _NOT_REACHED.items() if _share(fates, shown_by))
    return next(not_reached, Cause.SILENT)


def _share(fates: Mapping[Fate, int], shown_by: Sequence[Fate]) -> int:
    return sum(fates.get(fate, 0) for fate in shown_by)


def why_no_hole(
    peers: Sequence[str],
    families: Sequence[str],
    wait: float,
    counts: Counts,
    finding: Finding,
    *,
    nat64: str = "",
    own: str = "",
) -> str:
    """Say why there is no hole after `wait` seconds, and what to try; see `cause_of` and `words.no_hole`."""
    cause, times, who = finding
    return words.no_hole(peers, families, wait, counts.dials, cause, times, who, nat64=nat64, own=own)


def why_not_by(place: str, fate: Fate) -> str:
    """Say what a port that the PEER was given with has met, to follow `why_no_hole`."""
    met = next((met for met, fates in _MET_BY.items() if fate in fates), "nothing")
    return words.NOT_BY_PORT[met].format(place=place)


def why_no_direct_hole(wait: float, counts: Counts, fates: Mapping[Fate, int]) -> str:
    """Say what a try by appointment has met: both sides were there, so that nothing is to be advised.

    Args:
        wait: Seconds.
        counts: Of the try.
        fates: Of its candidates.
    """
    met = {what: _share(fates, shown_by) for what, shown_by in _MET_BY_APPOINTMENT.items()}
    return reach.no_direct_hole(wait, counts.dials, met)


_MET_BY_APPOINTMENT = {
    "refused": (Fate.REFUSED,),
    "answered by another program": (Fate.CAPTURED, Fate.LOST),
    "unreachable": (Fate.UNREACHABLE, Fate.ABSENT, Fate.FORBIDDEN, Fate.UNUSABLE, Fate.STARVED),
    "not answered": (Fate.SILENT, Fate.PENDING, Fate.EXPIRED),
}
# What a port that was given has met: the keys of words.NOT_BY_PORT.
_MET_BY = {"somebody": (Fate.CAPTURED, Fate.LOST), "refused": (Fate.REFUSED,)}


# ---- hellos that do not fit

_ROLE_NAMES = {Role.STDIO: "--stdio", Role.LISTEN: "-L", Role.TO: "--to", Role.RAW: "a library socket"}


def role_name(role: Role) -> str:
    """Return a role as the options that choose it."""
    return " and ".join(name for one, name in _ROLE_NAMES.items() if one in role) or "nothing"


def why_rejected(mine: Role, traits: Trait, version: int, hello: Hello | None) -> str:
    """Say why the peer was rejected and what to change; `hello` is None if its version is unknown."""
    if hello is None:
        return peer_words.OTHER_VERSION.format(theirs=version, ours=VERSION)
    if (traits ^ hello.traits) & Trait.PLAIN:
        return peer_words.PLAIN_HERE if Trait.PLAIN in traits else peer_words.PLAIN_THERE
    if Trait.NO_RECEIVE in traits & hello.traits:
        return peer_words.BOTH_SEND_ONLY
    return peer_words.ROLES.format(
        mine=role_name(mine), theirs=role_name(hello.role), advice=_advice_on_roles(mine, hello.role)
    )


def _advice_on_roles(mine: Role, theirs: Role) -> str:
    if mine == theirs:
        return peer_words.BOTH_LISTEN if Role.LISTEN in mine else peer_words.BOTH_LEAD_ON
    return peer_words.RAW_MEETS_RAW if Role.RAW in (mine, theirs) else peer_words.PAIR_ROLES
