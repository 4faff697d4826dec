"""Elections of two sides that want to go on with one session: nobody else wins, and nobody else can test anything."""

from __future__ import annotations

import pytest

from punchtunnel.protocol.election import Election
from punchtunnel.protocol.hello import Hello, Trait
from punchtunnel.protocol.verdicts import Drop, Why
from tests.protocol.test_sealed_handshake import FOLLOWER, LEADER, Only, Side, cheap, join

SESSION, OTHER = b"s" * 32, b"o" * 32
LEADS = pytest.mark.parametrize("leads", [True, False])
# The user's; without one the empty one.
SECRETS = pytest.mark.parametrize("secret", [b"tiger", b""])


def resuming(hello: Hello, secret: bytes, session: bytes, *, insists: bool = False) -> Side:
    """Return a side that claims to resume a session, whether it knows its secret or not."""
    hello = hello._replace(traits=hello.traits | Trait.RESUME | Trait.RESUMING)
    side = Side(hello, cheap(secret))
    side.election = Election(hello, cheap(secret), bool(secret or insists), Only(1), session, insists)
    side.election.opened(1)
    return side


def two(leads: bool, one: Hello = LEADER, other: Hello = FOLLOWER) -> tuple[Hello, Hello]:
    return (one, other) if leads else (other, one)


@LEADS
@SECRETS
def test_both_sides_of_a_session_win(leads: bool, secret: bytes) -> None:
    mine, theirs = two(leads)
    side, peer = (resuming(hello, secret, SESSION, insists=not secret) for hello in (mine, theirs))
    join(side, peer)
    assert side.keys.verifier == peer.keys.verifier


@LEADS
@SECRETS
@pytest.mark.parametrize("claims", [OTHER, b""])
def test_whoever_claims_a_session_without_its_secret_wins_nothing_and_has_tested_nothing(
    leads: bool, secret: bytes, claims: bytes
) -> None:
    """Each broken try of the true peer cost one of five, and then ten seconds."""
    mine, theirs = two(leads)
    side = resuming(mine, secret, SESSION, insists=not secret)
    join(side, resuming(theirs, secret, claims))
    assert side.actions == [Drop(1, Why.NOT_PROVED)]
    limits = side.election._limits
    assert isinstance(limits, Only)
    assert (limits.began_on, limits.gave_back, limits.endings) == ([1], [1], [])


@LEADS
def test_without_a_secret_nobody_wins_who_does_not_resume(leads: bool) -> None:
    mine, theirs = two(leads)
    side = resuming(mine, b"", SESSION, insists=True)
    join(side, Side(theirs, cheap(b""), strict=False))
    assert side.actions == [Drop(1, Why.OTHER_SESSION)]


@LEADS
def test_with_the_secret_a_peer_that_was_started_anew_is_met(leads: bool) -> None:
    """It then says that it knows nothing of the session."""
    mine, theirs = two(leads)
    side, peer = resuming(mine, b"tiger", SESSION), Side(theirs, cheap(b"tiger"))
    join(side, peer)
    assert side.keys.verifier == peer.keys.verifier
    assert side.won is not None
    assert Trait.RESUMING not in side.won.hello.traits


@LEADS
def test_a_wrong_secret_of_a_side_that_does_not_resume_is_a_try(leads: bool) -> None:
    mine, theirs = two(leads)
    side = resuming(mine, b"tiger", SESSION)
    join(side, Side(theirs, cheap(b"lion")))
    limits = side.election._limits
    assert isinstance(limits, Only)
    assert (limits.gave_back, limits.endings) == ([], [(1, False)])
