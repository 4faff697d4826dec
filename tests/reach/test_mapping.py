"""The mapper's thread with routers on the loopback: what it tells, and what it leaves behind."""

from __future__ import annotations

import errno
import os
import select
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from random import Random
from typing import ClassVar

import pytest

from punchtunnel.address import Place
from punchtunnel.punching.helper import PortMapper, PortMapping, RouterNews
from punchtunnel.reach import leases, pcp, router, upnp
from punchtunnel.reach.mapping import Mapper
from punchtunnel.system import routes

from .fakes import KEY, FakeIgd, FakeRouter, Gateway

V4, V6 = socket.AF_INET, socket.AF_INET6
PORTS = {V4: [16049, 16050, 16051]}


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    yield
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the waits for an answer short: nobody answers in these tests."""
    monkeypatch.setattr(leases, "WAITS", (0.01,) * 4)
    monkeypatch.setattr(router, "UPNP_DELAY", 0.01)


def no_upnp() -> None:
    return None


def mapper_of(
    *gateways: Gateway, find_upnp: router.FindUpnp = no_upnp, interface: str = "", bind: str | None = None
) -> Mapper:
    ways = [routes.Gateway(V4, "lo", one.host) for one in gateways]
    return Mapper(KEY, interface, bind, rng=Random(1), look_up=lambda: ways, port=gateways[0].port, find_upnp=find_upnp)


def news_of(mapper: Mapper, wanted: Callable[[RouterNews], bool]) -> RouterNews:
    """Return the first news that is as wanted."""
    for _ in range(100):
        readable, _, _ = select.select([mapper], [], [], 30)
        assert readable == [mapper], mapper.take()
        if wanted(news := mapper.take()):
            return news
    pytest.fail("it tells something new for ever")


def mapping(port: int, by: str = "PCP", external: int = 0, host: str = "203.0.113.5") -> PortMapping:
    return PortMapping(V4, port, Place(host, external or port), by)


def two(news: RouterNews) -> bool:
    return len(news.mappings) == 2


@pytest.mark.parametrize("by", ["PCP", "NAT-PMP"])
def test_ports_are_mapped_and_taken_back_at_close(by: str) -> None:
    with closing(Gateway(FakeRouter({by}))) as gateway:
        mapper: PortMapper = mapper_of(gateway)
        assert isinstance(mapper, Mapper)
        with closing(mapper):
            mapper.want(PORTS)
            mapper.start()
            assert news_of(mapper, two) == mapper.heard() == RouterNews((mapping(16049, by), mapping(16050, by)))
            assert set(gateway.router.table) == {16049, 16050}
        gateway.wait_until(lambda: not gateway.router.table)


def test_ports_are_taken_back_at_release_and_mapped_again_when_they_are_wanted() -> None:
    with closing(Gateway(FakeRouter({"PCP"}))) as gateway, closing(mapper_of(gateway)) as mapper:
        mapper.start()
        for _ in range(2):
            mapper.want(PORTS)
            news_of(mapper, two)
            mapper.release()
            assert news_of(mapper, lambda news: not news.mappings) == RouterNews()
            gateway.wait_until(lambda: not gateway.router.table)


def test_another_external_port_is_told_as_it_is_where_all_are_taken() -> None:
    taken = FakeRouter({"PCP"}, others={16049: 1024, 16050: 1025, 16051: 1026})
    with closing(Gateway(taken)) as gateway, closing(mapper_of(gateway)) as mapper:
        mapper.want(PORTS)
        mapper.start()
        assert news_of(mapper, lambda news: bool(news.mappings)).mappings == (mapping(16049, external=1024),)


def test_a_refusal_and_a_second_nat_are_told() -> None:
    refusing = FakeRouter({"PCP"}, result=pcp.NOT_AUTHORIZED)
    with (
        closing(Gateway(refusing)) as first,
        closing(Gateway(FakeRouter({"PCP"}, "10.0.0.9"), "127.0.0.3", first.port)) as second,
        closing(mapper_of(first, second)) as mapper,
    ):
        mapper.want(PORTS)
        mapper.start()
        news = news_of(mapper, lambda news: bool(news.behind and news.refusals))
    assert (news.mappings, news.behind, news.silent) == ((), ("10.0.0.9",), False)
    assert "127.0.0.2 does not allow it" in news.refusals[0]


def test_a_refusal_is_told_when_all_have_answered() -> None:
    """The doctor took the first one for the last word, and told of no port where another router forwards one."""

    class Late(FakeRouter):
        """Does not hear the first copy of a request."""

        heard: ClassVar[list[bytes]] = []

        def answers(self, data: bytes, now: float) -> list[bytes]:
            self.heard.append(data)
            return super().answers(data, now) if len(self.heard) > 2 else []

    with (
        closing(Gateway(FakeRouter({"PCP"}, result=pcp.NOT_AUTHORIZED))) as first,
        closing(Gateway(Late({"PCP"}), "127.0.0.3", first.port)) as second,
        closing(mapper_of(first, second)) as mapper,
    ):
        mapper.want(PORTS)
        mapper.start()
        news = news_of(mapper, lambda news: bool(news.refusals))
    assert news.mappings


def test_one_router_of_two_is_enough() -> None:
    with (
        closing(Gateway(FakeRouter({"PCP"}))) as first,
        closing(Gateway(FakeRouter(set()), "127.0.0.3", first.port)) as second,
        closing(mapper_of(first, second)) as mapper,
    ):
        mapper.want(PORTS)
        mapper.start()
        assert news_of(mapper, two).silent is False


@pytest.mark.usefixtures("hasty")
def test_a_router_that_never_answers_is_silent() -> None:
    with closing(Gateway(FakeRouter(set()))) as gateway, closing(mapper_of(gateway)) as mapper:
        mapper.want(PORTS)
        mapper.start()
        assert news_of(mapper, lambda news: news.silent) == RouterNews(silent=True)


def test_a_router_where_nobody_listens_is_silent_at_once_and_asked_again_when_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "WAITS", (1000.0,) * 4)
    gateway = Gateway(FakeRouter({"PCP"}))
    with closing(mapper_of(gateway)) as mapper:
        gateway.close()
        mapper.want(PORTS)
        mapper.start()
        assert news_of(mapper, lambda news: news.silent) == RouterNews(silent=True)
        with closing(Gateway(gateway.router, gateway.host, gateway.port)):
            mapper.start()
            news_of(mapper, two)


def test_after_a_restart_of_the_router_its_table_is_filled_again() -> None:
    with closing(Gateway(FakeRouter({"PCP"}))) as gateway, closing(mapper_of(gateway)) as mapper:
        mapper.want(PORTS)
        mapper.start()
        news_of(mapper, two)
        gateway.router.table.clear()
        mapper.start()
        gateway.wait_until(lambda: set(gateway.router.table) == {16049, 16050})
        assert two(mapper.take())


def test_only_the_router_itself_is_listened_to() -> None:
    with closing(Gateway(FakeRouter(set()))) as gateway, closing(mapper_of(gateway)) as mapper:
        mapper.want({V4: [16049]})
        mapper.start()
        gateway.wait_until(lambda: bool(gateway.clients))
        (client,) = gateway.clients
        machine = leases.Leases(V4, "127.0.0.1", "", KEY, Random(1))
        machine.want([16049], 0.0)
        (forged,) = FakeRouter({"PCP"}, "198.51.100.66").answers(machine.step(0.0)[0], 0.0)
        with socket.socket(V4, socket.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.3", 0))
            stranger.sendto(forged, client)
        gateway.router.speaks.add("PCP")
        assert news_of(mapper, lambda news: bool(news.mappings)).mappings == (mapping(16049),)


def test_hostile_bytes_cost_nothing() -> None:
    with closing(Gateway(FakeRouter({"PCP"}))) as gateway, closing(mapper_of(gateway)) as mapper:
        gateway.noise = [
            b"",
            b"\0",
            b"\2",
            bytes(60_000),
            b"\xff" * 1100,
            b"\2\x81\0\0" + bytes(56),
            b"\0\x82" + bytes(14),
        ]
        mapper.want(PORTS)
        mapper.start()
        assert news_of(mapper, two).mappings == (mapping(16049), mapping(16050))


def test_a_bind_address_is_the_one_that_is_mapped() -> None:
    with closing(Gateway(FakeRouter({"PCP"}))) as gateway, closing(mapper_of(gateway, bind="127.0.0.9")) as mapper:
        mapper.want(PORTS)
        mapper.start()
        news_of(mapper, two)
        assert {host for host, _ in gateway.clients} == {"127.0.0.9"}


def test_only_routers_of_the_chosen_interface_and_family_are_asked() -> None:
    with closing(Gateway(FakeRouter({"PCP"}))) as gateway:
        for mapper in (mapper_of(gateway, interface="none0"), mapper_of(gateway, bind="::1")):
            with closing(mapper):
                mapper.want(PORTS)
                mapper.start()
        assert not gateway.clients


def test_an_interface_that_is_gone_is_a_refusal() -> None:
    way = routes.Gateway(V4, "none0", "127.0.0.2")
    with closing(Mapper(KEY, "none0", look_up=lambda: [way], find_upnp=no_upnp)) as mapper:
        mapper.want(PORTS)
        mapper.start()
        (refusal,) = news_of(mapper, lambda news: bool(news.refusals)).refusals
        assert "No such device" in refusal


def test_a_public_ipv4_address_needs_no_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    way = routes.Gateway(V4, "lo", "127.0.0.2")
    found = router.connect(way, 5351, bound=False)
    assert found is not None
    found[1].close()
    monkeypatch.setattr(router, "is_public", lambda host: True)
    assert router.connect(way, 5351, bound=False) is None


def test_a_router_that_is_no_more_is_let_go_of() -> None:
    ways = [routes.Gateway(V4, "lo", "127.0.0.2")]
    with (
        closing(Gateway(FakeRouter({"PCP"}))) as gateway,
        closing(Mapper(KEY, look_up=lambda: ways, port=gateway.port, find_upnp=no_upnp)) as mapper,
    ):
        mapper.want(PORTS)
        mapper.start()
        news_of(mapper, two)
        ways.clear()
        mapper.start()
        assert news_of(mapper, lambda news: not news.mappings) == RouterNews()
        gateway.wait_until(lambda: not gateway.router.table)


def test_a_thread_that_is_refused_is_told_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with closing(Gateway(FakeRouter({"PCP"}))) as gateway, closing(mapper_of(gateway)) as mapper:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            mapper.want(PORTS)
            mapper.start()
        (refusal,) = news_of(mapper, lambda news: True).refusals
        assert "ulimit -u" in refusal
        mapper.start()
        news_of(mapper, two)


def test_without_a_descriptor_for_its_thread_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread ended with a traceback."""

    def refuse() -> selectors.BaseSelector:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(selectors, "DefaultSelector", refuse)
    with closing(Gateway(FakeRouter({"PCP"}))) as gateway, closing(mapper_of(gateway)) as mapper:
        mapper.start()
        news = news_of(mapper, lambda news: bool(news.refusals))
    assert news == RouterNews(refusals=("no router can be asked for a port: Too many open files",))


def test_it_has_one_thread_whoever_starts_it_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second thread took the word for the first one, which then never ended."""
    starts = threading.Thread.start

    with closing(Gateway(FakeRouter({"PCP"}))) as gateway, closing(mapper_of(gateway)) as mapper:
        another = threading.Thread(target=mapper.start)

        def start(thread: threading.Thread) -> None:
            starts(thread)
            if thread.name == "mapper" and not another.ident:
                starts(another)
                another.join(0.2)

        monkeypatch.setattr(threading.Thread, "start", start)
        mapper.start()
        another.join()
        assert [thread.name for thread in threading.enumerate()].count("mapper") == 1


def test_a_mapper_that_was_never_started_or_is_closed_does_nothing() -> None:
    with closing(Gateway(FakeRouter({"PCP"}))) as gateway:
        mapper = mapper_of(gateway)
        mapper.want(PORTS)
        mapper.close()
        mapper.start()
        mapper.release()
        assert not gateway.clients


# ---- UPnP beside it


@pytest.fixture
def igd(monkeypatch: pytest.MonkeyPatch) -> FakeIgd:
    """Return a UPnP router that is found at once."""
    monkeypatch.setattr(upnp, "find", lambda *_: "http://127.0.0.2/desc.xml")
    return FakeIgd()


@pytest.mark.usefixtures("hasty")
def test_upnp_maps_where_the_others_are_of_no_help_and_takes_back_at_close(igd: FakeIgd) -> None:
    for result in (0, pcp.NOT_AUTHORIZED):
        fake = FakeRouter({"PCP"} if result else set(), result=result)
        with closing(Gateway(fake)) as gateway, closing(mapper_of(gateway, find_upnp=lambda: lambda: igd)) as mapper:
            mapper.want(PORTS)
            mapper.start()
            news = news_of(mapper, lambda news: bool(news.mappings))
            assert news == RouterNews((mapping(16049, "UPnP"),))
            assert set(igd.table) == {16049}
        assert igd.table == {}


def test_a_refusal_by_pcp_is_not_told_where_upnp_maps(igd: FakeIgd) -> None:
    refusing = FakeRouter({"PCP"}, result=pcp.NOT_AUTHORIZED)
    with closing(Gateway(refusing)) as gateway, closing(mapper_of(gateway, find_upnp=lambda: lambda: igd)) as mapper:
        mapper.want(PORTS)
        mapper.start()
        news = news_of(mapper, lambda news: bool(news.refusals or news.mappings))
    assert news == RouterNews((mapping(16049, "UPnP"),))


def test_upnp_is_not_asked_where_pcp_has_answered() -> None:
    def fail() -> None:
        pytest.fail("it was asked for")

    with closing(Gateway(FakeRouter({"PCP"}))) as gateway, closing(mapper_of(gateway, find_upnp=fail)) as mapper:
        mapper.want(PORTS)
        mapper.start()
        news_of(mapper, two)


@pytest.mark.usefixtures("hasty")
def test_pcp_that_comes_late_takes_the_place_of_upnp(igd: FakeIgd) -> None:
    with (
        closing(Gateway(FakeRouter(set()))) as gateway,
        closing(mapper_of(gateway, find_upnp=lambda: lambda: igd)) as mapper,
    ):
        mapper.want(PORTS)
        mapper.start()
        news_of(mapper, lambda news: bool(news.mappings))
        # They have one table: what is taken back there is gone here.
        igd.before_delete = lambda port: gateway.router.table.pop(port, None)
        gateway.router.speaks.add("PCP")
        mapper.start()
        news = news_of(mapper, two)
        assert {one.by for one in news.mappings} == {"PCP"}
        gateway.wait_until(lambda: not igd.table and set(gateway.router.table) == {16049, 16050})


def test_what_upnp_took_back_is_asked_for_again_though_an_older_answer_is_still_under_way(igd: FakeIgd) -> None:
    """Each copy of a request is answered; the late one counted as the renewal, and the port stayed closed."""
    fake, told = FakeRouter({"PCP"}), threading.Event()
    with socket.socket(V4, socket.SOCK_DGRAM) as here, socket.socket(V4, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        here.connect(there.getsockname())
        here.setblocking(False)
        there.settimeout(30)

        def answer() -> bytes:
            """Return the answer to the next datagram of PCP's."""
            while not (answers := fake.answers(there.recv(2048), 0.0)):
                pass
            return answers[0]

        def step_until(now: float, done: Callable[[], bool]) -> None:
            for _ in range(100):
                tested.step(now)
                if done():
                    return
                assert told.wait(30)
                told.clear()
            pytest.fail("UPnP has news for ever")

        link = router.Link(routes.Gateway(V4, "lo", "127.0.0.2"), "127.0.0.1")
        tested = router.Router(link, here, KEY, Random(1), lambda: lambda: igd, told.set)
        with closing(tested):
            tested.want([16049], 0.0)
            tested.step(0.0)
            step_until(router.UPNP_DELAY, lambda: bool(igd.table))
            there.sendto(answer(), here.getsockname())
            late = answer()
            tested.receive(1.0)
            igd.before_delete = fake.table.pop
            step_until(1.0, lambda: tested.worker is not None and tested.worker.taken_back > 0)
            assert not igd.table
            assert not fake.table
            there.sendto(late, here.getsockname())
            tested.receive(1.0)
            tested.step(1.0)
            answer()
            assert set(fake.table) == {16049}
        assert tested.worker is not None
        tested.worker.join(30)


@pytest.mark.usefixtures("hasty")
def test_close_waits_for_upnp_to_take_back_its_mapping(monkeypatch: pytest.MonkeyPatch, igd: FakeIgd) -> None:
    waited_for = threading.Event()
    join = upnp.Worker.join

    def wait(worker: upnp.Worker, seconds: float) -> None:
        assert seconds > 0
        waited_for.set()
        join(worker, 30)

    monkeypatch.setattr(upnp.Worker, "join", wait)
    igd.before_delete = lambda _: waited_for.wait(30)
    with closing(Gateway(FakeRouter(set()))) as gateway:
        with closing(mapper_of(gateway, find_upnp=lambda: lambda: igd)) as mapper:
            mapper.want(PORTS)
            mapper.start()
            news_of(mapper, lambda news: bool(news.mappings))
        assert igd.table == {}


@pytest.mark.usefixtures("hasty")
def test_close_waits_for_upnp_that_is_about_to_map(monkeypatch: pytest.MonkeyPatch, igd: FakeIgd) -> None:
    """A run that ended while AddPortMapping was under way left the mapping to its end."""
    asked, waited_for = threading.Event(), threading.Event()
    waits: list[float] = []
    join = upnp.Worker.join

    def wait(worker: upnp.Worker, seconds: float) -> None:
        waits.append(seconds)
        waited_for.set()
        join(worker, 30)

    def map_late(_: int) -> None:
        asked.set()
        waited_for.wait(30)

    monkeypatch.setattr(upnp.Worker, "join", wait)
    monkeypatch.setattr("punchtunnel.reach.mapping._CLOSING_UPNP", 1000.0)
    igd.before_add = map_late
    with closing(Gateway(FakeRouter(set()))) as gateway:
        with closing(mapper_of(gateway, find_upnp=lambda: lambda: igd)) as mapper:
            mapper.want(PORTS)
            mapper.start()
            assert asked.wait(30)
        assert min(waits) > 500
        assert igd.table == {}


@pytest.mark.usefixtures("hasty")
def test_upnp_that_hangs_holds_nothing_up_and_is_not_waited_for(igd: FakeIgd) -> None:
    igd.go_on.clear()
    with closing(Gateway(FakeRouter(set()))) as gateway:
        mapper = mapper_of(gateway, find_upnp=lambda: lambda: igd)
        with closing(mapper):
            mapper.want(PORTS)
            mapper.start()
            gateway.wait_until(lambda: bool(gateway.clients))
            assert igd.called.wait(30)
            hanging = [one for one in threading.enumerate() if one.name == "upnp"]
        assert hanging[0].is_alive()
        assert hanging[0].daemon, "the process does not wait for it"
        assert not [one for one in threading.enumerate() if one.name == "mapper"]
        igd.go_on.set()
        hanging[0].join(30)
    assert igd.table == {}


@pytest.mark.usefixtures("hasty")
def test_upnp_that_is_not_installed_or_gets_no_thread_is_silence(monkeypatch: pytest.MonkeyPatch, igd: FakeIgd) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("can't start new thread")

    for find_upnp in (no_upnp, lambda: lambda: igd):
        with closing(Gateway(FakeRouter(set()))) as gateway, closing(mapper_of(gateway, find_upnp=find_upnp)) as mapper:
            monkeypatch.setattr(upnp.Worker, "start", refuse)
            mapper.want(PORTS)
            mapper.start()
            assert news_of(mapper, lambda news: news.silent) == RouterNews(silent=True)
