"""What people write for PEER, -L and --to becomes a value or one sentence."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from punchtunnel.address import (
    Peer,
    Place,
    UnixPlace,
    is_literal,
    is_public,
    join_host_port,
    parse_bind,
    parse_listen,
    parse_peer,
    parse_target,
    with_number,
)
from punchtunnel.errors import UsageError

PARSERS: list[Callable[[str], object]] = [parse_peer, parse_bind, parse_listen, parse_target]

GOOD_PEERS = {
    "203.0.113.9": "203.0.113.9",
    "2001:db8::7": "2001:db8::7",
    "[2001:db8::7]": "2001:db8::7",
    "2001:0DB8:0:0::0007": "2001:db8::7",
    "fe80::1%eth0": "fe80::1%eth0",
    "[fe80::1%eth0]": "fe80::1%eth0",
    "127.0.0.1": "127.0.0.1",
    "::1": "::1",
    "home.example": "home.example",
    "home.example.": "home.example.",
    "localhost": "localhost",
    "my_nas": "my_nas",
    "3com.example": "3com.example",
    "bücher.example": "bücher.example",
    "a" * 63: "a" * 63,
    ".".join(["a" * 63] * 3 + ["a" * 61]): ".".join(["a" * 63] * 3 + ["a" * 61]),
}

BAD_PEERS = [
    "",
    " ",
    "a b",
    "-home",
    "home-",
    "a..b",
    ".",
    ".home",
    "home/24",
    "10.0.0.0/8",
    "user@home",
    "http://home",
    "256.1.1.1",
    "1.2.3",
    "10.1",
    "1.2.3.4.5",
    "0.0.0.0",
    "::",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "1.2.3.4:22",
    "home:22",
    "[::1]:22",
    "1.2.3.4:0",
    "1.2.3.4:65536",
    "1.2.3.4:123456",
    "[::1]:0",
    "0.0.0.0:5000",
    ":5000",
    "home:",
    "home:ssh",
    "fe80::1",
    "fe80::1%0",
    "22",
    "[::1",
    "::1]",
    "2001:db8::7::1",
    "fe80::1%",
    "12345",
    "1.2.3.4%eth0",
    "a" * 64,
    ".".join(["a" * 63] * 4),
    "home\n",
    "ho\0me",
    "\udcff",
    "１２７.０.０.１",
]

GOOD_LISTENS = {
    "2222": Place("localhost", 2222),
    "0": Place("localhost", 0),
    "65535": Place("localhost", 65535),
    "0.0.0.0:2222": Place("0.0.0.0", 2222),
    "[::1]:2222": Place("::1", 2222),
    "[::]:2222": Place("::", 2222),
    "localhost:2222": Place("localhost", 2222),
    ":2222": Place("*", 2222),
    "*:2222": Place("*", 2222),
    "unix:/run/ssh.sock": UnixPlace("/run/ssh.sock"),
    "unix:relative.sock": UnixPlace("relative.sock"),
    "unix:/a:b/c d": UnixPlace("/a:b/c d"),
}

GOOD_TARGETS = {
    "22": Place("localhost", 22),
    "nas:445": Place("nas", 445),
    "192.168.1.2:80": Place("192.168.1.2", 80),
    "[::1]:22": Place("::1", 22),
    "unix:/run/app.sock": UnixPlace("/run/app.sock"),
}

BAD_PLACES = [
    "",
    ":",
    "[]:22",
    "nas",
    "nas:",
    "nas:ssh",
    "65536",
    "100000",
    "-1",
    "+22",
    "2 2",
    " 22",
    "22 ",
    "22\n",
    "２２",
    "²²",
    "1e3",
    "0x16",
    "22.0",
    "1.2.3.4",
    "1.2.3:22",
    "256.1.1.1:22",
    "a b:22",
    "::1",
    "::1:22",
    "fe80::1:22",
    "[::1]",
    "[::1:22",
    "http://home.example",
    "\n://x",
    "me@home.example",
    "\x1b@home.example:22",
    "unix:",
    "unix:\0",
    "unix:/run/\0",
    "unix:/" + "a" * 107,
    "unix:/" + "ü" * 54,
    "unix:/\ud800",
    "\udcff:22",
]


def assert_one_sentence(error: UsageError) -> None:
    text = str(error)
    assert text
    assert text.isprintable(), "control characters would end the line or move the cursor"
    assert not text[0].isupper()


@pytest.mark.parametrize(("text", "peer"), GOOD_PEERS.items())
def test_a_good_peer_is_returned_in_its_shortest_form(text: str, peer: str) -> None:
    assert parse_peer(text) == Peer(peer)
    assert str(parse_peer(text)) == peer


@pytest.mark.parametrize("text", BAD_PEERS)
def test_a_bad_peer_gets_one_sentence(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_peer(text)
    assert_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("203.0.113.9:5000", "203.0.113.9", 5000),
        ("home.example:65535", "home.example", 65535),
        ("[2001:DB8::7]:1", "2001:db8::7", 1),
        ("[fe80::1%eth0]:443", "fe80::1%eth0", 443),
        ("[::ffff:192.0.2.7]:5000", "192.0.2.7", 5000),
    ],
)
def test_a_peer_may_have_a_port_that_leads_to_it(text: str, host: str, port: int) -> None:
    peer = parse_peer(text)
    assert peer == Peer(host, port)
    assert parse_peer(str(peer)) == peer


def test_the_port_of_ssh_belongs_to_the_program() -> None:
    with pytest.raises(UsageError, match="--to 22 there and -L 2222 here"):
        parse_peer("203.0.113.9:22")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("home.example:http-alt", "home.example:8080"),
        ("203.0.113.9:http-alt", "203.0.113.9:8080"),
        ("[2001:db8::7]:http-alt", "[2001:db8::7]:8080"),
        ("home.example", "home.example"),
        ("home.example:5000", "home.example:5000"),
        ("2001:db8::7", "2001:db8::7"),
        ("2001:db8::beef", "2001:db8::beef"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        # Their own sentences follow.
        ("http://home.example", "http://home.example"),
        ("me@home.example:http-alt", "me@home.example:http-alt"),
        (":http-alt", ":http-alt"),
        ("2222:http-alt", "2222:http-alt"),
        ("2001:db8::7:http-alt", "2001:db8::7:http-alt"),
        ("unix:/run/x", "unix:/run/x"),
        ("", ""),
    ],
)
def test_a_service_becomes_a_number_and_what_is_none_stays(text: str, number: str) -> None:
    assert with_number(text, {"http-alt": 8080}.get) == number


@pytest.mark.parametrize("text", ["home.example:nothing", "home.example:22x"])
def test_a_service_that_is_unknown_is_told_of(text: str) -> None:
    with pytest.raises(UsageError, match=r"this machine knows no service '(nothing|22x)'"):
        with_number(text, {"http-alt": 8080}.get)


@pytest.mark.parametrize(("text", "place"), GOOD_LISTENS.items())
def test_a_good_listen_is_loopback_unless_told_otherwise(text: str, place: Place | UnixPlace) -> None:
    assert parse_listen(text) == place


@pytest.mark.parametrize("text", [":22", "*:22"])
def test_every_address_can_be_listened_on_and_is_no_target(text: str) -> None:
    with pytest.raises(UsageError, match="neither an address nor a host name"):
        parse_target(text)


SERVICES = {"ssh": 22, "9pfs": 564, "z39.50": 210}


@pytest.mark.parametrize(
    ("text", "port"), [("ssh", 22), ("localhost:ssh", 22), ("[::1]:9pfs", 564), ("z39.50", 210), ("nas:ssh", 22)]
)
def test_a_service_stands_where_a_port_may(text: str, port: int) -> None:
    for parse in (parse_listen, parse_target):
        place = parse(text, SERVICES.get)
        assert isinstance(place, Place)
        assert place.port == port


@pytest.mark.parametrize("text", ["gopher", "nas:", "nas", "nas:s s", "ssh:nas", "::1:ssh", "ssh\n", ""])
def test_what_is_no_service_is_no_port(text: str) -> None:
    for parse in (parse_listen, parse_target):
        with pytest.raises(UsageError) as caught:
            parse(text, SERVICES.get)
        assert_one_sentence(caught.value)


@pytest.mark.parametrize("text", ["22", "-1", "\ud800", "a\0b", "", "é", "x" * 65, "a\n"])
def test_only_what_can_be_a_service_is_looked_up(text: str) -> None:
    def lookup(_: str) -> int | None:
        raise AssertionError

    with contextlib.suppress(UsageError):
        parse_target(text, lookup)


@pytest.mark.parametrize(("text", "place"), GOOD_TARGETS.items())
def test_a_good_target_is_on_this_machine_unless_told_otherwise(text: str, place: Place | UnixPlace) -> None:
    assert parse_target(text) == place


@pytest.mark.parametrize("text", BAD_PLACES)
@pytest.mark.parametrize(("option", "parse"), [("-L", parse_listen), ("--to", parse_target)])
def test_a_bad_place_gets_one_sentence_that_names_its_option(
    option: str, parse: Callable[[str], object], text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert_one_sentence(caught.value)
    assert str(caught.value).startswith(option)


def test_port_0_is_for_listening_only() -> None:
    assert parse_listen("0") == Place("localhost", 0)
    with pytest.raises(UsageError, match="1–65535"):
        parse_target("0")


def test_an_ipv6_address_without_brackets_is_told_about_them() -> None:
    with pytest.raises(UsageError, match=r"in brackets, as in \[::1\]:2222"):
        parse_listen("::1:2222")


@pytest.mark.parametrize("text", ["::1:\n22", "::1:\x1b[2J"])
def test_a_sentence_never_holds_control_characters_of_the_argument(text: str) -> None:
    """The port of an address without brackets went into the sentence as it was."""
    with pytest.raises(UsageError) as caught:
        parse_listen(text)
    assert_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("text", "bind"), [("192.0.2.1", "192.0.2.1"), ("[::1]", "::1"), ("fe80::1%eth0", "fe80::1%eth0")]
)
def test_a_bind_address_is_a_literal(text: str, bind: str) -> None:
    assert parse_bind(text) == bind


@pytest.mark.parametrize(
    "text", ["", "home", "localhost", "1.2.3.4:5", "1.2.3", "eth0", "::1\n", "0.0.0.0", "ff02::1", "fe80::1"]
)
def test_a_bind_address_that_is_no_literal_gets_one_sentence(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_bind(text)
    assert_one_sentence(caught.value)


@pytest.mark.parametrize("parse", PARSERS)
@settings(max_examples=150)
@given(text=st.text(st.characters()) | st.text(st.sampled_from("0123456789abcdef.:[]%-_ünix:/\n\udc80")))
def test_any_text_gives_a_value_or_one_sentence(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except UsageError as error:
        assert_one_sentence(error)


@pytest.mark.parametrize("text", ["2222:localhost:22", "2222:22", "2222:10.0.0.1:22"])
def test_the_habits_of_ssh_are_answered(text: str) -> None:
    with pytest.raises(UsageError, match="--to on the other side"):
        parse_listen(text)


@pytest.mark.parametrize("text", ["0x7f000001", "1.2.3.0x4", "10.1", "[home]"])
def test_what_the_resolver_would_read_as_an_address_is_no_name(text: str) -> None:
    """0x7f000001 was taken for a name, and looked up as 127.0.0.1."""
    with pytest.raises(UsageError):
        parse_peer(text)


def test_mapped_address_is_punched_as_ipv4() -> None:
    assert parse_peer("::ffff:192.0.2.7") == Peer("192.0.2.7")


@given(st.ip_addresses())
def test_an_address_survives_parsing_in_every_spelling(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        canonical = parse_peer(str(address)).host
    except UsageError:
        plain = (address.ipv4_mapped if address.version == 6 else None) or address
        local = plain.version == 6 and plain.is_link_local
        assert local or plain.is_unspecified or plain.is_multicast or str(plain) == "255.255.255.255"
        return
    mapped = address.ipv4_mapped if address.version == 6 else None
    assert canonical == str(mapped or address)
    assert parse_peer(address.exploded) == parse_peer(f"[{address}]") == Peer(canonical)
    assert is_literal(canonical)


@given(host=st.ip_addresses().map(str) | st.just("nas"), port=st.integers(1, 65535))
def test_a_place_is_parsed_from_its_own_text(host: str, port: int) -> None:
    assert parse_target(str(Place(host, port))) == Place(host, port)
    assert parse_listen(join_host_port(host, port)) == Place(host, port)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=26))
def test_a_unix_place_is_parsed_from_its_own_text(path: str) -> None:
    assert parse_target(str(UnixPlace(path))) == UnixPlace(path)


def test_brackets_are_put_around_ipv6_only() -> None:
    assert join_host_port("::1", 22) == "[::1]:22"
    assert join_host_port("127.0.0.1", 22) == "127.0.0.1:22"


@pytest.mark.parametrize(("text", "literal"), [("1.2.3.4", True), ("::", True), ("fe80::1%eth0", True), ("a", False)])
def test_literals_are_told_from_names(text: str, literal: bool) -> None:
    assert is_literal(text) is literal


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("1.2.3.4", True), ("203.0.113.9", True), ("2001:db8::7", True), ("2600::1", True), ("172.32.0.1", True),
        ("10.0.0.1", False), ("172.16.0.1", False), ("192.168.1.2", False), ("100.64.0.1", False),
        ("127.0.0.1", False), ("169.254.1.1", False), ("0.0.0.0", False), ("224.0.0.1", False), ("240.0.0.1", False),
        ("255.255.255.255", False), ("::1", False), ("::", False), ("fe80::1", False), ("fc00::1", False),
        ("fd00::1", False), ("ff02::1", False), ("::ffff:10.0.0.1", False),
    ],
)  # fmt: skip
def test_an_address_is_one_in_the_internet_or_not(host: str, public: bool) -> None:
    assert is_public(host) is public
