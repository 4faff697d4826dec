"""A pair of table rows -> a scene: namespaces, links, addresses and rules, as text.

    site 1 "left"      198.51.100.10   2001:db8:1:1::2
    site 2 "right"     198.51.100.20   2001:db8:2:1::2
    site 3 "stranger"  198.51.100.30   2001:db8:3:1::2
    site 4 "relay"     198.51.100.40   2001:db8:4:1::2

Behind a NAT every host is 192.168.1.2, on both sides, as in real homes; a
second host of a LAN is 192.168.1.3.  IPv6 is never translated: there the same
boxes are stateful firewalls.

Pure: run.py gives `links` to `ip -batch` and each script to a shell inside its
namespace.  Every link is point to point (a /32 and a route), so that no bridge
is needed for a LAN of several hosts.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from punchtunnel.punching.nat64 import ONLY_IPV4, embedded

from . import daemon
from .internet import DEVICE, Site
from .topology import DOCUMENTATION4, PUBLIC, Behaviour, Daemon, Nat, Router, SynLimit, Unsolicited, router
from .usernat import PREFIX

SITE_NUMBERS = {"left": 1, "right": 2, "stranger": 3, "relay": 4}
# Where a router or DMZ host that accepts everything listens; see actors.py.
SERVICE_PORT = 9
# What a user forwards who does not know the ports beforehand, and who has chosen one.
MAPPED_PORTS = "1024-65535"
FORWARDED_PORT = 40022
SYN_COUNTER = "syns"
UDP_COUNTER = "datagrams"
# An IPv4 address that ONLY_IPV4 has everywhere (RFC 7050).
ONE_OF_ONLY_IPV4 = "192.0.0.170"
BARE_SYN = "tcp flags & (fin|syn|rst|ack) == syn"

# DAD would keep new IPv6 addresses unusable for a second; a reverse-path
# filter would drop what the one-armed point-to-point links carry.
_PROLOGUE = """\
for file in /proc/sys/net/ipv6/conf/*/dad_transmits; do echo 0 > $file; done
for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $file; done
ip link set lo up
"""

_REFUSALS = {
    Unsolicited.DROP: "drop",
    Unsolicited.RESET: "meta l4proto tcp reject with tcp reset",
    Unsolicited.ACCEPT: "accept",
    Unsolicited.ICMP_PORT: "reject with icmpx type port-unreachable",
    Unsolicited.ICMP_PROHIBITED: "reject with icmpx type admin-prohibited",
    Unsolicited.SERVICE: "accept",
    Unsolicited.DMZ_SERVICE: "drop",
    Unsolicited.DMZ_DROP: "drop",
}


@dataclass(frozen=True, slots=True)
class Host:
    """A machine that programs run on; `dial4` and `dial6` are how others reach it."""

    namespace: str
    dial4: str
    dial6: str


@dataclass(slots=True)
class Scene:
    """All that one run of a cell needs from the kernel."""

    prefix: str
    links: list[str] = field(default_factory=list)
    scripts: dict[str, str] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    # Namespaces in which every port must be answered by the service actor.
    services: list[str] = field(default_factory=list)
    # Routers with a port-mapping daemon, and what it speaks.
    daemons: list[tuple[str, Daemon]] = field(default_factory=list)
    # Where a relay runs, or "", and at which addresses there is a STUN server beside it.
    relay: str = ""
    stuns: tuple[str, ...] = ()
    sites: list[Site] = field(default_factory=list)
    # What name servers would say in a namespace: lines for its /etc/hosts.
    names: dict[str, str] = field(default_factory=dict)

    @property
    def namespaces(self) -> list[str]:
        """All namespaces of this scene."""
        return list(self.scripts)

    def add_namespace(self, name: str) -> str:
        """Plan a namespace; `name` is unique in this scene."""
        namespace = f"{self.prefix}-{name}"
        self.links.append(f"netns add {namespace}")
        self.scripts[namespace] = _PROLOGUE
        return namespace

    def add_veth(self, one: str, one_device: str, other: str, other_device: str) -> None:
        """Plan a cable between two namespaces."""
        self.links.append(f"link add name {one_device} netns {one} type veth peer name {other_device} netns {other}")

    def configure(self, namespace: str, *lines: str) -> None:
        """Add shell lines to the script of one namespace."""
        self.scripts[namespace] += "".join(line + "\n" for line in lines)


def internet_scene(prefix: str, left: Behaviour, right: Behaviour, *, stranger: bool, neighbours: bool) -> Scene:
    """Return two sites, each behind its behaviour, and a public stranger if asked for.

    Args:
        prefix: Names of namespaces begin with it: unique in this laboratory.
        left: What the left host is behind.
        right: What the right host is behind.
        stranger: Whether a third, public host is needed.
        neighbours: Whether the left LAN needs a second host.
    """
    scene = Scene(prefix)
    _add_site(scene, "left", left, neighbours)
    _add_site(scene, "right", right, False)
    if stranger:
        _add_site(scene, "stranger", PUBLIC, False)
    return scene


def add_relay(scene: Scene, *, runs: bool = True, second4: str = "") -> None:
    """Give the internet a machine for a relay, on which one runs or not, and another address of IPv4 if it is to."""
    _add_site(scene, "relay", PUBLIC, False)
    host = scene.hosts["relay"]
    scene.stuns = (host.dial4, host.dial6)
    if second4:
        scene.configure(host.namespace, f"ip addr add {second4}/32 dev {DEVICE}")
        scene.stuns += (second4,)
    scene.relay = scene.hosts["relay"].namespace if runs else ""


def router_scene(prefix: str, behaviour: Behaviour) -> Scene:
    """Return two hosts behind one router, each of which is dialled at its public address."""
    scene = Scene(prefix)
    if behaviour.usernat is None:
        _add_site(scene, "left", behaviour, True)
    else:
        number = SITE_NUMBERS["left"]
        dial4, gateway6 = f"{DOCUMENTATION4}.{number}0", f"2001:db8:{number}:f::1"
        edge = scene.add_namespace("left-box")
        scene.configure(edge, *tun_lines("192.168.1.254", gateway6), "echo 1 > /proc/sys/net/ipv4/ip_forward")
        namespace = scene.add_namespace("left-host")
        scene.configure(namespace, _count_syns())
        scene.hosts["left"] = Host(namespace, dial4, f"2001:db8:{number}:1::2")
        _add_lan(scene, "left", edge, router("", unsolicited=Unsolicited.ACCEPT).routers[0], True)
        scene.sites.append(Site("left", edge, (dial4, gateway6), behaviour.usernat))
    other = scene.hosts.pop("left neighbour")
    scene.configure(other.namespace, _count_syns())
    scene.hosts["right"] = Host(other.namespace, scene.hosts["left"].dial4, other.dial6)
    return scene


def lan_scene(prefix: str) -> Scene:
    """Return two hosts on one cable."""
    scene = Scene(prefix)
    names = {"left": 2, "right": 3}
    for name, number in names.items():
        namespace = scene.add_namespace(name)
        scene.configure(namespace, "ip link set eth0 up", f"ip addr add 192.168.1.{number}/24 dev eth0")
        scene.configure(namespace, f"ip addr add fd00::{number}/64 dev eth0 nodad", _count_syns())
        scene.hosts[name] = Host(namespace, f"192.168.1.{number}", f"fd00::{number}")
    scene.add_veth(scene.hosts["left"].namespace, "eth0", scene.hosts["right"].namespace, "eth0")
    return scene


def host_scene(prefix: str, *, loopback: bool) -> Scene:
    """Return one machine that both ends run on, dialled at its loopback or its own address."""
    scene = Scene(prefix)
    namespace = scene.add_namespace("both")
    scene.configure(namespace, "ip addr add 192.168.1.2/32 dev lo", "ip addr add fd00::2/128 dev lo", _count_syns())
    host = Host(namespace, "127.0.0.1", "::1") if loopback else Host(namespace, "192.168.1.2", "fd00::2")
    scene.hosts = {"left": host, "right": host}
    return scene


def _add_site(scene: Scene, name: str, behaviour: Behaviour, neighbour: bool) -> None:
    number = SITE_NUMBERS[name]
    dial4, dial6 = f"{behaviour.network4}.{number}0", f"2001:db8:{number}:1::2"
    own4, own6 = f"{behaviour.network4}.{number}1", f"2001:db8:{number}:f::1"
    namespace = scene.add_namespace(f"{name}-host")
    scene.configure(namespace, _count_syns())
    scene.hosts[name] = Host(namespace, dial4, dial6)
    edge = _add_boxes(scene, name, behaviour, neighbour) if behaviour.routers else namespace
    addresses = (dial4, dial6, own4, own6, f"2001:db8:{number}:1::3", moved4(dial4))
    scene.sites.append(Site(name, edge, addresses, behaviour.usernat))
    if not behaviour.routers:
        inside4 = "192.168.1.2" if behaviour.usernat else dial4
        scene.configure(edge, *tun_lines(inside4, dial6))
        if behaviour.usernat and behaviour.usernat.nat64:
            scene.configure(edge, *without_ipv4(DEVICE))
            scene.names[edge] = f"{embedded(ONE_OF_ONLY_IPV4, PREFIX)} {ONLY_IPV4}\n"


def _add_boxes(scene: Scene, name: str, behaviour: Behaviour, neighbour: bool) -> str:
    """Add the routers of one site and its LAN; return the namespace of the outermost."""
    number, boxes = SITE_NUMBERS[name], behaviour.routers
    spaces = [scene.add_namespace(f"{name}-box{level}") for level in range(len(boxes))]
    outside4 = f"{behaviour.network4}.{number}{1 if boxes[0].nat is Nat.NONE else 0}"
    scene.configure(spaces[0], *tun_lines(outside4, f"2001:db8:{number}:f::1"))
    for level in range(1, len(boxes)):
        outer, inner = spaces[level - 1], spaces[level]
        scene.add_veth(outer, "lan", inner, DEVICE)
        link6 = f"2001:db8:{number}:f{level}"
        up, down = (f"100.64.{level}.1", f"{link6}::1"), (f"100.64.{level}.2", f"{link6}::2")
        scene.configure(outer, *gateway_lines("lan", *up, *down))
        scene.configure(outer, f"ip -6 route add 2001:db8:{number}:1::/64 via {link6}::2")
        scene.configure(inner, *host_lines(DEVICE, *down, *up))
    for box, space in zip(boxes, spaces, strict=True):
        scene.configure(space, *box_lines(box, f"2001:db8:{number}:1::2"))
        if box.daemon is not None:
            scene.daemons.append((space, box.daemon))
        if box.unsolicited is Unsolicited.SERVICE:
            scene.services.append(space)
    _add_lan(scene, name, spaces[-1], boxes[-1], neighbour)
    return spaces[0]


def _add_lan(scene: Scene, name: str, router: str, box: Router, neighbour: bool) -> None:
    number = SITE_NUMBERS[name]
    dmz = box.unsolicited in (Unsolicited.DMZ_SERVICE, Unsolicited.DMZ_DROP)
    lan = {"host": f"{DOCUMENTATION4}.{number}0" if box.nat is Nat.NONE else "192.168.1.2"}
    if dmz or neighbour:
        lan["neighbour"] = "192.168.1.3"
    for index, (role, inside4) in enumerate(lan.items(), start=1):
        inside6, gateway6 = f"2001:db8:{number}:1::{index + 1}", f"2001:db8:{number}:1::1"
        namespace = f"{scene.prefix}-{name}-{role}"
        if role == "neighbour":
            scene.add_namespace(f"{name}-{role}")
            scene.hosts[f"{name} neighbour"] = Host(namespace, inside4, inside6)
        scene.add_veth(router, f"lan{index}", namespace, "eth0")
        scene.configure(router, *gateway_lines(f"lan{index}", "192.168.1.1", gateway6, inside4, inside6))
        scene.configure(namespace, *host_lines("eth0", inside4, inside6, "192.168.1.1", gateway6))
    if box.unsolicited is Unsolicited.DMZ_SERVICE:
        scene.services.append(f"{scene.prefix}-{name}-neighbour")
    if dmz:
        rules = forbid("input") if box.unsolicited is Unsolicited.DMZ_DROP else _redirect_all("eth0")
        scene.configure(f"{scene.prefix}-{name}-neighbour", rules)


def tun_lines(address4: str, address6: str) -> list[str]:
    """Return the lines for a machine that is on the internet itself."""
    return [
        f"ip link set {DEVICE} up",
        f"ip addr add {address4}/32 dev {DEVICE}",
        f"ip addr add {address6}/128 dev {DEVICE} nodad",
        f"ip route add default dev {DEVICE}",
        f"ip -6 route add default dev {DEVICE}",
    ]


def host_lines(device: str, own4: str, own6: str, gateway4: str, gateway6: str) -> list[str]:
    """Return the lines for the end of a cable that has a gateway at the other end."""
    return [
        f"ip link set {device} up",
        f"ip addr add {own4}/32 dev {device}",
        f"ip addr add {own6}/128 dev {device} nodad",
        f"ip route add {gateway4} dev {device}",
        f"ip route add default via {gateway4} dev {device}",
        f"ip -6 route add {gateway6} dev {device}",
        f"ip -6 route add default via {gateway6} dev {device}",
    ]


def gateway_lines(device: str, own4: str, own6: str, host4: str, host6: str) -> list[str]:
    """Return the lines for the gateway's end of such a cable.

    The length of the prefix makes no route: it tells a port-mapping daemon who is in the LAN.
    """
    return [
        f"ip link set {device} up",
        f"ip addr add {own4}/24 dev {device} noprefixroute",
        f"ip addr add {own6}/128 dev {device} nodad",
        f"ip route add {host4} dev {device}",
        f"ip -6 route add {host6} dev {device}",
    ]


def box_lines(box: Router, inside6: str) -> list[str]:
    """Return the lines that make a machine a router; `inside6` is the host behind it."""
    lines = ["echo 1 > /proc/sys/net/ipv4/ip_forward", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"]
    if box.syn_sent_s is not None:
        timeout = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent"
        # The file exists once conntrack is in use here, so after the rules.
        return [*lines, _rules(box, inside6), f"echo {box.syn_sent_s} > {timeout}"]
    return [*lines, _rules(box, inside6)]


def _nft(text: str) -> str:
    return f"nft -f - <<'END'\n{text}\nEND"


def _rules(box: Router, inside6: str) -> str:
    """Return the nftables rules of one router; `inside6` is the host that it stands before."""
    refusal = _REFUSALS[box.unsolicited]
    limit = f"{BARE_SYN} limit rate over 25/second burst 50 packets drop"
    invalid = "ct state invalid drop" if box.invalid_drop else ""
    return _nft(f"""\
table inet {daemon.TABLE} {{
{daemon.chains() if box.daemon else ""}
  chain first {{ type filter hook prerouting priority -300
    {limit if box.syn_limit is SynLimit.ALL else ""}
  }}
  chain input {{ type filter hook input priority 0
    {daemon.input_rule(box.daemon) if box.daemon else ""}
    iifname != "{DEVICE}" accept
    {limit if box.syn_limit is SynLimit.INPUT else ""}
    {invalid}
    ct state established,related accept
    meta l4proto ipv6-icmp accept
    {refusal}
  }}
  chain forward {{ type filter hook forward priority 0
    {invalid}
    ct state established,related accept
    iifname != "{DEVICE}" accept
    ct status dnat accept
    {f"jump {daemon.FORWARD}" if box.daemon else ""}
    {refusal}
  }}
}}
{_translation(box)}
{_translation6(inside6) if box.nat is Nat.RANDOM6 else ""}""")


def _translation(box: Router) -> str:
    """Return the `table ip nat` of one router; a firewall has none."""
    if box.nat is Nat.NONE:
        return ""
    inbound = ""
    if box.nat is Nat.MAPPED:
        inbound = f'iifname "{DEVICE}" tcp dport {MAPPED_PORTS} dnat to 192.168.1.2'
    elif box.nat is Nat.FORWARDED:
        inbound = f'iifname "{DEVICE}" tcp dport {FORWARDED_PORT} dnat to 192.168.1.2'
    elif box.unsolicited is Unsolicited.SERVICE:
        inbound = f'iifname "{DEVICE}" meta l4proto tcp redirect to :{SERVICE_PORT}'
    elif box.unsolicited in (Unsolicited.DMZ_SERVICE, Unsolicited.DMZ_DROP):
        inbound = f'iifname "{DEVICE}" meta l4proto tcp dnat to 192.168.1.3'
    return f"""\
table ip nat {{
  chain inbound {{ type nat hook prerouting priority -100
    {inbound}
  }}
  chain outbound {{ type nat hook postrouting priority 100
    oifname "{DEVICE}" masquerade {"fully-random" if box.nat in (Nat.RANDOM, Nat.RANDOM6) else ""}
  }}
}}"""


def _translation6(inside6: str) -> str:
    """Return a `table ip6 nat` by which a host keeps its address but not its ports."""
    return f"""\
table ip6 nat {{
  chain outbound {{ type nat hook postrouting priority 100
    oifname "{DEVICE}" meta l4proto tcp snat to [{inside6}]:1024-65535 fully-random
  }}
}}"""


def _count_syns() -> str:
    counted = f"{BARE_SYN} counter name {SYN_COUNTER}\n meta l4proto udp counter name {UDP_COUNTER}"
    chain = f"chain output {{ type filter hook output priority 0\n {counted}\n }}"
    return _nft(f"table inet count {{\n counter {SYN_COUNTER} {{ }}\n counter {UDP_COUNTER} {{ }}\n {chain}\n}}")


def _redirect_all(device: str) -> str:
    redirect = f'iifname "{device}" meta l4proto tcp redirect to :{SERVICE_PORT}'
    return _nft(f"table ip nat {{\n chain inbound {{ type nat hook prerouting priority -100\n {redirect}\n }}\n}}")


def add_addresses(scene: Scene, name: str, addresses: tuple[str, ...], *, accepts: bool) -> None:
    """Give the host of a public site more IPv4 addresses, at which it accepts or refuses everything."""
    scene.sites = [
        replace(site, addresses=(*site.addresses, *addresses)) if site.name == name else site for site in scene.sites
    ]
    lines = [f"ip addr add {address}/32 dev {DEVICE}" for address in addresses]
    scene.configure(scene.hosts[name].namespace, *lines)
    if accepts:
        scene.configure(scene.hosts[name].namespace, _redirect_all(DEVICE))
        scene.services.append(scene.hosts[name].namespace)


def moved4(dial4: str) -> str:
    """Return the public address that a site has after it has moved."""
    return f"{dial4[:-1]}2"


def hide_behind_temporary_addresses(own6: str) -> list[str]:
    """Return the shell lines that give a host behind a router an address of the day (RFC 8981), usually preferred."""
    return [
        "echo 2 > /proc/sys/net/ipv6/conf/eth0/use_tempaddr",
        # Otherwise it would be tentative, and not used, for a second.
        "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad",
        f"ip addr del {own6}/128 dev eth0",
        f"ip addr add {own6}/64 dev eth0 nodad mngtmpaddr valid_lft 9000 preferred_lft 9000",
    ]


def route_through_vpn() -> list[str]:
    """Return the shell lines that give a host a VPN that has taken all routes, and leads nowhere."""
    return [
        "ip link add vpn0 type veth peer name vpn1",
        "ip addr add 10.8.0.2/24 dev vpn0",
        "ip link set vpn0 up",
        "ip link set vpn1 up",
        "ip route add 0.0.0.0/1 dev vpn0",
        "ip route add 128.0.0.0/1 dev vpn0",
    ]


def without_ipv4(device: str) -> list[str]:
    """Return the shell lines that leave a host IPv6 only."""
    return ["ip route flush default", f"ip -4 addr flush dev {device}"]


def without_ipv6(device: str) -> list[str]:
    """Return the shell lines that leave a host IPv4 only."""
    return ["ip -6 route flush default", f"ip -6 addr flush dev {device}"]


def lose_route() -> str:
    """Return the shell lines that take a host's default route away once it has sent all first SYNs."""
    seen = f"nft list counter inet count {SYN_COUNTER} | grep -q 'packets [2-9][0-9]'"
    return f"(until {seen}; do sleep 0.05; done; ip route del default) >/dev/null 2>&1 &"


def scale_no_windows() -> str:
    """Return the shell line that makes a host neither offer nor take the scaling of windows (RFC 7323 §2)."""
    return "echo 0 > /proc/sys/net/ipv4/tcp_window_scaling"


def forbid(hook: str, what: str = "meta l4proto tcp") -> str:
    """Return the shell lines that make a host drop all TCP, or some packets, at one of its own hooks."""
    return _nft(f"table inet silent {{\n chain own {{ type filter hook {hook} priority 0\n {what} drop\n }}\n}}")
