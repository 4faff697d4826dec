"""lives.py: a mapping is there as long as it is needed, and no longer."""

from __future__ import annotations

import json
import signal
from functools import partial
from typing import Any

import pytest

from .conftest import LIMIT_SECONDS, needs_mapper, once, say
from .lives import MANY_PIECES, STORIES

pytestmark = [needs_mapper, pytest.mark.timeout(LIMIT_SECONDS + 10)]

# Seconds.  The end of a run waits 1.3 for a router; only one that hangs takes so long.
HUNG = 10.0
LEASE = 600

Seen = dict[str, Any]


@pytest.fixture
def seen(name: str, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Return what was seen in the story of this name; all that are as short are played at once."""
    short = STORIES[name].short
    names = [one for one, story in STORIES.items() if story.short is short]
    played = once(tmp_path_factory, "short lives" if short else "lives", partial(say, "lives", arguments=names))
    found: Seen = json.loads(played.read_text())[name]
    return found


def of(*names: str) -> pytest.MarkDecorator:
    """Return the mark of a test that looks at these stories."""
    marks = {name: () if STORIES[name].short else pytest.mark.exhaustive for name in names}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in names])


@of("SIGTERM while waiting", *(f"SIGTERM while waiting, {kind}" for kind in ("UPnP", "NAT-PMP", "PCP")))
def test_it_is_taken_back_when_a_run_is_told_to_end(seen: Seen) -> None:
    assert (seen["mapped"] > 0, seen["gone"], seen["status"]) == (True, True, 143)


@of("SIGTERM in a session", "SIGTERM in a session, UPnP")
def test_it_is_taken_back_when_a_session_is_told_to_end(seen: Seen) -> None:
    assert (seen["mapped"] > 0, seen["gone"], seen["status"]) == (True, True, 143)


@of("SIGINT while waiting")
def test_it_is_taken_back_after_control_c(seen: Seen) -> None:
    assert (seen["mapped"] > 0, seen["gone"], seen["status"]) == (True, True, 130)


@of("no peer comes")
def test_it_is_taken_back_when_nobody_has_come(seen: Seen) -> None:
    assert (seen["mapped"] > 0, seen["gone"], seen["status"]) == (True, True, 3)


@of("the end of both")
def test_it_is_taken_back_after_the_end_of_both(seen: Seen) -> None:
    assert (seen["mapped"] > 0, seen["gone"], seen["status"], seen["other"]) == (True, True, 0, 0)


@of("the end of the peer")
def test_it_is_taken_back_after_the_end_of_the_peer(seen: Seen) -> None:
    assert (seen["mapped"] > 0, seen["gone"], seen["status"]) == (True, True, 1)


@of("kill -9")
def test_the_killed_leave_it_for_ten_minutes_at_most(seen: Seen) -> None:
    assert seen["seconds left"] != []
    assert all(0 < seconds <= LEASE for seconds in seen["seconds left"])


@of("the daemon is gone", "the daemon stands still")
def test_a_router_that_does_not_answer_any_more_holds_up_no_end(seen: Seen) -> None:
    assert (seen["status"], seen["words"]) == (143, [])
    assert seen["seconds"] < HUNG


@of("through it")
def test_a_session_that_came_through_it_has_it_to_the_end(seen: Seen) -> None:
    assert len(seen["seen"]) > 1
    assert 0 not in seen["seen"]
    assert (seen["same"], seen["bytes"], seen["gone"]) == (True, MANY_PIECES * 65536, True)


@of("not through it", "not through it, UPnP")
def test_a_session_that_came_otherwise_gives_it_back_at_once(seen: Seen) -> None:
    assert (seen["mapped"] > 0, seen["gone"], seen["statuses"]) == (True, True, [0, 0])


@of("resumed", "resumed, UPnP", "resumed, NAT-PMP", "resumed, PCP")
def test_a_session_that_loses_its_hole_comes_back_through_it_and_keeps_it(seen: Seen) -> None:
    assert (seen["mapped"] > 0, seen["same"], seen["gone"]) == (True, True, True)


@of("forgotten, and resumed", "forgotten, and resumed, UPnP")
def test_a_session_that_loses_its_hole_after_the_router_has_forgotten_all_has_it_mapped_anew(seen: Seen) -> None:
    assert (seen["mapped"] > 0, seen["same"], seen["gone"]) == (True, True, True)


@of("a service", "a service, UPnP")
def test_a_service_keeps_it_from_peer_to_peer_and_gives_it_back_at_its_end(seen: Seen) -> None:
    assert seen["echoed"] == [True, True]
    assert 0 not in seen["between"]
    assert (seen["gone"], seen["status"]) == (True, 143)


@of("--no-map")
def test_who_is_to_map_nothing_sends_no_datagram(seen: Seen) -> None:
    unasked, asked = seen["datagrams"]
    assert (seen["statuses"], unasked, asked > 0) == ([3, 3], 0, True)


@of("one machine", "one network")
def test_peers_without_a_router_between_them_send_no_datagram_while_they_wait(seen: Seen) -> None:
    assert (seen["statuses"], seen["datagrams"]) == ([0, 0], 0)


@of("a program that closes", "a program that just ends")
def test_it_is_taken_back_at_the_end_of_a_program(seen: Seen) -> None:
    assert (seen["mapped"] > 0, seen["gone"], seen["status"], seen["words"]) == (True, True, 0, [])


@of("a program that is interrupted", "a program that is interrupted, UPnP")
def test_it_is_taken_back_when_a_program_is_interrupted(seen: Seen) -> None:
    assert (seen["mapped"] > 0, seen["gone"], seen["status"]) == (True, True, -signal.SIGINT)


@of("a program that maps nothing")
def test_a_program_that_is_to_map_nothing_asks_nobody(seen: Seen) -> None:
    assert (seen["mapped"], seen["datagrams"], seen["status"], seen["words"]) == (0, 0, 0, [])
