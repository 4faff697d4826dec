"""The dial of one candidate, and what all dials together tell of the far end."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from punchtunnel.punching.candidates import Candidate, Fate, most_telling
from punchtunnel.punching.strategy import NEVER
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address, source_towards
from punchtunnel.system.neighbours import nobody_has


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
    """

    candidate: Candidate
    due: float
    fate: Fate = Fate.UNTRIED
    met: set[Fate] = field(default_factory=set)
    sock: socket.socket | None = None
    began: float = 0.0
    held: bool = False
    shielded_until: float = NEVER

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
