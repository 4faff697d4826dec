"""Ask STUN servers over TCP how they see our ports: all questions at once, in both IP versions.

    own port 1 ──TCP──> server 1     which address and port do you see?
             └────TCP──> server 2
    own port 2 ──TCP──> server 1
             └────TCP──> server 2
    own port 3 ──TCP──> server 1
    own port 4 ──TCP──> server 1

The connections come from ports of the punch's range, are opened in this order,
and all stay open until the last answer, as the dials of a punch are.  The answers
show whether the router keeps ports, or by which rule it chooses others
(reach/portclass.py).  IPv6 is asked from one port: mostly nothing translates it.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import random
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Network

from punchtunnel.address import Place
from punchtunnel.doctor import survey
from punchtunnel.doctor.asking import RECEIVE_SIZE, reason_of
from punchtunnel.doctor.facts import ANY, Bind, Sight
from punchtunnel.errors import PeerError
from punchtunnel.punching import ports
from punchtunnel.punching.nat64 import embedded
from punchtunnel.reach import stun
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address, source_towards
from punchtunnel.words import doctor as words

# Seconds for all answers together.  A lost SYN is sent again after 1 and 3 s.
PATIENCE = 5.0
# Own ports towards an IPv4 server; the first CROSSED of them go to every server, because a
# router also rewrites a port that another machine behind it has.
OWN_PORTS = 4
CROSSED = 2
# The server's machine has answered, with a refusal.
_REFUSED = {errno.ECONNREFUSED, errno.ECONNRESET}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server is asked; `version` is that of the server's address, which a NAT64 hides."""

    server: str
    address: Address
    port: int
    version: int


@dataclass(slots=True)
class _Question:
    """One connection, from its SYN to the answer; `leads`: the server's other address is asked after it."""

    target: Target
    own: Place
    leads: bool
    sock: socket.socket | None = None
    transaction: bytes = b""
    received: bytes = b""
    connected: bool = False
    sight: Sight | None = None

    def end(self, error: OSError | PeerError) -> None:
        refused = isinstance(error, OSError) and error.errno in _REFUSED
        silent = not (self.connected or refused or isinstance(error, PeerError))
        version = self.target.version
        self.sight = Sight(self.target.server, self.own, None, reason_of(error), version, silent)


def sights(
    servers: Sequence[Place],
    rng: random.Random,
    prefix: IPv6Network | None = None,
    bind: Bind = ANY,
    own_ports: int = OWN_PORTS,
) -> list[Sight]:
    """Ask STUN servers how they see ports of ours; return what came of it in the order of the questions.

    A single server is asked at its other address as well, if it has one.

    Args:
        servers: Each is asked in every IP version that it has an address of and this machine a route for.
        rng: Chooses our ports.
        prefix: Of a NAT64, through which IPv4 servers are asked, as a peer is dialled.
        bind: What the questions leave by.
        own_ports: From how many ports IPv4 servers are asked.
    """
    failed: list[Sight] = []
    targets: list[Target] = []
    for server in servers:
        try:
            found = _targets(server, prefix)
        except OSError as error:
            failed.append(Sight(str(server), Place("", 0), reason=reason_of(error)))
            continue
        known = {(one.address, one.port) for one in targets}
        targets += [one for one in _routed(found, bind) if (one.address, one.port) not in known]
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        inquiry = _Inquiry(rng, prefix, bind, stack, selector)
        for version in (4, 6):
            inquiry.begin([one for one in targets if one.version == version], own_ports if version == 4 else 1)
        inquiry.wait(time.monotonic() + PATIENCE)
    return [*failed, *(one.sight for one in inquiry.questions if one.sight is not None)]


class _Inquiry:
    """All connections of one examination; `stack` closes them."""

    def __init__(
        self,
        rng: random.Random,
        prefix: IPv6Network | None,
        bind: Bind,
        stack: contextlib.ExitStack,
        selector: selectors.BaseSelector,
    ) -> None:
        self._rng = rng
        self._prefix = prefix
        self._bind = bind
        self._stack = stack
        self._selector = selector
        self.questions: list[_Question] = []

    def begin(self, targets: Sequence[Target], own_ports: int) -> None:
        """Open all connections to the servers of one IP version."""
        for number in range(own_ports):
            own = 0
            for target in targets if number < CROSSED else targets[:1]:
                own = self._ask(target, own, leads=len(targets) == 1 and number < CROSSED)

    def _ask(self, target: Target, own: int, *, leads: bool = False) -> int:
        """Open a connection from a port, or from any if that is 0; return the port."""
        question = _Question(target, Place("", own), leads)
        self.questions.append(question)
        try:
            sock = self._open(target.address.family, own)
            self._stack.callback(tcp.close_with_reset, sock)
            code = sock.connect_ex(target.address.at(target.port))
            question.sock, question.own = sock, Place(*sock.getsockname()[:2])
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
        except OSError as error:
            question.end(error)
        else:
            self._selector.register(sock, selectors.EVENT_WRITE, question)
        return question.own.port

    def _open(self, family: socket.AddressFamily, own: int) -> socket.socket:
        """Return a socket that dials as a punch does."""

        def on(port: int) -> socket.socket:
            return ports.dialling_socket(family, self._bind.host or None, port, interface=self._bind.interface)

        return on(own) if own else survey.on_some_port(self._rng, on)

    def wait(self, deadline: float) -> None:
        """Wait for all answers, until a time of the monotonic clock."""
        while self._selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                question: _Question = key.data
                try:
                    self._go_on(question)
                except (OSError, PeerError) as error:
                    question.end(error)
                if question.sight is not None:
                    self._selector.unregister(key.fileobj)
        for question in self.questions:
            if question.sight is None:
                question.end(TimeoutError())

    def _go_on(self, question: _Question) -> None:
        """Ask, or read the answer: the connection is open or has failed, or bytes have come."""
        sock = question.sock
        assert sock is not None
        if not question.connected:
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
            question.connected = True
            question.own = Place(*sock.getsockname()[:2])
            question.transaction = os.urandom(stun.TRANSACTION_SIZE)
            # 20 bytes: a new connection has room for them.
            sock.sendall(stun.request(question.transaction))
            self._selector.modify(sock, selectors.EVENT_READ, question)
            return
        received = sock.recv(RECEIVE_SIZE)
        if not received:
            raise PeerError(words.ENDED_WITHOUT_ANSWER)
        question.received += received
        answer = stun.read_answer(question.received, question.transaction)
        if answer is not None:
            target = question.target
            question.sight = Sight(target.server, question.own, answer.seen, version=target.version)
            if question.leads and answer.other is not None and _may_lead(target.address.host, answer.other):
                for one in _targets(answer.other, self._prefix):
                    # Another port of the same address tells nothing: a router may choose a port for each address.
                    if one.version == target.version and one.address.host != target.address.host:
                        self._ask(one, question.own.port)


def _targets(server: Place, prefix: IPv6Network | None) -> list[Target]:
    """Return an address of each IP version that a server has."""
    found: dict[int, Target] = {}
    for family, _, _, _, (host, *rest) in socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM):
        address = Address(family, str(host).partition("%")[0], int(rest[2]) if family == socket.AF_INET6 else 0)
        version = 4 if family == socket.AF_INET else 6
        if version == 4 and prefix is not None and (translated := embedded(address.host, prefix)) is not None:
            address = Address(socket.AF_INET6, translated)
        found.setdefault(version, Target(str(server), address, server.port, version))
    return list(found.values())


def _routed(targets: Sequence[Target], bind: Bind) -> Sequence[Target]:
    """Return those that there is a route for; if there is none for any, the connection tells why."""
    routed = [
        one
        for one in targets
        if source_towards(one.address, bind.interface) is not None
        and (not bind.host or (":" in bind.host) == (one.address.family == socket.AF_INET6))
    ]
    return routed or targets


def _may_lead(server: str, other: Place) -> bool:
    """Tell whether a server may name another one: a server in the Internet must not name a machine of this network."""
    return ipaddress.ip_address(other.host).is_global or not ipaddress.ip_address(server).is_global
