"""The first words on a hole by which a session comes back; the test plays the other side."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from punchtunnel import words
from punchtunnel.errors import LostError, PeerError, SignalError
from punchtunnel.protocol.agreement import Keys
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.protocol.records import DATA, RESUME, Opener, Sealer
from punchtunnel.protocol.resume import RESUME_SIZE, Ticket, decode_resume, is_proved, prove
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.session.comeback import RestartedError, come_back, take_back, ticket_of
from punchtunnel.system.signals import Wake

TICKET = Ticket(b"s" * 16, b"t" * 32)
OTHER = Ticket(b"s" * 16, b"o" * 32)
TO_US, TO_THEM, VERIFIER = b"u" * 32, b"v" * 32, b"w" * 20
WORD_SIZE = RESUME_SIZE + 20


@dataclass
class Stage:
    """A hole of this side, which leads, and its far end."""

    hole: Hole
    there: socket.socket
    wake: Wake

    def __post_init__(self) -> None:
        self.sealer, self.opener = Sealer(TO_US, True), Opener(TO_THEM, True)

    def word(self, ticket: Ticket = TICKET, verifier: bytes = VERIFIER, *, leads: bool = False) -> bytes:
        return self.sealer.seal(prove(ticket, verifier, leads, 7).encode(), RESUME)

    @property
    def is_closed(self) -> bool:
        return self.hole.sock.fileno() < 0


@pytest.fixture
def stage() -> Iterator[Stage]:
    here, there = socket.socketpair()
    keys = Keys(TO_THEM, TO_US, b"", b"", VERIFIER, OTHER)
    traits = Trait.RESUME | Trait.RESUMING | Trait.FAST_AES
    hole = Hole(here, "here", "there", b"", True, Role.STDIO, traits, 0.0, Counts(), keys, fast_aes=True)
    with here, there, Wake() as wake:
        yield Stage(hole, there, wake)


def test_both_have_proved_the_session_and_what_follows_is_kept(stage: Stage) -> None:
    stage.there.sendall(stage.word() + b"the next record")
    back = come_back(stage.hole, TICKET, 5, stage.wake)
    assert (back.received, back.unread) == (7, b"the next record")
    said = decode_resume(bytes(stage.opener.open(memoryview(stage.there.recv(WORD_SIZE)))))
    assert said is not None
    assert said.received == 5
    assert is_proved(said, TICKET, VERIFIER, leads=True)


def test_a_word_that_comes_byte_by_byte_and_begins_in_the_election_is_whole(stage: Stage) -> None:
    word = stage.word()
    for number in range(10, len(word)):
        stage.there.sendall(word[number : number + 1])
    back = come_back(replace(stage.hole, unread=word[:10]), TICKET, 5, stage.wake)
    assert back.received == 7


@pytest.mark.parametrize(
    "wrong", ["another session", "another hole", "our own side", "garbage", "a data record", "too long", "too short"]
)
def test_whoever_proves_nothing_costs_its_hole_alone(stage: Stage, wrong: str) -> None:
    words_of = {
        "another session": lambda: stage.word(OTHER),
        "another hole": lambda: stage.word(verifier=b"x" * 20),
        "our own side": lambda: stage.word(leads=True),
        "garbage": lambda: os.urandom(WORD_SIZE),
        "a data record": lambda: stage.sealer.seal(prove(TICKET, VERIFIER, False, 7).encode(), DATA),
        "too long": lambda: stage.sealer.seal(bytes(RESUME_SIZE + 1), RESUME),
        "too short": lambda: stage.sealer.seal(bytes(RESUME_SIZE - 1), RESUME),
    }
    stage.there.sendall(words_of[wrong]())
    with pytest.raises(PeerError) as caught:
        come_back(stage.hole, TICKET, 5, stage.wake)
    assert not isinstance(caught.value, RestartedError)
    assert stage.is_closed


def test_a_recorded_word_is_worth_nothing_on_another_hole(stage: Stage) -> None:
    """Its key was another one."""
    recorded = Sealer(b"k" * 32, True).seal(prove(TICKET, VERIFIER, False, 7).encode(), RESUME)
    stage.there.sendall(recorded)
    with pytest.raises(PeerError):
        come_back(stage.hole, TICKET, 5, stage.wake)


def test_an_empty_word_ends_the_session(stage: Stage) -> None:
    stage.there.sendall(stage.sealer.seal(b"", RESUME))
    with pytest.raises(RestartedError, match=words.PEER_RESTARTED):
        come_back(stage.hole, TICKET, 5, stage.wake)
    assert stage.is_closed


def test_a_peer_that_cannot_resume_was_started_anew(stage: Stage) -> None:
    with pytest.raises(RestartedError):
        come_back(replace(stage.hole, traits=Trait(0)), TICKET, 5, stage.wake)
    assert stage.is_closed


def test_a_hole_that_ends_meanwhile_is_lost(stage: Stage) -> None:
    stage.there.sendall(stage.word()[:-1])
    stage.there.shutdown(socket.SHUT_WR)
    with pytest.raises(LostError):
        come_back(stage.hole, TICKET, 5, stage.wake)
    assert stage.is_closed


def test_silence_is_not_waited_for_for_ever(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("punchtunnel.session.comeback.ANSWER_TIMEOUT", 0.01)
    with pytest.raises(LostError):
        come_back(stage.hole, TICKET, 5, stage.wake)
    assert stage.is_closed


def test_a_signal_ends_the_wait(stage: Stage) -> None:
    stage.wake.note(signal.SIGINT)
    with pytest.raises(SignalError):
        come_back(stage.hole, TICKET, 5, stage.wake)
    assert stage.is_closed


@pytest.mark.parametrize("answer", ["waits for the end", "is gone", "says garbage"])
def test_a_peer_that_looks_for_another_session_is_sent_away(stage: Stage, answer: str) -> None:
    def peer() -> None:
        with contextlib.suppress(OSError):
            if answer == "waits for the end":
                stage.there.sendall(stage.word())
                while stage.there.recv(100):
                    pass
            elif answer == "says garbage":
                stage.there.sendall(os.urandom(1000))
            stage.there.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=peer)
    thread.start()
    assert take_back(stage.hole, lambda _: None, lambda _: None, stage.wake) is None
    thread.join()
    assert stage.is_closed


@pytest.mark.parametrize(
    ("seconds", "traits", "expected"), [(60.0, Trait.RESUME, OTHER), (0.0, Trait.RESUME, None), (60.0, Trait(0), None)]
)
def test_both_sides_must_be_able_to(stage: Stage, seconds: float, traits: Trait, expected: Ticket | None) -> None:
    assert ticket_of(replace(stage.hole, traits=traits), seconds) == expected
