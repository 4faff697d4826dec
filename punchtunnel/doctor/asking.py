"""Ask servers that the user has named the time, name servers for a NAT64, and the first routers on the way."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import time
from ipaddress import IPv6Network

from punchtunnel.address import Place
from punchtunnel.doctor import sntp
from punchtunnel.doctor.facts import ANY, Bind, Clock
from punchtunnel.errors import PeerError
from punchtunnel.punching.nat64 import ONLY_IPV4, prefix_in
from punchtunnel.system import tcp
from punchtunnel.words import NO_ANSWER

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
        family, address = _resolve(server)
        sample = _sample(family, address)
    except (OSError, PeerError) as error:
        return Clock(now, str(server), reason=reason_of(error))
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


def hops(server: Place, bind: Bind = ANY) -> list[str]:
    """Return the addresses of the first routers towards a server, "" for one that does not answer; IPv4 only.

    A router where a datagram's TTL runs out answers with an ICMP error.  Linux
    shows it to the process that has sent the datagram, root or not; other
    systems do not.
    """
    if sys.platform != "linux":
        return [""] * HOPS
    found = [""] * HOPS
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        family, address = _resolve(server)
        if family != socket.AF_INET:
            return []
        probes: dict[int, tuple[int, socket.socket]] = {}
        poller = select.poll()
        for hop in range(HOPS):
            sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            if bind.interface:
                tcp.use_interface(sock, bind.interface)
            if bind.host:
                sock.bind((bind.host, 0))
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


def _resolve(server: Place) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    """Return a server's family and address for datagrams: IPv4 if it has one."""
    answers = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_DGRAM)
    family, _, _, _, address = min(answers, key=lambda one: one[0] != socket.AF_INET)
    return family, address


def reason_of(error: OSError | PeerError) -> str:
    """Return why a server is of no help, in words."""
    if isinstance(error, TimeoutError):
        return NO_ANSWER
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
