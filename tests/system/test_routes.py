"""The default routes as Linux lists them: the best one of each IP version."""

from __future__ import annotations

import socket

import pytest

from punchtunnel.system.routes import Gateway, Route, default_routes, gateways, interfaces_towards

from .conftest import Write

ROUTE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\tFE01A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
down0\t00000000\t0101A8C0\t0002\t0\t0\t1\t00000000\t0\t0\t0
none0\t00000000\t00000000\t0201\t0\t0\t2\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
"""
ZERO = "0" * 32
IPV6_ROUTE = f"""\
20010db8000000000000000000000000 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001     eth0
{ZERO} 00 {ZERO} 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo
"""


def test_the_route_with_the_smallest_metric_that_is_up_is_taken(write_proc: Write) -> None:
    write_proc("net/route", ROUTE)
    write_proc("net/ipv6_route", IPV6_ROUTE)
    assert default_routes() == {4: Route("eth0", "192.168.1.254"), 6: Route("eth0", "fe80::1")}


def test_a_link_with_only_one_other_end_has_no_gateway(write_proc: Write) -> None:
    write_proc("net/route", "Iface\nppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n")
    assert default_routes() == {4: Route("ppp0")}


def test_no_default_route_is_told_from_no_list(write_proc: Write) -> None:
    assert default_routes() is None
    write_proc("net/route", ROUTE.splitlines()[0] + "\n")
    assert default_routes() == {}


@pytest.mark.parametrize("name", ["net/route", "net/ipv6_route"])
def test_a_list_of_another_form_is_an_error(write_proc: Write, name: str) -> None:
    write_proc(name, "what\nis this? it has words\n")
    with pytest.raises(ValueError, match="unpack"):
        default_routes()


def test_gateways_are_those_of_all_default_routes_the_best_first(write_proc: Write) -> None:
    assert gateways() == []
    write_proc("net/route", ROUTE + "ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n")
    write_proc("net/ipv6_route", IPV6_ROUTE)
    assert gateways() == [
        Gateway(socket.AF_INET, "eth0", "192.168.1.254"),
        Gateway(socket.AF_INET, "wlan0", "192.168.1.1"),
        Gateway(socket.AF_INET6, "eth0", "fe80::1"),
    ]


def test_a_list_of_another_form_hides_no_gateway_of_the_other_family(write_proc: Write) -> None:
    write_proc("net/route", "what\nis this? it has words\n")
    write_proc("net/ipv6_route", IPV6_ROUTE)
    assert gateways() == [Gateway(socket.AF_INET6, "eth0", "fe80::1")]


def test_every_interface_that_leads_somewhere_is_told_whatever_its_metric(write_proc: Write) -> None:
    assert interfaces_towards("192.0.2.1") is None
    # A VPN with two halves of the Internet, in the byte order of this machine.
    halves = [f"tun0\t{half}\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n" for half in ("00000000", "00000080")]
    write_proc("net/route", ROUTE + "".join(halves))
    assert interfaces_towards("192.0.2.1") == {"wlan0", "eth0", "tun0"}
    assert interfaces_towards("9.9.9.9") == {"wlan0", "eth0", "tun0"}
    write_proc("net/route", "\n".join(line for line in ROUTE.splitlines() if "00FFFFFF" in line or "Iface" in line))
    assert interfaces_towards("192.168.1.9") == {"eth0"}
    assert interfaces_towards("192.168.2.9") == set()
