"""A session in memory: its link is a socket pair, whose other side the test plays."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from punchtunnel import words
from punchtunnel.address import Place
from punchtunnel.ends import target as target_module
from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.errors import Exit
from punchtunnel.link.carrier import Carrier
from punchtunnel.protocol.frames import Flag, Header, Kind, Reason
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.reporting.events import Event, LinkUp, StreamOpened, TargetRefused, Warned
from punchtunnel.session import pulse, roles, session, silence
from punchtunnel.session.plan import Plan
from punchtunnel.session.roles import Listener, Ports, Stdio
from punchtunnel.session.session import Session
from punchtunnel.session.silence import SWALLOWED_AFTER
from punchtunnel.system.tcp import Delivery

# A test that waits so long is hung.
LONG = 30.0
# Bytes that the kernel does not take for a client with small buffers, and a window does.
REST = 250_000


@dataclass
class Stage:
    """A session with -L, whose far side the test plays, and one client of it."""

    session: Session
    there: socket.socket
    listener: socket.socket
    client: socket.socket
    events: list[Event] = field(default_factory=list)

    def told(self, kind: type[Event]) -> list[Event]:
        return [one for one in self.events if isinstance(one, kind)]

    async def until(self, happened: Callable[[], object]) -> None:
        while not happened():  # noqa: ASYNC110 - what happens in the kernel sets no event
            await asyncio.sleep(0.01)

    async def end_the_hole(self) -> None:
        """Answer the client with more than it reads, whole, and be gone."""
        frames = Header(Kind.WINDOW, Flag.ACK, 1, 0).encode() + Header(Kind.DATA, Flag.FIN, 1, REST).encode()
        self.client.shutdown(socket.SHUT_WR)
        await asyncio.get_running_loop().sock_sendall(self.there, frames + bytes(REST))
        self.there.close()
        await self.until(lambda: self.session.parting)
        assert not self.session.ended.done(), "the kernel took everything"


@contextlib.asynccontextmanager
async def uncertain() -> AsyncIterator[tuple[Session, socket.socket, socket.socket, list[Event]]]:
    """A session of the side that had the last word of the election, its far side, a client that waits, and events."""
    here, there = socket.socketpair()
    there.setblocking(False)
    events: list[Event] = []
    with there, socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        # Of a plain link the follower, of a sealed one the leader.
        hole = Hole(here, "here", "there", b"", False, Role.TO, Trait(0), 0.0, Counts(), None, True)
        made = Session(asyncio.get_running_loop(), hole, Plan(Role.LISTEN, Ports([Listener(listener)])), events.append)
        try:
            client.connect(listener.getsockname())
            client.setblocking(False)
            made.start(hole.unread)
            yield made, there, client, events
        finally:
            made.close()


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    here, there = socket.socketpair()
    there.setblocking(False)
    events: list[Event] = []
    with there, socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        hole = Hole(here, "here", "there", b"", True, Role.TO, Trait(0), 0.0, Counts(), None, True)
        plan = Plan(Role.LISTEN, Ports([Listener(listener)]))

        def report(event: Event) -> None:
            events.append(event)

        session = Session(asyncio.get_running_loop(), hole, plan, report)
        try:
            session.start(hole.unread)
            client.connect(listener.getsockname())
            client.setblocking(False)
            made = Stage(session, there, listener, client, events)
            await made.until(lambda: made.told(StreamOpened))
            yield made
        finally:
            session.close()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[Stage], Awaitable[None]]], None]:
    def run(case: Callable[[Stage], Awaitable[None]]) -> None:
        async def staged() -> None:
            async with asyncio.timeout(LONG), stage() as made:
                await case(made)

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(staged())

    return run


async def read_all(sock: socket.socket) -> int:
    """Return the bytes until EOF."""
    total = 0
    while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
        total += len(data)
    return total


def lose_patience_after(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a session look more often, and wait less for signs of life."""
    monkeypatch.setattr(pulse, "TICK", 0.01)
    monkeypatch.setattr(pulse, "SHORTEST_TICK", 0.01)
    monkeypatch.setattr(silence, "DEAD_AFTER", seconds)


def test_a_hole_that_has_ended_takes_no_new_client(run: Any) -> None:
    """It waits in the queue for the next session, and the one that is still served ends this one."""

    async def case(stage: Stage) -> None:
        await stage.end_the_hole()
        with socket.create_connection(stage.listener.getsockname()):
            await asyncio.sleep(0)
            assert await read_all(stage.client) == REST
            outcome = await stage.session.ended
            assert (outcome.status, outcome.reason) == (Exit.LOST, words.LINK_CUT)
            assert len(stage.told(StreamOpened)) == 1
            accepted, _ = stage.listener.accept()
            accepted.close()

    run(case)


@pytest.mark.parametrize("leaves_first", [False, True])
def test_a_session_ends_with_the_last_stream_that_a_program_gives_up(run: Any, leaves_first: bool) -> None:
    """Behind the hole's end; it waited for the peer's silence to last for 40 s."""

    async def case(stage: Stage) -> None:
        await stage.end_the_hole()
        if leaves_first:
            stage.session.leave()
        stage.session.refuse(1)
        if not leaves_first:
            stage.session.leave()
        assert (await stage.session.ended).status == Exit.LOST

    run(case)


def test_silence_of_an_ended_hole_is_not_the_peers(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow reader gets what came whole, however long ago the peer was heard."""
    lose_patience_after(1.0, monkeypatch)

    async def case(stage: Stage) -> None:
        await stage.end_the_hole()
        loop, taken = asyncio.get_running_loop(), 0
        began = loop.time()
        # Twice as long as a peer may be silent.
        while loop.time() < began + 2.0:
            taken += len(await loop.sock_recv(stage.client, 2000))
            await asyncio.sleep(0.02)
        assert taken + await read_all(stage.client) == REST
        assert (await stage.session.ended).reason == words.LINK_CUT

    run(case)


def test_who_reads_nothing_does_not_keep_an_ended_hole_for_ever(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_patience_after(0.3, monkeypatch)

    async def case(stage: Stage) -> None:
        await stage.end_the_hole()
        outcome = await stage.session.ended
        assert (outcome.status, outcome.reason) == (Exit.LOST, words.unread_rest(0.3))

    run(case)


def test_a_bug_ends_the_session_with_its_traceback(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a program's own loop, whose exception handler is the program's."""

    async def case(stage: Stage) -> None:
        def broken(*_: object) -> None:
            raise KeyError("a bug")

        monkeypatch.setattr(stage.session.link._mux, "receive", broken)
        await asyncio.get_running_loop().sock_sendall(stage.there, Header(Kind.PING, Flag.SYN, 0, 1).encode())
        with pytest.raises(KeyError, match="a bug"):
            await stage.session.ended

    run(case)


def test_a_programs_loop_is_not_held_up(run: Any) -> None:
    async def case(stage: Stage) -> None:
        assert not stage.session.poller._spins

    run(case)


def connects_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every connect look as if it went to another machine: here it is mostly over within the call."""
    real = socket.socket.connect_ex

    def connect_ex(self: socket.socket, address: Any) -> int:
        return real(self, address) or errno.EALREADY

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)


@pytest.mark.parametrize("gone", [False, True])
def test_a_burst_of_streams_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch, gone: bool) -> None:
    """More than MAX_UNDER_WAY came in one turn, before any connect could be seen to be done; the rest were refused."""
    monkeypatch.setattr(target_module, "MAX_UNDER_WAY", 2)
    connects_take_their_time(monkeypatch)

    async def case() -> None:
        here, there = socket.socketpair()
        with there, socket.create_server(("127.0.0.1", 0), backlog=64) as target:
            hole = Hole(here, "here", "there", b"", True, Role.LISTEN, Trait(0), 0.0, Counts(), None, True)
            ports = Ports(targets={"": Place("127.0.0.1", target.getsockname()[1])})
            opened: list[object] = []

            def report(event: Event) -> None:
                if isinstance(event, StreamOpened):
                    opened.append(event.stream)

            session = Session(asyncio.get_running_loop(), hole, Plan(Role.TO, ports), report)
            try:
                session.start(hole.unread)
                numbers = range(2, 42, 2)
                frames = b"".join(Header(Kind.WINDOW, Flag.SYN, number, 0).encode() for number in numbers)
                if gone:
                    frames += b"".join(Header(Kind.WINDOW, Flag.RST, number, 0).encode() for number in numbers[:-1])
                there.sendall(frames)
                wanted = list(numbers[-1:] if gone else numbers)
                assert ports._connects is not None
                most = 0
                while opened != wanted:
                    await asyncio.sleep(0)
                    most = max(most, len(ports._connects._under_way))
                assert most <= 2, "the others wait"
                assert not ports._connects._queue
            finally:
                session.close()

    asyncio.run(asyncio.wait_for(case(), LONG))


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Use up every descriptor that a low limit leaves."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in spare:
            os.close(fd)


def test_that_no_descriptor_is_left_is_told_once(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "ACCEPT_PAUSE", 0.01)

    async def case(stage: Stage) -> None:
        accepts = 0
        later = stage.session.timers.later

        def counted(name: str, seconds: float, call: Callable[[], object]) -> None:
            nonlocal accepts
            accepts += name.startswith("accept") and seconds > 0
            later(name, seconds, call)

        monkeypatch.setattr(stage.session.timers, "later", counted)
        with socket.socket() as second:
            second.setblocking(False)
            with no_descriptors():
                second.connect_ex(stage.listener.getsockname())
                await stage.until(lambda: accepts > 5)
            await stage.until(lambda: len(stage.told(StreamOpened)) == 2)
        assert len(stage.told(Warned)) == 1

    run(case)


def test_the_end_of_each_further_stream_may_keep_less_in_the_kernel(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[int] = []
    real = SocketEnd.__init__

    def init(self: SocketEnd, sock: socket.socket, **given: Any) -> None:
        others.append(given["others"])
        real(self, sock, **given)

    monkeypatch.setattr(SocketEnd, "__init__", init)

    async def case(stage: Stage) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(stage.listener.getsockname())
            await stage.until(lambda: len(stage.told(StreamOpened)) == 4)
        assert others[-3:] == [1, 2, 3]

    run(case)


def test_a_listener_that_cannot_be_watched_is_told_and_tried_again(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the process with the wrong label, with -k too."""
    monkeypatch.setattr(roles, "WATCH_PAUSE", 0.01)

    async def case(stage: Stage) -> None:
        kernel = stage.session.poller._kernel
        refusals = 3

        def register(fd: int) -> None:
            nonlocal refusals
            refusals -= 1
            if refusals >= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            monkeypatch.undo()
            kernel.register(fd)

        stage.session.poller.unregister(stage.listener.fileno())
        monkeypatch.setattr(kernel, "register", register)
        stage.session._ends.begin()
        with socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(stage.listener.getsockname())
            await stage.until(lambda: len(stage.told(StreamOpened)) == 2)
        warned = stage.told(Warned)[0]
        assert isinstance(warned, Warned)
        assert "cannot watch a connection" in warned.reason

    run(case)


def test_a_connection_that_was_aborted_keeps_no_other_waiting(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was behind it in the queue waited for the next client."""
    real = socket.socket.accept

    async def case(stage: Stage) -> None:
        aborted = 0

        def accept(self: socket.socket) -> tuple[socket.socket, Any]:
            nonlocal aborted
            aborted += 1
            if aborted == 1:
                raise ConnectionAbortedError(errno.ECONNABORTED, "aborted")
            return real(self)

        monkeypatch.setattr(socket.socket, "accept", accept)
        with socket.socket() as second:
            second.setblocking(False)
            second.connect_ex(stage.listener.getsockname())
            await stage.until(lambda: len(stage.told(StreamOpened)) == 2)

    run(case)


def test_refused_streams_are_reset(run: Any) -> None:
    async def case(stage: Stage) -> None:
        reset = Header(Kind.WINDOW, Flag.RST, 1, Reason.REFUSED).encode()
        await asyncio.get_running_loop().sock_sendall(stage.there, reset)
        await stage.until(lambda: stage.told(TargetRefused))
        with pytest.raises(ConnectionResetError):
            await read_all(stage.client)

    run(case)


def test_nothing_is_begun_before_the_peer_is_known_to_be_on_the_hole() -> None:
    """The last word of the election was lost: what had been read of stdin, or of a client, went nowhere."""

    async def case() -> None:
        async with uncertain() as (made, there, _, events):
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(there, 100), "a ping"
            there.close()
            outcome = await made.ended
            assert (outcome.met, outcome.status, outcome.reason) == (False, Exit.LOST, words.NEVER_MET)
            assert not [one for one in events if isinstance(one, StreamOpened | LinkUp)]

    asyncio.run(asyncio.wait_for(case(), LONG))


def test_a_way_that_swallows_long_packets_is_named_even_if_the_peer_leaves_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both sides of -z know it after 30 s; the one that was a moment later punched on, and found nobody."""
    swallowed = Delivery(repeats=SWALLOWED_AFTER, silent_s=1.0, packet_size=1280, acknowledged=300)
    monkeypatch.setattr(Carrier, "delivery", lambda _: swallowed)

    async def case() -> None:
        async with uncertain() as (made, there, _, _):
            # As it does each second.
            made._pulse._silence.look()
            there.close()
            outcome = await made.ended
            assert (outcome.met, outcome.status, outcome.reason) == (True, Exit.LOST, words.black_hole(1280))

    asyncio.run(asyncio.wait_for(case(), LONG))


def test_a_peer_that_says_nothing_is_not_waited_for_as_long_as_one_that_was_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "MEETING_TIMEOUT", 0.05)

    async def case() -> None:
        async with uncertain() as (made, _, _, _):
            assert not (await made.ended).met

    asyncio.run(asyncio.wait_for(case(), LONG))


def test_the_first_word_of_the_peer_begins_the_session() -> None:
    async def case() -> None:
        async with uncertain() as (made, there, _, events):
            loop = asyncio.get_running_loop()
            ping = await loop.sock_recv(there, 12)
            assert ping == Header(Kind.PING, Flag.SYN, 0, int.from_bytes(ping[8:], "big")).encode()
            assert not events
            await loop.sock_sendall(there, ping[:3] + bytes([Flag.ACK]) + ping[4:])
            while not [one for one in events if isinstance(one, StreamOpened)]:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0)
            assert isinstance(events[0], LinkUp)
            there.close()
            assert (await made.ended).met

    asyncio.run(asyncio.wait_for(case(), LONG))


def test_a_peer_that_never_says_goodbye_does_not_keep_a_side_that_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answered every ping, so it was alive, and the failure was told only when somebody ended the peer."""
    monkeypatch.setattr(session, "GOODBYE_TIMEOUT", 0.05)

    async def case() -> None:
        here, there = socket.socketpair()
        there.setblocking(False)
        with there:
            hole = Hole(here, "here", "there", b"", True, Role.TO, Trait(0), 0.0, Counts(), None, True)
            made = Session(asyncio.get_running_loop(), hole, Plan(Role.STDIO, Stdio(None, None)), lambda _: None)
            try:
                made.start(hole.unread)
                refusal = Header(Kind.WINDOW, Flag.RST, 1, Reason.REFUSED).encode()
                await asyncio.get_running_loop().sock_sendall(there, refusal)
                assert (await made.ended).status == Exit.TARGET
            finally:
                made.close()

    asyncio.run(asyncio.wait_for(case(), LONG))
