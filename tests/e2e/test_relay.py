"""Two sides that name a relay, as processes: it carries, it fails, and it does harm.

    left end ──┐                            ┌── right end      each with an address of its own on the loopback,
               └── HostileRelay (a thread) ─┘                  which is no candidate: nothing is ever direct here

What becomes direct is for tests/natlab/relay_cells.py.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from _pytest.mark import ParameterSet

from punchtunnel.protocol.secret import fresh, normal
from punchtunnel.system.addresses import own_addresses

from .ends import DEVNULL, End, Lab
from .flows import MIB, WAIT, echo, noise, receive
from .harm import NONE, Harm, first
from .hostile_relay import HostileRelay, dead_port
from .test_sealed import knowing

SECRET, ANOTHER = fresh(os.urandom), fresh(os.urandom)
NO_HOLE, WRONG_SECRET = 3, 4
# More than hellos, keys, offers, pings and goodbyes of some connections take, and much less than payload.
WORDS_ONLY = 16384
# A mebibyte and a bit, which nothing compresses.
DATA, BACK = noise(MIB + 4321, 1), noise(MIB + 1234, 2)


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: who names a relay has a sealed link."""
    return []


@pytest.fixture
def relay() -> Iterator[HostileRelay]:
    with HostileRelay() as relay:
        yield relay


def start(lab: Lab, own: str, *arguments: str, secret: str = SECRET) -> End:
    """Start an end that is given no PEER."""
    return lab.start("--channel", lab.channel, "--bind", own, *arguments, shell=knowing(secret))


def pair(lab: Lab, relay: HostileRelay, *options: str) -> tuple[End, End]:
    """Start two ends that have nothing but the relay."""
    both = ("--relay", relay.place, *options)
    return start(lab, lab.left, *both), start(lab, lab.right, *both)


def in_pieces(data: bytes, size: int = 65536) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def carries(lab: Lab, left: End, right: End) -> None:
    """Send bytes both ways, and see that both sides end well and have got them all."""
    left.feed(in_pieces(DATA))
    right.feed(in_pieces(BACK))
    back: list[bytes] = []
    lab.in_background(lambda: back.append(left.receive()))
    assert right.receive() == DATA, f"{left}\n{right}"
    assert (left.status(), right.status()) == (0, 0), f"{left}\n{right}"
    assert back == [BACK]


def given_up(end: End) -> str:
    """Wait until there is no hole, and return why."""
    assert end.status() == NO_HOLE, str(end)
    return end.reason


# ---- it carries


def test_a_pipe_goes_through_the_relay_and_both_sides_are_told(lab: Lab, relay: HostileRelay) -> None:
    left, right = pair(lab, relay)
    carries(lab, left, right)
    for end in (left, right):
        assert end.wait_for("relayed")["relay"] == relay.place
        assert end.wait_for("hole")["remote"] == f"the peer through the relay {relay.place}"
    assert relay.carried > len(DATA) + len(BACK)


def test_a_port_is_reached_through_the_relay(lab: Lab, relay: HostileRelay) -> None:
    right = start(lab, lab.right, "--relay", relay.place, "--to", str(lab.serve(echo)))
    left = start(lab, lab.left, "--relay", relay.place, "-L", "0")
    for _ in range(2):
        client = lab.connect(left.port)
        lab.in_background(partial(client.sendall, DATA))
        assert receive(client, len(DATA)) == DATA
        client.close()
    left.process.send_signal(signal.SIGTERM)
    assert left.status() == 143
    right.status()


def test_a_path_is_checked_through_the_relay(lab: Lab, relay: HostileRelay) -> None:
    left, right = pair(lab, relay, "-z")
    assert (left.status(), right.status()) == (0, 0)
    assert relay.carried < WORDS_ONLY


def test_clients_of_one_service_meet_each_other_and_are_served_all_the_same(lab: Lab, relay: HostileRelay) -> None:
    service = start(lab, lab.right, "--relay", relay.place, "-k", "--to", str(lab.serve(echo)))
    clients = [start(lab, lab.left, "--relay", relay.place, "-L", "0") for _ in range(2)]
    for end in clients:
        end.wait_for("link_up")
        client = lab.connect(end.port)
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"
    # One after the other: the end of the service is a reason for a client to end, too, and may be read first.
    for end in (*clients, service):
        end.process.send_signal(signal.SIGTERM)
        assert end.status() == 143


def test_a_relay_that_is_dead_keeps_nobody_from_another_one(lab: Lab, relay: HostileRelay) -> None:
    with dead_port() as port:
        options = ("--relay", f"127.0.0.1:{port}")
        left, right = pair(lab, relay, *options)
        carries(lab, left, right)
        assert str(port) in left.wait_for("relay_trouble")["reason"]


def test_a_relay_that_is_gone_for_a_while_loses_nothing(lab: Lab) -> None:
    relay = HostileRelay()
    with contextlib.ExitStack() as stack:
        stack.callback(relay.close)
        left, right = pair(lab, relay)
        flow = left.feed(in_pieces(DATA, 4096))
        head = right.receive(len(DATA) // 2)
        port = relay.port
        stack.close()
        stack.enter_context(HostileRelay(port=port))
        for end in (left, right):
            end.wait_for("resumed")
        right.send_eof()
        assert head + right.receive() == DATA
        flow.join(WAIT)
        assert (left.status(), right.status()) == (0, 0)


# ---- what it learns


def test_it_is_told_neither_the_secret_nor_payload_nor_an_address(lab: Lab, relay: HostileRelay) -> None:
    # Without --bind: what this machine's addresses are is offered.
    options = ("--channel", lab.channel, "--relay", relay.place)
    ends = [lab.start(*options, shell=knowing(SECRET)) for _ in range(2)]
    needle = b"needle in the payload "
    for end in ends:
        end.wait_for("link_up")
        end.feed([needle * 100])
    assert [end.receive() for end in ends] == [needle * 100] * 2
    assert [end.status() for end in ends] == [0, 0]
    heard = relay.heard
    secret = normal(SECRET)
    assert len(heard) > 500
    for told in (needle, secret, secret.upper(), SECRET.encode(), lab.channel.encode()):
        assert told not in heard
    for address in map(ipaddress.ip_address, {host.partition("%")[0] for host in own_addresses()}):
        assert str(address).encode() not in heard
        # As offers have them.
        assert address.packed.ljust(16, b"\0") not in heard


@pytest.mark.parametrize("options", [("--meet", "--meet"), ("--meet", "--relay"), ("--relay", "--meet")])
def test_no_payload_passes_where_one_side_only_meets(lab: Lab, relay: HostileRelay, options: tuple[str, str]) -> None:
    left = start(lab, lab.left, options[0], relay.place, "-w", "8")
    right = start(lab, lab.right, options[1], relay.place, "-w", "60")
    for end in (left, right):
        end.feed([DATA])
    reason = given_up(left)
    assert f"met at the relay {relay.place}" in reason
    assert "--relay on both sides" in reason
    right.process.send_signal(signal.SIGTERM)
    assert right.status() == 143
    assert (left.receive(), right.receive()) == (b"", b"")
    assert 0 < relay.carried < WORDS_ONLY


# ---- it does harm


# Offsets in the hello, in the key agreement, in the first records, and in the payload.
EARLY, LATE = (3, 100, 200, 400), (100_000, 700_000)


def shown(harm: Harm) -> str:
    values = {name: getattr(harm, name) for name in harm.__slots__}
    return ", ".join(f"{name} {value}" for name, value in values.items() if value)


def harms(places: tuple[int, ...], sample: int) -> Iterator[ParameterSet]:
    """Yield what can be done at each place, of which one place is a sample."""
    for at in places:
        marks = () if at == sample else (pytest.mark.exhaustive,)
        for harm in (Harm(flips=at), Harm(cut_at=at), Harm(repeats=(at, at + 50)), Harm(leaves_out=(at, at + 50))):
            yield pytest.param(harm, marks=marks, id=shown(harm))


either_way = pytest.mark.parametrize("back", [False, True], ids=["forth", "back"])


@pytest.mark.parametrize("harm", list(harms(LATE, 100_000)))
@either_way
def test_what_is_changed_in_the_session_is_noticed_and_sent_again(lab: Lab, harm: Harm, back: bool) -> None:
    with HostileRelay(first(1, *((NONE, harm) if back else (harm, NONE)))) as relay:
        left, right = pair(lab, relay)
        carries(lab, left, right)
        assert relay.pairs > 1


@pytest.mark.parametrize("harm", list(harms(EARLY, 100)))
@either_way
def test_what_is_changed_before_the_session_costs_that_meeting_or_the_session_and_no_byte(
    lab: Lab, harm: Harm, back: bool
) -> None:
    """One side may know of a session of which the other has not heard: it ends, and says so."""
    with HostileRelay(first(1, *((NONE, harm) if back else (harm, NONE)))) as relay:
        ends = pair(lab, relay, "-w", "10", "--resume", "5")
        for end, data in zip(ends, (DATA, BACK), strict=True):
            end.feed(in_pieces(data))
        got: dict[End, bytes] = {}
        lab.in_background(lambda: got.update({ends[0]: ends[0].receive()}))
        got[ends[1]] = ends[1].receive()
        for end, data in zip(ends, (BACK, DATA), strict=True):
            status = end.status()
            assert got[end] == (data if status == 0 else b""), str(end)
            assert status == 0 or end.reason
        assert relay.pairs > 1


@pytest.mark.parametrize("harm", [Harm(flips=3), Harm(cut_at=50), Harm(flips=100), Harm(leaves_out=(0, 1))], ids=shown)
def test_what_is_changed_each_time_ends_without_a_hole_and_without_a_byte(lab: Lab, harm: Harm) -> None:
    with HostileRelay(lambda _: (harm, harm)) as relay:
        ends = pair(lab, relay, "-w", "6")
        for end in ends:
            end.feed([DATA])
        for end in ends:
            # A changed key agreement looks like another secret.
            assert end.status() in (NO_HOLE, WRONG_SECRET)
            assert end.reason
            assert end.receive() == b""


def test_a_session_that_is_cut_each_time_before_its_first_byte_passes_none(lab: Lab) -> None:
    with HostileRelay(lambda _: (Harm(flips=400), Harm(flips=400))) as relay:
        ends = pair(lab, relay)
        for end in ends:
            end.feed([DATA])
        relay.wait_until(lambda relay: relay.pairs > 4)
        for end in ends:
            end.process.send_signal(signal.SIGTERM)
        for end in ends:
            assert end.status() in (1, 143)
            assert end.receive() == b""


def test_what_comes_late_is_only_late(lab: Lab) -> None:
    slow = Harm(delay_s=0.05)
    with HostileRelay(lambda _: (slow, slow)) as relay:
        carries(lab, *pair(lab, relay))
        assert relay.pairs == 1


def test_what_is_changed_each_time_late_lets_right_bytes_pass_and_no_other(lab: Lab) -> None:
    each = Harm(flips=400_000)
    with HostileRelay(lambda _: (each, each)) as relay:
        carries(lab, *pair(lab, relay))
        assert relay.pairs > 2


def test_what_is_held_comes_late(lab: Lab) -> None:
    with HostileRelay(lambda number: (Harm(held=number == 0), NONE)) as relay:
        left, right = pair(lab, relay)
        relay.wait_until(lambda relay: relay.pairs == 1)
        relay.release()
        carries(lab, left, right)


def _nothing(said: bytes) -> bytes:
    del said
    return b""


def _other_bytes(said: bytes) -> bytes:
    return noise(len(said), 3)


def _the_same(said: bytes) -> bytes:
    return said


@pytest.mark.parametrize("what", [_nothing, _other_bytes, _the_same], ids=["nothing", "noise", "a recording"])
def test_somebody_with_the_token_only_costs_time(lab: Lab, relay: HostileRelay, what: Callable[[bytes], bytes]) -> None:
    carries(lab, *pair(lab, relay))
    with HostileRelay(replays=(3, what(bytes(relay.talks[0].said)))) as squatter:
        left, right = pair(lab, squatter)
        carries(lab, left, right)
        assert squatter.pairs == 4


def test_a_relay_that_joins_strangers_keeps_them_apart_and_no_more(lab: Lab) -> None:
    with HostileRelay(crosses=True) as relay:
        options = ("--relay", relay.place, "-w", "5")
        ends = [start(lab, lab.left, *options, secret=secret) for secret in (SECRET, ANOTHER)]
        for end in ends:
            end.feed([DATA])
        relay.wait_until(lambda relay: relay.pairs)
        for end in ends:
            assert end.status() == WRONG_SECRET, str(end)
            assert end.reason.startswith("wrong secret")
            assert end.find("hole") == []
            assert end.receive() == b""
        assert relay.carried < WORDS_ONLY


# ---- it is none


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"impatient\n", "something was sent too early"),
        (b"bad handshake\n", "does not understand"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no transit relay"),
        (b"", "ends the connection"),
    ],
    ids=["impatient", "bad handshake", "HTTP", "nothing"],
)
def test_what_is_no_relay_is_told_as_that(lab: Lab, answer: bytes, sentence: str) -> None:
    with HostileRelay(ok=answer) as relay:
        end = start(lab, lab.left, "--relay", relay.place, "-w", "3")
        assert sentence in end.wait_for("relay_trouble")["reason"]
        reason = given_up(end)
        assert relay.place in reason
        assert sentence in reason


def test_a_relay_that_is_not_there_is_told_as_that(lab: Lab) -> None:
    with dead_port() as port:
        end = start(lab, lab.left, "--meet", f"127.0.0.1:{port}", "-w", "3")
        reason = given_up(end)
        assert f"127.0.0.1:{port}" in reason
        assert os.strerror(111) in reason


def test_a_relay_at_which_nobody_is_is_told_as_that(lab: Lab, relay: HostileRelay) -> None:
    end = start(lab, lab.left, "--relay", relay.place, "-w", "2")
    assert f"nobody was met at the relay {relay.place}" in given_up(end)


# ---- what is refused


@pytest.mark.parametrize("option", ["--meet", "--relay"])
@pytest.mark.parametrize(
    ("options", "secret", "sentence"),
    [
        ([], "open sesame", "--new-secret"),
        ([], "correct horse battery staple and a long tail", "--new-secret"),
        ([], "", "no secret to meet with"),
        (["--plain"], "", "leave out --plain"),
        (["--resume", "0"], SECRET, "--resume 0"),
    ],
    ids=["short", "long", "none", "plain", "no resume"],
)
def test_what_must_not_meet_is_refused_before_anything_is_sent(
    lab: Lab, relay: HostileRelay, option: str, options: list[str], secret: str, sentence: str
) -> None:
    end = lab.start(option, relay.place, *options, stdout=DEVNULL, shell=knowing(secret))
    assert end.status() == 2
    assert sentence in end.reason
    assert relay.talks == []
