"""Tunnels of two programs in one process: real punches over loopback, on asyncio's loop and on uvloop's."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

import punchtunnel
from punchtunnel import words
from punchtunnel.errors import LinkError, NoHoleError, RejectedError, UsageError
from punchtunnel.library import tunnel as tunnels
from punchtunnel.library.calls import connect, open_tunnel, open_tunnels, serve_tunnels
from punchtunnel.library.streams import StreamProtocol
from punchtunnel.library.tunnel import Stream, Tunnel
from punchtunnel.protocol.credit import MAX_WINDOW
from punchtunnel.protocol.frames import Reason
from punchtunnel.protocol.secret import fresh
from punchtunnel.reach.gather import Gatherer

# A test that waits so long is hung.
LONG = 60.0
MIB = 1 << 20

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a coroutine; nothing that it has opened may be left, and no task."""

    def run_to_the_end(coroutine: Coroutine[Any, Any, None]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(LONG):
                await coroutine
                # A cancelled life still closes what it had.
                while others := asyncio.all_tasks() - {asyncio.current_task()}:
                    await asyncio.wait(others)

        before = sockets()
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(limited())
        assert sockets() == before

    threads = threading.active_count()
    yield run_to_the_end
    assert threading.active_count() == threads


def sockets() -> set[str]:
    """Return what the descriptors of this process lead to, if it is a socket."""
    links = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.add(os.readlink(f"/proc/self/fd/{fd}"))
    return {link for link in links if link.startswith("socket:")}


@dataclass
class Pair:
    """Arguments for two ends that find each other and nobody else."""

    channel: str = field(default_factory=lambda: secrets.token_hex(8))
    net: str = field(default_factory=lambda: f"127.{1 + secrets.randbelow(250)}.{secrets.randbelow(256)}")

    def left(self, **more: Any) -> Any:
        return {"bind": f"{self.net}.1", "channel": self.channel} | more

    def right(self, **more: Any) -> Any:
        return {"bind": f"{self.net}.2", "channel": self.channel} | more

    def connect(self, **more: Any) -> tuple[Coroutine[Any, Any, Stream], Coroutine[Any, Any, Stream]]:
        return connect(f"{self.net}.2", **self.left(**more)), connect(f"{self.net}.1", **self.right(**more))

    async def tunnels(
        self,
        left: Callable[[Tunnel], Awaitable[object]],
        right: Callable[[Tunnel], Awaitable[object]],
        **more: Any,
    ) -> tuple[BaseException | None, BaseException | None]:
        """Run both blocks in tunnels of their own; return what each has raised."""

        async def one(peer: str, options: dict[str, Any], block: Callable[[Tunnel], Awaitable[object]]) -> None:
            async with open_tunnel(peer, **options) as tunnel:
                await block(tunnel)

        ends = await asyncio.gather(
            one(f"{self.net}.2", self.left(**more), left),
            one(f"{self.net}.1", self.right(**more), right),
            return_exceptions=True,
        )
        return ends[0], ends[1]


async def close(*streams: Stream) -> None:
    """Close both sides of a stream; each waits for the other."""
    for _, writer in streams:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for _, writer in streams))


async def both(pair: Pair, **more: Any) -> tuple[Stream, Stream]:
    one, other = await asyncio.gather(*pair.connect(**more))
    return one, other


# ---- connect


@pytest.mark.parametrize("secret", ["", "open sesame", b"open sesame"])
def test_connect_gives_both_sides_one_sealed_stream_with_half_close(run: Run, secret: str | bytes) -> None:
    async def test() -> None:
        left, right = await both(Pair(), secret=secret)
        left[1].write(b"question")
        left[1].write_eof()
        assert await right[0].read() == b"question"
        right[1].write(b"answer")
        right[1].write_eof()
        assert await left[0].read() == b"answer"
        assert left[1].get_extra_info("verifier") == right[1].get_extra_info("verifier") is not None
        assert left[1].get_extra_info("peername") == right[1].get_extra_info("sockname")
        assert left[1].get_extra_info("nothing of that name", 7) == 7
        await close(left, right)

    run(test())


def test_secret_as_text_meets_the_same_as_bytes(run: Run) -> None:
    async def test() -> None:
        pair = Pair()
        left, right = await asyncio.gather(
            connect(f"{pair.net}.2", secret="été", **pair.left()),
            connect(f"{pair.net}.1", secret="été".encode(), **pair.right()),
        )
        await close(left, right)

    run(test())


def test_wait_closed_returns_only_when_the_far_side_has_everything(run: Run) -> None:
    data = os.urandom(20 * MIB)

    async def test() -> None:
        left, right = await both(Pair())
        left[1].write(data)
        left[1].close()
        waiting = asyncio.create_task(left[1].wait_closed())
        digest = hashlib.sha256()
        while piece := await right[0].read(MIB):
            assert not waiting.done()
            digest.update(piece)
        assert digest.digest() == hashlib.sha256(data).digest()
        right[1].close()
        await asyncio.gather(waiting, right[1].wait_closed())

    run(test())


def test_writer_is_never_far_ahead_of_the_reader_of_the_far_side(run: Run) -> None:
    total = 64 * MIB
    # The largest window, two socket pairs, and what two streams hold.
    most = MAX_WINDOW + 4 * MIB

    async def test() -> None:
        left, right = await both(Pair())
        sent = received = 0

        async def send() -> None:
            nonlocal sent
            while sent < total:
                left[1].write(bytes(MIB))
                await left[1].drain()
                sent += MIB
            left[1].write_eof()

        sending = asyncio.create_task(send())
        while piece := await right[0].read(MIB):
            received += len(piece)
            assert sent - received <= most
        assert received == total
        await sending
        await close(left, right)

    run(test())


@pytest.mark.parametrize(
    ("left", "right", "sentence"),
    [
        ({"secret": "one"}, {"secret": "another"}, "wrong secret"),
        ({"plain": True}, {}, "--plain"),
    ],
)
def test_peer_that_does_not_fit_is_rejected_on_both_sides(
    run: Run, left: dict[str, Any], right: dict[str, Any], sentence: str
) -> None:
    async def test() -> None:
        pair = Pair()
        ends = await asyncio.gather(
            connect(f"{pair.net}.2", **pair.left(wait=3.0, **left)),
            connect(f"{pair.net}.1", **pair.right(wait=3.0, **right)),
            return_exceptions=True,
        )
        for end in ends:
            assert isinstance(end, RejectedError)
            assert sentence in str(end)

    run(test())


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"secret": "correct horse battery staple", "relay": ["192.0.2.1"]}, "too weak to meet with"),
        ({"relay": ["192.0.2.1"]}, "no secret to meet with"),
        ({"secret": fresh(os.urandom), "meet": ["192.0.2.1"], "resume": 0}, "contradict --resume 0"),
        ({"secret": fresh(os.urandom), "meet": ["a b"]}, "--meet"),
    ],
)
def test_a_meeting_needs_a_secret_that_nobody_guesses_and_a_session_that_can_move(
    run: Run, more: dict[str, Any], sentence: str
) -> None:
    async def test() -> None:
        with pytest.raises(UsageError, match=sentence):
            await connect(**more)

    run(test())


@pytest.mark.parametrize("more", [{}, {"plain": True}], ids=["sealed", "plain"])
def test_a_tunnel_without_a_secret_must_be_wanted(run: Run, more: dict[str, Any]) -> None:
    """Whoever answered at the peer's address could open streams to the program."""

    async def test() -> None:
        with pytest.raises(UsageError, match="no_secret=True"):
            async with open_tunnel("198.51.100.7", **more):
                pass
        with pytest.raises(UsageError, match="no_secret=True"):
            await anext(open_tunnels("198.51.100.7", **more))
        with pytest.raises(UsageError, match="contradicts"):
            await connect("127.0.0.1", secret="open sesame", no_secret=True)
        with pytest.raises(UserWarning, match="whoever answers at the peer's address"):
            # Warnings are errors here, and this one comes before the first packet.
            await connect("198.51.100.7", **more)

    run(test())


@pytest.mark.parametrize("more", [{}, {"plain": True}], ids=["sealed", "plain"])
def test_an_aborted_transport_is_a_cut(run: Run, more: dict[str, Any]) -> None:
    """Half of the bytes and an end of file: both sides took it for delivered."""

    async def test() -> None:
        left, right = await both(Pair(), **more)
        left[1].write(bytes(10 * MIB))
        assert await right[0].read(1)
        left[1].transport.abort()
        with pytest.raises(LinkError):
            await right[0].read()
        # Too late to call that an end.
        left[1].close()
        with pytest.raises(LinkError):
            await left[1].wait_closed()
        right[1].close()
        with pytest.raises(LinkError):
            await right[1].wait_closed()

    run(test())


def test_an_end_that_asyncio_makes_is_an_end(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol that wants no half-open transport, as that of TLS, has it closed behind the peer's end."""

    async def test() -> None:
        left, right = await both(Pair())
        protocol = right[1].transport.get_protocol()
        assert isinstance(protocol, StreamProtocol)
        monkeypatch.setattr(protocol, "_over_ssl", True)
        left[1].write(b"all")
        left[1].close()
        assert await right[0].read() == b"all"
        await asyncio.gather(left[1].wait_closed(), right[1].wait_closed())

    run(test())


def test_an_open_that_is_cancelled_is_no_end(run: Run) -> None:
    async def test() -> None:
        async def left(tunnel: Tunnel) -> None:
            opening = asyncio.ensure_future(tunnel.open())
            await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait([opening])
            assert opening.cancelled()
            # Leaving would reset what nobody has taken.
            await told.wait()

        async def right(tunnel: Tunnel) -> None:
            reader, _ = await anext(tunnel)
            try:
                read.append(await reader.read())
            except LinkError as error:
                read.append(error)
            told.set()

        read: list[object] = []
        told = asyncio.Event()
        await Pair().tunnels(left, right)
        assert [type(one) for one in read] == [LinkError]

    run(test())


def test_a_stream_that_arrives_while_its_wait_is_cancelled_is_not_lost(run: Run) -> None:
    async def test() -> None:
        done = asyncio.Event()

        async def left(tunnel: Tunnel) -> None:
            for number in range(20):
                reader, writer = await tunnel.open()
                writer.write(bytes([number]))
                writer.write_eof()
                await reader.read()
                writer.close()
            done.set()

        async def right(tunnel: Tunnel) -> None:
            for number in range(20):
                while True:
                    waiting = asyncio.ensure_future(anext(tunnel))
                    while not tunnel._arrived.qsize() and not waiting.done():  # noqa: ASYNC110 - each turn counts
                        await asyncio.sleep(0)
                    # A few turns of the loop, in each of which it may have got further.
                    for _ in range(number % 5):
                        await asyncio.sleep(0)
                    waiting.cancel()
                    await asyncio.wait([waiting])
                    if not waiting.cancelled():
                        reader, writer = waiting.result()
                        break
                    if tunnel._arrived.qsize():
                        reader, writer = await anext(tunnel)
                        break
                assert await reader.read() == bytes([number])
                writer.close()
            await done.wait()

        assert await Pair().tunnels(left, right) == (None, None)

    run(test())


def test_leaving_that_is_cancelled_tells_the_far_side(run: Run) -> None:
    """It was a link that had been lost: its machine, or a router."""

    async def test() -> None:
        leaving: asyncio.Future[asyncio.Task[None] | None] = asyncio.get_running_loop().create_future()

        async def left(tunnel: Tunnel) -> None:
            _, writer = await tunnel.open()
            writer.write(bytes(64 * MIB))
            leaving.set_result(asyncio.current_task())

        async def right(tunnel: Tunnel) -> None:
            reader, _ = await anext(tunnel)
            assert await reader.read(1)
            task = await leaving
            assert task is not None
            # It is on its way out, and waits until somebody reads the rest.
            task.cancel()
            with pytest.raises(LinkError, match=words.reset_reason(Reason.CLOSING)):
                await reader.read()

        ends = await Pair().tunnels(left, right)
        assert isinstance(ends[0], asyncio.CancelledError)
        assert str(ends[1]) == words.PEER_QUIT

    run(test())


def test_plain_on_both_sides_has_no_verifier(run: Run) -> None:
    async def test() -> None:
        left, right = await both(Pair(), plain=True)
        assert left[1].get_extra_info("verifier") is None
        await close(left, right)

    run(test())


@pytest.mark.parametrize(
    "arguments",
    [{"family": 5}, {"wait": -1.0}, {"secret": "a\nb"}, {"bind": "nosuch0"}, {"secret": "hush", "plain": True}],
)
def test_mistake_is_a_usage_error(run: Run, arguments: dict[str, Any]) -> None:
    async def test() -> None:
        with pytest.raises(UsageError):
            await connect("127.0.0.1", **arguments)

    run(test())


def test_no_peer_is_a_usage_error_and_nobody_there_no_hole(run: Run) -> None:
    async def test() -> None:
        with pytest.raises(UsageError):
            await connect()
        pair = Pair()
        with pytest.raises(NoHoleError, match=r"no hole to 127\..* in 0.2 s"):
            await connect(f"{pair.net}.2", **pair.left(wait=0.2))

    run(test())


async def serve(peer: str, **arguments: Any) -> None:
    async def handle(_: Tunnel) -> None:
        pytest.fail("nobody comes")

    await serve_tunnels(handle, peer, **arguments)


async def take_turns(peer: str, **arguments: Any) -> None:
    await anext(open_tunnels(peer, **arguments))


@pytest.mark.parametrize("call", [connect, serve, take_turns])
def test_the_loop_goes_on_while_routers_take_back_what_they_have_mapped(
    run: Run, monkeypatch: pytest.MonkeyPatch, call: Callable[..., Awaitable[object]]
) -> None:
    """Every task of a program stood still for up to 1.3 s after a punch that had found nobody."""

    async def test() -> None:
        loop, goes_on = asyncio.get_running_loop(), threading.Event()
        went_on: list[bool] = []

        def close(_: Gatherer) -> None:
            loop.call_soon_threadsafe(goes_on.set)
            went_on.append(goes_on.wait(LONG / 10))

        monkeypatch.setattr(Gatherer, "close", close)
        pair = Pair()
        with pytest.raises(NoHoleError):
            await call(f"{pair.net}.2", no_secret=True, **pair.left(wait=0.1))
        assert went_on == [True]

    run(test())


def test_cancelling_ends_the_punch_at_once_and_leaves_nothing(run: Run) -> None:
    async def test() -> None:
        pair = Pair()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await connect(f"{pair.net}.2", **pair.left(wait=0))
        # The ports are free: the next punch uses the same ones.
        await close(*await both(pair))

    run(test())


def test_peer_that_closes_without_reading_is_a_cut_and_no_delivery(run: Run) -> None:
    async def test() -> None:
        left, right = await both(Pair())
        right[1].close()
        with contextlib.suppress(LinkError):
            while True:
                left[1].write(bytes(MIB))
                await left[1].drain()
        left[1].close()
        for _, writer in (left, right):
            with pytest.raises(LinkError):
                await writer.wait_closed()

    run(test())


# ---- open_tunnel


async def echo(tunnel: Tunnel) -> None:
    """Send back what each stream brings, until the peer has ended the tunnel."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(MIB):
            writer.write(piece)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with asyncio.TaskGroup() as group:
        async for reader, writer in tunnel:
            group.create_task(answer(reader, writer))


async def ask(tunnel: Tunnel, data: bytes) -> bytes:
    reader, writer = await tunnel.open()
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def nothing(_: Tunnel) -> None:
    """Leave at once."""


def test_many_streams_in_both_directions_at_once(run: Run) -> None:
    async def test() -> None:
        async def side(tunnel: Tunnel) -> None:
            data = [secrets.token_bytes(100_000) for _ in range(20)]
            serving = asyncio.create_task(echo(tunnel))
            assert await asyncio.gather(*(ask(tunnel, one) for one in data)) == data
            done.release()
            # Until the other side has its answers too.
            await all_done.wait()
            serving.cancel()
            await asyncio.wait([serving])

        async def watch() -> None:
            for _ in range(2):
                await done.acquire()
            all_done.set()

        done, all_done = asyncio.Semaphore(0), asyncio.Event()
        watching = asyncio.create_task(watch())
        assert await Pair().tunnels(side, side, secret="s") == (None, None)
        await watching

    run(test())


def test_a_stream_tells_what_it_was_opened_for(run: Run) -> None:
    async def opens(tunnel: Tunnel) -> None:
        with pytest.raises(UsageError, match="'22' is no name of a service"):
            await tunnel.open("22")
        for service in ("ssh", ""):
            reader, writer = await tunnel.open(service)
            assert writer.get_extra_info("service") == service
            writer.write_eof()
            assert await reader.read() == service.encode()
            await close((reader, writer))

    async def answers(tunnel: Tunnel) -> None:
        async for reader, writer in tunnel:
            writer.write(writer.get_extra_info("service").encode())
            assert await reader.read() == b""
            await close((reader, writer))

    async def case() -> None:
        assert await Pair().tunnels(opens, answers, secret="s") == (None, None)

    run(case())


def test_leaving_the_block_delivers_and_ends_the_loop_of_the_peer(run: Run) -> None:
    data = os.urandom(3 * MIB)
    received: list[bytes] = []

    async def give(tunnel: Tunnel) -> None:
        _, writer = await tunnel.open()
        # Neither closed nor drained: that is what leaving does.
        writer.write(data)

    async def take(tunnel: Tunnel) -> None:
        async for reader, writer in tunnel:
            received.append(await reader.read())
            writer.close()
        with pytest.raises(LinkError, match="the tunnel has ended"):
            await tunnel.open()

    async def test() -> None:
        assert await Pair().tunnels(give, take) == (None, None)
        assert received == [data]

    run(test())


def test_tunnel_without_streams_ends_well_on_both_sides(run: Run) -> None:
    async def test() -> None:
        assert await Pair().tunnels(nothing, nothing) == (None, None)

    run(test())


def test_exception_in_the_block_cuts_and_a_cut_is_no_end_of_file(run: Run) -> None:
    seen: list[str] = []

    async def fail(tunnel: Tunnel) -> None:
        _, writer = await tunnel.open()
        writer.write(b"half of it")
        await writer.drain()
        await there.wait()
        raise ValueError("a bug of the program")

    async def take(tunnel: Tunnel) -> None:
        reader, writer = await anext(tunnel)
        assert await reader.readexactly(10) == b"half of it"
        there.set()
        with pytest.raises(LinkError) as caught:
            await reader.read()
        seen.append(str(caught.value))
        writer.close()
        with pytest.raises(LinkError):
            await writer.wait_closed()
        with pytest.raises(LinkError):
            await anext(tunnel)

    async def test() -> None:
        failed, ended = await Pair().tunnels(fail, take)
        assert isinstance(failed, ValueError)
        assert isinstance(ended, LinkError)
        assert str(ended) == "the peer ended before everything was delivered"
        assert seen == [str(ended)]

    there = asyncio.Event()
    run(test())


def test_cancelling_a_block_cuts_it(run: Run) -> None:
    async def wait(_: Tunnel) -> None:
        up.set()
        await asyncio.Event().wait()

    async def test() -> None:
        pair = Pair()

        async def left() -> None:
            async with open_tunnel(f"{pair.net}.2", **pair.left()) as tunnel:
                await wait(tunnel)

        async def right() -> None:
            async with open_tunnel(f"{pair.net}.1", **pair.right()) as tunnel:
                await up.wait()
                reader, _ = await tunnel.open()
                task.cancel()
                await reader.read()

        task = asyncio.create_task(left())
        with pytest.raises(LinkError):
            await right()
        with pytest.raises(asyncio.CancelledError):
            await task

    up = asyncio.Event()
    run(test())


def test_streams_that_nobody_accepts_are_refused_from_a_number_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnels, "MAX_WAITING", 2)
    reasons: list[str] = []

    async def ask_too_much(tunnel: Tunnel) -> None:
        streams = [await tunnel.open() for _ in range(3)]
        with pytest.raises(LinkError) as caught:
            await streams[2][0].read()
        reasons.append(str(caught.value))
        enough.set()
        # The other two are given up when the peer leaves.
        for reader, _ in streams[:2]:
            with pytest.raises(LinkError):
                await reader.read()

    async def accept_nothing(_: Tunnel) -> None:
        await enough.wait()

    async def test() -> None:
        assert await Pair().tunnels(ask_too_much, accept_nothing) == (None, None)
        assert reasons == ["the far side is out of descriptors or streams"]

    enough = asyncio.Event()
    run(test())


def test_program_may_wait_for_streams_in_several_places(run: Run) -> None:
    async def test() -> None:
        async def serve(tunnel: Tunnel) -> None:
            await asyncio.gather(echo(tunnel), echo(tunnel))

        async def client(tunnel: Tunnel) -> None:
            assert await asyncio.gather(*(ask(tunnel, b"x") for _ in range(10))) == [b"x"] * 10

        assert await Pair().tunnels(serve, client) == (None, None)

    run(test())


# ---- the package


def test_package_offers_them_and_nothing_else_by_surprise() -> None:
    assert punchtunnel.connect is connect
    assert punchtunnel.open_tunnel is open_tunnel
    assert all(hasattr(punchtunnel, name) for name in punchtunnel.__all__)
    with pytest.raises(AttributeError):
        _ = punchtunnel.no_such_name


# ---- tunnel after tunnel


def test_tunnels_follow_one_another_and_a_lost_link_ends_only_its_own(run: Run) -> None:
    async def test() -> None:
        pair = Pair()
        served: list[bytes] = []

        async def serve() -> None:
            peer = f"{pair.net}.2"
            async with contextlib.aclosing(open_tunnels(peer, **pair.left(secret="s"))) as tunnels_of_it:
                async for tunnel in tunnels_of_it:
                    with contextlib.suppress(LinkError):
                        async for reader, writer in tunnel:
                            served.append(await reader.read(3))
                            writer.close()
                    if len(served) == 2:
                        return

        async def call(words_of_it: bytes, lose: bool) -> None:
            with contextlib.suppress(ConnectionAbortedError):
                async with open_tunnel(f"{pair.net}.1", **pair.right(secret="s")) as tunnel:
                    reader, writer = await tunnel.open()
                    writer.write(words_of_it)
                    assert await reader.read() == b""
                    if lose:
                        raise ConnectionAbortedError

        async def calls() -> None:
            await call(b"one", lose=True)
            await call(b"two", lose=False)

        await asyncio.gather(serve(), calls())
        assert served == [b"one", b"two"]

    run(test())


def test_what_is_wrong_from_the_start_ends_the_tunnels(run: Run) -> None:
    async def test() -> None:
        with pytest.raises(UsageError):
            await anext(open_tunnels())
        with pytest.raises(NoHoleError):
            await anext(open_tunnels("127.0.0.1", channel=secrets.token_hex(8), wait=0.1))

    run(test())


# ---- what helps the punches


def test_routers_are_let_go_of_while_the_loop_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that failed, or was cancelled, stopped the program's loop for up to a second and a half."""
    goes_on = threading.Event()
    seen: list[bool] = []
    monkeypatch.setattr(Gatherer, "close", lambda _: seen.append(goes_on.wait(LONG / 6)))

    async def fail(call: Awaitable[object]) -> None:
        goes_on.clear()
        asyncio.get_running_loop().call_later(0.2, goes_on.set)
        with pytest.raises(NoHoleError):
            await call

    async def test() -> None:
        alone: dict[str, Any] = {"channel": secrets.token_hex(8), "secret": "s", "wait": 0.1}
        await fail(connect("127.0.0.1", **alone))
        await fail(anext(open_tunnels("127.0.0.1", **alone)))
        await fail(serve_tunnels(asyncio.sleep, "127.0.0.1", **alone))  # type: ignore[arg-type]

    run(test())
    assert seen == [True] * 3
