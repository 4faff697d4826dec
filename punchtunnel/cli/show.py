"""The command for the other machine, and the ports and the time that two people compare on the phone.

Nothing is sent unless a STUN server is named; no name of a PEER is looked up, because that
would send a packet too.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from punchtunnel.address import AnyPlace, Peer, Place, is_literal, parse_bind, parse_peer
from punchtunnel.cli.options import SECRET_VARIABLE, Options
from punchtunnel.cli.values import listens_of, service_of, targets_of
from punchtunnel.errors import UsageError
from punchtunnel.protocol import schedule, secret
from punchtunnel.punching.rota import MOST
from punchtunnel.system import clock
from punchtunnel.system.addresses import Address, is_interface, source_towards
from punchtunnel.words import show as words
from punchtunnel.words import usage

# The local port suggested for a privileged port of the target is UNPRIVILEGED more: 22 becomes 2222.
FIRST_UNPRIVILEGED = 1024
UNPRIVILEGED = 2200


@dataclass(frozen=True, slots=True)
class Side:
    """The side on this machine, as far as the other side must fit it.

    Attributes:
        peers: The PEERs, checked.
        bind: --bind, if that is an address.
        seen: The addresses that STUN servers see this machine at.
        channel: --channel.
        wanted: The services that -L and --stdio ask for; "" is what a --to without a name leads to.
        targets: Where --to leads, by the names of services.
        flags: Options that both sides need, as they are written.
        secret: Whether there is one.
        wants_none: Whether the options say that there shall be none.
        interface: --bind, if that is an interface.
        port: --port, or 0.
        via: Whether there is a --via.
        relays: The options that name relays, as they are written.
        saved: The peer is a saved one with a secret, and this machine one there.
    """

    peers: Sequence[str]
    bind: str | None = None
    channel: str = ""
    wanted: Sequence[str] = ()
    targets: Mapping[str, AnyPlace] = field(default_factory=dict)
    flags: Sequence[str] = ()
    secret: bool = False
    wants_none: bool = False
    interface: str = ""
    port: int = 0
    seen: Sequence[str] = ()
    via: bool = False
    relays: Sequence[str] = ()
    saved: bool = False


def side_of(options: Options, seen: Sequence[str] = (), given: Options | None = None) -> Side:
    """Return this machine's side as the options describe it, and as STUN servers see it.

    Args:
        options: With those of a saved peer.
        seen: Addresses of this machine.
        given: Without those: of a saved peer, whose secret is used, that is all that the other side does not have.
    """
    shared = given or options
    flags = {
        "-4": shared.ipv4,
        "-6": shared.ipv6,
        "--plain": shared.plain,
        "--no-secret": shared.no_secret,
        "-z": shared.check,
    }
    return Side(
        peers=[parse_peer(peer).host for peer in options.peers or []],
        port=options.port,
        bind=None if options.bind is None or is_interface(options.bind) else parse_bind(options.bind),
        interface=options.bind if options.bind is not None and is_interface(options.bind) else "",
        channel=shared.channel,
        wanted=_wanted(options),
        targets=targets_of(options),
        flags=[flag for flag, given in flags.items() if given],
        secret=bool(options.secret_file or options.ask_secret or os.environ.get(SECRET_VARIABLE)),
        wants_none=options.plain or options.no_secret,
        seen=seen,
        via=bool(options.via),
        relays=[
            word
            for option, given in (("--meet", shared.meet), ("--relay", shared.relay))
            for place in given or ()
            for word in (option, place)
        ],
        saved=given is not None,
    )


def _wanted(options: Options) -> list[str]:
    """Return what this side asks the other one for, each service once."""
    asked = [service for _, service in listens_of(options)]
    if service_of(options):
        asked.append(service_of(options))
    return list(dict.fromkeys(asked))


def command(side: Side) -> str:
    """Return the line to run on the other machine, with placeholders for what is not known here."""
    options = []
    for service, target in side.targets.items():
        options += ["-L", _port_for(target) + (f"={service}" if service else "")]
    for service in side.wanted:
        options += ["--to", (f"{service}=" if service else "") + words.ANY_TARGET]
    if side.via:
        options += ["--via", words.ANY_COMMAND]
    options += side.relays
    if side.channel:
        options += ["--channel", side.channel]
    if side.saved:
        return words.command([words.NAME], [*options, *side.flags])
    addresses = _own_addresses(side)
    families = {":" in one for one in addresses}
    addresses += [one for one in side.seen if (":" in one) not in families and _is_wanted(one, side)]
    places = [str(Peer(one, side.port)) for one in addresses]
    return words.command(
        places, [*options, *side.flags], side.port, dials=bool(side.peers or not (side.via or side.relays))
    )


def _is_wanted(address: str, side: Side) -> bool:
    """Tell whether the peer can use an address of this machine: two sides meet in one IP version."""
    other = "-4" if ":" in address else "-6"
    return other not in side.flags and any(
        not is_literal(peer) or (":" in peer) == (":" in address) for peer in side.peers or [address]
    )


def hint(side: Side) -> str:
    """Return the line of `command` as a sentence."""
    return words.hint(command(side), side.secret, side.saved)


def page(side: Side, now: float) -> str:
    """Return what --show prints: first of all a fresh secret, if there is none and one is wanted.

    Args:
        side: This machine's side.
        now: Unix time in seconds, corrected by --clock-offset.

    Raises:
        UsageError: The channel's name is not UTF-8.
    """
    try:
        side.channel.encode()
    except UnicodeEncodeError as error:
        raise UsageError(usage.NOT_A_CHANNEL) from error
    families = {":" in peer for peer in side.peers}
    # A name may have several addresses: then only the first of these ports are used.
    counts = schedule.port_counts(min(max(len(side.peers), 1), MOST), max(len(families), 1))
    ports = [
        (
            None if bucket == schedule.CLOCK_FREE else bucket,
            schedule.bucket_ports(side.channel, bucket, counts.ports(bucket)),
        )
        for bucket in schedule.current_buckets(now)
    ]
    exact = words.clock(clock.synchronised(), clock.error_bound_ms())
    lines = [] if side.secret or side.wants_none else words.fresh_secret(secret.fresh(os.urandom))
    lines += words.other_machine(command(side), side.secret, side.saved)
    lines += words.schedule(now, exact, ports, schedule.next_change(now))
    return "\n".join(lines)


def _port_for(target: AnyPlace) -> str:
    """Return the local port that is suggested for a target."""
    if not isinstance(target, Place):
        return "0"
    return str(target.port if target.port >= FIRST_UNPRIVILEGED else UNPRIVILEGED + target.port)


def _own_addresses(side: Side) -> list[str]:
    """Return the addresses at which the peer can reach this machine, as far as this machine knows them itself.

    An address behind a NAT is of no use to the peer.  On one machine, or
    between two addresses of it, both sides have loopback.
    """
    found: dict[str, None] = {}
    for peer in filter(is_literal, side.peers):
        family = socket.AF_INET6 if ":" in peer else socket.AF_INET
        if side.bind is not None and (":" in side.bind) == (":" in peer):
            own: str | None = side.bind
        else:
            own = source_towards(Address(family, peer.partition("%")[0]), side.interface)
        if own is None:
            continue
        address = ipaddress.ip_address(own)
        if address.is_global or address.is_loopback:
            found[own] = None
    return list(found)
