"""Who else calls while a punch is under way, over real sockets, and what that may cost."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from punchtunnel.protocol import schedule
from punchtunnel.protocol.agreement import MESSAGE_SIZE, TAG_SIZE, Agreement
from punchtunnel.protocol.election import ACCEPT, PICK
from punchtunnel.protocol.hello import HELLO_SIZE, VERSION, Hello, Role, Trait
from punchtunnel.punching.callers import MAX_CONNECTIONS, MOST_UNPROVED
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.rations import FREE_TRIES, Rations
from punchtunnel.reporting.events import Dropped, Event, Opened, Rejected, RejectedAgain
from punchtunnel.system import tcp

from .test_punch import LONG, A, B, channel, dial_first_port, settings, two

# Fixtures.
__all__ = ["channel", "two"]

ELSEWHERE = "127.0.0.3"
SECRET = b"tiger"


class Heard:
    """Takes the events of a punch; they can be waited for in order."""

    def __init__(self) -> None:
        self._events: queue.Queue[Event] = queue.Queue()

    def __call__(self, event: Event) -> None:
        self._events.put(event)

    def next(self, *kinds: type[Event]) -> tuple[str, str]:
        """Return the name of the next event of these kinds, and the address of whoever caused it."""
        while True:
            event = self._events.get(timeout=LONG)
            if isinstance(event, kinds):
                return event.name, str(event.fields["remote"]).rpartition(":")[0]

    def any(self, kind: type[Event]) -> list[Event]:
        """Return the events of this kind that are there now, and forget the others."""
        events = [self._events.get_nowait() for _ in range(self._events.qsize())]
        return [event for event in events if isinstance(event, kind)]


def clock_until(over: threading.Event) -> Callable[[], float]:
    """Return steady time in which every wait ends with the event."""
    return lambda: time.monotonic() + 1000 * over.is_set()


def standing_until(over: threading.Event) -> Callable[[], float]:
    """Return a clock that stands still, so that no wait ends before the event."""
    return lambda: 1000.0 * over.is_set()


def hello(channel: str, traits: Trait, nonce: bytes = b"\xff" * 16) -> bytes:
    return Hello(nonce, schedule.channel_tag(channel), Role.RAW, traits).encode()


def test_what_was_said_of_a_stranger_is_said_of_the_peer_too(two: ThreadPoolExecutor, channel: str) -> None:
    """A stranger who was rejected before it, for the same reason, kept the peer's mistake from being shown."""
    heard, over = Heard(), threading.Event()
    secret = replace(settings(B, A, channel), secret=SECRET)
    end = two.submit(open_hole, secret, monotonic=clock_until(over), report=heard)
    told = []
    try:
        for source in (ELSEWHERE, B, ELSEWHERE, B):
            with dial_first_port(channel, source) as caller:
                caller.sendall(hello(channel, Trait.PLAIN))
                told.append(heard.next(Rejected, RejectedAgain))
    finally:
        over.set()
    assert told == [("rejected", ELSEWHERE), ("rejected", B), ("rejected_again", ELSEWHERE), ("rejected_again", B)]
    assert "--plain is given on the other side but not here" in str(end.exception(LONG))


def test_no_number_of_versions_hides_another_rejection(two: ThreadPoolExecutor, channel: str) -> None:
    """Nine versions, one after another, were told one by one, and then nothing was told any more."""
    heard, over = Heard(), threading.Event()
    secret = replace(settings(B, A, channel), secret=SECRET)
    end = two.submit(open_hole, secret, monotonic=clock_until(over), report=heard)
    plain = hello(channel, Trait.PLAIN)
    told = []
    try:
        for version in range(VERSION + 1, VERSION + 11):
            with dial_first_port(channel, B) as caller:
                caller.sendall(plain[:8] + bytes([version]))
                told.append(heard.next(Rejected, RejectedAgain)[0])
        with dial_first_port(channel, B) as caller:
            caller.sendall(plain)
            told.append(heard.next(Rejected, RejectedAgain)[0])
    finally:
        over.set()
    assert told == ["rejected", *["rejected_again"] * 9, "rejected"]
    end.exception(LONG)


def take(sock: socket.socket, count: int) -> bytes:
    sock.settimeout(LONG)
    with sock.makefile("rb") as file:
        return file.read(count)


def prove(peer: socket.socket, channel: str) -> Callable[[], None]:
    """Lead a connection as the right peer; return what sends the last word."""
    agreement = Agreement(SECRET, schedule.channel_tag(channel), os.urandom)
    mine = hello(channel, Trait(0))
    peer.sendall(mine + PICK + agreement.message)
    answer = take(peer, HELLO_SIZE + len(ACCEPT) + MESSAGE_SIZE + TAG_SIZE)
    message = answer[HELLO_SIZE + len(ACCEPT) :][:MESSAGE_SIZE]
    tag = agreement.finish(message, True, mine, answer[:HELLO_SIZE]).my_tag
    return lambda: peer.sendall(tag)


@pytest.mark.parametrize("source", [B, ELSEWHERE])
def test_only_callers_from_the_peers_address_count_in_the_diagnosis(
    two: ThreadPoolExecutor, channel: str, source: str
) -> None:
    """A passer-by with another channel made us tell the user that the peer had another channel."""
    heard, over = Heard(), threading.Event()
    secret = replace(settings(B, A, channel), secret=SECRET)
    end = two.submit(open_hole, secret, monotonic=standing_until(over), report=heard)
    try:
        for said in (hello("x", Trait(0)), b"GET / HTTP/1.1\r\n\r\n"):
            with dial_first_port(channel, source) as caller:
                caller.sendall(said)
                heard.next(Dropped)
        with dial_first_port(channel, source):
            heard.next(Opened)
        with dial_first_port(channel, B) as peer:
            prove(peer, channel)()
            hole = end.result(LONG)
            hole.sock.close()
    finally:
        over.set()
    counts = hole.counts
    assert [counts.other_channel, counts.strangers, counts.mute] == [int(source == B)] * 3


@pytest.mark.parametrize(
    ("place", "says"),
    [(0, "1 were closed at once by the far end"), (-1, "refused at once: the peer is not punching yet")],
)
def test_whoever_hangs_up_where_a_punchtunnel_listens_expects_somebody_else(
    two: ThreadPoolExecutor, channel: str, place: int, says: str
) -> None:
    """Coins decided whether it was "answered but not by a punchtunnel" or "refused at once"."""
    port = schedule.bucket_ports(channel, schedule.CLOCK_FREE, schedule.CLOCK_FREE_PORTS)[place]
    over = threading.Event()
    with socket.create_server((B, port)) as server:
        server.settimeout(LONG)
        end = two.submit(open_hole, settings(B, A, channel), monotonic=clock_until(over))
        try:
            connection, _ = server.accept()
            take(connection, HELLO_SIZE)
            tcp.close_with_reset(connection)
            # It dials again when it has seen that.
            again, _ = server.accept()
        finally:
            over.set()
        with again:
            assert says in str(end.exception(LONG))


def test_a_crowd_does_not_close_the_connection_that_is_being_tried(two: ThreadPoolExecutor, channel: str) -> None:
    """Sixty-four strangers who came after it, from the peer's address, made it go."""
    heard, over = Heard(), threading.Event()
    secret = replace(settings(B, A, channel), secret=SECRET)
    end = two.submit(open_hole, secret, monotonic=standing_until(over), report=heard)
    try:
        with dial_first_port(channel, ELSEWHERE) as peer, contextlib.ExitStack() as crowd:
            say_the_last_word = prove(peer, channel)
            for _ in range(MAX_CONNECTIONS + 6):
                crowd.enter_context(dial_first_port(channel, B))
                while heard.next(Opened)[1] != B:
                    pass
            say_the_last_word()
            with end.result(LONG).sock as sock:
                assert sock.getpeername() == peer.getsockname()
    finally:
        over.set()


def test_a_try_that_the_end_of_the_punch_cuts_short_is_given_back(two: ThreadPoolExecutor, channel: str) -> None:
    """A service whose tries last would lose one to every stranger who was there when a session began."""
    over, rations = threading.Event(), Rations(lambda: 0.0)
    secret = replace(settings(B, A, channel), secret=SECRET)
    end = two.submit(open_hole, secret, monotonic=standing_until(over), rations=rations)
    try:
        with dial_first_port(channel, B) as stranger:
            stranger.sendall(hello(channel, Trait(0), nonce=bytes(16)))
            take(stranger, HELLO_SIZE + len(PICK))
            assert not rations.has(B, FREE_TRIES - 1, expected=False)
            over.set()
            end.exception(LONG)
    finally:
        over.set()
    assert rations.has(B, FREE_TRIES - 1, expected=False)


def test_no_more_than_2_kib_of_anybody_is_taken_before_the_election(two: ThreadPoolExecutor, channel: str) -> None:
    """It was 4 KiB at a time."""
    plain = replace(settings(B, A, channel), traits=Trait.PLAIN)
    end = two.submit(open_hole, plain)
    data = os.urandom(10 * MOST_UNPROVED)
    with dial_first_port(channel, B) as peer:
        peer.sendall(hello(channel, Trait.PLAIN, nonce=bytes(16)))
        # It has read the hello when it picks.
        take(peer, HELLO_SIZE + len(PICK))
        peer.sendall(ACCEPT + data)
        hole = end.result(LONG)
        with hole.sock:
            assert HELLO_SIZE + len(ACCEPT) + len(hole.unread) <= MOST_UNPROVED == 2048
            rest = take(hole.sock, len(data) - len(hole.unread))
            assert hole.unread + rest == data, "what is not taken then comes later"
