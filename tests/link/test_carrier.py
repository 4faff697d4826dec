"""What carries a link: the states by their table, and streams that outlive a carrier."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.link.carrier import Carrier
from punchtunnel.link.incoming import NEAR
from punchtunnel.link.outgoing import PREFIX
from punchtunnel.link.source import Ending
from punchtunnel.link.states import TRANSITIONS, Input, State
from punchtunnel.link.stream import Stream
from punchtunnel.link.tempo import MIN_SAMPLES
from punchtunnel.link.turns import Turn
from punchtunnel.protocol.frames import HEADER, Flag, Header, Kind
from punchtunnel.protocol.mux import Mux
from punchtunnel.protocol.resume import KEPT_NEARBY, Journal
from punchtunnel.system.tcp import Progress

from .links import LONG, Case, Side, connect, make_waiting_side, two_sides

pytestmark = pytest.mark.usefixtures("data_path")


def test_every_state_can_be_reached_and_closed() -> None:
    reached = {State.WAITING}
    for _ in State:
        reached |= {after for (before, _), after in TRANSITIONS.items() if before in reached}
    assert reached == set(State)
    assert all(TRANSITIONS[state, Input.CLOSE] is State.CLOSED for state in State)


def test_what_has_ended_is_never_carried_again() -> None:
    after = {state: {new for (old, _), new in TRANSITIONS.items() if old is state} for state in State}
    assert after[State.CLOSED] == {State.CLOSED}
    assert after[State.ENDED] == {State.CLOSED}


@contextlib.asynccontextmanager
async def waiting_side() -> AsyncIterator[Side]:
    """A link without a carrier."""
    side = make_waiting_side(True)
    try:
        yield side
    finally:
        side.link.close(reset=True)
        side.poller.close()


async def lose_with_a_rest(side: Side, peer: socket.socket) -> socket.socket:
    """End the hole while something that came whole waits for a slow reader, and return that."""
    near, end = socket.socketpair()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    number = side.link.open(SocketEnd(end))
    data = bytes(200_000)
    peer.setblocking(False)
    frame = Header(Kind.DATA, Flag.FIN, number, len(data)).encode() + data
    await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(peer, frame), LONG)
    peer.close()
    async with asyncio.timeout(LONG):
        while side.link.is_open:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0)
    return near


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("given", [Input.ATTACH, Input.DETACH, Input.CLOSE])
def test_a_link_does_what_the_table_says(run: Callable[[Case], None], state: State, given: Input) -> None:
    async def case() -> None:
        (hole, peer), (other, other_peer) = socket.socketpair(), socket.socketpair()
        first, spare = Carrier(hole), Carrier(other)
        with peer, other_peer, contextlib.ExitStack() as stack:
            async with waiting_side() as side:
                link = side.link
                if state is not State.WAITING:
                    link.attach(first)
                if state is State.ENDED:
                    stack.enter_context(await lose_with_a_rest(side, peer))
                elif state is State.CLOSED:
                    link.close(reset=True)
                assert link._state is state

                def act() -> None:
                    if given is Input.ATTACH:
                        link.attach(spare)
                    elif given is Input.DETACH:
                        link.detach()
                    else:
                        link.close(reset=True)

                if (state, given) in TRANSITIONS:
                    act()
                    assert link._state is TRANSITIONS[state, given]
                else:
                    with pytest.raises(KeyError):
                        act()
                    assert link._state is state
            for carrier in (first, spare):
                carrier.close(reset=True)

    run(case)


def test_a_hole_that_ends_with_nothing_left_to_write_closes_the_link(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        hole, peer = socket.socketpair()
        async with waiting_side() as side:
            side.link.attach(Carrier(hole))
            peer.close()
            assert await asyncio.wait_for(side.lost.get(), LONG) is None
            assert side.link._state is State.CLOSED

    run(case)


def test_a_link_that_waits_keeps_its_streams_and_sends_once_it_is_carried(run: Callable[[Case], None]) -> None:
    async def case() -> None:
        loop = asyncio.get_running_loop()
        hole, peer = socket.socketpair()
        peer.setblocking(False)
        near, end = socket.socketpair()
        with peer, near:
            async with waiting_side() as side:
                number = side.link.open(SocketEnd(end))
                near.send(b"early")
                for _ in range(5):
                    await asyncio.sleep(0)
                assert side.link.is_open
                assert side.link.stream_count == 1
                side.link.attach(Carrier(hole))
                frame = Header(Kind.DATA, Flag.SYN, number, 5).encode() + b"early"
                assert await asyncio.wait_for(loop.sock_recv(peer, 1000), LONG) == frame

    run(case)


def test_streams_go_on_over_another_carrier(run: Callable[[Case], None]) -> None:
    """Nothing is in flight when the carriers change; making up for what is would be the owner's."""

    async def case() -> None:
        loop = asyncio.get_running_loop()
        async with two_sides() as (left, right):
            near, far = await connect(left, right)
            with near, far:
                await loop.sock_sendall(near, b"over the first, ")
                assert await asyncio.wait_for(loop.sock_recv(far, 100), LONG) == b"over the first, "
                old = [side.link.detach() for side in (left, right)]
                await loop.sock_sendall(near, b"and there")
                await loop.sock_sendall(far, b"and back")
                for _ in range(5):
                    await asyncio.sleep(0)
                assert [side.link.stream_count for side in (left, right)] == [1, 1]
                for carrier in old:
                    assert carrier is not None
                    carrier.close(reset=True)
                for side, hole in zip((left, right), socket.socketpair(), strict=True):
                    side.link.attach(Carrier(hole))
                assert await asyncio.wait_for(loop.sock_recv(far, 100), LONG) == b"and there"
                assert await asyncio.wait_for(loop.sock_recv(near, 100), LONG) == b"and back"
                assert left.ended.empty()
                assert right.ended.empty()

    run(case)


@dataclass
class ThreeTurns:
    """Two streams that end without a payload, and one that has some."""

    streams: list[Stream]
    ring: deque[Stream] = field(init=False)

    def __post_init__(self) -> None:
        self.ring = deque(self.streams)

    def load(self, *_: object) -> Turn:
        """Give the first one its turn."""
        stream = self.ring.popleft()
        return (stream, 0, Ending(None)) if self.ring else (stream, 10, None)


@pytest.mark.parametrize("waiting", range(PREFIX // HEADER.size - 6, PREFIX // HEADER.size + 2))
def test_what_waits_has_room_before_a_payload_also_when_streams_end_meanwhile(waiting: int) -> None:
    here, there = socket.socketpair()
    with there:
        carrier, mux = Carrier(here), Mux(True, Stream)
        streams = [mux.open(0.0) for _ in range(3)]
        mux.take_control()
        for _ in range(waiting):
            mux.ping(0.0)
        turns = ThreeTurns(streams)
        while turns.ring or mux.control:
            carrier.send(mux, cast("Any", turns))
        frames = there.recv(65536)
        assert len(frames) == (waiting + 3) * HEADER.size + 10
        carrier.close(reset=True)


@pytest.mark.parametrize(
    ("relayed", "kept", "round_trip", "samples", "guess", "near"),
    [
        (False, True, NEAR / 2, MIN_SAMPLES, False, True),
        (False, True, NEAR * 2, MIN_SAMPLES, True, False),
        (False, True, NEAR / 2, MIN_SAMPLES - 1, False, False),
        (False, True, NEAR * 2, MIN_SAMPLES - 1, True, True),
        (True, True, NEAR / 2, MIN_SAMPLES, False, False),
        (True, False, NEAR / 2, MIN_SAMPLES, False, False),
    ],
)
def test_a_peer_is_near_as_guessed_until_that_is_measured_and_never_behind_a_relay(
    relayed: bool, kept: bool, round_trip: float, samples: int, guess: bool, near: bool
) -> None:
    here, there = socket.socketpair()
    with there:
        journal = Journal() if kept else None
        carrier, mux = Carrier(here, journal=journal, relayed=relayed), Mux(True, Stream)
        carrier.incoming.is_near = guess
        progress = Progress(round_trip, 1e9, samples)
        carrier.outgoing.tempo.update(time.monotonic(), 0, filled=False, waited=False, progress=progress)
        assert not list(carrier.receive(mux, b""))
        assert carrier.incoming.is_near is near
        assert journal is None or (journal.limit == KEPT_NEARBY) is near
        carrier.close(reset=True)


def test_a_hole_whose_round_trip_no_kernel_tells_is_far() -> None:
    here, there = socket.socketpair()
    with there:
        carrier = Carrier(here)
        assert not carrier.incoming.is_near
        carrier.close(reset=True)
