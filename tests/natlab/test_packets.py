"""packets.py: what is changed stays a packet that a kernel would take."""

from __future__ import annotations

import struct
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from . import packets
from .packets import ACK, ICMP4, ICMP6, RST, SYN, TCP

LEFT, RIGHT = "198.51.100.10", "198.51.100.20"
LEFT6, RIGHT6 = "2001:db8:1:1::2", "2001:db8:2:1::2"

ports = st.integers(1, 65535)
addresses = st.binary(min_size=4, max_size=4).map(packets.address_text)


def segment(
    source: str = LEFT,
    source_port: int = 1111,
    target: str = RIGHT,
    target_port: int = 2222,
    flags: int = SYN,
    payload: bytes = b"",
    ttl: int = 64,
) -> bytes:
    """Return an IP packet with a TCP segment, its checksum right."""
    header = struct.pack(">HHIIBBHHH", source_port, target_port, 7, 9, 5 << 4, flags, 1000, 0, 0)
    total = packets.checksum(header + payload, packets.pseudo_sum(source, target, TCP, len(header + payload)))
    body = header[:16] + total.to_bytes(2, "big") + header[18:] + payload
    build = packets.ipv6 if ":" in source else packets.ipv4
    return build(TCP, source, target, body, ttl)


def parsed(data: bytes) -> packets.Packet:
    """Return the fields of a packet that must be one."""
    packet = packets.parse(data)
    assert packet is not None
    return packet


def tcp_is_valid(data: bytes) -> bool:
    """Tell whether the TCP checksum is right: the sum over all of it is then zero."""
    packet = parsed(data)
    body = data[packet.payload_at :]
    return packets.checksum(body, packets.pseudo_sum(packet.source, packet.target, TCP, len(body))) == 0


def header_is_valid(data: bytes) -> bool:
    """Tell whether the IPv4 header checksum is right."""
    return packets.checksum(data[:20]) == 0


def test_a_syn_is_read_field_by_field() -> None:
    packet = parsed(segment(flags=SYN, payload=b"abc", ttl=5))
    assert (packet.source, packet.source_port, packet.target, packet.target_port) == (LEFT, 1111, RIGHT, 2222)
    assert (packet.ttl, packet.sequence, packet.acknowledged, packet.length) == (5, 7, 9, 3)
    assert packet.is_bare_syn


def test_a_syn_with_ack_or_rst_is_not_bare() -> None:
    assert not parsed(segment(flags=SYN | ACK)).is_bare_syn
    assert not parsed(segment(flags=SYN | RST)).is_bare_syn


def test_an_ipv6_segment_is_read_like_an_ipv4_one() -> None:
    packet = parsed(segment(LEFT6, 5, RIGHT6, 6, payload=b"x", ttl=9))
    assert (packet.source, packet.target, packet.ttl, packet.length) == (LEFT6, RIGHT6, 9, 1)


@given(st.binary(max_size=80))
def test_garbage_is_none_or_a_packet_and_nothing_else(garbage: bytes) -> None:
    packet = packets.parse(garbage)
    assert packet is None or packet.data == garbage


def test_checksum_is_the_one_in_rfc_1071() -> None:
    assert packets.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


@given(addresses, ports, addresses, ports, st.binary(max_size=9))
def test_readdressing_keeps_both_checksums_right(
    source: str, source_port: int, target: str, target_port: int, payload: bytes
) -> None:
    before = parsed(segment(payload=payload))
    after = packets.readdressed(before, source=(source, source_port), target=(target, target_port))
    assert header_is_valid(after)
    assert tcp_is_valid(after)
    packet = parsed(after)
    assert (packet.source, packet.source_port) == (source, source_port)
    assert (packet.target, packet.target_port) == (target, target_port)


@given(st.integers(1, 255), st.integers(0, 255))
def test_another_ttl_keeps_the_header_checksum_right(before: int, after: int) -> None:
    changed = packets.with_ttl(parsed(segment(ttl=before)), after)
    assert header_is_valid(changed)
    assert parsed(changed).ttl == after
    assert parsed(packets.with_ttl(parsed(segment(LEFT6, target=RIGHT6)), after)).ttl == after


def test_time_exceeded_quotes_the_packet_and_goes_back_to_its_sender() -> None:
    packet = parsed(segment())
    answer = parsed(packets.time_exceeded(packet, "192.0.2.103"))
    assert (answer.protocol, answer.source, answer.target) == (ICMP4, "192.0.2.103", LEFT)
    assert header_is_valid(answer.data)
    assert packets.checksum(answer.data[20:]) == 0
    quoted = packets.quoted_packet(answer)
    assert quoted is not None
    assert (quoted.source_port, quoted.target_port) == (1111, 2222)


def test_time_exceeded_over_ipv6_has_the_checksum_of_rfc_4443() -> None:
    answer = parsed(packets.time_exceeded(parsed(segment(LEFT6, target=RIGHT6)), "2001:db8:ff::3"))
    body = answer.data[40:]
    assert (answer.protocol, answer.target, body[0]) == (ICMP6, LEFT6, 3)
    assert packets.checksum(body, packets.pseudo_sum(answer.source, answer.target, ICMP6, len(body))) == 0


def test_a_plain_segment_quotes_nothing() -> None:
    assert packets.quoted_packet(parsed(segment())) is None


def test_an_error_can_be_sent_on_with_another_quote() -> None:
    error = parsed(packets.time_exceeded(parsed(segment()), "192.0.2.103"))
    inner = parsed(segment(source="192.168.1.2"))
    forwarded = parsed(packets.with_quoted(error, "192.168.1.2", inner.data))
    assert forwarded.target == "192.168.1.2"
    assert packets.checksum(forwarded.data[20:]) == 0
    assert packets.quoted_packet(forwarded) == replace(inner, data=inner.data)


def test_flags_are_written_as_tcpdump_writes_them() -> None:
    assert [packets.flags_text(flags) for flags in (SYN, SYN | ACK, RST, 0)] == ["S", "S.", "R", "-"]
