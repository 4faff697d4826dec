"""What --doctor finds, and why a server or a tool is of no help to it.

Sentences with fields are filled in by `str.format`; they are Final as those of
words.usage are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_NEXT_STEP = "next: `punchtunnel PEER` here, and `{command}` on the other machine within two minutes"
_OTHER_PORTS = "use IPv6 or a port mapping; without either, only a peer that is public or has mapped ports can be met"

# What --doctor finds: a sentence, and what to do about it.
FINDINGS: dict[str, tuple[str, str]] = {
    "clock_kept": ("it is {utc} UTC here; this system keeps the clock right, to {error_s:.3f} s", ""),
    "clock_free": (
        "it is {utc} UTC here; nothing is known to keep the clock right",
        "ask a server with --ntp HOST, or compare with the other machine: up to 20 s wrong does no harm",
    ),
    "clock_asked": ("it is {utc} UTC here, {away_s:.3f} s {way} {source}, to {error_s:.3f} s", ""),
    "clock_wrong": (
        "it is {utc} UTC here, {away_s:.3f} s {way} {source}, where 20 s do no harm",
        "set it, or give punchtunnel --clock-offset {offset_s:.1f}",
    ),
    "clock_unanswered": ("it is {utc} UTC here; {source} does not tell the time: {reason}", "ask another server"),
    "route": ("{routes}", ""),
    "route_local": (
        "no default route: only machines in this machine's own networks can be reached",
        "for others, connect this machine to the Internet",
    ),
    "route_missing": ("neither IPv4 nor IPv6 has a default route", "connect this machine to a network"),
    "uplink": ("{ways}", ""),
    "uplinks": ("{ways}: a punch goes out of each", "--bind ADDR or INTERFACE picks one"),
    "unreadable": ("the system does not say", ""),
    "address_public": ("{address} is a public address: no router should translate it", ""),
    "address_private": ("{address} is a private address: a router translates it", ""),
    "address_carrier": (
        "{address} is in 100.64.0.0/10: the provider translates it for many (carrier-grade NAT)",
        "see with --stun whether it keeps ports, and use IPv6 if it does not",
    ),
    "address_self": (
        "{address} is in 169.254.0.0/16: no router has given this machine an address",
        "look at the cable, the wireless network or the router's DHCP",
    ),
    "address_missing": ("there is no IPv4 address to punch from", "use IPv6 on both sides"),
    "ipv6": ("{address}: between two sides that have IPv6 no port need be kept", ""),
    "ipv6_stuck": ("{address}, but no default route for IPv6", "look at the router's settings for IPv6"),
    "ipv6_missing": ("no public IPv6 address", "switch IPv6 on in the router, if the provider has it"),
    "ipv6_silent": (
        "IPv6 has a route, but no answer came by it; {server} answers by IPv4",
        "see in the router whether IPv6 really works; -4 leaves it out",
    ),
    "ports": ("{low}–{high} are kept free of outgoing connections; {taken} of {total} in use", ""),
    "ports_shared": (
        "outgoing connections of this machine use {first}–{last} too; {taken} of the {total} ports {low}–{high} in use",
        "sysctl -w net.ipv4.ip_local_reserved_ports={low}-{high}",
    ),
    "ports_crowded": ("{taken} of the {total} ports {low}–{high} in use", "see by whom with `ss -tanp`"),
    "sharing": ("a listener and dials can share a port (SO_REUSEPORT)", ""),
    "sharing_refused": (
        "a listener and dials cannot share a port: {reason}",
        "run punchtunnel outside of whatever forbids it (a sandbox, a container)",
    ),
    "in_passes": ("this machine lets an unexpected SYN in", ""),
    "in_dropped": (
        "this machine drops an unexpected SYN{family}: punching works as through a router, but a peer whose router "
        "rewrites ports cannot come in",
        "allow TCP from the peer's address to ports {low}–{high}",
    ),
    "in_crossing_dropped": (
        "this machine drops even the SYN that crosses ours{family}: two such sides cannot meet",
        "allow what belongs to a connection of ours (ct state established) before anything is dropped",
    ),
    "in_answers_dropped": (
        "this machine drops even the answer to a SYN of ours{family}",
        "allow what belongs to a connection of ours (ct state established)",
    ),
    "in_depends": (
        "this machine lets some unexpected SYNs in and drops others{family}: its rules depend on more than is known",
        "",
    ),
    "out_passes": ("this machine lets outgoing SYNs pass", ""),
    "out_dropped": ("this machine drops outgoing SYNs{family}", "allow outgoing TCP to ports {low}–{high}"),
    "out_depends": (
        "this machine lets some outgoing SYNs pass and drops others{family}: its rules depend on more than is known",
        "",
    ),
    "firewall_unread": ("the rules cannot be read: {reason}", ""),
    "nat64": ("IPv4 has no route here; IPv4 addresses are dialled through the network's NAT64, {prefix}", ""),
    "nat64_missing": ("IPv4 has no route here, and the name server knows of no NAT64", "use IPv6 on both sides"),
    "seen": ("{server} sees port {port} as {seen}", ""),
    "unseen": ("{server} does not say how it sees us: {reason}", "try another STUN server that talks TCP"),
    "mapping_none": ("nothing is translated", ""),
    "mapping_kept": ("the port is kept, whatever the destination", ""),
    "mapping_kept_once": (
        "the port is kept, at least towards one destination",
        "give --stun a second time, with a server elsewhere",
    ),
    "mapping_kept_first": (
        "the port is kept towards one destination, and rewritten for each further one",
        "give punchtunnel only one PEER address at a time",
    ),
    "mapping_wanders": (
        "the port is kept, but the public address is not the same for each connection",
        "give the peer all the addresses: punchtunnel takes several PEERs",
    ),
    "mapping_rewritten": (
        "the port is rewritten, to the same one for each destination (endpoint-independent mapping)",
        _OTHER_PORTS,
    ),
    "mapping_sequential": (
        "ports are rewritten in a row: {count} connections got {low} to {high} in their order{depends}",
        _OTHER_PORTS,
    ),
    "mapping_window": (
        "ports are rewritten to others that lie close together: {count} connections got {low} to {high}{depends}",
        _OTHER_PORTS,
    ),
    "mapping_random": (
        "ports are rewritten at random: {count} connections got ports between {low} and {high}{depends}",
        _OTHER_PORTS,
    ),
    "mapping_rewritten_once": ("the port is rewritten{depends}", _OTHER_PORTS),
    "public_seen": ("the address as seen from the Internet: {addresses}", ""),
    "public_forwarded": ("the address at which the router forwards ports: {addresses}", ""),
    "public_own": ("the address is public by itself: {addresses}", ""),
    "public_ipv6_only": (
        "{addresses} is public; the IPv4 address as seen from the Internet is not known",
        "give --stun HOST, or look at the router's page",
    ),
    "public_local": ("the address in this machine's own network: {addresses}", ""),
    "public_unknown": (
        "the address as seen from the Internet is not known",
        "give --stun HOST, or look at the router's page",
    ),
    "nat_carrier": (
        "behind the first router comes {hop}, in 100.64.0.0/10: the provider translates a second time",
        "ask the provider for a public address, or use IPv6, if ports are not kept",
    ),
    "nat_private": (
        "behind the first router comes {hop}, a private address: a second NAT is suspected",
        "let one of the two routers bridge only, or use IPv6, if ports are not kept",
    ),
    "nat_single": ("no second NAT among the first routers ({hops})", ""),
    "nat_silent": ("the first routers do not answer", ""),
    "forwards": ("the router forwards a port when it is asked to ({by}): {external} would lead here", ""),
    "forwards_another": (
        "the router forwards a port when it is asked to ({by}), but another one: {external} for {port}",
        "free the port in the router's settings, or forward one by hand and give --port with it",
    ),
    "forwards_inside": (
        "the router forwards a port when it is asked to, but its own address, {address}, is none of the Internet: "
        "another NAT follows",
        "forward a port on both routers and give --port with it, or let one of them bridge only",
    ),
    "forwards_not": (
        "no port is forwarded: {reason}",
        "if your router rewrites ports, switch on UPnP, NAT-PMP or PCP in its settings, or forward a port by hand and "
        "give --port with it",
    ),
    "verdict_mend": ("{sentence}: {remedy}", "next: mend this, and run `punchtunnel --doctor` again"),
    "verdict_local": (
        "punching should work towards machines in this machine's own networks, which need no router; "
        "others cannot be reached",
        _NEXT_STEP,
    ),
    "verdict_public": ("your address {address} is public: punching should work", _NEXT_STEP),
    "verdict_kept": ("your router keeps ports: punching should work", _NEXT_STEP),
    "verdict_rewritten": (
        "your router rewrites ports: use IPv6 or a port mapping",
        "next: `punchtunnel --doctor` on the other machine; if that one is public or has mapped ports, it works: "
        "`punchtunnel PEER` here, and `{command}` there",
    ),
    "verdict_forwarded": (
        "your router forwards a port when it is asked to: punching should work, whatever it does to other ports",
        _NEXT_STEP,
    ),
    "verdict_open": (
        "nothing speaks against punching, but only --stun HOST, given twice, shows whether your router keeps ports",
        _NEXT_STEP,
    ),
}


def finding(name: str, fields: Mapping[str, object]) -> tuple[str, str]:
    """Return the sentence and the remedy of something that --doctor has found."""
    text, remedy = FINDINGS[name]
    return text.format_map(fields), remedy.format_map(fields)


# ---- parts of a sentence

BEHIND: Final = "behind"
AHEAD: Final = "ahead of"
ROUTE: Final = "for IPv{version} by {device}"
THROUGH: Final = " through {gateway}"
UPLINK: Final = "by {interface} from {sources}"
AND: Final = " and "
DEPENDS: Final = ", differently for each destination"
MAYBE_DEPENDS: Final = (
    "; whether the port depends on the destination is not known: give --stun a second time, with a server elsewhere"
)
OF_ONE_FAMILY: Final = " of IPv{version}"

# ---- why the rules of the firewall are not known

NOT_INSTALLED: Final = "{program} is not installed"
ROOT_ONLY: Final = "only root may; run this as root"
TOOL_FAILED: Final = "{program} fails: {reason}"
NOT_UNDERSTOOD: Final = "their form is not known"

# ---- why a server is of no help

ENDED_WITHOUT_ANSWER: Final = "the server has ended the connection without an answer"
NO_STUN_SERVER: Final = "what answers is no STUN server"
STUN_REFUSES: Final = "the STUN server refuses"
STUN_REFUSES_WITH: Final = "the STUN server refuses: {code} {reason}"
NO_SIGHT: Final = "the STUN server does not say from which address it sees us"
CUT_SHORT: Final = "the STUN server's answer is cut short"
UNKNOWN_FAMILY: Final = "the STUN server gives an address of an unknown family"
NO_NTP_SERVER: Final = "what answers is no NTP server"
NO_TIME: Final = "the NTP server does not know the time itself"
