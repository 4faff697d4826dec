"""wire.py and internet.py without devices: what becomes of a packet, and when."""

from __future__ import annotations

import random

import pytest

from . import packets
from .internet import FOREIGN_SOURCE, NO_SUCH_SITE, TOO_LARGE, Internet, Plan, Site
from .packetlog import DELIVERED
from .packets import SYN
from .test_packets import LEFT, LEFT6, RIGHT, RIGHT6, parsed, segment
from .usernat import UserNat
from .wire import REORDER_SECONDS, Arrives, Expires, Lost, Path, Wire


def wire(path: Path, back: float | None = None) -> Wire:
    """Return one direction with fixed luck."""
    return Wire(path, random.Random(1), back)


def test_a_packet_arrives_after_the_delay_with_the_hops_taken_off() -> None:
    assert wire(Path(0.02, hops=10)).fate(100.0, 64) == Arrives(100.02, 54)


def test_a_low_ttl_runs_out_on_the_way_and_the_answer_takes_as_long_as_the_way_there_and_back() -> None:
    assert wire(Path(0.5, hops=10), back=1.5).fate(100.0, 5) == Expires(101.0, 5)


def test_a_ttl_that_equals_the_hops_does_not_arrive() -> None:
    assert isinstance(wire(Path(hops=3)).fate(0, 3), Expires)
    assert wire(Path(0.01, hops=3)).fate(0, 4) == Arrives(0.01, 1)


def test_jitter_never_turns_packets_round() -> None:
    one = wire(Path(0.01, jitter_s=0.02))
    fates = [one.fate(number / 1000, 64) for number in range(200)]
    times = [fate.due for fate in fates if isinstance(fate, Arrives)]
    assert times == sorted(times)
    assert max(time - number / 1000 for number, time in enumerate(times)) > 0.02


def test_reordered_packets_come_behind_later_ones() -> None:
    one = wire(Path(0.01, reorder=0.3))
    fates = [one.fate(number / 1000, 64) for number in range(100)]
    late = [fate for number, fate in enumerate(fates) if fate == Arrives(number / 1000 + 0.01 + REORDER_SECONDS, 54)]
    assert 15 < len(late) < 45


def test_loss_is_the_share_that_was_asked_for_and_the_same_every_time() -> None:
    runs = [
        [isinstance(one.fate(0, 64), Lost) for _ in range(2000)] for one in (wire(Path(loss=0.2)), wire(Path(loss=0.2)))
    ]
    assert 340 < sum(runs[0]) < 460
    assert runs[0] == runs[1]


def internet(nat: UserNat | None = None, answers: bool = True) -> Internet:
    """Return an internet with two sites."""
    left = Site("left", "-", (LEFT, LEFT6), nat)
    right = Site("right", "-", (RIGHT, RIGHT6))
    return Internet(Plan((left, right), (("right", "left", Path(0.05)),), Path(0.01), 1, answers, "-"))


def test_a_segment_is_carried_and_logged() -> None:
    net = internet()
    net.enters("left", segment(), 100.0)
    assert net.due(100.009) == []
    assert net.next_due() == pytest.approx(100.01)
    [(site, data)] = net.due(100.011)
    assert (site, parsed(data).ttl) == ("right", 54)
    assert (net.log.syns("left"), net.log.syns("right")) == (1, 0)


def test_each_direction_has_its_own_delay() -> None:
    net = internet()
    net.enters("right", segment(RIGHT, 1, LEFT, 2), 100.0)
    assert net.next_due() == pytest.approx(100.05)


def test_what_conntrack_did_not_translate_is_not_carried() -> None:
    net = internet()
    net.enters("left", segment("192.168.1.2"), 0.0)
    net.enters("left", segment(target="203.0.113.1"), 0.0)
    assert [one.fate for one in net.log.records] == [FOREIGN_SOURCE, NO_SUCH_SITE]
    assert net.next_due() is None


@pytest.mark.parametrize(("source", "target"), [(LEFT, RIGHT), (LEFT6, RIGHT6)])
def test_the_sender_hears_of_an_expired_ttl(source: str, target: str) -> None:
    net = internet()
    net.enters("left", segment(source, target=target, ttl=3), 0.0)
    [(site, data)] = net.due(1.0)
    assert (site, parsed(data).target) == ("left", source)


def test_the_quote_in_the_answer_has_the_ttl_that_the_last_router_saw() -> None:
    net = internet()
    net.enters("left", segment(ttl=4), 0.0)
    quoted = packets.quoted_packet(parsed(net.due(1.0)[0][1]))
    assert quoted is not None
    assert quoted.ttl == 1


def test_an_internet_that_does_not_answer_is_silent_about_expired_ttls() -> None:
    net = internet(answers=False)
    net.enters("left", segment(ttl=3), 0.0)
    assert net.due(1.0) == []


def test_a_userspace_nat_stands_between_its_site_and_the_paths() -> None:
    net = internet(UserNat(drops_bare_syn=True))
    net.enters("left", segment("192.168.1.2"), 0.0)
    [(_site, data)] = net.due(1.0)
    assert (parsed(data).source, parsed(data).ttl) == (LEFT, 53)
    net.enters("right", segment(RIGHT, 2222, LEFT, 1111, SYN), 1.0)
    assert net.due(2.0) == []
    assert [one.fate for one in net.log.records] == [DELIVERED, "usernat: bare inbound SYN"]


def test_a_plan_survives_its_way_through_json() -> None:
    plan = Plan(
        (Site("left", "space", (LEFT,), UserNat(dies_by_rst=True, idle_s=60.0)),),
        (("a", "b", Path()),),
        Path(),
        3,
        True,
        "f",
    )
    assert Plan.from_json(plan.to_json()) == plan


def long_segment(*, df: bool) -> bytes:
    """Return an IPv4 packet of 1500 bytes."""
    data = segment(payload=bytes(range(146)) * 10)
    place = bytes([0x40 if df else 0, 0])
    header = data[:6] + place + data[8:10] + b"\0\0" + data[12:20]
    return header[:10] + packets.checksum(header).to_bytes(2, "big") + header[12:] + data[20:]


def narrow() -> Internet:
    """Return an internet whose way to the right has an MTU of 1400."""
    sites = Site("left", "-", (LEFT, LEFT6)), Site("right", "-", (RIGHT, RIGHT6))
    return Internet(Plan(sites, (("left", "right", Path(0.01, mtu=1400)),), Path(0.01), 1, True, "-"))


def test_a_packet_that_is_too_long_vanishes_and_nothing_says_so() -> None:
    net = narrow()
    net.enters("left", long_segment(df=True), 0.0)
    assert net.next_due() is None
    assert [record.fate for record in net.log.records] == [TOO_LARGE]


def test_a_packet_without_df_is_cut_into_fragments_that_make_it_up() -> None:
    net, whole = narrow(), long_segment(df=False)
    net.enters("left", whole, 0.0)
    pieces = [data for _, data in net.due(1.0)]
    assert [len(data) for data in pieces] == [1396, 124]
    assert [int.from_bytes(data[6:8], "big") for data in pieces] == [0x2000, (1396 - 20) // 8]
    assert b"".join(data[20:] for data in pieces) == whole[20:]
    assert [packets.checksum(data[:20]) for data in pieces] == [0, 0]


def test_nothing_arrives_during_an_outage() -> None:
    one = wire(Path(outage_s=(1.0, 2.0)))
    arrives = {now: isinstance(one.fate(now, 64), Arrives) for now in (5.0, 5.9, 6.0, 6.9, 7.0)}
    assert arrives == {5.0: True, 5.9: True, 6.0: False, 6.9: False, 7.0: True}
