"""The dial of one candidate, and what all dials together tell of the far end."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from punchtunnel.punching.candidates import Candidate, Fate, Kind, most_telling
from punchtunnel.punching.strategy import NEVER
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address, source_towards
from punchtunnel.system.neighbours import nobody_has

# Seconds in which the ICMP of a hold comes, from a router a few hops away.
SHIELD_LIFE = 0.25
# Seconds between looks at a hold that keeps its small TTL.
LOOK_PAUSE = 0.2


@dataclass(slots=True, eq=False, repr=False)
class Dial:
    """The dial of one candidate.

    Attributes:
        candidate: What is dialled.
        due: When to dial, while there is no socket; NEVER if a listener or a connection has the ports.
        fate: What became of the last one.
        met: What became of all of them.
        sock: Of the dial that is in progress.
        began: When that was dialled.
        held: It is a hold.
        shielded_until: When its socket begins to hear; NEVER if it hears (IPv6).
        usual_ttl: The TTL for once the peer's SYN has come, while the socket has a smaller one; or 0.
        look_at: When to look whether it has come; NEVER if `usual_ttl` is 0.
    """

    candidate: Candidate
    due: float
    fate: Fate = Fate.UNTRIED
    met: set[Fate] = field(default_factory=set)
    sock: socket.socket | None = None
    began: float = 0.0
    held: bool = False
    shielded_until: float = NEVER
    usual_ttl: int = 0
    look_at: float = NEVER

    def hold(self, sock: socket.socket, ttl: int) -> int:
        """Send a SYN that dies on the way; return the errno of connect."""
        usual = tcp.time_to_live(sock)
        tcp.set_time_to_live(sock, ttl)
        if tcp.ignore_expiry(sock, True):
            self.shielded_until = self.began + SHIELD_LIFE
        code = sock.connect_ex(self.candidate.sockaddr)
        if self.candidate.kind is Kind.GUESSED:
            # Nearly all of these ports are nobody's: a SYN that arrived would be refused, and
            # the refusal would end what the hold has opened.
            self.usual_ttl, self.look_at = usual, self.began + LOOK_PAUSE
        else:
            # At once: the kernel's own re-transmission, and the SYN-ACK that answers
            # the peer's SYN, must reach the peer.
            tcp.set_time_to_live(sock, usual)
        return code

    def look(self, now: float) -> None:
        """Undo what `hold` has done to the socket, where it is time for that."""
        if self.sock is None:
            return
        if self.shielded_until <= now:
            tcp.ignore_expiry(self.sock, False)
            self.shielded_until = NEVER
        if self.look_at <= now:
            self.look_at = now + LOOK_PAUSE
            if tcp.state(self.sock) != tcp.SYN_SENT:
                # The SYN-ACK that has died on the way is sent again.
                self.reach_far()

    def reach_far(self) -> None:
        """Let what is sent from now on arrive."""
        if self.usual_ttl and self.sock is not None:
            tcp.set_time_to_live(self.sock, self.usual_ttl)
        self.usual_ttl, self.look_at = 0, NEVER

    def release(self) -> socket.socket | None:
        """Return the socket, which is somebody else's from now on, with the TTL that it has."""
        sock, self.sock = self.sock, None
        self.held, self.shielded_until = False, NEVER
        self.usual_ttl, self.look_at = 0, NEVER
        return sock

    @property
    def fate_now(self) -> Fate:
        """What becomes of it."""
        if self.sock is None:
            return self.fate
        if not tcp.is_stopped_here(self.sock):
            return Fate.PENDING
        # Neither a local firewall that drops what is sent nor a route that is gone ends a connect() that is under way.
        return Fate.FORBIDDEN if source_towards(self.candidate.address) is not None else Fate.UNREACHABLE


def refusing(dials: Collection[Dial]) -> dict[Address, int]:
    """Return the addresses that have refused a dial by the default way, and a port of each at which they have."""
    refused = [dial.candidate for dial in dials if Fate.REFUSED in dial.met]
    return {candidate.address: candidate.far_port for candidate in refused if not candidate.address.interface}


def evidence(dials: Collection[Dial]) -> dict[Candidate, Fate]:
    """Return the fate of each candidate, of all that its dials have met, that tells most about the far end."""
    addresses = {dial.candidate.address for dial in dials}
    absent = {address for address in addresses if not address.own and nobody_has(address)}
    found: dict[Candidate, Fate] = {}
    for dial in dials:
        # Unanswered ARP looks like this machine's own firewall at first, and then like ICMP.
        here = {Fate.ABSENT} if dial.candidate.address in absent else set()
        found[dial.candidate] = most_telling(dial.met | here | {dial.fate_now})
    return found


def fates(dials: Collection[Dial]) -> Counter[Fate]:
    """Count the candidates by what became of the last dial of each."""
    return Counter(dial.fate_now for dial in dials)
