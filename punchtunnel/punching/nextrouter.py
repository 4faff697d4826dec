"""Which addresses of the peer refuse our dials from next door: those that this machine's own router has.

    SYN, TTL 1 ──> router ──> RST             the address is the router's own
                          ──> time exceeded   it is further away
                          ──> nothing         not known

Two machines behind one router, each of which was given its public address, are
refused by it at once: by the counts alone that is a peer that is not there.
Such a SYN comes no further than to the router, so that no other one can answer it;
but a router can also refuse what it is asked to send on.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
from collections.abc import Mapping

from punchtunnel.punching import ports
from punchtunnel.punching.settings import Settings
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address, is_behind_router

# Bound to no port of the schedule: the kernel chooses.
_ANY_PORT = 0


class NextRouter:
    """Asks once for each address, one after another.

    Args:
        settings: What to bind.
        selector: Calls `key.data()` for what becomes ready.

    Attributes:
        refusing: What the router next to this machine has refused itself.
    """

    def __init__(self, settings: Settings, selector: selectors.BaseSelector) -> None:
        self._settings = settings
        self._selector = selector
        self._asked: set[Address] = set()
        self._probe: socket.socket | None = None
        self.refusing: set[Address] = set()

    def ask(self, refused: Mapping[Address, int]) -> None:
        """Ask about one of these that was not asked about, unless a question is under way.

        Args:
            refused: The addresses that have refused a dial, and the port of each at which they have.
        """
        for address, port in refused.items():
            if self._probe is not None:
                return
            if address not in self._asked:
                self._asked.add(address)
                # It is only for a better sentence.
                with contextlib.suppress(OSError):
                    self._ask(address, port)

    def forget(self) -> None:
        """Ask anew from now on: this machine may be in another network."""
        self.close()
        self._asked.clear()
        self.refusing.clear()

    def close(self) -> None:
        """Give up the question that is under way."""
        if self._probe is not None:
            self._selector.unregister(self._probe)
            tcp.abort(self._probe)
            self._probe = None

    def _ask(self, address: Address, port: int) -> None:
        settings = self._settings
        if address.own or not is_behind_router(address, settings.interface):
            return
        sock = ports.dialling_socket(address.family, settings.bind, _ANY_PORT, interface=settings.interface)
        try:
            tcp.set_time_to_live(sock, 1)
            code = sock.connect_ex(address.at(port))
            if code in (0, errno.EINPROGRESS):
                self._selector.register(sock, selectors.EVENT_WRITE, lambda: self._on_answer(address))
                self._probe = sock
                return
        except OSError:
            pass
        tcp.abort(sock)

    def _on_answer(self, address: Address) -> None:
        assert self._probe is not None
        if self._probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
            self.refusing.add(address)
        self.close()
