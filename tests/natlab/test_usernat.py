"""usernat.py: each behaviour that Linux does not have, packet by packet."""

from __future__ import annotations

import random

import pytest

from . import packets
from .packets import ACK, RST, SYN
from .test_packets import parsed, segment, tcp_is_valid
from .usernat import (
    BLOCK_SESSIONS,
    BLOCK_SIZE,
    FIRST_PORT,
    IDLE_SECONDS,
    Depends,
    Dropped,
    Nat64,
    Ports,
    Translator,
    UserNat,
)

INSIDE, OUTSIDE = "192.168.1.2", "198.51.100.10"
PEER, OTHER = "198.51.100.20", "198.51.100.30"


class Box:
    """A NAT with one host behind it, spoken to in ports."""

    def __init__(self, behaviour: UserNat) -> None:
        self.nat = Translator(behaviour, OUTSIDE, random.Random(1))
        self.now = 0.0

    def send(self, port: int, peer: str = PEER, peer_port: int = 500) -> int:
        """Send a SYN from the host and return the port it leaves from."""
        data = self.nat.outbound(parsed(segment(INSIDE, port, peer, peer_port)), self.now)
        assert isinstance(data, bytes)
        assert tcp_is_valid(data)
        assert parsed(data).source == OUTSIDE
        return parsed(data).source_port

    def receive(self, port: int, peer: str = PEER, peer_port: int = 500, flags: int = SYN | ACK) -> int | str:
        """Return the inside port at which a packet from outside arrives, or why it does not."""
        data = self.nat.inbound(parsed(segment(peer, peer_port, OUTSIDE, port, flags)), self.now)
        if isinstance(data, Dropped):
            return data.why
        assert tcp_is_valid(data)
        assert parsed(data).target == INSIDE
        return parsed(data).target_port


NO_MAPPING = "usernat: no mapping"


def test_only_the_peer_that_was_dialled_gets_in_by_default() -> None:
    box = Box(UserNat())
    assert box.receive(1000) == NO_MAPPING
    assert box.send(1000) == 1000
    assert box.receive(1000) == 1000
    assert box.receive(1000, peer_port=501) == NO_MAPPING
    assert box.receive(1000, peer=OTHER) == NO_MAPPING


def test_an_address_filter_lets_in_any_port_of_the_peer() -> None:
    box = Box(UserNat(Depends.NOTHING, Depends.ADDRESS))
    box.send(1000)
    assert box.receive(1000, peer_port=501) == 1000
    assert box.receive(1000, peer=OTHER) == NO_MAPPING


def test_a_full_cone_lets_in_everybody_once_the_port_was_used() -> None:
    box = Box(UserNat(Depends.NOTHING, Depends.NOTHING))
    assert box.receive(1000, peer=OTHER) == NO_MAPPING
    box.send(1000)
    assert box.receive(1000, peer=OTHER, flags=SYN) == 1000


def test_sequential_ports_count_up_with_each_destination() -> None:
    box = Box(UserNat(ports=Ports.SEQUENTIAL))
    first = box.send(1000)
    assert [box.send(1000, peer_port=501), box.send(1000, peer=OTHER)] == [first + 1, first + 2]
    assert box.send(1000) == first
    assert box.receive(first + 1, peer_port=501) == 1000


def test_random_ports_differ_by_destination_and_stay_for_one() -> None:
    box = Box(UserNat(ports=Ports.RANDOM))
    outside = {box.send(1000, peer_port=port) for port in range(500, 520)}
    assert len(outside) > 15
    assert box.send(1000, peer_port=500) == box.send(1000, peer_port=500)


def test_a_port_block_has_its_size() -> None:
    box = Box(UserNat(ports=Ports.BLOCK, block=1008))
    mine = {box.send(port) for port in range(1000, 1000 + BLOCK_SESSIONS)}
    assert BLOCK_SIZE < max(mine) - min(mine) < 1008


def test_a_port_block_is_one_machines_own_and_has_so_many_sessions_at_one_time() -> None:
    box = Box(UserNat(ports=Ports.BLOCK))
    mine = {box.send(1000, peer_port=port) for port in range(500, 500 + BLOCK_SESSIONS)}
    assert len(mine) == BLOCK_SESSIONS
    assert max(mine) - min(mine) < BLOCK_SIZE
    one_more = parsed(segment(INSIDE, 1000, PEER, 499))
    assert box.nat.outbound(one_more, box.now) == Dropped("usernat: too many sessions")
    neighbours = box.nat.outbound(parsed(segment("192.168.1.3", 1000, PEER, 500)), box.now)
    assert isinstance(neighbours, bytes)
    assert (parsed(neighbours).source_port - FIRST_PORT) // BLOCK_SIZE not in {
        (port - FIRST_PORT) // BLOCK_SIZE for port in mine
    }
    assert box.send(1000, peer_port=500) in mine
    box.now = IDLE_SECONDS + 1
    assert isinstance(box.nat.outbound(one_more, box.now), bytes)


def test_endpoint_independent_random_ports_are_one_for_all_destinations() -> None:
    box = Box(UserNat(Depends.NOTHING, Depends.NOTHING, Ports.RANDOM))
    assert box.send(1000) == box.send(1000, peer=OTHER)


def test_a_bare_inbound_syn_is_dropped_while_a_syn_ack_passes() -> None:
    box = Box(UserNat(drops_bare_syn=True))
    box.send(1000)
    assert box.receive(1000, flags=SYN) == "usernat: bare inbound SYN"
    assert box.receive(1000, flags=SYN | ACK) == 1000


@pytest.mark.parametrize(("dies", "after"), [(False, 1000), (True, NO_MAPPING)])
def test_a_reset_is_delivered_and_ends_the_mapping_where_it_should(dies: bool, after: int | str) -> None:
    box = Box(UserNat(dies_by_rst=dies))
    box.send(1000)
    assert box.receive(1000, flags=RST) == 1000
    assert box.receive(1000) == after


@pytest.mark.parametrize(("dies", "after"), [(False, 1000), (True, NO_MAPPING)])
def test_an_icmp_error_is_translated_and_ends_the_mapping_where_it_should(dies: bool, after: int | str) -> None:
    box = Box(UserNat(ports=Ports.SEQUENTIAL, dies_by_icmp=dies))
    outside = box.send(1000)
    sent = parsed(segment(OUTSIDE, outside, PEER, 500))
    answer = box.nat.inbound(parsed(packets.time_exceeded(sent, "192.0.2.101")), 0.0)
    assert isinstance(answer, bytes)
    quoted = packets.quoted_packet(parsed(answer))
    assert quoted is not None
    assert (parsed(answer).target, quoted.source, quoted.source_port) == (INSIDE, INSIDE, 1000)
    assert box.receive(outside) == after


def test_an_icmp_error_about_a_stranger_is_dropped() -> None:
    box = Box(UserNat())
    error = packets.time_exceeded(parsed(segment(OUTSIDE, 1, PEER, 2)), "192.0.2.101")
    assert box.nat.inbound(parsed(error), 0.0) == Dropped("usernat: ICMP for no mapping")


@pytest.mark.parametrize("idle_s", [60.0, IDLE_SECONDS])
def test_a_mapping_that_was_idle_too_long_is_gone(idle_s: float) -> None:
    box = Box(UserNat(ports=Ports.SEQUENTIAL, idle_s=idle_s))
    first = box.send(1000)
    box.now = idle_s - 1
    assert box.receive(first) != NO_MAPPING
    box.now = idle_s + 1
    assert box.receive(first) == NO_MAPPING
    assert box.send(1000) == first + 1


def test_two_machines_never_share_a_port() -> None:
    box = Box(UserNat(Depends.NOTHING))
    assert box.send(1000) == 1000
    data = box.nat.outbound(parsed(segment("192.168.1.3", 1000, PEER, 500)), box.now)
    assert isinstance(data, bytes)
    assert parsed(data).source_port != 1000
    assert box.send(1000, OTHER) == 1000


INSIDE6, PEER6 = "2001:db8:1:1::2", "64:ff9b::c633:6414"


def test_a_nat64_joins_an_ipv6_host_to_an_ipv4_peer() -> None:
    nat = Nat64(UserNat(nat64=True), OUTSIDE, random.Random(1))
    out = nat.outbound(parsed(segment(INSIDE6, 1000, PEER6, 500)), 0.0)
    assert isinstance(out, bytes)
    assert tcp_is_valid(out)
    assert (parsed(out).version, parsed(out).source, parsed(out).target) == (4, OUTSIDE, PEER)
    back = nat.inbound(parsed(segment(PEER, 500, OUTSIDE, 1000, SYN | ACK)), 0.0)
    assert isinstance(back, bytes)
    assert tcp_is_valid(back)
    assert (parsed(back).source, parsed(back).target, parsed(back).target_port) == (PEER6, INSIDE6, 1000)


def test_a_nat64_tells_of_a_hop_limit_that_ran_out() -> None:
    nat = Nat64(UserNat(nat64=True), OUTSIDE, random.Random(1))
    out = nat.outbound(parsed(segment(INSIDE6, 1000, PEER6, 500)), 0.0)
    assert isinstance(out, bytes)
    told = nat.inbound(parsed(packets.time_exceeded(parsed(out), "192.0.2.103")), 0.0)
    assert isinstance(told, bytes)
    assert (parsed(told).protocol, parsed(told).source) == (packets.ICMP6, "64:ff9b::c000:267")
    quoted = parsed(told[packets.IPV6_HEADER + packets.ICMP_HEADER :])
    assert (quoted.source, quoted.source_port, quoted.target) == (INSIDE6, 1000, PEER6)


@pytest.mark.parametrize("target", ["2001:db8:2:1::2", "64:ff9c::c633:6414"])
def test_a_nat64_takes_nothing_else(target: str) -> None:
    nat = Nat64(UserNat(nat64=True), OUTSIDE, random.Random(1))
    assert isinstance(nat.outbound(parsed(segment(INSIDE6, 1000, target, 500)), 0.0), Dropped)
