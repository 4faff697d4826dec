"""Routers that map ports: by PCP and NAT-PMP in memory and on the loopback, and what stands for one of UPnP."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Mapping
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
        exclusive: Whether a port that another own one has is taken, and the next one is given.
        deaf: Own ports that are not answered for.
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
    exclusive: bool = False
    deaf: Collection[int] = ()

    def restart(self, now: float) -> None:
        self.table.clear()
        self.started = now

    def standing(self, now: float) -> Collection[int]:
        return {port for port, (_, until) in self.table.items() if until > now}

    def answers(self, data: bytes, now: float) -> list[bytes]:
        epoch = int(now - self.started)
        if data[0] == pcp.VERSION and len(data) == 24:
            # ANNOUNCE
            return [struct.pack("!BBBBII12x", 2, 0x80, 0, 0, 0, epoch)] if "PCP" in self.speaks else []
        if data[0] == pcp.VERSION and struct.unpack_from("!H", data, 40)[0] in self.deaf:
            return []
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
        while self.exclusive and external in {port for one, (port, _) in self.table.items() if one != own}:
            external += 1
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


class Gateway:
    """A FakeRouter at a UDP port of an address of the loopback, in a thread; it answers until it is closed."""

    def __init__(self, router: FakeRouter, host: str = "127.0.0.2", port: int = 0) -> None:
        self.router = router
        self.host = host
        self.clients: set[tuple[str, int]] = set()
        # Sent before each answer.
        self.noise: list[bytes] = []
        self._heard = threading.Condition()
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((host, port))
        self.port: int = self._sock.getsockname()[1]
        self._thread = threading.Thread(target=self._run, name="fake router")
        self._thread.start()

    def wait_until(self, done: Callable[[], bool]) -> None:
        """Wait until something is true after a datagram."""
        with self._heard:
            assert self._heard.wait_for(done, 30)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", (self.host, self.port))
        self._thread.join()

    def _run(self) -> None:
        with self._sock as sock:
            while True:
                data, client = sock.recvfrom(2048)
                if not data:
                    return
                with self._heard:
                    self.clients.add(client)
                    for answer in [*self.noise, *self.router.answers(data, time.monotonic())]:
                        sock.sendto(answer, client)
                    self._heard.notify_all()


class FakeIgd:
    """Stands for miniupnpc.UPnP: a table, and errors as that has them.

    Attributes:
        table: External ports: own address, own port, description, enabled, seconds left.
        errors: What AddPortMapping fails with, by port.
    """

    def __init__(self, outside: str = "203.0.113.5", own: str = "127.0.0.1") -> None:
        self.lanaddr = own
        self.outside = outside
        self.control = "http://127.0.0.2:5000/ctl"
        self.table: dict[int, tuple[str, int, str, bool, int]] = {}
        self.errors: dict[int, str] = {}
        self.maps_though_it_fails = self.makes_permanent = False
        self.asked: list[int] = []
        self.before_add: Callable[[int], object] = lambda port: None
        self.before_delete: Callable[[int], object] = lambda port: None
        # The first is cleared to let every call hang; the second tells of one.
        self.go_on, self.called = threading.Event(), threading.Event()
        self.go_on.set()

    def selectigd(self, url: str) -> str:
        self.called.set()
        self.go_on.wait(60)
        return self.control

    def externalipaddress(self) -> str:
        self.go_on.wait(60)
        return self.outside

    def getspecificportmapping(self, port: int, protocol: str) -> tuple[str, int, str, bool, int] | None:
        assert protocol == "TCP"
        return self.table.get(port)

    def addportmapping(
        self, port: int, protocol: str, own: str, own_port: int, description: str, remote: str, lease: int
    ) -> bool:
        assert (protocol, remote, lease) == ("TCP", "", 600)
        self.asked.append(port)
        self.before_add(port)
        if port not in self.errors or self.maps_though_it_fails:
            self.table[port] = own, own_port, description, True, 0 if self.makes_permanent else lease
        if port in self.errors:
            raise Exception(self.errors[port])
        return True

    def deleteportmapping(self, port: int, protocol: str) -> bool:
        assert protocol == "TCP"
        self.before_delete(port)
        if self.table.pop(port, None) is None:
            raise Exception("NoSuchEntryInArray")
        return True
