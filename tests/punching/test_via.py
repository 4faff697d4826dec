"""The command of --via beside a punch: when it is started, what it is told, and what is said of it."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterator

import pytest

from punchtunnel.errors import NoHoleError, UsageError
from punchtunnel.punching import via
from punchtunnel.punching.callers import DECISION_TIMEOUT, NEVER, VIA_PATIENCE, Callers, Connection
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.settings import Settings
from punchtunnel.punching.via import VIA_DELAY, Via, name_of
from punchtunnel.reporting.events import Event, ViaEnded, ViaSaid, ViaStarted
from punchtunnel.words import peer, reach

WAIT = 30.0
SECRET = b"correct-horse-battery-staple-17"


class Clock:
    """Time that stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Play:
    """One command beside a punch of which nothing else is there."""

    def __init__(self, line: str, peers: tuple[str, ...] = ()) -> None:
        self.clock = Clock()
        self.opened: list[Connection] = []
        self.told: list[Event] = []
        self.via = Via(Settings(peers, via=line), self.clock, self.opened.append, self.told.append, None)

    def end(self) -> None:
        """Take its news until it has ended."""
        while self.via.due == NEVER:
            assert select.select([self.via], [], [], WAIT)[0]
            self.via.take()

    def close(self) -> None:
        for connection in self.opened:
            connection.sock.close()
        self.via.close()


@pytest.fixture
def plays() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def test_it_waits_for_a_direct_hole_where_there_is_a_peer(plays: contextlib.ExitStack) -> None:
    play = plays.enter_context(contextlib.closing(Play("cat", ("192.0.2.1",))))
    play.via.start()
    assert not play.opened
    assert play.via.why_not() == reach.VIA_NOT_STARTED
    play.clock.now += VIA_DELAY
    play.via.start()
    (connection,) = play.opened
    assert (connection.remote, connection.via) == ("cat (--via)", True)
    assert not connection.sock.getblocking()


def test_the_secret_is_not_in_its_environment(plays: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUNCHTUNNEL_SECRET", "tiger")
    monkeypatch.setenv("OTHER", "there")
    play = plays.enter_context(contextlib.closing(Play('echo "$OTHER$PUNCHTUNNEL_SECRET"')))
    play.via.start()
    play.end()
    assert play.opened[0].sock.recv(100) == b"there\n"


def test_one_that_ends_is_started_again_after_longer_and_longer_pauses_and_told_once(
    plays: contextlib.ExitStack,
) -> None:
    play = plays.enter_context(contextlib.closing(Play("echo no route >&2; exit 7")))
    pauses = []
    for _ in range(8):
        play.via.start()
        play.end()
        pauses.append(play.via.due - play.clock.now)
        play.clock.now = play.via.due
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    reason = "the command of --via has ended with status 7, and no hole was open: no route"
    started = ViaStarted(remote="echo (--via)")
    assert play.told == [started, ViaSaid(text="no route"), ViaEnded(status=7, reason=reason)]
    assert play.via.why_not() == reason
    play.via.start_over()
    assert play.via.due == play.clock.now


def test_one_that_has_run_for_long_is_started_again_soon(plays: contextlib.ExitStack) -> None:
    play = plays.enter_context(contextlib.closing(Play("cat")))
    for _ in range(3):
        play.via.start()
        play.clock.now += via.LONGEST_PAUSE + 1
        play.opened[-1].sock.shutdown(socket.SHUT_WR)
        play.end()
        assert play.via.due == play.clock.now + via.FIRST_PAUSE
        play.clock.now = play.via.due


@pytest.mark.parametrize(
    ("taken", "fault", "why"),
    [
        (0, "", reach.VIA_SILENT),
        (9, peer.STRANGER, reach.via_closed(peer.STRANGER)),
        (9, "", reach.via_closed("")),
    ],
)
def test_what_was_heard_on_a_connection_that_was_closed_is_said(
    plays: contextlib.ExitStack, taken: int, fault: str, why: str
) -> None:
    play = plays.enter_context(contextlib.closing(Play("cat")))
    play.via.start()
    (connection,) = play.opened
    connection.taken, connection.fault = taken, fault
    assert play.via.why_not() == why
    connection.sock.close()
    play.end()
    # That nobody has come is no news.
    assert play.told[1:] == ([ViaEnded(status=None, reason=why)] if taken else [])


def test_one_that_cannot_be_started_is_tried_again(
    plays: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("punchtunnel.system.command.Command", refuse)
    play = plays.enter_context(contextlib.closing(Play("cat")))
    play.via.start()
    assert play.via.due == play.clock.now + via.FIRST_PAUSE
    assert play.via.why_not() == "cannot start the command of --via: Resource temporarily unavailable"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("ssh vps nc localhost 7000", "ssh"),
        ("/usr/bin/ncat --proxy p 1.2.3.4 443", "ncat"),
        ("TOKEN='very secret' websocat wss://x", "websocat"),
        ("(cd /x; ./y)", "cd"),
        ("TOKEN=secret", "sh"),
        ("un'closed secret", "sh"),
        ("", "sh"),
    ],
)
def test_people_are_told_the_program_and_nothing_that_may_be_secret(line: str, name: str) -> None:
    assert name_of(line) == name


def test_a_peer_may_come_late_by_a_command_and_then_has_the_time_that_others_have() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        callers = Callers("192.0.2.1")
        connection = Connection(ours, "ssh (--via)", "", scheduled=False, via=True)
        callers.admit(1, connection, 0.0, 0.0)
        assert callers.next_expiry() == VIA_PATIENCE
        # Routers are asked, and addresses are dialled, as if nobody was there.
        busy = [callers.busy]
        assert callers.is_invited(1)
        assert not callers.is_known(1)
        assert callers.who(1).source == "ssh (--via)"
        connection.taken = 1
        assert [*busy, callers.busy] == [False, True]
        connection.greet(1000.0)
        connection.greet(1001.0)
        assert callers.next_expiry() == 1000.0 + DECISION_TIMEOUT


def test_without_a_peer_and_a_command_there_is_nothing_to_do() -> None:
    with pytest.raises(UsageError, match="no peer"):
        open_hole(Settings(()))


def test_a_command_alone_that_leads_to_nobody_says_so() -> None:
    with pytest.raises(NoHoleError) as caught:
        open_hole(Settings((), wait=0.2, secret=SECRET, via="cat >/dev/null"))
    assert str(caught.value) == f"no hole in 0.2 s: {reach.VIA_SILENT}"
