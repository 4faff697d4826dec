"""One mapping of a router's, and when it is renewed: pure."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from punchtunnel.address import Place

# Seconds.  A run that is killed leaves its mappings so long: RFC 6887 §15 wants at least 120, and renewals are cheap.
LEASE = 600
# A router that gives less would be asked all the time; one that gives more is asked as if it gave this.
SHORTEST_LEASE, LONGEST_LEASE = 30, 3600
# RFC 6887 §11.2.1: seconds between two renewals, at least.
CLOSEST_RENEWALS = 4.0


@dataclass(slots=True)
class Lease:
    """A mapping that leads from a place of the router's to a port of ours.

    Attributes:
        own_port: Of this machine.
        external: Of the router.
        granted_at: When it was, on the caller's clock.
        lifetime: Seconds from then on.
        renew_at: When the router is to be asked next.
        renewals: How often it was, since it was granted.
        lost: The router was started anew, and has forgotten it.
    """

    own_port: int
    external: Place
    granted_at: float = 0.0
    lifetime: int = 0
    renew_at: float = 0.0
    renewals: int = 0
    lost: bool = False

    @property
    def expires_at(self) -> float:
        """When the router forgets it, if it is not renewed."""
        return self.granted_at + self.lifetime

    def grant(self, external: Place, lifetime: int, now: float, rng: Random) -> None:
        """Take what the router has given, for `lifetime` seconds from now."""
        self.external, self.granted_at, self.lifetime = external, now, min(lifetime, LONGEST_LEASE)
        self.renewals, self.lost = 0, False
        self.plan(now, rng)

    def plan(self, now: float, rng: Random) -> None:
        """Decide when the next renewal is sent (RFC 6887 §11.2.1): between 1/2 and 5/8, 3/4 and 13/16, and so on."""
        late = 1 - 0.5 ** (self.renewals + 1) + rng.random() * 0.5 ** (self.renewals + 3)
        wished = now if self.lost else self.granted_at + self.lifetime * late
        self.renew_at = max(wished, now + CLOSEST_RENEWALS)
