"""What one router maps for one address of this machine: PCP and NAT-PMP, asked at the same time.

    want ──> ASKING ── both silent, 3.75 s ───────────────> pause, 300 s ──> ASKING
               │  PCP: MAP of the first port   NAT-PMP: the router's address, which maps nothing
               │
               ├─ PCP answers: it is PCP      ├─ only NAT-PMP answers: it is NAT-PMP
               ▼
             port by port: as it was wished ──> held      another one ──> taken back
               │
               └─ enough held; or all taken, then the first one as it is ──> renewed, until nothing is wanted

Rule 1: one protocol maps.  A late answer of PCP's takes back what NAT-PMP has mapped.
Rule 2: a mapping is never believed: its external port and address are compared with the wish.
Rule 3: what is not held is taken back, also when it is granted late.
Rule 4: datagrams that make no sense cost nothing and change nothing.

No sockets and no clock: the caller sends what `step` returns, at `due` or after any other call.  They are lost like
any datagram, so nothing depends on one of them.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from punchtunnel.address import NOBODY, Place, is_public
from punchtunnel.errors import PeerError
from punchtunnel.punching.helper import PortMapping
from punchtunnel.reach import natpmp, pcp
from punchtunnel.reach.epoch import Epoch
from punchtunnel.reach.lease import LEASE, SHORTEST_LEASE, Lease
from punchtunnel.reach.requests import NAT_PMP, PCP, Requests, refusal
from punchtunnel.words import reach as words

# Seconds after each copy of a request; the RFCs' 2 minutes and more are for programs that have nothing else.
WAITS = (0.25, 0.5, 1.0, 2.0)
# Seconds until a router that is silent, refuses, or is behind another NAT is asked again.
PAUSE = 300.0
# Seconds between two looks at the age of the router's table, while it has mappings of ours: a router that was
# started anew has none of them, and does not say so by itself.
LOOK = 15.0
# One is enough; the second is for a peer that cannot dial the first.
MOST_HELD = 2
# Each costs a round trip when all are taken.
MOST_TRIED = 8
# External ports below are other programs' (RFC 6335 §6).
LOWEST_PORT = 1024


class Standing(NamedTuple):
    """What a router has said so far.

    Attributes:
        mappings: Those that stand.
        behind: Its external address, where that is private or shared itself; or "".
        refusal: Why it maps nothing, as a sentence, or "".
        silent: It was asked, and has not answered.
    """

    mappings: tuple[PortMapping, ...] = ()
    behind: str = ""
    refusal: str = ""
    silent: bool = False


class Leases:
    """Asks one router for ports that lead to one address of this machine, and keeps them.

    Args:
        family: Of both addresses; NAT-PMP is for IPv4 only.
        own: The address that the datagrams are sent from.
        router: Its name in sentences.
        key: 32 bytes: a process with the same key can renew and delete what another one was given.
        rng: For the times of renewals.
    """

    def __init__(self, family: socket.AddressFamily, own: str, router: str, key: bytes, rng: Random) -> None:
        self._family, self._router, self._rng = family, router, rng
        self._requests = Requests(family, own, key)
        self._wanted: tuple[int, ...] = ()
        self._held: dict[int, Lease] = {}
        self._outbox: list[bytes] = []
        # What NAT-PMP may have been asked for: only that is taken back when it is granted late.
        self._asked: set[int] = set()
        self._again = self._look_at = float("inf")
        self._silent = False
        self._told = Standing()
        self._forget()

    # ---- what the caller does

    @property
    def due(self) -> float:
        """When `step` has something to do."""
        if self._outbox:
            return 0.0
        if not self._held:
            return self._again
        return min((self._again, self._look_at, *(min(one.renew_at, one.expires_at) for one in self._held.values())))

    def standing(self) -> Standing:
        """Return what there is to tell; while it is asked again, what it said before."""
        if self._trying is not None and not self._held:
            return self._told._replace(mappings=())
        mappings = tuple(
            PortMapping(self._family, port, one.external, self._by) for port, one in sorted(self._held.items())
        )
        self._told = Standing(mappings, self._behind, "" if mappings else self._refusal, self._silent)
        return self._told

    def want(self, ports: Sequence[int], now: float) -> None:
        """Map the first of these ports that the router gives as they are, and no others; [] takes all back."""
        if (wanted := tuple(dict.fromkeys(ports))[:MOST_TRIED]) == self._wanted:
            return
        self._wanted, self._silent = wanted, False
        self._drop_tried()
        for port in self._held.keys() - set(wanted):
            self._drop(port)
        self._search(now)

    def start(self, now: float) -> None:
        """Ask again at once for whatever is wanted, also for what is held."""
        for lease in self._held.values():
            lease.renew_at = now
        if self._trying is None:
            self._search(now)

    def step(self, now: float) -> list[bytes]:
        """Return the datagrams to send now."""
        for lease in list(self._held.values()):
            if now >= lease.expires_at:
                del self._held[lease.own_port]
                self._search(now)
            elif now >= lease.renew_at:
                self._renew(lease, now)
        if self._held and now >= self._look_at:
            self._look_at = now + LOOK
            self._outbox.append(self._requests.look(self._by))
        while now >= self._again:
            self._retry(now)
        sent, self._outbox = self._outbox, []
        return sent

    def nobody(self, now: float) -> None:
        """Take that by ICMP no program of the router's listens; what has answered before is only not there just now."""
        if not self._by and self._trying is not None:
            self._give_up(now)

    def receive(self, data: bytes, now: float) -> None:
        """Take a datagram that came from the router."""
        if not self._wanted:
            # What is granted still was taken back already.
            return
        try:
            if data[:1] == bytes([natpmp.VERSION]):
                self._receive_natpmp(natpmp.read_answer(data), now)
            else:
                self._receive_pcp(pcp.read_answer(data), now)
        except PeerError:
            return

    # ---- asking, one port after another

    def _forget(self) -> None:
        """Know nothing of the router but that it may be asked."""
        self._by = ""
        self._address = self._behind = self._refusal = ""
        self._no_pcp = False
        self._trying: int | None = None
        # The first port that another external one was given for, and whether that is taken as it is.
        self._spare: int | None = None
        self._as_it_is = False
        self._left: deque[int] = deque()
        self._attempt = 0
        self._epochs = {PCP: Epoch(strict=True), NAT_PMP: Epoch(strict=False)}

    def _search(self, now: float) -> None:
        """Ask for ports that are not held until enough are."""
        if not self._held:
            self._forget()
        self._refusal = self._behind = ""
        self._spare, self._as_it_is = None, False
        self._left = deque(port for port in self._wanted if port not in self._held)
        self._next(now)

    def _next(self, now: float) -> None:
        self._attempt = 0
        self._trying = self._left.popleft() if self._left and len(self._held) < MOST_HELD else None
        if self._trying is None and not self._held and self._spare is not None:
            self._trying, self._spare, self._as_it_is = self._spare, None, True
        if self._trying is not None:
            self._again = now
            return
        self._again = now + PAUSE if self._wanted and not self._held else float("inf")

    def _retry(self, now: float) -> None:
        if self._trying is None:
            self._search(now)
            return
        if self._attempt and self._use_natpmp_alone(now):
            return
        if self._attempt == len(WAITS):
            self._give_up(now)
            return
        if self._by != NAT_PMP and not self._no_pcp:
            self._outbox.append(self._requests.by_pcp(self._trying))
        if self._by != PCP and self._family == socket.AF_INET:
            if not self._address:
                self._outbox.append(natpmp.ask_address())
            elif self._by:
                self._outbox.append(natpmp.ask_mapping(self._trying, self._trying, LEASE))
                self._asked.add(self._trying)
        self._again = now + WAITS[self._attempt]
        self._attempt += 1

    def _give_up(self, now: float) -> None:
        """No answer: if the router has never given one, it will not for the other ports either."""
        if self._by:
            self._next(now)
            return
        self._silent = not self._refusal
        self._stop(now)

    def _stop(self, now: float) -> None:
        """Pause; then everything is asked for anew."""
        self._trying = None
        self._left.clear()
        self._again = now + PAUSE

    def _use_natpmp_alone(self, now: float) -> bool:
        """Map by NAT-PMP if only that has answered by the time when PCP would have."""
        if self._by or not self._address:
            return False
        self._by = NAT_PMP
        self._attempt = 0
        self._again = now
        self._check_address(now)
        return True

    # ---- renewing and taking back

    def _renew(self, lease: Lease, now: float) -> None:
        self._outbox += self._requests.renewal(self._by, lease)
        lease.renewals += 1
        lease.plan(now, self._rng)

    def lost(self, now: float) -> None:
        """The mappings are gone, or will be: the router was started anew, or another means has removed them."""
        for lease in self._held.values():
            lease.lost = True
            lease.renew_at = now

    def _drop(self, own_port: int) -> None:
        self._held.pop(own_port, None)
        self._delete(own_port)

    def _drop_all(self) -> None:
        for port in list(self._held):
            self._drop(port)
        self._drop_tried()

    def _drop_tried(self) -> None:
        """Take back what was asked for last: it may be granted, with the answer still under way."""
        if self._trying is not None and self._attempt:
            self._delete(self._trying)

    def _delete(self, own_port: int) -> None:
        self._outbox.append(self._requests.deletion(self._by, own_port))

    # ---- answers

    def _receive_pcp(self, answer: pcp.Granted | pcp.Announced | pcp.Refusal, now: float) -> None:
        if isinstance(answer, pcp.Announced):
            if self._by == PCP:
                self._hear(PCP, answer.epoch, now)
            return
        port = answer.own_port or self._trying
        if port is None or (answer.nonce and answer.nonce != self._requests.nonce(port)):
            return
        if isinstance(answer, pcp.Refusal):
            if answer.result in (pcp.UNSUPPORTED_VERSION, pcp.UNSUPPORTED_OPCODE) and not self._by:
                self._no_pcp = True
                self._refusal = refusal(PCP, answer.result, self._router)
                if self._family == socket.AF_INET6:
                    self._give_up(now)
                self._use_natpmp_alone(now)
            elif self._by != NAT_PMP:
                self._by = PCP
                self._refused(port, refusal(PCP, answer.result, self._router), now)
            return
        if not answer.lifetime:
            return
        if self._by == NAT_PMP:
            # It took its time.  Both may have one table, so what NAT-PMP has mapped goes first.
            self._drop_all()
            self._by = PCP
            self._search(now)
            return
        self._by = PCP
        self._hear(PCP, answer.epoch, now)
        self._granted(port, answer.external, answer.lifetime, now)

    def _receive_natpmp(self, answer: natpmp.Seen | natpmp.Mapped | natpmp.Refusal, now: float) -> None:
        if isinstance(answer, natpmp.Refusal):
            self._refused_by_natpmp(answer, now)
        elif isinstance(answer, natpmp.Seen):
            if self._by != PCP:
                self._hear(NAT_PMP, answer.epoch, now)
                self._address = answer.host
                if self._by:
                    self._check_address(now)
                elif self._no_pcp or self._attempt > 1:
                    self._use_natpmp_alone(now)
        elif answer.lifetime and answer.own_port in self._asked and self._by == NAT_PMP:
            self._hear(NAT_PMP, answer.epoch, now)
            self._granted(answer.own_port, Place(self._address, answer.external_port), answer.lifetime, now)

    def _refused_by_natpmp(self, answer: natpmp.Refusal, now: float) -> None:
        if answer.result == natpmp.UNSUPPORTED_VERSION and answer.opcode != natpmp.MAP_TCP:
            # The answer to a request of PCP's.
            if not self._by:
                self._no_pcp = True
                self._use_natpmp_alone(now)
        elif self._by == NAT_PMP and self._trying is not None and answer.opcode == natpmp.MAP_TCP:
            self._refused(self._trying, refusal(NAT_PMP, answer.result, self._router), now)
        elif not self._by:
            self._refusal = refusal(NAT_PMP, answer.result, self._router)

    def _hear(self, by: str, epoch: int, now: float) -> None:
        self._silent = False
        if self._epochs[by].is_new(epoch, now):
            self.lost(now)

    def _check_address(self, now: float) -> None:
        """Compare what NAT-PMP has told of the router's address with what is known."""
        if is_public(self._address):
            for lease in self._held.values():
                lease.external = Place(self._address, lease.external.port)
        else:
            self._not_public(self._address, now)

    def _not_public(self, host: str, now: float) -> None:
        self._drop_all()
        if host == NOBODY:
            self._refusal = words.NO_NETWORK.format(router=self._router, by=self._by)
        else:
            self._behind = host
        self._stop(now)

    def _granted(self, own_port: int, external: Place, lifetime: int, now: float) -> None:
        known = self._held.get(own_port)
        if lifetime < SHORTEST_LEASE or (external.port < LOWEST_PORT and external.port != own_port):
            self._delete(own_port)
            wrong = words.SHORT_LEASE if lifetime < SHORTEST_LEASE else words.WRONG_PORT
            why = wrong.format(router=self._router, by=self._by, seconds=lifetime, port=external.port)
            self._refused(own_port, why, now)
        elif not is_public(external.host):
            if own_port != self._trying and known is None:
                self._delete(own_port)
            self._not_public(external.host, now)
        elif known is not None:
            moved = known.external.port == own_port != external.port
            known.grant(external, lifetime, now, self._rng)
            if moved:
                self._drop(own_port)
                self._search(now)
        else:
            lease = Lease(own_port, external)
            lease.grant(external, lifetime, now, self._rng)
            self._take(lease, now)

    def _take(self, lease: Lease, now: float) -> None:
        """Hold a new mapping, or take it back: it may have the port that is to be asked for next."""
        port = lease.own_port
        fits = lease.external.port == port or (self._as_it_is and port == self._trying)
        if port in self._wanted and fits and len(self._held) < MOST_HELD:
            self._held[port] = lease
            self._look_at = now + LOOK
        else:
            self._delete(port)
            if port == self._trying and self._spare is None:
                self._spare = port
        if port == self._trying or (self._held and self._trying is None):
            self._next(now)

    def _refused(self, own_port: int, sentence: str, now: float) -> None:
        self._silent = False
        self._refusal = sentence
        if own_port in self._held:
            # What it had given before may still stand.
            self._drop(own_port)
        if own_port == self._trying:
            self._next(now)
        elif self._trying is None and not self._held:
            self._stop(now)
