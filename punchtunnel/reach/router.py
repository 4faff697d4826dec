"""One router as one own address sees it: a connected UDP socket for PCP and NAT-PMP, and a thread for UPnP.

The kernel gives a connected socket nothing but what comes from the router's
address and port, which is all that PCP and NAT-PMP have against strangers
(RFC 6887 §18.2, RFC 6886 §5); and it tells by ECONNREFUSED that nobody listens
there.  It may be silent about that: Linux limits how many such errors it sends.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from punchtunnel.address import is_public
from punchtunnel.reach.leases import Leases, Standing
from punchtunnel.system import tcp

if TYPE_CHECKING:
    from punchtunnel.reach.igd import Igd
    from punchtunnel.reach.upnp import Worker
    from punchtunnel.system.routes import Gateway

# Returns what makes an Igd, or None where UPnP is not installed.
FindUpnp = Callable[[], "Callable[[], Igd] | None"]

# Seconds that PCP and NAT-PMP have before UPnP is tried as well.
UPNP_DELAY = 0.3
# More datagrams at once are not an honest router's; what is left waits for the next turn.
_MOST_DATAGRAMS = 16


class Link(NamedTuple):
    """The way to a router, and the own address that it is asked from."""

    gateway: Gateway
    own: str


def connect(gateway: Gateway, port: int, own: str = "", *, bound: bool) -> tuple[Link, socket.socket] | None:
    """Return a socket towards a router, and what it is for; None if no mapping is needed there.

    Args:
        gateway: The router.
        port: Its port.
        own: The address to send from, or "" for the one that the routes say.
        bound: Whether to leave by the gateway's interface, whatever the routes say.

    Raises:
        OSError: There is no way, or no descriptor left.
    """
    sock = socket.socket(gateway.family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if bound:
            tcp.use_interface(sock, gateway.device)
        if own:
            sock.bind((own, 0))
        host = gateway.host
        if gateway.family == socket.AF_INET6:
            # A router has a link-local address, which means nothing without its interface.
            sock.connect((host, port, 0, socket.if_nametoindex(gateway.device)))
        else:
            sock.connect((host, port))
        own = str(sock.getsockname()[0])
        # IPv4 needs a router's port only behind a NAT; with IPv6 the router's firewall is opened for a public address.
        if is_public(own) == (gateway.family == socket.AF_INET6):
            return Link(gateway, own), sock
    except BaseException:
        sock.close()
        raise
    sock.close()
    return None


class Router:
    """Asks one router by all means, and keeps what it gives.

    Args:
        link: The router, and the own address.
        sock: Connected to it; does not block.
        key: See `Leases`.
        rng: For the times of renewals.
        find_upnp: `igd.installed`, or a stand-in; it is called when the others are of no help.
        tell: Called in the thread of UPnP when there is news of it.
    """

    def __init__(
        self,
        link: Link,
        sock: socket.socket,
        key: bytes,
        rng: Random,
        find_upnp: FindUpnp,
        tell: Callable[[], None],
    ) -> None:
        self.link, self.sock = link, sock
        self._rng, self._tell = rng, tell
        self._find_upnp = find_upnp if link.gateway.family == socket.AF_INET else None
        self._leases = Leases(link.gateway.family, link.own, link.gateway.host, key, rng)
        self._ports: tuple[int, ...] = ()
        self.worker: Worker | None = None
        # What UPnP is to map now, and when it may begin.
        self._by_upnp: tuple[int, ...] = ()
        self._upnp_at = float("inf")
        # How often it has taken back what it had mapped, as far as that was acted on.
        self._taken_back = 0

    @property
    def due(self) -> float:
        """When `step` has something to do."""
        return min(self._leases.due, self._upnp_at)

    def want(self, ports: Sequence[int], now: float) -> None:
        """Map these from now on; none takes everything back."""
        self._ports = tuple(ports)
        self._leases.want(ports, now)
        self._plan_upnp(now)

    def start(self, now: float) -> None:
        """Ask again at once."""
        self._leases.start(now)
        if self.worker is not None and self._by_upnp:
            self.worker.want(self._by_upnp)

    def step(self, now: float) -> None:
        """Send what is due, and let UPnP begin or end."""
        # First: what is to be asked for once more is, before the answer to an older copy can count as a renewal.
        if self.worker is not None and self.worker.taken_back != self._taken_back:
            # A router may keep one table for all three, so that what UPnP took back is gone there, too.
            self._taken_back = self.worker.taken_back
            self._leases.lost(now)
            self._leases.start(now)
        for data in self._leases.step(now):
            self._send(data, now)
        self._step_upnp(now)

    def receive(self, now: float) -> None:
        """Take what has arrived."""
        for _ in range(_MOST_DATAGRAMS):
            try:
                data = self.sock.recv(2048)
            except ConnectionRefusedError:
                self._leases.nobody(now)
            except OSError:
                return
            else:
                self._leases.receive(data, now)

    def standing(self) -> Standing:
        """Return what there is to tell of PCP, NAT-PMP and UPnP together."""
        told = self._leases.standing()
        if self.worker is None or not self._by_upnp or told.mappings:
            return told if self._upnp_at == float("inf") else told._replace(refusal="", silent=False)
        other = self.worker.standing or Standing()
        if other.mappings:
            return other
        if not any(other):
            # UPnP has said nothing yet, and a refusal of the others is not the last word.
            return Standing(behind=told.behind)
        return Standing((), told.behind or other.behind, told.refusal or other.refusal, told.silent and other.silent)

    def close(self) -> None:
        """Take everything back with what can be sent at once, and let UPnP do so in its thread."""
        self._leases.want((), 0.0)
        for data in self._leases.step(0.0):
            self._send(data, 0.0)
        self.sock.close()
        if self.worker is not None:
            self.worker.end()

    def _send(self, data: bytes, now: float) -> None:
        for _ in range(2):
            try:
                self.sock.send(data)
            except ConnectionRefusedError:
                # Of the datagram before; the kernel has not sent this one.
                self._leases.nobody(now)
            except OSError:
                # No network for the moment: as if it were lost.
                return
            else:
                return

    # ---- UPnP, only where the others are of no help

    def _is_answered(self) -> bool:
        told = self._leases.standing()
        return bool(told.mappings or told.behind)

    def _plan_upnp(self, now: float) -> None:
        wanted = bool(self._find_upnp and self._ports and not self._is_answered())
        self._upnp_at = now + UPNP_DELAY if wanted else float("inf")

    def _step_upnp(self, now: float) -> None:
        if self._is_answered() or not self._ports:
            self._upnp_at = float("inf")
            self._let_upnp_map(())
        elif now >= self._upnp_at:
            self._upnp_at = float("inf")
            self._let_upnp_map(self._ports)
        elif not self._by_upnp and self._upnp_at == float("inf"):
            # What PCP or NAT-PMP had is lost.
            self._plan_upnp(now)

    def _let_upnp_map(self, ports: tuple[int, ...]) -> None:
        if ports == self._by_upnp:
            return
        if self.worker is None and not self._employ():
            # Looked for once: nothing is installed while this runs.
            self._find_upnp = None
            return
        assert self.worker is not None
        self._by_upnp = ports
        self.worker.want(ports)

    def _employ(self) -> bool:
        make = self._find_upnp() if self._find_upnp else None
        if make is None:
            return False
        from punchtunnel.reach import upnp

        gateway, own = self.link
        portal = upnp.Portal(gateway.host, own, make, lambda: upnp.find(gateway.host, own, gateway.device))
        worker = upnp.Worker(portal, self._rng, self._tell)
        try:
            worker.start()
        except RuntimeError:
            # Without a thread there is no UPnP.
            return False
        self.worker = worker
        return True
