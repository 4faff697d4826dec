"""PEERs to socket addresses, without ever holding up the punch.

Literals are answered at once.  Names are looked up in a thread, again every
REFRESH seconds: a home router's address changes, and a service waits for
months.  After a failure they are looked up again within seconds (LookUps): a
name server may be away for a moment, as at boot.  `getaddrinfo` can block for half a minute and cannot be interrupted,
so the loop that dials never calls it; `fileno()` turns readable when there is
something to `take()`.

Where IPv4 has no route and IPv6 has one, the network may have a NAT64: then, and
only then, the name server is asked for its prefix (nat64.py), and each IPv4
address is dialled through it as well.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv6Network
from typing import NamedTuple

from punchtunnel import words
from punchtunnel.address import Peer, Place, is_literal
from punchtunnel.errors import NO_RESOURCES, LocalError
from punchtunnel.punching.nat64 import ONLY_IPV4, embedded, prefix_in
from punchtunnel.punching.rota import likely_first
from punchtunnel.system.addresses import LOOPBACK, SOMEWHERE, Address, is_own, source_towards
from punchtunnel.words import peer as peer_words

# Seconds between look-ups: the shortest time to live that dynamic DNS
# services hand out in practice.
REFRESH = 60.0
# Seconds from the first answer of a punch to the next look-up; each further answer doubles it,
# up to REFRESH.  A punch often begins because the peer's address has changed, and its name follows.
FIRST_REFRESH = 5.0
# Seconds from the first failure of a look-up to the next one; each further failure doubles it, up to REFRESH.
FIRST_PAUSE = 1.0
# Answers of a resolver that will be the same in a minute; anything else is its trouble.
_LASTING = {
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY", "EAI_FAMILY")
    if hasattr(socket, name)
}

GetAddrInfo = Callable[..., Sequence[tuple[int, int, int, str, tuple[object, ...]]]]


class Answer(NamedTuple):
    """What a look-up found.

    `failed` has a sentence for every PEER without an address; `lasting` tells
    that trying again would be of no use, and `refused` that this machine
    has nothing left to ask with.  `nat64` is the prefix through which IPv4 is
    dialled; `no_nat64` tells that one was asked for, and that there is none.
    `forwarded` are the addresses of the PEERs with a port, and `names` those of the names.
    """

    addresses: tuple[Address, ...] = ()
    failed: tuple[str, ...] = ()
    lasting: bool = True
    refused: bool = False
    nat64: IPv6Network | None = None
    no_nat64: bool = False
    forwarded: tuple[Place, ...] = ()
    names: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def after(self, before: Sequence[Address]) -> tuple[Address, ...]:
        """Return the addresses to punch towards, where there were others `before`."""
        # A name that fails for the moment keeps the addresses that it had.
        found = dict.fromkeys((*self.addresses, *(before if self.failed else ())))
        foreign = tuple(address for address in found if not address.own)
        return likely_first(foreign or tuple(found))


class LookUps:
    """When names are looked up again: pure, each time is an argument in seconds."""

    def __init__(self) -> None:
        self._failures = self._answers = 0
        self._due = float("inf")

    def answered(self, now: float, *, failed: bool) -> None:
        """Take note of an answer; `failed`: some PEER has no address."""
        self._failures = self._failures + 1 if failed else 0
        self._answers += 1
        # Beyond that it is REFRESH anyway, and no float would hold it.
        doublings = min((self._failures or self._answers) - 1, 10)
        self._due = now + min(REFRESH, (FIRST_PAUSE if failed else FIRST_REFRESH) * 2**doublings)

    def take_due(self, now: float) -> bool:
        """Tell once whether the next look-up is due: then the next answer decides when another one is."""
        if now < self._due:
            return False
        self._due = float("inf")
        return True


class Resolver:
    """Turns PEERs into addresses and keeps them fresh.

    Args:
        peers: Checked PEERs (`address.parse_peer`).
        family: AF_INET or AF_INET6 to use only that; AF_UNSPEC for both.
        bind: Only addresses of this literal's family are of use.
        look_up: `socket.getaddrinfo`, or a stand-in.
        interface: The only one to punch by, or "" for any.
        forwarded: Those of the PEERs that have a port.
    """

    def __init__(
        self,
        peers: Sequence[str],
        family: socket.AddressFamily = socket.AF_UNSPEC,
        bind: str | None = None,
        look_up: GetAddrInfo = socket.getaddrinfo,
        interface: str = "",
        forwarded: Sequence[Peer] = (),
    ) -> None:
        self._peers = peers
        self._forwarded = forwarded
        self._interface = interface
        self._nat64: IPv6Network | None = None
        self._bind = bind
        self._family = family
        if bind is not None:
            self._family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        self._look_up = look_up
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._thread: threading.Thread | None = None
        self._answer = Answer()
        self.has_names = not all(map(is_literal, peers))

    def fileno(self) -> int:
        """Return the descriptor that turns readable when `take` has news."""
        return self._here.fileno()

    def literals(self) -> Answer:
        """Answer for the PEERs that need no look-up, at once."""
        return self._resolve([peer for peer in self._peers if is_literal(peer)])

    def wants_nat64(self, addresses: Iterable[Address]) -> bool:
        """Tell whether there are addresses that only a NAT64 may lead to from here."""
        if self._family != socket.AF_UNSPEC or all(map(self._has_route, addresses)):
            return False
        return self._has_route(SOMEWHERE[1])

    def start(self) -> None:
        """Begin a look-up of everything, unless one is under way.

        Raises:
            LocalError: The system refuses another thread.
        """
        if self._thread is not None:
            return
        thread = threading.Thread(target=self._run, name="resolver", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise LocalError(words.NO_THREAD) from error
        self._thread = thread

    def take(self) -> Answer:
        """Return the answer of the look-up that made `fileno` readable."""
        with contextlib.suppress(BlockingIOError):
            self._here.recv(16)
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        return self._answer

    def close(self) -> None:
        """Close the descriptors.  A look-up that hangs is left to end by itself."""
        self._here.close()
        self._there.close()

    def _run(self) -> None:
        answer = self._resolve(self._peers)
        self._answer = self._through_nat64(answer) if self.wants_nat64(answer.addresses) else answer
        # Closed while the look-up hung: the answer is not wanted any more.
        with contextlib.suppress(OSError):
            self._there.send(b"!")

    def _resolve(self, peers: Sequence[str]) -> Answer:
        found: dict[Address, None] = {}
        forwarded: dict[Place, None] = {}
        names: dict[str, tuple[str, ...]] = {}
        failed: list[str] = []
        lasting = True
        for peer in peers:
            try:
                answers = self._look_up(peer, None, self._family, socket.SOCK_STREAM)
            except UnicodeError:
                # An interface after "%" that no machine can have.
                failed.append(peer_words.NOT_POSSIBLE.format(peer=peer))
                continue
            except OSError as error:
                if (refusal := self._refusal()) is not None:
                    return Answer((), (refusal,), lasting=False, refused=True)
                failed.append(words.unresolved(peer, str(error.strerror or error)))
                lasting = lasting and error.errno in _LASTING
                continue
            addresses = [self._address(family, sockaddr) for family, _, _, _, sockaddr in answers]
            found.update(dict.fromkeys(addresses))
            if not is_literal(peer):
                names[peer] = tuple(dict.fromkeys(address.host for address in addresses if not address.own))
            ports = [one.port for one in self._forwarded if one.host == peer]
            forwarded.update({Place(address.host, port): None for address in addresses for port in ports})
        known = tuple((name, hosts) for name, hosts in names.items() if hosts)
        return Answer(tuple(found), tuple(failed), lasting, forwarded=tuple(forwarded), names=known)

    def _has_route(self, address: Address) -> bool:
        """Tell whether there is a route; IPv6 addresses are taken to have one where IPv6 has any."""
        if address.family == socket.AF_INET6 and address is not SOMEWHERE[1]:
            return True
        return address.own or source_towards(address, self._interface) is not None

    def _through_nat64(self, answer: Answer) -> Answer:
        """Return the answer with the IPv6 addresses that a NAT64 has for those that have no route."""
        try:
            answers = self._look_up(ONLY_IPV4, None, socket.AF_INET6, socket.SOCK_STREAM)
            self._nat64 = prefix_in(str(sockaddr[0]) for _, _, _, _, sockaddr in answers)
        except OSError as error:
            # A name server that is away for the moment takes nothing back.
            if error.errno in _LASTING:
                self._nat64 = None
        if self._nat64 is None:
            return answer._replace(no_nat64=True)
        found, forwarded = dict.fromkeys(answer.addresses), dict.fromkeys(answer.forwarded)
        for address in answer.addresses:
            if not self._has_route(address) and (host := embedded(address.host, self._nat64)) is not None:
                found[Address(socket.AF_INET6, host)] = None
                ports = [place.port for place in answer.forwarded if place.host == address.host]
                forwarded.update({Place(host, port): None for port in ports})
        return answer._replace(addresses=tuple(found), nat64=self._nat64, forwarded=tuple(forwarded))

    def _refusal(self) -> str | None:
        """Return why nothing can be asked here: the resolver calls it an unknown name."""
        try:
            os.close(os.dup(self._there.fileno()))
        except OSError as error:
            if error.errno in NO_RESOURCES:
                return words.no_resources(os.strerror(error.errno))
        return None

    def _address(self, family: int, sockaddr: tuple[object, ...]) -> Address:
        host = str(sockaddr[0]).partition("%")[0]
        # Of other addresses it means nothing, and what they send comes without one.
        local = ipaddress.ip_address(host).is_link_local
        scope = int(str(sockaddr[3])) if len(sockaddr) == 4 and local else 0
        address = Address(socket.AddressFamily(family), host, scope)
        if self._bind in (None, host) and is_own(address):
            # Every own address is the same machine, so that 127.0.0.1 here and
            # the LAN address there still meet.
            return Address(socket.AF_INET, LOOPBACK, own=True)
        return address
