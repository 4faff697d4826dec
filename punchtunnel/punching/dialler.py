"""Performs a strategy: a dial for each of its candidates, and listeners, over real sockets.

    plan(clock) ─> candidates ─> listener ───────────> accepted ──┐
                         └─────> dial ───> connected ─────────────┴─> on_open
                                  ▲  │ refused, unreachable …
                                  └──┘ when the strategy says

Rule 1: a dial that is pending is left alone, unless the strategy wants it
        anew.  The kernel re-sends its SYN; a new one with another sequence
        number would destroy the attempt.
Rule 2: the ICMP time-exceeded that tells of the death of a hold's first SYN
        would end the hold; tcp.ignore_expiry prevents that, for IPv6 at the
        price of a quarter of a second in which the socket hears nothing (it
        is *shielded*).
Rule 3: on one machine dialling a port from itself would connect to oneself:
        there the ports come in pairs, and the end that can bind the far port
        of a pair listens on it, while the other end dials.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from punchtunnel import words
from punchtunnel.errors import NO_RESOURCES, LocalError
from punchtunnel.protocol.schedule import MAX_SOCKETS
from punchtunnel.punching import ports
from punchtunnel.punching.callers import Connection
from punchtunnel.punching.candidates import ANY_PORT, PACED, Candidate, FamilyPort, Fate, Kind, fate_of
from punchtunnel.punching.dial import Dial, evidence, fates, refusing
from punchtunnel.punching.hole import Counts
from punchtunnel.punching.listeners import Listeners
from punchtunnel.punching.settings import Settings
from punchtunnel.punching.strategy import NEVER
from punchtunnel.reporting import events
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address

if TYPE_CHECKING:
    from punchtunnel.punching.race import Strategy

_FAMILIES = (socket.AF_INET, socket.AF_INET6)


class Dialler:
    """Keeps the dials and listeners of a strategy.

    Args:
        settings: What to bind, and the channel.
        strategy: Decides.
        listeners: Where it listens.
        selector: Calls `key.data()` for what becomes ready.
        monotonic: Steady time in seconds.
        counts: Where everything is counted.
        report: Where events go.
        on_open: Called with each connection that a dial opens; the callee owns its socket.
    """

    def __init__(
        self,
        settings: Settings,
        strategy: Strategy,
        listeners: Listeners,
        selector: selectors.BaseSelector,
        monotonic: Callable[[], float],
        counts: Counts,
        report: events.Report,
        on_open: Callable[[Connection], None],
    ) -> None:
        self._settings = settings
        self._strategy = strategy
        self._listeners = listeners
        self._selector = selector
        self._monotonic = monotonic
        self._counts = counts
        self._report = report
        self._on_open = on_open
        self._dials: dict[Candidate, Dial] = {}
        # Where the last attempt to bind has failed.
        self._busy: set[FamilyPort] = set()
        # Ports that were told of as taken, and the last error that was another one.
        self._told_busy: set[FamilyPort] = set()
        self._unbindable: OSError | None = None

    # ---- what the puncher asks for

    def plan(self, addresses: Sequence[Address], wall: float) -> None:
        """Begin and retire candidates and listeners as the clock demands.

        Args:
            addresses: Those of the peer that are to be dialled now.
            wall: Unix time in seconds, corrected.

        Raises:
            LocalError: --bind is no address of this machine, or there is no socket to be had.
        """
        candidates = self._strategy.candidates(addresses, wall)
        kept = set(candidates)
        for candidate in [candidate for candidate in self._dials if candidate not in kept]:
            self._retire(self._dials.pop(candidate))
        self._listeners.resume()
        wanted = list(self._strategy.listening(addresses, wall))
        used = {candidate.listening_port[1] for candidate in candidates} | {self._settings.port}
        used.update(port for _, _, _, numbers in wanted for port in numbers)
        self._listeners.keep({(family, port) for port in used for family in _FAMILIES})
        now = self._monotonic()
        for candidate in candidates:
            if candidate not in self._dials:
                self._dials[candidate] = Dial(candidate, due=now)
        if self._settings.port:
            self._listen_on_given_port()
        for family, interface, count, numbers in wanted:
            if self._settings.family not in (socket.AF_UNSPEC, family):
                continue
            there = self._listeners.ports(interface or self._settings.interface)
            missing = count - sum((family, port) in there for port in numbers)
            for port in numbers:
                if missing > 0 and (family, port) not in self._listeners:
                    missing -= self._listen(
                        (family, port), self._settings.bind, pair=False, further=interface, quiet=not addresses
                    )
        self._listen_in_the_other_family(addresses, {candidate.own_port for candidate in candidates})

    def start_due(self) -> None:
        """Begin every dial whose wait is over.

        Raises:
            LocalError: Not one port can be bound.
        """
        now = self._monotonic()
        for dial in [dial for dial in self._dials.values() if dial.sock is None and dial.due <= now]:
            self._start(dial)
        for dial in self._dials.values():
            dial.look(now)
        for dial in [dial for dial in self._dials.values() if self._renewal(dial) <= now]:
            self._renew(dial)
        used = {(candidate.address.family, candidate.own_port) for candidate in self._dials if candidate.own_port}
        # What was busy in an earlier bucket, or in a family that is missing here, says nothing of the rest.
        if used and used <= self._busy:
            if self._unbindable is not None:
                if self._unbindable.errno in NO_RESOURCES:
                    raise LocalError(words.no_resources(os.strerror(self._unbindable.errno)))
                raise LocalError(words.cannot(words.BIND, self._unbindable))
            raise LocalError(words.all_ports_busy(len(self.ports), self._settings.channel))

    def next_due(self) -> float:
        """Return when `start_due` has something to do."""
        dials = self._dials.values()
        due = [dial.due for dial in dials if dial.sock is None]
        due += [min(dial.shielded_until, dial.look_at) for dial in dials]
        due += map(self._renewal, dials)
        return min(due, default=NEVER)

    def _renewal(self, dial: Dial) -> float:
        """Return when a dial that is in progress is to be made anew."""
        if dial.sock is None:
            return NEVER
        return self._strategy.renewal(dial.candidate, dial.began, held=dial.held)

    def meet(self, *, known: bool) -> None:
        """Take note that the peer is heard, and dial every port plainly if the strategy wants it.

        Args:
            known: It speaks from an address of the peer.
        """
        if not self._strategy.meet(self._monotonic(), known=known):
            return
        for dial in self._unpaced():
            if dial.held and dial.sock is not None and tcp.state(dial.sock) == tcp.SYN_SENT:
                tcp.close_with_reset(self._stop(dial))
            elif dial.sock is not None or dial.due == NEVER:
                continue
            self._start(dial)

    def ended(self, candidate: Candidate, fate: Fate) -> None:
        """Take note that a dial has failed, or that the connection that it became was closed."""
        due = self._strategy.ended(candidate, fate, self._monotonic())
        if (dial := self._dials.get(candidate)) is not None:
            dial.fate, dial.due = fate, due
            dial.met.add(fate)

    def is_listened_on(self, candidate: Candidate) -> bool:
        """Tell whether a peer that has the ports of this side free listens on the far port of a candidate."""
        return (candidate.address.family, candidate.far_port) in self._listeners

    def start_over(self) -> None:
        """Dial every port anew and at once: the user, or a program, knows that it is worth it now.

        This breaks rule 1: with another address or another network the SYNs
        that are under way will never be answered.
        """
        now = self._monotonic()
        self._strategy.start_over(now)
        for dial in self._unpaced():
            if dial.sock is not None and tcp.state(dial.sock) == tcp.SYN_SENT:
                tcp.close_with_reset(self._stop(dial))
            if dial.due < NEVER:
                dial.due = now

    def _unpaced(self) -> list[Dial]:
        """Return the dials that may be made at any time."""
        return [dial for dial in self._dials.values() if dial.candidate.kind not in PACED]

    @property
    def ports(self) -> list[int]:
        """The own ports of the schedule in use, sorted."""
        return sorted({candidate.own_port for candidate in self._dials} - {ANY_PORT})

    def fates(self) -> Counter[Fate]:
        """Count the candidates by what became of the last dial of each."""
        return fates(self._dials.values())

    def refusing(self) -> dict[Address, int]:
        """Return the addresses that have refused a dial by the default way, and a port of each at which they have."""
        return refusing(self._dials.values())

    def evidence(self) -> dict[Candidate, Fate]:
        """Return the fate of each candidate, of all that its dials have met, that tells most about the far end."""
        return evidence(self._dials.values())

    def close(self) -> None:
        """Close listeners and dials; connections that have opened belong to others."""
        for dial in self._dials.values():
            self._retire(dial)
        self._dials.clear()
        self._listeners.keep(())

    # ---- ports

    def _listen(
        self, port: FamilyPort, host: str | None, *, pair: bool, further: str = "", quiet: bool = False
    ) -> bool:
        """Make sure that a port is listened on, and tell whether it is.

        Args:
            port: Its family and number.
            host: The own address.
            pair: See Listeners.open.
            further: The interface of a further way.
            quiet: It is for a family that this machine may lack.
        """
        try:
            interface = "" if pair else further or self._settings.interface
            self._listeners.open(port[0], host, port[1], pair=pair, interface=interface)
        except OSError as error:
            # That the other end of a pair has the port is as it should be.
            if not (further or quiet):
                self._on_bind_error(error, port, tell=not pair)
            return False
        return True

    def _listen_in_the_other_family(self, addresses: Sequence[Address], numbers: Collection[int]) -> None:
        """Listen in the family that nothing is dialled in: one side may dial IPv4, and the other one IPv6."""
        families = {address.family for address in addresses if not address.own}
        if len(families) != 1 or self._settings.family != socket.AF_UNSPEC:
            return
        other = socket.AF_INET if socket.AF_INET6 in families else socket.AF_INET6
        for family, port in self._listeners.ports(interface := self._settings.interface):
            if family != other and port in numbers and len(self._unpaced()) + len(self._listeners) < MAX_SOCKETS:
                # This machine may lack that family, or another program have the port.
                with contextlib.suppress(OSError):
                    self._listeners.open(other, None, port, pair=False, interface=interface)

    def _listen_on_given_port(self) -> None:
        """Listen on --port in every family that this machine has.

        Raises:
            LocalError: The port cannot be had.
        """
        settings, failed = self._settings, None
        wanted = _FAMILIES if settings.family == socket.AF_UNSPEC else (settings.family,)
        for family in wanted:
            try:
                self._listeners.open(family, settings.bind, settings.port, pair=False, interface=settings.interface)
            except OSError as error:
                failed = error
                if error.errno == errno.EADDRINUSE:
                    break
        if failed is not None and (
            failed.errno == errno.EADDRINUSE or not any((family, settings.port) in self._listeners for family in wanted)
        ):
            if failed.errno == errno.EADDRNOTAVAIL and settings.bind:
                raise LocalError(words.not_our_address(settings.bind))
            if failed.errno in NO_RESOURCES:
                raise LocalError(words.no_resources(os.strerror(failed.errno)))
            raise LocalError(words.port_refused(settings.port, failed))

    def _on_bind_error(self, error: OSError, port: FamilyPort, *, tell: bool) -> None:
        if error.errno == errno.EADDRNOTAVAIL and self._settings.bind:
            raise LocalError(words.not_our_address(self._settings.bind))
        if error.errno in NO_RESOURCES:
            self._counts.shortage = error.errno
            if not self._listeners and not self.fates()[Fate.PENDING]:
                raise LocalError(words.no_resources(os.strerror(error.errno)))
        if error.errno != errno.EADDRINUSE:
            self._unbindable = error
        if tell and port not in self._told_busy:
            self._told_busy.add(port)
            self._report(events.PortBusy(port=port[1], reason=error.strerror or str(error)))

    # ---- dials

    def _start(self, dial: Dial) -> None:
        """Send the first SYN of a dial, unless this end of a pair can listen instead."""
        candidate = dial.candidate
        family, host = candidate.address.family, self._settings.bind
        if candidate.kind is Kind.PAIR:
            host = candidate.address.host
            if self._listen((family, candidate.far_port), host, pair=True):
                dial.due = NEVER
                return
        own_port = family, candidate.own_port
        try:
            local = candidate.kind is Kind.PAIR
            interface = "" if local else candidate.address.interface or self._settings.interface
            sock = ports.dialling_socket(family, host, candidate.own_port, local=local, interface=interface)
        except OSError as error:
            if not candidate.address.interface:
                # That a further way is gone keeps nothing from the others.
                self._on_bind_error(error, own_port, tell=True)
                self._busy.add(own_port)
            self.ended(candidate, Fate.STARVED if error.errno in NO_RESOURCES else Fate.UNUSABLE)
            return
        self._busy.discard(own_port)
        self._unbindable = None
        self._counts.dials += 1
        dial.began = self._monotonic()
        ttl = self._strategy.begin(candidate, dial.began)
        dial.held = ttl is not None
        code = sock.connect_ex(candidate.sockaddr) if ttl is None else dial.hold(sock, ttl)
        try:
            if code in (0, errno.EINPROGRESS):
                self._selector.register(sock, selectors.EVENT_WRITE, lambda: self._on_dialled(dial))
                dial.sock = sock
                return
        except OSError as error:
            # It cannot be watched, which costs this dial.
            code = error.errno or errno.EIO
        tcp.abort(sock)
        dial.release()
        self._failed(candidate, code, held=False)

    def _renew(self, dial: Dial) -> None:
        """Make a dial anew that was not answered in its time."""
        now = self._monotonic()
        if dial.sock is None or tcp.state(dial.sock) != tcp.SYN_SENT:
            # The peer's SYN has come: now the kernel must go on.
            dial.held, dial.began = False, now
            return
        self._counts.held_again += dial.held
        tcp.close_with_reset(self._stop(dial))
        dial.due = self._strategy.held_out(dial.candidate, now)
        if dial.due <= now:
            self._start(dial)
        elif dial.fate is Fate.UNTRIED:
            dial.fate = Fate.SILENT

    def _stop(self, dial: Dial) -> socket.socket:
        """Take the socket from a dial that is in progress."""
        sock = dial.release()
        assert sock is not None
        self._selector.unregister(sock)
        return sock

    def _retire(self, dial: Dial) -> None:
        if dial.sock is not None:
            tcp.close_with_reset(self._stop(dial))

    def _on_dialled(self, dial: Dial) -> None:
        """A dial has ended, well or badly."""
        dial.reach_far()
        held, sock = dial.held, self._stop(dial)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            sock.close()
            self._failed(dial.candidate, code, held=held)
            return
        dial.due = NEVER
        tcp.ignore_expiry(sock, False)
        candidate = dial.candidate
        self._on_open(Connection(sock, candidate.remote, candidate.address.host, scheduled=True, candidate=candidate))

    def _failed(self, candidate: Candidate, code: int, *, held: bool) -> None:
        fate = fate_of(code, held=held)
        self.ended(candidate, fate)
        self._counts.failed[fate] += 1
        self._report(events.DialFailed(port=candidate.own_port, remote=candidate.remote, reason=os.strerror(code)))
