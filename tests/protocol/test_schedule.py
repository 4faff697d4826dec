"""Two machines derive the same ports from their clocks."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchtunnel.protocol.schedule import (
    CLOCK_FREE,
    HIGHEST_PORT,
    LISTENERS_PER_BUCKET,
    LOWEST_PORT,
    MAX_SOCKETS,
    PortCounts,
    bucket_ports,
    channel_tag,
    current_buckets,
    first_bucket,
    next_change,
    port_counts,
    port_pairs,
    ports_of,
    retained_buckets,
)

# Halves of a second are exact in floating point, so borders are borders.
CLOCKS = st.integers(0, 2 * 4_000_000_000).map(lambda halves: halves / 2)
BUCKETS = st.integers(-(2**63), 2**63 - 1)
# No argument holds a NUL; as the end of a MAC's key it would count for nothing.
CHANNELS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)

# channel, bucket, ports.  A second implementation must find the same ones.
KNOWN_PORTS = [
    ("", CLOCK_FREE, [16049, 25830, 25645, 28315]),
    ("", 0, [22082, 21587, 29841, 29378, 24941, 31947, 11709, 19357]),
    # Its third port comes up again as the fifth, and is skipped.
    ("", 757, [11087, 13251, 28451, 14090, 29965, 27018, 15526, 15952]),
    ("", 34359738, [20243, 27792, 30728, 12664, 19686, 19127, 17623, 17342]),
    ("home", CLOCK_FREE, [29144, 20412, 24663, 18065]),
    ("home", 0, [28883, 13693, 28299, 28405, 13853, 19248, 25383, 18827]),
    ("home", 1, [26988, 32215, 14602, 29982, 20052, 14099, 28839, 22540]),
    ("büro", CLOCK_FREE, [19853, 30942, 24736, 19130]),
    ("büro", -1, [31396, 27220, 19317, 21405, 11283, 12858, 22700, 18946]),
]


# ---- buckets


@pytest.mark.parametrize(
    ("t", "older", "change"),
    [(0, -1, 25), (24.5, -1, 25), (25, 0, 75), (74.5, 0, 75), (75, 1, 125), (124.5, 1, 125), (125, 2, 175)],
)
def test_a_bucket_begins_at_25_s_and_lasts_for_two_windows(t: float, older: int, change: float) -> None:
    assert first_bucket(t) == older
    assert current_buckets(t) == (CLOCK_FREE, older, older + 1)
    assert next_change(t) == change


@given(CLOCKS)
def test_the_next_change_is_the_first_moment_with_other_buckets(t: float) -> None:
    change = next_change(t)
    assert 0 < change - t <= 50
    assert current_buckets(max(t, change - 0.5)) == current_buckets(t)
    assert current_buckets(change)[1:] == tuple(bucket + 1 for bucket in current_buckets(t)[1:])


def shared(t: float, other: float) -> set[int]:
    return set(current_buckets(t)[1:]) & set(current_buckets(other)[1:])


@settings(max_examples=500)
@given(t=CLOCKS, half_seconds=st.integers(-100, 100))
def test_clocks_that_differ_by_at_most_50_s_share_a_bucket(t: float, half_seconds: int) -> None:
    assert shared(t, t + half_seconds / 2)


@given(st.integers(0, 80_000_000))
def test_clocks_share_no_bucket_when_50_s_are_exceeded_across_two_borders(border: int) -> None:
    last_moment = 50.0 * border + 24.5
    assert shared(last_moment, last_moment + 50)
    assert not shared(last_moment, last_moment + 50.5)


@given(t=CLOCKS, late=st.integers(0, 199).map(lambda halves: 50 + halves / 2))
def test_clocks_that_differ_by_100_s_or_more_share_no_bucket(t: float, late: float) -> None:
    assert not shared(t, t + 100)
    assert not shared(t, t + late + 50)


@given(t=CLOCKS, other=CLOCKS)
def test_clocks_that_differ_by_anything_share_the_clock_free_bucket(t: float, other: float) -> None:
    assert CLOCK_FREE in current_buckets(t)
    assert CLOCK_FREE in current_buckets(other)


@given(CLOCKS)
def test_a_bucket_is_retained_for_one_window_after_it_was_current(t: float) -> None:
    assert retained_buckets(t) >= set(current_buckets(t))
    assert retained_buckets(t) >= set(current_buckets(t - 50))
    assert len(retained_buckets(t)) == 4
    assert first_bucket(t) not in retained_buckets(t + 100)


# ---- ports


@pytest.mark.parametrize(("channel", "bucket", "ports"), KNOWN_PORTS)
def test_known_ports_never_change(channel: str, bucket: int, ports: list[int]) -> None:
    assert bucket_ports(channel, bucket, len(ports)) == ports


@pytest.mark.parametrize(
    ("channel", "tag"), [("", "fcc196b49cd34045"), ("home", "db96ddf41443f80b"), ("büro", "1cd5c1b52e7cb786")]
)
def test_known_channel_tags_never_change(channel: str, tag: str) -> None:
    assert channel_tag(channel).hex() == tag


@given(channel=CHANNELS, bucket=BUCKETS)
def test_ports_are_the_words_of_the_mac_without_those_of_an_incomplete_range(channel: str, bucket: int) -> None:
    words: list[int] = []
    for block in range(8):
        message = b"punchtunnel ports 1" + bucket.to_bytes(8, "big", signed=True) + block.to_bytes(2, "big")
        words += struct.unpack(">16H", hmac.new(channel.encode(), message, hashlib.sha256).digest())
    ports = [10240 + word % 22528 for word in words if word < 2 * 22528]
    assert bucket_ports(channel, bucket, 8) == list(dict.fromkeys(ports))[:8]


@given(channel=CHANNELS, bucket=BUCKETS, count=st.integers(1, 40))
def test_ports_of_a_bucket_are_distinct_and_in_range(channel: str, bucket: int, count: int) -> None:
    ports = bucket_ports(channel, bucket, count)
    assert len(set(ports)) == len(ports) == count
    assert all(LOWEST_PORT <= port <= HIGHEST_PORT for port in ports)


@given(channel=CHANNELS, bucket=BUCKETS, count=st.integers(1, 19))
def test_a_smaller_plan_uses_the_first_ports_of_a_larger_one(channel: str, bucket: int, count: int) -> None:
    assert bucket_ports(channel, bucket, count) == bucket_ports(channel, bucket, 20)[:count]


def test_ports_are_free_of_privileged_and_ephemeral_ranges() -> None:
    assert (LOWEST_PORT, HIGHEST_PORT) == (10240, 32767)


def test_ports_are_spread_evenly() -> None:
    eighths: Counter[int] = Counter()
    for bucket in range(1000):
        eighths.update((port - 10240) // 2816 for port in bucket_ports("", bucket, 8))
    assert sorted(eighths) == list(range(8))
    assert all(880 < count < 1120 for count in eighths.values())


@given(channel=CHANNELS, t=CLOCKS)
def test_ports_of_several_buckets_come_in_their_order_and_once(channel: str, t: float) -> None:
    buckets = current_buckets(t)
    each = [bucket_ports(channel, bucket, 4 if bucket == CLOCK_FREE else 8) for bucket in buckets]
    assert ports_of(channel, buckets, PortCounts()) == list(dict.fromkeys(each[0] + each[1] + each[2]))
    assert set(ports_of(channel, buckets, PortCounts(3, 2))) <= set(ports_of(channel, buckets, PortCounts()))


@given(channel=CHANNELS, other=CHANNELS, t=CLOCKS)
def test_channels_have_their_own_ports_and_tags(channel: str, other: str, t: float) -> None:
    same = channel == other
    assert (channel_tag(channel) == channel_tag(other)) is same
    assert (
        ports_of(channel, current_buckets(t), PortCounts()) == ports_of(other, current_buckets(t), PortCounts())
    ) is same


# ---- pairs


@given(channel=CHANNELS, bucket=BUCKETS, counts=st.builds(PortCounts, st.integers(1, 8), st.integers(1, 4)))
def test_pairs_of_a_bucket_are_disjoint(channel: str, bucket: int, counts: PortCounts) -> None:
    ports = [port for pair in port_pairs(channel, (bucket,), counts) for port in pair]
    assert len(set(ports)) == len(ports) > 0
    assert set(ports) >= set(ports_of(channel, (bucket,), counts))


@given(channel=CHANNELS, t=CLOCKS, counts=st.builds(PortCounts, st.integers(1, 8), st.integers(1, 4)))
def test_both_ends_on_one_machine_share_pairs_whatever_their_plans(channel: str, t: float, counts: PortCounts) -> None:
    full = port_pairs(channel, current_buckets(t), PortCounts())
    assert set(port_pairs(channel, current_buckets(t), counts)) <= set(full)
    assert full == port_pairs(channel, list(current_buckets(t)), PortCounts(8, 4))


# ---- plans


@pytest.mark.parametrize("families", [1, 2])
@pytest.mark.parametrize("addresses", range(1, 9))
def test_no_plan_needs_more_sockets_than_are_allowed(addresses: int, families: int) -> None:
    counts = port_counts(addresses, families)
    # Two current buckets, one retained, and the clock-free one.
    retained = [counts.per_bucket] * 3 + [counts.clock_free]
    listeners = sum(min(ports, LISTENERS_PER_BUCKET) for ports in retained)
    assert sum(retained) * addresses + listeners * families <= MAX_SOCKETS
    assert counts.per_bucket >= 1
    assert counts.clock_free >= 1


@pytest.mark.parametrize("families", [1, 2])
@pytest.mark.parametrize("interfaces", [1, 2])
def test_further_interfaces_and_their_listeners_are_within_the_limit(families: int, interfaces: int) -> None:
    ways, further = min(8, families * (1 + interfaces)), families * interfaces
    counts = port_counts(ways, families, further)
    dials = (counts.per_bucket * 3 + counts.clock_free) * ways
    assert dials + 4 * LISTENERS_PER_BUCKET * families + 3 * further <= MAX_SOCKETS
    assert port_counts(ways, families, 0) >= counts


def test_a_peer_with_one_address_gets_the_full_plan() -> None:
    assert port_counts(1, 1) == PortCounts(8, 4)


def test_more_addresses_never_get_more_ports() -> None:
    plans = [port_counts(addresses, 1) for addresses in range(1, 9)]
    assert plans == sorted(plans, key=lambda counts: (counts.per_bucket, counts.clock_free), reverse=True)
