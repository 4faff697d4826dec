"""The printed rules of nftables and iptables -> tables that firewall.py can judge.

A rule of iptables is translated into the form of nft.  An option that is not
known here becomes {"xt": option}, which is judged as "it depends".
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

from punchtunnel.doctor.firewall import Chain, Expression, Table

_FAMILIES = {"ip", "ip6", "inet"}
# Tables of iptables whose chains can drop.
_FILTERS = {"raw", "mangle", "filter"}
# Targets that neither end a walk nor branch it.
_HARMLESS_TARGETS = {"LOG", "NFLOG", "MARK", "CONNMARK", "CT", "NOTRACK", "TRACE", "TCPMSS", "TTL", "HL", "DSCP"}
_TARGETS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return", "NFQUEUE": "queue"}


def parse_nft(text: str) -> list[Table]:
    """Read what `nft -j list ruleset` prints.

    Raises:
        ValueError: It is something else.
    """
    tables: dict[tuple[str, str], Table] = {}
    try:
        for item in json.loads(text)["nftables"]:
            ((kind, thing),) = item.items()
            if kind in ("chain", "set", "rule") and thing["family"] in _FAMILIES:
                place = thing["family"], thing["table"]
                _add(tables.setdefault(place, Table(thing["family"])), kind, thing)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(text) from error
    return list(tables.values())


def _add(table: Table, kind: str, thing: dict[str, Any]) -> None:
    if kind == "chain":
        hook = thing["hook"] if thing.get("type") == "filter" else ""
        table.chains[thing["name"]] = Chain(hook, thing.get("policy", "accept"))
    elif kind == "set":
        table.sets[thing["name"]] = thing.get("elem", [])
    else:
        table.chains[thing["chain"]].rules.append([one for one in thing["expr"] if isinstance(one, dict)])


def is_of_iptables(table: Table) -> bool:
    """Tell whether iptables has made these rules, of which nft then shows only a part."""
    return any("xt" in expression for chain in table.chains.values() for rule in chain.rules for expression in rule)


def parse_iptables(text: str, version: int) -> list[Table]:
    """Read what `iptables-save` (version 4) or `ip6tables-save` (version 6) prints.

    Raises:
        ValueError: It is something else.
    """
    tables: list[Table] = []
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if not words or words == ["COMMIT"]:
            continue
        if words[0].startswith("*"):
            judged = words[0][1:] in _FILTERS
            tables.append(Table("ip" if version == 4 else "ip6"))
        elif tables and words[0].startswith(":") and len(words) > 1:
            # A chain that the user has made has "-" as its policy.
            hook = words[0][1:].lower() if judged and words[1] != "-" else ""
            tables[-1].chains[words[0][1:]] = Chain(hook, words[1].lower())
        elif tables and words[0] == "-A" and words[1:2] and words[1] in tables[-1].chains:
            rule = list(_expressions(words[2:], tables[-1], version))
            tables[-1].chains[words[1]].rules.append(rule)
        else:
            raise ValueError(line)
    return tables


def _expressions(words: list[str], table: Table, version: int) -> Iterator[Expression]:
    """Yield the options of one rule as expressions of nft."""
    while words:
        op = "=="
        if words[0] == "!":
            op, words = "!=", words[1:]
        option, *words = words
        # The values of an option end where the next option begins.
        count = next((at for at, word in enumerate(words) if word.startswith("-") or word == "!"), len(words))
        values, words = words[:count], words[count:]
        if option in ("-j", "-g"):
            # Only the target's own options come after it.
            yield from _target(option, values[0] if values else "", table)
            return
        if option in ("-m", "--comment"):
            continue
        left, right = _match(option, values, version)
        yield {"match": {"op": op, "left": left, "right": right}} if left else {"xt": option}


def _target(option: str, name: str, table: Table) -> Iterator[Expression]:
    if name in _TARGETS:
        yield {_TARGETS[name]: None}
    elif name in table.chains:
        yield {"goto" if option == "-g" else "jump": {"target": name}}
    elif name and name not in _HARMLESS_TARGETS:
        yield {"xt": name}


def _match(option: str, values: list[str], version: int) -> tuple[Expression, Any]:
    """Return both sides of a match; the left one is empty if the option is not known."""
    if not values:
        return {}, None
    value = values[0]
    match option:
        case "-i" | "-o":
            return {"meta": {"key": f"{option[1]}ifname"}}, value.replace("+", "*")
        case "-p":
            return {"meta": {"key": "l4proto"}}, value
        case "-s" | "-d":
            return {"payload": {"protocol": "ip" if version == 4 else "ip6", "field": f"{option[1]}addr"}}, value
        case "--dport" | "--sport" | "--dports" | "--sports":
            ports = [_port(one) for one in value.split(",")]
            return {"payload": {"protocol": "tcp", "field": option[2:7]}}, ports
        case "--ctstate" | "--state":
            return {"ct": {"key": "state"}}, value.lower().split(",")
        case "--src-type" | "--dst-type":
            return {"fib": {"result": "type", "flags": [f"{option[2]}addr"]}}, value.lower()
        case "--tcp-flags" if len(values) == 2:
            return {"&": ["tcp flags", value.lower().split(",")]}, values[1].lower().split(",")
    return {}, None


def _port(text: str) -> Any:
    low, colon, high = text.partition(":")
    return {"range": [int(low or 0), int(high or (65535 if colon else low))]}
