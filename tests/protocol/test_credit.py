"""The windows of one link, without frames: what a stream may, and what all of them may hold."""

from __future__ import annotations

import random

import pytest

from punchtunnel.protocol.credit import (
    GROWTH_FACTOR,
    INITIAL_WINDOW,
    MAX_OWED,
    MAX_UNREAD,
    MAX_WINDOW,
    MAX_WINDOW_SUM,
    MIN_GROWTH,
    Memory,
    Windows,
    largest,
)

RTT = 0.1


def opened(memory: Memory) -> Windows:
    stream = Windows(updated=0.0)
    memory.open(stream)
    return stream


def use_up(memory: Memory, stream: Windows, now: float = 0.0, rtt: float | None = RTT) -> int:
    """Receive and consume just so much that credit is due, and return it."""
    length = min(stream.window // 2, MAX_OWED) - stream.owed
    memory.receive(stream, length)
    assert memory.consume(stream, length)
    return memory.give_back(stream, now, rtt, coming=0)


def test_a_stream_begins_with_what_yamux_gives() -> None:
    stream = Windows(updated=0.0)
    assert stream.credit == stream.window == stream.allowed == INITIAL_WINDOW


@pytest.mark.parametrize("seed", range(5))
def test_allowed_unread_and_owed_are_always_the_window(seed: int) -> None:
    rng, memory = random.Random(seed), Memory()
    stream, now = opened(memory), 0.0
    for _ in range(2000):
        now += rng.choice([0.0, 0.001, 0.01])
        if rng.random() < 0.5:
            memory.receive(stream, rng.randint(0, stream.allowed))
        elif memory.consume(stream, rng.randint(0, stream.unread)):
            before = stream.owed
            assert memory.give_back(stream, now, RTT, coming=rng.choice([0, stream.unread])) >= before > 0
            assert stream.owed == 0
        assert stream.allowed + stream.unread + stream.owed == stream.window <= MAX_WINDOW
        assert min(stream.allowed, stream.unread, stream.owed) >= 0
    assert stream.window > INITIAL_WINDOW


def test_credit_is_due_at_half_a_window_or_a_mebibyte() -> None:
    memory = Memory()
    stream = opened(memory)
    memory.receive(stream, INITIAL_WINDOW)
    assert not memory.consume(stream, INITIAL_WINDOW // 2 - 1)
    assert memory.consume(stream, 1)
    large = Windows(updated=0.0, window=MAX_WINDOW, allowed=MAX_WINDOW)
    memory.open(large)
    memory.receive(large, MAX_OWED)
    assert not memory.consume(large, MAX_OWED - 1)
    assert memory.consume(large, 1)


def test_a_window_that_limits_its_stream_grows_by_the_factor() -> None:
    memory = Memory()
    stream = opened(memory)
    # Half a window in less than two round trips.
    credit = use_up(memory, stream, now=1.9 * RTT)
    assert stream.window == GROWTH_FACTOR * INITIAL_WINDOW
    assert credit == INITIAL_WINDOW // 2 + (GROWTH_FACTOR - 1) * INITIAL_WINDOW


@pytest.mark.parametrize(
    ("now", "rtt"), [(2.1 * RTT, RTT), (0.0, None)], ids=["the stream is slow", "the round trip is not known"]
)
def test_a_window_that_does_not_limit_its_stream_stays(now: float, rtt: float | None) -> None:
    memory = Memory()
    stream = opened(memory)
    assert use_up(memory, stream, now, rtt) == INITIAL_WINDOW // 2
    assert stream.window == INITIAL_WINDOW


@pytest.mark.parametrize("coming", [0, 1000])
def test_a_window_grows_only_for_a_reader_that_keeps_pace(coming: int) -> None:
    """What the frame that is being received still lacks is not left here by anybody."""
    memory = Memory()
    stream = opened(memory)
    memory.receive(stream, INITIAL_WINDOW // 2 + 1000)
    memory.consume(stream, INITIAL_WINDOW // 2)
    memory.give_back(stream, 0.0, RTT, coming=coming)
    assert (stream.window > INITIAL_WINDOW) == (coming == 1000)


def test_one_stream_alone_grows_to_the_most_and_a_second_one_still_can() -> None:
    memory = Memory()
    one, other = opened(memory), opened(memory)
    for _ in range(30):
        use_up(memory, one)
    assert one.window == MAX_WINDOW
    for _ in range(30):
        use_up(memory, other)
    assert MAX_WINDOW // 2 < other.window <= MAX_WINDOW


@pytest.mark.parametrize("count", [2, 60, 1000])
def test_windows_never_grow_beyond_the_bound(count: int) -> None:
    memory = Memory()
    streams = [opened(memory) for _ in range(count)]
    for _ in range(10):
        for stream in streams:
            use_up(memory, stream)
    total, grown = (sum(stream.window for stream in streams), sum(stream.window - INITIAL_WINDOW for stream in streams))
    assert total <= MAX_WINDOW_SUM or grown <= MIN_GROWTH


def test_what_a_closed_stream_had_is_free_for_others() -> None:
    memory = Memory()
    streams = [opened(memory) for _ in range(8)]
    for _ in range(30):
        for stream in streams:
            use_up(memory, stream)
    last = streams[-1]
    before = last.window
    memory.close(streams[0])
    use_up(memory, last)
    assert last.window > before


def test_the_bound_of_all_unread_bytes_is_told_and_a_closed_stream_frees_its_own() -> None:
    memory = Memory()
    streams = [opened(memory) for _ in range(MAX_UNREAD // INITIAL_WINDOW + 1)]
    rest = MAX_UNREAD % INITIAL_WINDOW
    assert all(memory.receive(stream, INITIAL_WINDOW) for stream in streams[:-1])
    assert memory.receive(streams[-1], rest)
    assert not memory.receive(streams[-1], 1)
    memory.close(streams[0])
    assert memory.receive(streams[-1], 1)


def test_the_largest_is_the_one_that_holds_most_not_the_one_that_may() -> None:
    memory = Memory()
    wide, full = opened(memory), opened(memory)
    use_up(memory, wide)
    memory.receive(full, 2)
    memory.receive(wide, 1)
    assert largest([wide, full]) is full
