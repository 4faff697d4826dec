"""Own addresses as Linux lists them, and told from the addresses of others."""

from __future__ import annotations

import socket
import sys

import pytest

from punchtunnel.system.addresses import (
    Address,
    global_addresses6,
    interface_of,
    is_interface,
    is_own,
    own_addresses,
    source_towards,
)

from .conftest import Write

V4, V6 = socket.AF_INET, socket.AF_INET6
FIB_TRIE = """\
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 192.168.1.0/24 2 0 2
        |-- 192.168.1.0
           /24 link UNICAST
        |-- 192.168.1.5
           /32 host LOCAL
        |-- 192.168.1.255
           /32 link BROADCAST
     |-- 127.0.0.0
        /8 host LOCAL
"""
IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000002 02 40 00 80     eth0
fe8000000000000002163efffe000001 02 40 20 80     eth0
"""


def test_an_address_is_what_connect_takes() -> None:
    assert Address(V4, "198.51.100.7").at(10240) == ("198.51.100.7", 10240)
    assert Address(V6, "fe80::7", scope=3).at(10240) == ("fe80::7", 10240, 0, 3)


@pytest.mark.parametrize(
    ("family", "host", "own"), [(V4, "127.0.0.1", True), (V4, "127.9.9.9", True), (V4, "198.51.100.7", False)]
)
def test_own_addresses_are_told_from_others(family: socket.AddressFamily, host: str, own: bool) -> None:
    assert is_own(Address(family, host)) is own


def test_an_address_without_a_route_has_no_source() -> None:
    """A link-local address on an interface that is not there."""
    assert source_towards(Address(V6, "fe80::1", scope=2**31 - 1)) is None


def test_every_address_of_every_interface_is_listed_as_bind_takes_it(write_proc: Write) -> None:
    write_proc("net/fib_trie", FIB_TRIE)
    write_proc("net/if_inet6", IF_INET6)
    assert own_addresses() == ["192.168.1.5", "::1", "2001:db8::2", "fe80::216:3eff:fe00:1%eth0"]


def test_only_global_addresses_of_real_interfaces_are_ipv6_to_punch_from(write_proc: Write) -> None:
    write_proc("net/if_inet6", IF_INET6)
    assert global_addresses6() == ["2001:db8::2"]
    assert global_addresses6("eth0") == ["2001:db8::2"]
    assert global_addresses6("wlan0") == []


def test_a_kernel_without_ipv6_has_no_addresses_of_it(write_proc: Write) -> None:
    write_proc("net/route", "Iface\n")
    assert global_addresses6() == []


def test_a_list_that_is_missing_or_of_another_form_is_told_from_an_empty_one(write_proc: Write) -> None:
    assert own_addresses() == []
    assert global_addresses6() is None
    write_proc("net/fib_trie", "|--")
    write_proc("net/if_inet6", "what is this?")
    assert own_addresses() == []
    with pytest.raises(ValueError, match="unpack"):
        global_addresses6()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_the_interface_of_an_address_is_known(write_proc: Write) -> None:
    write_proc("net/if_inet6", IF_INET6)
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("2001:db8::2") == interface_of("fe80::216:3eff:fe00:1%eth0") == "eth0"
    assert interface_of("198.51.100.99") == interface_of("2001:db8::9") == ""
    assert is_interface("lo")
    assert not is_interface("nosuch0")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds to interfaces")
def test_what_leaves_by_an_interface_that_leads_nowhere_has_no_source() -> None:
    assert source_towards(Address(V4, "127.0.0.2"), "lo") == "127.0.0.1"
    assert source_towards(Address(V4, "198.51.100.7"), "nosuch0") is None
