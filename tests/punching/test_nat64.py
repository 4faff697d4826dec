"""IPv4 addresses behind the prefix of a NAT64: the examples of RFC 6052, and the search of RFC 7050."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest

from punchtunnel.punching.nat64 import embedded, prefix_in

# RFC 6052 §2.4, tables 2 and 3: all for 192.0.2.33.
EXAMPLES = [
    ("2001:db8::/32", "2001:db8:c000:221::"),
    ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
]
# The same prefixes around 192.0.0.170.
PREFIXES = [
    ("2001:db8::/32", "2001:db8:c000:aa::"),
    ("2001:db8:100::/40", "2001:db8:1c0:0:aa::"),
    ("2001:db8:122::/48", "2001:db8:122:c000:0:aa00::"),
    ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:aa::"),
    ("2001:db8:122:344::/64", "2001:db8:122:344:c0:0:aa00::"),
    ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.0.170"),
    ("64:ff9b::/96", "64:ff9b::192.0.0.170"),
]


@pytest.mark.parametrize(("prefix", "address"), EXAMPLES)
def test_an_ipv4_address_stands_where_the_length_of_the_prefix_puts_it(prefix: str, address: str) -> None:
    host = embedded("192.0.2.33", IPv6Network(prefix))
    assert host is not None
    assert IPv6Address(host) == IPv6Address(address)


def test_the_text_is_that_of_the_kernel_which_names_the_far_end() -> None:
    """The dotted form is the same address, and would be no address of the peer."""
    assert embedded("192.0.2.33", IPv6Network("64:ff9b::/96")) == "64:ff9b::c000:221"


@pytest.mark.parametrize("host", ["10.1.2.3", "172.16.0.1", "192.168.1.2", "127.0.0.1", "169.254.7.7", "100.64.0.1"])
def test_everybodys_prefix_stands_for_no_private_address(host: str) -> None:
    """RFC 6052 §3.1; the prefix of a network may stand for its own private addresses."""
    assert embedded(host, IPv6Network("64:ff9b::/96")) is None
    assert embedded(host, IPv6Network("2001:db8:122:344::/96")) is not None


@pytest.mark.parametrize(("prefix", "address"), PREFIXES)
def test_the_prefix_is_what_stands_around_a_known_address(prefix: str, address: str) -> None:
    assert prefix_in([address]) == IPv6Network(prefix)
    assert embedded("192.0.0.170", IPv6Network(prefix)) == str(IPv6Address(address))


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["2001:db8::7"],
        # 192.0.0.172 is nobody's.
        ["64:ff9b::192.0.0.172"],
        # Bits 64 to 71 are zero.
        ["2001:db8:122:344:ffc0:0:aa00::"],
    ],
)
def test_an_address_that_was_not_made_of_a_known_one_shows_no_prefix(hosts: list[str]) -> None:
    assert prefix_in(hosts) is None


def test_a_prefix_that_holds_a_known_address_itself_is_told_by_the_other_one() -> None:
    """RFC 7050 §3: that is why there are two."""
    prefix = IPv6Network("2001:db8:c000:aa::/96")
    hosts = [host for host in (embedded(f"192.0.0.{last}", prefix) for last in (170, 171)) if host]
    assert prefix_in(hosts) == prefix_in(reversed(hosts)) == prefix


def test_of_several_prefixes_the_first_one_is_taken() -> None:
    assert prefix_in(["2001:db8:122:344::192.0.0.170", "64:ff9b::192.0.0.170"]) == IPv6Network("2001:db8:122:344::/96")
