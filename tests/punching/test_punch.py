"""Punching over loopback: two loops in two threads, real sockets, no namespaces."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

import punchtunnel
from punchtunnel import words
from punchtunnel.errors import LocalError, NoHoleError, RejectedError, SignalError, UsageError
from punchtunnel.protocol import schedule
from punchtunnel.protocol.election import ACCEPT, PICK
from punchtunnel.protocol.hello import HELLO_SIZE, MAGIC, Hello, Role, Trait
from punchtunnel.punching import callers, warmup, whereabouts
from punchtunnel.punching.callers import Connection
from punchtunnel.punching.candidates import Fate
from punchtunnel.punching.dialler import Dialler
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.punching.listeners import Listeners
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.resolver import Answer, Resolver
from punchtunnel.punching.rota import MAX_ADDRESSES
from punchtunnel.punching.settings import Settings
from punchtunnel.punching.strategy import ScheduledPorts
from punchtunnel.punching.whereabouts import Whereabouts
from punchtunnel.reporting.events import (
    AddressesLeftOut,
    DialFailed,
    Event,
    ForeignDial,
    HoleOpened,
    LookingUpAgain,
    TryingNow,
    Waiting,
    unreported,
)
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address
from punchtunnel.system.signals import Wake

A, B = "127.0.0.1", "127.0.0.2"
# Long enough for a busy machine; a test that needs so long is hung.
LONG = 30.0


def settings(peer: str, bind: str | None, channel: str, wait: float = LONG, role: Role = Role.RAW) -> Settings:
    return Settings([peer], channel=channel, wait=wait, bind=bind, role=role)


@pytest.fixture
def channel() -> str:
    return f"test {os.urandom(8).hex()}"


@pytest.fixture
def two() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def both(pool: ThreadPoolExecutor, first: Callable[[], Hole], second: Callable[[], Hole]) -> tuple[Hole, Hole]:
    one, other = pool.submit(first), pool.submit(second)
    return one.result(LONG), other.result(LONG)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def check_pair(one: Hole, other: Hole) -> None:
    with one.sock, other.sock:
        assert one.sock.getpeername() == other.sock.getsockname()
        assert one.leads != other.leads
        one.sock.sendall(b"ping")
        assert other.unread + other.sock.recv(4) == b"ping"
        other.sock.sendall(b"pong")
        assert one.unread + one.sock.recv(4) == b"pong"


def test_two_addresses_meet_by_simultaneous_open(two: ThreadPoolExecutor, channel: str) -> None:
    check_pair(
        *both(
            two,
            lambda: open_hole(settings(B, A, channel)),
            lambda: open_hole(settings(A, B, channel)),
        )
    )


def test_one_machine_meets_itself_through_pairs_of_ports(two: ThreadPoolExecutor, channel: str) -> None:
    check_pair(*both(two, lambda: open_hole(settings(A, None, channel)), lambda: open_hole(settings(A, None, channel))))


def test_different_own_addresses_still_mean_the_same_machine(two: ThreadPoolExecutor, channel: str) -> None:
    check_pair(*both(two, lambda: open_hole(settings(A, None, channel)), lambda: open_hole(settings(B, None, channel))))


def test_ipv6_meets(two: ThreadPoolExecutor, channel: str) -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    check_pair(
        *both(two, lambda: open_hole(settings("::1", None, channel)), lambda: open_hole(settings("::1", None, channel)))
    )


def test_library_call_returns_a_blocking_socket(two: ThreadPoolExecutor, channel: str) -> None:
    one, other = both(
        two,
        lambda: punchtunnel.punch(A, channel=channel, wait=LONG),
        lambda: punchtunnel.punch(A, channel=channel, wait=LONG),
    )
    assert one.sock.getblocking()
    assert other.sock.getblocking()
    check_pair(one, other)


def test_clocks_that_differ_by_hours_meet_on_the_ports_without_a_clock(two: ThreadPoolExecutor, channel: str) -> None:
    check_pair(
        *both(
            two,
            lambda: open_hole(settings(B, A, channel), clock=lambda: 1e9),
            lambda: open_hole(settings(A, B, channel), clock=lambda: 1e9 + 9000),
        )
    )


def test_bucket_border_crossed_while_waiting_does_not_matter(two: ThreadPoolExecutor, channel: str) -> None:
    border = schedule.next_change(1e9)
    waiting = threading.Event()
    steps = iter([border - 0.5] * 2)

    def clock() -> float:
        waiting.set()
        return next(steps, border + 0.5)

    def late() -> Hole:
        assert waiting.wait(LONG)
        return open_hole(settings(A, B, channel), clock=lambda: border + 49)

    check_pair(*both(two, lambda: open_hole(settings(B, A, channel), clock=clock), late))


def test_everything_but_the_winner_is_closed(two: ThreadPoolExecutor, channel: str) -> None:
    before = descriptors()
    one, other = both(two, lambda: open_hole(settings(B, A, channel)), lambda: open_hole(settings(A, B, channel)))
    one.sock.close()
    other.sock.close()
    assert descriptors() == before


def test_nothing_is_left_open_when_there_is_no_hole(channel: str) -> None:
    before = descriptors()
    with pytest.raises(NoHoleError, match="refused at once"):
        open_hole(settings(B, A, channel, wait=0.3))
    assert descriptors() == before


def test_ten_runs_in_a_row_find_no_port_in_time_wait(two: ThreadPoolExecutor, channel: str) -> None:
    for _ in range(10):
        one, other = both(two, lambda: open_hole(settings(B, A, channel)), lambda: open_hole(settings(A, B, channel)))
        check_pair(one, other)


def test_roles_that_do_not_fit_are_the_verdict_of_both_sides(two: ThreadPoolExecutor, channel: str) -> None:
    ends = [
        two.submit(open_hole, settings(B, A, channel, wait=2.0, role=Role.LISTEN)),
        two.submit(open_hole, settings(A, B, channel, wait=2.0, role=Role.LISTEN)),
    ]
    for end in ends:
        with pytest.raises(RejectedError, match="both sides listen"):
            end.result(LONG)


def misfits(channel: str) -> dict[str, tuple[bytes, str]]:
    """Return hellos that cannot be linked to, and what is said of each."""
    fits = bytearray(Hello(bytes(16), schedule.channel_tag(channel), Role.RAW).encode())

    def changed(place: int, value: int) -> bytes:
        return bytes(fits[:place] + bytes([value]) + fits[place + 1 :])

    return {
        "version": (changed(8, 7), "version 7"),
        "no role": (changed(9, 0), "roles do not fit"),
        "plain": (changed(10, Trait.PLAIN), "--plain"),
        "all bits": (changed(9, 255)[:10] + b"\xff" + changed(9, 255)[11:], "--plain"),
    }


MISFITS = pytest.mark.parametrize("kind", ["version", "no role", "plain", "all bits"])


@MISFITS
def test_a_hello_that_cannot_be_linked_to_is_the_verdict_if_no_other_comes(
    two: ThreadPoolExecutor, channel: str, kind: str
) -> None:
    said, sentence = misfits(channel)[kind]
    end = two.submit(open_hole, settings(B, A, channel, wait=2.0))
    with dial_first_port(channel, source=B) as sock:
        sock.sendall(said)
        with pytest.raises(RejectedError, match=sentence):
            end.result(LONG)


@MISFITS
def test_a_hello_that_cannot_be_linked_to_does_not_keep_the_peer_out(
    two: ThreadPoolExecutor, channel: str, kind: str
) -> None:
    """36 bytes from the peer's address ended a waiting run; without a secret anybody there can say them."""
    end = two.submit(open_hole, settings(B, A, channel))
    for _ in range(3):
        with dial_first_port(channel, source=B) as sock:
            sock.sendall(misfits(channel)[kind][0])
            sock.settimeout(LONG)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(4096):
                    pass
    other = two.submit(open_hole, settings(A, B, channel))
    check_pair(end.result(LONG), other.result(LONG))


def test_with_a_secret_an_unknown_address_hears_nothing_before_its_hello_has_our_tag(
    two: ThreadPoolExecutor, channel: str
) -> None:
    """Everybody who connected to a port was given our hello, with the channel's tag to test guesses of its name."""
    end = two.submit(open_hole, replace(settings(B, A, channel, wait=3.0), secret=b"tiger"))
    tag = schedule.channel_tag(channel)
    for said, answered in ((b"otherone", False), (tag, True)):
        with dial_first_port(channel, source="127.0.0.3") as stranger:
            stranger.settimeout(LONG)
            stranger.sendall(Hello(bytes(16), said, Role.RAW, Trait.PLAIN).encode())
            heard = b""
            with contextlib.suppress(ConnectionResetError):
                while data := stranger.recv(4096):
                    heard += data
            assert heard.startswith(MAGIC) is answered
            assert bool(heard) is answered
    with dial_first_port(channel, source=B) as known:
        known.settimeout(LONG)
        assert known.recv(HELLO_SIZE, socket.MSG_WAITALL).startswith(MAGIC), "the peer's own address is greeted at once"
    with pytest.raises(NoHoleError):
        end.result(LONG)


@contextlib.contextmanager
def dial_first_port(channel: str, source: str, port: int | None = None) -> Iterator[socket.socket]:
    """Connect to a listener of the puncher on A, from any port of `source`."""
    port = port or schedule.bucket_ports(channel, schedule.CLOCK_FREE, 1)[0]
    deadline = time.monotonic() + LONG
    while True:
        sock = socket.socket()
        try:
            sock.bind((source, 0))
            sock.connect((A, port))
            break
        except ConnectionRefusedError:
            sock.close()
            assert time.monotonic() < deadline
    with sock:
        yield sock


STRANGERS = {
    "silent": b"",
    "web browser": b"GET / HTTP/1.1\r\n\r\n",
    "half a hello": Hello(bytes(16), bytes(8), Role.STDIO).encode()[: len(MAGIC) + 2],
    "another channel": Hello(os.urandom(16), b"otherone", Role.RAW).encode(),
    "hello and garbage": b"",
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_stranger_costs_only_its_own_connection(two: ThreadPoolExecutor, channel: str, kind: str) -> None:
    said = STRANGERS[kind]
    if kind == "hello and garbage":
        said = Hello(bytes(16), schedule.channel_tag(channel), Role.RAW).encode() + b"PICNIC"
    end = two.submit(open_hole, settings(B, A, channel))
    with dial_first_port(channel, source=B) as stranger:
        stranger.sendall(said)
        if said and kind != "half a hello":
            stranger.settimeout(LONG)
            with contextlib.suppress(ConnectionResetError):
                while stranger.recv(4096):
                    pass
        other = two.submit(open_hole, settings(A, B, channel))
        check_pair(end.result(LONG), other.result(LONG))


def test_every_port_is_dialled_once_more_before_a_word_to_the_peer(two: ThreadPoolExecutor, channel: str) -> None:
    """What was left half-way used to spoil its port for the next run, in the routers of both sides."""
    failed = threading.Semaphore(0)

    def report(event: Event) -> None:
        if isinstance(event, DialFailed):
            failed.release()

    plain = replace(settings(B, A, channel), traits=Trait.PLAIN)
    first, second = schedule.bucket_ports(channel, schedule.CLOCK_FREE, 2)
    with socket.create_server((B, first)) as at_once:
        # No wait ends on a clock that stands still.
        end = two.submit(open_hole, plain, lambda: 1e9, lambda: 0.0, nonce=b"a" * 16, report=report)
        sock, _ = at_once.accept()
        for _ in range(len(schedule.ports_of(channel, schedule.current_buckets(1e9), schedule.PortCounts())) - 1):
            assert failed.acquire(timeout=LONG)
        with sock, socket.create_server((B, second)) as later:
            sock.sendall(Hello(b"b" * 16, schedule.channel_tag(channel), Role.RAW, Trait.PLAIN).encode() + PICK)
            assert sock.recv(HELLO_SIZE + len(ACCEPT), socket.MSG_WAITALL).endswith(ACCEPT)
            later.setblocking(False)
            later.accept()[0].close()
            end.result(LONG).sock.close()


def test_hello_is_said_while_the_ciphers_are_still_being_loaded(
    two: ThreadPoolExecutor, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow machine that took a second, in which the peer gave up every connection."""
    loaded = threading.Event()
    monkeypatch.setattr(warmup, "preload", lambda: loaded.wait(LONG))
    end = two.submit(open_hole, settings(B, A, channel))
    try:
        with dial_first_port(channel, source=B) as sock:
            sock.settimeout(LONG)
            assert sock.recv(HELLO_SIZE, socket.MSG_WAITALL).startswith(MAGIC)
    finally:
        loaded.set()
    other = two.submit(open_hole, settings(A, B, channel))
    check_pair(end.result(LONG), other.result(LONG))


def test_what_comes_behind_is_loaded_while_the_peer_is_waited_for(two: ThreadPoolExecutor, channel: str) -> None:
    """On one host the first comer has nobody to dial; it loaded the ciphers only when the peer was there."""
    loaded = threading.Event()
    end = two.submit(open_hole, settings(A, None, channel), meanwhile=loaded.set)
    assert loaded.wait(LONG)
    check_pair(two.submit(open_hole, settings(A, None, channel)).result(LONG), end.result(LONG))


def test_the_side_that_was_there_first_leads(two: ThreadPoolExecutor, channel: str) -> None:
    waiting = threading.Event()

    def report(event: Event) -> None:
        if isinstance(event, Waiting):
            waiting.set()

    # An hour passes behind that.
    first = two.submit(
        open_hole,
        settings(B, A, channel, wait=0),
        monotonic=lambda: time.monotonic() + 3600 * waiting.is_set(),
        report=report,
    )
    assert waiting.wait(LONG)
    later = two.submit(open_hole, settings(A, B, channel))
    one, other = first.result(LONG), later.result(LONG)
    assert one.leads
    check_pair(one, other)


@pytest.mark.parametrize(
    ("estimated", "answered", "told"),
    [(0.3, 0.31, 0.3), (0.19, 0.31, 0.31), (0.0, 0.31, 0.31), (0.0001, 0.009, 0.0001), (0.04, 0.05, 0.04)],
    ids=["right", "crossed", "unknown", "same host", "slow computing"],
)
def test_round_trip_is_not_what_crossing_syns_make_of_it(
    tcp_pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    estimated: float,
    answered: float,
    told: float,
) -> None:
    monkeypatch.setattr(tcp, "round_trip", lambda _: estimated)
    assert Connection(tcp_pair[0], "", "", scheduled=True, answered=answered).round_trip == told


def test_hole_knows_how_long_the_agreement_took(
    two: ThreadPoolExecutor, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both sides, also where the kernel knows nothing."""
    monkeypatch.setattr(tcp, "round_trip", lambda _: 0.0)
    monkeypatch.setattr(callers, "COMPUTING", 0.0)
    found: list[object] = []

    def report(event: Event) -> None:
        if isinstance(event, HoleOpened):
            found.append(event.rtt_s)

    ends = [two.submit(open_hole, settings(*way, channel), report=report) for way in ((A, B), (B, A))]
    check_pair(*(end.result(LONG) for end in ends))
    assert len(found) == 2
    assert all(isinstance(rtt, float) and 0 < rtt < LONG for rtt in found)


@pytest.mark.exhaustive
def test_seventy_silent_strangers_do_not_keep_the_peer_out(two: ThreadPoolExecutor, channel: str) -> None:
    """There is room for 64 connections that are not decided."""
    end = two.submit(open_hole, settings(B, A, channel))
    with contextlib.ExitStack() as crowd:
        for _ in range(70):
            crowd.enter_context(dial_first_port(channel, source=B))
        check_pair(two.submit(open_hole, settings(A, B, channel)).result(LONG), end.result(LONG))


def test_caller_from_another_address_is_turned_away(two: ThreadPoolExecutor, channel: str) -> None:
    events: list[Event] = []

    def report(event: Event) -> None:
        events.append(event)

    end = two.submit(open_hole, settings(B, A, channel), report=report)
    with dial_first_port(channel, source="127.0.0.3") as stranger:
        stranger.settimeout(LONG)
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(100) == b""
    other = two.submit(open_hole, settings(A, B, channel))
    check_pair(end.result(LONG), other.result(LONG))
    assert any(isinstance(event, ForeignDial) for event in events)


def test_busy_local_ports_are_skipped(two: ThreadPoolExecutor, channel: str) -> None:
    now = time.time()
    taken = schedule.ports_of(channel, schedule.current_buckets(now), schedule.PortCounts())[:15]
    with contextlib.ExitStack() as stack:
        for port in taken:
            stack.enter_context(socket.create_server((A, port)))
        one, other = both(
            two,
            lambda: open_hole(settings(B, A, channel), clock=lambda: now),
            lambda: open_hole(settings(A, B, channel), clock=lambda: now),
        )
        check_pair(one, other)


def test_all_ports_busy_is_a_local_error_at_once(channel: str) -> None:
    now = time.time()
    with contextlib.ExitStack() as stack:
        for port in schedule.ports_of(channel, schedule.current_buckets(now), schedule.PortCounts()):
            stack.enter_context(socket.create_server((A, port)))
        with pytest.raises(LocalError, match="--channel"):
            open_hole(settings(B, A, channel), clock=lambda: now)


def test_foreign_bind_address_is_a_local_error() -> None:
    with pytest.raises(LocalError, match="not an address of this machine"):
        open_hole(settings(B, "192.0.2.1", ""))


def test_name_without_an_address_is_refused_at_once() -> None:
    with pytest.raises(UsageError, match="cannot be resolved"):
        open_hole(settings("no-such-host.invalid", None, ""))


class LateName:
    """A stand-in for getaddrinfo: the name fails so often before it is this machine."""

    def __init__(self, error: int, failures: int) -> None:
        self._error, self._failures = error, failures

    def resolver(self, peers: list[str], *rest: object, **named: object) -> Resolver:
        return Resolver(peers, look_up=self if peers == ["home"] else socket.getaddrinfo)

    def __call__(self, *_: object) -> list[tuple[int, int, int, str, tuple[object, ...]]]:
        if self._failures:
            self._failures -= 1
            raise socket.gaierror(self._error, "it failed")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (A, 0))]


@pytest.mark.parametrize(
    ("error", "keep"), [(socket.EAI_AGAIN, False), (socket.EAI_AGAIN, True), (socket.EAI_NONAME, True)]
)
def test_a_name_that_fails_at_first_is_said_once_and_looked_up_again(
    error: int, keep: bool, two: ThreadPoolExecutor, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service whose name was not there yet ended with 2, and its unit did not start it again."""
    monkeypatch.setattr(whereabouts, "Resolver", LateName(error, 1).resolver)
    told: list[Event] = []
    named = replace(settings("home", None, channel), keep=keep)
    check_pair(
        *both(
            two,
            lambda: open_hole(named, report=told.append),
            lambda: open_hole(settings(A, None, channel)),
        )
    )
    assert [event for event in told if isinstance(event, LookingUpAgain)] == [
        LookingUpAgain(words.unresolved("home", "it failed"))
    ]


def test_a_refresh_that_gets_no_thread_keeps_the_address(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise LocalError(words.NO_THREAD)

    monkeypatch.setattr(Resolver, "start", refuse)
    told: list[Event] = []
    with pytest.raises(NoHoleError, match="nobody came"):
        open_hole(replace(settings(A, None, channel, wait=0.3), peers=[A, "home"]), report=told.append)
    assert LookingUpAgain(words.NO_THREAD) in told
    with pytest.raises(LocalError, match="ulimit -u"):
        open_hole(settings("home", None, channel))


def test_addresses_that_are_left_out_are_told_once(channel: str) -> None:
    """The ninth address of a name was never tried, and nothing said so."""
    told: list[Event] = []
    where = Whereabouts(settings("198.51.100.1", None, channel), told.append, dict)
    found = tuple(Address(socket.AF_INET, f"198.51.100.{number}") for number in range(MAX_ADDRESSES + 3))
    with contextlib.closing(where.resolver):
        for _ in range(2):
            where.take(0.0, Answer(found))
    assert told == [AddressesLeftOut(count=3, total=MAX_ADDRESSES + 3)]
    assert where.addresses == found[:MAX_ADDRESSES]


def test_name_is_looked_up_and_punched(two: ThreadPoolExecutor, channel: str) -> None:
    check_pair(
        *both(
            two,
            lambda: open_hole(settings("localhost", None, channel)),
            lambda: open_hole(settings(A, None, channel)),
        )
    )


def test_every_failed_dial_is_counted(channel: str) -> None:
    counts: list[Counts] = []

    def report(event: Event) -> None:
        if isinstance(event, DialFailed):
            counts.append(Counts())

    with pytest.raises(NoHoleError) as caught:
        open_hole(settings(B, A, channel, wait=0.5), rng=random.Random(1), report=report)
    dials = int(str(caught.value).split(": ")[1].split()[0])
    assert dials == len(counts) > 20


def dialler_alone(
    channel: str, bind: str | None, selector: selectors.BaseSelector, monotonic: Callable[[], float], counts: Counts
) -> Dialler:
    listeners = Listeners(selector, counts, unreported, lambda _: None, open_to_all=False)
    strategy = ScheduledPorts(channel, random.Random(1), monotonic())
    return Dialler(
        Settings([], channel, bind=bind), strategy, listeners, selector, monotonic, counts, unreported, lambda _: None
    )


def test_family_that_cannot_be_bound_does_not_end_the_other(channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many busy places of one family as there are ports ended the punch of both."""
    real = socket.socket

    def without_ipv6(family: int = -1, *arguments: int, **more: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6")
        return real(family, *arguments, **more)

    monkeypatch.setattr(socket, "socket", without_ipv6)
    with selectors.DefaultSelector() as selector:
        dialler = dialler_alone(channel, None, selector, time.monotonic, Counts())
        both_families = (Address(socket.AF_INET, B), Address(socket.AF_INET6, "::1"))
        dialler.plan(both_families, 1e9)
        dialler.start_due()
        assert dialler.fates()[Fate.PENDING]
        dialler.close()


@contextlib.contextmanager
def full_queue(host: str, port: int) -> Iterator[None]:
    """Listen so that no SYN is answered: the kernel drops it while the queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(2):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((host, port))
        yield


def test_starting_over_dials_what_waits_and_what_nobody_has_answered(channel: str) -> None:
    now = 1000.0
    counts = Counts()
    silent = schedule.bucket_ports(channel, schedule.CLOCK_FREE, 1)[0]
    with selectors.DefaultSelector() as selector, full_queue(B, silent):
        dialler = dialler_alone(channel, A, selector, lambda: now, counts)
        dialler.plan((Address(socket.AF_INET, B),), 1e9)
        dialler.start_due()
        while counts.failed[Fate.REFUSED] < len(dialler.ports) - 1:
            for key, _ in selector.select(LONG):
                key.data()
        assert dialler.fates() == {Fate.REFUSED: len(dialler.ports) - 1, Fate.PENDING: 1}
        dialled = counts.dials
        dialler.start_due()
        assert counts.dials == dialled
        dialler.start_over()
        dialler.start_due()
        assert counts.dials == dialled + len(dialler.ports)
        dialler.close()


def test_being_told_to_try_now_starts_over_and_the_end_still_ends(two: ThreadPoolExecutor, channel: str) -> None:
    class TryNow(Wake):
        def means_try_now(self, number: int) -> bool:
            return number == signal.SIGHUP

    told = threading.Event()

    def report(event: Event) -> None:
        if isinstance(event, TryingNow):
            assert event.what == "dialling every port anew"
            told.set()

    with TryNow() as wake:
        end = two.submit(open_hole, settings(B, A, channel), report=report, signals=wake)
        wake.note(signal.SIGHUP)
        assert told.wait(LONG)
        wake.note(signal.SIGTERM)
        with pytest.raises(SignalError):
            end.result(LONG)
