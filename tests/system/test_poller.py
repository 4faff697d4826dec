"""Readiness is told to whoever it belongs to."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from punchtunnel.system.poller import HANG_UP, LONGEST_SPIN, READ, SHORT_WAIT, SHORT_WAITS, URGENT, WRITE, Poller

READABLE, WRITABLE = READ & ~(HANG_UP | URGENT), WRITE & ~READ


def test_an_event_is_not_told_to_the_next_owner_of_a_number() -> None:
    """One batch has events of two sockets; whose turn comes first closes the other, and a new one gets its number."""

    async def case() -> None:
        poller = Poller(asyncio.get_running_loop())
        pairs = [socket.socketpair() for _ in range(2)]
        told: asyncio.Queue[int] = asyncio.Queue()
        owners = {ours.fileno(): ours for ours, _ in pairs}

        def on_event(fd: int) -> None:
            if len(owners) < 2:
                return
            del owners[fd]
            (other,) = owners.values()
            number = other.fileno()
            poller.unregister(number)
            other.close()
            new = socket.socket()
            assert new.fileno() == number
            poller.register(number, told.put_nowait)
            owners[number] = new

        def register(ours: socket.socket) -> None:
            fd = ours.fileno()
            poller.register(fd, lambda _: on_event(fd))

        try:
            for ours, _ in pairs:
                register(ours)
            # What is told first is its own: a socket without a connection has hung up, the old one could be written.
            assert await told.get() & HANG_UP
        finally:
            poller.close()
            for ours, theirs in pairs:
                ours.close()
                theirs.close()
            for owner in owners.values():
                owner.close()

    asyncio.run(asyncio.wait_for(case(), 30))


def test_what_is_possible_is_told_once() -> None:
    async def case() -> None:
        poller = Poller(asyncio.get_running_loop())
        ours, theirs = socket.socketpair()
        told: asyncio.Queue[int] = asyncio.Queue()
        try:
            poller.register(ours.fileno(), told.put_nowait)
            assert await told.get() == WRITABLE
            theirs.send(b"!")
            assert await told.get() == READABLE | WRITABLE
            theirs.close()
            events = await told.get()
            assert events & READ
            assert events & HANG_UP
            for _ in range(10):
                await asyncio.sleep(0)
            assert told.empty()
        finally:
            poller.close()
            ours.close()
            theirs.close()

    asyncio.run(asyncio.wait_for(case(), 30))


def test_room_is_told_only_to_whoever_has_asked_for_it() -> None:
    async def case() -> None:
        poller = Poller(asyncio.get_running_loop())
        ours, theirs = socket.socketpair()
        told: asyncio.Queue[int] = asyncio.Queue()
        try:
            poller.register(ours.fileno(), told.put_nowait, writing=False)
            theirs.send(b"!")
            assert await told.get() == READABLE
            poller.watch_writing(ours.fileno())
            assert await told.get() & WRITABLE
            poller.unregister(ours.fileno())
            poller.watch_writing(ours.fileno())
        finally:
            poller.close()
            ours.close()
            theirs.close()

    asyncio.run(asyncio.wait_for(case(), 30))


def test_what_is_forgotten_and_closed_is_told_of_no_more() -> None:
    """Its number is the next one's."""

    async def case() -> None:
        poller = Poller(asyncio.get_running_loop())
        told: asyncio.Queue[int] = asyncio.Queue()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                poller.register(ours.fileno(), told.put_nowait)
                number = ours.fileno()
                poller.forget(number)
                ours.close()
                theirs.close()
                ours, theirs = socket.socketpair()
                assert ours.fileno() == number
                poller.register(number, told.put_nowait, writing=False)
                for _ in range(10):
                    await asyncio.sleep(0)
                assert told.empty()
                theirs.send(b"!")
                assert await told.get() == READABLE
        finally:
            poller.close()
            ours.close()
            theirs.close()

    asyncio.run(asyncio.wait_for(case(), 30))


def test_what_is_due_after_several_events_is_done_once() -> None:
    loop = ManualLoop()
    poller, done = Poller(loop), list[str]()
    pairs = [socket.socketpair() for _ in range(2)]

    def on_event(_: int) -> None:
        assert poller.is_telling
        poller.is_due = True
        done.append("event")

    poller.after = lambda: done.append("after")
    try:
        for ours, _ in pairs:
            poller.register(ours.fileno(), on_event)
        for _ in range(2):
            assert loop.callback is not None
            loop.callback()
        assert done == ["event", "event", "after"]
        assert not poller.is_telling
    finally:
        poller.close()
        for pair in pairs:
            for sock in pair:
                sock.close()


class Chat:
    """A spinning poller and a socket to which its other side writes; time passes only where it is asked for."""

    def __init__(self, *, spins: bool = True) -> None:
        self.now = 100.0
        self.step = SHORT_WAIT / 10
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.loop = ManualLoop()
        self.poller = Poller(self.loop, spins=spins, monotonic=self._tick)
        self.poller.may_spin = True
        self.told = 0
        # How many more messages come while one is being told.
        self.answers = 0
        self.on_told: Callable[[], None] = lambda: None
        self.poller.register(self.ours.fileno(), self._on_event)
        self.turn()

    def _tick(self) -> float:
        self.now += self.step
        return self.now

    def _on_event(self, events: int) -> None:
        if events & READABLE:
            self.told += len(self.ours.recv(100))
            self.on_told()
            if self.answers:
                self.answers -= 1
                self.theirs.send(b"!")

    def turn(self) -> None:
        """Let the loop find the poller readable."""
        assert self.loop.callback is not None
        self.loop.callback()

    def message(self, *, after: float = SHORT_WAIT / 2) -> float:
        """Send a message, have it told after so long a wait, and return how long the turn took."""
        self.now += after
        self.theirs.send(b"!")
        began = self.now
        self.turn()
        return self.now - began

    def warm_up(self) -> None:
        """Let the next message be the one after which it spins."""
        for _ in range(SHORT_WAITS - 1):
            self.message()

    def close(self) -> None:
        if self.loop.callback is not None:
            self.poller.close()
        self.ours.close()
        self.theirs.close()


class ManualLoop:
    """A loop of which a poller sees no more than this, and which runs nothing by itself."""

    def __init__(self) -> None:
        self.callback: Callable[[], object] | None = None

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        self.callback = callback

    def remove_reader(self, fd: int) -> bool:
        self.callback = None
        return True

    def call_soon(self, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        raise NotImplementedError

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        raise NotImplementedError


@pytest.fixture
def chat() -> Iterator[Chat]:
    chat = Chat()
    yield chat
    chat.close()


def test_what_comes_while_it_spins_is_told_in_the_same_turn(chat: Chat) -> None:
    chat.warm_up()
    told, chat.answers = chat.told, 5
    chat.message()
    assert chat.told - told == 6


def test_a_spin_for_nothing_is_short_and_the_last_for_some_time(chat: Chat) -> None:
    lengths = [chat.message() for _ in range(4 * SHORT_WAITS)]
    spins = [length >= SHORT_WAIT for length in lengths]
    assert spins[SHORT_WAITS - 1]
    assert sum(spins) == 4, "one in SHORT_WAITS"
    assert max(lengths) < 2 * SHORT_WAIT


def test_long_waits_are_slept_through(chat: Chat) -> None:
    chat.warm_up()
    assert not any(chat.message(after=1.5 * SHORT_WAIT) >= SHORT_WAIT for _ in range(3 * SHORT_WAITS))
    assert chat.message() < SHORT_WAIT, "one short wait shows nothing"


def test_connections_that_come_and_go_are_spun_for_as_well(chat: Chat) -> None:
    """One after another they waited for a process to wake up, twice as long as for everything else."""
    pairs, lengths = [], []
    try:
        for _ in range(3 * SHORT_WAITS):
            pairs.append(socket.socketpair())
            chat.poller.register(pairs[-1][0].fileno(), lambda _: None, writing=False)
            lengths.append(chat.message())
        assert lengths[0] < SHORT_WAIT <= max(lengths)
    finally:
        for ours, theirs in pairs:
            chat.poller.unregister(ours.fileno())
            ours.close()
            theirs.close()


def test_bulk_is_not_spun_for(chat: Chat) -> None:
    chat.poller.may_spin = False
    chat.warm_up()
    assert chat.message() < SHORT_WAIT


def test_a_chat_without_a_pause_leaves_the_loop_its_turns(chat: Chat) -> None:
    chat.warm_up()
    chat.answers = 10_000
    assert LONGEST_SPIN <= chat.message() < 1.1 * LONGEST_SPIN
    assert chat.answers


def test_a_programs_loop_is_never_held_up() -> None:
    chat = Chat(spins=False)
    try:
        chat.warm_up()
        told, chat.answers = chat.told, 5
        assert chat.message() == 0
        assert chat.told - told == 1
    finally:
        chat.close()


def test_a_poller_that_is_closed_by_what_it_tells_stops(chat: Chat) -> None:
    """It asked the closed descriptor, and the session ended with a traceback."""
    chat.warm_up()
    chat.on_told = chat.poller.close
    chat.message()


def test_where_a_sandbox_refuses_to_let_others_run_nobody_spins(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the process, with -k too."""

    def refuse() -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "sched_yield", refuse)
    chat.warm_up()
    assert chat.message() < SHORT_WAIT
    chat.poller.may_spin = False
    told = chat.told
    chat.message()
    assert chat.told == told + 1, "what comes is still told"
