"""Two sealed links with somebody between them who changes what passes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.errors import LinkError, PeerError
from punchtunnel.link.carrier import Carrier
from punchtunnel.protocol.records import HEADER, OVERHEAD, Opener, Sealer

from .links import LONG, Case, Side, connect, make_waiting_side, receive_all, send

KEYS = bytes(range(32)), bytes(range(32, 64))
CIPHERS = pytest.mark.parametrize("hardware_aes", [True, False], ids=["AES", "ChaCha20"])

# One change of the stream; takes what has come, returns what passes and what waits.
Change = Callable[[bytes], bytes]


@dataclass
class Tamper:
    """Changes a stream at `place` once `room` bytes behind it have come.

    Attributes:
        done: The change has been made.
    """

    place: int
    room: int
    change: Change
    done: bool = False
    _passed: int = 0
    _waiting: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """Return what passes now."""
        if self.done:
            return data
        self._waiting += data
        before = max(0, min(self.place - self._passed, len(self._waiting)))
        passing, self._waiting = self._waiting[:before], self._waiting[before:]
        self._passed += before
        if self._passed == self.place and len(self._waiting) >= self.room:
            self.done = True
            passing += self.change(self._waiting[: self.room]) + self._waiting[self.room :]
            self._waiting = b""
        return passing


class RecordTamper:
    """Changes two whole records that follow each other; the sizes are there for everybody to read."""

    def __init__(self, index: int, change: Callable[[list[bytes]], list[bytes]]) -> None:
        self._index, self._change = index, change
        self._waiting, self._held = b"", list[bytes]()
        self._count = 0
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Return what passes now: whole records only."""
        self._waiting += data
        passing = b""
        while len(self._waiting) >= HEADER.size:
            size = Opener.record_size(self._waiting[: HEADER.size])
            if len(self._waiting) < size:
                break
            record, self._waiting = self._waiting[:size], self._waiting[size:]
            self._count += 1
            if self.done or self._count <= self._index:
                passing += record
                continue
            self._held.append(record)
            if len(self._held) == 2:
                self.done = True
                passing += b"".join(self._change(self._held))
        return passing


class Cut(Exception):
    """The man in the middle ends the connection here."""


def nothing(_: bytes) -> bytes:
    raise Cut


class Watch:
    """Changes nothing, and remembers everything."""

    def __init__(self) -> None:
        self.seen = bytearray()

    def feed(self, data: bytes) -> bytes:
        """Let everything pass."""
        self.seen += data
        return data


Middle = Tamper | RecordTamper | Watch


async def relay(source: socket.socket, sink: socket.socket, middle: Middle) -> None:
    """Carry one direction until it ends, or is cut."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while data := await loop.sock_recv(source, 16384):
            try:
                passing = middle.feed(data)
            except Cut:
                break
            await loop.sock_sendall(sink, passing)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def make_sealed_side(sock: socket.socket, leads: bool, hardware_aes: bool) -> Side:
    side = make_waiting_side(leads)
    send_key, receive_key = KEYS if leads else KEYS[::-1]
    seals = Sealer(send_key, hardware_aes), Opener(receive_key, hardware_aes)
    side.link.attach(Carrier(sock, seals))
    return side


@contextlib.asynccontextmanager
async def two_sealed_sides(
    there: Middle, back: Middle | None = None, hardware_aes: bool = True
) -> AsyncIterator[tuple[Side, Side]]:
    """Join two sealed links through a relay that changes what goes `there`, from the left to the right."""
    (left_hole, near), (far, right_hole) = socket.socketpair(), socket.socketpair()
    for sock in (near, far):
        sock.setblocking(False)
    tasks = [
        asyncio.create_task(relay(near, far, there)),
        asyncio.create_task(relay(far, near, back or Watch())),
    ]
    sides = make_sealed_side(left_hole, True, hardware_aes), make_sealed_side(right_hole, False, hardware_aes)
    try:
        yield sides
    finally:
        for side in sides:
            side.link.close(reset=False)
            side.poller.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        near.close()
        far.close()


@CIPHERS
def test_every_byte_arrives_in_both_directions_and_none_can_be_read_between(
    run: Callable[[Case], None], hardware_aes: bool
) -> None:
    async def case() -> None:
        there, back = Watch(), Watch()
        async with two_sealed_sides(there, back, hardware_aes) as (left, right):
            near, far = await connect(left, right)
            one, other = os.urandom(3_000_000), b"plain words " * 100_000
            with near, far:
                _, _, got_one, got_other = await asyncio.gather(
                    send(near, one), send(far, other), receive_all(far), receive_all(near)
                )
            assert got_one == one
            assert got_other == other
            for side in (left, right):
                assert await asyncio.wait_for(side.ended.get(), LONG) == (1, None)
        assert b"plain wo" not in back.seen
        seen = bytes(there.seen)
        assert not any(one[place : place + 8] in seen for place in range(0, len(one), 50_021))

    run(case)


def test_a_small_write_is_a_small_record(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        there = Watch()
        async with two_sealed_sides(there) as (left, right):
            near, far = await connect(left, right)
            with near, far:
                before = len(there.seen)
                near.send(b"k")
                assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(far, 10), LONG) == b"k"
                assert len(there.seen) - before <= 100

    run(case)


async def read_until_it_ends(sock: socket.socket) -> bytes:
    """Return what comes before EOF or a reset."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := await asyncio.wait_for(loop.sock_recv(sock, 65536), LONG):
            data += piece
    return bytes(data)


async def send_while_it_lasts(sock: socket.socket, data: bytes, side: Side, pieces: random.Random) -> None:
    """Write small records first, then pieces of many sizes, until the link is gone."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        view = memoryview(data)
        # Whoever holds a record back must not hold all credit with it.
        for count in range(100, 2100, 100):
            await loop.sock_sendall(sock, view[:100])
            view = view[100:]
            while side.link.bytes_out < count and side.lost.empty():  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
        while view:
            size = pieces.choice([1, 100, 5000, 70_000, 300_000])
            await loop.sock_sendall(sock, view[:size])
            view = view[size:]


async def assert_only_a_prefix_arrives(middle: Middle, seed: int, hardware_aes: bool = True) -> LinkError | None:
    """Send more than enough through `middle`; return what the receiver's owner was told."""
    data = random.Random(seed).randbytes(2_000_000)
    async with two_sealed_sides(middle, hardware_aes=hardware_aes) as (left, right):
        near, far = await connect(left, right)
        with near, far:
            sending = asyncio.create_task(send_while_it_lasts(near, data, left, random.Random(seed)))
            got = await read_until_it_ends(far)
            error = await asyncio.wait_for(right.lost.get(), LONG)
            # Both sides know that it did not end well, and nobody takes it for an end of file.
            await asyncio.wait_for(left.lost.get(), LONG)
            await asyncio.wait_for(sending, LONG)
        assert data.startswith(got)
        assert len(got) < len(data)
        assert right.link.cut
        assert right.ended.empty(), "a stream that was cut was taken for one that had ended"
        assert middle.done  # type: ignore[union-attr]
    return error


KINDS: dict[str, tuple[int, Change]] = {
    "flips one bit": (1, lambda data: bytes([data[0] ^ 4])),
    "flips the highest bit": (1, lambda data: bytes([data[0] ^ 128])),
    "drops a byte": (1, lambda data: b""),
    "drops 1000 bytes": (1000, lambda data: b""),
    "repeats a byte": (1, lambda data: data * 2),
    "repeats 1000 bytes": (1000, lambda data: data * 2),
    "exchanges 1000 bytes": (2000, lambda data: data[1000:] + data[:1000]),
    "puts in a byte": (1, lambda data: b"\x5a" + data),
    "puts zeros": (64, lambda data: bytes(64)),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_stream_ends_with_a_prefix_and_a_sentence(run: Callable[[Case], None], kind: str, seed: int) -> None:
    async def case() -> None:
        rng = random.Random(f"{kind} {seed}")
        room, change = KINDS[kind]
        # Behind the first records (window updates, SYN) and with enough behind it
        # to end the wait for a record that seems longer now.
        middle = Tamper(rng.randrange(200, 400_000), room, change)
        error = await assert_only_a_prefix_arrives(middle, seed, hardware_aes=bool(seed % 2))
        assert isinstance(error, PeerError)
        assert str(error).startswith("the link was tampered with: ")

    run(case)


RECORD_KINDS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "repeats a record": lambda pair: [pair[0], pair[0], pair[1]],
    "drops a record": lambda pair: [pair[1]],
    "exchanges two records": lambda pair: pair[::-1],
    "sends one of the other's tags": lambda pair: [pair[0][:-16] + pair[1][-16:], pair[1]],
    "cuts the end off a record": lambda pair: [
        HEADER.pack(HEADER.unpack(pair[0][:4])[0] - 1) + pair[0][4:-17] + pair[0][-16:],
        pair[1],
    ],
    "empties a record": lambda pair: [b"\x01\0\0\0" + pair[0][-16:], pair[1]],
}


@pytest.mark.parametrize("index", [1, 2, 5, 9])
@pytest.mark.parametrize("kind", RECORD_KINDS)
def test_whole_records_cannot_be_repeated_dropped_or_moved(run: Callable[[Case], None], kind: str, index: int) -> None:
    async def case() -> None:
        middle = RecordTamper(index, RECORD_KINDS[kind])
        error = await assert_only_a_prefix_arrives(middle, index, hardware_aes=bool(index % 2))
        assert isinstance(error, PeerError)

    run(case)


@pytest.mark.parametrize("seed", range(12))
def test_a_cut_stream_is_never_taken_for_an_end_of_file(run: Callable[[Case], None], seed: int) -> None:
    async def case() -> None:
        middle = Tamper(random.Random(seed).randrange(200, 500_000), 0, cut_here)
        error = await assert_only_a_prefix_arrives(middle, seed)
        assert error is None or isinstance(error, LinkError)

    def cut_here(_: bytes) -> bytes:
        raise Cut

    run(case)


@pytest.mark.parametrize("index", [1, 2, 5])
def test_a_cut_between_two_records_is_no_end_of_file_either(run: Callable[[Case], None], index: int) -> None:
    """The link itself ends well there; its stream, which had no FIN, is cut."""

    async def case() -> None:
        def cut_here(_: list[bytes]) -> list[bytes]:
            raise Cut

        await assert_only_a_prefix_arrives(RecordTamper(index, cut_here), index)

    run(case)


@pytest.mark.parametrize(
    "said",
    [b"\0" * 100, b"\x01\0\0\0" + bytes(16), b"\x01\x08\0\x01" + bytes(40), b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    ids=["zeros", "empty record", "too long", "another protocol"],
)
def test_whoever_has_no_key_ends_the_link_and_is_told_nothing(run: Callable[[Case], None], said: bytes) -> None:
    async def case() -> None:
        peer, hole = socket.socketpair()
        side = make_sealed_side(hole, True, True)
        with peer:
            peer.sendall(said)
            assert isinstance(await asyncio.wait_for(side.lost.get(), LONG), PeerError)
            assert peer.recv(100) == b""
        side.poller.close()

    run(case)


@pytest.mark.parametrize("size", range(0, OVERHEAD + 3, 2))
def test_an_end_inside_a_record_is_a_lost_link(run: Callable[[Case], None], size: int) -> None:
    async def case() -> None:
        peer, hole = socket.socketpair()
        side = make_sealed_side(hole, True, True)
        record = memoryview(bytearray(OVERHEAD + 3))
        Sealer(KEYS[1], True).seal_into(memoryview(b"any"), record)
        with peer:
            peer.sendall(record[:size])
            peer.shutdown(socket.SHUT_WR)
            error = await asyncio.wait_for(side.lost.get(), LONG)
        assert (error is None) == (size == 0)
        side.poller.close()

    run(case)


def test_records_that_came_with_the_handshake_are_opened_first(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        near_hole, far_hole = socket.socketpair()
        left = make_sealed_side(near_hole, True, True)
        near, near_end = socket.socketpair()
        with near, far_hole:
            left.link.open(SocketEnd(near_end))
            await send(near, b"early bytes")
            far_hole.setblocking(False)
            loop = asyncio.get_running_loop()
            early = b""
            while b"\x01" not in early or left.link.bytes_out < len(b"early bytes"):
                early += await asyncio.wait_for(loop.sock_recv(far_hole, 5), LONG)
            right = make_waiting_side(False)
            seals = Sealer(KEYS[1], True), Opener(KEYS[0], True)
            right.link.attach(Carrier(far_hole, seals), early)
            far, far_end = socket.socketpair()
            far.setblocking(False)
            with far:
                right.link.join(await asyncio.wait_for(right.opened.get(), LONG), SocketEnd(far_end))
                assert await receive_all(far) == b"early bytes"
        for side in (left, right):
            side.link.close(reset=False)
            side.poller.close()

    run(case)
