"""What happens to a session while it runs: the table's words, and the shell lines that make it so.  Pure.

An incident begins `after_s` after both ends have said `awaits` since the last
one began; it is over after `lasts_s`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import StrEnum

from . import daemon
from .internet import DEVICE

BOTH = ("left", "right")
ONE_SIDE = ("right",)


class Kind(StrEnum):
    """What happens."""

    DARK = "nothing passes"
    DARK4 = "no IPv4 passes any more"
    FLUSH = "the table of connections is empty"
    REBOOT = "nothing passes, and rules and table of connections are gone"
    CUT = "every TCP packet is answered with a reset"
    MOVE = "the public address is another one"
    STOP = "the process stands still"
    KILL = "the process is killed"
    RESTART = "the process is killed, and another one started"
    RELAY_GOES = "the relay is killed"
    RELAY_STARTS_ANEW = "the relay is killed, and another one is started later"
    FORGET = "the router's port-mapping daemon has forgotten everything"


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happens to some sides at once."""

    kind: Kind
    sides: tuple[str, ...] = BOTH
    lasts_s: float = 0.0
    awaits: str = "link_up"
    after_s: float = 0.5
    # Not both ends, but the first one, has to have said it.
    by_any: bool = False
    # Happens to the same sides in the middle of it, and is over at once.
    meanwhile: Kind | None = None


# NETLINK_NETFILTER, and a request to delete (IPCTNL_MSG_CT_DELETE) everything: conntrack -F.
_FLUSH = (
    "import socket, struct; netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12); "
    "netlink.send(struct.pack('=IHHIIBBH', 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0)); "
    "raise SystemExit(struct.unpack_from('=i', netlink.recv(4096), 16)[0])"
)
FLUSH = f'{sys.executable} -c "{_FLUSH}"'
_DARK = "table inet dark { chain everything { type filter hook prerouting priority -400; drop; }; }"
_DARK4 = _DARK.replace("inet", "ip")
_RESET = "type filter hook forward priority -10; meta l4proto tcp reject with tcp reset"
_CUT = f"table inet cut {{ chain everything {{ {_RESET}; }}; }}"


def begin(kind: Kind, router: str, keep: str, old: str, new: str) -> list[str]:
    """Return the shell lines for a router.

    Args:
        kind: What happens.
        router: Its namespace.
        keep: A file's name for what is needed at the end.
        old: Its public address.
        new: Another one.
    """
    match kind:
        case Kind.DARK:
            return [f"nft '{_DARK}'"]
        case Kind.DARK4:
            return [f"nft '{_DARK4}'"]
        case Kind.FLUSH:
            return [FLUSH]
        case Kind.REBOOT:
            return [f"nft list ruleset > {keep}", f"nft 'flush ruleset; {_DARK}'", FLUSH]
        case Kind.CUT:
            return [f"nft '{_CUT}'"]
        case Kind.MOVE:
            # The kernel forgets what was masqueraded as an address that goes; with the last one the routes would go.
            return [f"ip addr add {new}/32 dev {DEVICE}", f"ip addr del {old}/32 dev {DEVICE}"]
        case Kind.FORGET:
            return [daemon.forget(router)]
        case _:
            return []


def end(kind: Kind, keep: str) -> list[str]:
    """Return the shell lines that make an end of it."""
    match kind:
        case Kind.DARK:
            return ["nft delete table inet dark"]
        case Kind.REBOOT:
            return [FLUSH, "nft flush ruleset", f"nft -f {keep}", f"rm {keep}"]
        case Kind.CUT:
            return ["nft delete table inet cut"]
        case _:
            return []
