"""What is known of this machine -> what that means for punching: one finding for each check.

    survey.py, asking.py ── facts.py ──> findings ──┐
    sampling.py ───────── facts.Sight ──> sights.py ─┴─> verdict

Rule 1: nothing is guessed: what is not known is UNKNOWN, with the reason.
Rule 2: BAD speaks against punching from here, WARN against some of its ways.
        Only BAD changes the verdict and the exit status.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from punchtunnel.address import is_public
from punchtunnel.doctor.facts import Clock, Facts, Uplink
from punchtunnel.doctor.firewall import ACCEPT, DROP, Packet, fate
from punchtunnel.protocol.schedule import HIGHEST_PORT, LOWEST_PORT
from punchtunnel.system.routes import Route
from punchtunnel.words import doctor as words

# Seconds by which each of the two clocks may be wrong, in opposite directions
# (schedule.py, rule 1).
CLOCK_LIMIT = 20.0
# One port in so many may be in use: a punch has others beside it.
CROWDED = 10
CARRIER = ipaddress.ip_network("100.64.0.0/10")
OWN_CHOICE = ipaddress.ip_network("169.254.0.0/16")
# RFC 1918.  Python's `is_private` has more, also addresses that examples and
# laboratories use as public ones.
PRIVATE = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
UNIQUE_LOCAL = ipaddress.ip_network("fc00::/7")


class Level(StrEnum):
    """What a finding says about punching from here."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report; `name` is its key in words.doctor.FINDINGS, `fields` fill its sentence."""

    check: str
    level: Level
    name: str
    fields: Mapping[str, object] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """What was found."""
        return words.finding(self.name, self.fields)[0]

    @property
    def remedy(self) -> str:
        """What to do about it; "" if there is nothing to do."""
        return words.finding(self.name, self.fields)[1]


RANGE: dict[str, object] = {"low": LOWEST_PORT, "high": HIGHEST_PORT, "total": HIGHEST_PORT - LOWEST_PORT + 1}


def of_clock(clock: Clock) -> Finding:
    """Judge the clock."""
    fields: dict[str, object] = {"utc": datetime.fromtimestamp(clock.now, UTC).strftime("%Y-%m-%d %H:%M:%S")}
    offset_s = clock.offset_s
    if offset_s is None:
        fields |= {"source": clock.source, "reason": clock.reason} if clock.source else {}
        return Finding("clock", Level.UNKNOWN, "clock_unanswered" if clock.source else "clock_free", fields)
    fields["error_s"] = clock.error_s
    if not clock.source:
        return Finding("clock", Level.OK, "clock_kept", fields)
    way = words.BEHIND if offset_s > 0 else words.AHEAD
    fields |= {"source": clock.source, "offset_s": offset_s, "away_s": abs(offset_s), "way": way}
    if abs(offset_s) > CLOCK_LIMIT:
        return Finding("clock", Level.BAD, "clock_wrong", fields)
    return Finding("clock", Level.OK, "clock_asked", fields)


def of_machine(facts: Facts) -> list[Finding]:
    """Judge everything that needs no packet."""
    return [
        _of_routes(facts),
        *_of_uplinks(facts.uplinks or ()),
        _of_address(facts),
        _of_ipv6(facts),
        _of_ports(facts),
        _of_sharing(facts),
        *_of_firewall(facts),
    ]


def _of_routes(facts: Facts) -> Finding:
    if facts.routes is None:
        return Finding("route", Level.UNKNOWN, "unreadable")
    if not facts.routes:
        if facts.address4 or facts.addresses6:
            return Finding("route", Level.WARN, "route_local")
        return Finding("route", Level.BAD, "route_missing")
    routes = "; ".join(
        words.ROUTE.format(version=version, device=route.device)
        + (words.THROUGH.format(gateway=route.gateway) if route.gateway else "")
        for version, route in sorted(facts.routes.items())
    )
    return Finding("route", Level.OK, "route", {"routes": routes})


def _of_uplinks(uplinks: Sequence[Uplink]) -> list[Finding]:
    """Tell which address a punch has at each interface that leads out."""
    ways = "; ".join(
        words.UPLINK.format(interface=one.interface, sources=words.AND.join(one.sources)) for one in uplinks
    )
    if not uplinks:
        return []
    return [Finding("uplinks", Level.OK, "uplinks" if len(uplinks) > 1 else "uplink", {"ways": ways})]


def _of_address(facts: Facts) -> Finding:
    if not facts.address4:
        return Finding("address", Level.WARN, "address_missing")
    address = ipaddress.ip_address(facts.address4)
    fields: dict[str, object] = {"address": facts.address4}
    if address in CARRIER:
        return Finding("address", Level.WARN, "address_carrier", fields)
    if address in OWN_CHOICE:
        return Finding("address", Level.BAD, "address_self", fields)
    return Finding("address", Level.OK, "address_public" if is_public(facts.address4) else "address_private", fields)


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in network for network in PRIVATE)


def public6(facts: Facts) -> str:
    """Return an IPv6 address that others can reach, or ""."""
    found = (one for one in facts.addresses6 or () if ipaddress.ip_address(one) not in UNIQUE_LOCAL)
    return next(found, "")


def _of_ipv6(facts: Facts) -> Finding:
    if facts.addresses6 is None:
        return Finding("ipv6", Level.UNKNOWN, "unreadable")
    if not (address := public6(facts)):
        return Finding("ipv6", Level.WARN, "ipv6_missing")
    if 6 not in (facts.routes or {}):
        return Finding("ipv6", Level.WARN, "ipv6_stuck", {"address": address})
    return Finding("ipv6", Level.OK, "ipv6", {"address": address})


def _of_ports(facts: Facts) -> Finding:
    if facts.ephemeral is None:
        return Finding("ports", Level.UNKNOWN, "unreadable")
    fields = RANGE | {"taken": facts.taken}
    for first, last in facts.ephemeral:
        if first <= HIGHEST_PORT and last >= LOWEST_PORT:
            return Finding("ports", Level.WARN, "ports_shared", fields | {"first": first, "last": last})
    if facts.taken * CROWDED > HIGHEST_PORT - LOWEST_PORT:
        return Finding("ports", Level.WARN, "ports_crowded", fields)
    return Finding("ports", Level.OK, "ports", fields)


def _of_sharing(facts: Facts) -> Finding:
    if facts.sharing:
        return Finding("sharing", Level.BAD, "sharing_refused", {"reason": facts.sharing})
    return Finding("sharing", Level.OK, "sharing")


# ---- the firewall


def _of_firewall(facts: Facts) -> list[Finding]:
    if facts.tables is None:
        reason = {"reason": facts.tables_unread}
        return [Finding(f"firewall {way}", Level.UNKNOWN, "firewall_unread", reason) for way in ("in", "out")]
    return [_of_inward(facts), _of_outward(facts)]


def _of_inward(facts: Facts) -> Finding:
    """Judge what comes in: answers must pass, a SYN that crosses ours should, any other SYN may."""
    asked = (
        ("established", frozenset({"syn", "ack"}), Level.BAD, "in_answers_dropped"),
        ("established", frozenset({"syn"}), Level.WARN, "in_crossing_dropped"),
        ("new", frozenset({"syn"}), Level.WARN, "in_dropped"),
    )
    for state, flags, level, name in asked:
        fates, family = _fate(facts, "input", state, flags)
        if fates == {DROP}:
            return Finding("firewall in", level, name, RANGE | {"family": family})
    if fates == {ACCEPT}:
        return Finding("firewall in", Level.OK, "in_passes")
    return Finding("firewall in", Level.UNKNOWN, "in_depends", {"family": family})


def _of_outward(facts: Facts) -> Finding:
    fates, family = _fate(facts, "output", "new", frozenset({"syn"}))
    if fates == {DROP}:
        return Finding("firewall out", Level.BAD, "out_dropped", RANGE | {"family": family})
    if fates == {ACCEPT}:
        return Finding("firewall out", Level.OK, "out_passes")
    return Finding("firewall out", Level.UNKNOWN, "out_depends", {"family": family})


def _fate(facts: Facts, hook: str, state: str, flags: frozenset[str]) -> tuple[set[str], str]:
    """Return the worst fate of a packet, and " of IPv4" or " of IPv6" if it is only that version's."""
    ports = LOWEST_PORT, HIGHEST_PORT
    fates = {
        version: fate(facts.tables or (), Packet(hook, version, route.device, ports, state, flags))
        for version, route in (facts.routes or {4: Route("")}).items()
    }
    worst = max(fates, key=lambda version: (DROP in fates[version]) + (ACCEPT not in fates[version]))
    alone = any(one != fates[worst] for one in fates.values())
    return fates[worst], words.OF_ONE_FAMILY.format(version=worst) if alone else ""


# ---- what name servers and routers tell


def has_ipv6_only(routes: Mapping[int, Route] | None) -> bool:
    """Tell whether IPv4 may need a NAT64: only IPv6 leads out of this network."""
    return routes is not None and set(routes) == {6}


def of_nat64(prefix: str) -> Finding:
    """Judge what the name server knows of a NAT64; "" is nothing."""
    if not prefix:
        return Finding("nat64", Level.WARN, "nat64_missing")
    return Finding("nat64", Level.OK, "nat64", {"prefix": prefix})


def of_hops(address4: str, hops: Sequence[str]) -> Finding:
    """Judge the first routers on the way; "" stands for one that does not answer."""
    behind = [ipaddress.ip_address(hop) for hop in hops[1:] if hop]
    translated = address4 and _is_private(ipaddress.ip_address(address4))
    for hop in behind:
        if translated and hop in CARRIER:
            return Finding("nat", Level.WARN, "nat_carrier", {"hop": str(hop)})
        if translated and _is_private(hop):
            return Finding("nat", Level.WARN, "nat_private", {"hop": str(hop)})
    if not behind:
        return Finding("nat", Level.UNKNOWN, "nat_silent")
    return Finding("nat", Level.OK, "nat_single", {"hops": ", ".join(hop or "?" for hop in hops)})


# ---- all together


def verdict(findings: Iterable[Finding], command: str) -> Finding:
    """Return the last line: whether punching should work, and what to do next.

    Args:
        findings: All of this machine.
        command: The one to run on the other machine.
    """
    findings = list(findings)
    fields: dict[str, object] = {"command": command}
    for one in findings:
        if one.level is Level.BAD and one.check != "mapping":
            fields |= {"check": one.check, "sentence": one.sentence, "remedy": one.remedy}
            return Finding("verdict", Level.BAD, "verdict_mend", fields)
    if any(one.name == "route_local" for one in findings):
        return Finding("verdict", Level.OK, "verdict_local", fields)
    # In IPv6 ports are seldom rewritten, and what opens a firewall there says nothing of IPv4.
    forwards = any(one.name == "forwards" and one.fields["version"] == 4 for one in findings)
    for one in findings:
        if one.name == "mapping_none":
            return Finding("verdict", Level.OK, "verdict_public", {**fields, **one.fields})
        if one.check == "mapping" and not (one.level is Level.BAD and forwards):
            name = "verdict_rewritten" if one.level is Level.BAD else "verdict_kept"
            return Finding("verdict", Level.BAD if one.level is Level.BAD else Level.OK, name, fields)
    if forwards:
        return Finding("verdict", Level.OK, "verdict_forwarded", fields)
    return Finding("verdict", Level.OK, "verdict_open", fields)
