"""What this machine's own firewall does with the first packets of a punch, by its rules.

    tables (rulesets.py) ──┐
                           ├──> fate ──> {"accept"}, {"drop"}, or both: it depends
    packet ────────────────┘

Nothing can be tried out, because a connection of a machine with itself meets
other rules than one from outside.  So a packet is led through the rules.  A
match that cannot be judged from here (the address of an unknown peer, a
module) is followed both ways, and the answer has the ends of both.

A rule is a list of expressions as nft writes them in JSON (libnftables-json(5)).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

ACCEPT, DROP = "accept", "drop"
# A walk through a chain can also end by `return` or after the last rule, and a
# rule can end without a verdict.
_RETURN, _GO_ON = "return", "go on"
_ANYTHING = frozenset({ACCEPT, DROP, _GO_ON})
_HOOKS = {"input": ("prerouting", "input"), "output": ("output", "postrouting")}
# As many jumps as the kernel follows (NFT_JUMP_STACK_SIZE).
_MAX_DEPTH = 16
_VERDICTS = {ACCEPT, DROP, _RETURN, "reject", "queue", "jump", "goto", "vmap"}
# Statements that neither end a walk nor branch it.
_HARMLESS = {"counter", "log", "notrack", "mangle", "meta", "set", "map", "dup", "secmark", "last"}
_FLAGS = {"fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr"}
_NO_PEERS = ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")

Expression = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet of the punch, from or to some public address.

    Attributes:
        hook: "input" or "output".
        version: The IP version, 4 or 6.
        device: The interface that it arrives or leaves by.
        ports: The lowest and the highest port that either end may have.
        state: "new", or "established" if it belongs to a SYN of ours.
        flags: The TCP flags: a SYN, or a SYN-ACK.
    """

    hook: str
    version: int
    device: str
    ports: tuple[int, int]
    state: str = "new"
    flags: frozenset[str] = frozenset({"syn"})


@dataclass(slots=True)
class Chain:
    """Rules in order; `hook` is "" for a chain that is only jumped to."""

    hook: str = ""
    policy: str = ACCEPT
    rules: list[list[Expression]] = field(default_factory=list)


@dataclass(slots=True)
class Table:
    """The chains and the named sets of one table; `family` is ip, ip6 or inet."""

    family: str
    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, list[Any]] = field(default_factory=dict)


def fate(tables: Sequence[Table], packet: Packet) -> set[str]:
    """Return the possible fates of a packet: {ACCEPT}, {DROP}, or both where it depends."""
    fates = [
        _walk(table, chain, packet, _MAX_DEPTH)
        for table in tables
        if table.family in ("inet", "ip" if packet.version == 4 else "ip6")
        for chain in table.chains.values()
        if chain.hook in _HOOKS[packet.hook]
    ]
    # A packet must pass all chains, so one that surely drops it decides.
    return {DROP} if {DROP} in fates else {ACCEPT}.union(*fates)


def _walk(table: Table, chain: Chain, packet: Packet, depth: int) -> set[str]:
    """Return the possible ends of a walk through a chain."""
    fates: set[str] = set()
    for rule in chain.rules:
        applies, ends = _apply(table, rule, packet, depth)
        if applies is not False:
            fates |= ends - {_GO_ON}
            if applies and _GO_ON not in ends:
                break
    else:
        fates.add(_RETURN)
    if chain.hook and _RETURN in fates:
        fates = (fates - {_RETURN}) | {chain.policy}
    return fates


def _apply(table: Table, rule: Sequence[Expression], packet: Packet, depth: int) -> tuple[bool | None, set[str]]:
    """Return whether a rule applies (None: it depends), and the ways it can end then."""
    applies: bool | None = True
    for expression in rule:
        kind, value = _only(expression)
        if kind in _VERDICTS:
            return applies, _verdict(table, kind, value, packet, depth)
        matches: bool | None = True if kind in _HARMLESS else None
        if kind == "match":
            matches = _matches(table, value, packet)
        elif kind == "limit":
            # A single packet is within any limit.
            matches = not value.get("inv", False)
        if matches is False:
            return False, set()
        applies = applies and matches
    return applies, {_GO_ON}


def _only(expression: Expression) -> tuple[str, Any]:
    """Return the one key of an expression, and its value."""
    return next(iter(expression.items()), ("", None))


def _verdict(table: Table, kind: str, value: Any, packet: Packet, depth: int) -> set[str]:
    if kind in (ACCEPT, DROP, _RETURN):
        return {kind}
    if kind == "reject":
        return {DROP}
    if kind == "vmap":
        return _by_map(table, value, packet, depth)
    chain = table.chains.get(value["target"]) if kind != "queue" else None
    if chain is None or not depth:
        return set(_ANYTHING)
    fates = _walk(table, chain, packet, depth - 1)
    return {_GO_ON if one == _RETURN and kind == "jump" else one for one in fates}


def _by_map(table: Table, value: Expression, packet: Packet, depth: int) -> set[str]:
    """Return the ways a verdict map can end; a named one is not followed."""
    data = value["data"]
    if not isinstance(data, dict):
        return set(_ANYTHING)
    fates: set[str] = set()
    for right, verdict in data["set"]:
        matches = _matches(table, {"op": "==", "left": value["key"], "right": right}, packet)
        if matches is not False:
            kind, target = _only(verdict)
            fates |= {_GO_ON} if kind == "continue" else _verdict(table, kind, target, packet, depth)
        if matches:
            return fates
    return fates | {_GO_ON}


# ---- matches: True, False, or None where it depends


def _matches(table: Table, match: Expression, packet: Packet) -> bool | None:
    left, right = match["left"], match["right"]
    if isinstance(right, str) and right.startswith("@"):
        right = table.sets.get(right[1:])
    elif isinstance(right, dict) and "set" in right:
        right = right["set"]
    if "&" in left:
        answers = {_masked_flags_equal(left["&"], right, packet.flags)}
    else:
        answers = {_equals(left, one, packet) for one in (right if isinstance(right, list) else [right])}
    found = True if True in answers else None if None in answers else False
    return found if found is None or match["op"] != "!=" else not found


def _equals(left: Expression, right: Any, packet: Packet) -> bool | None:
    if isinstance(right, dict) and "elem" in right:
        right = right["elem"]["val"]
    kind, of = _only(left)
    if right is None or not isinstance(of, dict):
        return None
    match kind:
        case "ct" if of.get("key") == "state":
            return bool(right == packet.state)
        case "meta":
            return _meta_equals(str(of.get("key")), right, packet)
        case "payload":
            return _payload_equals(str(of.get("protocol")), str(of.get("field")), right, packet)
        case "fib":
            return _route_equals(of, right, packet)
    return None


def _meta_equals(key: str, right: Any, packet: Packet) -> bool | None:
    match key:
        case "iifname" | "iif" | "oifname" | "oif":
            here = key.startswith("i") == (packet.hook == "input")
            name = str(right)
            same = packet.device.startswith(name[:-1]) if name.endswith("*") else packet.device == name
            return here and same
        case "l4proto":
            return right in ("tcp", 6)
        case "nfproto":
            return bool(right == f"ipv{packet.version}")
    return None


def _payload_equals(protocol: str, name: str, right: Any, packet: Packet) -> bool | None:
    if protocol in ("ip", "ip6"):
        if (protocol == "ip") != (packet.version == 4):
            return False
        if name in ("protocol", "nexthdr"):
            return right in ("tcp", 6)
        is_peer = name == ("saddr" if packet.hook == "input" else "daddr")
        return None if name not in ("saddr", "daddr") or _is_possible(right, is_peer) else False
    if protocol not in ("tcp", "th"):
        return False
    if name in ("dport", "sport"):
        return _has_port(right, packet.ports)
    return right in packet.flags if name == "flags" else None


def _route_equals(of: Expression, right: Any, packet: Packet) -> bool | None:
    """Judge `fib`: a peer's address is unicast and has a route back, and an incoming packet is for us."""
    if of.get("result") == "oif":
        return right is not False and None
    own = "daddr" if packet.hook == "input" else "saddr"
    return bool(right == ("local" if own in of.get("flags", ()) else "unicast"))


def _is_possible(right: Any, is_peer: bool) -> bool:
    """Tell whether an address or a prefix can match: a peer in the Internet (`is_peer`), or ourselves."""
    text = right
    if isinstance(right, dict):
        prefix = right.get("prefix")
        text = f"{prefix['addr']}/{prefix['len']}" if prefix else ""
    try:
        network = ipaddress.ip_network(str(text), strict=False)
    except ValueError:
        return True
    if network.is_multicast:
        return False
    return not (is_peer and any(_is_within(network, text) for text in _NO_PEERS))


def _is_within(network: ipaddress.IPv4Network | ipaddress.IPv6Network, text: str) -> bool:
    block = ipaddress.ip_network(text)
    return network.version == block.version and block.supernet_of(network)  # type: ignore[arg-type]


def _has_port(right: Any, ports: tuple[int, int]) -> bool | None:
    low, high = right["range"] if isinstance(right, dict) and "range" in right else (right, right)
    if not isinstance(low, int) or not isinstance(high, int):
        return None
    if low <= ports[0] and ports[1] <= high:
        return True
    return None if low <= ports[1] and ports[0] <= high else False


def _masked_flags_equal(masked: Any, right: Any, flags: frozenset[str]) -> bool | None:
    """Judge `tcp flags & mask == value`."""
    mask = _names(masked[1]) if isinstance(masked, list) and len(masked) == 2 else set()
    if not mask or not mask | _names(right) <= _FLAGS:
        return None
    return _names(right) == mask & flags


def _names(flags: Any) -> set[str]:
    if isinstance(flags, dict):
        flags = flags.get("|")
    return set(map(str, flags)) if isinstance(flags, list) else {str(flags)}
