"""The listeners of one punch.

They catch a peer whose router has rewritten its port, or that dials first when
this host is public (schedule.LISTENERS_PER_BUCKET says why there are few).  On
one machine, the end of a pair that can bind the far port listens on it.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

from punchtunnel.errors import NO_RESOURCES
from punchtunnel.punching import ports
from punchtunnel.punching.callers import Connection
from punchtunnel.punching.candidates import FamilyPort
from punchtunnel.punching.hole import Counts
from punchtunnel.reporting import events
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address


class _Listener(NamedTuple):
    sock: socket.socket
    port: int
    pair: bool
    interface: str


class Listeners:
    """Opens listeners, and takes the connections that come to them from the peer.

    Args:
        selector: Calls `key.data()` for what becomes ready.
        counts: Where connections are counted.
        report: Where events go.
        on_open: Called with each connection; the callee owns its socket.
        open_to_all: Take connections from other addresses than the peer's too.
        given_port: The one of --port, to which the peer comes from any port of its own; or 0.

    Attributes:
        addresses: The peer's.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        counts: Counts,
        report: events.Report,
        on_open: Callable[[Connection], None],
        *,
        open_to_all: bool,
        given_port: int = 0,
    ) -> None:
        self._selector = selector
        self._counts = counts
        self._report = report
        self._on_open = on_open
        self._open_to_all = open_to_all
        self._given_port = given_port
        self.addresses: Sequence[Address] = ()
        self._listeners: dict[FamilyPort, _Listener] = {}
        # Not watched until `resume`.
        self._paused: list[_Listener] = []

    def __contains__(self, port: FamilyPort) -> bool:
        return port in self._listeners

    def __len__(self) -> int:
        return len(self._listeners)

    def ports(self, interface: str = "") -> list[FamilyPort]:
        """Return what is listened on at an interface alone, or "" for what is listened on at all of them."""
        return [port for port, listener in self._listeners.items() if listener.interface == interface]

    def open(
        self, family: socket.AddressFamily, host: str | None, port: int, *, pair: bool, interface: str = ""
    ) -> None:
        """Make sure that this process, and no other user of the machine, listens on a port.

        Args:
            family: AF_INET or AF_INET6.
            host: Literal address of this machine, or None for any.
            port: Its number.
            pair: It is the far port of a pair: no dial has it, and every connection to it is the other end's.
            interface: The only one that is listened on; "" is any.

        Raises:
            OSError: The port is taken, or cannot be bound or watched.
        """
        if (family, port) in self._listeners:
            return
        sock = ports.listening_socket(family, host, port, shared=not pair, interface=interface)
        listener = _Listener(sock, port, pair, interface)
        try:
            self._watch(listener)
        except OSError:
            sock.close()
            raise
        self._listeners[family, port] = listener

    def resume(self) -> None:
        """Watch again what was paused because the process was out of descriptors."""
        while self._paused:
            try:
                self._watch(self._paused[-1])
            except OSError:
                return
            self._paused.pop()
            self._counts.untaken -= 1

    def keep(self, ports: Container[FamilyPort]) -> None:
        """Close the listeners on all other ports."""
        for port in [port for port in self._listeners if port not in ports]:
            listener = self._listeners.pop(port)
            if listener in self._paused:
                self._paused.remove(listener)
                self._counts.untaken -= 1
            else:
                self._selector.unregister(listener.sock)
            listener.sock.close()

    def _watch(self, listener: _Listener) -> None:
        self._selector.register(listener.sock, selectors.EVENT_READ, lambda: self._on_accept(listener))

    def _on_accept(self, listener: _Listener) -> None:
        try:
            sock, remote = listener.sock.accept()
        except OSError as error:
            if error.errno in NO_RESOURCES:
                # The connection stays in the queue, and the selector would tell of it again at once.
                self._selector.unregister(listener.sock)
                self._paused.append(listener)
                self._counts.untaken += 1
                self._counts.shortage = error.errno
            return
        sock.setblocking(False)
        name, host = tcp.name_of(remote), str(remote[0]).partition("%")[0]
        # Each interface has its own fe80::1.
        scope = remote[3] if len(remote) == 4 else 0
        is_peer = listener.pair or any((address.host, address.scope) == (host, scope) for address in self.addresses)
        scheduled = listener.pair or remote[1] == listener.port
        if not (is_peer or self._open_to_all):
            self._counts.foreign[host] += 1
            self._counts.foreign_punches[host] += scheduled
            self._report(events.ForeignDial(remote=name))
            tcp.close_with_reset(sock)
            return
        self._counts.rewritten += is_peer and not scheduled and listener.port != self._given_port
        self._on_open(Connection(sock, name, host, scheduled))
