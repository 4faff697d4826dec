"""While a session looks for its next hole: signals, strangers, and a peer that was started anew."""

from __future__ import annotations

import signal

import pytest

from punchtunnel import words

from .cuts import Storm, needs_descriptors_of_others
from .ends import End, Lab
from .test_sealed import OTHER, SECRET, knowing


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: only a sealed session goes on."""
    needs_descriptors_of_others()
    return []


def left_alone(lab: Lab, *options: str, secret: str = SECRET) -> End:
    """Return the left end of a session whose right end was killed."""
    left = lab.start_left(*options, shell=knowing(secret))
    right = lab.start_right(shell=knowing(secret))
    for end in (left, right):
        end.wait_for("link_up")
    right.send(b"on its way")
    assert left.receive(10) == b"on its way"
    right.process.kill()
    right.process.wait(30)
    left.wait_for("lost")
    return left


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_at_once(lab: Lab, number: int, status: int) -> None:
    left = left_alone(lab)
    left.process.send_signal(number)
    assert left.status(wait=10) == status


def test_sighup_of_a_service_only_hurries_it(lab: Lab) -> None:
    left = left_alone(lab, "-k", "--recv-only")
    left.process.send_signal(signal.SIGHUP)
    left.wait_for("trying_now")
    assert not left.find("link_ended")
    left.process.send_signal(signal.SIGTERM)
    assert left.status() == 143


def test_nobody_comes_back_in_time(lab: Lab) -> None:
    left = left_alone(lab, "--resume", "1")
    assert left.status() == 1
    assert "no other connection could be made in 1 s" in left.reason


@pytest.mark.exhaustive
def test_idleness_ends_it(lab: Lab) -> None:
    left = left_alone(lab, "-i", "1")
    assert left.status() == 1
    assert left.reason.startswith("nothing was sent or received for 1 s")


def test_a_peer_that_was_started_anew_ends_the_session_at_once(lab: Lab) -> None:
    left = left_alone(lab)
    right = lab.start_right(shell=knowing(SECRET))
    assert left.status() == 1
    assert left.reason.startswith(words.PEER_RESTARTED)
    right.wait_for("punching_again")


def test_a_service_serves_a_peer_that_was_started_anew(lab: Lab) -> None:
    left = left_alone(lab, "-k", "--recv-only")
    right = lab.start_right(shell=knowing(SECRET))
    left.wait_for("link_up", 2)
    right.send(b"again")
    assert left.receive(5) == b"again"
    assert left.find("link_ended")[0]["reason"].startswith(words.PEER_RESTARTED)
    left.process.send_signal(signal.SIGTERM)
    assert left.status() == 143
    assert right.status() == 1


@pytest.mark.parametrize(("mine", "theirs"), [(SECRET, OTHER), (SECRET, ""), ("", "")])
def test_a_stranger_at_the_address_of_the_peer_takes_nothing_over(lab: Lab, mine: str, theirs: str) -> None:
    """It comes first to the next hole; then the true peer comes back."""
    left = lab.start_left(shell=knowing(mine))
    right = lab.start_right(shell=knowing(mine))
    for end in (left, right):
        end.wait_for("link_up")
    right.process.send_signal(signal.SIGSTOP)
    Storm(lab, (left,), 1).strike()
    left.wait_for("lost")
    # It has no secret, or claims no session.
    stranger = lab.start_right(shell=knowing(theirs))
    stranger.wait_for("opened")
    left.send(b"for the peer alone")
    right.process.send_signal(signal.SIGCONT)
    left.wait_for("resumed")
    assert right.receive(18) == b"for the peer alone"
    assert not stranger.find("link_up")
    stranger.process.kill()
    for end in (left, right):
        end.send_eof()
    assert (left.status(), right.status()) == (0, 0)
