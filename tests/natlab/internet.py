"""The internet of the laboratory: one process that carries packets between TUN devices.

    stdin   one line of JSON: a `Plan`           (then the devices are made)
    stdout  "ready" and a newline                (then the routers are set up)
    stdin   end of file                          (then the log is written)

One thread, one `select`, one heap of packets ordered by the time they are
due.  A packet is looked at once when it enters: where to, through which NAT,
by which wire; all that is left to do later is to write it.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path as FilePath
from typing import Any

from . import packetlog, packets, sandbox, usernat, wire

# From <linux/if_tun.h>.
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
DEVICE = "wan"
# Larger than any packet: the devices have an MTU of 1500.
READ_SIZE = 4096
# Packets read from one device before others get their turn.
BURST = 32
NO_SUCH_SITE = "no such address"
# A Linux router sends on what conntrack calls INVALID with its inside address;
# no provider carries that (BCP 38).
FOREIGN_SOURCE = "source address is not from there"
TOO_LARGE = "larger than the path's MTU"
MULTICAST6 = "ff"


@dataclass(frozen=True, slots=True)
class Site:
    """A place where the internet ends: a namespace with a TUN device, and its addresses."""

    name: str
    namespace: str
    addresses: tuple[str, ...]
    # A userspace NAT that hides the inside behind addresses[0].
    nat: usernat.UserNat | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that this process must know."""

    sites: tuple[Site, ...]
    # (from, to) -> path; pairs that are not named use `default`.
    paths: tuple[tuple[str, str, wire.Path], ...]
    default: wire.Path
    seed: int
    answers_expired: bool
    log: str

    def to_json(self) -> str:
        """Return one line that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Plan:
        """Read what `to_json` wrote."""
        raw = json.loads(line)
        sites = tuple(
            Site(one["name"], one["namespace"], tuple(one["addresses"]), one["nat"] and _nat(one["nat"]))
            for one in raw["sites"]
        )
        paths = tuple((origin, towards, _path(path)) for origin, towards, path in raw["paths"])
        default = _path(raw["default"])
        return cls(sites, paths, default, raw["seed"], raw["answers_expired"], raw["log"])


def _path(raw: dict[str, Any]) -> wire.Path:
    begin, end = raw.pop("outage_s")
    return wire.Path(**raw, outage_s=(begin, end))


def _nat(raw: dict[str, str | bool | float]) -> usernat.UserNat:
    mapping, filtering = usernat.Depends(str(raw.pop("mapping"))), usernat.Depends(str(raw.pop("filtering")))
    flags = {key: bool(raw[key]) for key in ("drops_bare_syn", "dies_by_rst", "dies_by_icmp", "hairpins", "nat64")}
    return usernat.UserNat(
        mapping,
        filtering,
        usernat.Ports(str(raw["ports"])),
        **flags,
        idle_s=float(raw["idle_s"]),
        block=int(raw["block"]),
    )


def hop_address(version: int, hop: int) -> str:
    """Return the address of the `hop`-th router on the way: the one that answers for it."""
    return f"192.0.2.{100 + hop}" if version == 4 else f"2001:db8:ff::{hop + 1:x}"


@dataclass(order=True, slots=True)
class Due:
    """A packet in the air; `number` is its record in the log, and keeps equal times in order."""

    time: float
    number: int
    site: str
    data: bytes


class Internet:
    """Packets in the air, and what the sites look like from there."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._by_address = {address: site.name for site in plan.sites for address in site.addresses}
        self._nats = {
            site.name: (usernat.Nat64 if site.nat.nat64 else usernat.Translator)(
                site.nat, site.addresses[0], random.Random(f"{plan.seed} {site.name}")
            )
            for site in plan.sites
            if site.nat is not None
        }
        self._wires = {
            (origin.name, towards.name): self._wire(origin.name, towards.name)
            for origin in plan.sites
            for towards in plan.sites
        }
        self._air: list[Due] = []
        self.log = packetlog.PacketLog()

    def _path(self, origin: str, towards: str) -> wire.Path:
        named = {(one, other): path for one, other, path in self._plan.paths}
        return named.get((origin, towards), self._plan.default)

    def _wire(self, origin: str, towards: str) -> wire.Wire:
        rng = random.Random(f"{self._plan.seed} {origin} {towards}")
        return wire.Wire(self._path(origin, towards), rng, self._path(towards, origin).delay_s)

    def enters(self, origin: str, data: bytes, now: float) -> None:
        """Take one packet that the kernel of site `origin` sent."""
        packet = packets.parse(data)
        if packet is None or packet.target.startswith(MULTICAST6):
            return
        towards = self._by_address.get(packet.target, "?")
        if (nat := self._nats.get(origin)) is not None:
            translated = nat.outbound(packet, now)
            if isinstance(translated, usernat.Dropped):
                self._note(origin, towards, packet, translated.why)
                return
            packet = packets.parse(translated) or packet
            packet = replace(packet, ttl=packet.ttl - 1)
            towards = self._by_address.get(packet.target, "?")
        if towards == origin and nat is not None and nat.hairpins:
            self._note(origin, towards, packet, packetlog.DELIVERED)
            self._put(now, origin, packet.data)
        elif towards in ("?", origin):
            self._note(origin, towards, packet, NO_SUCH_SITE)
        elif self._by_address.get(packet.source) != origin:
            self._note(origin, towards, packet, FOREIGN_SOURCE)
        else:
            self._carry(origin, towards, packet, now)

    def _carry(self, origin: str, towards: str, packet: packets.Packet, now: float) -> None:
        wire_there = self._wires[origin, towards]
        path = wire_there.path
        mtu = path.mtu if packet.version == 4 else min(path.mtu, path.mtu6)
        if len(packet.data) > mtu:
            pieces = packets.fragments(packet, mtu)
            if not pieces:
                self._note(origin, towards, packet, TOO_LARGE)
            for piece in pieces:
                self._carry(origin, towards, replace(packet, data=piece), now)
            return
        match wire_there.fate(now, packet.ttl):
            case wire.Lost():
                self._note(origin, towards, packet, "lost")
            case wire.Expires(answer_due, hop):
                self._note(origin, towards, packet, f"ttl ran out at hop {hop}")
                if self._plan.answers_expired and packet.protocol not in (packets.ICMP4, packets.ICMP6):
                    # Routers quote what they received: a packet with TTL 1.
                    last = replace(packet, ttl=1, data=packets.with_ttl(packet, 1))
                    answer = packets.time_exceeded(last, hop_address(packet.version, hop))
                    self._put(answer_due, origin, answer)
            case wire.Arrives(due, ttl):
                self._note(origin, towards, packet, packetlog.DELIVERED)
                self._put(due, towards, packets.with_ttl(packet, ttl))

    def _note(self, origin: str, towards: str, packet: packets.Packet, fate: str) -> None:
        self.log.records.append(packetlog.record(time.time(), origin, towards, packet, fate))

    def _put(self, due: float, site: str, data: bytes) -> None:
        heapq.heappush(self._air, Due(due, len(self.log.records) - 1, site, data))

    def next_due(self) -> float | None:
        """Return when the next packet is due, or None."""
        return self._air[0].time if self._air else None

    def due(self, now: float) -> list[tuple[str, bytes]]:
        """Return the packets that are due, each with the site that gets it."""
        ready = []
        while self._air and self._air[0].time <= now:
            one = heapq.heappop(self._air)
            nat = self._nats.get(one.site)
            packet = packets.parse(one.data)
            if nat is None or packet is None:
                ready.append((one.site, one.data))
                continue
            translated = nat.inbound(packet, now)
            if isinstance(translated, usernat.Dropped):
                self.log.records[one.number] = replace(self.log.records[one.number], fate=translated.why)
            else:
                ready.append((one.site, translated))
        return ready


def open_device(namespace: str) -> int:
    """Make the TUN device of a namespace and return its non-blocking descriptor."""
    with sandbox.inside(namespace):
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    return device


def carry(internet: Internet, devices: dict[str, int], stop: int) -> None:
    """Carry packets until `stop` has something to read."""
    by_device = {device: site for site, device in devices.items()}
    while True:
        due = internet.next_due()
        timeout = None if due is None else max(0.0, due - time.monotonic())
        readable, _, _ = select.select([*by_device, stop], [], [], timeout)
        if stop in readable:
            return
        for device in readable:
            with contextlib.suppress(BlockingIOError):
                for _ in range(BURST):
                    internet.enters(by_device[device], os.read(device, READ_SIZE), time.monotonic())
        for site, data in internet.due(time.monotonic()):
            # EIO: the device is down, because the scene is being taken away.
            with contextlib.suppress(OSError):
                os.write(devices[site], data)


def main() -> None:
    """Run as a process of its own, as the opening lines say."""
    plan = Plan.from_json(sys.stdin.readline())
    devices = {site.name: open_device(site.namespace) for site in plan.sites}
    internet = Internet(plan)
    print("ready", flush=True)
    carry(internet, devices, sys.stdin.fileno())
    internet.log.save(FilePath(plan.log))


if __name__ == "__main__":
    main()
