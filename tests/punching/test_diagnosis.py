"""Why there is no hole, and why a peer was rejected: the cause that what happened shows, and its sentence."""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from typing import Any

import pytest

from punchtunnel import words
from punchtunnel.protocol.hello import NO_TRAITS, Hello, Role, Trait, roles_fit
from punchtunnel.punching.candidates import Candidate, Fate, Kind
from punchtunnel.punching.diagnosis import (
    Cause,
    Finding,
    cause_of,
    evidence_of,
    role_name,
    why_no_direct_hole,
    why_no_hole,
    why_rejected,
)
from punchtunnel.punching.hole import Counts
from punchtunnel.system.addresses import Address

# ---- why there is no hole

ELSEWHERE, SCANNER, ROUTER = "198.51.100.9", "192.0.2.66", "198.51.100.10"
# Pieces of evidence, the strongest first: what each adds to the counts and to the ports, and the cause that it shows.
EVIDENCE: dict[str, tuple[dict[str, Any], dict[Fate, int], Cause]] = {
    "a check": ({"checked": True}, {}, Cause.CHECKED),
    "another channel": ({"other_channel": 1}, {}, Cause.CHANNEL),
    "our own hellos": ({"myself": 1}, {Fate.LOST: 1}, Cause.TOGETHER),
    "the own router's address": ({"own_router": ROUTER}, {}, Cause.OWN_ROUTER),
    "a punch from elsewhere": (
        {"foreign": Counter({ELSEWHERE: 49}), "foreign_punches": Counter({ELSEWHERE: 1})}, {}, Cause.FOREIGN
    ),
    "a connection that waits for a descriptor": ({"untaken": 1}, {}, Cause.STARVED),
    "calls from other ports": ({"rewritten": 30, "strangers": 30}, {}, Cause.REWRITTEN),
    "answers": ({"mute": 5}, {Fate.CAPTURED: 5}, Cause.MUTE),
    "hang-ups": ({"mute": 3, "hung_up": 3}, {Fate.CAPTURED: 1}, Cause.HUNG_UP),
    "refusals by the own router": (
        {"router": ROUTER, "failed": Counter({Fate.REFUSED: 90})}, {Fate.REFUSED: 5}, Cause.NEXT_DOOR
    ),
    "refusals": ({"failed": Counter({Fate.REFUSED: 90})}, {Fate.REFUSED: 5}, Cause.REFUSED),
    "no descriptors": ({}, {Fate.STARVED: 5}, Cause.STARVED),
    "a firewall here": ({}, {Fate.FORBIDDEN: 5}, Cause.FORBIDDEN),
    "ports in use": ({}, {Fate.UNUSABLE: 5}, Cause.UNUSABLE),
    "silence": ({}, {Fate.PENDING: 5}, Cause.SILENT),
    "unanswered ARP": ({}, {Fate.ABSENT: 5}, Cause.ABSENT),
    "no NAT64": ({"no_nat64": True}, {Fate.UNREACHABLE: 5}, Cause.NO_NAT64),
    "no route": ({}, {Fate.UNREACHABLE: 5}, Cause.UNREACHABLE),
}  # fmt: skip


def found(*pieces: str) -> Finding:
    counts, fates, told = Counts(dials=100), Counter[Fate](), dict[str, Any]()
    for piece in pieces:
        changes, ports, _ = EVIDENCE[piece]
        for name, value in changes.items():
            if hasattr(counts, name):
                setattr(counts, name, getattr(counts, name) + value)
            else:
                told[name] = value
        fates += Counter(ports)
    return cause_of(counts, fates, **told)


SUBSETS = [
    pieces for size in range(1, len(EVIDENCE) + 1) for pieces in itertools.combinations(EVIDENCE, size)
]  # fmt: skip


def test_the_strongest_piece_of_any_combination_is_the_cause() -> None:
    """49 connections from another address were counted, and the sentence said "refused at once"."""
    assert len(SUBSETS) == 2 ** len(EVIDENCE) - 1
    for pieces in SUBSETS:
        assert found(*pieces).cause is EVIDENCE[pieces[0]][2], pieces


def test_nothing_was_dialled_means_this_machine_whatever_else_is_counted() -> None:
    """Listening for the other terminal of one machine ended with "0 answered but not by a punchtunnel"."""
    for fate in set(Fate) - {Fate.STARVED}:
        assert cause_of(Counts(), {fate: 10}) == Finding(Cause.NOBODY)


def test_nobody_comes_to_who_cannot_listen_or_accept() -> None:
    """With 12 descriptors, the other terminal of one machine was waited for until the end, and then blamed."""
    assert cause_of(Counts(), {Fate.UNTRIED: 5, Fate.STARVED: 15}) == Finding(Cause.STARVED, 15)
    assert cause_of(Counts(untaken=1), {Fate.UNTRIED: 20}).cause is Cause.STARVED
    assert cause_of(Counts(), {Fate.UNTRIED: 18, Fate.STARVED: 2}) == Finding(Cause.NOBODY)


@pytest.mark.parametrize("fate", Fate)
def test_each_fate_alone_has_a_cause_and_is_counted(fate: Fate) -> None:
    assert cause_of(Counts(dials=1), {fate: 3}).times == 3


@pytest.mark.parametrize("fate", [Fate.CAPTURED, Fate.REFUSED, Fate.STARVED, Fate.FORBIDDEN, Fate.UNUSABLE])
def test_one_or_two_ports_of_twenty_are_chance(fate: Fate) -> None:
    for odd in (1, 2):
        assert cause_of(Counts(dials=40), {Fate.PENDING: 20 - odd, fate: odd}) == Finding(Cause.SILENT, 20 - odd)
    assert cause_of(Counts(dials=40), {Fate.PENDING: 17, fate: 3}).cause is not Cause.SILENT


def test_a_family_that_this_host_lacks_says_less_than_the_other_one() -> None:
    assert cause_of(Counts(dials=60), {Fate.UNREACHABLE: 20, Fate.PENDING: 10}) == Finding(Cause.SILENT, 10)
    refused = Counts(dials=60, failed=Counter({Fate.UNREACHABLE: 40, Fate.REFUSED: 20}))
    assert cause_of(refused, {Fate.UNREACHABLE: 20, Fate.REFUSED: 10}) == Finding(Cause.REFUSED, 20)


def test_dials_are_counted_where_they_end_and_ports_where_they_do_not() -> None:
    assert cause_of(Counts(dials=412, failed=Counter({Fate.REFUSED: 412})), {Fate.REFUSED: 20}).times == 412
    assert cause_of(Counts(dials=174, failed=Counter({Fate.UNUSABLE: 160})), {Fate.UNUSABLE: 20}).times == 20


def test_of_several_strangers_the_most_frequent_one_is_named() -> None:
    foreign = Counter({SCANNER: 3, ELSEWHERE: 49})
    counts = Counts(dials=40, foreign=foreign, foreign_punches=Counter({SCANNER: 0, ELSEWHERE: 49}))
    assert cause_of(counts, {Fate.REFUSED: 20}) == Finding(Cause.FOREIGN, 49, ELSEWHERE)


def test_a_scanner_is_named_only_where_nothing_else_is_known() -> None:
    """It does not come from the port that the schedule has."""
    counts = Counts(dials=40, foreign=Counter({SCANNER: 3}), foreign_punches=Counter({SCANNER: 0}))
    assert cause_of(counts, {Fate.REFUSED: 20}).cause is Cause.REFUSED
    assert cause_of(counts, {Fate.PENDING: 20}) == Finding(Cause.FOREIGN, 3, SCANNER)


def test_more_answers_than_calls_are_answers() -> None:
    counts = Counts(dials=40, rewritten=5, strangers=25)
    assert cause_of(counts, {Fate.CAPTURED: 20}) == Finding(Cause.MUTE, 20)


@pytest.mark.parametrize("cause", sorted(set(Cause) - {Cause.STARVED}))
def test_a_sentence_has_what_was_counted_and_given(cause: Cause) -> None:
    counts = Counts(dials=40)
    text = why_no_hole(["192.0.2.1", "home"], ["IPv4", "IPv6"], 120.0, counts, Finding(cause, 23, ELSEWHERE))
    assert text.startswith("no hole to 192.0.2.1 or home in 120 s: 40 dials")
    assert "{" not in text
    assert ("23" in text) is ("{count}" in words.NO_HOLE[cause])


def test_hang_ups_are_no_answers_unless_something_else_answers_as_often() -> None:
    assert cause_of(Counts(dials=40, mute=1, hung_up=1), {Fate.REFUSED: 19, Fate.CAPTURED: 1}).cause is Cause.HUNG_UP
    assert cause_of(Counts(dials=40, mute=9, hung_up=9), {Fate.CAPTURED: 6}) == Finding(Cause.HUNG_UP, 9)
    assert cause_of(Counts(dials=40, mute=9, hung_up=4), {Fate.CAPTURED: 6}) == Finding(Cause.MUTE, 9)
    assert cause_of(Counts(dials=40, mute=4, strangers=4, hung_up=4), {Fate.CAPTURED: 6}).cause is Cause.MUTE


@pytest.mark.parametrize("cause", [Cause.TOGETHER, Cause.NEXT_DOOR])
def test_both_behind_one_router_are_told_the_private_address_of_this_machine(cause: Cause) -> None:
    text = why_no_hole([ROUTER], ["IPv4"], 120.0, Counts(dials=40), Finding(cause, 23, ROUTER), own="192.168.1.2")
    assert f"{ROUTER} is " in text
    assert "give each side the other's private address: that of this machine is 192.168.1.2" in text


def test_a_router_that_refuses_is_named_with_its_address() -> None:
    counts = Counts(dials=40, failed=Counter({Fate.REFUSED: 30}))
    assert cause_of(counts, {Fate.REFUSED: 20}, router=ROUTER) == Finding(Cause.NEXT_DOOR, 30, ROUTER)


@pytest.mark.parametrize("cause", sorted(set(Cause) - {Cause.STARVED}))
def test_every_sentence_names_the_nat64_that_was_gone_through(cause: Cause) -> None:
    finding = Finding(cause, 23, ELSEWHERE)
    text = why_no_hole(["192.0.2.1"], ["IPv4"], 120.0, Counts(dials=40), finding, nat64="64:ff9b::/96")
    assert text.startswith("no hole to 192.0.2.1 through the NAT64 64:ff9b::/96 in 120 s: 40 dials")


def test_every_cause_has_its_sentence() -> None:
    # What the system says has the same sentence at the start of a punch and at its end.
    assert set(Cause) - {Cause.STARVED} == words.NO_HOLE.keys()


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
    # It said "given there but not on the other side", which means: not here.
    assert there == "--plain is given on the other side but not here: give it on both, or better on neither"


def test_another_version_is_named() -> None:
    assert "version 3, not 2" in why_rejected(S, NO_TRAITS, 3, None)


@pytest.mark.parametrize(
    ("role", "name"), [(S, "--stdio"), (L, "-L"), (L | T, "-L and --to"), (R, "a library socket"), (Role(0), "nothing")]
)
def test_a_role_is_named_by_its_options(role: Role, name: str) -> None:
    assert role_name(role) == name


# ---- what counts as evidence


def met(usual: Fate, further: Fate) -> Counter[Fate]:
    address = Address(socket.AF_INET, ELSEWHERE)
    ways = (address, usual), (address._replace(interface="eth1"), further)
    return evidence_of({Candidate(Kind.SAME_PORT, way, port, port): fate for port in range(20) for way, fate in ways})


@pytest.mark.parametrize("usual", Fate)
@pytest.mark.parametrize(
    "further", [Fate.SILENT, Fate.PENDING, Fate.UNREACHABLE, Fate.FORBIDDEN, Fate.UNUSABLE, Fate.STARVED, Fate.EXPIRED]
)
def test_an_uplink_that_leads_nowhere_hides_nothing(usual: Fate, further: Fate) -> None:
    assert met(usual, further) == {usual: 20}


@pytest.mark.parametrize("further", [Fate.REFUSED, Fate.CAPTURED, Fate.LOST])
def test_what_the_far_end_says_by_a_further_way_counts_where_the_usual_one_shows_nothing(further: Fate) -> None:
    assert met(Fate.SILENT, further) == {Fate.SILENT: 20, further: 20}
    assert met(Fate.UNREACHABLE, further) == {Fate.UNREACHABLE: 20, further: 20}
    assert met(Fate.REFUSED, further) == {Fate.REFUSED: 20}


def test_a_try_by_appointment_says_what_it_has_met_and_advises_nothing() -> None:
    fates = {Fate.REFUSED: 12, Fate.SILENT: 3, Fate.PENDING: 5, Fate.LOST: 1}
    text = why_no_direct_hole(5.0, Counts(dials=40), fates)
    assert text == "in 5 s 40 dials, 12 refused, 1 answered by another program, 8 not answered"
    assert why_no_direct_hole(5.0, Counts(dials=128), {}) == "in 5 s 128 dials, none answered"
    assert "told no address that can be dialled" in why_no_direct_hole(5.0, Counts(), {})
