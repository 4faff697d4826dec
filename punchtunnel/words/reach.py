"""Why a router maps no port, or a relay is of no use, and what to try.

Sentences with fields are filled in by `str.format`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# ---- what is no answer

NO_NATPMP: Final = "what answers does not speak NAT-PMP"
NO_PCP: Final = "what answers does not speak PCP"
NO_IGD: Final = "what answers is no UPnP router"
ELSEWHERE: Final = "what answers names a device elsewhere, which is not asked"

# ---- why a router maps nothing; every sentence begins with the router

NOT_ALLOWED: Final = (
    "the router {router} does not allow it ({by}): let this machine open ports in the router's settings"
)
NO_ROOM: Final = "the router {router} has no room for another mapped port ({by}): delete one in its settings"
NOT_SUPPORTED: Final = "the router {router} cannot map TCP ports ({by})"
NO_NETWORK: Final = "the router {router} has no address in the Internet at the moment ({by})"
TRANSLATED: Final = "the router {router} sees this machine at another address ({by}): another NAT lies in between"
REFUSED: Final = "the router {router} refuses ({by}, result {result})"
SHORT_LEASE: Final = "the router {router} maps ports for {seconds} s only ({by}), which is of no use"
WRONG_PORT: Final = "the router {router} offers port {port}, which was not asked for ({by})"
ALL_TAKEN: Final = "the router {router} has given every wanted port to somebody else ({by})"
ONLY_PERMANENT: Final = (
    "the router {router} maps ports only for ever ({by}), which would outlive this program: "
    "forward a port by hand in its settings"
)
FAILED: Final = "the router {router} fails to map a port ({by}): {reason}"

# ---- what a punch meets while it waits

NO_ROUTE: Final = (
    "there is no route to {peer} from here: check the address, and this machine's network; punching goes on meanwhile"
)
NO_NETWORK_HERE: Final = (
    "this machine is in no network: only its loopback has an address; connect it, punching goes on meanwhile"
)
PARTLY_REFUSED: Final = "partly_refused"
REJECTED: Final = "rejected"
# By the causes that punching/diagnosis.py has found, with what docs/EVENTS.md adds.
MET: Final = {
    REJECTED: "the peer was rejected",
    "nobody": "nobody has come",
    "checked": "the path was checked",
    "channel": "another channel there",
    "together": "that is this machine",
    "own_router": "that is this network's router",
    "foreign": "another address calls",
    "rewritten": "ports are rewritten",
    "mute": "another program answers",
    "hung_up": "closed by the far end",
    "next_door": "refused by the own router",
    "refused": "all refused",
    PARTLY_REFUSED: "some refused",
    "starved": "out of descriptors",
    "forbidden": "forbidden by the firewall here",
    "unusable": "ports in use here",
    "absent": "nobody has that address",
    "unreachable": "no route",
    "no_nat64": "no route by IPv4",
    "silent": "no answer",
}

# ---- why nobody was asked

NO_SOCKET: Final = "no router can be asked for a port: {reason}"

# ---- what is wrong with a relay; what follows the colon is one of the others, or a reason of the system

RELAY_FAILS: Final = "no meeting at the relay {relay}: {reason}"
NO_RELAY: Final = "what answers there is no transit relay"
BAD_HANDSHAKE: Final = "it does not understand what it is asked for"
IMPATIENT: Final = "it says that something was sent too early"
RELAY_SILENT: Final = "no connection to it opens"
RELAY_ENDS: Final = "it ends the connection before the peer is there"
MOVE_FAILED: Final = "the direct hole was lost at once: {reason}"
# Why no hole has opened by a relay.
NOT_JOINED: Final = "there was no time to join the relay: wait longer (-w)"


def join(relay: object) -> str:
    """Return what could not be done, for `words.cannot`."""
    return f"join the relay {relay}"


def through(relay: str) -> str:
    """Return what the far end of a relayed connection is called: its address is not known."""
    return f"the peer through the relay {relay}"


def nobody_at(relay: object) -> str:
    """Say that a relay works, and nobody was met there."""
    return (
        f"nobody was met at the relay {relay}: start the other side with the same relay, secret and --channel, and "
        "give both sides roles that fit, as --to and -L"
    )


def met_only(relay: str, why: str) -> str:
    """Say that the peer was met at a relay that must not carry payload, and that there is no direct hole."""
    return (
        f"the peer was met at the relay {relay}, and there is no direct hole; {why or 'there was no time for a try'}; "
        "--relay on both sides lets the relay carry the session"
    )


def no_direct_hole(wait: float, dials: int, met: Mapping[str, int]) -> str:
    """Say that a try by appointment has opened no hole.

    Args:
        wait: Seconds.
        dials: How many were made.
        met: What candidates have met at last, and how many of them; those that have met nothing are left out.
    """
    if not dials:
        return (
            f"in {wait:g} s nobody came: the peer told no address that can be dialled from here, and has not dialled "
            "this side; --stun HOST on both sides tells them how they are seen"
        )
    shown = ", ".join(f"{count} {what}" for what, count in met.items() if count)
    return f"in {wait:g} s {dials} dials, {shown or 'none answered'}"


def ports_rewritten(here: bool, there: bool, compared: bool) -> str:
    """Return what is to follow the reason of a failed try, if a router chooses a new port for each connection.

    Args:
        here: Ours does.
        there: The peer's does.
        compared: Two STUN servers have said so of ours.
    """
    if here and there and not compared:
        return (
            "; as one STUN server sees it, both routers choose a new port for each connection: with a second one "
            "(--stun) on both sides a direct hole may open"
        )
    if here and there:
        return "; both routers choose a new port for each connection, so that no direct hole can open"
    if here or there:
        return f"; the router {'here' if here else 'there'} chooses a new port for each connection"
    return ""


def met_nobody(relay: object, fault: str) -> str:
    """Say that somebody was met at a relay, and it was not the peer.

    Args:
        relay: HOST:PORT.
        fault: What was wrong with the connection, as it follows that word; "" if nothing was.
    """
    return f"somebody was met at the relay {relay}, and the connection {fault or 'fell silent'}"


# ---- the command of --via

START_VIA = "start the command of --via"
# Why no hole has opened by the command of --via.
VIA_NOT_STARTED = "there was no time to start the command of --via: wait longer (-w)"
VIA_SILENT = (
    "nobody said a hello at the other end of the command of --via: start the other side, and see by hand that the "
    "command leads there"
)


def via(name: str) -> str:
    """Return what the far end of a command's connection is called: all that is known of it is the program."""
    return f"{name} (--via)"


def no_hole(wait: float, why: str) -> str:
    """Say that no hole has opened where there is a command or a relay alone; `wait` is seconds."""
    return f"no hole in {wait:g} s: {why}"


def via_ended(status: int, said: str) -> str:
    """Say that the command of --via has ended by itself.

    Args:
        status: Its exit status, or minus the signal.
        said: Its last line on stderr, or "".
    """
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    return f"the command of --via has ended {how}, and no hole was open" + (f": {said}" if said else "")


def via_closed(fault: str) -> str:
    """Say that something came from the command of --via, and no link of it.

    Args:
        fault: What was wrong with the connection, as it follows that word; "" if nothing was.
    """
    return (
        f"the connection by the command of --via {fault or 'fell silent'}: the command must lead to the other side, "
        "with the same --channel there, and write nothing else to stdout"
    )
