"""Where the peer is: its addresses as they are known now, and when its names are looked up again."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address, IPv6Network

from punchtunnel import words
from punchtunnel.address import Place
from punchtunnel.errors import LocalError, UsageError
from punchtunnel.punching.resolver import Answer, LookUps, Resolver
from punchtunnel.punching.rota import MAX_ADDRESSES, Rota
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting import events
from punchtunnel.system.addresses import Address, is_own


class Whereabouts:
    """Takes the answers of a resolver, which works as a helper beside the punch.

    Args:
        settings: PEERs, family, and what to bind.
        report: Where events go.
        recall: Returns what the names led to when a hole last opened.

    Attributes:
        resolver: Its answers are for `take`.
        addresses: The peer's, the likely ones first.
        forwarded: Those of the PEERs that were given with a port, and the ports.
        failed: Why names have none.
        nat64: Through which one IPv4 is dialled.
        no_nat64: One was missed.
        names: What the names lead to, as literals.
    """

    def __init__(
        self, settings: Settings, report: events.Report, recall: Callable[[], Mapping[str, Sequence[str]]]
    ) -> None:
        self._settings = settings
        self._report = report
        self._recall = recall
        self.names: dict[str, Sequence[str]] = {}
        # The address by which a hole has opened before.
        self._best = ""
        self.resolver = Resolver(
            settings.peers, settings.family, settings.bind, interface=settings.interface, forwarded=settings.forwarded
        )
        self._look_ups = LookUps()
        self._rota = Rota()
        self.addresses: tuple[Address, ...] = ()
        self.forwarded: tuple[Place, ...] = ()
        self.failed: tuple[str, ...] = ()
        # The same by other interfaces than the usual one; None until they are looked for.
        self._further: tuple[Address, ...] | None = None
        self.nat64: IPv6Network | None = None
        self.no_nat64 = False
        # Of how many addresses it was told that some are left out.
        self._left_out = 0

    def begin(self, now: float) -> None:
        """Take the literals, and begin to look up names, if there are any.

        Raises:
            UsageError, LocalError: As `take`.
        """
        if not self._settings.peers:
            # There is --via alone.
            return
        literals = self.resolver.literals()
        self._use(literals)
        if self.resolver.has_names or self.resolver.wants_nat64(literals.addresses):
            self._look_up(now)
            self._use_recalled()
        elif literals.failed:
            # With -k: their interface may come.
            self._look_ups.answered(now, failed=True)

    def _use_recalled(self) -> None:
        """Punch towards what names led to before, until the name server has answered, or if it knows nothing.

        What it answers takes their place.
        """
        if not (self.resolver.has_names and self._settings.proves):
            return
        recalled = self._recall()
        self.names.update(recalled)
        hosts = list(dict.fromkeys(host for name in recalled for host in recalled[name]))
        wanted = self._settings.family
        if self._settings.bind is not None:
            wanted = socket.AF_INET6 if ":" in self._settings.bind else socket.AF_INET
        found = [Address(socket.AF_INET6 if ":" in host else socket.AF_INET, host) for host in hosts]
        bind = self._settings.bind
        found = [one for one in found if not (bind in (None, one.host) and is_own(one))]
        addresses = [one for one in found if wanted in (socket.AF_UNSPEC, one.family)]
        if not addresses:
            return
        self._best = addresses[0].host
        self._report(events.Recalled(hosts=", ".join(one.host for one in addresses)))
        forwarded = (
            Place(host, peer.port) for peer in self._settings.forwarded for host in recalled.get(peer.host, ())
        )
        self.forwarded = tuple(dict.fromkeys((*self.forwarded, *forwarded)))
        self.addresses = tuple(dict.fromkeys((*self.addresses, *addresses)))[:MAX_ADDRESSES]

    def look_again(self, now: float) -> None:
        """Look everything up that may have changed, now."""
        self.find_ways()
        if self.resolver.has_names or self.resolver.wants_nat64(self.addresses):
            self._look_up(now)

    def refresh(self, now: float) -> None:
        """Look everything up if that is due."""
        if self._look_ups.take_due(now):
            self._look_up(now)

    def take(self, now: float, answer: Answer) -> None:
        """Use an answer of the resolver from now on.

        Raises:
            UsageError: No PEER has an address, and asking again would be of no use.
            LocalError: This machine has nothing left to ask with.
        """
        self._use(answer)
        self._look_ups.answered(now, failed=bool(answer.failed))

    def dialled(self, now: float, *, busy: bool) -> Sequence[Address]:
        """Return the addresses whose turn it is, by all ways; see `Rota`."""
        if self._further is None:
            self._further = self._find_further_ways()
        return self._rota.dialled(self.addresses, now, busy=busy, further=self._further)

    def find_ways(self) -> None:
        """Look for interfaces anew."""
        self._further = None

    def _find_further_ways(self) -> tuple[Address, ...]:
        if not self._settings.takes_any_way:
            return ()
        # The first SYN of a machine with one uplink waits for no more than that.
        from punchtunnel.punching.further import further_ways

        return further_ways(self.addresses)

    def families(self) -> list[str]:
        """Return the families in which the peer is to punch, as people call them."""
        return sorted(set(map(self._family_name, self.addresses)))

    def _family_name(self, address: Address) -> str:
        """Return the family in which the peer is to punch; behind a NAT64 that is the other one."""
        is_mapped = self.nat64 is not None and ":" in address.host and IPv6Address(address.host) in self.nat64
        return "IPv6" if address.family == socket.AF_INET6 and not is_mapped else "IPv4"

    def _look_up(self, now: float) -> None:
        """Begin a look-up; where no thread is to be had, known addresses are good enough for the moment."""
        try:
            self.resolver.start()
        except LocalError as error:
            if not self.addresses:
                raise
            self.take(now, Answer(failed=(str(error),), lasting=False))

    def _use(self, answer: Answer) -> None:
        told, self.failed = self.failed, answer.failed
        for reason in answer.failed:
            self._report(events.Unresolved(reason=reason))
        if answer.refused and not self.addresses:
            raise LocalError(answer.failed[0])
        if not (answer.addresses or self.addresses or self._settings.keep or self._settings.appointment):
            # As long as the resolver has said nothing, nothing is final.
            asked = answer.failed or not self.resolver.has_names
            if asked and answer.lasting:
                raise UsageError("; ".join(answer.failed) or words.NO_ADDRESS)
        for reason in answer.failed:
            if reason not in told:
                self._report(events.LookingUpAgain(reason=reason))
        if not answer.addresses:
            return
        if answer.nat64 not in (None, self.nat64):
            self._report(events.ThroughNat64(prefix=str(answer.nat64)))
        self.nat64, self.no_nat64 = answer.nat64, answer.no_nat64
        before = self.forwarded if answer.failed else ()
        self.forwarded = tuple(dict.fromkeys((*answer.forwarded, *before)))
        self.names.update(answer.names)
        # What has led there before is likely to do so again.
        found = tuple(sorted(answer.after(self.addresses), key=lambda address: address.host != self._best))
        if len(found) > MAX_ADDRESSES and self._left_out != len(found):
            self._left_out = len(found)
            self._report(events.AddressesLeftOut(count=len(found) - MAX_ADDRESSES, total=len(found)))
        self.addresses = found[:MAX_ADDRESSES]
        self.find_ways()
