"""What one address of this machine asks of a router, in either protocol: datagrams only."""

from __future__ import annotations

import socket

from punchtunnel.address import Place
from punchtunnel.reach import natpmp, pcp
from punchtunnel.reach.lease import LEASE, Lease
from punchtunnel.words import reach as words

PCP, NAT_PMP = "PCP", "NAT-PMP"
_REFUSALS = {PCP: pcp.REFUSALS, NAT_PMP: natpmp.REFUSALS}


class Requests:
    """Makes datagrams for one own address.

    Args:
        family: Of the address.
        own: The address.
        key: Secret; each port's nonce is made of it, so that only its owner renews or deletes a mapping.
    """

    def __init__(self, family: socket.AddressFamily, own: str, key: bytes) -> None:
        self._own, self._key = own, key
        self._any = "::" if family == socket.AF_INET6 else "0.0.0.0"

    def by_pcp(self, own_port: int) -> bytes:
        """Ask for a mapping whose external port is the same."""
        return self._map(own_port, Place(self._any, own_port), LEASE)

    def renewal(self, by: str, lease: Lease) -> list[bytes]:
        """Ask for what was granted once more; NAT-PMP tells the router's address apart from that."""
        if by == NAT_PMP:
            wish = natpmp.ask_mapping(lease.own_port, lease.external.port, LEASE)
            return [natpmp.ask_address(), wish]
        return [self._map(lease.own_port, lease.external, LEASE)]

    def look(self, by: str) -> bytes:
        """Ask for the age of the router's table, and for nothing else."""
        return natpmp.ask_address() if by == NAT_PMP else pcp.ask_epoch(self._own)

    def deletion(self, by: str, own_port: int) -> bytes:
        """Take a mapping back; before it is known `by` what the router maps, PCP alone can have made one."""
        if by == NAT_PMP:
            return natpmp.ask_mapping(own_port, 0, 0)
        return self._map(own_port, Place(self._any, 0), 0)

    def nonce(self, own_port: int) -> bytes:
        """Return what only this machine's requests for the port have in them."""
        # Imported now: most runs have no router that maps ports.
        import hmac

        return hmac.digest(self._key, f"pcp {self._own} {own_port}".encode(), "sha256")[: pcp.NONCE_SIZE]

    def _map(self, own_port: int, external: Place, lifetime: int) -> bytes:
        return pcp.ask_mapping(self._own, self.nonce(own_port), own_port, external, lifetime)


def refusal(by: str, result: int, router: str) -> str:
    """Return the sentence for a result other than 0."""
    return _REFUSALS[by].get(result, words.REFUSED).format(router=router, by=by, result=result)
