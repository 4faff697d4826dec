"""A link's turns: what goes into the hole when, and what goes with it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.ends.stdio import StdioEnd
from punchtunnel.errors import PeerError
from punchtunnel.link import later, turns
from punchtunnel.link.carrier import Carrier
from punchtunnel.link.outgoing import BULK
from punchtunnel.link.source import SPARSE
from punchtunnel.link.tempo import FIRST_FRAME
from punchtunnel.protocol.frames import HEADER, Flag, Header, Kind
from punchtunnel.system.poller import READ

from .links import LONG, Case, Side, connect, make_side, make_waiting_side, opened_by_hand, received, two_sides

pytestmark = pytest.mark.usefixtures("data_path")


def test_eof_behind_a_short_payload_goes_with_it(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(0) as (side, raw, _):
            ours, theirs = socket.socketpair()
            with theirs:
                number = side.link.open(SocketEnd(ours))
                syn = Header(Kind.WINDOW, Flag.SYN, number, 0).encode()
                assert await asyncio.wait_for(loop.sock_recv(raw, 1000), LONG) == syn
                theirs.sendall(b"last words")
            last = Header(Kind.DATA, Flag.FIN, number, 10).encode() + b"last words"
            assert await asyncio.wait_for(loop.sock_recv(raw, 1000), LONG) == last
            raw.sendall(Header(Kind.WINDOW, Flag.FIN, number, 0).encode())
            assert await asyncio.wait_for(side.ended.get(), LONG) == (number, None)

    run(case)


def test_ack_goes_with_the_answer(run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(later, "ACK_DELAY", LONG * 2)

    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(1) as (side, raw, _):
            ours, theirs = socket.socketpair()
            with theirs:
                side.link.join(2, SocketEnd(ours))
                for _ in range(10):
                    await asyncio.sleep(0)
                theirs.sendall(b"hello")
                expected = Header(Kind.DATA, Flag.ACK, 2, 5).encode() + b"hello"
                assert await asyncio.wait_for(loop.sock_recv(raw, 1000), LONG) == expected

    run(case)


def test_a_target_that_speaks_first_is_read(run: Callable[[Case], None], tmp_path: Path) -> None:
    """A target is read when the poller tells of it; a file, of which it tells nothing, at once."""
    text = tmp_path / "text"
    text.write_bytes(b"hello")

    async def case() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with theirs, text.open("rb") as file:
            theirs.sendall(b"hello")
            for end in (SocketEnd(ours), StdioEnd(file.fileno(), None)):
                async with opened_by_hand(1) as (side, raw, _):
                    side.link.join(2, end)
                    came = b""
                    while b"hello" not in came:
                        came += await asyncio.wait_for(loop.sock_recv(raw, 1000), LONG)

    run(case)


def test_ack_goes_alone_after_a_while(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(1) as (side, raw, _):
            ours, theirs = socket.socketpair()
            with theirs:
                began = loop.time()
                side.link.join(2, SocketEnd(ours))
                ack = Header(Kind.WINDOW, Flag.ACK, 2, 0).encode()
                assert await asyncio.wait_for(loop.sock_recv(raw, 1000), LONG) == ack
                # A loop's time is taken when it wakes up: a little early.
                assert loop.time() - began > turns.ACK_DELAY / 2

    run(case)


def test_a_hundred_acks_that_wait_do_not_keep_data_waiting(
    run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no room before a payload."""
    monkeypatch.setattr(later, "ACK_DELAY", LONG * 2)

    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(100) as (side, raw, numbers):
            with contextlib.ExitStack() as targets:
                for number in numbers:
                    ours, theirs = socket.socketpair()
                    targets.enter_context(theirs)
                    side.link.join(number, SocketEnd(ours))
                theirs.sendall(b"last")
                acks = b"".join(Header(Kind.WINDOW, Flag.ACK, number, 0).encode() for number in numbers)
                expected = acks + Header(Kind.DATA, 0, numbers[-1], 4).encode() + b"last"
                came = b""
                while len(came) < len(expected):
                    came += await asyncio.wait_for(loop.sock_recv(raw, 10_000), LONG)
                assert came == expected

    run(case)


def test_a_protocol_error_while_a_stream_waits_to_send_ends_the_link(run: Callable[[Case], None]) -> None:
    """What was thrown out of the ring did not know it, and was taken out once more: a traceback, also under -k."""

    async def case() -> None:
        here, there = socket.socketpair()
        side = make_waiting_side(True)
        near, near_end = socket.socketpair()
        with there, near:
            near.send(b"something to send")
            side.link.open(SocketEnd(near_end))
            # Before its first turn.
            side.link.attach(Carrier(here), b"\xff" * HEADER.size)
            assert isinstance(await asyncio.wait_for(side.lost.get(), LONG), PeerError)
            side.link.close(reset=True)
            side.poller.close()

    run(case)


def test_streams_that_are_reset_while_the_hole_is_full_leave_nothing(run: Callable[[Case], None]) -> None:
    """They stayed in the ring, out of which nothing was taken: a peer could fill the memory with them."""

    async def case() -> None:
        here, there = socket.socketpair()
        loop = asyncio.get_running_loop()
        side = make_waiting_side(True)
        with there:
            there.setblocking(False)
            side.link.attach(carrier := Carrier(here))
            bulk, bulk_end = socket.socketpair()
            with bulk:
                bulk.setblocking(False)
                number = side.link.open(SocketEnd(bulk_end))
                # Credit without end, and nobody who reads: the hole is full.
                await loop.sock_sendall(there, Header(Kind.WINDOW, Flag.ACK, number, 1 << 30).encode())
                feeding = asyncio.ensure_future(loop.sock_sendall(bulk, bytes(16 << 20)))
                while not carrier.outgoing.waits:  # noqa: ASYNC110 - the kernel sets no event
                    await asyncio.sleep(0.001)
                for theirs in range(2, 100, 2):
                    await loop.sock_sendall(there, Header(Kind.WINDOW, Flag.SYN, theirs, 0).encode())
                    assert await asyncio.wait_for(side.opened.get(), LONG) == theirs
                    near, near_end = socket.socketpair()
                    with near:
                        side.link.join(theirs, SocketEnd(near_end))
                        near.send(b"an answer")
                        await loop.sock_sendall(there, Header(Kind.WINDOW, Flag.RST, theirs, 0).encode())
                        await asyncio.wait_for(side.ended.get(), LONG)
                assert side.link.stream_count == 1
                assert len(side.link._turns.ring) <= 1
                feeding.cancel()
                side.link.close(reset=True)
                side.poller.close()

    run(case)


@pytest.mark.parametrize("last", [b"five", bytes(SPARSE + 1)], ids=["short", "long"])
def test_short_frames_of_several_streams_go_in_one_piece(run: Callable[[Case], None], last: bytes) -> None:
    async def case() -> None:
        # Each send is a message of its own.
        hole, raw = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        raw.setblocking(False)
        side = make_side(hole, leads=True)
        words = {1: b"one", 3: b"three", 5: last}
        with raw, contextlib.ExitStack() as stack:
            for number, word in words.items():
                near, end = socket.socketpair()
                stack.enter_context(near).send(word)
                assert side.link.open(SocketEnd(end)) == number
            side.link.end_source(1, drain=True)
            said = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(raw, 1 << 17), LONG)
            # The stream that was opened last is opened by its payload: the others' numbers come before it.
            expected = b"".join(Header(Kind.WINDOW, Flag.SYN, number, 0).encode() for number in (1, 3))
            for number, word in words.items():
                flags = Flag.SYN if number == 5 else Flag(0)
                expected += Header(Kind.DATA, flags, number, len(word)).encode() + word
            if len(last) <= SPARSE:
                # The first stream has another turn. In a control frame its end would go before what it says.
                expected += Header(Kind.DATA, Flag.FIN, 1, 0).encode()
            assert said == expected
            side.link.close(reset=True)
            side.poller.close()

    run(case)


def test_an_end_goes_with_what_another_stream_says(run: Callable[[Case], None]) -> None:
    """A connection that ended when the next one began cost both sides a send of its own."""

    async def case() -> None:
        hole, raw = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        raw.setblocking(False)
        side = make_side(hole, leads=True)
        (over, over_end), (near, end) = socket.socketpair(), socket.socketpair()
        with raw, over, near:
            side.link.open(SocketEnd(over_end))
            side.link.end_source(1, drain=True)
            near.send(b"next")
            side.link.open(SocketEnd(end))
            opened = b"".join(Header(Kind.WINDOW, Flag.SYN, number, 0).encode() for number in (1, 3))
            expected = opened + Header(Kind.WINDOW, Flag.FIN, 1, 0).encode()
            expected += Header(Kind.DATA, Flag(0), 3, 4).encode() + b"next"
            assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(raw, 1000), LONG) == expected
            side.link.close(reset=True)
            side.poller.close()

    run(case)


def interactive_at(side: Side) -> float:
    assert side.link.carrier is not None
    return side.link.carrier.outgoing.tempo.interactive_at


def test_a_small_message_shares_the_hole_where_another_stream_waits(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        async with two_sides(4608) as (left, right):
            near, far = await connect(left, right)
            bulk, bulk_far = await connect(left, right)
            with near, far, bulk, bulk_far:
                for sock in (near, bulk):
                    sock.send(b"1")
                await received(right, 2)
                count = 2 + bulk.send(bytes(SPARSE + 1))
                await received(right, count)
                # The short rest of what was longer, while another stream waits.
                count += near.send(bytes(2 * FIRST_FRAME))
                await received(right, count - 2 * FIRST_FRAME + 1)
                count += bulk.send(b"2")
                await received(right, count)
                assert interactive_at(left) == float("-inf")
                # Until it is known again as one of small messages.
                count += near.send(b"3")
                await received(right, count)
                count += bulk.send(bytes(2 * FIRST_FRAME))
                await received(right, count - 2 * FIRST_FRAME + 1)
                count += near.send(b"4")
                await received(right, count)
                assert interactive_at(left) > float("-inf")
                assert interactive_at(right) == float("-inf")

    run(case)


def test_the_poller_spins_for_small_messages_only(run: Callable[[Case], None]) -> None:
    """Behind one message it spun for all the bulk that was spliced, and for the loop while that had work of ours."""

    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with opened_by_hand(1) as (side, raw, (number,)):
            ours, theirs = socket.socketpair()

            def spins() -> bool:
                return side.poller.may_spin

            with theirs:
                theirs.setblocking(False)
                side.link.join(number, SocketEnd(ours))
                await loop.sock_sendall(raw, Header(Kind.DATA, Flag(0), number, 10).encode() + bytes(10))
                await received(side, 10)
                assert spins()
                half = Header(Kind.DATA, Flag(0), number, 4 * BULK).encode() + bytes(2 * BULK)
                await loop.sock_sendall(raw, half)
                await received(side, 10 + 2 * BULK)
                assert not spins()
                before = side.link.bytes_out
                await loop.sock_sendall(theirs, b"!")
                async with asyncio.timeout(LONG):
                    while side.link.bytes_out == before:  # noqa: ASYNC110 - there is no event to wait for
                        await asyncio.sleep(0)
                assert spins()
                side.link.announce(number, 1)
                assert not spins()

    run(case)


def test_who_sent_little_goes_before_who_sends_much(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        async with opened_by_hand(3) as (side, _, numbers):
            pairs = [socket.socketpair() for _ in numbers]
            with contextlib.ExitStack() as stack:
                for number, (ours, theirs) in zip(numbers, pairs, strict=True):
                    stack.enter_context(theirs)
                    side.link.join(number, SocketEnd(ours))
                async with asyncio.timeout(LONG):
                    while side.link._turns.ring:  # noqa: ASYNC110 - there is no event to wait for
                        await asyncio.sleep(0)
                streams = side.link._mux.streams
                # No turn comes: the hole takes nothing.
                assert side.link.carrier is not None
                side.link.carrier.outgoing.writable = False
                streams[numbers[0]].source.sparse = streams[numbers[1]].source.sparse = False
                for number in numbers:
                    side.link._on_source(streams[number], READ)
                assert [stream.number for stream in side.link._turns.ring] == [numbers[2], *numbers[:2]]

    run(case)
