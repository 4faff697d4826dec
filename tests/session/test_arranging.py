"""Tries by appointment: what each side says and when, on a clock that waits alone move on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from punchtunnel.errors import LostError, NoHoleError, SignalError
from punchtunnel.protocol.offers import Flag, Offer, Offered, Source
from punchtunnel.punching.hole import Hole
from punchtunnel.session.arranging import COSTLY_AGAIN, OFFER_TIMEOUT, PAUSES, Arranger, Gathered

NEVER = float("inf")
DIRECT: Any = object()
HERE = Offered(Source.HOST, "203.0.113.9")


class Offers:
    """What is gathered for one try."""

    def __init__(self, open_ones: list[Offers]) -> None:
        self.offer = Offer(0, candidates=(HERE,))
        self.own_ports: tuple[int, ...] = ()
        self._open = open_ones
        open_ones.append(self)

    def close(self) -> None:
        self._open.remove(self)


class Stage:
    """One side, whose talk, ways and clock are the test's.

    Args:
        heard: What the peer says: an offer, seconds of silence that go before the next one, or an error.
        tries: What each try gives: a hole, or why there is none.
    """

    def __init__(self, *heard: Offer | float | Exception, leads: bool, tries: list[Any], plans: int = 1) -> None:
        self.now = 100.0
        self.round_trip = 0.08
        self.said: list[tuple[float, int]] = []
        self.flags: set[Flag] = set()
        self.tried: list[tuple[float, int, int]] = []
        self.told: list[tuple[str, float | None]] = []
        self.gathered: list[float] = []
        self.open: list[Offers] = []
        self._heard = list(heard)
        self._tries = tries
        self._plans = plans
        signals: Any = self
        self.arranger = Arranger(
            self, leads, self, Flag.DIRECT_ONLY, signals, lambda: self.now, lambda *one: self.told.append(one)
        )

    # ---- Talk

    def say(self, offer: Offer) -> None:
        self.said.append((self.now, offer.number))
        self.flags.add(offer.flags)

    def hear(self, timeout: float) -> Offer | None:
        assert timeout > 0
        if not self._heard:
            raise LostError("the end of the script")
        one = self._heard.pop(0)
        if isinstance(one, Exception):
            raise one
        if isinstance(one, Offer):
            return one
        if one > timeout:
            self._heard.insert(0, one - timeout)
        self.now += min(one, timeout)
        # It was ended early by something that has changed here, or it is over.
        return None

    # ---- Ways

    def gather(self, _signals: object) -> Offers:
        self.gathered.append(self.now)
        return Offers(self.open)

    def plans(self, _mine: Offer, _theirs: Offer) -> int:
        return self._plans

    def punch(self, gathered: Gathered, theirs: Offer, _signals: object) -> Hole:
        assert gathered in self.open
        self.tried.append((self.now, gathered.offer.number, theirs.number))
        self.now += 5.0
        one = self._tries.pop(0)
        if isinstance(one, BaseException):
            raise one
        return DIRECT  # type: ignore[no-any-return]

    # ---- Wake

    def sleep(self, seconds: float) -> None:
        self.now += seconds


NO = NoHoleError("all refused")


def test_the_leader_tries_when_the_answer_has_come() -> None:
    stage = Stage(Offer(1), leads=True, tries=[DIRECT])
    assert stage.arranger.run(NEVER) is DIRECT
    assert (stage.said, stage.tried) == ([(100.0, 1)], [(100.0, 1, 1)])
    assert stage.flags == {Flag.DIRECT_ONLY}
    assert not stage.open


def test_the_follower_tries_half_a_round_trip_after_it_has_answered() -> None:
    stage = Stage(Offer(3), leads=False, tries=[DIRECT])
    assert stage.arranger.run(NEVER) is DIRECT
    assert (stage.said, stage.tried) == ([(100.0, 3)], [(100.04, 3, 3)])


def test_the_leader_pauses_longer_and_longer_and_says_so() -> None:
    heard: list[Offer | float | Exception] = []
    for number, pause in enumerate((*PAUSES, PAUSES[-1]), 1):
        heard += [Offer(number), pause]
    stage = Stage(*heard, Offer(len(PAUSES) + 2), leads=True, tries=[NO] * 6 + [DIRECT])
    stage.arranger.run(NEVER)
    begins = [began for began, *_ in stage.tried]
    between = [after - before - 5.0 for before, after in pairwise(begins)]
    assert between == [*PAUSES, PAUSES[-1]]
    assert stage.told == [("all refused", pause) for pause in (*PAUSES, PAUSES[-1])]


def test_the_follower_keeps_nothing_open_while_it_waits_for_the_next_try() -> None:
    stage = Stage(Offer(1), 50.0, leads=False, tries=[NO])
    with pytest.raises(LostError):
        stage.arranger.run(NEVER)
    assert not stage.open
    # At first it gathers while the leader does; later when the leader has asked.
    assert stage.gathered == [100.0]
    assert stage.told == [("all refused", None)]


def test_a_change_here_lets_the_follower_ask_and_the_leader_try() -> None:
    follower = Stage(Offer(1), 7.0, Offer(2), leads=False, tries=[NO, DIRECT])
    follower.arranger.run(NEVER)
    assert [number for _, number in follower.said] == [1, 0, 2]
    leader = Stage(Offer(1), 1.0, Offer(2), leads=True, tries=[NO, DIRECT])
    leader.arranger.run(NEVER)
    assert [began for began, *_ in leader.tried] == [100.0, 106.0]


def test_the_follower_s_wish_ends_a_pause_and_is_no_answer() -> None:
    stage = Stage(Offer(1), Offer(0), Offer(0), Offer(2), leads=True, tries=[NO, DIRECT])
    stage.arranger.run(NEVER)
    assert stage.tried == [(100.0, 1, 1), (105.0, 2, 2)]


def test_a_late_answer_ends_no_pause() -> None:
    stage = Stage(Offer(1), Offer(1), 5.0, Offer(2), leads=True, tries=[NO, DIRECT])
    stage.arranger.run(NEVER)
    assert [began for began, *_ in stage.tried] == [100.0, 110.0]


def test_a_leader_that_wants_guesses_without_end_gets_one_in_minutes() -> None:
    stage = Stage(Offer(2), Offer(4), Offer(6), 230.0, Offer(8), leads=False, tries=[NO, DIRECT], plans=2)
    stage.arranger.run(NEVER)
    assert [number for _, number, _ in stage.tried] == [2, 8]


def test_a_try_of_another_kind_follows_without_a_pause() -> None:
    stage = Stage(Offer(1), Offer(2), 5.0, Offer(3), leads=True, tries=[NO, NO, DIRECT], plans=2)
    stage.arranger.run(NEVER)
    assert [began for began, *_ in stage.tried] == [100.0, 105.0, 115.0]


def test_an_answer_that_does_not_come_is_asked_for_anew() -> None:
    stage = Stage(OFFER_TIMEOUT, Offer(1), Offer(2), leads=True, tries=[DIRECT])
    stage.arranger.run(NEVER)
    assert (stage.said, stage.tried) == ([(100.0, 1), (110.0, 2)], [(110.0, 2, 2)])


def test_a_leader_that_repeats_itself_is_answered_once() -> None:
    stage = Stage(Offer(1), Offer(1), Offer(0), Offer(2), leads=False, tries=[NO, DIRECT])
    stage.arranger.run(NEVER)
    assert [number for _, number in stage.said] == [1, 2]


@pytest.mark.parametrize("leads", [True, False])
def test_it_ends_when_it_is_too_late(leads: bool) -> None:
    stage = Stage(Offer(1), 500.0, leads=leads, tries=[NO])
    with pytest.raises(NoHoleError, match="all refused"):
        stage.arranger.run(107.0)
    assert (stage.now, len(stage.tried)) == (107.0, 1)


def test_it_ends_after_as_many_tries_as_are_wanted() -> None:
    stage = Stage(Offer(1), leads=True, tries=[NO])
    with pytest.raises(NoHoleError):
        stage.arranger.run(NEVER, 1)


def _sleeps(stage: Stage) -> None:
    def sleep(_: float) -> None:
        raise SignalError(signal.SIGINT)

    stage.sleep = sleep  # type: ignore[method-assign, assignment]


def _breaks(stage: Stage) -> None:
    stage._tries[:] = [SignalError(signal.SIGINT)]


@pytest.mark.parametrize("end", [_sleeps, _breaks])
def test_a_signal_ends_it_with_nothing_left_open(end: Callable[[Stage], None]) -> None:
    stage = Stage(Offer(1), leads=False, tries=[NO])
    end(stage)
    with pytest.raises(SignalError):
        stage.arranger.run(NEVER)
    assert not stage.open


def test_a_try_of_another_kind_is_not_made_again_before_routers_have_forgotten_the_last_one() -> None:
    """Four rounds of guesses made 512 entries in a carrier's router within 240 s, of which a customer may have 256."""
    numbers: list[tuple[float, int]] = []
    tries, now = [NO] * 9, 100.0
    stage = Stage(leads=True, tries=[*tries, DIRECT], plans=2)

    def hear(timeout: float) -> Offer | None:
        if stage.said[-1:] != numbers[-1:]:
            numbers.append(stage.said[-1])
            return Offer(stage.said[-1][1])
        stage.now += timeout
        return None

    stage.hear = hear  # type: ignore[method-assign]
    stage.arranger.run(NEVER)
    guesses = [began - now for began, number, _ in stage.tried if number % 2 == 0]
    assert guesses[:2] == [5.0, 5.0 + 5 + PAUSES[0] + 5 + PAUSES[1] + 5 + PAUSES[2] + 5 + PAUSES[3] + 5]
    assert all(after - before >= COSTLY_AGAIN for before, after in pairwise(guesses))
    assert [pause for _, pause in stage.told][:4] == list(PAUSES[:4])
