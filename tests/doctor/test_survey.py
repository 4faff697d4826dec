"""What this machine tells of itself, where it tells everything, something else, or nothing at all."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

import pytest

from punchtunnel.doctor import survey
from punchtunnel.doctor.facts import Bind, Facts, Uplink
from punchtunnel.protocol.schedule import HIGHEST_PORT, LOWEST_PORT
from punchtunnel.punching import ports
from punchtunnel.system import proc as proc_module
from punchtunnel.system.addresses import Address
from punchtunnel.system.routes import Route


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty /proc, and no tools."""
    for folder in ("net", "sys/net/ipv4"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(proc_module, "ROOT", tmp_path)
    monkeypatch.setattr(survey, "TOOL_PLACES", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    # Files that are written here do not agree with this machine's routes.
    monkeypatch.setattr(survey, "source_towards", lambda *_: None)
    return tmp_path


def tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def look() -> Facts:
    return survey.facts(random.Random(1))


def test_what_the_system_tells_is_what_the_doctor_knows(proc: Path) -> None:
    (proc / "net/route").write_text("Iface\nwlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n")
    (proc / "net/if_inet6").write_text("20010db8000000000000000000000002 02 40 00 80     eth0\n")
    (proc / "net/tcp").write_text("sl  local_address rem_address\n 0: 0100007F:2800 00000000:0000 0A\n")
    (proc / "sys/net/ipv4/ip_local_port_range").write_text("32768\t60999\n")
    facts = look()
    assert facts.routes == {4: Route("wlan0", "192.168.1.1")}
    assert facts.addresses6 == ["2001:db8::2"]
    assert facts.ephemeral == [(32768, 60999)]
    assert facts.taken == 1
    assert facts.sharing == ""


def test_the_address_that_dials_leave_from_comes_first(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor named a temporary address, or whichever the kernel listed first."""
    hosts = ("20010db8000000000000000000000002", "20010db8000000000000000000000003")
    (proc / "net/if_inet6").write_text("".join(f"{host} 02 40 00 80     eth0\n" for host in hosts))
    monkeypatch.setattr(survey, "source_towards", lambda *_: "2001:db8::3")
    assert look().addresses6 == ["2001:db8::3", "2001:db8::2"]


def test_the_route_that_the_kernel_takes_counts_and_not_the_default_route(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a VPN the doctor said "by wlan0", while SYNs left by tun0."""
    (proc / "net/route").write_text("Iface\nwlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n")
    monkeypatch.setattr(survey, "source_towards", lambda somewhere, *_: None if ":" in somewhere.host else "10.8.0.2")
    monkeypatch.setattr(survey, "interface_of", lambda host: "tun0" if host else "")
    assert look().routes == {4: Route("tun0")}
    monkeypatch.setattr(survey, "interface_of", lambda host: "wlan0" if host else "")
    assert look().routes == {4: Route("wlan0", "192.168.1.1")}


# A laptop: wlan0 at home, a VPN with two halves of the Internet, a network of containers, and another VPN with a table
# of its own.  The kernel names an IPv4 source for each of them.
LAPTOP = {"lo": "172.17.0.1", "docker0": "172.17.0.1", "wlan0": "192.168.1.2", "tun0": "10.8.0.2", "wg0": "10.9.0.2"}
LAPTOP_ROUTES = """Iface
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
wlan1\t00000000\t0101A8C0\t0203\t0\t0\t600\t00000000\t0\t0\t0
tun0\t00000080\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0
"""


@pytest.fixture
def laptop(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def source(somewhere: Address, interface: str = "wg0") -> str | None:
        if ":" in somewhere.host:
            return "2001:db8::2" if interface == "wlan0" else None
        return LAPTOP[interface]

    (proc / "net/route").write_text(LAPTOP_ROUTES)
    monkeypatch.setattr(survey, "source_towards", source)
    monkeypatch.setattr(survey, "interface_of", {one: name for name, one in LAPTOP.items() if name != "lo"}.get)
    monkeypatch.setattr(survey, "global_addresses6", lambda: ["2001:db8::2", "2001:db8::3"])
    monkeypatch.setattr(socket, "if_nameindex", lambda: list(enumerate(LAPTOP, 1)))


HOME, TUN, WIRE = (
    Uplink("wlan0", ["192.168.1.2", "2001:db8::2"]),
    Uplink("tun0", ["10.8.0.2"]),
    Uplink("wg0", ["10.9.0.2"]),
)


@pytest.mark.usefixtures("laptop")
def test_uplinks_are_the_interfaces_that_lead_out_the_one_that_the_kernel_takes_first() -> None:
    """The kernel names a source for interfaces that lead nowhere, too."""
    facts = look()
    assert facts.uplinks == [WIRE, HOME, TUN]
    assert facts.routes == {4: Route("wg0")}


BOUND = [
    (Bind("", "wlan0"), [HOME], {4: Route("wlan0", "192.168.1.1"), 6: Route("wlan0")}, "192.168.1.2", ["2001:db8::2"]),
    (Bind("", "tun0"), [TUN], {4: Route("tun0")}, "10.8.0.2", []),
    (Bind("192.168.1.2", "wlan0"), [Uplink("wlan0", ["192.168.1.2"])], {4: Route("wlan0", "192.168.1.1")},
     "192.168.1.2", []),
    (Bind("2001:db8::2", "wlan0"), [Uplink("wlan0", ["2001:db8::2"])], {6: Route("wlan0")}, "", ["2001:db8::2"]),
    (Bind("", "docker0"), [], {}, "", []),
]  # fmt: skip


@pytest.mark.usefixtures("laptop")
@pytest.mark.parametrize(("bind", "uplinks", "routes", "address4", "addresses6"), BOUND)
def test_only_what_is_bound_is_surveyed(
    bind: Bind, uplinks: list[Uplink], routes: dict[int, Route], address4: str, addresses6: list[str]
) -> None:
    facts = survey.facts(random.Random(1), bind)
    assert (facts.uplinks, facts.routes, facts.address4, facts.addresses6) == (uplinks, routes, address4, addresses6)


def test_nothing_is_known_where_there_is_no_proc(proc: Path) -> None:
    facts = look()
    assert (facts.routes, facts.addresses6, facts.ephemeral, facts.taken) == (None, None, None, 0)
    assert facts.uplinks is None
    assert facts.tables is None
    assert facts.tables_unread == "iptables-save is not installed"


def test_files_of_another_form_are_as_good_as_none(proc: Path) -> None:
    for name in ("net/route", "net/ipv6_route", "net/if_inet6", "net/tcp", "sys/net/ipv4/ip_local_port_range"):
        (proc / name).write_text("what\nis this? it has words\n")
    facts = look()
    assert (facts.routes, facts.addresses6, facts.ephemeral, facts.taken) == (None, None, None, 0)
    assert facts.uplinks is None


def test_rules_come_from_nft_alone_where_iptables_has_made_none(proc: Path) -> None:
    tool(proc, "nft", """echo '{"nftables": [{"chain": {"family": "ip6", "table": "t", "name": "c"}}]}'""")
    facts = look()
    assert facts.tables is not None
    assert [table.family for table in facts.tables] == ["ip6"]


SAVED = "echo '*filter'; echo ':INPUT DROP [0:0]'"
XT = (
    '{"nftables": [{"chain": {"family": "ip", "table": "t", "name": "c"}}, '
    '{"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [{"xt": null}]}}]}'
)


@pytest.mark.parametrize("nft", [None, f"echo '{XT}'"], ids=["without nft", "beside nft"])
def test_rules_of_iptables_are_read_where_only_iptables_knows_them(proc: Path, nft: str | None) -> None:
    if nft is not None:
        tool(proc, "nft", nft)
    tool(proc, "iptables-save", SAVED)
    tool(proc, "ip6tables-save", SAVED)
    facts = look()
    assert facts.tables is not None
    assert [(table.family, set(table.chains)) for table in facts.tables] == [("ip", {"INPUT"}), ("ip6", {"INPUT"})]


def test_old_rules_are_read_by_the_old_tool(proc: Path) -> None:
    (proc / "net/ip_tables_names").write_text("filter\n")
    tool(proc, "nft", """echo '{"nftables": []}'""")
    tool(proc, "iptables-legacy-save", SAVED)
    assert look().tables_unread == "ip6tables-legacy-save is not installed"
    tool(proc, "ip6tables-legacy-save", SAVED)
    assert len(look().tables or ()) == 2


def test_a_tool_that_fails_is_told_and_root_is_asked_for_where_that_helps(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nft", "iptables-save"):
        tool(proc, name, "echo 'Operation not supported' >&2; exit 1")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert look().tables_unread == "iptables-save fails: Operation not supported"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert look().tables_unread == "only root may; run this as root"


def test_a_tool_that_prints_nonsense_leaves_the_rules_unknown(proc: Path) -> None:
    tool(proc, "nft", "echo '{}'")
    facts = look()
    assert facts.tables is None
    assert facts.tables_unread == "their form is not known"


def test_the_clock_is_read_or_not_known() -> None:
    clock = survey.clock()
    assert clock.source == ""
    assert clock.offset_s is None or clock.error_s > 0


def dialling(port: int) -> socket.socket:
    return ports.dialling_socket(socket.AF_INET, "127.0.0.1", port)


def test_a_port_of_the_range_can_be_had_and_shared() -> None:
    rng = random.Random(2)
    with survey.on_some_port(rng, dialling) as sock, dialling(sock.getsockname()[1]):
        assert LOWEST_PORT <= sock.getsockname()[1] <= HIGHEST_PORT


def test_ports_that_are_taken_are_passed_over_but_not_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])

        class Always(random.Random):
            def randint(self, low: int, high: int) -> int:
                return port

        with pytest.raises(OSError, match="in use"):
            survey.on_some_port(Always(), dialling)


def test_other_programs_do_not_get_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = tmp_path / "nft"
    spy.write_text("#!/bin/sh\nenv\n")
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PUNCHTUNNEL_SECRET", "hush")
    shown, _ = survey._printed("nft")
    assert shown is not None
    assert "LC_ALL=C" in shown
    assert "hush" not in shown
