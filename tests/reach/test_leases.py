"""What one router maps: PCP and NAT-PMP joined with routers in memory."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from punchtunnel.address import Place, is_public
from punchtunnel.punching.helper import PortMapping
from punchtunnel.reach import natpmp, pcp
from punchtunnel.reach.epoch import Epoch
from punchtunnel.reach.lease import CLOSEST_RENEWALS, LEASE, LONGEST_LEASE, Lease
from punchtunnel.reach.leases import LOOK, MOST_HELD, PAUSE, WAITS, Leases, Standing

from .fakes import KEY, FakeRouter

V4, V6 = socket.AF_INET, socket.AF_INET6
OWN, ROUTER, OUTSIDE = "192.168.7.2", "192.168.7.1", "203.0.113.5"
PORTS = [16049, 16050, 16051]


class Table:
    """A machine and a router, and the time between them, which stands still."""

    def __init__(self, router: FakeRouter, family: socket.AddressFamily = V4, own: str = OWN) -> None:
        self.router = router
        self.machine = Leases(family, own, ROUTER, KEY, Random(1))
        self.now = 1000.0
        self.sent: list[bytes] = []

    def want(self, *ports: int) -> Standing:
        self.machine.want(ports, self.now)
        return self.settle()

    def settle(self) -> Standing:
        """Exchange datagrams until nothing is due now."""
        for _ in range(100):
            datagrams = self.machine.step(self.now)
            if not datagrams:
                break
            self.sent += datagrams
            for datagram in datagrams:
                for answer in self.router.answers(datagram, self.now):
                    self.machine.receive(answer, self.now)
        else:
            pytest.fail("it goes on for ever")
        return self.machine.standing()

    def run(self, seconds: float) -> Standing:
        """Let time pass, and do what is due in it."""
        until = self.now + seconds
        while self.machine.due <= until:
            self.now = max(self.now, self.machine.due)
            self.settle()
        self.now = until
        return self.settle()


def mapping(port: int, by: str, external: int = 0, host: str = OUTSIDE) -> PortMapping:
    return PortMapping(V4, port, Place(host, external or port), by)


# ---- which protocol


@pytest.mark.parametrize("speaks", [{"PCP", "NAT-PMP"}, {"PCP"}])
def test_a_router_that_speaks_pcp_maps_by_it_alone(speaks: set[str]) -> None:
    table = Table(FakeRouter(speaks))
    assert table.want(*PORTS) == Standing((mapping(16049, "PCP"), mapping(16050, "PCP")))
    assert [data for data in table.sent if data[:1] == b"\0"] in ([], [natpmp.ask_address()])


def test_natpmp_alone_maps_as_soon_as_pcp_had_its_time() -> None:
    table = Table(FakeRouter({"NAT-PMP"}))
    assert table.want(*PORTS).mappings == ()
    assert table.run(WAITS[0]).mappings == (mapping(16049, "NAT-PMP"), mapping(16050, "NAT-PMP"))


def test_version_0_and_result_1_is_natpmp_at_once() -> None:
    table = Table(FakeRouter({"NAT-PMP"}, refuses_versions=True))
    assert table.want(*PORTS).mappings == (mapping(16049, "NAT-PMP"), mapping(16050, "NAT-PMP"))


def test_a_late_answer_of_pcp_takes_back_what_natpmp_has_mapped() -> None:
    router = FakeRouter({"NAT-PMP"})
    table = Table(router)
    table.want(16049)
    assert table.run(1).mappings == (mapping(16049, "NAT-PMP"),)
    router.speaks.add("PCP")
    (late,) = router.answers(next(data for data in table.sent if data[0] == pcp.VERSION), table.now)
    table.machine.receive(late, table.now)
    assert table.settle().mappings == (mapping(16049, "PCP"),)
    assert natpmp.ask_mapping(16049, 0, 0) in table.sent
    assert set(router.table) == {16049}, "they have one table, and it still stands there"


def test_ipv6_knows_no_natpmp_and_opens_the_firewall_for_the_own_address() -> None:
    own = "2001:db8::2"
    table = Table(FakeRouter({"PCP"}, outside=own), V6, own)
    assert table.want(16049).mappings == (PortMapping(V6, 16049, Place(own, 16049), "PCP"),)
    assert all(data[0] == pcp.VERSION for data in table.sent)


# ---- who does not answer


def test_a_silent_router_is_given_up_after_four_requests_and_asked_again_later() -> None:
    table = Table(FakeRouter(set()))
    assert table.want(16049) == Standing()
    assert table.run(sum(WAITS) - 0.01) == Standing()
    assert table.run(0.02) == Standing(silent=True)
    assert len(table.sent) == 2 * len(WAITS)
    table.router.speaks.add("PCP")
    assert table.run(PAUSE - 1) == Standing(silent=True)
    assert table.run(1) == Standing((mapping(16049, "PCP"),))


def test_a_silent_router_is_asked_at_once_when_told() -> None:
    table = Table(FakeRouter(set()))
    table.want(16049)
    table.run(10)
    table.router.speaks.add("NAT-PMP")
    table.machine.start(table.now)
    assert table.run(1).mappings == (mapping(16049, "NAT-PMP"),)


def test_icmp_says_at_once_that_nobody_is_there_but_not_of_one_who_has_answered() -> None:
    table = Table(FakeRouter(set()))
    table.want(16049)
    table.machine.nobody(table.now)
    assert table.settle() == Standing(silent=True)
    table = Table(FakeRouter({"PCP"}))
    before = table.want(16049)
    table.machine.nobody(table.now)
    assert table.settle() == before


# ---- what is granted


def test_another_external_port_is_taken_back_and_the_next_one_tried() -> None:
    table = Table(FakeRouter({"PCP"}, others={16049: 16099}))
    assert table.want(*PORTS).mappings == (mapping(16050, "PCP"), mapping(16051, "PCP"))
    assert set(table.router.table) == {16050, 16051}


def test_what_was_given_instead_does_not_take_the_next_wanted_port() -> None:
    """miniupnpd gives port + 1 for one that is taken: kept for later, it made the next port taken as well."""
    table = Table(FakeRouter({"PCP"}, others={16049: 16050}, exclusive=True))
    assert table.want(16049, 16050).mappings == (mapping(16050, "PCP"),)


@pytest.mark.parametrize("by", ["PCP", "NAT-PMP"])
def test_where_all_are_taken_the_first_one_given_is_kept_as_it_is(by: str) -> None:
    table = Table(FakeRouter({by}, others={16049: 1024, 16050: 1025, 16051: 1026}))
    table.want(*PORTS)
    assert table.run(1).mappings == (mapping(16049, by, 1024),)
    assert set(table.router.table) == {16049}
    assert table.run(LEASE).mappings == (mapping(16049, by, 1024),), "it is renewed as it is"


@pytest.mark.parametrize("by", ["PCP", "NAT-PMP"])
@pytest.mark.parametrize("host", ["10.1.2.3", "192.168.0.7", "172.31.0.1", "100.64.0.9", "192.0.0.2", "127.0.0.1"])
def test_a_router_behind_another_nat_maps_nothing_and_is_told(by: str, host: str) -> None:
    table = Table(FakeRouter({by}, outside=host))
    table.want(*PORTS)
    assert table.run(1) == Standing(behind=host)
    assert table.router.table == {}
    assert table.run(PAUSE / 2) == Standing(behind=host)


def test_a_router_without_an_address_is_not_connected() -> None:
    table = Table(FakeRouter({"NAT-PMP"}, outside="0.0.0.0"))
    table.want(16049)
    standing = table.run(1)
    assert (standing.mappings, standing.behind) == ((), "")
    assert "no address in the Internet" in standing.refusal


@pytest.mark.parametrize("external", [0, 80, 1023])
def test_a_port_that_is_other_programs_is_taken_back(external: int) -> None:
    table = Table(FakeRouter({"PCP"}, others=dict.fromkeys(PORTS, external)))
    standing = table.want(*PORTS)
    assert standing.mappings == ()
    assert f"port {external}" in standing.refusal
    assert table.router.table == {}


def test_a_low_port_that_was_asked_for_is_one_like_others() -> None:
    assert Table(FakeRouter({"PCP"})).want(443).mappings == (mapping(443, "PCP"),)


def test_a_lease_of_seconds_is_refused() -> None:
    table = Table(FakeRouter({"PCP"}, lifetime=29))
    standing = table.want(16049)
    assert standing.mappings == ()
    assert "29 s" in standing.refusal
    assert table.router.table == {}


def test_an_absurd_lease_is_renewed_as_if_it_were_a_sane_one() -> None:
    table = Table(FakeRouter({"PCP"}, lifetime=2**32 - 1))
    table.want(16049)
    assert table.machine.due < table.now + LONGEST_LEASE


@pytest.mark.parametrize(
    ("by", "result", "why"),
    [
        ("PCP", pcp.NOT_AUTHORIZED, "does not allow it (PCP)"),
        ("PCP", pcp.NO_RESOURCES, "no room"),
        ("PCP", pcp.UNSUPPORTED_PROTOCOL, "cannot map TCP"),
        ("PCP", pcp.ADDRESS_MISMATCH, "another NAT"),
        ("PCP", 99, "result 99"),
        ("NAT-PMP", natpmp.NOT_AUTHORIZED, "does not allow it (NAT-PMP)"),
        ("NAT-PMP", natpmp.OUT_OF_RESOURCES, "no room"),
        ("NAT-PMP", natpmp.UNSUPPORTED_OPCODE, "cannot map TCP"),
    ],
)
def test_a_refusal_has_a_sentence_with_the_router(by: str, result: int, why: str) -> None:
    table = Table(FakeRouter({by}, result=result))
    table.want(16049)
    standing = table.run(1)
    assert standing.mappings == ()
    assert why in standing.refusal
    assert ROUTER in standing.refusal


def test_a_refusal_of_one_port_is_nothing_where_another_one_is_given() -> None:
    table = Table(FakeRouter({"PCP"}, refused={16049: pcp.NOT_AUTHORIZED}))
    assert table.want(*PORTS) == Standing((mapping(16050, "PCP"), mapping(16051, "PCP")))


def test_unsupported_pcp_of_ipv6_is_told_at_once() -> None:
    table = Table(FakeRouter({"PCP"}, result=pcp.UNSUPPORTED_VERSION), V6, "2001:db8::2")
    assert "cannot map TCP" in table.want(16049).refusal


# ---- strangers and accidents


def test_an_answer_with_another_nonce_or_port_changes_nothing() -> None:
    table = Table(FakeRouter(set()))
    table.want(16049)
    (request,) = {data for data in table.sent if data[0] == pcp.VERSION}
    router = FakeRouter({"PCP"})
    (answer,) = router.answers(request, table.now)
    for forged in (answer[:24] + bytes(12) + answer[36:], answer[:40] + b"\0\1" + answer[42:]):
        table.machine.receive(forged, table.now)
        assert table.settle() == Standing()
    table.machine.receive(answer, table.now)
    assert table.settle().mappings == (mapping(16049, "PCP"),)


def test_a_mapping_by_natpmp_of_a_port_that_nobody_asked_for_changes_nothing() -> None:
    table = Table(FakeRouter({"NAT-PMP"}))
    table.want(16049)
    before = table.run(1)
    sent = len(table.sent)
    table.machine.receive(struct.pack("!BBHIHHI", 0, 130, 0, 0, 16050, 16050, 600), table.now)
    assert table.settle() == before
    assert len(table.sent) == sent, "and another program's mapping is not taken back"


@given(st.lists(st.binary(max_size=80) | st.sampled_from([b"\0\x80\0\0", b"\0\x82\0\0", b"\2\x81\0\0"]), max_size=8))
def test_garbage_never_maps(garbage: list[bytes]) -> None:
    table = Table(FakeRouter(set()))
    table.want(16049)
    for data in garbage:
        table.machine.receive(data, table.now)
        table.settle()
    assert table.run(10).mappings == ()


# ---- renewing


def test_a_lease_is_renewed_between_half_and_five_eighths_and_ever_closer_then() -> None:
    lease = Lease(16049, Place(OUTSIDE, 16049))
    lease.grant(lease.external, LEASE, 0.0, Random(3))
    times = []
    while lease.renew_at < lease.expires_at:
        times.append(lease.renew_at / LEASE)
        lease.renewals += 1
        lease.plan(lease.renew_at, Random(3))
    bounds = [(1 / 2, 5 / 8), (3 / 4, 13 / 16), (7 / 8, 29 / 32), (15 / 16, 61 / 64)]
    assert all(low <= at <= high for at, (low, high) in zip(times, bounds, strict=False))
    assert len(times) >= len(bounds)
    assert min(after - before for before, after in pairwise(times)) * LEASE >= CLOSEST_RENEWALS


@pytest.mark.parametrize("by", ["PCP", "NAT-PMP"])
def test_mappings_stand_for_days_while_they_are_renewed(by: str) -> None:
    table = Table(FakeRouter({by}))
    table.want(*PORTS)
    before = table.run(1)
    assert len(before.mappings) == MOST_HELD
    for _ in range(100):
        assert table.run(700) == before
        assert table.router.standing(table.now) == {16049, 16050}


def test_a_mapping_that_is_not_renewed_is_over_and_asked_for_again() -> None:
    table = Table(FakeRouter({"PCP"}))
    table.want(16049)
    table.router.speaks.clear()
    assert table.run(LEASE - 1).mappings
    assert table.run(10) == Standing(silent=True)
    table.router.speaks.add("PCP")
    assert table.run(PAUSE).mappings == (mapping(16049, "PCP"),)


def test_an_address_that_changes_is_told_when_it_is_renewed() -> None:
    for by in ("PCP", "NAT-PMP"):
        table = Table(FakeRouter({by}))
        table.want(16049)
        table.run(1)
        table.router.outside = "203.0.113.99"
        assert table.run(LEASE).mappings == (mapping(16049, by, host="203.0.113.99"),)


def test_a_port_that_somebody_else_has_after_a_restart_is_given_up_for_the_next_one() -> None:
    table = Table(FakeRouter({"PCP"}))
    table.want(16049, 16050)
    table.router.restart(table.now)
    table.router.others[16049] = 1024
    assert table.run(LEASE).mappings == (mapping(16050, "PCP"),)


@pytest.mark.parametrize("by", ["PCP", "NAT-PMP"])
def test_after_a_restart_of_the_router_everything_is_asked_for_at_once(by: str) -> None:
    table = Table(FakeRouter({by}))
    table.want(*PORTS)
    before = table.run(1)
    table.run(LEASE / 4)
    table.router.restart(table.now)
    assert table.router.standing(table.now) == set()
    table.run(1)
    due = table.machine.due
    assert table.run(due - table.now) == before
    assert table.router.standing(table.now) == {16049, 16050}, "the first answer told, and the other was not waited for"


@pytest.mark.parametrize("by", ["PCP", "NAT-PMP"])
def test_a_restart_is_noticed_long_before_a_renewal_and_looking_maps_nothing(by: str) -> None:
    table = Table(FakeRouter({by}))
    table.want(*PORTS)
    before = table.run(1)
    table.sent.clear()
    table.run(LEASE / 4)
    looks = {natpmp.ask_address(), pcp.ask_epoch(OWN)} & set(table.sent)
    assert set(table.sent) == looks
    assert len(table.sent) == LEASE / 4 / LOOK
    table.router.restart(table.now)
    assert table.run(LOOK + 1) == before
    assert table.router.standing(table.now) == {16049, 16050}
    table.want()
    assert table.machine.due == float("inf"), "who has nothing looks at nothing"


def test_a_restarted_router_is_asked_every_few_seconds_until_it_has_answered() -> None:
    table = Table(FakeRouter({"PCP"}))
    table.want(16049, 16050)
    table.run(LEASE / 4)
    table.router.restart(table.now)
    table.router.refused = {16050: pcp.NO_RESOURCES}
    first = table.machine.due - table.now
    table.router.deaf = {16050}
    table.run(first)
    assert table.router.standing(table.now) == {16049}
    table.router.deaf, table.router.refused = set(), {}
    table.run(CLOSEST_RENEWALS)
    assert table.router.standing(table.now) == {16049, 16050}


@pytest.mark.parametrize("strict", [False, True])
def test_an_epoch_is_new_when_it_falls_behind(strict: bool) -> None:
    epoch = Epoch(strict=strict)
    assert [epoch.is_new(*one) for one in [(1000, 0.0), (1300, 300.0), (1301, 300.0), (5, 310.0), (305, 610.0)]] == [
        False, False, False, True, False
    ]  # fmt: skip


def test_only_pcp_takes_a_clock_that_is_too_fast_for_another_one() -> None:
    for strict in (False, True):
        epoch = Epoch(strict=strict)
        epoch.is_new(0, 0.0)
        assert epoch.is_new(500, 300.0) is strict


# ---- taking back


@pytest.mark.parametrize("by", ["PCP", "NAT-PMP"])
def test_everything_is_taken_back_at_the_end(by: str) -> None:
    table = Table(FakeRouter({by}))
    table.want(*PORTS)
    table.run(1)
    assert table.router.table
    assert table.want() == Standing()
    assert table.router.table == {}
    assert table.machine.due == float("inf")


def test_what_is_granted_while_nothing_is_wanted_any_more_is_taken_back() -> None:
    router = FakeRouter({"PCP"})
    table = Table(FakeRouter(set()))
    table.want(16049)
    table.want()
    table.router = router
    for data in table.sent:
        router.answers(data, table.now)
    assert router.table == {}


def test_other_ports_take_the_place_of_those_that_are_not_wanted_any_more() -> None:
    table = Table(FakeRouter({"PCP"}))
    table.want(16049, 16050)
    assert table.want(16050, 16051).mappings == (mapping(16050, "PCP"), mapping(16051, "PCP"))
    assert set(table.router.table) == {16050, 16051}


def test_a_process_with_the_same_key_deletes_what_another_one_was_given() -> None:
    router = FakeRouter({"PCP"})
    Table(router).want(16049)
    table = Table(router)
    table.want(16049)
    table.want()
    assert router.table == {}


def test_the_nonce_depends_on_the_key_the_address_and_the_port() -> None:
    def nonce(key: bytes, own: str, port: int) -> bytes:
        machine = Leases(V4, own, ROUTER, key, Random(1))
        machine.want([port], 0.0)
        return machine.step(0.0)[0][24:36]

    made = [nonce(KEY, OWN, 1), nonce(KEY, OWN, 2), nonce(KEY, "192.168.7.3", 1), nonce(bytes(32), OWN, 1)]
    assert len(set(made)) == 4
    assert nonce(KEY, OWN, 1) == made[0]


@pytest.mark.parametrize(
    ("host", "public"),
    [
        *((host, True) for host in ("203.0.113.5", "192.0.0.8", "100.128.0.1", "172.32.0.1", "2001:db8::1")),
        *((host, False) for host in ("100.127.255.255", "192.0.0.7", "169.254.1.1", "0.0.0.0", "224.0.0.1")),
        *((host, False) for host in ("fe80::1", "fe80::1%eth0", "fd00::1", "::1", "::", "255.255.255.255")),
    ],
)
def test_public_is_what_the_whole_internet_can_send_to(host: str, public: bool) -> None:
    assert is_public(host) is public


@given(st.data())
def test_under_any_order_of_events_at_most_two_ports_are_held_and_all_are_taken_back(data: st.DataObject) -> None:
    router = FakeRouter(set(data.draw(st.sampled_from([("PCP",), ("NAT-PMP",), ("PCP", "NAT-PMP")]))))
    table = Table(router)
    table.want(*PORTS)
    for _ in range(data.draw(st.integers(0, 8))):
        event = data.draw(st.sampled_from(["wait", "restart", "taken", "free", "start", "refuse", "allow", "want"]))
        if event == "wait":
            table.run(data.draw(st.sampled_from([0.1, 1.0, 100.0, 700.0])))
        elif event == "restart":
            router.restart(table.now)
        elif event == "taken":
            router.others[data.draw(st.sampled_from(PORTS))] = data.draw(st.sampled_from([80, 1024, 2000]))
        elif event == "free":
            router.others.clear()
        elif event == "start":
            table.machine.start(table.now)
        elif event in ("refuse", "allow"):
            router.result = 2 if event == "refuse" else 0
        else:
            table.want(*data.draw(st.lists(st.sampled_from(PORTS), unique=True)))
        standing = table.settle()
        assert len(standing.mappings) <= MOST_HELD
        assert all(ip_address(one.external.host) and one.external.port for one in standing.mappings)
    router.result = 0
    table.want()
    assert router.standing(table.now) == set()
