"""A small NAT for behaviours that the Linux kernel does not have.

    inside 192.168.1.2:p  --outbound-->  outside 198.51.100.1:q  --> peer
                          <--inbound---

Pure: packets and the time in, bytes or a reason out.  `internet.py` puts one
between a host's TUN device and the paths.  TCP only, plus the ICMP errors that
belong to a TCP mapping; on the inside IPv4, or IPv6 before a NAT64.

Words of RFC 4787 §4 and §5: a mapping or a filter is "endpoint-independent"
(full cone: anyone who knows the outside port gets in), "address-dependent" or
"address-and-port-dependent" (what Linux does).
"""

from __future__ import annotations

import ipaddress
import random
from dataclasses import dataclass, field
from enum import StrEnum

from punchtunnel.punching.nat64 import embedded

from . import packets
from .packets import RST, Packet, quoted_packet, readdressed, with_quoted

# Ports that such a NAT hands out when it does not keep the source port.
FIRST_PORT = 1024
LAST_PORT = 65535
# RFC 5382 REQ-5 asks for four minutes of transitory idle time; nothing in the
# laboratory that should survive waits longer than that.
IDLE_SECONDS = 240.0
# Carriers give a subscriber a block of some hundred ports, and limit the sessions that may use it.
BLOCK_SIZE = 512
BLOCK_SESSIONS = 64
# Of the NAT64 (RFC 6052 §2.1), and what its one host is called between its two halves.
PREFIX = ipaddress.IPv6Network("64:ff9b::/96")
INSIDE4 = "192.168.1.2"


class Depends(StrEnum):
    """On how much of the far end a mapping or a filter depends."""

    NOTHING = "nothing"
    ADDRESS = "address"
    ADDRESS_AND_PORT = "address and port"


class Ports(StrEnum):
    """How an outside port is chosen."""

    KEEP = "keep"
    SEQUENTIAL = "sequential"
    RANDOM = "random"
    # Random in a block of `block` ports that a machine has for itself, for BLOCK_SESSIONS at one time (RFC 6888 REQ-4).
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class UserNat:
    """One behaviour: a row of the table in topology.py."""

    mapping: Depends = Depends.ADDRESS_AND_PORT
    filtering: Depends = Depends.ADDRESS_AND_PORT
    ports: Ports = Ports.KEEP
    # RFC 5382 REQ-2 forbids it: an inbound SYN for a mapping is thrown away
    # unless it carries an ACK, so simultaneous open dies here.
    drops_bare_syn: bool = False
    dies_by_rst: bool = False
    dies_by_icmp: bool = False
    # What the inside sends to the outside address comes back in (RFC 4787 REQ-9).
    hairpins: bool = False
    # The inside has IPv6 only (RFC 6146).
    nat64: bool = False
    # Seconds for which nothing goes out before a mapping is forgotten.
    idle_s: float = IDLE_SECONDS
    # Ports of a machine, where they come in blocks.
    block: int = BLOCK_SIZE


Place = tuple[str, int]


@dataclass(slots=True)
class Mapping:
    """One outside port, the inside place behind it, and the far ends it has talked to."""

    inside: Place
    outside: Place
    far: set[Place] = field(default_factory=set)
    used_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Dropped:
    """The packet ends here; `why` goes into the packet log."""

    why: str


class Translator:
    """The state of one NAT: its mappings."""

    def __init__(self, behaviour: UserNat, outside_address: str, rng: random.Random) -> None:
        self._behaviour = behaviour
        self.hairpins = behaviour.hairpins
        self._outside_address = outside_address
        self._rng = rng
        self._next_port = FIRST_PORT
        # The first port of the block of each inside address.
        self._blocks: dict[str, int] = {}
        self._by_key: dict[tuple[object, ...], Mapping] = {}
        self._by_port: dict[int, list[Mapping]] = {}

    def outbound(self, packet: Packet, now: float) -> bytes | Dropped:
        """Return the packet as it leaves on the outside.

        Args:
            packet: A packet from the inside.
            now: Any clock in seconds, the same for all calls.
        """
        if not packet.is_tcp or packet.version != 4:
            return Dropped("usernat: not TCP")
        inside, far = (packet.source, packet.source_port), (packet.target, packet.target_port)
        key = _key(self._behaviour.mapping, inside, far)
        mapping = self._by_key.get(key)
        if mapping is not None and now - mapping.used_at > self._behaviour.idle_s:
            self._forget(mapping)
            mapping = None
        if mapping is None:
            if self._behaviour.ports is Ports.BLOCK and self._sessions(inside[0], now) >= BLOCK_SESSIONS:
                return Dropped("usernat: too many sessions")
            mapping = Mapping(inside, (self._outside_address, self._choose_port(inside)))
            self._by_key[key] = mapping
            self._by_port.setdefault(mapping.outside[1], []).append(mapping)
        mapping.far.add(far)
        mapping.used_at = now
        return readdressed(packet, source=mapping.outside)

    def inbound(self, packet: Packet, now: float) -> bytes | Dropped:
        """Return the packet as it enters on the inside, or why it does not."""
        quoted = quoted_packet(packet)
        if quoted is not None:
            return self._inbound_error(packet, quoted)
        if not packet.is_tcp:
            return Dropped("usernat: not TCP")
        far = (packet.source, packet.source_port)
        mapping = self._find(packet.target_port, far)
        if mapping is None or now - mapping.used_at > self._behaviour.idle_s:
            return Dropped("usernat: no mapping")
        if packet.is_bare_syn and self._behaviour.drops_bare_syn:
            return Dropped("usernat: bare inbound SYN")
        if packet.flags & RST and self._behaviour.dies_by_rst:
            self._forget(mapping)
        return readdressed(packet, target=mapping.inside)

    def _inbound_error(self, packet: Packet, quoted: Packet) -> bytes | Dropped:
        mapping = self._find(quoted.source_port, (quoted.target, quoted.target_port))
        if mapping is None:
            return Dropped("usernat: ICMP for no mapping")
        if self._behaviour.dies_by_icmp:
            self._forget(mapping)
        return with_quoted(packet, mapping.inside[0], readdressed(quoted, source=mapping.inside))

    def _find(self, outside_port: int, far: Place) -> Mapping | None:
        for mapping in self._by_port.get(outside_port, ()):
            if self._lets_in(mapping, far):
                return mapping
        return None

    def _lets_in(self, mapping: Mapping, far: Place) -> bool:
        match self._behaviour.filtering:
            case Depends.NOTHING:
                return True
            case Depends.ADDRESS:
                return any(address == far[0] for address, _port in mapping.far)
            case Depends.ADDRESS_AND_PORT:
                return far in mapping.far

    def _choose_port(self, inside: Place) -> int:
        match self._behaviour.ports:
            case Ports.KEEP if all(one.inside == inside for one in self._by_port.get(inside[1], ())):
                return inside[1]
            case Ports.RANDOM:
                return self._rng.randint(FIRST_PORT, LAST_PORT)
            case Ports.BLOCK:
                first = self._block(inside[0])
                return self._rng.choice(
                    [port for port in range(first, first + self._behaviour.block) if not self._by_port.get(port)]
                )
            # One port for two machines at one time is forbidden (RFC 4787 REQ-3).
            case Ports.SEQUENTIAL | Ports.KEEP:
                self._next_port += 1
                return self._next_port

    def _sessions(self, inside_address: str, now: float) -> int:
        """Count the sessions of an inside address; one that was idle for too long is over, and its port free."""
        of_it = [one for one in self._by_key.values() if one.inside[0] == inside_address]
        over = [one for one in of_it if now - one.used_at > self._behaviour.idle_s]
        for mapping in over:
            self._forget(mapping)
        return len(of_it) - len(over)

    def _block(self, inside_address: str) -> int:
        """Return the first port of the block of an inside address, which nobody else has."""
        if inside_address not in self._blocks:
            free = set(range(FIRST_PORT, LAST_PORT + 2 - self._behaviour.block, self._behaviour.block)) - set(
                self._blocks.values()
            )
            self._blocks[inside_address] = self._rng.choice(sorted(free))
        return self._blocks[inside_address]

    def _forget(self, mapping: Mapping) -> None:
        self._by_key = {key: kept for key, kept in self._by_key.items() if kept is not mapping}
        self._by_port[mapping.outside[1]].remove(mapping)


class Nat64:
    """A NAT64 with one host behind it: its packets become IPv4, without a state (RFC 7915), and then go by a NAT."""

    hairpins = False

    def __init__(self, behaviour: UserNat, outside_address: str, rng: random.Random) -> None:
        self._nat = Translator(behaviour, outside_address, rng)
        self._inside6 = ""

    def outbound(self, packet: Packet, now: float) -> bytes | Dropped:
        """Return the packet as it leaves on the outside."""
        if not packet.is_tcp or ipaddress.ip_address(packet.target) not in PREFIX:
            return Dropped("nat64: not TCP to IPv4")
        self._inside6 = packet.source
        target = packets.address_text(packets.address_bytes(packet.target)[12:])
        data = packets.ipv4(packets.TCP, INSIDE4, target, _summed(packet, INSIDE4, target), packet.ttl)
        return self._nat.outbound(packets.parse(data) or packet, now)

    def inbound(self, packet: Packet, now: float) -> bytes | Dropped:
        """Return the packet as it enters on the inside, or why it does not."""
        translated = self._nat.inbound(packet, now)
        if isinstance(translated, Dropped):
            return translated
        inner = packets.parse(translated)
        assert inner is not None
        if inner.is_tcp:
            return self._six(inner, _mapped(inner.source), self._inside6)
        # The one ICMP that holds provoke.
        quoted = quoted_packet(inner)
        if quoted is None or inner.data[inner.payload_at] != packets.ICMP4_TIME_EXCEEDED:
            return Dropped("nat64: another ICMP")
        expired = packets.parse(self._six(quoted, self._inside6, _mapped(quoted.target)))
        assert expired is not None
        return packets.time_exceeded(expired, _mapped(inner.source))

    @staticmethod
    def _six(packet: Packet, source: str, target: str) -> bytes:
        return packets.ipv6(packets.TCP, source, target, _summed(packet, source, target), packet.ttl)


def _mapped(host: str) -> str:
    return str(ipaddress.ip_address(embedded(host, PREFIX) or ""))


def _summed(packet: Packet, source: str, target: str) -> bytes:
    """Return the TCP segment of a packet with the checksum that it has between other addresses."""
    segment = packet.data[packet.payload_at :]
    bare = segment[:16] + b"\0\0" + segment[18:]
    total = packets.checksum(bare, packets.pseudo_sum(source, target, packets.TCP, len(bare)))
    return segment[:16] + total.to_bytes(2, "big") + segment[18:]


def _key(mapping: Depends, inside: Place, far: Place) -> tuple[object, ...]:
    """Return what two packets must share to get the same outside port."""
    match mapping:
        case Depends.NOTHING:
            return (inside,)
        case Depends.ADDRESS:
            return (inside, far[0])
        case Depends.ADDRESS_AND_PORT:
            return (inside, far)
