"""How STUN servers see our ports -> findings, and the address by which others reach this machine."""

from __future__ import annotations

from collections.abc import Sequence

from punchtunnel.address import is_public
from punchtunnel.doctor.facts import Facts, Sight
from punchtunnel.doctor.findings import Finding, Level, public6
from punchtunnel.reach import portclass
from punchtunnel.reach.portclass import Kind, PortUse
from punchtunnel.words import doctor as words

_REWRITTEN = {
    Kind.SEQUENTIAL: "mapping_sequential",
    Kind.WINDOW: "mapping_window",
    Kind.RANDOM: "mapping_random",
    Kind.REWRITTEN: "mapping_rewritten_once",
}
_DEPENDS = {None: words.MAYBE_DEPENDS, False: words.DEPENDS, True: ""}


def of_sights(facts: Facts, sights: Sequence[Sight]) -> list[Finding]:
    """Judge what became of our ports on the way to the STUN servers; [] if none was asked."""
    findings = of_questions(sights)
    told = [sight for sight in sights if sight.seen is not None]
    if server := _reached_by_ipv4_only(sights) if 6 in (facts.routes or {}) else "":
        findings.append(Finding("ipv6", Level.WARN, "ipv6_silent", {"server": server}))
    # IPv4 decides: IPv6 is mostly not translated, and two sides need the same one.
    version = min((sight.version for sight in told), default=0)
    return [*findings, _of_mapping([sight for sight in told if sight.version == version])] if told else findings


def of_questions(sights: Sequence[Sight]) -> list[Finding]:
    """Tell what came of each question; of a server that does not tell, each reason once."""
    findings = [
        Finding(
            "stun",
            Level.OK if sight.seen else Level.UNKNOWN,
            "seen" if sight.seen else "unseen",
            {"server": sight.server, "port": sight.own.port, "seen": str(sight.seen or ""), "reason": sight.reason},
        )
        for sight in sights
    ]
    once = {one.sentence: number for number, one in reversed(list(enumerate(findings)))}
    return [one for number, one in enumerate(findings) if one.name == "seen" or once[one.sentence] == number]


def _reached_by_ipv4_only(sights: Sequence[Sight]) -> str:
    """Return a server that has come to be heard by IPv4, and by IPv6 not at all; "" if there is none, or IPv6 works."""
    if any(sight.version == 6 and not sight.silent for sight in sights):
        return ""
    deaf = {sight.server for sight in sights if sight.version == 6}
    return next((sight.server for sight in sights if sight.version == 4 and sight.seen and sight.server in deaf), "")


def _of_mapping(sights: Sequence[Sight]) -> Finding:
    """Judge the translation; all sights have one IP version and tell how the port is seen."""
    if all(sight.seen == sight.own for sight in sights):
        return Finding("mapping", Level.OK, "mapping_none", {"address": sights[0].own.host})
    samples = [portclass.Sample(sight.own.port, sight.seen.port) for sight in sights if sight.seen]
    use = portclass.classify(samples)
    if use.kind is Kind.PRESERVING:
        return _of_kept(sights, use)
    fields: dict[str, object] = {"kind": use.kind, "low": use.low, "high": use.high, "count": len(samples)}
    if use.kind is Kind.ENDPOINT_INDEPENDENT:
        return Finding("mapping", Level.BAD, "mapping_rewritten", fields)
    return Finding("mapping", Level.BAD, _REWRITTEN[use.kind], fields | {"depends": _DEPENDS[use.independent]})


def _of_kept(sights: Sequence[Sight], use: PortUse) -> Finding:
    """Judge a router that keeps ports: whether each further destination sees the same address and port."""
    if use.independent is False:
        return Finding("mapping", Level.WARN, "mapping_kept_first")
    if len({sight.seen.host for sight in sights if sight.seen}) > 1:
        return Finding("mapping", Level.WARN, "mapping_wanders")
    return Finding("mapping", Level.OK, "mapping_kept" if use.independent else "mapping_kept_once")


# ---- the address for the other machine


def addresses(facts: Facts, sights: Sequence[Sight] = (), forwarded: Sequence[str] = ()) -> list[str]:
    """Return the addresses by which others reach this machine, as seen from the Internet or public by themselves.

    Args:
        facts: Of this machine.  Without a route to the Internet, its own networks count.
        sights: What STUN servers have seen; an IP version that they were asked in without
            an answer has no address.
        forwarded: The addresses at which a router forwards ports to this machine.
    """
    if facts.routes is not None and not facts.routes:
        return [facts.address4] if facts.address4 else list(facts.addresses6 or ())[:1]
    found = seen_addresses(sights)
    found += [one for one in forwarded if not any((":" in one) == (":" in other) for other in found)]
    asked = {sight.version for sight in sights if not sight.seen} - {sight.version for sight in sights if sight.seen}
    if not any(":" not in one for one in found) and facts.address4 and is_public(facts.address4) and 4 not in asked:
        found.insert(0, facts.address4)
    own6 = public6(facts) if 6 in (facts.routes or {}) else ""
    if own6 and not any(":" in one for one in found) and 6 not in asked:
        found.append(own6)
    return found


def seen_addresses(sights: Sequence[Sight]) -> list[str]:
    """Return the public addresses that STUN servers see this machine at, IPv4 first."""
    seen = dict.fromkeys(sight.seen.host for sight in sights if sight.seen is not None)
    return sorted(filter(is_public, seen), key=lambda host: ":" in host)


def of_addresses(facts: Facts, sights: Sequence[Sight], forwarded: Sequence[str] = ()) -> Finding:
    """Tell the public address, and how to learn it if it is not known; the arguments are those of `addresses`."""
    found = addresses(facts, sights, forwarded)
    fields = {"addresses": words.AND.join(found)}
    if facts.routes is not None and not facts.routes and found:
        return Finding("public", Level.OK, "public_local", fields)
    if seen_addresses(sights):
        return Finding("public", Level.OK, "public_seen", fields)
    if any(":" not in one for one in forwarded):
        return Finding("public", Level.OK, "public_forwarded", fields)
    if not found:
        return Finding("public", Level.UNKNOWN, "public_unknown")
    if facts.address4 in found or not facts.address4:
        return Finding("public", Level.OK, "public_own", fields)
    return Finding("public", Level.UNKNOWN, "public_ipv6_only", fields)
