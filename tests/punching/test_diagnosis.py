"""Why there is no hole, and why a peer was rejected: the cause that what happened shows, and its sentence."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields

import pytest

from punchtunnel import words
from punchtunnel.protocol.hello import NO_TRAITS, Hello, Role, Trait, roles_fit
from punchtunnel.punching.candidates import Fate
from punchtunnel.punching.diagnosis import Cause, role_name, why_no_hole, why_rejected
from punchtunnel.punching.hole import Counts

# ---- why there is no hole

# What was counted, how the last dial of each port ended, a part of the sentence.
WHY_NO_HOLE: dict[str, tuple[Counts, dict[Fate, int], str]] = {
    "silence": (Counts(dials=40), {Fate.PENDING: 20}, "no answer at all to 20"),
    "silence of all kinds": (
        Counts(dials=40),
        {Fate.PENDING: 9, Fate.SILENT: 2, Fate.EXPIRED: 3},
        "no answer at all to 14",
    ),
    "refused": (
        Counts(dials=412, failed=Counter({Fate.REFUSED: 412})),
        {Fate.REFUSED: 20},
        "412 refused at once: the peer is not punching yet",
    ),
    "refused while most ports are held": (
        Counts(dials=40, failed=Counter({Fate.REFUSED: 11})),
        {Fate.PENDING: 20},
        "11 refused at once",
    ),
    "one odd answer": (
        Counts(dials=40, failed=Counter({Fate.REFUSED: 1})),
        {Fate.PENDING: 19, Fate.REFUSED: 1},
        "no answer at all to 19",
    ),
    "unreachable": (
        Counts(dials=40, failed=Counter({Fate.UNREACHABLE: 40})),
        {Fate.UNREACHABLE: 20},
        "40 unreachable: there is no route",
    ),
    "no IPv6 here": (
        Counts(dials=60, failed=Counter({Fate.UNREACHABLE: 40})),
        {Fate.UNREACHABLE: 20, Fate.PENDING: 10},
        "no answer at all to 10",
    ),
    "no IPv6 here, refused": (
        Counts(dials=60, failed=Counter({Fate.UNREACHABLE: 40, Fate.REFUSED: 20})),
        {Fate.UNREACHABLE: 20, Fate.REFUSED: 10},
        "20 refused at once",
    ),
    "own firewall": (
        Counts(dials=40, failed=Counter({Fate.FORBIDDEN: 40})),
        {Fate.FORBIDDEN: 20},
        "40 forbidden by this machine's own firewall",
    ),
    "unusable": (
        Counts(dials=40, failed=Counter({Fate.UNUSABLE: 40})),
        {Fate.UNUSABLE: 20},
        "20 ports of this machine in use",
    ),
    "half of the ports unusable": (
        Counts(dials=174, failed=Counter({Fate.UNUSABLE: 160})),
        {Fate.PENDING: 12, Fate.UNUSABLE: 8},
        "8 ports of this machine in use",
    ),
    "few ports unusable": (
        Counts(dials=40, failed=Counter({Fate.UNUSABLE: 20})),
        {Fate.PENDING: 18, Fate.UNUSABLE: 2},
        "no answer at all to 18",
    ),
    "other channel": (Counts(dials=40, other_channel=1), {Fate.PENDING: 20}, "give both sides the same --channel"),
    "strangers": (Counts(dials=40, strangers=20, mute=3), {Fate.PENDING: 20}, "23 answered but not by a punchtunnel"),
    "strangers, and holds ever since": (
        Counts(dials=202, held_again=180, mute=22),
        {Fate.PENDING: 20},
        "22 answered but not by a punchtunnel",
    ),
    "what is sent is dropped here": (
        Counts(dials=20),
        {Fate.FORBIDDEN: 20},
        "20 forbidden by this machine's own firewall",
    ),
    "rewritten": (
        Counts(dials=40, failed=Counter({Fate.REFUSED: 30}), rewritten=5, strangers=5),
        {Fate.REFUSED: 20},
        "5 connections came from the peer's address, but from another port than expected",
    ),
    "rewritten, but more dials were answered": (
        Counts(dials=40, rewritten=5, strangers=25),
        {Fate.PENDING: 20},
        "20 answered but not by a punchtunnel",
    ),
    "foreign": (Counts(dials=40, foreign=5), {Fate.PENDING: 20}, "5 connections came from another address"),
}


@pytest.mark.parametrize(("counts", "fates", "why"), WHY_NO_HOLE.values(), ids=WHY_NO_HOLE.keys())
def test_why_there_is_no_hole_follows_from_what_was_counted(counts: Counts, fates: dict[Fate, int], why: str) -> None:
    text = why_no_hole(["203.0.113.7"], 60.0, counts, fates)
    assert text.startswith(f"no hole to 203.0.113.7 in 60 s: {counts.dials} dials")
    assert why in text


@pytest.mark.parametrize("fates", [{}, {Fate.UNTRIED: 10}])
def test_nobody_is_blamed_when_nothing_was_dialled(fates: dict[Fate, int]) -> None:
    """Listening for the other terminal of one machine ended with "0 answered but not by a punchtunnel"."""
    text = why_no_hole(["127.0.0.1"], 1.0, Counts(), fates)
    assert "answered but" not in text
    assert "router" not in text


@pytest.mark.parametrize("kind", [field.name for field in fields(Counts) if field.name != "failed"])
def test_no_count_alone_is_without_a_sentence(kind: str) -> None:
    counts = Counts()
    setattr(counts, kind, 1)
    assert why_no_hole(["home"], 0.5, counts, {}).startswith("no hole to home in 0.5 s: ")


@pytest.mark.parametrize("dials", [0, 1])
@pytest.mark.parametrize("fate", Fate)
def test_no_fate_alone_is_without_a_sentence(fate: Fate, dials: int) -> None:
    counts = Counts(dials=dials, failed=Counter({fate: dials}))
    assert why_no_hole(["home"], 0.5, counts, {fate: 1}).startswith("no hole to home in 0.5 s: ")


@pytest.mark.parametrize("fate", [Fate.CAPTURED, Fate.LOST])
def test_ports_that_have_opened_for_nothing_show_that_somebody_else_answers(fate: Fate) -> None:
    text = why_no_hole(["home"], 9.0, Counts(dials=40, mute=23), {fate: 20})
    assert "23 answered but not by a punchtunnel" in text


def test_several_peers_are_named_as_alternatives() -> None:
    assert "no hole to 192.0.2.1 or home in 120 s" in why_no_hole(["192.0.2.1", "home"], 120.0, Counts(), {})


# ---- why the peer was rejected

S, L, T, R = Role.STDIO, Role.LISTEN, Role.TO, Role.RAW
MISFITS = [
    (mine, theirs) for mine in (S, L, T, L | T, R) for theirs in (S, L, T, L | T, R) if not roles_fit(mine, theirs)
]


def rejected(mine: Role, theirs: Role) -> str:
    return why_rejected(mine, NO_TRAITS, 1, Hello(bytes(16), bytes(8), theirs))


@pytest.mark.parametrize(("mine", "theirs"), MISFITS)
def test_a_role_that_does_not_fit_is_named_with_what_to_change(mine: Role, theirs: Role) -> None:
    text = rejected(mine, theirs)
    assert text.startswith(f"roles do not fit: {role_name(mine)} here, {role_name(theirs)} there: ")
    advice = {
        (L, L): "both sides listen; one side needs --to HOST:PORT",
        (T, T): "both sides wait to dial a target; one side needs -L PORT",
        (S, L | T): "pair -L with --to",
        (L | T, S): "pair -L with --to",
    }
    assert advice.get((mine, theirs), "punchtunnel.punch() meets only punchtunnel.punch()") in text


def test_both_sides_of_a_misfit_get_the_same_advice() -> None:
    for mine, theirs in MISFITS:
        assert rejected(mine, theirs).rpartition(" there: ")[2] == rejected(theirs, mine).rpartition(" there: ")[2]


def test_two_sides_that_only_send_are_told_so() -> None:
    hello = Hello(bytes(16), bytes(8), S, Trait.NO_RECEIVE)
    assert why_rejected(S, Trait.NO_RECEIVE, 1, hello).startswith("both sides are --send-only")


@pytest.mark.parametrize("roles", [(S, S), (L, L), (L, T)])
def test_plain_on_one_side_only_is_named_before_anything_else(roles: tuple[Role, Role]) -> None:
    mine, theirs = roles
    here = why_rejected(mine, Trait.PLAIN, 1, Hello(bytes(16), bytes(8), theirs))
    there = why_rejected(mine, NO_TRAITS, 1, Hello(bytes(16), bytes(8), theirs, Trait.PLAIN))
    assert here == "--plain is given here but not on the other side: give it on both, or better on neither"
    assert there == here.replace("here", "there")


def test_another_version_is_named() -> None:
    assert "version 2, not 1" in why_rejected(S, NO_TRAITS, 2, None)


@pytest.mark.parametrize(
    ("role", "name"), [(S, "--stdio"), (L, "-L"), (L | T, "-L and --to"), (R, "a library socket"), (Role(0), "nothing")]
)
def test_a_role_is_named_by_its_options(role: Role, name: str) -> None:
    assert role_name(role) == name


def test_every_cause_has_its_sentence() -> None:
    assert set(Cause) == words.NO_HOLE.keys()
