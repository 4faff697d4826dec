"""Which further ways a punch has, and that its dials take them."""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from punchtunnel.errors import NoHoleError
from punchtunnel.protocol import schedule
from punchtunnel.punching import further, ports, puncher
from punchtunnel.punching.candidates import Fate
from punchtunnel.punching.diagnosis import evidence_of
from punchtunnel.punching.further import further_ways
from punchtunnel.punching.rota import MAX_ADDRESSES
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting.events import DialFailed, Event
from punchtunnel.system import uplinks
from punchtunnel.system.addresses import Address
from punchtunnel.system.signals import Wake

from .test_dialler import CHANNEL, NOW, A, B, Table
from .test_punch import channel, settings

# Fixtures.
__all__ = ["channel"]

V4 = socket.AF_INET
LO, ETH0, WLAN0 = (1, "lo"), (2, "eth0"), (3, "wlan0")
PEERS = [Address(V4, f"198.51.100.{number}") for number in range(MAX_ADDRESSES)]
# No interface of any machine.
GONE = "nosuch0"


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every address have a way by each interface but loopback."""

    def found(address: Address, interfaces: list[tuple[int, str]]) -> list[Address]:
        return [address._replace(interface=name) for _, name in interfaces[1:]]

    monkeypatch.setattr(uplinks, "further_ways", found)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [LO, ETH0, WLAN0])


@pytest.mark.usefixtures("ways")
def test_every_address_has_its_first_further_way_before_any_has_a_second_one() -> None:
    found = further_ways(PEERS[:2])
    assert [(PEERS.index(one._replace(interface="")), one.interface) for one in found] == [
        (0, "eth0"), (1, "eth0"), (0, "wlan0"), (1, "wlan0"),
    ]  # fmt: skip
    assert len(further_ways(PEERS[:6])) == MAX_ADDRESSES - 6
    assert further_ways(PEERS) == ()


@pytest.mark.usefixtures("ways")
def test_whoever_says_what_to_bind_has_that_way_alone() -> None:
    assert Settings(["home"]).takes_any_way
    assert not Settings(["home"], bind="192.168.1.2").takes_any_way
    assert not Settings(["home"], interface="eth0").takes_any_way


def test_a_machine_with_one_uplink_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "if_nameindex", lambda: [LO, ETH0])
    assert not Settings(["home"]).takes_any_way


def test_a_system_that_lists_no_interfaces_has_the_usual_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError

    monkeypatch.setattr(socket, "if_nameindex", refuse)
    assert not Settings(["home"]).takes_any_way
    assert further_ways(PEERS[:1]) == ()


class TryNow(Wake):
    def means_try_now(self, number: int) -> bool:
        return number == signal.SIGHUP


@pytest.mark.parametrize("changed", [False, True])
def test_ways_are_looked_for_when_the_network_may_have_changed_and_not_every_second(
    channel: str, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    found: list[object] = []

    def look(addresses: Sequence[Address]) -> tuple[Address, ...]:
        found.append(addresses)
        return ()

    def report(event: Event) -> None:
        if isinstance(event, DialFailed) and changed and len(found) == 1:
            wake.note(signal.SIGHUP)

    monkeypatch.setattr(further, "further_ways", look)
    monkeypatch.setattr(Settings, "takes_any_way", True)
    monkeypatch.setattr(puncher, "CLOCK_CHECK", 0.01)
    with TryNow() as wake, pytest.raises(NoHoleError):
        puncher.open_hole(settings(B, A, channel, wait=0.3), clock=lambda: NOW, report=report, signals=wake)
    assert found == [(Address(V4, B),)] * (1 + changed)


# ---- the dialler


def test_a_further_way_is_dialled_by_its_interface_from_the_same_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[int, str]] = []
    dialling_socket = ports.dialling_socket

    def note(family: socket.AddressFamily, host: str | None, port: int, **options: Any) -> socket.socket:
        opened.append((port, options["interface"]))
        return dialling_socket(family, host, port)

    monkeypatch.setattr(ports, "dialling_socket", note)
    address = Address(V4, B)
    with selectors.DefaultSelector() as selector:
        table = Table(selector, holds=False, bind=None)
        # Its own source cannot be had here, so it is another address.
        table.dialler.plan((address, Address(V4, "127.0.0.3", interface=GONE)), NOW)
        table.dialler.start_due()
        table.settle(0)
        # The next router is asked about the usual way only.
        assert table.dialler.refusing().keys() == {address}
        table.dialler.close()
        # The listeners are its own.
        for sock in table.opened:
            sock.close()
    counts = schedule.port_counts(2, 1, 1)
    numbers = schedule.ports_of(CHANNEL, schedule.current_buckets(NOW), counts)
    assert opened == [(port, "") for port in numbers] + [(port, GONE) for port in numbers]


def test_a_further_way_that_is_gone_keeps_nothing_from_the_others() -> None:
    """Where every dial of a second uplink failed to bind, the first one's ports seemed to be taken as well."""
    address = Address(V4, B)
    with selectors.DefaultSelector() as selector:
        table = Table(selector, holds=False)
        for _ in range(2):
            table.dialler.plan((address, address._replace(interface=GONE)), NOW)
            table.dialler.start_due()
            table.settle(0)
            table.now += 60
        assert table.dialler.fates().keys() == {Fate.REFUSED, Fate.UNUSABLE}
        assert evidence_of(table.dialler.evidence()).keys() == {Fate.REFUSED}
        assert table.dialler.refusing().keys() == {address}
        table.dialler.close()


def test_a_further_way_is_listened_on_beside_the_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[int, str]] = []
    listening_socket = ports.listening_socket

    def note(family: socket.AddressFamily, host: str | None, port: int, **options: Any) -> socket.socket:
        opened.append((port, options["interface"]))
        # Whichever port is free.
        return listening_socket(family, host, 0, shared=True)

    monkeypatch.setattr(ports, "listening_socket", note)
    address = Address(V4, B)
    with selectors.DefaultSelector() as selector:
        table = Table(selector, holds=False, bind=A)
        for _ in range(2):
            table.dialler.plan((address, address._replace(interface=GONE)), NOW)
        table.dialler.close()
    fixed, *buckets = [schedule.bucket_ports(CHANNEL, bucket, 3) for bucket in schedule.current_buckets(NOW)]
    usual = [(port, "") for numbers in (fixed, *buckets) for port in numbers[:2]]
    assert opened[: len(usual)] == usual
    assert opened[len(usual) :][:2] == [(numbers[2], GONE) for numbers in buckets]
