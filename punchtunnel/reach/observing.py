"""Learn how STUN servers see some ports of ours, and keep them seen: what a side offers to a peer that it has met.

    own port 16049 ──TCP──> server     seen as 203.0.113.9:41201, and stays so while the connection lives
    own port 20311 ──TCP──> server     seen as 203.0.113.9:7002

A router that maps a port the same way towards everybody (endpoint-independent) lets the peer in
by the outside port as soon as we have dialled the peer from the own one: so the port can be
listened on and dialled from at the same time, as all ports of a punch can.

A server is believed little: it can only make the peer dial some ports of another address.
"""

from __future__ import annotations

import errno
import os
import random
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from punchtunnel.address import Place, is_literal, is_public
from punchtunnel.protocol.offers import NO_PORT, Offered, PortUse, Source
from punchtunnel.protocol.schedule import HIGHEST_PORT, LOWEST_PORT
from punchtunnel.punching import ports
from punchtunnel.punching.resolver import GetAddrInfo
from punchtunnel.reach import portclass
from punchtunnel.reach.questions import CROSSED, Inquiry, Question, Target
from punchtunnel.reach.seat import LookUp
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address, source_towards
from punchtunnel.system.signals import Wake

# Seconds for look-ups and answers together: a SYN that was lost is repeated once, after one.
PATIENCE = 1.5
# Own ports that are asked about over IPv4: with two servers they make six samples.  Only the first
# CROSSED of them, which go to every server and are all that IPv6 is asked about, are offered.
OWN_PORTS = 4
MOST_SERVERS = 2
# Seconds between looks at what threads have looked up.
_LOOK_PAUSE = 0.02
# Ports of servers, which no peer dials.
_LOWEST_OFFERED = 1024
_USES = {
    portclass.Kind.PRESERVING: PortUse.PRESERVING,
    portclass.Kind.ENDPOINT_INDEPENDENT: PortUse.INDEPENDENT,
    portclass.Kind.SEQUENTIAL: PortUse.SEQUENTIAL,
    portclass.Kind.WINDOW: PortUse.WINDOW,
    portclass.Kind.RANDOM: PortUse.RANDOM,
    # Too few samples: it may be any rule.
    portclass.Kind.REWRITTEN: PortUse.UNKNOWN,
}


@dataclass(slots=True)
class Observed:
    """What the servers have told; `close` ends it.

    Attributes:
        candidates: The OBSERVED ones, IPv4 first.
        own_ports: The ports of this machine that belong to them, in their order.
        hosts: The public addresses that this machine was seen at.
        port_use: Of IPv4.
        compared: Two servers have seen one of the ports.  Else a router that chooses once for all destinations looks
            like one that chooses for each connection.
        last, low, high: Ports that were seen over IPv4: the latest, the lowest, the highest; NO_PORT if none was.
    """

    candidates: tuple[Offered, ...] = ()
    own_ports: tuple[int, ...] = ()
    hosts: tuple[str, ...] = ()
    port_use: PortUse = PortUse.UNKNOWN
    compared: bool = False
    last: int = NO_PORT
    low: int = NO_PORT
    high: int = NO_PORT
    _kept: tuple[socket.socket, ...] = ()

    def close(self) -> None:
        """Close the connections that keep the ports mapped."""
        for sock in self._kept:
            tcp.close_with_reset(sock)
        self._kept = ()


def fresh_ports(rng: random.Random) -> list[int]:
    """Return ports to observe, of the range that punches use."""
    return rng.sample(range(LOWEST_PORT, HIGHEST_PORT + 1), OWN_PORTS)


def observe(
    servers: Sequence[Place],
    own_ports: Sequence[int],
    *,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    bind: str | None = None,
    interface: str = "",
    wake: Wake | None = None,
    patience: float = PATIENCE,
    monotonic: Callable[[], float] = time.monotonic,
    look_up: GetAddrInfo = socket.getaddrinfo,
) -> Observed:
    """Ask STUN servers, and return what is known after `patience` seconds, or as soon as all have answered.

    Args:
        servers: The first MOST_SERVERS are asked, in every IP version that they have and this machine a route for.
        own_ports: The ports to ask about, OWN_PORTS of them; one that is taken is skipped.
        family: The only one to use, or AF_UNSPEC for both.
        bind: Literal address to ask from, or None for any.
        interface: The only one to ask by, or "" for any.
        wake: What may end the wait.
        patience: Seconds.
        monotonic: Steady time in seconds.
        look_up: `socket.getaddrinfo`, or a stand-in.

    Raises:
        SignalError: `wake` asks to end; nothing is left open.
    """
    observer = _Observer(own_ports, family, bind, interface, wake, monotonic)
    try:
        observer.ask(servers[:MOST_SERVERS], look_up, monotonic() + patience)
        return observer.result()
    finally:
        observer.close()


class _Observer:
    """One inquiry; `observe` tells what the arguments are."""

    def __init__(
        self,
        own_ports: Sequence[int],
        family: socket.AddressFamily,
        bind: str | None,
        interface: str,
        wake: Wake | None,
        monotonic: Callable[[], float],
    ) -> None:
        self._own_ports = own_ports[:OWN_PORTS]
        self._family = family
        self._bind = bind
        self._interface = interface
        self._wake = wake
        self._monotonic = monotonic
        self._selector = selectors.DefaultSelector()
        # The own ports that are left, of each family.
        self._left: dict[int, Iterator[int]] = {}
        self._inquiry = Inquiry(self._selector, self._open_on, lambda place: self._targets(place, _numeric(place)))
        self._kept: list[socket.socket] = []
        if wake is not None:
            self._selector.register(wake, selectors.EVENT_READ)

    def ask(self, servers: Sequence[Place], look_up: GetAddrInfo, deadline: float) -> None:
        """Look the servers up, ask them, and wait for the answers, until a time of the monotonic clock."""
        targets = self._look_up(servers, look_up, deadline)
        for version in (4, 6):
            asked = [one for one in targets if one.version == version][:MOST_SERVERS]
            self._inquiry.begin(asked, len(self._own_ports) if version == 4 else CROSSED)
        while self._inquiry.waits and (left := deadline - self._monotonic()) > 0:
            self._wait(left)

    def _look_up(self, servers: Sequence[Place], look_up: GetAddrInfo, deadline: float) -> list[Target]:
        """Return where the servers are asked: those whose names nobody knows in time are left out."""
        found: dict[Place, list[Target]] = {one: self._targets(one, _numeric(one)) for one in servers}
        pending = {one: LookUp(one, look_up, lambda: None) for one in servers if not is_literal(one.host)}
        for place, one in list(pending.items()):
            try:
                one.start()
            except OSError:
                del pending[place]
        while pending and (left := deadline - self._monotonic()) > 0:
            for place, one in list(pending.items()):
                if (answer := one.take()) is not None:
                    del pending[place]
                    found[place] = self._targets(place, answer[0])
            if pending:
                self._wait(min(left, _LOOK_PAUSE))
        return [target for place in servers for target in found[place]]

    def _targets(self, place: Place, addresses: Sequence[tuple[int, tuple[object, ...]]]) -> list[Target]:
        """Return an address of each IP version that a server has, and this machine a route for."""
        targets: dict[int, Target] = {}
        for number, sockaddr in addresses:
            family, host = socket.AddressFamily(number), str(sockaddr[0]).partition("%")[0]
            scope = int(str(sockaddr[3])) if len(sockaddr) == 4 else 0
            version = 6 if family == socket.AF_INET6 else 4
            if self._family not in (socket.AF_UNSPEC, family):
                continue
            if self._bind and (":" in self._bind) != (version == 6):
                continue
            address = Address(family, host, scope)
            if version not in targets and source_towards(address, self._interface) is not None:
                targets[version] = Target(str(place), address, place.port, version)
        return list(targets.values())

    def _open_on(self, family: socket.AddressFamily, own: int) -> socket.socket:
        port = own or next(self._left.setdefault(family, iter(self._own_ports)), NO_PORT)
        if port == NO_PORT:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return ports.dialling_socket(family, self._bind, port, interface=self._interface)

    def _wait(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            if isinstance(key.data, Question):
                self._inquiry.handle(key.data)
            elif self._wake is not None:
                self._wake.check()

    def result(self) -> Observed:
        """Return what the answers say; what keeps the offered ports mapped stays open from now on."""
        self._inquiry.end()
        told = [(one, one.answer.seen) for one in self._inquiry.questions if one.answer is not None]
        four = [(one, seen) for one, seen in told if one.target.version == 4]
        offered: dict[tuple[int, int], tuple[Offered, Question]] = {}
        for one, seen in told:
            key = one.target.version, one.own.port
            is_offered = one.own.port in self._own_ports[:CROSSED] and is_public(seen.host)
            if is_offered and seen.port >= _LOWEST_OFFERED and (":" in seen.host) == (key[0] == 6):
                offered.setdefault(key, (Offered(Source.OBSERVED, seen.host, seen.port), one))
        first4 = [offered[key] for key in sorted(offered, key=lambda key: key[0])]
        self._kept = [one.sock for _, one in first4 if one.sock is not None]
        hosts = dict.fromkeys(seen.host for _, seen in told if is_public(seen.host))
        samples = [portclass.Sample(one.own.port, seen.port) for one, seen in four]
        observed = Observed(
            tuple(candidate for candidate, _ in first4),
            tuple(one.own.port for _, one in first4),
            tuple(hosts),
            _kept=tuple(self._kept),
        )
        if samples:
            use = portclass.classify(samples)
            observed.port_use, observed.last = _USES[use.kind], samples[-1].seen
            observed.low, observed.high = use.low, use.high
            observed.compared = use.independent is not None
        return observed

    def close(self) -> None:
        """Close everything but what `result` has kept."""
        self._selector.close()
        for sock in self._inquiry.sockets:
            if sock not in self._kept:
                tcp.close_with_reset(sock)


def _numeric(place: Place) -> list[tuple[int, tuple[object, ...]]]:
    """Return what a literal stands for; of a name nothing."""
    if not is_literal(place.host):
        return []
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return [(family, sockaddr) for family, _, _, _, sockaddr in found]
