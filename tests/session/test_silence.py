"""A silent peer: when it is asked, when it is dead, and what the kernel's numbers say of the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from punchtunnel.errors import LinkError
from punchtunnel.session.silence import HEARTBEAT, SUSPECT_AFTER, SWALLOWED_AFTER, Silence
from punchtunnel.system.tcp import Delivery

TICK = 2.0
MIB = 1024 * 1024


@dataclass
class Hole:
    """A hole, a peer and a clock: what a Silence sees of them."""

    now: float = 0.0
    slept: float = 0.0
    heard_at: float = 0.0
    said_at: float = 0.0
    kernel: Delivery | None = None
    fragments: bool = False
    pings: list[float] = field(default_factory=list)
    died: list[tuple[float, str]] = field(default_factory=list)
    later: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.silence = Silence(
            self, self.ping, self.call_later, self.die, lambda: self.now, with_sleep=lambda: self.now + self.slept
        )

    def delivery(self) -> Delivery | None:
        return self.kernel

    def let_fragment(self) -> None:
        self.fragments = True

    def ping(self) -> None:
        self.pings.append(self.now)
        self.said_at = self.now

    def die(self, error: LinkError) -> None:
        self.died.append((self.now, str(error)))

    def call_later(self, name: str, seconds: float, call: Callable[[], object]) -> None:
        self.later.append((self.now + seconds, call))

    def live(self, until: float) -> None:
        """Look every tick until then, or death."""
        while self.now < until and not self.died:
            self.now += TICK
            self.silence.look()


@pytest.fixture
def hole() -> Hole:
    return Hole()


def test_silence_counts_from_the_question_and_not_from_what_was_heard_last(hole: Hole) -> None:
    """An idle link that had last been heard 14 s before an outage of 30 s was given up while that lasted."""
    hole.live(14.0 + 30.0)
    assert hole.pings[0] == pytest.approx(HEARTBEAT, abs=TICK)
    assert not hole.died
    hole.heard_at = hole.now
    hole.live(hole.now + 40.0)
    assert not hole.died


def test_a_peer_that_does_not_answer_for_40_s_is_dead(hole: Hole) -> None:
    hole.live(200.0)
    ((when, why),) = hole.died
    assert when == pytest.approx(HEARTBEAT + 40.0, abs=2 * TICK)
    assert "its machine or the way there is gone" in why


def test_acknowledgments_are_a_sign_of_life_but_not_for_ever(hole: Hole) -> None:
    hole.kernel = Delivery(0, 1.0, 1260, MIB)
    hole.live(200.0)
    ((when, why),) = hole.died
    assert when == pytest.approx(HEARTBEAT + 80.0, abs=2 * TICK)
    assert "although its machine acknowledges" in why


def test_after_sleep_the_answer_is_waited_for_as_long_as_a_network_needs_to_come_back(hole: Hole) -> None:
    """After a suspend, a link whose peer was long gone was given up 40 s later."""
    hole.now, hole.slept = 1.0, 3600.0
    assert hole.silence.has_slept(6.0)
    assert not hole.silence.has_slept(6.0)
    hole.silence.expect(10.0)
    assert hole.pings == [1.0]
    ((when, judge),) = hole.later
    hole.now = when
    judge()
    assert hole.died[0][0] == 11.0


def test_a_peer_that_answers_after_sleep_is_alive(hole: Hole) -> None:
    hole.now = 1.0
    hole.silence.expect(10.0)
    hole.heard_at = 2.0
    hole.later[0][1]()
    assert not hole.died


@pytest.mark.parametrize(
    ("kernel", "path_only", "dead"),
    [
        (Delivery(0, 1.0, 1260, 300), True, False),
        (Delivery(0, 1.0, 1260, 300), False, True),
        # It was heard before it was asked.
        (Delivery(0, 9.0, 1260, 300), True, True),
        (None, True, True),
    ],
)
def test_after_a_change_of_routes_a_kernel_that_answers_is_sign_enough(
    hole: Hole, kernel: Delivery | None, path_only: bool, dead: bool
) -> None:
    """A peer whose process stood still lost its hole because an address of this machine had changed."""
    hole.now = 1.0
    hole.silence.expect(5.0, path_only=path_only)
    hole.now, hole.kernel = 6.0, kernel
    hole.later[0][1]()
    assert bool(hole.died) is dead


def test_a_segment_that_is_sent_again_and_again_may_be_cut_on_the_way(hole: Hole) -> None:
    for repeats, fragments in ((SUSPECT_AFTER - 1, False), (SUSPECT_AFTER, True)):
        hole.kernel = Delivery(repeats, 0.5, 1260, 300)
        hole.silence.look()
        assert hole.fragments is fragments


@pytest.mark.parametrize(
    ("kernel", "vanish"),
    [
        # The peer's pings arrive.
        (Delivery(SWALLOWED_AFTER, 14.0, 1280, MIB), True),
        # Nothing came any more, but only the handshake ever got through.
        (Delivery(SWALLOWED_AFTER, 38.0, 1280, 300), True),
        # An outage.
        (Delivery(SWALLOWED_AFTER, 38.0, 1280, MIB), False),
        (Delivery(SWALLOWED_AFTER - 1, 14.0, 1280, 300), False),
    ],
)
def test_packets_that_vanish_are_told_from_an_outage(hole: Hole, kernel: Delivery, vanish: bool) -> None:
    hole.kernel = kernel
    hole.silence.look()
    kernels_word = LinkError("Connection timed out")
    assert ("packets of 1280 bytes vanish" in str(hole.silence.why(kernels_word))) is vanish


def test_a_link_that_is_cut_after_a_long_silence_is_told_by_the_silence(hole: Hole) -> None:
    """The side that hears nothing through a black hole blamed the peer's process for the cut."""
    cut = LinkError("it was cut")
    hole.kernel = Delivery(0, 1.0, 1280, 300)
    hole.live(20.0)
    assert hole.silence.why(cut) is cut
    hole.live(36.0)
    assert "long packets are lost on the way here" in str(hole.silence.why(cut))
    hole.kernel = Delivery(0, 36.0, 1280, 300)
    hole.live(38.0)
    assert hole.silence.why(cut) is cut
