"""The listeners and dials of one punch: what the kernel does for the schedule.

A *route* is (address of the peer, own port, port there).  Each has at most one
dial in progress, and some have a listener on their own port:

    plan(clock) -> routes -> listener ───────────> accepted ──┐
                       └──-> dial ───> connected ─────────────┴─> on_open
                              ▲  │ refused, unreachable
                              └──┘ after a jittered wait

Rule 1: a dial that is pending is left alone.  The kernel re-sends its SYN; a
        new one with another sequence number would destroy the attempt.
Rule 2: an error re-dials, with jitter (schedule.redial_wait says why).
Rule 3: a coin decides whether a dial is plain or a *hold*, whose first SYN
        has a TTL that opens the near router and dies before the far one, so
        that it provokes no RST there.  One side holding while the other
        dials meets with no timing at all.  The ICMP time-exceeded that tells
        of the SYN's death would end the hold; tcp.ignore_expiry prevents
        that, for IPv6 at the price of a quarter of a second without hearing.
Rule 4: where a router or a stranger accepts plain dials (*captures* them),
        almost every dial is a hold, and it is made anew before the kernel
        would send a second, full SYN (after minutes only now and then, like
        any other): what was captured is of no use for
        minutes, because the far router keeps the port for the capturer.
Rule 5: the listeners catch a peer whose router rewrote its port, or who
        dials first when this host is public (schedule.LISTENERS_PER_BUCKET
        says why there are few).
Rule 6: on one machine dialling a port from itself would connect to oneself:
        there the ports come in pairs, and whoever binds the first of a pair
        listens while the other dials from the second.
Rule 7: when the peer is heard, both sides dial every port once more and
        plainly.  A dial that is only closed leaves an entry in its router
        for two minutes; if then a SYN of the peer passes it and finds no
        socket, Linux's conntrack stays in SYN_SENT2, where it takes neither
        that host's RST nor a new SYN, and the port is of no use to the next
        run.  What has opened or was refused can be dialled again at once.
"""

from __future__ import annotations

import errno
import os
import random
import selectors
import socket
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from punchtunnel import words
from punchtunnel.address import join_host_port
from punchtunnel.errors import NO_RESOURCES, LocalError
from punchtunnel.protocol import schedule
from punchtunnel.punching.hole import Counts
from punchtunnel.punching.resolver import LOOPBACK, Address
from punchtunnel.reporting import events
from punchtunnel.system import tcp

# Routers answer with RST or not at all; a listener's queue never needs more.
BACKLOG = 16
# TTLs of a hold: beyond a home router and its carrier's, short of the peer's.
HOLD_TTL = (2, 6)
HOLD_SHARE = 0.5
# Short waits that the dials of a later bucket skip.
LATER_FAILURES = 3
# Seconds in which the ICMP of a hold comes, from a router a few hops away.
DEAF_LIFE = 0.25
HOLD_SHARE_CAPTURED = 0.95
# Failures after which a wait has its full length.
PATIENT_FAILURES = 16
# Seconds without holds when the peer is heard: by then a connection is elected.
MEETING = 2.0
# Seconds.  Linux sends the second SYN after one (RFC 6298 §2.1).
HOLD_LIFE = 0.9
# Errors of connect() by what they say about the way to the peer.
REFUSED = {errno.ECONNREFUSED, errno.ECONNRESET}
UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN}
FORBIDDEN = {errno.EPERM, errno.EACCES}

Route = tuple[Address, int, int]


@dataclass(slots=True)
class Dial:
    """The dial of one route; `sock` is None while it waits until `due`."""

    address: Address
    source: int
    port: int
    due: float
    failures: int = 0
    held: bool = False
    # It takes nothing in until its own ICMP must have come (IPv6).
    deaf: bool = False
    started: float = 0.0
    # The field of Counts that the last failure belongs to.
    last: str = ""
    sock: socket.socket | None = None

    @property
    def remote(self) -> str:
        """The far end as text."""
        return join_host_port(self.address.host, self.port)


@dataclass(frozen=True, slots=True)
class _Listener:
    sock: socket.socket
    port: int
    own: bool


class Dialler:
    """Keeps listeners and dials in line with the schedule.

    Args:
        selector: Calls `key.data()` for what becomes ready.
        channel: Decides the ports, with the clock.
        bind: Literal address to punch from, or None for any.
        monotonic: Steady time in seconds.
        rng: Jitter and coins.
        counts: Where everything is counted.
        report: Where events go.
        on_open: Called with each connection that opens, with its far end as
            text, that end's address, whether it comes from the port that the
            schedule has for it, and its dial or None; the callee owns the
            socket.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        channel: str,
        bind: str | None,
        monotonic: Callable[[], float],
        rng: random.Random,
        counts: Counts,
        report: events.Report,
        on_open: Callable[[socket.socket, str, str, bool, Dial | None], None],
    ) -> None:
        self._selector = selector
        self._channel = channel
        self._bind = bind
        self._monotonic = monotonic
        self._rng = rng
        self._counts = counts
        self._report = report
        self._on_open = on_open
        self._started = monotonic()
        self._captured = False
        # Who was met, the last time when.
        self._met: set[bool] = set()
        self._met_at: float | None = None
        self.open_to_all = False
        # Families in which ICMP ends our holds: there they last no longer than
        # a plain dial, and open less.
        self._mortal: set[socket.AddressFamily] = set()
        self._express = schedule.express_ports(channel)
        # When the last SYNs were sent.
        self._syns = deque([float("-inf")] * schedule.MOST_SYNS, schedule.MOST_SYNS)
        self._addresses: tuple[Address, ...] = ()
        self._listeners: dict[tuple[socket.AddressFamily, int], _Listener] = {}
        self._dials: dict[Route, Dial] = {}
        self._busy: set[tuple[socket.AddressFamily, int]] = set()
        self._paused: list[_Listener] = []
        # Ports that were told of as taken, and the last error that was another one.
        self._told_busy: set[tuple[socket.AddressFamily, int]] = set()
        self._unbindable: OSError | None = None

    def plan(self, addresses: tuple[Address, ...], wall: float) -> None:
        """Open and retire routes as the clock demands.

        Args:
            addresses: Of the peer.
            wall: Unix time in seconds, corrected.
        """
        self._addresses = addresses
        while self._paused:
            self._watch(self._paused.pop())
        buckets = schedule.current_buckets(wall)
        wanted = self._routes(buckets)
        kept = wanted | self._routes(tuple(schedule.retained_buckets(wall)))
        for route in [route for route in self._dials if route not in kept]:
            self._retire(route)
        now = self._monotonic()
        # The ports of a bucket that begins while we wait are new to both sides:
        # nobody needs to be caught in the moment of starting.
        failures = LATER_FAILURES if self._dials else 0
        for route in wanted:
            address, source, port = route
            if route not in self._dials:
                self._dials[route] = Dial(address, source, port, due=now, failures=failures)
        counts = self._port_counts()
        for family in {address.family for address in addresses if not address.own}:
            for bucket in buckets:
                self._listen_on_some(family, schedule.bucket_ports(self._channel, bucket, counts.ports(bucket)))

    def start_due(self) -> None:
        """Begin every dial whose wait is over.

        Raises:
            LocalError: Not one port can be bound.
        """
        now = self._monotonic()
        for dial in [dial for dial in self._dials.values() if dial.sock is None and dial.due <= now]:
            self._start(dial)
        for dial in self._dials.values():
            if dial.deaf and dial.sock is not None and dial.started + DEAF_LIFE <= now:
                tcp.ignore_expiry(dial.sock, False)
                dial.deaf = False
        if self._captured:
            for dial in [dial for dial in self._dials.values() if dial.held and dial.started + HOLD_LIFE <= now]:
                self._hold_again(dial)
        places = {(dial.address.family, dial.source) for dial in self._dials.values()}
        # What was busy in an earlier bucket, or in a family that is missing here, says nothing of the rest.
        if places and places <= self._busy:
            if self._unbindable is not None:
                raise LocalError(words.cannot(words.BIND, self._unbindable))
            raise LocalError(words.all_ports_busy(len(self.ports), self._channel))

    def next_due(self) -> float:
        """Return the monotonic time at which `start_due` has something to do."""
        due = [dial.due for dial in self._dials.values() if dial.sock is None]
        due += [dial.started + DEAF_LIFE for dial in self._dials.values() if dial.deaf]
        if self._captured:
            due += [dial.started + HOLD_LIFE for dial in self._dials.values() if dial.held]
        return min(due, default=float("inf"))

    def meet(self, *, known: bool = True) -> None:
        """Take note that the peer is here: dial every port plainly at once, as it does (rule 7).

        Args:
            known: It speaks from an address of the peer.  Others may be strangers, who must not use it up.
        """
        if known in self._met:
            return
        self._met.add(known)
        self._met_at = self._monotonic()
        for dial in list(self._dials.values()):
            if dial.held and dial.sock is not None and tcp.state(dial.sock) == tcp.SYN_SENT:
                tcp.close_with_reset(self._stop(dial))
            elif dial.sock is not None or dial.due == float("inf"):
                continue
            self._start(dial)

    def capture(self) -> None:
        """Take note that a dial was answered, but not by the peer (rule 4)."""
        self._captured = True

    def redial(self, dial: Dial, kind: str = "") -> None:
        """Dial again after the jittered wait: it failed, or its connection did."""
        dial.last = kind
        dial.failures += 1
        now = self._monotonic()
        express = dial.address.family in self._mortal and dial.source in self._express
        wait = schedule.redial_wait(dial.failures, now - self._started, self._rng, express)
        # Captured holds are made anew all the time, and none of their SYNs gets across: they do not count.
        earliest = now if self._captured else max(now, self._syns[0] + schedule.SYNS_SPAN)
        dial.due = earliest + wait

    def start_over(self) -> None:
        """Dial every port anew and at once: somebody knows that it is worth it now.

        This breaks rule 1: with another address or another network the SYNs
        that are under way will never be answered.
        """
        self._started = now = self._monotonic()
        self._met.clear()
        self._met_at = None
        # Another network has other routers.
        self._captured = False
        self._mortal.clear()
        for dial in self._dials.values():
            if dial.sock is not None and tcp.state(dial.sock) == tcp.SYN_SENT:
                tcp.close_with_reset(self._stop(dial))
            # For ever wait those that have a listener or a connection.
            if dial.due < float("inf"):
                dial.due = now
            dial.failures = 0

    @property
    def ports(self) -> list[int]:
        """The own ports in use, sorted."""
        return sorted({dial.source for dial in self._dials.values()})

    @property
    def outcomes(self) -> Counter[str]:
        """How the last dial of each route ended: a field of Counts, or "pending"."""
        return Counter(_outcome(dial) for dial in self._dials.values())

    def close(self) -> None:
        """Close listeners and dials; connections that have opened belong to others."""
        for route in list(self._dials):
            self._retire(route)

    # ---- routes

    def _routes(self, buckets: Sequence[int]) -> dict[Route, None]:
        counts = self._port_counts()
        routes: dict[Route, None] = {}
        for address in self._addresses:
            if address.own:
                pairs = schedule.port_pairs(self._channel, buckets, counts)
                routes.update({(address, second, first): None for first, second in pairs})
            else:
                ports = schedule.ports_of(self._channel, buckets, counts)
                routes.update({(address, port, port): None for port in ports})
        return routes

    def _port_counts(self) -> schedule.PortCounts:
        families = {address.family for address in self._addresses}
        return schedule.port_counts(len(self._addresses), len(families))

    def _retire(self, route: Route) -> None:
        dial = self._dials.pop(route)
        if dial.sock is not None:
            tcp.close_with_reset(self._stop(dial))
        place = (dial.address.family, dial.port)
        still_used = any((other.address.family, other.port) == place for other in self._dials.values())
        if not still_used and (listener := self._listeners.pop(place, None)) is not None:
            if listener in self._paused:
                self._paused.remove(listener)
            else:
                self._selector.unregister(listener.sock)
            listener.sock.close()

    # ---- listeners

    def _listen_on_some(self, family: socket.AddressFamily, ports: Sequence[int]) -> None:
        """Have LISTENERS_PER_BUCKET listeners on the ports of a bucket, whichever are free."""
        missing = schedule.LISTENERS_PER_BUCKET - sum((family, port) in self._listeners for port in ports)
        for port in ports:
            if missing > 0 and (family, port) not in self._listeners:
                missing -= self._listen(family, port, own=False)

    def _listen(self, family: socket.AddressFamily, port: int, own: bool) -> bool:
        """Make sure that we, and no other user of this machine, listen on a port."""
        if (family, port) in self._listeners:
            return True
        sock = None
        try:
            sock = _new_socket(family)
            sock.bind(self._place(family, port, own))
            sock.listen(BACKLOG)
        except OSError as error:
            if sock is not None:
                sock.close()
            self._on_bind_error(error, family, port, own)
            return False
        if not own:
            # Only now: the dials of this process may share the port, but no other
            # user's process could, because it was bound without the option.
            tcp.share_port(sock)
        listener = _Listener(sock, port, own)
        self._listeners[family, port] = listener
        self._watch(listener)
        return True

    def _watch(self, listener: _Listener) -> None:
        self._selector.register(listener.sock, selectors.EVENT_READ, lambda: self._on_accept(listener))

    def _place(self, family: socket.AddressFamily, port: int, own: bool) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return what `bind` takes for a port of ours.

        Raises:
            OSError: The interface of --bind is gone.
        """
        host = LOOPBACK if own else self._bind or ("::" if family == socket.AF_INET6 else "0.0.0.0")
        host, _, interface = host.partition("%")
        if not interface:
            return (host, port)
        if interface.isascii() and interface.isdecimal():
            return (host, port, 0, int(interface))
        try:
            return (host, port, 0, socket.if_nametoindex(interface))
        except OSError as error:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)) from error

    def _on_bind_error(self, error: OSError, family: socket.AddressFamily, port: int, own: bool) -> None:
        if error.errno == errno.EADDRNOTAVAIL and self._bind:
            raise LocalError(words.not_our_address(self._bind))
        if error.errno in NO_RESOURCES and not self._listeners and not self.outcomes["pending"]:
            raise LocalError(words.no_resources(os.strerror(error.errno)))
        if error.errno != errno.EADDRINUSE:
            self._unbindable = error
        if not own and (family, port) not in self._told_busy:
            self._told_busy.add((family, port))
            self._report(events.PortBusy(port=port, reason=error.strerror or str(error)))

    def _on_accept(self, listener: _Listener) -> None:
        try:
            sock, remote = listener.sock.accept()
        except OSError as error:
            if error.errno in NO_RESOURCES:
                # The caller stays in the queue, and would be told of again at once.
                self._selector.unregister(listener.sock)
                self._paused.append(listener)
            return
        sock.setblocking(False)
        host = str(remote[0]).partition("%")[0]
        known = listener.own or self.open_to_all
        # Each interface has its own fe80::1.
        scope = remote[3] if len(remote) == 4 else 0
        if not known and all((address.host, address.scope) != (host, scope) for address in self._addresses):
            self._counts.foreign += 1
            self._report(events.ForeignDial(remote=tcp.name_of(remote)))
            tcp.close_with_reset(sock)
            return
        scheduled = listener.own or remote[1] == listener.port
        self._counts.rewritten += not scheduled
        self._on_open(sock, tcp.name_of(remote), host, scheduled, None)

    # ---- dials

    def _start(self, dial: Dial) -> None:
        """Send the first SYN of a dial."""
        if dial.address.own and self._listen(dial.address.family, dial.port, own=True):
            dial.due = float("inf")
            return
        place = (dial.address.family, dial.source)
        try:
            sock = self._dialling_socket(dial)
        except OSError as error:
            self._on_bind_error(error, *place, own=False)
            self._busy.add(place)
            self.redial(dial, "unusable")
            return
        self._busy.discard(place)
        self._unbindable = None
        self._counts.dials += 1
        dial.held = self._rng.random() < self._hold_share(dial.address)
        dial.started = self._monotonic()
        # A hold's is sent again by the kernel.
        self._syns.extend([dial.started] * (2 if dial.held else 1))
        ttl = tcp.time_to_live(sock)
        if dial.held:
            tcp.set_time_to_live(sock, self._rng.randint(*HOLD_TTL))
            dial.deaf = tcp.ignore_expiry(sock, True)
        code = sock.connect_ex(dial.address.at(dial.port))
        if dial.held:
            # At once: the kernel's own re-transmission, and the SYN-ACK that
            # answers the peer's SYN, must reach the peer.
            tcp.set_time_to_live(sock, ttl)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            dial.held = dial.deaf = False
            self._failed(dial, code, False)
            return
        dial.sock = sock
        self._selector.register(sock, selectors.EVENT_WRITE, lambda: self._on_dialled(dial))

    def _dialling_socket(self, dial: Dial) -> socket.socket:
        sock = _new_socket(dial.address.family)
        try:
            tcp.share_port(sock)
            sock.bind(self._place(dial.address.family, dial.source, dial.address.own))
        except OSError:
            sock.close()
            raise
        return sock

    def _hold_share(self, address: Address) -> float:
        meeting = self._met_at is not None and self._monotonic() < self._met_at + MEETING
        if address.own or meeting or address.family in self._mortal:
            return 0.0
        return HOLD_SHARE_CAPTURED if self._captured else HOLD_SHARE

    def _hold_again(self, dial: Dial) -> None:
        """Make a hold anew that nobody has answered."""
        if dial.sock is None or tcp.state(dial.sock) != tcp.SYN_SENT:
            # The peer's SYN has come: now the kernel must go on.
            dial.held = False
            return
        tcp.close_with_reset(self._stop(dial))
        self._counts.held_again += 1
        waited = self._monotonic() - self._started
        if waited < schedule.PATIENT_AFTER:
            self._start(dial)
        else:
            dial.last = dial.last or "silent"
            dial.due = self._monotonic() + schedule.redial_wait(PATIENT_FAILURES, waited, self._rng)

    def _stop(self, dial: Dial) -> socket.socket:
        """Take the socket from a dial that is in progress."""
        sock, dial.sock = dial.sock, None
        assert sock is not None
        dial.held = dial.deaf = False
        self._selector.unregister(sock)
        return sock

    def _on_dialled(self, dial: Dial) -> None:
        """A dial has ended, well or badly."""
        held, sock = dial.held, self._stop(dial)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            sock.close()
            self._failed(dial, code, held)
        else:
            dial.due = float("inf")
            tcp.ignore_expiry(sock, False)
            self._on_open(sock, dial.remote, dial.address.host, True, dial)

    def _failed(self, dial: Dial, code: int, held: bool) -> None:
        self.redial(dial, _kind_of(code, held))
        if dial.last == "expired":
            self._mortal.add(dial.address.family)
        setattr(self._counts, dial.last, getattr(self._counts, dial.last) + 1)
        self._report(events.DialFailed(port=dial.source, remote=dial.remote, reason=os.strerror(code)))


def _outcome(dial: Dial) -> str:
    if dial.sock is None:
        return dial.last
    if not tcp.is_stopped_here(dial.sock):
        return "pending"
    # Neither a local firewall that drops what is sent nor a route that is gone ends a connect() that is under way.
    return "forbidden" if tcp.has_route(dial.sock.family, dial.address.at(dial.port)) else "unreachable"


def _kind_of(code: int, held: bool) -> str:
    """Return the field of Counts for an error of connect()."""
    if code in REFUSED:
        return "refused"
    if code in UNREACHABLE:
        return "expired" if held else "unreachable"
    if code in FORBIDDEN:
        return "forbidden"
    return "silent" if code == errno.ETIMEDOUT else "unusable"


def _new_socket(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock
