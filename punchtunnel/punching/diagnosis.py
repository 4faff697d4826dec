"""From what happened while punching to why: the cause of a failure, pure.

    Counts, fates ──> Cause ──┐
                              ├──> a sentence of words
    hellos that do not fit ───┘

A cause is found where what happened is known; its sentence is in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from punchtunnel import words
from punchtunnel.protocol.hello import VERSION, Hello, Role, Trait
from punchtunnel.punching.candidates import Fate
from punchtunnel.punching.hole import Counts
from punchtunnel.words import peer as peer_words


class Cause(StrEnum):
    """Why there is no hole; the values are the keys of words.NO_HOLE."""

    # Nothing was dialled, and nobody came.
    NOBODY = "nobody"
    CHANNEL = "channel"
    FOREIGN = "foreign"
    REWRITTEN = "rewritten"
    MUTE = "mute"
    REFUSED = "refused"
    FORBIDDEN = "forbidden"
    UNUSABLE = "unusable"
    UNREACHABLE = "unreachable"
    SILENT = "silent"


# Of equals the first is the cause.
_SHOWN_BY = {
    Cause.MUTE: (Fate.CAPTURED, Fate.LOST),
    Cause.REFUSED: (Fate.REFUSED,),
    Cause.FORBIDDEN: (Fate.FORBIDDEN,),
    Cause.UNUSABLE: (Fate.UNUSABLE,),
    Cause.UNREACHABLE: (Fate.UNREACHABLE,),
    Cause.SILENT: (Fate.PENDING, Fate.SILENT, Fate.EXPIRED),
}


def cause_of(counts: Counts, fates: Mapping[Fate, int]) -> tuple[Cause, int]:
    """Return why there is no hole, and how often that was met.

    Args:
        counts: What happened in all.
        fates: How many candidates there are by the fate of the last dial of each.
            The majority tells the cause: a single odd answer among twenty ports is chance.
    """
    if not counts.dials:
        return Cause.NOBODY, 0
    if counts.other_channel:
        return Cause.CHANNEL, counts.other_channel
    # What our dials met; the others came to our listeners.
    answered = max(0, counts.strangers + counts.mute - counts.rewritten)
    refused = counts.failed[Fate.REFUSED]
    if counts.foreign and not refused + answered:
        return Cause.FOREIGN, counts.foreign
    if counts.rewritten > answered:
        return Cause.REWRITTEN, counts.rewritten
    met = {
        Cause.MUTE: answered,
        Cause.REFUSED: refused,
        Cause.FORBIDDEN: counts.failed[Fate.FORBIDDEN],
        Cause.UNREACHABLE: counts.failed[Fate.UNREACHABLE],
    }
    share = {cause: sum(fates.get(fate, 0) for fate in shown_by) for cause, shown_by in _SHOWN_BY.items()}
    cause = _likeliest(share, met, of_plain_dials=counts.dials - counts.held_again)
    # A dial that this machine refuses is made again and again, so that its ports say more.
    return cause, met.get(cause) or share[cause]


def _likeliest(share: Mapping[Cause, int], met: Mapping[Cause, int], of_plain_dials: int) -> Cause:
    """Return the cause that most ports show, unless what all dials met says more."""
    # A host without IPv6 finds all of a peer's IPv6 addresses unreachable: what
    # the others say counts.
    reachable = {cause: count for cause, count in share.items() if count and cause is not Cause.UNREACHABLE}
    cause = max(reachable or share, key=lambda one: share[one]) if any(share.values()) else Cause.SILENT
    if cause is not Cause.SILENT:
        return cause
    if share[Cause.UNUSABLE] > sum(share.values()) // 4:
        # Two on one channel share the ports between them: what is left to each is silent.
        return Cause.UNUSABLE
    if met[Cause.REFUSED] + met[Cause.MUTE] > of_plain_dials // 4:
        # Most ports are held at any moment; what the other dials met says more.
        return max((Cause.REFUSED, Cause.MUTE), key=lambda one: met[one])
    return cause


def why_no_hole(peers: Sequence[str], wait: float, counts: Counts, fates: Mapping[Fate, int]) -> str:
    """Say why there is no hole after `wait` seconds, and what to try; see `cause_of`."""
    cause, count = cause_of(counts, fates)
    return words.no_hole(peers, wait, counts.dials, cause, count)


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
