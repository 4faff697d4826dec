"""Hosts with several interfaces: what is added to a scene of build.py.  Pure.

                ┌── eth0, metric 0 ──> left-box0 ──> site "left"     198.51.100.10
the left host ──┤
                └── eth1, metric 2000 ──> second-box ──> site "second"   198.51.100.40
"""

from __future__ import annotations

from dataclasses import replace

from . import build
from .internet import Site
from .topology import Behaviour

SECOND4, SECOND6 = "198.51.100.40", "2001:db8:4:1::2"
_METRIC = "metric 2000"


def add_uplink(scene: build.Scene, behaviour: Behaviour) -> None:
    """Give the left host a second uplink behind a router of its own, by whose address the right one knows it."""
    left, edge = scene.hosts["left"], scene.add_namespace("second-box")
    scene.configure(edge, *build.tun_lines(SECOND4, "2001:db8:4:f::1"))
    scene.configure(edge, *build.box_lines(behaviour.routers[0], SECOND6))
    gateway4, gateway6, own4 = "192.168.2.1", "2001:db8:4:1::1", "192.168.2.2"
    _add_cable(scene, edge, "lan1", (gateway4, gateway6), (own4, SECOND6))
    scene.sites.append(Site("second", edge, (SECOND4, SECOND6, "2001:db8:4:f::1")))
    scene.hosts["left"] = replace(left, dial4=SECOND4, dial6=SECOND6)


def add_interface(scene: build.Scene) -> None:
    """Give the left host a second interface, behind the router that it has."""
    router, gateways = f"{scene.prefix}-left-box0", ("192.168.1.1", "2001:db8:1:1::1")
    _add_cable(scene, router, "lan2", gateways, ("192.168.1.7", "2001:db8:1:1::7"))


def kill_uplink(scene: build.Scene, family: str = "inet") -> None:
    """Let the left router, which the host has its default route by, carry nothing, or nothing of one nft family."""
    table = f"table {family} dead {{\n chain way {{ type filter hook forward priority -10\n drop\n }}\n}}"
    scene.configure(f"{scene.prefix}-left-box0", f"nft -f - <<'END'\n{table}\nEND")


def _add_cable(scene: build.Scene, router: str, device: str, gateways: tuple[str, str], own: tuple[str, str]) -> None:
    host = scene.hosts["left"].namespace
    scene.add_veth(router, device, host, "eth1")
    scene.configure(router, *build.gateway_lines(device, *gateways, *own))
    lines = build.host_lines("eth1", *own, *gateways)
    scene.configure(host, *(f"{line} {_METRIC}" if "route add" in line else line for line in lines))
