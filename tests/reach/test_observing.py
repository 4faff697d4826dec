"""How STUN servers see our ports, for a peer to dial: over the loopback, as if a router stood before the servers."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from punchtunnel.address import Place
from punchtunnel.errors import SignalError
from punchtunnel.protocol.offers import NO_PORT, Offered, PortUse, Source
from punchtunnel.protocol.schedule import HIGHEST_PORT, LOWEST_PORT
from punchtunnel.punching import ports
from punchtunnel.reach import stun
from punchtunnel.reach.observing import OWN_PORTS, Observed, fresh_ports, observe
from punchtunnel.system.signals import Wake

from .stunserver import Reply, server

OUTSIDE, OUTSIDE6 = "203.0.113.9", "2001:db8::9"
# Seconds after which something hangs, and for a test that waits in vain.
HUNG, SHORT = 20.0, 0.2
# As getaddrinfo returns it.
Found = tuple[int, int, int, str, tuple[object, ...]]


def seen_as(place: str, port_of: Callable[[int], int]) -> Reply:
    """Answer as a server behind whose client is a router that makes other ports of the own ones."""

    def reply(request: bytes, client: tuple[str, int]) -> bytes:
        packed = ip_address(place).packed
        body = struct.pack("!HHBBH", 0x0001, 4 + len(packed), 0, 1 if len(packed) == 4 else 2, port_of(client[1]))
        return struct.pack("!HH", 0x0101, len(body + packed)) + request[4:] + body + packed

    return reply


def moved(port: int) -> int:
    """Return another port, the same towards everybody."""
    return 1024 + (port * 31) % 60000


@pytest.fixture
def own_ports() -> Iterator[list[int]]:
    """Return ports that nobody has, kept from others by sockets that are bound to another address."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(OWN_PORTS)]
        for sock in held:
            sock.bind(("127.0.0.3", 0))
        yield [sock.getsockname()[1] for sock in held]


def look(servers: list[Place], own_ports: list[int], **kwargs: object) -> Observed:
    return observe(servers, own_ports, bind="127.0.0.1", patience=HUNG, **kwargs)  # type: ignore[arg-type]


def test_the_first_two_ports_are_offered_as_the_servers_see_them(own_ports: list[int]) -> None:
    with server(seen_as(OUTSIDE, moved)) as one, server(seen_as(OUTSIDE, moved)) as other:
        observed = look([one, other], own_ports)
        with contextlib.closing(observed):
            assert observed.candidates == tuple(Offered(Source.OBSERVED, OUTSIDE, moved(p)) for p in own_ports[:2])
            assert observed.own_ports == tuple(own_ports[:2])
            assert observed.hosts == (OUTSIDE,)
            assert (observed.port_use, observed.compared) == (PortUse.INDEPENDENT, True)
            assert observed.last == moved(own_ports[3])
            assert (observed.low, observed.high) == (min(map(moved, own_ports)), max(map(moved, own_ports)))


def test_one_server_cannot_tell_whether_others_see_the_same(own_ports: list[int]) -> None:
    with server(seen_as(OUTSIDE, moved), together=OWN_PORTS) as one:
        observed = look([one], own_ports)
    observed.close()
    assert (observed.port_use.is_hard, observed.compared) == (True, False)


def counting(step: int) -> Callable[[int], int]:
    numbers = itertools.count(40000, step)
    return lambda _: next(numbers)


def drawn(low: int, high: int) -> Callable[[int], int]:
    rng = random.Random(1)
    return lambda _: rng.randint(low, high)


@pytest.mark.parametrize(
    ("port_of", "use"),
    [
        (lambda port: port, PortUse.PRESERVING), (counting(1), PortUse.SEQUENTIAL),
        (drawn(20000, 20511), PortUse.WINDOW), (drawn(1024, 65535), PortUse.RANDOM),
    ],
)  # fmt: skip
def test_how_the_router_chooses_ports_is_told(
    port_of: Callable[[int], int], use: PortUse, own_ports: list[int]
) -> None:
    with server(seen_as(OUTSIDE, port_of), together=OWN_PORTS) as one:
        observed = look([one], own_ports)
    observed.close()
    assert observed.port_use is use
    assert observed.low <= observed.last <= observed.high


class Watched:
    """Knows what becomes of the connections of a server."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(HUNG)
        self.place = Place(*self.listener.getsockname())
        self.conns: dict[int, socket.socket] = {}

    def serve(self, count: int, *, answers: bool = True) -> None:
        for _ in range(count):
            sock, client = self.listener.accept()
            sock.settimeout(HUNG)
            self.conns[client[1]] = sock
            if answers:
                sock.sendall(seen_as(OUTSIDE, moved)(sock.recv(20, socket.MSG_WAITALL), client))

    def is_open(self, port: int) -> bool:
        """Tell whether a connection stands; one that was closed says so at once, on the loopback."""
        sock = self.conns[port]
        sock.setblocking(False)
        try:
            return bool(sock.recv(64))
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        finally:
            sock.settimeout(HUNG)

    def close(self) -> None:
        for sock in (self.listener, *self.conns.values()):
            sock.close()


@pytest.fixture
def watched() -> Iterator[Watched]:
    with contextlib.closing(Watched()) as one:
        yield one


def test_what_keeps_the_ports_mapped_stays_open_until_the_end_and_nothing_else(
    watched: Watched, own_ports: list[int]
) -> None:
    thread = threading.Thread(target=watched.serve, args=(OWN_PORTS,))
    thread.start()
    observed = look([watched.place], own_ports)
    thread.join(HUNG)
    assert [watched.is_open(port) for port in own_ports] == [True, True, False, False]
    observed.close()
    assert [watched.is_open(port) for port in own_ports] == [False] * OWN_PORTS
    observed.close()


def test_a_port_that_is_seen_can_be_listened_on_and_dialled_from(own_ports: list[int]) -> None:
    with server(seen_as(OUTSIDE, moved)) as one, contextlib.closing(look([one], own_ports)) as observed:
        port = observed.own_ports[0]
        with (
            ports.listening_socket(socket.AF_INET, "127.0.0.1", port, shared=True) as listener,
            ports.dialling_socket(socket.AF_INET, "127.0.0.1", port) as dial,
            socket.create_connection(listener.getsockname(), HUNG),
            socket.create_server(("127.0.0.2", 0)) as other,
        ):
            dial.settimeout(HUNG)
            dial.connect(other.getsockname())


def test_a_port_that_another_program_has_is_left_out(own_ports: list[int]) -> None:
    with socket.socket() as taken, server(seen_as(OUTSIDE, moved)) as one:
        taken.bind(("127.0.0.1", own_ports[0]))
        with contextlib.closing(look([one], own_ports)) as observed:
            assert observed.own_ports == (own_ports[1],)


@pytest.mark.parametrize("place", ["192.168.1.2", "127.0.0.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", OUTSIDE6])
def test_an_address_that_is_no_public_one_of_that_ip_version_is_offered_to_nobody(
    place: str, own_ports: list[int]
) -> None:
    with server(seen_as(place, moved)) as one, contextlib.closing(look([one], own_ports)) as observed:
        assert (observed.candidates, observed.own_ports) == ((), ())
        assert observed.hosts == ((place,) if place == OUTSIDE6 else ())


def test_a_port_of_a_server_is_offered_to_nobody(own_ports: list[int]) -> None:
    with server(seen_as(OUTSIDE, lambda _: 443)) as one, contextlib.closing(look([one], own_ports)) as observed:
        assert observed.candidates == ()


def test_ipv6_is_asked_about_the_ports_that_are_offered() -> None:
    own = fresh_ports(random.SystemRandom())
    with server(seen_as(OUTSIDE6, lambda port: port), host="::1") as one:
        observed = observe([one], own, patience=HUNG)
    observed.close()
    # Another program may have one of them.
    assert set(observed.own_ports) <= set(own)
    assert {one.host for one in observed.candidates} == {OUTSIDE6}
    assert (observed.port_use, observed.last) == (PortUse.UNKNOWN, NO_PORT)


def test_the_ports_are_of_the_range_of_punches() -> None:
    own = fresh_ports(random.Random(1))
    assert len(set(own)) == OWN_PORTS
    assert LOWEST_PORT <= min(own) <= max(own) <= HIGHEST_PORT


def test_a_server_that_talks_nonsense_costs_only_its_answers(own_ports: list[int]) -> None:
    with (
        server(lambda *_: b"SSH-2.0-OpenSSH_9.2\r\n") as bad,
        server(seen_as(OUTSIDE, moved)) as good,
        contextlib.closing(look([bad, good], own_ports)) as observed,
    ):
        assert len(observed.candidates) == 2


def test_a_server_that_says_nothing_is_waited_for_so_long_and_nothing_is_left(
    watched: Watched, own_ports: list[int]
) -> None:
    thread = threading.Thread(target=watched.serve, args=(OWN_PORTS,), kwargs={"answers": False})
    thread.start()
    observed = observe([watched.place], own_ports, bind="127.0.0.1", patience=SHORT)
    thread.join(HUNG)
    assert observed == Observed()
    for port in own_ports:
        with contextlib.suppress(ConnectionResetError):
            watched.conns[port].recv(20)
        assert not watched.is_open(port)


def test_more_than_an_answer_is_read_from_nobody(own_ports: list[int]) -> None:
    endless = struct.pack("!HH", 0x0101, 0xFFFC)
    with server(lambda request, _: endless + request[4:] + bytes(stun.MAX_ANSWER)) as one:
        assert look([one], own_ports) == Observed()


def test_a_name_server_that_is_silent_is_not_waited_for_any_longer(own_ports: list[int]) -> None:
    silent = threading.Event()

    def look_up(*_: object) -> list[Found]:
        silent.wait(HUNG)
        return []

    try:
        with server(seen_as(OUTSIDE, moved)) as one:
            observed = observe(
                [Place("stun.example", one.port)], own_ports, bind="127.0.0.1", patience=SHORT, look_up=look_up
            )  # fmt: skip
        assert observed == Observed()
    finally:
        silent.set()


def test_a_name_is_looked_up(own_ports: list[int]) -> None:
    with server(seen_as(OUTSIDE, moved)) as one:

        def look_up(host: str, port: int, *_: object) -> list[Found]:
            assert (host, port) == ("stun.example", one.port)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        with contextlib.closing(look([Place("stun.example", one.port)], own_ports, look_up=look_up)) as observed:
            assert len(observed.candidates) == 2


def test_who_is_told_to_end_ends_at_once_and_leaves_nothing(watched: Watched, own_ports: list[int]) -> None:
    with Wake() as wake:
        asked = threading.Event()

        def serve() -> None:
            watched.serve(OWN_PORTS, answers=False)
            asked.set()
            wake.note(signal.SIGTERM)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(SignalError):
            look([watched.place], own_ports, wake=wake)
        thread.join(HUNG)
        assert asked.is_set()
    for port in own_ports:
        with contextlib.suppress(ConnectionResetError):
            watched.conns[port].recv(20)
        assert not watched.is_open(port)


def test_without_servers_nothing_is_known() -> None:
    assert observe([], [20000]) == Observed()
