"""Router behaviours: every row of the matrix is one line of the table at the end.

    router("openwrt", nat=Nat.MASQUERADE, unsolicited=Unsolicited.RESET, syn_limit=SynLimit.INPUT)

This file only describes; build.py makes namespaces and rules of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .usernat import Depends, Ports, UserNat


class Nat(StrEnum):
    """What the router does to addresses and ports."""

    NONE = "none"
    MASQUERADE = "masquerade"
    # A new random source port for each connection, as pf does by default.
    RANDOM = "random"
    # The same, and IPv6 is translated as well: the address stays, the port does not.
    RANDOM6 = "random, IPv6 too"
    # Masquerade, and all ports that a tool may use are forwarded to the host.
    MAPPED = "mapped"
    # Masquerade, and one port is forwarded to the host.
    FORWARDED = "forwarded"


class Unsolicited(StrEnum):
    """What happens to a packet from outside that belongs to nothing."""

    DROP = "drop"
    RESET = "reset"
    # No filter: the router's own TCP answers with a reset, or with a service.
    ACCEPT = "accept"
    ICMP_PORT = "icmp port-unreachable"
    ICMP_PROHIBITED = "icmp admin-prohibited"
    # The router itself answers on every port: a web interface, a honeypot.
    SERVICE = "service"
    # All is forwarded to another host of the LAN ("DMZ host").
    DMZ_SERVICE = "dmz service"
    DMZ_DROP = "dmz drop"


class SynLimit(StrEnum):
    """25 SYNs a second with a burst of 50: OpenWrt's `syn_flood` chain."""

    NONE = "none"
    # As OpenWrt has it: on SYNs to the router itself.
    INPUT = "input"
    # On every SYN that passes, in either direction.
    ALL = "all"


class Daemon(StrEnum):
    """What the router's port-mapping daemon speaks, and what it allows; see daemon.py."""

    UPNP = "UPnP"
    NATPMP = "NAT-PMP"
    PCP = "PCP"
    ALL = "UPnP, NAT-PMP and PCP"
    # All of them, and every mapping is refused.
    DENIED = "denied"
    # All of them, and no port is allowed from outside that the tool uses.
    OTHER_PORTS = "other ports"


@dataclass(frozen=True, slots=True)
class Router:
    """One box between a host and the internet."""

    nat: Nat
    unsolicited: Unsolicited
    invalid_drop: bool = False
    syn_limit: SynLimit = SynLimit.NONE
    # Seconds that conntrack keeps an unanswered SYN; None is the kernel's 120.
    syn_sent_s: int | None = None
    daemon: Daemon | None = None


# RFC 5737, TEST-NET-2.
DOCUMENTATION4 = "198.51.100"
# miniupnpd maps no port where its outside address is a reserved one, and the ranges for documentation are.
# So such a router has an address that somebody owns; no packet to it ever leaves the namespaces.
ORDINARY4 = "11.0.0"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one end of the matrix is behind: boxes from the outside in, or a userspace NAT."""

    name: str
    routers: tuple[Router, ...] = ()
    usernat: UserNat | None = None
    # Whether the peer sees the host's own source port, and whether the peer may
    # come from a port that the host never dialled: with what becomes of a SYN,
    # all that is needed to say which pairs can meet.
    keeps_port: bool = True
    takes_any_port: bool = False
    takes_bare_syn: bool = True
    # The first three numbers of the site's public addresses.
    network4: str = DOCUMENTATION4

    @property
    def maps_ports(self) -> bool:
        """Tell whether a daemon runs on one of the boxes."""
        return any(box.daemon for box in self.routers)


def router(
    name: str,
    nat: Nat = Nat.MASQUERADE,
    unsolicited: Unsolicited = Unsolicited.DROP,
    *,
    invalid_drop: bool = False,
    syn_limit: SynLimit = SynLimit.NONE,
    syn_sent_s: int | None = None,
) -> Behaviour:
    """Return a row with one box, a Linux router."""
    box = Router(nat, unsolicited, invalid_drop, syn_limit, syn_sent_s)
    return Behaviour(
        name, (box,), keeps_port=nat not in (Nat.RANDOM, Nat.RANDOM6), takes_any_port=nat in (Nat.MAPPED, Nat.FORWARDED)
    )


def mapper(
    name: str, daemon: Daemon, unsolicited: Unsolicited = Unsolicited.DROP, nat: Nat = Nat.MASQUERADE
) -> Behaviour:
    """Return a row with one box, a Linux router on which a port-mapping daemon runs."""
    box = Router(nat, unsolicited, daemon=daemon)
    opens = daemon not in (Daemon.DENIED, Daemon.OTHER_PORTS)
    return Behaviour(name, (box,), keeps_port=nat is not Nat.RANDOM, takes_any_port=opens, network4=ORDINARY4)


def chain(name: str, *boxes: Behaviour) -> Behaviour:
    """Return a row with several boxes behind each other, from the outside in."""
    routers = tuple(box for behaviour in boxes for box in behaviour.routers)
    return Behaviour(name, routers, keeps_port=all(one.keeps_port for one in boxes))


def userspace(name: str, nat: UserNat) -> Behaviour:
    """Return a row whose NAT is usernat.py, because Linux cannot behave like that."""
    return Behaviour(
        name, (), nat, nat.ports is Ports.KEEP, nat.filtering is not Depends.ADDRESS_AND_PORT, not nat.drops_bare_syn
    )  # fmt: skip


def can_meet(left: Behaviour, right: Behaviour) -> bool:
    """Tell whether any algorithm without a third party can open a hole between two rows.

    Each side must be able to name the other's port, or be open to whatever
    port the other comes from; and one of the two must let a first SYN in.
    """
    for one, other in ((left, right), (right, left)):
        if not one.keeps_port and not other.takes_any_port:
            return False
    return left.takes_bare_syn or right.takes_bare_syn


PUBLIC = Behaviour("public", takes_any_port=True)

# The rows and columns of the router-pair block.
PAIR_ROWS = (
    PUBLIC,
    router("drop"),
    router("reset", unsolicited=Unsolicited.RESET),
    router("accept", unsolicited=Unsolicited.ACCEPT),
    router("icmp", unsolicited=Unsolicited.ICMP_PORT),
    router("openwrt", unsolicited=Unsolicited.RESET, syn_limit=SynLimit.INPUT, invalid_drop=True),
    router("firewall drop", nat=Nat.NONE),
    router("firewall reset", nat=Nat.NONE, unsolicited=Unsolicited.RESET),
    chain("double nat", router("carrier", unsolicited=Unsolicited.RESET), router("home")),
    userspace("full cone", UserNat(Depends.NOTHING, Depends.NOTHING)),
    router("mapped", nat=Nat.MAPPED),
    router("random", nat=Nat.RANDOM),
)

# Rows that meet only a few others, in cells of their own.
OTHER_ROWS = (
    router("icmp prohibited", unsolicited=Unsolicited.ICMP_PROHIBITED),
    router("invalid drop", invalid_drop=True),
    router("invalid drop reset", unsolicited=Unsolicited.RESET, invalid_drop=True),
    router("syn limit", unsolicited=Unsolicited.RESET, syn_limit=SynLimit.ALL),
    router("syn limit drop", syn_limit=SynLimit.ALL),
    router("short syn_sent", syn_sent_s=10),
    router("short syn_sent reset", unsolicited=Unsolicited.RESET, syn_sent_s=10),
    router("router accepts", unsolicited=Unsolicited.SERVICE),
    router("stranger accepts", unsolicited=Unsolicited.DMZ_SERVICE),
    router("dmz drops", unsolicited=Unsolicited.DMZ_DROP),
    router("random reset", nat=Nat.RANDOM, unsolicited=Unsolicited.RESET),
    userspace("full cone, hairpins", UserNat(Depends.NOTHING, Depends.NOTHING, hairpins=True)),
    userspace("address and port filter, hairpins", UserNat(Depends.NOTHING, hairpins=True)),
    userspace("nat64", UserNat(nat64=True)),
    userspace("nat64, random ports", UserNat(ports=Ports.RANDOM, nat64=True)),
    userspace("sequential ports", UserNat(ports=Ports.SEQUENTIAL)),
    userspace("port block", UserNat(ports=Ports.BLOCK)),
    userspace("port block of 1008", UserNat(ports=Ports.BLOCK, block=1008)),
    # What a STUN server sees is what everybody may dial: the usual NAT of carriers.
    userspace("same port for each", UserNat(Depends.NOTHING, ports=Ports.RANDOM)),
    userspace("random per destination", UserNat(ports=Ports.RANDOM)),
    userspace("bare SYN dropped", UserNat(drops_bare_syn=True)),
    userspace("RST kills mapping", UserNat(dies_by_rst=True)),
    userspace("ICMP kills mapping", UserNat(dies_by_icmp=True)),
    userspace("forgets in 60 s", UserNat(Depends.NOTHING, idle_s=60)),
    userspace("forgets in 300 s", UserNat(Depends.NOTHING, idle_s=300)),
    userspace("address filter", UserNat(Depends.NOTHING, Depends.ADDRESS)),
    router("random, IPv6 too", nat=Nat.RANDOM6),
    router("one port forwarded", nat=Nat.FORWARDED),
    mapper("mapper", Daemon.ALL),
    mapper("mapper, reset", Daemon.ALL, Unsolicited.RESET),
    mapper("mapper, random", Daemon.ALL, nat=Nat.RANDOM),
    mapper("mapper, UPnP", Daemon.UPNP),
    mapper("mapper, NAT-PMP", Daemon.NATPMP),
    mapper("mapper, PCP", Daemon.PCP),
    mapper("mapper denies", Daemon.DENIED),
    mapper("mapper, other ports", Daemon.OTHER_PORTS),
    # The mapper's own address is not public: it maps nothing.
    chain("mapper behind a carrier", router("carrier", unsolicited=Unsolicited.RESET), mapper("home", Daemon.ALL)),
)

BEHAVIOURS = {row.name: row for row in (*PAIR_ROWS, *OTHER_ROWS)}
