"""A router that maps ports by PCP and NAT-PMP: datagrams in, datagrams out."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from punchtunnel.reach import pcp

KEY = bytes(range(32))


@dataclass
class FakeRouter:
    """Knows one client.

    Attributes:
        speaks: "PCP", "NAT-PMP" or both.
        outside: Its external address.
        others: External ports that it gives for own ports, where these are taken.
        result: What it answers to whoever wants a mapping, if not 0.
        refused: What it answers to own ports.
        lifetime: What it gives, whatever was asked for; 0 is as asked.
        refuses_versions: Whether it tells in NAT-PMP that it does not know PCP.
        table: Own ports, the external ones, and when they are over.
    """

    speaks: set[str]
    outside: str = "203.0.113.5"
    others: dict[int, int] = field(default_factory=dict)
    result: int = 0
    refused: Mapping[int, int] = field(default_factory=dict)
    lifetime: int = 0
    refuses_versions: bool = False
    table: dict[int, tuple[int, float]] = field(default_factory=dict)
    started: float = 0.0

    def restart(self, now: float) -> None:
        self.table.clear()
        self.started = now

    def standing(self, now: float) -> Collection[int]:
        return {port for port, (_, until) in self.table.items() if until > now}

    def answers(self, data: bytes, now: float) -> list[bytes]:
        epoch = int(now - self.started)
        if data[0] == pcp.VERSION and "PCP" in self.speaks:
            return [self._pcp(data, now, epoch)]
        if data[0] == pcp.VERSION and self.refuses_versions:
            return [struct.pack("!BBHI", 0, 0x81, 1, epoch)]
        if data[0] == 0 and "NAT-PMP" in self.speaks:
            return [self._natpmp(data, now, epoch)]
        return []

    def _map(self, own: int, wish: int, lifetime: int, now: float) -> tuple[int, int]:
        if not lifetime:
            self.table.pop(own, None)
            return 0, 0
        lifetime = self.lifetime or lifetime
        external = self.others.get(own, wish)
        self.table[own] = external, now + lifetime
        return external, lifetime

    def _pcp(self, data: bytes, now: float, epoch: int) -> bytes:
        (lifetime,) = struct.unpack_from("!I", data, 4)
        nonce, own, wish = data[24:36], *struct.unpack_from("!HH", data, 40)
        result = (self.result or self.refused.get(own, 0)) if lifetime else 0
        host = ip_address(self.outside)
        packed = host.packed if host.version == 6 else bytes(10) + b"\xff\xff" + host.packed
        external, lifetime = (wish, 0) if result else self._map(own, wish, lifetime, now)
        head = struct.pack("!BBBBII12x", 2, 0x81, 0, result, lifetime, epoch)
        return head + nonce + struct.pack("!B3xHH", 6, own, external) + packed

    def _natpmp(self, data: bytes, now: float, epoch: int) -> bytes:
        if data[1] == 0:
            return struct.pack("!BBHI", 0, 128, 0, epoch) + ip_address(self.outside).packed
        own, wish, lifetime = struct.unpack_from("!HHI", data, 4)
        result = (self.result or self.refused.get(own, 0)) if lifetime else 0
        external, lifetime = (wish, 0) if result else self._map(own, wish, lifetime, now)
        return struct.pack("!BBHIHHI", 0, 130, result, epoch, own, external, lifetime)
