"""Ask STUN servers how they see our ports (reach/questions.py), in both IP versions.

The connections come from ports of the punch's range.  IPv6 is asked from one port: mostly
nothing translates it.
"""

from __future__ import annotations

import random
import selectors
import socket
import time
from collections.abc import Sequence
from ipaddress import IPv6Network

from punchtunnel.address import Place
from punchtunnel.doctor import survey
from punchtunnel.doctor.asking import reason_of
from punchtunnel.doctor.facts import ANY, Bind, Sight
from punchtunnel.punching import ports
from punchtunnel.punching.nat64 import embedded
from punchtunnel.reach.questions import Inquiry, Question, Target
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address, source_towards

# Seconds for all answers together.  A lost SYN is sent again after 1 and 3 s.
PATIENCE = 5.0
# Own ports towards an IPv4 server.
OWN_PORTS = 4


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

    def open_on(family: socket.AddressFamily, own: int) -> socket.socket:
        def on(port: int) -> socket.socket:
            return ports.dialling_socket(family, bind.host or None, port, interface=bind.interface)

        return on(own) if own else survey.on_some_port(rng, on)

    with selectors.DefaultSelector() as selector:
        inquiry = Inquiry(selector, open_on, lambda place: _targets(place, prefix))
        try:
            for version in (4, 6):
                inquiry.begin([one for one in targets if one.version == version], own_ports if version == 4 else 1)
            _wait(inquiry, selector, time.monotonic() + PATIENCE)
        finally:
            for sock in inquiry.sockets:
                tcp.close_with_reset(sock)
    return [*failed, *map(_sight, inquiry.questions)]


def _wait(inquiry: Inquiry, selector: selectors.BaseSelector, deadline: float) -> None:
    """Wait for all answers, until a time of the monotonic clock."""
    while selector.get_map() and (left := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            inquiry.handle(key.data)
    inquiry.end()


def _sight(question: Question) -> Sight:
    server, version = question.target.server, question.target.version
    if question.answer is not None:
        return Sight(server, question.own, question.answer.seen, version=version)
    assert question.error is not None
    return Sight(server, question.own, None, reason_of(question.error), version, question.silent)


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
