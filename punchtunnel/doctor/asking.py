"""Ask the servers that the user has named: STUN over TCP, NTP over UDP, and the first routers on the way.

    one own port ──TCP──> server 1     which address and port do you see?
              └────TCP──> server 2     and which do you see?

Both connections come from one port of the punch's range and are open at the
same time, as the dials of a punch are.  The answers show whether the router
keeps the port, and whether it chooses another one for each destination.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from ipaddress import IPv6Network

from punchtunnel.address import Place
from punchtunnel.doctor import sntp, survey
from punchtunnel.doctor.facts import Clock, Sight
from punchtunnel.errors import PeerError
from punchtunnel.punching import ports
from punchtunnel.punching.nat64 import ONLY_IPV4, embedded, prefix_in
from punchtunnel.reach import stun
from punchtunnel.system import tcp
from punchtunnel.words import NO_ANSWER
from punchtunnel.words import doctor as words

# Seconds for a server to take the connection, and to answer.
PATIENCE = 5.0
# A router also rewrites a port that another machine behind it has: a second
# port is tried before the router is blamed.
PORTS_TRIED = 2
# Questions, because datagrams get lost, and seconds to wait for each answer.
NTP_TRIES = 2
NTP_PATIENCE = 2.0
# Routers that are asked: the one at home, one of the provider, and one more.
HOPS = 3
HOPS_PATIENCE = 1.0
# linux/in.h and linux/errqueue.h: errors of datagrams are queued.  Each has 16
# bytes of its own, and then the address of the router that has sent it.
_IP_RECVERR = 11
_OFFENDER = struct.Struct("=16x4x4s")
RECEIVE_SIZE = 2048


def clock(server: Place) -> Clock:
    """Compare this machine's clock with a server's."""
    now = time.time()
    try:
        family, address = _resolve(server, socket.SOCK_DGRAM)
        sample = _sample(family, address)
    except (OSError, PeerError) as error:
        return Clock(now, str(server), reason=_reason(error))
    return Clock(now, str(server), sample.offset_s, sample.delay_s / 2)


def _sample(family: socket.AddressFamily, address: tuple[object, ...]) -> sntp.Sample:
    for _ in range(NTP_TRIES - 1):
        with contextlib.suppress(TimeoutError):
            return _asked_once(family, address)
    return _asked_once(family, address)


def _asked_once(family: socket.AddressFamily, address: tuple[object, ...]) -> sntp.Sample:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(NTP_PATIENCE)
        sock.connect(address)
        cookie = os.urandom(sntp.COOKIE_SIZE)
        sent = time.time()
        sock.send(sntp.request(cookie))
        return sntp.read_answer(sock.recv(RECEIVE_SIZE), cookie, sent, time.time())


def nat64() -> IPv6Network | None:
    """Return the prefix of the network's NAT64; None if the name server knows of none."""
    with contextlib.suppress(OSError):
        answers = socket.getaddrinfo(ONLY_IPV4, None, socket.AF_INET6, socket.SOCK_STREAM)
        return prefix_in(str(address[0]) for _, _, _, _, address in answers)
    return None


def sights(servers: Sequence[Place], rng: random.Random, prefix: IPv6Network | None = None) -> list[Sight]:
    """Ask STUN servers how they see a port of ours, and a second port if the first one is rewritten.

    A single server is asked at its other address as well, if it has one.  With the
    prefix of a NAT64, an IPv4 server is asked through it, as a peer is dialled.
    """
    found: list[Sight] = []
    for _ in range(PORTS_TRIED):
        latest = _sights_of_one_port(servers, rng, prefix)
        found += latest
        if any(sight.seen is None or sight.seen.port == sight.own.port for sight in latest):
            break
    return found


def _sights_of_one_port(servers: Sequence[Place], rng: random.Random, prefix: IPv6Network | None) -> list[Sight]:
    sights: list[Sight] = []
    own: Place | None = None
    asked: set[tuple[object, ...]] = set()
    with contextlib.ExitStack() as stack:
        waiting = list(servers)
        for server in waiting:
            try:
                family, address = _resolve(server, socket.SOCK_STREAM, prefix)
                if address in asked:
                    continue
                asked.add(address)
                sock = _dialling_socket(family, own, rng)
                stack.callback(tcp.close_with_reset, sock)
                sock.settimeout(PATIENCE)
                sock.connect(address)
                own = Place(*sock.getsockname()[:2])
                answer = _answer(sock)
            except (OSError, PeerError) as error:
                sights.append(Sight(str(server), own or Place("", 0), reason=_reason(error)))
                continue
            sights.append(Sight(str(server), own, answer.seen))
            if len(waiting) == 1 and answer.other is not None and _may_lead(str(address[0]), answer.other):
                # The loop over `waiting` comes to it next.
                waiting.append(answer.other)
    return sights


def _dialling_socket(family: socket.AddressFamily, own: Place | None, rng: random.Random) -> socket.socket:
    """Return a socket that dials as a punch does, from the same port as the ones before it."""
    if own is None:
        return survey.on_some_port(rng, lambda port: ports.dialling_socket(family, None, port))
    return ports.dialling_socket(family, None, own.port)


def _may_lead(server: str, other: Place) -> bool:
    """Tell whether a server may name another one: a server in the Internet must not name a machine of this network."""
    return ipaddress.ip_address(other.host).is_global or not ipaddress.ip_address(server.partition("%")[0]).is_global


def _answer(sock: socket.socket) -> stun.Answer:
    transaction = os.urandom(stun.TRANSACTION_SIZE)
    sock.sendall(stun.request(transaction))
    deadline = time.monotonic() + PATIENCE
    data = b""
    while (answer := stun.read_answer(data, transaction)) is None:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        received = sock.recv(RECEIVE_SIZE)
        if not received:
            raise PeerError(words.ENDED_WITHOUT_ANSWER)
        data += received
    return answer


def hops(server: Place) -> list[str]:
    """Return the addresses of the first routers towards a server, "" for one that does not answer; IPv4 only.

    A router where a datagram's TTL runs out answers with an ICMP error.  Linux
    shows it to the process that has sent the datagram, root or not; other
    systems do not.
    """
    if sys.platform != "linux":
        return [""] * HOPS
    found = [""] * HOPS
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        family, address = _resolve(server, socket.SOCK_DGRAM)
        if family != socket.AF_INET:
            return []
        probes: dict[int, tuple[int, socket.socket]] = {}
        poller = select.poll()
        for hop in range(HOPS):
            sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hop + 1)
            sock.connect(address)
            sock.send(b"?")
            probes[sock.fileno()] = hop, sock
            poller.register(sock, 0)
        deadline = time.monotonic() + HOPS_PATIENCE
        while probes and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(left * 1000):
                hop, sock = probes.pop(descriptor)
                poller.unregister(descriptor)
                found[hop] = _offender(sock)
    return found


def _offender(sock: socket.socket) -> str:
    if sys.platform != "linux":
        return ""
    with contextlib.suppress(OSError):
        _, ancillary, _, _ = sock.recvmsg(1, RECEIVE_SIZE, socket.MSG_ERRQUEUE)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, _IP_RECVERR) and len(data) >= _OFFENDER.size:
                return socket.inet_ntoa(_OFFENDER.unpack_from(data)[0])
    return ""


def _resolve(
    server: Place, kind: socket.SocketKind, prefix: IPv6Network | None = None
) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    """Return a server's family and address: IPv4 if it has one, because only IPv4 is translated."""
    answers = socket.getaddrinfo(server.host, server.port, type=kind)
    family, _, _, _, address = min(answers, key=lambda one: one[0] != socket.AF_INET)
    if prefix is not None and family == socket.AF_INET and (host := embedded(str(address[0]), prefix)) is not None:
        return socket.AF_INET6, (host, server.port)
    return family, address


def _reason(error: OSError | PeerError) -> str:
    if isinstance(error, TimeoutError):
        return NO_ANSWER
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
