"""A meeting in its thread, at a fake relay on the loopback."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from random import Random

import pytest

from punchtunnel.address import Place
from punchtunnel.errors import UsageError
from punchtunnel.protocol import token
from punchtunnel.protocol.hello import Role
from punchtunnel.protocol.secret import normal
from punchtunnel.punching.helper import Helper, MeetingNews
from punchtunnel.reach.meeting import Identity, Meeting

from .test_seat import HUNG, FakeRelay, read

SECRET = normal("39dm-0teb-nmj3-k5sh-t62h-1tra-md")
NOON, MIDNIGHT = 20000.5 * token.DAY, 20001.0 * token.DAY
ME = Identity(SECRET, "", bytes(32), Role.STDIO)
NOTHING = MeetingNews()


class Shortest(Random):
    """Draws the shortest of all pauses."""

    def uniform(self, a: float, b: float) -> float:
        return min(a, b)


def news_of(helper: Helper[MeetingNews], wanted: Callable[[MeetingNews], object]) -> MeetingNews:
    """Wait for news of a kind."""
    until = time.monotonic() + HUNG
    while True:
        ready, _, _ = select.select([helper], [], [], max(0.0, until - time.monotonic()))
        assert ready, "hung"
        if wanted(news := helper.take()):
            return news


def is_met(news: MeetingNews) -> bool:
    return bool(news.met)


def descriptors() -> set[str]:
    return {f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}" for fd in os.listdir("/proc/self/fd") if _is_open(fd)}


def _is_open(fd: str) -> bool:
    with contextlib.suppress(OSError):
        return bool(os.readlink(f"/proc/self/fd/{fd}"))
    return False


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = descriptors()
    yield
    for thread in threading.enumerate():
        if thread.name in ("meeting", "relay look-up"):
            thread.join(HUNG)
            assert not thread.is_alive()
    assert descriptors() == before


@pytest.fixture
def relay() -> Iterator[FakeRelay]:
    with contextlib.closing(FakeRelay()) as relay:
        yield relay


@pytest.fixture
def meeting(relay: FakeRelay) -> Iterator[Meeting]:
    place = Place("127.0.0.1", relay.port)
    with contextlib.closing(Meeting(place, ME, wall=lambda: NOON, rng=Shortest())) as meeting:
        meeting.start()
        yield meeting


def test_what_is_met_is_handed_over_once(relay: FakeRelay, meeting: Meeting) -> None:
    conn = relay.accept(ME.request(20000))
    conn.sendall(b"ok\nhello")
    (met,) = news_of(meeting, is_met).met
    with met.sock:
        assert met.unread == b"hello"
        conn.sendall(b"more")
        met.sock.settimeout(HUNG)
        assert read(met.sock, 4) == b"more"
        assert meeting.take() == NOTHING
        meeting.close()
        met.sock.sendall(b"it stays open")
        assert read(conn, 13) == b"it stays open"


def test_again_closes_what_was_met_and_meets_anew(relay: FakeRelay, meeting: Meeting) -> None:
    line = ME.request(20000)
    for _ in range(3):
        conn = relay.accept(line)
        conn.sendall(b"ok\n")
        (met,) = news_of(meeting, is_met).met
        meeting.again(met)
        assert conn.recv(1) == b""
    meeting.again(met)
    relay.accept(line).sendall(b"ok\n")
    meeting.again(news_of(meeting, is_met).met[0])


def test_a_service_that_starts_again_meets_the_next_one_beside_the_first(relay: FakeRelay, meeting: Meeting) -> None:
    with contextlib.ExitStack() as opened:
        socks = []
        for number in range(2):
            conn = relay.accept(ME.request(20000))
            conn.sendall(b"ok\n%d" % number)
            (met,) = news_of(meeting, is_met).met
            assert met.unread == b"%d" % number
            socks.append(opened.enter_context(met.sock))
            meeting.start()
        for sock in socks:
            sock.sendall(b"it is open")


def test_start_does_not_disturb_what_waits(relay: FakeRelay, meeting: Meeting) -> None:
    conn = relay.accept(ME.request(20000))
    meeting.start()
    conn.sendall(b"ok\n")
    with news_of(meeting, is_met).met[0].sock:
        relay.server.setblocking(False)
        with pytest.raises(BlockingIOError):
            relay.server.accept()


def test_trouble_is_told_and_is_over_when_the_relay_is_back(relay: FakeRelay, meeting: Meeting) -> None:
    relay.accept(ME.request(20000)).sendall(b"bad handshake\n")
    news = news_of(meeting, lambda news: news.trouble)
    assert "does not understand" in news.trouble
    assert news.met == ()
    conn = relay.accept(ME.request(20000))
    news_of(meeting, lambda news: not news.trouble)
    conn.sendall(b"ok\n")
    with news_of(meeting, is_met).met[0].sock:
        pass


def test_around_midnight_both_tokens_are_used_and_the_peer_can_be_met_twice(relay: FakeRelay) -> None:
    place = Place("127.0.0.1", relay.port)
    with contextlib.closing(Meeting(place, ME, wall=lambda: MIDNIGHT)) as meeting:
        meeting.start()
        conns = [relay.server.accept()[0] for _ in range(2)]
        relay.conns += conns
        lines = {read(conn, 104) for conn in conns}
        assert lines == {ME.request(20000), ME.request(20001)}
        for conn in conns:
            conn.sendall(b"ok\n")
        socks: list[socket.socket] = []
        while len(socks) < 2:
            socks += [met.sock for met in news_of(meeting, is_met).met]
        for sock in socks:
            sock.close()


def test_the_next_day_has_its_own_connection_and_yesterdays_is_closed(relay: FakeRelay) -> None:
    wall = NOON
    place = Place("127.0.0.1", relay.port)
    with contextlib.closing(Meeting(place, ME, wall=lambda: wall)) as meeting:
        meeting.start()
        yesterday = relay.accept(ME.request(20000))
        wall += token.DAY
        # The clock is looked at whenever the thread wakes.
        meeting.start()
        relay.accept(ME.request(20001))
        assert yesterday.recv(1) == b""


def test_close_closes_what_nobody_has_taken(relay: FakeRelay, meeting: Meeting) -> None:
    conn = relay.accept(ME.request(20000))
    conn.sendall(b"ok\n")
    assert select.select([meeting], [], [], HUNG)[0]
    meeting.close()
    meeting.close()
    assert conn.recv(1) == b""


@pytest.mark.parametrize("running", [False, True])
def test_close_waits_for_no_look_up_that_hangs(running: bool) -> None:
    asked, hangs = threading.Event(), threading.Event()

    def look_up(*_: object) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        asked.set()
        assert hangs.wait(HUNG)
        return []

    meeting = Meeting(Place("relay.example", 4001), ME, look_up=look_up)
    if running:
        meeting.start()
        assert asked.wait(HUNG)
    meeting.close()
    meeting.start()
    hangs.set()


@pytest.mark.parametrize("secret", [b"", b"open sesame"])
def test_a_secret_that_can_be_guessed_meets_nobody(secret: bytes) -> None:
    with pytest.raises(UsageError, match="to meet with"):
        Meeting(Place("127.0.0.1", 1), Identity(secret, "", bytes(32), Role.STDIO))


def test_nothing_that_is_printed_has_the_secret_in_it() -> None:
    assert SECRET.decode() not in repr(ME)
