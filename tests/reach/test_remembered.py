"""What is remembered as bytes: what comes back, what is left out, and that no bytes do any harm."""

from __future__ import annotations

import json
import math
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.reach.remembered import (
    LIFETIME,
    MAX_HOSTS,
    MAX_KIND,
    MAX_SIZE,
    NOTHING,
    Remembered,
    Seen,
    Way,
    canonical,
    decode,
    encode,
)

NOW = 1_700_000_000.0
HOME = Seen("home.example", ("203.0.113.9", "2001:db8::7"), NOW)
WAY = Way("same port", "203.0.113.9", 4711, 4712, NOW)
KNOWN = Remembered(NOW, (HOME,), WAY)
NAMES = {"home.example", "other.example"}
LITERAL = b"""{"version": 1, "time": 1700000000.0,
 "addresses": {"home.example": {"time": 1700000000.0, "hosts": ["203.0.113.9", "2001:db8::7"]}},
 "way": {"time": 1700000000.0, "kind": "same port", "host": "203.0.113.9", "far_port": 4711,
         "own_port": 4712, "failures": 0}}"""
MISSING = object()


def changed(path: str, value: object) -> bytes:
    """Return the literal with one value changed, or taken away."""
    content = json.loads(LITERAL)
    *parents, last = path.split("/")
    place = content
    for parent in parents:
        place = place[parent]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return json.dumps(content).encode()


def test_the_literal_of_the_file_is_read_and_written() -> None:
    assert decode(LITERAL, NOW, NAMES) == KNOWN
    assert json.loads(encode(KNOWN)) == json.loads(LITERAL)


def test_what_is_not_known_needs_no_entry() -> None:
    assert decode(b'{"version": 1, "time": 5}', 5.0, NAMES) == Remembered(5)
    assert decode(encode(Remembered(NOW)), NOW, NAMES) == Remembered(NOW)


def test_unknown_keys_are_ignored() -> None:
    for path in ("rtt", "addresses/home.example/ttl", "way/by"):
        assert decode(changed(path, {"x": [1]}), NOW, NAMES) == KNOWN


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("version", value) for value in (0, 2, True, 1.0, "1", None, MISSING)),
        *(
            ("time", value)
            for value in (NOW + 1, -1, "1", None, True, [], math.nan, math.inf, 10**400, -(10**400), MISSING)
        ),
        ("time", NOW - LIFETIME - 1),
    ],
)
def test_a_file_of_another_version_or_time_is_no_file(path: str, value: object) -> None:
    assert decode(changed(path, value), NOW, NAMES) == NOTHING


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("time", value) for value in (NOW + 1, -1, "1", None, False, math.nan, -math.inf, MISSING)),
        ("time", NOW - LIFETIME - 1),
        *(
            ("hosts", value)
            for value in ("203.0.113.9", {}, {"203.0.113.9": 1}, [], 1, None, [["203.0.113.9"]], [3405803785], MISSING)
        ),
        ("hosts", ["203.0.113.9"] * (MAX_HOSTS + 1)),
        ("hosts", ["203.0.113.9", "home.example"]),
    ],
)
def test_one_bad_value_costs_the_addresses_of_that_name_and_nothing_else(key: str, value: object) -> None:
    assert decode(changed(f"addresses/home.example/{key}", value), NOW, NAMES) == Remembered(NOW, (), WAY)


@pytest.mark.parametrize("value", [[], "home.example", None, 1, {"home.example": None}, {"home.example": [1]}])
def test_addresses_of_another_form_are_none(value: object) -> None:
    assert decode(changed("addresses", value), NOW, NAMES) == Remembered(NOW, (), WAY)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("time", value) for value in (NOW + 1, -1, "1", True, math.nan, MISSING, NOW - LIFETIME - 1)),
        *(("kind", value) for value in ("", "x" * (MAX_KIND + 1), "\x1b[2J", "é", None, 1, ["fixed"], MISSING)),
        *(("far_port", value) for value in (0, -1, 65536, "4711", 4711.0, True, None, 10**400, MISSING)),
        *(("own_port", value) for value in (0, 65536, MISSING)),
        *(("failures", value) for value in (-1, 2, 0.0, False, "0", MISSING)),
        *(("host", value) for value in ("home.example", "", None, 3405803785, ["203.0.113.9"], MISSING)),
    ],
)
def test_one_bad_value_costs_the_way_and_nothing_else(key: str, value: object) -> None:
    assert decode(changed(f"way/{key}", value), NOW, NAMES) == Remembered(NOW, (HOME,))


@pytest.mark.parametrize("value", [[], "fixed", None, 1, {}])
def test_a_way_of_another_form_is_none(value: object) -> None:
    assert decode(changed("way", value), NOW, NAMES) == Remembered(NOW, (HOME,))


@pytest.mark.parametrize(
    "host",
    [
        *("0.0.0.0", "::", "127.0.0.1", "127.8.8.8", "::1"),
        *("224.0.0.1", "239.1.2.3", "ff02::1", "255.255.255.255", "240.0.0.1"),
        *("169.254.1.1", "fe80::1", "fe80::1%eth0", "2001:db8::7%eth0", "::ffff:203.0.113.9", "::ffff:127.0.0.1"),
        # As Python before 3.13 writes it.
        "::ffff:cb00:7109",
        *("203.0.113.009", "2001:DB8::7", "2001:db8:0::7", " 203.0.113.9", "[2001:db8::7]", "203.0.113.9:22"),
        "203.0.113.9\0",
    ],
)
def test_what_is_not_the_address_of_one_machine_everywhere_is_neither_read_nor_written(host: str) -> None:
    assert decode(changed("way/host", host), NOW, NAMES).way is None
    assert decode(changed("addresses/home.example/hosts", [host]), NOW, NAMES).addresses == ()
    mixed = Remembered(NOW, (HOME._replace(hosts=(host, "203.0.113.9")),))
    assert decode(encode(mixed), NOW, NAMES).hosts_of("home.example") == ("203.0.113.9",)
    assert json.loads(encode(Remembered(NOW, (HOME._replace(hosts=(host,)),))))["addresses"] == {}


@pytest.mark.parametrize("host", ["10.0.0.1", "100.64.0.1", "192.168.1.1", "64:ff9b::cb00:7109", "fd00::1"])
def test_private_and_translated_addresses_are_remembered(host: str) -> None:
    known = Remembered(NOW, (HOME._replace(hosts=(host,)),), WAY._replace(host=host))
    assert decode(encode(known), NOW, NAMES) == known


def test_loopback_is_for_peers_on_this_machine_only() -> None:
    known = Remembered(NOW, (HOME._replace(hosts=("127.0.0.2", "::1")),), WAY._replace(host="127.0.0.2"))
    assert decode(encode(known, local=True), NOW, NAMES, local=True) == known
    assert decode(encode(known, local=True), NOW, NAMES) == Remembered(NOW)
    assert decode(encode(known), NOW, NAMES, local=True).addresses == ()


def test_each_entry_is_valid_for_a_week_by_its_own_time() -> None:
    early = Remembered(NOW, (HOME._replace(at=NOW - LIFETIME),), WAY._replace(at=NOW - 10))
    assert decode(encode(early), NOW, NAMES) == early
    assert decode(encode(early), NOW + 1, NAMES) == early._replace(addresses=())
    assert decode(encode(early), NOW + LIFETIME - 5, NAMES) == Remembered(NOW)
    assert decode(encode(early), NOW + LIFETIME + 1, NAMES) == NOTHING


@pytest.mark.parametrize("now", [0.0, -5.0, math.nan, NOW - 1])
def test_a_clock_that_went_back_or_mad_knows_nothing(now: float) -> None:
    assert decode(LITERAL, now, NAMES) == NOTHING


def test_other_names_than_those_asked_for_are_not_returned() -> None:
    assert decode(LITERAL, NOW, {"other.example"}) == Remembered(NOW, (), WAY)


def test_eight_hosts_of_a_name_are_kept() -> None:
    hosts = tuple(f"203.0.113.{number}" for number in range(12))
    known = decode(encode(Remembered(NOW, (HOME._replace(hosts=hosts),))), NOW, NAMES)
    assert known.hosts_of("home.example") == hosts[:8]


def test_names_that_do_not_fit_are_left_out_and_the_others_stay() -> None:
    hosts = tuple(f"2001:db8:1111:2222:3333:4444:5555:{number:x}" for number in range(0x1000, 0x1008))
    many = [Seen(f"{number}.{'x' * 240}", hosts, NOW) for number in range(40)]
    data = encode(Remembered(NOW, tuple(many), WAY))
    assert MAX_SIZE / 2 < len(data) <= MAX_SIZE
    known = decode(data, NOW, {seen.name for seen in many})
    assert known.way == WAY
    assert known.addresses == tuple(many[: len(known.addresses)])


def test_a_file_that_is_too_long_is_none() -> None:
    padded = LITERAL + b" " * (MAX_SIZE - len(LITERAL))
    assert decode(padded, NOW, NAMES) == KNOWN
    assert decode(padded + b" ", NOW, NAMES) == NOTHING


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\0", b"[]", b"1", b"null", b'"x"', b"{", b"[" * 4096, b'{"a":' * 800, b"1" * 4096, b"\xff\xfe{}"),
        LITERAL.decode().encode("utf-16"),
        LITERAL[:-1],
        b"\xef\xbb\xbf" + LITERAL,
        LITERAL.replace(b"home", b"\xff"),
    ],
)
def test_damaged_content_is_nothing(data: bytes) -> None:
    assert decode(data, NOW, NAMES) == NOTHING


VALUE: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["203.0.113.9"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.binary())
def test_any_bytes_are_something_or_nothing(data: bytes) -> None:
    assert isinstance(decode(data, NOW, NAMES), Remembered)


@given(
    st.sampled_from(
        ["version", "time", "addresses", "addresses/home.example", "addresses/home.example/hosts", "way"]
        + [f"way/{key}" for key in ("time", "kind", "host", "far_port", "own_port", "failures")]
    ),
    VALUE,
)
def test_any_value_anywhere_is_believed_only_if_it_means_the_same_when_written_again(path: str, value: object) -> None:
    known = decode(changed(path, value), NOW, NAMES)
    assert decode(encode(known), NOW, NAMES) == known


HOSTS = st.sampled_from(["203.0.113.9", "10.0.0.1", "2001:db8::7", "64:ff9b::cb00:7109"])
PORTS = st.integers(1, 65535)
TIMES = st.floats(NOW - LIFETIME, NOW)


@given(
    st.builds(
        Remembered,
        TIMES,
        st.lists(
            st.builds(Seen, st.sampled_from(sorted(NAMES)), st.lists(HOSTS, min_size=1, max_size=8).map(tuple), TIMES),
            unique_by=lambda seen: seen.name,
        ).map(tuple),
        st.none() | st.builds(Way, st.sampled_from(["fixed", "mapped"]), HOSTS, PORTS, PORTS, TIMES, st.integers(0, 1)),
    )
)
def test_what_is_written_is_read_again(known: Remembered) -> None:
    assert decode(encode(known), NOW, NAMES) == known


def test_a_way_is_dropped_after_two_failures_in_a_row_and_the_addresses_stay() -> None:
    once = KNOWN.after_failure()
    assert once == KNOWN._replace(way=WAY._replace(failures=1))
    assert decode(encode(once), NOW, NAMES) == once
    assert once.after_failure() == once.after_failure().after_failure() == KNOWN._replace(way=None)


def test_a_name_is_found_in_any_spelling() -> None:
    assert KNOWN.hosts_of("Home.Example.") == HOME.hosts
    assert KNOWN.hosts_of("other.example") == ()
    spelt = Remembered(NOW, (HOME._replace(name="HOME.example."),))
    assert decode(encode(spelt), NOW, {canonical("home.EXAMPLE")}).addresses == (HOME,)


def test_the_family_of_a_way_is_that_of_its_host() -> None:
    assert WAY.family == socket.AF_INET
    assert WAY._replace(host="2001:db8::7").family == socket.AF_INET6
