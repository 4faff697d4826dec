"""One hole after another: what a service outlives, and what takes nothing from the time to wait."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from punchtunnel import words
from punchtunnel.errors import (
    Exit,
    LocalError,
    LostError,
    NoHoleError,
    PunchtunnelError,
    RejectedError,
    SignalError,
    UsageError,
)
from punchtunnel.protocol.hello import NO_TRAITS, Role, Trait
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.punching.rations import Rations
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting.events import Checked, Event, PunchingAgain, TriedAgain
from punchtunnel.session import holes
from punchtunnel.session.comeback import RestartedError, Return
from punchtunnel.session.holes import FINAL, REJECTION_PAUSE, Holes
from punchtunnel.session.outcome import Outcome

PEER = "203.0.113.9"
LOST = Outcome(Exit.LOST, "link lost")


def hole(traits: Trait = NO_TRAITS) -> Hole:
    sock: Any = None
    return Hole(sock, "here", "there", b"", True, Role.TO, traits, 0.0, Counts())


class Stage:
    """Holes whose punches end as they are told to, on a clock that the test sets."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *punches: Hole | BaseException,
        keep: bool,
        wait: float = 60.0,
        traits: Trait = NO_TRAITS,
        secret: bytes = b"",
    ) -> None:
        self.now = 0.0
        # Seconds that each punch takes.
        self.takes = 0.0
        self.waits: list[float] = []
        self.rations: list[Rations] = []
        self.pauses: list[float] = []
        self.told: list[Event] = []
        self._punches = list(punches)
        monkeypatch.setattr(holes, "open_hole", self._open_hole)
        settings = Settings([PEER], wait=wait, role=Role.LISTEN, traits=traits, keep=keep, secret=secret)
        signals: Any = self
        self.holes = Holes(settings, signals, self.told.append, monotonic=lambda: self.now)

    def sleep(self, seconds: float) -> None:
        """Stand in for the signals, which can be slept with."""
        self.pauses.append(seconds)

    def _open_hole(self, settings: Settings, *, rations: Rations, **_: object) -> Hole:
        self.waits.append(settings.wait)
        self.now += self.takes
        self.rations.append(rations)
        result = self._punches.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result


@pytest.mark.parametrize("error", [LocalError, UsageError, RejectedError])
@pytest.mark.parametrize("sessions", [0, 1])
def test_a_service_outlives_what_is_gone_for_a_while(
    error: type[PunchtunnelError], sessions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--bind's address, a name, a peer; but what was wrong from the start ends it, except the peer's mistake."""
    stage = Stage(monkeypatch, *[hole()] * sessions, error("gone"), SignalError(15), keep=True)
    for _ in range(sessions):
        assert stage.holes.goes_on(stage.holes.next(), LOST)
    survives = sessions or error is RejectedError
    with pytest.raises(SignalError if survives else error):
        stage.holes.next()
    assert stage.pauses == [REJECTION_PAUSE] * bool(survives)
    assert PunchingAgain("gone") in stage.told or not survives


@pytest.mark.parametrize(("spent", "pauses"), [(2.0, [REJECTION_PAUSE - 2.0]), (REJECTION_PAUSE, []), (60.0, [])])
def test_a_service_is_not_deaf_after_a_punch_that_was_long(
    spent: float, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever had it rejected a hello every 5 s kept it away for ever."""
    stage = Stage(monkeypatch, RejectedError("a hello"), SignalError(15), keep=True)
    stage.takes = spent
    with pytest.raises(SignalError):
        stage.holes.next()
    assert stage.pauses == pauses


@pytest.mark.parametrize("error", [LocalError, UsageError, RejectedError, NoHoleError])
def test_without_k_every_failure_is_the_last(error: type[PunchtunnelError], monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, error("gone"), keep=False)
    with pytest.raises(error):
        stage.holes.next()
    assert not stage.pauses


def test_a_service_has_the_same_rations_in_all_its_punches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever had it punch again could guess again, 486 times in 40 s."""
    rejected = RejectedError("a peer that does not fit")
    stage = Stage(monkeypatch, rejected, rejected, NoHoleError("nobody came"), keep=True)
    with pytest.raises(NoHoleError):
        stage.holes.next()
    assert len(stage.rations) == 3
    assert all(one is stage.rations[0] for one in stage.rations)


@pytest.mark.parametrize("keep", [False, True])
def test_another_hole_is_punched_with_k_only_and_says_why(keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, hole(), keep=keep)
    assert stage.holes.goes_on(stage.holes.next(), LOST) is keep
    assert stage.told == [PunchingAgain("link lost")] * keep


@pytest.mark.parametrize("status", FINAL)
def test_nobody_who_ended_it_wants_another(status: Exit, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, hole(), keep=True)
    assert not stage.holes.goes_on(stage.holes.next(), Outcome(status, ""))


@pytest.mark.parametrize("keep", [False, True])
def test_a_peer_that_only_checks_takes_nothing_from_the_wait_but_time(
    keep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(monkeypatch, hole(Trait.CHECK), hole(), keep=keep)
    checked = stage.holes.next()
    stage.now = 20.0
    assert stage.holes.goes_on(checked, Outcome(Exit.OK, ""))
    stage.holes.next()
    assert stage.waits == [60.0, 40.0]
    assert stage.told == [Checked("there")]


@pytest.mark.parametrize("keep", [False, True])
def test_a_hole_on_which_the_peer_was_never_heard_is_none(keep: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower that never got the leader's last word punched on, and the leader ended with status 1."""
    stage = Stage(monkeypatch, hole(), hole(), keep=keep)
    unmet = stage.holes.next()
    stage.now = 20.0
    assert stage.holes.goes_on(unmet, Outcome(Exit.LOST, "never met", met=False))
    stage.holes.next()
    assert stage.waits == [60.0, 40.0]
    assert stage.told == [PunchingAgain("never met")]


def test_a_hole_that_was_lost_before_is_named_when_no_other_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last line knew of the last punch alone, and said that nobody had answered at all."""
    stage = Stage(monkeypatch, hole(), NoHoleError("no hole"), keep=False)
    assert stage.holes.goes_on(stage.holes.next(), Outcome(Exit.LOST, "never met", met=False))
    with pytest.raises(NoHoleError, match=f"^no hole; {words.UNMET_BEFORE}$"):
        stage.holes.next()


def test_a_side_that_checks_itself_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, hole(Trait.CHECK), keep=False, traits=Trait.CHECK)
    assert not stage.holes.goes_on(stage.holes.next(), Outcome(Exit.OK, ""))


@pytest.mark.parametrize("secret", [b"", b"known to both"])
@pytest.mark.parametrize("error", [RestartedError, RejectedError])
def test_only_a_peer_that_knows_the_secret_is_believed_that_a_session_is_over(
    error: type[PunchtunnelError], secret: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without one a stranger at the peer's address ended the session of a client of a service with one empty word."""
    found = hole(Trait.RESUME)
    stage = Stage(monkeypatch, found, found, keep=False, secret=secret)
    words: list[PunchtunnelError | Return] = [error("says so"), Return(found, Any, 0, b"")]  # type: ignore[arg-type]

    def come_back(*_: object) -> Return:
        word = words.pop(0)
        if isinstance(word, Return):
            return word
        raise word

    monkeypatch.setattr(holes, "come_back", come_back)
    signals: Any = stage

    def again() -> Return:
        return stage.holes.again(Ticket(bytes(16), bytes(32)), 0, 60.0, signals, stage.told.append)

    if secret:
        with pytest.raises(RestartedError, match="says so"):
            again()
    else:
        assert again().hole is found
        assert stage.told == [TriedAgain("says so")]


def test_each_hole_of_a_service_may_be_waited_for_as_long_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, hole(Trait.CHECK), hole(), hole(), keep=True)
    for _ in range(2):
        found = stage.holes.next()
        stage.now += 20.0
        assert stage.holes.goes_on(found, LOST)
    stage.holes.next()
    assert stage.waits == [60.0, 40.0, 60.0]


def test_what_the_system_refuses_while_punching_costs_a_service_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """One refused epoll_ctl ended a service, which said "cannot write"."""
    stage = Stage(monkeypatch, hole(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), hole(), keep=True)
    stage.holes.next()
    stage.holes.next()
    assert stage.pauses == [REJECTION_PAUSE]
    (again,) = stage.told
    assert isinstance(again, PunchingAgain)
    assert "the system refused a call: No space left on device, in `raise result`" in again.reason


def test_what_the_system_refused_a_session_is_tried_again_after_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, hole(), hole(), hole(), keep=True)
    assert stage.holes.goes_on(stage.holes.next(), Outcome(Exit.LOCAL, "refused"))
    assert stage.holes.goes_on(stage.holes.next(), LOST)
    stage.holes.next()
    assert stage.pauses == [REJECTION_PAUSE]


def test_a_relay_that_cuts_whoever_has_met_is_joined_more_and_more_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cut each connection after the election had both sides join and prove the secret 30 times a second."""
    gone = LostError("gone")
    stage = Stage(monkeypatch, *[gone] * 8, hole(), gone, gone, SignalError(15), keep=True, wait=0.0)
    stage.holes.next()
    assert stage.pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    with pytest.raises(SignalError):
        stage.holes.next()
    assert stage.pauses[8:] == [0.0, 0.5]


def test_such_a_pause_is_no_longer_than_the_time_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, *[LostError("gone")] * 5, keep=False, wait=9.0)
    stage.takes = 2.2
    with pytest.raises(NoHoleError, match="gone"):
        stage.holes.next()
    assert stage.pauses == pytest.approx([0.0, 0.5, 1.0, 0.2])
