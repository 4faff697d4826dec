"""A link leaves what it has read in one piece after the longest turn, and goes on with it in the next."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.errors import PeerError
from punchtunnel.link import link
from punchtunnel.link.carrier import Carrier
from punchtunnel.protocol.events import Reset
from punchtunnel.protocol.frames import HEADER, Flag, Header, Kind, Reason
from punchtunnel.protocol.records import MAX_PLAINTEXT, OVERHEAD, Opener, Sealer

from .links import LONG, Case, Side, make_waiting_side, receive_all

KEYS = bytes(range(32)), bytes(range(32, 64))
PAIRS = 1000
# Events of one turn at most.
TURN = 100


def pair(number: int) -> bytes:
    flags = Flag.SYN, Flag.RST
    return b"".join(Header(Kind.WINDOW, flag, number, 0).encode() for flag in flags)


def data(number: int, payload: bytes, flags: int = 0) -> bytes:
    return Header(Kind.DATA, flags, number, len(payload)).encode() + payload


def make(sealed: bool) -> tuple[Side, socket.socket, Callable[[bytes], bytes]]:
    """Return a link that leads, the other end of its hole, and what makes one piece of bytes for it."""
    here, there = socket.socketpair()
    there.setblocking(False)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sealer = Sealer(KEYS[0], True)

    def seal(plaintext: bytes) -> bytes:
        record = memoryview(bytearray(MAX_PLAINTEXT + OVERHEAD))
        return bytes(record[: sealer.seal_into(memoryview(plaintext), record)])

    side = make_waiting_side(True)
    seals = (Sealer(KEYS[1], True), Opener(KEYS[0], True)) if sealed else None
    side.link.attach(Carrier(here, seals))
    return side, there, seal if sealed else bytes


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every turn is too long already when the clock is looked at."""
    monkeypatch.setattr(link, "LONGEST_TURN", -1.0)


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
def test_thousands_of_opens_in_one_piece_leave_turns_to_others(run: Callable[[Case], None], sealed: bool) -> None:
    """10,900 pairs of SYN and RST fit into one record: SIGTERM took 5 s, and a program's loop stood still for 2 s."""

    async def case() -> None:
        side, raw, piece = make(sealed)
        with raw:
            raw.send(piece(b"".join(pair(2 * number) for number in range(1, PAIRS + 1))))
            seen, most = 0, 0
            async with asyncio.timeout(LONG):
                while seen < 2 * PAIRS:
                    await asyncio.sleep(0)
                    now = side.opened.qsize() + side.ended.qsize()
                    seen, most = now, max(most, now - seen)
            assert most <= TURN
            assert [side.opened.get_nowait() for _ in range(PAIRS)] == [2 * number for number in range(1, PAIRS + 1)]
            raw.send(piece(pair(2 * PAIRS + 2)))
            assert await asyncio.wait_for(side.opened.get(), LONG) == 2 * PAIRS + 2
            side.link.close(reset=True)
            side.poller.close()

    run(case)


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "sealed"])
def test_payload_between_turns_arrives_whole_and_in_order(run: Callable[[Case], None], sealed: bool) -> None:
    """More comes from the hole meanwhile: it must not be read over what is not handled yet."""

    async def case() -> None:
        side, raw, piece = make(sealed)
        with raw:
            raw.send(piece(Header(Kind.WINDOW, Flag.SYN, 2, 0).encode()))
            assert await asyncio.wait_for(side.opened.get(), LONG) == 2
            ours, theirs = socket.socketpair()
            with theirs:
                theirs.setblocking(False)
                side.link.join(2, SocketEnd(ours))
                words = [b"%07d " % number for number in range(3000)]
                first, second = words[:1500], words[1500:]
                raw.send(piece(b"".join(data(2, word) for word in first)))
                raw.send(piece(b"".join(data(2, word) for word in second) + data(2, b"", Flag.FIN)))
                assert await receive_all(theirs) == b"".join(words)
            side.link.close(reset=True)
            side.poller.close()

    run(case)


def test_what_is_left_is_forgotten_when_the_link_closes(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        side, raw, _ = make(sealed=False)
        with raw:
            raw.send(b"".join(pair(2 * number) for number in range(1, PAIRS + 1)))
            while not side.opened.qsize():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0)
            side.link.close(reset=True)
            told = side.opened.qsize()
            for _ in range(10):
                await asyncio.sleep(0)
            assert side.opened.qsize() == told <= TURN
            side.poller.close()

    run(case)


def test_a_protocol_error_in_what_is_left_ends_the_link(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        side, raw, _ = make(sealed=False)
        with raw:
            raw.send(b"".join(pair(2 * number) for number in range(1, PAIRS + 1)) + b"\xff" * HEADER.size)
            assert isinstance(await asyncio.wait_for(side.lost.get(), LONG), PeerError)
            assert side.opened.qsize() == PAIRS
            side.link.close(reset=True)
            side.poller.close()

    run(case)


def test_a_stream_that_was_reset_before_its_first_byte_was_given_up(run: Callable[[Case], None]) -> None:
    """And none that was reset after an answer, or that was ours."""

    async def case() -> None:
        side, raw, _ = make(sealed=False)
        loop = asyncio.get_running_loop()
        with raw:
            raw.send(pair(2))
            assert await asyncio.wait_for(side.ended.get(), LONG) == (2, Reset(Reason.RESET, False, given_up=True))
            raw.send(Header(Kind.WINDOW, Flag.SYN, 4, 0).encode())
            ours, theirs = socket.socketpair()
            with theirs:
                while await asyncio.wait_for(side.opened.get(), LONG) != 4:
                    pass
                side.link.join(4, SocketEnd(ours))
                theirs.send(b"an answer")
                while b"an answer" not in await asyncio.wait_for(loop.sock_recv(raw, 1000), LONG):
                    pass
                raw.send(Header(Kind.WINDOW, Flag.RST, 4, 0).encode())
                assert await asyncio.wait_for(side.ended.get(), LONG) == (4, Reset(Reason.RESET, True))
            side.link.close(reset=True)
            side.poller.close()

    run(case)


@pytest.mark.parametrize("tail", [b"", b"\xff" * HEADER.size], ids=["well", "with a protocol error"])
def test_a_link_that_gives_its_hole_away_handles_what_is_left_first(run: Callable[[Case], None], tail: bytes) -> None:
    """It may end the link: then there is no hole to give away, and giving it was a KeyError."""

    async def case() -> None:
        side, raw, _ = make(sealed=False)
        with raw:
            raw.send(b"".join(pair(2 * number) for number in range(1, PAIRS + 1)) + tail)
            while not side.opened.qsize():  # noqa: ASYNC110 - there is no event to wait for
                await asyncio.sleep(0)
            assert side.opened.qsize() < PAIRS
            carrier = side.link.detach()
            assert side.opened.qsize() == PAIRS
            assert (carrier is None) == bool(tail)
            assert side.link.is_open == (not tail)
            assert side.lost.qsize() == bool(tail)
            if carrier is not None:
                carrier.close(reset=True)
            side.link.close(reset=True)
            side.poller.close()

    run(case)
