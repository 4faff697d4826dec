"""Ports that this machine's routers forward: every default route's router is asked, in a thread.

    the punch                     thread "mapper"                         routers
      |  start, want  ── wake ──>    |  PCP, NAT-PMP  ──────────────────>    |
      |                              |  0.3 s later, if need be: "upnp"      |
      |  <── fileno ── news ──────   |  <──────────────────────────────────  |
      |  take                        |
      |  close  ─────── wake ──>     |  takes everything back  ──────────>   |

Each router and each own address has a `Router`; which there are is looked up
at each `start`, and every SURVEY seconds: networks come and go.  IPv4 wants a
mapping only from an address that is not public; for IPv6 each public address
of the router's interface is asked for on its own, as a firewall is opened for
the address that asks.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from punchtunnel import words
from punchtunnel.address import is_public
from punchtunnel.punching.helper import RouterNews
from punchtunnel.reach import natpmp
from punchtunnel.system.addresses import global_addresses6, interface_of
from punchtunnel.words import reach as reach_words

if TYPE_CHECKING:
    from punchtunnel.reach.igd import Igd
    from punchtunnel.reach.router import FindUpnp, Link, Router
    from punchtunnel.system.routes import Gateway

# Seconds between two looks at the routes.
SURVEY = 300.0
# A machine with more networks than that is no one's behind a home router; and hosts have many IPv6 addresses.
_MOST_ROUTERS = 8
# Seconds that `close` waits: for the thread, and for UPnP to take back a mapping.
_CLOSING, _CLOSING_UPNP = 0.3, 1.0

Wanted = Mapping[socket.AddressFamily, Sequence[int]]


# What only the thread needs is imported there: the punch does not wait for it.
def _gateways() -> Sequence[Gateway]:
    from punchtunnel.system.routes import gateways

    return gateways()


def _find_upnp() -> Callable[[], Igd] | None:
    from punchtunnel.reach.igd import installed

    return installed()


class Mapper:
    """Lets routers forward ports; a `PortMapper`.

    Args:
        key: 32 bytes that stay the same for all runs of this machine: what another run was given is then renewed.
        interface: Only routers that are reached by it; "" is any.
        bind: Only ports of this own address; None is any.
        monotonic: The clock, in seconds.
        rng: For the times of renewals.
        look_up: Returns the routers; a stand-in for tests.
        port: Of PCP and NAT-PMP.
        find_upnp: Returns what makes a `igd.Igd`, or None.

    Raises:
        OSError: There is no descriptor left for a socket pair.
    """

    def __init__(
        self,
        key: bytes,
        interface: str = "",
        bind: str | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        look_up: Callable[[], Sequence[Gateway]] = _gateways,
        port: int = natpmp.PORT,
        find_upnp: FindUpnp = _find_upnp,
    ) -> None:
        self._key, self._interface, self._bind = key, interface, bind
        # Only spreads renewals: no secret.
        self._monotonic, self._rng = monotonic, rng or random.Random()
        self._look_up, self._port, self._find_upnp = look_up, port, find_upnp
        self._here, self._there = socket.socketpair()
        self._awake, self._waker = socket.socketpair()
        for sock in (self._here, self._there, self._awake, self._waker):
            sock.setblocking(False)
        self._thread: threading.Thread | None = None
        # Shared with the thread.
        self._lock = threading.Lock()
        self._wanted: Wanted = {}
        self._news = RouterNews()
        self._survey_now = self._closed = False
        # The thread's own.
        self._routers: dict[Link, Router] = {}
        self._no_socket = ""

    def fileno(self) -> int:
        """Return the descriptor that turns readable when `take` has news."""
        return self._here.fileno()

    def start(self) -> None:
        """Begin to ask, or ask everybody again; waits for nothing, and what fails is told by `take`."""
        with self._lock:
            if self._closed:
                return
            self._survey_now = True
            begun = self._thread is not None or self._begin()
        if begun:
            self._wake()
        else:
            self._publish(RouterNews(refusals=(words.NO_THREAD,)))

    def _begin(self) -> bool:
        """Start the thread, and tell whether there is one to be had."""
        thread = threading.Thread(target=self._run, name="mapper", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def take(self) -> RouterNews:
        """Return what the routers have said."""
        with contextlib.suppress(BlockingIOError):
            while self._here.recv(64):
                pass
        return self.heard()

    def heard(self) -> RouterNews:
        """Return the same, and leave it to be taken."""
        with self._lock:
            return self._news

    def want(self, ports: Wanted) -> None:
        """Map these listening ports from now on, the first that a router gives as they are."""
        with self._lock:
            self._wanted = {family: tuple(wanted) for family, wanted in ports.items()}
        self._wake()

    def release(self) -> None:
        """Take every mapping back, and want none; waits for nothing."""
        self.want({})

    def close(self) -> None:
        """Take every mapping back and end; waits for 0.3 s at most, and for a mapping of UPnP's 1 s more."""
        until = self._monotonic() + _CLOSING
        with self._lock:
            self._closed = True
        self._wake()
        if self._thread is not None:
            self._thread.join(_CLOSING)
        for router in list(self._routers.values()):
            if router.worker is not None:
                until += _CLOSING_UPNP if router.worker.may_hold() else 0.0
                router.worker.join(max(0.0, until - self._monotonic()))
        with self._lock:
            for sock in (self._here, self._there, self._waker):
                sock.close()
            if self._thread is None:
                self._awake.close()

    # ---- from other threads

    def _wake(self) -> None:
        # Full: it is awake anyway.  Closed: nobody is there to wake.
        with self._lock, contextlib.suppress(OSError):
            self._waker.send(b"!")

    # ---- the thread

    def _run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                self._ask_on(selector)
        except OSError as error:
            # No descriptor is left for it, or for what it imports.
            self._publish(RouterNews(refusals=(reach_words.NO_SOCKET.format(reason=error.strerror or error),)))
        finally:
            for router in self._routers.values():
                router.close()
            self._awake.close()

    def _ask_on(self, selector: selectors.BaseSelector) -> None:
        """Ask until it is closed.

        Raises:
            OSError: There is no descriptor left.
        """
        selector.register(self._awake, selectors.EVENT_READ)
        survey_at, wanted = float("-inf"), self._wanted
        while not self._closed:
            now = self._monotonic()
            with self._lock:
                again, self._survey_now = self._survey_now, False
            if again or now >= survey_at:
                survey_at = now + SURVEY
                self._survey(selector, wanted, now, again=again)
            if wanted is not self._wanted:
                wanted = self._wanted
                for router in self._routers.values():
                    router.want(wanted.get(router.link.gateway.family, ()), now)
            for router in self._routers.values():
                router.step(now)
            self._publish(self._sum_up(wanted))
            due = min((survey_at, *(router.due for router in self._routers.values())))
            for key, _ in selector.select(max(0.0, due - self._monotonic())):
                if key.data is not None:
                    key.data.receive(self._monotonic())
                else:
                    with contextlib.suppress(BlockingIOError):
                        self._awake.recv(64)

    def _survey(self, selector: selectors.BaseSelector, wanted: Wanted, now: float, *, again: bool) -> None:
        """Find out which routers there are now, and let go of the others; `again`: ask those that stay once more."""
        from punchtunnel.reach.router import Router

        found: set[Link] = set()
        self._no_socket = ""
        for link, sock in self._connect():
            found.add(link)
            if link in self._routers:
                sock.close()
                if again:
                    self._routers[link].start(now)
                continue
            router = self._routers[link] = Router(link, sock, self._key, self._rng, self._find_upnp, self._wake)
            selector.register(sock, selectors.EVENT_READ, router)
            router.want(wanted.get(link.gateway.family, ()), now)
        for link in self._routers.keys() - found:
            router = self._routers.pop(link)
            selector.unregister(router.sock)
            router.close()

    def _connect(self) -> Iterator[tuple[Link, socket.socket]]:
        """Yield a socket for each router and own address; whoever takes it closes it."""
        from punchtunnel.reach.router import connect

        found = [one for one in self._look_up() if self._interface in ("", one.device)]
        if self._bind is not None:
            family = socket.AF_INET6 if ":" in self._bind else socket.AF_INET
            device = interface_of(self._bind)
            found = [one for one in found if one.family == family and device in ("", one.device)]
        chosen = bool(self._interface or self._bind)
        several = len({one.device for one in found}) > 1
        pairs = [(one, own) for one in found for own in self._own_addresses(one)]
        for gateway, own in pairs[:_MOST_ROUTERS]:
            try:
                made = connect(gateway, self._port, own, bound=chosen or several)
            except OSError as error:
                self._no_socket = reach_words.NO_SOCKET.format(reason=error.strerror or error)
                continue
            if made is not None:
                yield made

    def _own_addresses(self, gateway: Gateway) -> list[str]:
        """Return the addresses to ask a router for; "" is the one that the routes say."""
        if self._bind is not None:
            return [self._bind]
        if gateway.family == socket.AF_INET:
            return [""]
        with contextlib.suppress(ValueError):
            return [host for host in global_addresses6(gateway.device) or () if is_public(host)]
        return []

    def _sum_up(self, wanted: Wanted) -> RouterNews:
        asked = [one for one in self._routers.values() if wanted.get(one.link.gateway.family)]
        told = [one.standing() for one in asked]
        # As long as one may still map something, a refusal of another one is not the last word.
        refusals = [one.refusal for one in told if one.refusal] if all(map(any, told)) else []
        if self._no_socket and not asked:
            refusals.append(self._no_socket)
        return RouterNews(
            mappings=tuple(dict.fromkeys(mapping for one in told for mapping in one.mappings)),
            behind=tuple(dict.fromkeys(one.behind for one in told if one.behind)),
            refusals=tuple(dict.fromkeys(refusals)),
            silent=bool(told) and all(one.silent for one in told),
        )

    def _publish(self, news: RouterNews) -> None:
        with self._lock:
            if news == self._news or self._closed:
                return
            self._news = news
            with contextlib.suppress(OSError):
                self._there.send(b"!")
