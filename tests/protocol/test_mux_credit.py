"""Credit and memory: a slow reader stops its own writer, and the link holds 64 MiB at most."""

from __future__ import annotations

import pytest

from punchtunnel.errors import PeerError
from punchtunnel.protocol.credit import INITIAL_WINDOW, MAX_UNREAD, MAX_WINDOW_SUM, MIN_GROWTH
from punchtunnel.protocol.events import Credited, Event, Gone, Opened, Pong, Reset, StreamState
from punchtunnel.protocol.frames import HEADER, Flag, Header, Kind, Reason
from punchtunnel.protocol.mux import Mux
from tests.protocol.test_mux import by_number, data, follower_with, receive, window

KIB = 1024
MIB = 1024 * KIB
ZEROS = memoryview(bytes(INITIAL_WINDOW))


def grant(mux: Mux[StreamState]) -> dict[int, int]:
    """Take the control frames and return the credit that they give, by stream."""
    control, credit = mux.take_control(), {}
    for position in range(0, len(control), HEADER.size):
        _, kind, _, stream, length = HEADER.unpack_from(control, position)
        assert kind == Kind.WINDOW
        credit[stream] = length
    return credit


def test_credit_is_spent_by_sending_and_comes_back_with_a_word() -> None:
    mux = follower_with(1)
    assert mux.streams[1].credit == 256 * KIB
    mux.data_header(mux.streams[1], 100 * KIB)
    assert mux.streams[1].credit == 156 * KIB
    assert receive(mux, window(1, 1)) == [Credited(1)]
    mux.data_header(mux.streams[1], mux.streams[1].credit)
    assert receive(mux, window(1, 7)) == [Credited(1)]
    assert mux.streams[1].credit == 7


def test_credit_for_a_finished_stream_wakes_nobody() -> None:
    mux = follower_with(1)
    mux.data_header(mux.streams[1], INITIAL_WINDOW)
    mux.finish(mux.streams[1])
    assert receive(mux, window(1, 7)) == []


def test_credit_returns_in_halves_of_the_window_and_only_for_what_was_consumed() -> None:
    mux = follower_with(1)
    receive(mux, data(1, bytes(256 * KIB)))
    mux.consumed(mux.streams[1], 127 * KIB, 1.0)
    assert grant(mux) == {}
    mux.consumed(mux.streams[1], 1 * KIB, 1.0)
    assert grant(mux) == {1: 128 * KIB}
    receive(mux, data(1, bytes(128 * KIB)))
    with pytest.raises(PeerError):
        receive(mux, data(1, b"x"))


def test_no_credit_returns_after_the_end_of_a_stream() -> None:
    mux = follower_with(1)
    receive(mux, data(1, bytes(200 * KIB), Flag.FIN))
    mux.consumed(mux.streams[1], 200 * KIB, 1.0)
    assert grant(mux) == {}


def turn(mux: Mux[StreamState], stream: int, length: int, now: float) -> int:
    """Receive and consume `length` bytes and return the credit that came back."""
    for start in range(0, length, len(ZEROS)):
        receive(mux, data(stream, bytes(ZEROS[: length - start])), now=now)
    mux.consumed(mux.streams[stream], length, now)
    return grant(mux).get(stream, 0)


def measured(mux: Mux[StreamState], rtt: float) -> Mux[StreamState]:
    number = mux.ping(0.0)
    mux.take_control()
    assert receive(mux, Header(Kind.PING, Flag.ACK, 0, number).encode(), now=rtt) == [Pong(number, rtt)]
    return mux


def test_a_window_that_limits_its_stream_grows_fourfold_up_to_24_mib() -> None:
    mux = measured(follower_with(1), 0.1)
    size, now, sizes = INITIAL_WINDOW, 0.0, []
    for _ in range(4):
        now += 0.15
        size += turn(mux, 1, size // 2, now) - size // 2
        sizes.append(size // KIB)
    assert sizes == [1024, 4096, 16384, 24576]
    assert turn(mux, 1, size // 2, now + 0.15) == size // 2


def test_a_window_that_does_not_limit_its_stream_stays() -> None:
    mux = measured(follower_with(1), 0.1)
    assert turn(mux, 1, 128 * KIB, 0.21) == 128 * KIB


def test_a_window_stays_until_the_round_trip_is_known() -> None:
    assert turn(follower_with(1), 1, 128 * KIB, 0.0001) == 128 * KIB


def grow(mux: Mux[StreamState], sizes: dict[int, int], stream: int) -> None:
    """Let a stream do all that its window allows, once."""
    size = sizes.get(stream, INITIAL_WINDOW)
    sizes[stream] = size + turn(mux, stream, size // 2, 0.0) - size // 2


def test_all_windows_together_never_grow_beyond_what_fits_into_64_mib() -> None:
    streams = range(1, 121, 2)
    mux, sizes = measured(follower_with(*streams), 1.0), dict[int, int]()
    for _ in range(20):
        for stream in streams:
            grow(mux, sizes, stream)
    assert sum(sizes.values()) <= MAX_WINDOW_SUM
    largest = max(sizes, key=lambda stream: sizes[stream])
    before = sizes[119]
    mux.reset(mux.streams[largest])
    mux.take_control()
    grow(mux, sizes, 119)
    assert sizes[119] > before, "what a stream had is free for others"


@pytest.mark.parametrize("open_streams", [4, 1000])
def test_a_stream_leaves_as_much_to_grow_by_as_it_takes(open_streams: int) -> None:
    """The first ones that work would otherwise have it all, for as long as they are open."""
    streams = range(1, 2 * open_streams, 2)
    mux, sizes = measured(follower_with(*streams), 1.0), dict[int, int]()
    for stream in streams[:4]:
        for _ in range(30):
            grow(mux, sizes, stream)
    found = [sizes[stream] for stream in streams[:4]]
    assert found == sorted(found, reverse=True)
    assert found[0] >= 16 * MIB
    assert found[3] >= 2 * MIB
    assert sum(found) - 4 * INITIAL_WINDOW <= (MAX_WINDOW_SUM if open_streams == 4 else MIN_GROWTH)


def test_readers_that_stall_with_full_windows_cost_no_stream_that_comes_later() -> None:
    """A small message on a new stream once reset the one that had 32 MiB unread."""
    streams = range(1, 9, 2)
    mux, sizes = measured(follower_with(*streams), 1.0), dict[int, int]()
    for stream in streams:
        for _ in range(30):
            grow(mux, sizes, stream)
    for stream in streams:
        for left in range(sizes[stream], 0, -INITIAL_WINDOW):
            assert fill(mux, stream, min(left, INITIAL_WINDOW)) == []
    for new in range(9, 9 + 2 * 32, 2):
        assert receive(mux, window(new, flags=Flag.SYN)) == [Opened(new)]
        assert fill(mux, new, INITIAL_WINDOW) == []


def fill(mux: Mux[StreamState], stream: int, length: int) -> list[Event[int]]:
    """Receive `length` unread bytes, without an event for each piece of payload."""
    header = Header(Kind.DATA, Flag(0), stream, length).encode()
    return [by_number(event) for piece in (header, ZEROS[:length]) for event in mux.receive(memoryview(piece), 0.0)][
        :-1
    ]


def test_more_than_64_mib_unread_resets_the_stream_that_holds_most() -> None:
    streams = list(range(1, 2 * 259, 2))
    mux = follower_with(*streams)
    receive(mux, window(streams[7], flags=Flag.ACK))
    mux.take_control()
    whole = MAX_UNREAD // INITIAL_WINDOW
    for stream in streams[:whole]:
        length = INITIAL_WINDOW if stream == streams[7] else INITIAL_WINDOW - KIB
        assert fill(mux, stream, length) == []
    rest = MAX_UNREAD - whole * INITIAL_WINDOW + (whole - 1) * KIB
    assert fill(mux, streams[256], 250 * KIB) == []
    assert fill(mux, streams[257], rest - 250 * KIB) == []
    assert fill(mux, streams[257], 1) == [Gone(streams[7], Reset(Reason.MEMORY, True))]
    assert mux.take_control() == window(streams[7], Reason.MEMORY, Flag.RST)
    assert fill(mux, streams[258], 100 * KIB) == [], "what the reset stream held is free again"
