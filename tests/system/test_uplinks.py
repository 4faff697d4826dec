"""By which other interfaces an address can be reached; the laboratory has hosts with two uplinks."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

import pytest

from punchtunnel.system import uplinks
from punchtunnel.system.addresses import Address
from punchtunnel.system.uplinks import MOST_FURTHER, further_ways

V4, V6 = socket.AF_INET, socket.AF_INET6
PEER, PEER6 = Address(V4, "198.51.100.7"), Address(V6, "2001:db8::7")
INTERFACES = [(1, "lo"), (2, "wg0"), (3, "eth0"), (4, "wlan0"), (5, "usb0"), (6, "docker0")]
ROUTE, ERROR, UNICAST, UNREACHABLE, LINKDOWN = 24, 2, 1, 7, 0x10
HAS_ROUTE = (ROUTE, UNICAST, 0)


class Kernel:
    """A netlink socket that knows what kind of answer, type and flags each interface has for PEER."""

    def __init__(self, table: dict[int, tuple[int, int, int]], target: str) -> None:
        self.table = table
        self.family = V6 if ":" in target else V4
        self.target = socket.inet_pton(self.family, target)
        self.asked: list[int] = []

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, question: bytes) -> None:
        """Check what is asked: the route that matches, and by which interface."""
        size = len(self.target)
        header = struct.pack("=IHHII", 16 + 12 + 4 + size + 8, 26, 1, 1, 0)
        route = struct.pack("=8BI", self.family, size * 8, 0, 0, 0, 0, 0, 0, 0x2000)
        way = question[-4:]
        assert question == header + route + struct.pack("=HH", 4 + size, 1) + self.target + b"\x08\0\x04\0" + way
        self.asked += struct.unpack("=I", way)

    def recv(self, _: int) -> bytes:
        """Return one datagram."""
        kind, route, flags = self.table.get(self.asked[-1], (ERROR, 0, 0))
        return struct.pack("=IHHII", 28, kind, 0, 1, 0) + struct.pack("=8BI", 2, 0, 0, 0, 254, 3, 0, route, flags)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """What this machine dials from, by interface; what is not there has no source."""
    found: dict[str, str | None] = {"": "10.8.0.2", "wg0": "10.8.0.2", "eth0": "192.168.1.2", "wlan0": "192.168.1.3"}
    monkeypatch.setattr(uplinks, "source_towards", lambda _, interface="": found.get(interface))
    return found


def ask(monkeypatch: pytest.MonkeyPatch, table: dict[int, tuple[int, int, int]], address: Address) -> list[str]:
    kernel: Any = Kernel(table, address.host)
    monkeypatch.setattr(socket, "socket", lambda *_: kernel)
    monkeypatch.setattr(sys, "platform", "linux")
    ways = further_ways(address, INTERFACES)
    assert [way._replace(interface="") for way in ways] == [address] * len(ways)
    return [way.interface for way in ways]


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize("address", [PEER, PEER6])
def test_each_interface_that_leads_to_the_peer_is_a_way_but_for_the_usual_one(
    monkeypatch: pytest.MonkeyPatch, address: Address
) -> None:
    assert ask(monkeypatch, dict.fromkeys((2, 3, 4), HAS_ROUTE), address) == ["eth0", "wlan0"]


@pytest.mark.parametrize("answer", [(ERROR, UNICAST, 0), (ROUTE, UNREACHABLE, 0), (ROUTE, UNICAST, LINKDOWN)])
def test_an_interface_without_a_route_to_the_peer_is_none(
    monkeypatch: pytest.MonkeyPatch, sources: dict[str, str | None], answer: tuple[int, int, int]
) -> None:
    """A socket that is bound to the bridge of containers finds a source there, whatever the routes are."""
    sources["docker0"] = "172.17.0.1"
    assert ask(monkeypatch, {2: HAS_ROUTE, 3: answer, 4: HAS_ROUTE, 6: answer}, PEER) == ["wlan0"]


@pytest.mark.parametrize("source", [None, "10.8.0.2", "192.168.1.2", "169.254.7.7"])
def test_a_way_has_an_address_of_its_own(
    monkeypatch: pytest.MonkeyPatch, sources: dict[str, str | None], source: str | None
) -> None:
    """None: binding to interfaces is not allowed here."""
    sources["wlan0"] = source
    assert ask(monkeypatch, dict.fromkeys((2, 3, 4), HAS_ROUTE), PEER) == ["eth0"]


def test_there_are_few_ways(monkeypatch: pytest.MonkeyPatch, sources: dict[str, str | None]) -> None:
    sources |= {"usb0": "192.168.42.2", "docker0": "172.17.0.1"}
    assert len(ask(monkeypatch, dict.fromkeys(range(2, 7), HAS_ROUTE), PEER)) == MOST_FURTHER == 2


@pytest.mark.usefixtures("sources")
@pytest.mark.parametrize(
    "address",
    [
        Address(V4, "127.0.0.1", own=True), Address(V4, "192.168.1.9"), Address(V4, "10.1.2.3"),
        Address(V4, "100.64.1.1"), Address(V6, "fd00::1"), Address(V6, "fe80::1", scope=3),
    ],
)  # fmt: skip
def test_an_address_that_is_another_machine_elsewhere_is_not_looked_for(
    monkeypatch: pytest.MonkeyPatch, address: Address
) -> None:
    assert ask(monkeypatch, dict.fromkeys((2, 3, 4), HAS_ROUTE), address) == []


@pytest.mark.usefixtures("sources")
def test_where_the_kernel_does_not_tell_there_is_the_usual_way_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuse)
    assert further_ways(PEER, INTERFACES) == []
    monkeypatch.setattr(sys, "platform", "darwin")
    assert further_ways(PEER, INTERFACES) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds to interfaces")
def test_loopback_leads_nowhere_else() -> None:
    assert further_ways(PEER, [(socket.if_nametoindex("lo"), "lo")]) == []
