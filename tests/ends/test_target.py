"""Targets are reached by the first of their addresses that answers, or not at all, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from punchtunnel.address import AnyPlace, Place, UnixPlace
from punchtunnel.ends import target as module
from punchtunnel.ends.target import Attempt, Connects, LookUp
from punchtunnel.system.poller import Poller

LONG = 30.0


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    def run(case: Any) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(case, LONG))

    return run


async def reach(target: AnyPlace, seconds: float = LONG) -> socket.socket | OSError:
    loop = asyncio.get_running_loop()
    poller = Poller(loop)
    ended: asyncio.Future[socket.socket | OSError] = loop.create_future()
    attempt = Attempt(loop, poller, LookUp(loop), target, seconds, ended.set_result)
    try:
        attempt.start()
        assert not (ended.done() and isinstance(ended.result(), OSError)), "a failure was told within start"
        return await ended
    finally:
        poller.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_literal_address_is_reached(run: Any, listener: socket.socket) -> None:
    async def case() -> None:
        result = await reach(Place("127.0.0.1", listener.getsockname()[1]))
        assert isinstance(result, socket.socket)
        with result, listener.accept()[0] as accepted:
            assert result.getsockname() == accepted.getpeername()
            assert not result.getblocking()

    run(case())


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_target_within_this_machine_is_reached_within_the_call(
    run: Any, listener: socket.socket, tmp_path: Path, family: socket.AddressFamily
) -> None:
    async def case() -> None:
        poller, told = Poller(asyncio.get_running_loop()), list[tuple[int, Any]]()
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(tmp_path / "socket"))
            unix.listen()
            near: AnyPlace = Place("127.0.0.1", listener.getsockname()[1])
            if family == socket.AF_UNIX:
                near = UnixPlace(str(tmp_path / "socket"))
            connects = Connects(
                asyncio.get_running_loop(), poller, {"": near}, lambda number, _, result: told.append((number, result))
            )
            connects.start(2)
            ((number, result),) = told
            assert number == 2
            with result, (unix if family == socket.AF_UNIX else listener).accept()[0] as accepted:
                result.send(b"!")
                assert accepted.recv(10) == b"!"
                assert not result.getblocking()
        connects.close()
        poller.close()

    run(case())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_target_that_is_gone_is_told_after_the_call(run: Any, listener: socket.socket, host: str) -> None:
    port = listener.getsockname()[1]
    listener.close()

    async def case() -> None:
        loop = asyncio.get_running_loop()
        poller, ended = Poller(loop), loop.create_future()
        connects = Connects(
            loop, poller, {"": Place(host, port)}, lambda _number, _service, result: ended.set_result(result)
        )
        connects.start(2)
        assert not ended.done()
        assert isinstance(await ended, OSError)
        connects.close()
        poller.close()

    run(case())


def test_a_long_queue_that_suddenly_moves_is_no_recursion(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connect that was over within the call began the next one from within: a traceback."""
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 1)
    real, count = socket.socket.connect_ex, 400

    def slow(self: socket.socket, address: Any) -> int:
        return real(self, address) or errno.EALREADY

    async def case() -> None:
        loop = asyncio.get_running_loop()
        poller, told = Poller(loop), list[int]()
        all_told = loop.create_future()

        def done(number: int, _: str, result: socket.socket | OSError) -> None:
            assert isinstance(result, socket.socket)
            result.close()
            told.append(number)
            if len(told) == count:
                all_told.set_result(None)

        with socket.create_server(("127.0.0.1", 0), backlog=2 * count) as listener:
            connects = Connects(loop, poller, {"": Place("127.0.0.1", listener.getsockname()[1])}, done)
            monkeypatch.setattr(socket.socket, "connect_ex", slow)
            connects.start(0)
            monkeypatch.setattr(socket.socket, "connect_ex", real)
            for number in range(1, count):
                connects.start(number)
            assert not told
            await all_told
            assert told == list(range(count))
        connects.close()
        poller.close()

    run(case())


@pytest.mark.parametrize("at_once", [True, False])
def test_a_connection_to_itself_is_no_target(
    run: Any, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """Nobody listened on a port that the kernel then gave the connecting socket: the stream heard its own echo."""
    port = listener.getsockname()[1]
    listener.close()
    real = socket.socket.connect_ex

    def connect_ex(self: socket.socket, address: Any) -> int:
        with contextlib.suppress(OSError):
            self.bind(("127.0.0.1", port))
        return real(self, address) or (0 if at_once else errno.EALREADY)

    monkeypatch.setattr(socket.socket, "connect_ex", connect_ex)

    async def case() -> None:
        result = await reach(Place("127.0.0.1", port))
        assert isinstance(result, OSError)
        assert result.errno == errno.ECONNREFUSED
        # The service can come back: nothing of it is left in TIME_WAIT.
        with socket.socket() as service:
            service.bind(("127.0.0.1", port))

    run(case())


def test_a_connect_that_is_not_over_at_once_is_waited_for(
    run: Any, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was thrown away and begun anew, and a target that accepts once had lost its client."""
    real = socket.socket.connect_ex
    monkeypatch.setattr(socket.socket, "connect_ex", lambda self, address: real(self, address) or errno.EALREADY)
    listener.setblocking(False)

    async def case() -> None:
        result = await reach(Place("127.0.0.1", listener.getsockname()[1]))
        assert isinstance(result, socket.socket)
        with result, listener.accept()[0]:
            pass
        with pytest.raises(BlockingIOError):
            listener.accept()

    run(case())


def test_unix_socket_is_reached(run: Any, tmp_path: Path) -> None:
    async def case() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket"))
            listener.listen()
            result = await reach(UnixPlace(str(tmp_path / "socket")))
            assert isinstance(result, socket.socket)
            result.close()

    run(case())


def test_refused_and_missing_targets_are_told(run: Any, listener: socket.socket, tmp_path: Path) -> None:
    port = listener.getsockname()[1]
    listener.close()

    async def case() -> None:
        assert isinstance(await reach(Place("127.0.0.1", port)), ConnectionRefusedError)
        assert isinstance(await reach(UnixPlace(str(tmp_path / "nothing"))), FileNotFoundError)

    run(case())


def test_second_address_of_a_name_is_tried(run: Any, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    port = listener.getsockname()[1]
    found = [(socket.AF_INET6, ("::1", port, 0, 0)), (socket.AF_INET, ("127.0.0.1", port))]
    monkeypatch.setattr(module, "_ways", lambda target, flags: list(found))

    async def case() -> None:
        result = await reach(Place("some.name", port))
        assert isinstance(result, socket.socket)
        assert result.getpeername() == ("127.0.0.1", port)
        result.close()

    run(case())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_server_on_either_loopback_is_reached_by_its_port_alone(run: Any, host: str) -> None:
    """`--to 5173` was refused by a server that listens on ::1 only, as some do by default."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as server:

        async def case() -> None:
            result = await reach(Place("localhost", server.getsockname()[1]))
            assert isinstance(result, socket.socket)
            assert result.getpeername()[0] == host
            result.close()

        run(case())


@pytest.mark.parametrize("missing", [errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH])
def test_a_family_that_is_missing_here_does_not_hide_what_the_target_says(
    run: Any, listener: socket.socket, missing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listener.getsockname()[1]
    listener.close()
    real = socket.socket

    def without_ipv6(family: int = -1, *rest: int, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(missing, os.strerror(missing))
        return real(family, *rest, **more)

    async def case() -> None:
        monkeypatch.setattr(socket, "socket", without_ipv6)
        assert isinstance(await reach(Place("localhost", port)), ConnectionRefusedError)

    run(case())


def test_name_that_is_not_known_is_told(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(target: Place, flags: int) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(module, "_ways", fail)

    async def case() -> None:
        assert isinstance(await reach(Place("some.name", 1)), socket.gaierror)

    run(case())


def test_target_that_does_not_answer_times_out(run: Any) -> None:
    async def case() -> None:
        # A full backlog: the SYN is dropped.
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            name = listener.getsockname()
            with socket.create_connection(name):
                assert isinstance(await reach(Place(*name), seconds=0.2), TimeoutError)

    run(case())


def test_cancelled_look_up_tells_nothing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def look_up(target: Place, flags: int) -> list[Any]:
        asked.set()
        answer.wait(LONG)
        return [(socket.AF_INET, ("127.0.0.1", 1))]

    monkeypatch.setattr(module, "_ways", look_up)

    async def case() -> None:
        loop = asyncio.get_running_loop()
        poller = Poller(loop)
        told: list[object] = []
        attempt = Attempt(loop, poller, LookUp(loop), Place("some.name", 1), LONG, told.append)
        before = len(os.listdir("/proc/self/fd"))
        attempt.start()
        await loop.run_in_executor(None, asked.wait, LONG)
        attempt.cancel()
        answer.set()
        for thread in threading.enumerate():
            if thread.name == "look-up":
                await loop.run_in_executor(None, thread.join, LONG)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert told == []
        assert len(os.listdir("/proc/self/fd")) == before
        poller.close()

    run(case())


def test_a_name_is_looked_up_once_for_all_who_wait(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that opens and resets streams made one thread of each, and one question to the name server."""
    asked: list[Place] = []
    answer = threading.Event()

    def look_up(target: Place, flags: int) -> list[Any]:
        asked.append(target)
        answer.wait(LONG)
        return []

    monkeypatch.setattr(module, "_ways", look_up)

    async def case() -> None:
        loop = asyncio.get_running_loop()
        poller, names = Poller(loop), LookUp(loop)
        told: list[object] = []
        for number in range(100):
            attempt = Attempt(loop, poller, names, Place("some.name", 1), LONG, told.append)
            attempt.start()
            if number % 2:
                attempt.cancel()
        assert len(names._waiting) == 50, "those that were given up are forgotten"
        answer.set()
        while len(told) < 50:  # noqa: ASYNC110 - a thread tells
            await asyncio.sleep(0.001)
        late = Attempt(loop, poller, names, Place("some.name", 1), LONG, told.append)
        late.start()
        assert len(told) == 50, "told within start"
        while len(told) < 51:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.001)
        assert len(asked) == 1
        poller.close()

    run(case())


@pytest.mark.parametrize("host", ["fe80::1%nosuch", "fe80::1%a..b"])
def test_an_interface_that_is_gone_costs_only_the_connection(run: Any, host: str) -> None:
    """It ended the whole process."""

    async def case() -> None:
        result = await reach(Place(host, 22))
        assert isinstance(result, socket.gaierror)

    run(case())


@pytest.mark.parametrize(("kept", "looks"), [(LONG, 1), (0.0, 3)])
def test_a_literal_is_looked_at_once_for_all_streams_of_a_moment(
    run: Any, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, kept: float, looks: int
) -> None:
    asked: list[Place] = []

    def ways(target: Place, _: int) -> list[Any]:
        asked.append(target)
        return [(socket.AF_INET, (target.host, target.port))]

    monkeypatch.setattr(module, "KEPT", kept)
    monkeypatch.setattr(module, "_ways", ways)

    async def case() -> None:
        look_up, target = LookUp(asyncio.get_running_loop()), Place("127.0.0.1", listener.getsockname()[1])
        for _ in range(3):
            assert look_up.literal(target) == [(socket.AF_INET, ("127.0.0.1", target.port))]
        assert asked == [target] * looks

    run(case())


def test_no_thread_for_a_look_up_is_told(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def case() -> None:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        result = await reach(Place("some.name", 1))
        assert isinstance(result, OSError)
        assert result.errno == errno.ENOMEM

    run(case())


def test_a_full_queue_of_a_unix_socket_is_waited_for(run: Any, tmp_path: Path) -> None:
    async def case() -> None:
        with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
            listener.bind(str(tmp_path / "target"))
            listener.listen(0)
            first = await reach(UnixPlace(str(tmp_path / "target")))
            assert isinstance(first, socket.socket)
            stack.enter_context(first)
            waiting = asyncio.ensure_future(reach(UnixPlace(str(tmp_path / "target"))))
            await asyncio.wait([waiting], timeout=0.1)
            assert not waiting.done()
            stack.enter_context(listener.accept()[0])
            second = await waiting
            assert isinstance(second, socket.socket)
            stack.enter_context(second)
            late = await reach(UnixPlace(str(tmp_path / "target")), 0.1)
            assert isinstance(late, TimeoutError)

    run(case())


def test_connections_that_the_peer_gives_up_at_once_keep_their_places_for_a_while(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open and reset costs a peer 24 bytes: it could make this machine connect without end."""
    monkeypatch.setattr(module, "MAX_UNDER_WAY", 4)
    monkeypatch.setattr(module, "GIVEN_UP", 0.05)

    async def case() -> None:
        loop = asyncio.get_running_loop()
        poller = Poller(loop)
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, contextlib.ExitStack() as stack:
            reached = asyncio.Queue[int]()

            def done(number: int, _: str, result: socket.socket | OSError) -> None:
                assert isinstance(result, socket.socket)
                stack.enter_context(result)
                reached.put_nowait(number)

            connects = Connects(loop, poller, {"": Place("127.0.0.1", listener.getsockname()[1])}, done)
            for number in range(40):
                connects.start(number)
                connects.cancel(number, given_up=True)
            assert reached.qsize() <= 4, "of the others none was begun"
            while reached.qsize():
                reached.get_nowait()
            connects.start(100)
            assert await asyncio.wait_for(reached.get(), LONG) == 100, "and in the end places are free again"
            for number in range(101, 120):
                connects.start(number)
                connects.cancel(number)
                assert await asyncio.wait_for(reached.get(), LONG) == number, "an end after an answer costs nothing"
            connects.close()
        poller.close()

    run(case())


@pytest.mark.parametrize(("host", "probed"), [("127.0.0.1", 0), ("10.9.8.7", 1)])
def test_only_a_target_on_another_machine_is_probed(
    run: Any, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, host: str, probed: int
) -> None:
    """It may vanish without FIN, and was never noticed; on this machine the kernel speaks for it."""
    connect = socket.socket.connect_ex

    class Elsewhere(socket.socket):
        def connect_ex(self, address: Any) -> int:
            return connect(self, listener.getsockname())

    async def case() -> None:
        monkeypatch.setattr(socket, "socket", Elsewhere)
        result = await reach(Place(host, listener.getsockname()[1]))
        assert isinstance(result, socket.socket)
        with result:
            assert result.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == probed

    run(case())


def test_a_full_queue_of_a_unix_socket_is_looked_at_less_and_less(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand streams that looked every 20 ms took half a core for as long as the peer liked."""
    path = str(tmp_path / "target")
    tries = 0

    class Counted(socket.socket):
        def connect_ex(self, address: Any) -> int:
            nonlocal tries
            tries += 1
            return super().connect_ex(address)

    async def case() -> None:
        with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as only:
            listener.bind(path)
            listener.listen(0)
            only.connect(path)
            monkeypatch.setattr(socket, "socket", Counted)
            assert isinstance(await reach(UnixPlace(path), 0.5), TimeoutError)
            assert tries <= 7

    run(case())
