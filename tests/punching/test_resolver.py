"""PEERs become addresses without ever holding up the punch."""

from __future__ import annotations

import errno
import functools
import os
import select
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from ipaddress import IPv6Network

import pytest

from punchtunnel import words
from punchtunnel.address import parse_peer
from punchtunnel.errors import LocalError, UsageError
from punchtunnel.punching import puncher, whereabouts
from punchtunnel.punching.resolver import REFRESH, Answer, LookUps, Resolver
from punchtunnel.punching.settings import Settings
from punchtunnel.system.addresses import Address, is_own

V4, V6 = socket.AF_INET, socket.AF_INET6
OURSELVES = Address(V4, "127.0.0.1", own=True)

Found = Sequence[tuple[int, int, int, str, tuple[object, ...]]]


class Names:
    """A stand-in for getaddrinfo that knows a few names, and can be held up."""

    def __init__(self, names: dict[str, list[str] | OSError]) -> None:
        self.names = names
        self.asked: list[tuple[str, int]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, name: str, port: None, family: int, kind: int) -> Found:
        self.asked.append((name, family))
        assert self.go_on.wait(30)
        known = self.names[name]
        if isinstance(known, OSError):
            raise known
        return [
            (V6, kind, 6, "", (host, 0, 0, 0)) if ":" in host else (V4, kind, 6, "", (host, 0))
            for host in known
            if family in (socket.AF_UNSPEC, V6 if ":" in host else V4)
        ]


def gai_error(number: int) -> socket.gaierror:
    return socket.gaierror(number, "it failed")


NO_SUCH_NAME = gai_error(socket.EAI_NONAME)
TRY_AGAIN = gai_error(socket.EAI_AGAIN)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def ask(resolver: Resolver) -> Answer:
    """Look everything up, as the loop of the punch does."""
    with closing(resolver):
        resolver.start()
        readable, _, _ = select.select([resolver], [], [], 30)
        assert readable == [resolver]
        return resolver.take()


@pytest.mark.parametrize(
    ("peer", "address"), [("198.51.100.7", Address(V4, "198.51.100.7")), ("2001:db8::7", Address(V6, "2001:db8::7"))]
)
def test_a_literal_is_answered_at_once_and_needs_no_look_up(peer: str, address: Address) -> None:
    with closing(Resolver([peer])) as resolver:
        assert not resolver.has_names
        assert resolver.literals() == Answer((address,))


def test_names_are_left_out_of_the_answer_for_literals() -> None:
    names = Names({"198.51.100.7": ["198.51.100.7"]})
    with closing(Resolver(["home.example", "198.51.100.7"], look_up=names)) as resolver:
        assert resolver.has_names
        assert resolver.literals().addresses == (Address(V4, "198.51.100.7"),)
        assert names.asked == [("198.51.100.7", socket.AF_UNSPEC)]


def test_a_name_has_all_its_addresses_of_both_families() -> None:
    names = Names({"home": ["198.51.100.7", "2001:db8::7"], "also": ["198.51.100.8", "198.51.100.7"]})
    assert ask(Resolver(["home", "also"], look_up=names)).addresses == (
        Address(V4, "198.51.100.7"),
        Address(V6, "2001:db8::7"),
        Address(V4, "198.51.100.8"),
    )


@pytest.mark.parametrize(("family", "host"), [(V4, "198.51.100.7"), (V6, "2001:db8::7")])
def test_one_family_is_asked_for_alone(family: socket.AddressFamily, host: str) -> None:
    names = Names({"home": ["198.51.100.7", "2001:db8::7"]})
    assert ask(Resolver(["home"], family, look_up=names)).addresses == (Address(family, host),)
    assert names.asked == [("home", family)]


@pytest.mark.parametrize(("bind", "family"), [("198.51.100.1", V4), ("2001:db8::1", V6)])
def test_a_bind_address_leaves_only_its_own_family(bind: str, family: socket.AddressFamily) -> None:
    names = Names({"home": ["198.51.100.7", "2001:db8::7"]})
    assert [address.family for address in ask(Resolver(["home"], bind=bind, look_up=names)).addresses] == [family]


def test_the_families_of_an_answer_alternate() -> None:
    names = Names({"home": ["2001:db8::7", "2001:db8::8", "198.51.100.7"]})
    answer = ask(Resolver(["home"], look_up=names))
    assert [address.family for address in answer.after(())] == [V6, V4, V6]


@pytest.mark.parametrize(("error", "lasting"), [(NO_SUCH_NAME, True), (TRY_AGAIN, False)])
def test_a_failure_has_a_sentence_and_tells_whether_to_try_again(error: OSError, lasting: bool) -> None:
    answer = ask(Resolver(["home"], look_up=Names({"home": error})))
    assert answer == Answer((), (words.unresolved("home", "it failed"),), lasting)


def test_one_temporary_failure_is_enough_to_try_again() -> None:
    names = Names({"one": TRY_AGAIN, "two": NO_SUCH_NAME})
    answer = ask(Resolver(["one", "two"], look_up=names))
    assert (len(answer.failed), answer.lasting) == (2, False)


def test_a_name_that_fails_does_not_hide_the_others() -> None:
    answer = ask(Resolver(["bad", "home"], look_up=Names({"bad": NO_SUCH_NAME, "home": ["198.51.100.7"]})))
    assert answer.addresses == (Address(V4, "198.51.100.7"),)
    assert len(answer.failed) == 1


def test_nothing_is_readable_while_a_look_up_hangs_and_starting_twice_is_one_look_up() -> None:
    names = Names({"home": ["198.51.100.7"]})
    names.go_on.clear()
    with closing(Resolver(["home"], look_up=names)) as resolver:
        resolver.start()
        resolver.start()
        assert select.select([resolver], [], [], 0)[0] == []
        names.go_on.set()
        assert select.select([resolver], [], [], 30)[0] == [resolver]
        assert resolver.take().addresses == (Address(V4, "198.51.100.7"),)
        assert select.select([resolver], [], [], 0)[0] == []
    assert len(names.asked) == 1


def test_a_name_is_looked_up_afresh_each_time() -> None:
    names = Names({"home": ["198.51.100.7"]})
    with closing(Resolver(["home"], look_up=names)) as resolver:
        for host in ("198.51.100.7", "198.51.100.8"):
            names.names["home"] = [host]
            resolver.start()
            assert select.select([resolver], [], [], 30)[0] == [resolver]
            assert resolver.take().addresses == (Address(V4, host),)


def test_a_look_up_that_hangs_is_left_behind_and_ends_quietly() -> None:
    names = Names({"home": ["198.51.100.7"]})
    names.go_on.clear()
    resolver = Resolver(["home"], look_up=names)
    resolver.start()
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "resolver")
    assert thread.daemon, "the process does not wait for it"
    resolver.close()
    names.go_on.set()
    thread.join(30)


def test_a_thread_that_is_refused_is_a_local_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under `prlimit --nproc` it was a traceback."""

    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with closing(Resolver(["home"])) as resolver:
        for _ in range(2):
            with pytest.raises(LocalError, match="ulimit -u"):
                resolver.start()


# ---- when names are looked up again


def due_after(*failures: bool) -> list[float]:
    """Return the seconds from each answer to the next look-up."""
    look_ups, now, pauses = LookUps(), 1000.0, []
    for failed in failures:
        assert not look_ups.take_due(now + 1e9), "a look-up is under way"
        look_ups.answered(now, failed=failed)
        pause = next(step / 2 for step in range(1000) if look_ups.take_due(now + step / 2))
        pauses.append(pause)
        now += pause
    return pauses


def test_a_look_up_without_a_descriptor_is_no_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `ulimit -n 8` the name "cannot be resolved", and the exit status was 2."""

    def refuse(_: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "dup", refuse)
    names = Names({"a.example": socket.gaierror(socket.EAI_NONAME, "Name or service not known")})
    with closing(Resolver(["a.example"], look_up=names)) as resolver:
        resolver.start()
        select.select([resolver], [], [], 30)
        answer = resolver.take()
    assert answer.refused
    assert "ulimit -n" in answer.failed[0]
    monkeypatch.setattr(whereabouts, "Resolver", functools.partial(Resolver, look_up=names))
    with pytest.raises(LocalError, match="ulimit -n"):
        puncher.open_hole(Settings(["a.example"], wait=30))


def test_a_failed_look_up_is_repeated_within_seconds_and_backs_off() -> None:
    """A name server that was away for 2 s cost 60, so that `-w 30` failed over it."""
    assert due_after(*[True] * 9) == [1, 2, 4, 8, 16, 32, REFRESH, REFRESH, REFRESH]


def test_an_answer_is_refreshed_soon_at_first_because_a_name_follows_its_address() -> None:
    """After a hole was lost the name still had the old address, and was looked up again 60 s later."""
    assert due_after(*[False] * 6) == [5, 10, 20, 40, REFRESH, REFRESH]


def test_an_answer_forgets_the_failures() -> None:
    assert due_after(True, True, False, True, False) == [1, 2, 20, 1, REFRESH]


def test_years_of_failures_are_no_overflow() -> None:
    assert due_after(*[True] * 2000)[-1] == REFRESH


# ---- IPv4 through a NAT64

ONLY_IPV4 = "ipv4only.arpa."
PREFIX, MAPPED = IPv6Network("64:ff9b::/96"), Address(V6, "64:ff9b::c633:6407")
KNOWN_THERE: dict[str, list[str] | OSError] = {
    "198.51.100.7": ["198.51.100.7"], "home": ["198.51.100.7"], ONLY_IPV4: ["64:ff9b::c000:aa", "64:ff9b::c000:ab"]
}  # fmt: skip


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> set[socket.AddressFamily]:
    """Return the families that have routes; each test changes them at will."""
    families = {V6}
    monkeypatch.setattr(
        "punchtunnel.punching.resolver.source_towards",
        lambda address, interface="": "an own address" if address.family in families else None,
    )
    monkeypatch.setattr("punchtunnel.punching.resolver.is_own", lambda address: False)
    return families


@pytest.mark.parametrize("peer", ["198.51.100.7", "home"])
def test_without_a_route_for_ipv4_it_is_dialled_through_the_nat64_as_well(
    routes: set[socket.AddressFamily], peer: str
) -> None:
    """A mobile network has IPv6 only: an IPv4 PEER failed as "no route"."""
    assert routes == {V6}
    names = Names(KNOWN_THERE)
    with closing(Resolver([peer], look_up=names)) as resolver:
        assert resolver.wants_nat64([Address(V4, "198.51.100.7")])
    answer = ask(Resolver([peer], look_up=names))
    assert (answer.addresses, answer.nat64) == ((Address(V4, "198.51.100.7"), MAPPED), PREFIX)
    assert names.asked[-1] == (ONLY_IPV4, V6)


@pytest.mark.parametrize(
    ("families", "peer", "family", "bind"),
    [
        ({V4, V6}, "198.51.100.7", socket.AF_UNSPEC, None),
        ({V4}, "198.51.100.7", socket.AF_UNSPEC, None),
        (set[socket.AddressFamily](), "198.51.100.7", socket.AF_UNSPEC, None),
        ({V6}, "2001:db8::7", socket.AF_UNSPEC, None),
        ({V6}, "198.51.100.7", V4, None),
        ({V6}, "198.51.100.7", socket.AF_UNSPEC, "192.0.2.1"),
    ],
)
def test_nobody_is_asked_for_a_nat64_that_is_not_needed(
    routes: set[socket.AddressFamily],
    families: set[socket.AddressFamily],
    peer: str,
    family: socket.AddressFamily,
    bind: str | None,
) -> None:
    routes.clear()
    routes.update(families)
    names = Names(KNOWN_THERE | {"2001:db8::7": ["2001:db8::7"]})
    answer = ask(Resolver([peer], family, bind, names))
    assert [name for name, _ in names.asked] == [peer]
    assert (len(answer.addresses), answer.nat64, answer.no_nat64) == (1, None, False)


@pytest.mark.parametrize("known", [NO_SUCH_NAME, TRY_AGAIN, ["2001:db8::7"]])
def test_a_network_without_a_nat64_leaves_the_address_as_it_is(
    routes: set[socket.AddressFamily], known: list[str] | OSError
) -> None:
    assert routes == {V6}
    answer = ask(Resolver(["198.51.100.7"], look_up=Names(KNOWN_THERE | {ONLY_IPV4: known})))
    assert answer == Answer((Address(V4, "198.51.100.7"),), no_nat64=True)


@pytest.mark.parametrize(("error", "prefix"), [(TRY_AGAIN, PREFIX), (NO_SUCH_NAME, None)])
def test_a_name_server_that_is_away_for_the_moment_takes_no_prefix_back(
    routes: set[socket.AddressFamily], error: OSError, prefix: IPv6Network | None
) -> None:
    assert routes == {V6}
    names = Names(dict(KNOWN_THERE))
    with closing(Resolver(["198.51.100.7"], look_up=names)) as resolver:
        for known, expected in ((KNOWN_THERE[ONLY_IPV4], PREFIX), (error, prefix)):
            names.names[ONLY_IPV4] = known
            resolver.start()
            assert select.select([resolver], [], [], 30)[0] == [resolver]
            answer = resolver.take()
            assert answer.nat64 == expected
            assert (MAPPED in answer.addresses) is (expected is not None)


# ---- this machine itself


@pytest.mark.parametrize(
    ("peers", "hosts"),
    [
        (["127.0.0.1"], ["127.0.0.1"]),
        (["me"], ["127.0.1.1"]),
        (["me"], ["127.0.0.1", "::1"]),
        (["me", "127.0.0.1"], ["::1", "127.0.0.9"]),
    ],
)
def test_every_own_address_is_the_same_machine(peers: list[str], hosts: list[str]) -> None:
    names = Names({"me": hosts, "127.0.0.1": ["127.0.0.1"]})
    if "::1" in hosts and not is_own(Address(V6, "::1")):
        pytest.skip("this machine has no IPv6")
    assert ask(Resolver(peers, look_up=names)).addresses == (OURSELVES,)


def test_an_own_address_stands_beside_others() -> None:
    names = Names({"me": ["127.0.0.1", "198.51.100.7"]})
    assert ask(Resolver(["me"], look_up=names)).addresses == (OURSELVES, Address(V4, "198.51.100.7"))


def test_a_bind_address_makes_two_own_addresses_two_machines() -> None:
    with closing(Resolver(["127.0.0.2"], bind="127.0.0.1")) as resolver:
        assert resolver.literals().addresses == (Address(V4, "127.0.0.2"),)
    with closing(Resolver(["127.0.0.1"], bind="127.0.0.1")) as resolver:
        assert resolver.literals().addresses == (OURSELVES,)


@pytest.mark.parametrize("peer", ["fe80::1%" + "a" * 64, "fe80::1%\udcff", "fe80::1%no such interface"])
def test_an_interface_that_cannot_exist_fails_with_a_sentence(peer: str) -> None:
    """The name of the interface was never checked: getaddrinfo raised UnicodeError."""
    try:
        checked = parse_peer(peer).host
    except UsageError:
        return
    with closing(Resolver([checked])) as resolver:
        answer = resolver.literals()
    assert (answer.addresses, len(answer.failed), answer.lasting) == ((), 1, True)
