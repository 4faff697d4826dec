"""What --doctor makes of what it has seen: nothing is guessed, and only what is bad changes the verdict."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from punchtunnel.doctor import findings, forwarding, sights
from punchtunnel.doctor.facts import Clock, Facts, Uplink
from punchtunnel.doctor.findings import Finding, Level
from punchtunnel.doctor.rulesets import parse_iptables
from punchtunnel.system.routes import Route
from punchtunnel.words import doctor as words

NOW = 1795264454.0
COMMAND = "punchtunnel 203.0.113.1"
ROUTES = {4: Route("eth0", "192.168.1.1")}
WHOLE = Facts(ROUTES, "192.168.1.2", ["2001:db8::2"], [(32768, 60999)], tables=[])


def of(facts: Facts, check: str) -> Finding:
    (finding,) = [one for one in findings.of_machine(facts) if one.check == check]
    return finding


# ---- one check each

CLOCKS: list[tuple[Clock, str, Level, str]] = [
    (Clock(NOW), "clock_free", Level.UNKNOWN, "it is 2026-11-21 12:34:14 UTC here; nothing is known"),
    (Clock(NOW, offset_s=0.0, error_s=0.012), "clock_kept", Level.OK, "this system keeps the clock right, to 0.012 s"),
    (Clock(NOW, "ntp:123", 19.0, 0.01), "clock_asked", Level.OK, "19.000 s behind ntp:123, to 0.010 s"),
    (Clock(NOW, "ntp:123", -0.5, 0.01), "clock_asked", Level.OK, "0.500 s ahead of ntp:123"),
    (Clock(NOW, "ntp:123", -3600.0), "clock_wrong", Level.BAD, "3600.000 s ahead of ntp:123, where 20 s do no harm"),
    (Clock(NOW, "ntp:123", reason="no answer"), "clock_unanswered", Level.UNKNOWN, "does not tell the time: no answer"),
]  # fmt: skip


@pytest.mark.parametrize(("clock", "name", "level", "part"), CLOCKS, ids=[name for _, name, _, _ in CLOCKS])
def test_clock(clock: Clock, name: str, level: Level, part: str) -> None:
    finding = findings.of_clock(clock)
    assert (finding.name, finding.level) == (name, level)
    assert part in finding.sentence


def test_the_offset_to_give_has_the_sign_that_the_option_takes() -> None:
    assert "--clock-offset -3600.0" in findings.of_clock(Clock(NOW, "ntp:123", -3600.0)).remedy


MACHINES: list[tuple[Facts, str, str, Level, str]] = [
    (Facts(), "route", "unreadable", Level.UNKNOWN, ""),
    (Facts({}), "route", "route_missing", Level.BAD, ""),
    (Facts({}, address4="192.168.1.7"), "route", "route_local", Level.WARN, "own networks"),
    (Facts({}, addresses6=["fd00::2"]), "route", "route_local", Level.WARN, "own networks"),
    (Facts(ROUTES), "route", "route", Level.OK, "for IPv4 by eth0 through 192.168.1.1"),
    (Facts({6: Route("wan"), 4: Route("ppp0")}), "route", "route", Level.OK, "for IPv4 by ppp0; for IPv6 by wan"),
    (Facts(uplinks=[Uplink("eth0", ["192.168.1.2", "2001:db8::2"])]), "uplinks", "uplink", Level.OK,
     "by eth0 from 192.168.1.2 and 2001:db8::2"),
    (Facts(uplinks=[Uplink("eth0", ["192.168.1.2"]), Uplink("tun0", ["10.8.0.2"])]), "uplinks", "uplinks", Level.OK,
     "by eth0 from 192.168.1.2; by tun0 from 10.8.0.2: a punch goes out of each"),
    (Facts(), "address", "address_missing", Level.WARN, ""),
    (Facts(address4="203.0.113.9"), "address", "address_public", Level.OK, "203.0.113.9"),
    (Facts(address4="172.31.255.1"), "address", "address_private", Level.OK, ""),
    (Facts(address4="172.32.0.1"), "address", "address_public", Level.OK, ""),
    (Facts(address4="100.64.0.1"), "address", "address_carrier", Level.WARN, "carrier-grade"),
    (Facts(address4="100.128.0.1"), "address", "address_public", Level.OK, ""),
    (Facts(address4="169.254.7.7"), "address", "address_self", Level.BAD, ""),
    (Facts(), "ipv6", "unreadable", Level.UNKNOWN, ""),
    (Facts(addresses6=[]), "ipv6", "ipv6_missing", Level.WARN, ""),
    (Facts(ROUTES, addresses6=["fd00::2"]), "ipv6", "ipv6_missing", Level.WARN, ""),
    (Facts(ROUTES, addresses6=["fd00::2", "2001:db8::2"]), "ipv6", "ipv6_stuck", Level.WARN, "2001:db8::2"),
    (Facts({6: Route("wan")}, addresses6=["2001:db8::2"]), "ipv6", "ipv6", Level.OK, "2001:db8::2"),
    (Facts(), "ports", "unreadable", Level.UNKNOWN, ""),
    (Facts(ephemeral=[(32768, 60999)], taken=7), "ports", "ports", Level.OK, "7 of 22528 in use"),
    (Facts(ephemeral=[(1024, 10239), (32768, 65535)]), "ports", "ports", Level.OK, ""),
    (Facts(ephemeral=[(1024, 65535)]), "ports", "ports_shared", Level.WARN, "use 1024–65535 too"),
    (Facts(ephemeral=[(49152, 65535)], taken=9000), "ports", "ports_crowded", Level.WARN, "9000 of the 22528"),
    (Facts(), "sharing", "sharing", Level.OK, ""),
    (Facts(sharing="Operation not permitted"), "sharing", "sharing_refused", Level.BAD, "Operation not permitted"),
    (Facts(tables_unread="only root may"), "firewall in", "firewall_unread", Level.UNKNOWN, "only root may"),
    (Facts(tables_unread="only root may"), "firewall out", "firewall_unread", Level.UNKNOWN, "only root may"),
    (Facts(tables=[]), "firewall in", "in_passes", Level.OK, ""),
    (Facts(tables=[]), "firewall out", "out_passes", Level.OK, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "check", "name", "level", "part"),
    MACHINES,
    ids=[f"{name} {number}" for number, (_, _, name, _, _) in enumerate(MACHINES)],
)
def test_machine(facts: Facts, check: str, name: str, level: Level, part: str) -> None:
    finding = of(facts, check)
    assert (finding.name, finding.level) == (name, level)
    assert part in finding.sentence


STATEFUL = "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n"
NO_SYN = "-A INPUT -p tcp --tcp-flags SYN,ACK SYN -j DROP\n-A INPUT -j ACCEPT\n"
RULES = [
    ("", "firewall in", "in_answers_dropped", Level.BAD),
    (NO_SYN, "firewall in", "in_crossing_dropped", Level.WARN),
    (STATEFUL, "firewall in", "in_dropped", Level.WARN),
    (STATEFUL + "-A INPUT -s 203.0.113.7 -j ACCEPT\n", "firewall in", "in_depends", Level.UNKNOWN),
    (STATEFUL + "-A INPUT -p tcp -j ACCEPT\n", "firewall in", "in_passes", Level.OK),
    ("-A OUTPUT -p tcp -j REJECT\n", "firewall out", "out_dropped", Level.BAD),
    ("-A OUTPUT -d 203.0.113.7 -j DROP\n", "firewall out", "out_depends", Level.UNKNOWN),
]


@pytest.mark.parametrize(("rules", "check", "name", "level"), RULES, ids=[name for _, _, name, _ in RULES])
def test_firewall(rules: str, check: str, name: str, level: Level) -> None:
    tables = parse_iptables(f"*filter\n:INPUT DROP\n:OUTPUT ACCEPT\n{rules}COMMIT\n", 4)
    finding = of(Facts(ROUTES, tables=tables), check)
    assert (finding.name, finding.level) == (name, level)
    assert "IPv" not in finding.sentence
    both = of(Facts(ROUTES | {6: Route("eth0")}, tables=tables), check)
    assert both.name == name
    assert ("of IPv4" in both.sentence) is (level is not Level.OK)


HOPS = [
    ("192.168.1.2", ["192.168.1.1", "100.64.0.1", ""], "nat_carrier", Level.WARN),
    ("192.168.1.2", ["192.168.1.1", "", "10.0.0.1"], "nat_private", Level.WARN),
    ("192.168.1.2", ["192.168.1.1", "203.0.113.9", ""], "nat_single", Level.OK),
    # A host that is not translated may have any routers.
    ("203.0.113.8", ["10.0.0.1", "10.0.0.2", "100.64.0.1"], "nat_single", Level.OK),
    ("192.168.1.2", ["192.168.1.1", "", ""], "nat_silent", Level.UNKNOWN),
    ("192.168.1.2", [], "nat_silent", Level.UNKNOWN),
]


@pytest.mark.parametrize(("own", "hops", "name", "level"), HOPS)
def test_routers_on_the_way(own: str, hops: list[str], name: str, level: Level) -> None:
    finding = findings.of_hops(own, hops)
    assert (finding.name, finding.level) == (name, level)


# ---- the verdict


def test_without_anything_bad_the_verdict_is_open_until_a_server_is_asked() -> None:
    verdict = findings.verdict(findings.of_machine(WHOLE), COMMAND)
    assert (verdict.name, verdict.level) == ("verdict_open", Level.OK)
    assert f"next: `punchtunnel PEER` here, and `{COMMAND}` on the other machine" in verdict.remedy


def test_a_lan_without_a_way_out_is_enough_for_its_own_machines() -> None:
    """It was "no IPv4 address to punch from", and status 1."""
    verdict = findings.verdict(findings.of_machine(replace(WHOLE, routes={})), COMMAND)
    assert (verdict.name, verdict.level) == ("verdict_local", Level.OK)


def test_what_is_bad_comes_before_what_the_router_does() -> None:
    bad = findings.of_clock(Clock(NOW, "ntp:123", 3600.0))
    verdict = findings.verdict([bad, Finding("mapping", Level.OK, "mapping_kept")], COMMAND)
    assert (verdict.name, verdict.level) == ("verdict_mend", Level.BAD)
    assert bad.sentence in verdict.sentence
    assert bad.remedy in verdict.sentence


# ---- the sentences


@pytest.mark.parametrize(
    ("routes", "only"),
    [(None, False), ({}, False), (ROUTES, False), ({6: Route("wan")}, True), (ROUTES | {6: Route("wan")}, False)],
)
def test_a_nat64_may_be_needed_where_ipv6_alone_leads_out(routes: dict[int, Route] | None, only: bool) -> None:
    assert findings.has_ipv6_only(routes) is only


def test_a_nat64_is_named_and_a_missing_one_costs_the_peers_without_ipv6() -> None:
    found, missing = findings.of_nat64("64:ff9b::/96"), findings.of_nat64("")
    assert (found.level, missing.level) == (Level.OK, Level.WARN)
    assert found.sentence.endswith("NAT64, 64:ff9b::/96")
    assert missing.remedy == "use IPv6 on both sides"


def used_names() -> set[str]:
    trees = [ast.parse(Path(str(module.__file__)).read_text()) for module in (findings, forwarding, sights)]
    return words.FINDINGS.keys() & {
        node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)
    }


def test_every_finding_has_a_sentence_and_every_sentence_a_finding() -> None:
    assert used_names() == words.FINDINGS.keys()


@pytest.mark.parametrize("name", words.FINDINGS)
def test_sentences_are_one_printable_line(name: str) -> None:
    for text in words.FINDINGS[name]:
        assert not text or text.isprintable()
        assert not text.endswith(".")


def test_no_finding_shows_a_field_that_is_missing() -> None:
    everything = [findings.of_clock(clock) for clock, *_ in CLOCKS]
    everything += [of(facts, check) for facts, check, *_ in MACHINES]
    everything += [findings.of_nat64(prefix) for prefix in ("64:ff9b::/96", "")]
    everything += [findings.of_hops(own, hops) for own, hops, *_ in HOPS]
    for finding in [*everything, findings.verdict(everything, COMMAND)]:
        for text in (finding.sentence, finding.remedy):
            # words.fill shows the name and the fields where one is missing.
            assert not text.startswith(finding.name)
            assert "{" not in text
