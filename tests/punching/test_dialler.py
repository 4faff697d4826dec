"""The dialler alone, over loopback, with a clock that stands still and dice that are loaded."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import selectors
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from punchtunnel.errors import LocalError
from punchtunnel.protocol import schedule
from punchtunnel.punching import ports
from punchtunnel.punching.callers import Connection
from punchtunnel.punching.candidates import Candidate, Fate, Kind
from punchtunnel.punching.dialler import Dialler
from punchtunnel.punching.hole import Counts
from punchtunnel.punching.listeners import Listeners
from punchtunnel.punching.settings import Settings
from punchtunnel.punching.strategy import HOLD_LIFE, MEETING, PATIENT_AFTER, PATIENT_WAIT, ScheduledPorts
from punchtunnel.reporting.events import unreported
from punchtunnel.system.addresses import Address

A, B = "127.0.0.1", "127.0.0.2"
# Two workers of pytest must not take each other's ports.
CHANNEL = f"dialling {os.environ.get('PYTEST_XDIST_WORKER')}"
NOW = 1e9
PORTS = schedule.ports_of(CHANNEL, schedule.current_buckets(NOW), schedule.PortCounts())
LONG = 30.0


class Dice(random.Random):
    """Decides every coin in one way, and counts the TTLs that were thrown: one for each hold."""

    def __init__(self, holds: bool) -> None:
        super().__init__(1)
        self._coin = 0.0 if holds else 0.999
        self.holds = 0

    def random(self) -> float:
        return self._coin

    def randint(self, a: int, b: int) -> int:
        self.holds += 1
        return b


class Table:
    """A dialler and all that it plays with."""

    def __init__(self, selector: selectors.BaseSelector, holds: bool, bind: str | None = A) -> None:
        self.selector = selector
        self.dice = Dice(holds)
        self.counts = Counts()
        self.now = 0.0
        self.opened: list[socket.socket] = []
        listeners = Listeners(selector, self.counts, unreported, self._on_open, open_to_all=False)
        self.dialler = Dialler(
            Settings([], CHANNEL, bind=bind), ScheduledPorts(CHANNEL, self.dice, self.now), listeners,
            selector, lambda: self.now, self.counts, unreported, self._on_open,
        )  # fmt: skip

    def _on_open(self, connection: Connection) -> None:
        self.opened.append(connection.sock)

    def begin(self) -> None:
        """Dial every port once."""
        self.dialler.plan((Address(socket.AF_INET, B),), NOW)
        self.dialler.start_due()

    def settle(self, pending: int) -> None:
        """Let the answers come, until `pending` dials are without one."""
        deadline = time.monotonic() + LONG
        while self.dialler.fates()[Fate.PENDING] > pending:
            assert time.monotonic() < deadline
            for key, _ in self.selector.select(LONG):
                key.data()


@pytest.fixture(params=[True, False], ids=["holds", "plain"])
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    with selectors.DefaultSelector() as selector:
        table = Table(selector, request.param)
        yield table
        table.dialler.close()
        for sock in table.opened:
            sock.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """One of the ports, at which B answers no SYN: its listener's queue is full."""
    with socket.socket() as full, socket.socket() as only:
        full.bind((B, PORTS[-1]))
        full.listen(0)
        only.connect(full.getsockname())
        yield PORTS[-1]


def test_meeting_dials_all_that_waits_at_once_and_plainly(table: Table) -> None:
    """The ports of two quick runs behind rejecting routers used to die one by one, until no run met."""
    table.begin()
    table.settle(0)
    holds, dials = table.dice.holds, table.counts.dials
    table.dialler.meet(known=True)
    assert table.counts.dials == dials + len(PORTS)
    assert table.dice.holds == holds


def test_meeting_dials_a_pending_hold_anew_and_leaves_a_pending_plain_dial_alone(
    table: Table, silent_port: int
) -> None:
    assert silent_port in PORTS
    table.begin()
    table.settle(1)
    holds, dials = table.dice.holds, table.counts.dials
    table.dialler.meet(known=True)
    assert table.counts.dials - dials == len(PORTS) - (0 if holds else 1)
    assert table.dice.holds == holds
    table.settle(1)


def test_peer_is_met_only_once(table: Table) -> None:
    """A stranger who says hello again and again must not make us dial."""
    table.begin()
    table.settle(0)
    table.dialler.meet(known=True)
    table.settle(0)
    dials = table.counts.dials
    table.dialler.meet(known=True)
    assert table.counts.dials == dials


def test_strangers_do_not_use_up_the_meeting(table: Table) -> None:
    table.begin()
    table.settle(0)
    for _ in range(2):
        table.dialler.meet(known=False)
        table.settle(0)
    dials = table.counts.dials
    table.dialler.meet(known=True)
    assert table.counts.dials == dials + len(PORTS)


def test_there_are_no_holds_while_a_connection_is_elected_and_then_there_are(table: Table) -> None:
    table.begin()
    table.settle(0)
    table.dialler.meet(known=True)
    table.settle(0)
    holds, dials = table.dice.holds, table.counts.dials
    table.now = MEETING * 0.99
    table.dialler.start_due()
    assert table.counts.dials > dials
    assert table.dice.holds == holds
    table.settle(0)
    table.now = MEETING + LONG
    table.dialler.start_due()
    assert (table.dice.holds > holds) == (holds > 0)


@pytest.mark.parametrize("table", [True], indirect=True)
def test_captured_holds_are_made_anew_at_once_and_after_minutes_when_they_are_due(
    table: Table, silent_port: int
) -> None:
    """They were made anew every 0.9 s for as long as the punch lasted: 20 SYNs a second for months."""
    silent = Candidate(Kind.SAME_PORT, Address(socket.AF_INET, B), silent_port, silent_port)
    other = silent._replace(own_port=PORTS[0], far_port=PORTS[0])
    table.begin()
    table.settle(1)
    table.dialler.ended(other, Fate.CAPTURED)
    table.now = HOLD_LIFE
    table.dialler.start_due()
    table.settle(1)
    assert table.counts.held_again == 1
    assert table.dialler.fates()[Fate.PENDING] == 1, "at once, at first"
    table.now = PATIENT_AFTER
    table.dialler.start_due()
    table.settle(0)
    assert table.counts.held_again == 2
    assert table.dialler.fates()[Fate.SILENT] == 1
    table.now += PATIENT_WAIT / 2 - 0.01
    table.dialler.start_due()
    table.settle(0)
    table.now += PATIENT_WAIT + 0.02
    table.dialler.start_due()
    table.settle(1)
    assert table.dialler.fates()[Fate.PENDING] == 1


def test_a_family_whose_holds_expire_is_dialled_plainly(table: Table) -> None:
    table.begin()
    table.settle(0)
    holds, dials = table.dice.holds, table.counts.dials
    table.dialler.ended(Candidate(Kind.SAME_PORT, Address(socket.AF_INET, B), PORTS[0], PORTS[0]), Fate.EXPIRED)
    table.now = LONG
    table.dialler.start_due()
    assert table.counts.dials == dials + len(PORTS)
    assert table.dice.holds == holds


def test_what_listens_for_a_peer_without_an_address_goes_on_listening(table: Table) -> None:
    table.dialler.plan((), NOW)
    before = [key.fileobj for key in table.selector.get_map().values()]
    table.dialler.plan((), NOW)
    # They were closed and opened again every second, and who was just coming was refused.
    assert [key.fileobj for key in table.selector.get_map().values()] == before
    listening = [
        port
        for port in PORTS
        if table.dialler.is_listened_on(Candidate(Kind.SAME_PORT, Address(socket.AF_INET, B), port, port))
    ]
    assert len(listening) == schedule.LISTENERS_PER_BUCKET * len(schedule.current_buckets(NOW))
    assert table.counts.dials == 0


def test_the_end_that_can_bind_the_far_port_of_a_pair_listens_and_the_other_dials() -> None:
    ourselves = (Address(socket.AF_INET, A, own=True),)
    pairs = schedule.port_pairs(CHANNEL, schedule.current_buckets(NOW), schedule.PortCounts())
    with selectors.DefaultSelector() as selector:
        one, other = Table(selector, holds=True, bind=None), Table(selector, holds=True, bind=None)
        for table in (one, other):
            table.dialler.plan(ourselves, NOW)
            table.dialler.start_due()
        assert one.dialler.fates() == {Fate.UNTRIED: len(pairs)}
        assert (one.counts.dials, other.counts.dials) == (0, len(pairs))
        deadline = time.monotonic() + LONG
        while min(len(one.opened), len(other.opened)) < len(pairs):
            assert time.monotonic() < deadline
            for key, _ in selector.select(LONG):
                key.data()
        for table in (one, other):
            table.dialler.close()
            for sock in table.opened:
                sock.close()


def test_a_link_local_address_is_bound_with_its_interface() -> None:
    """Python's bind() takes a scope of 0 where there is none, and the kernel then refuses the address."""
    assert ports.sockaddr(socket.AF_INET6, "fe80::1%lo", 9) == ("fe80::1", 9, 0, socket.if_nametoindex("lo"))
    assert ports.sockaddr(socket.AF_INET6, "fe80::1%7", 9) == ("fe80::1", 9, 0, 7)


@pytest.mark.parametrize("bind", ["fe80::1%nosuch", "fe80::1%lo"])
def test_an_address_that_is_gone_is_no_other_punchtunnel(bind: str) -> None:
    with selectors.DefaultSelector() as selector:
        dialler = Table(selector, holds=True, bind=bind).dialler
        with pytest.raises(LocalError, match="not an address of this machine"):
            dialler.plan((Address(socket.AF_INET6, "fe80::2", 1),), NOW)


def test_another_error_than_a_port_in_use_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(ports, "sockaddr", refuse)
    with selectors.DefaultSelector() as selector:
        dialler = Table(selector, holds=True).dialler
        dialler.plan((Address(socket.AF_INET, B),), NOW)
        with pytest.raises(LocalError, match="cannot bind a port: Permission denied"):
            dialler.start_due()


class Descriptors:
    """Has `left` sockets for dials, and then no descriptor more."""

    def __init__(self, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = left
        self._open = ports.dialling_socket
        monkeypatch.setattr(ports, "dialling_socket", self.dialling_socket)

    def dialling_socket(self, *args: Any, **options: Any) -> socket.socket:
        if self.left <= 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.left -= 1
        return self._open(*args, **options)


def test_a_dial_without_a_descriptor_is_no_port_in_use(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = Descriptors(5, monkeypatch)
    table.begin()
    assert table.dialler.fates()[Fate.STARVED] == len(PORTS) - 5
    assert Fate.UNUSABLE not in table.dialler.evidence().values()
    assert table.counts.shortage == errno.EMFILE
    descriptors.left = 1000
    table.dialler.start_over()
    table.begin()
    assert Fate.STARVED not in table.dialler.evidence().values()


def test_no_descriptor_for_any_dial_is_told_as_that(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are listeners, so it was "cannot bind a port", without what to do."""
    Descriptors(0, monkeypatch)
    with pytest.raises(LocalError, match="Too many open files; raise `ulimit -n`"):
        table.begin()


class Full(selectors.DefaultSelector):
    """Watches `room` more sockets, as where a user may watch only so many."""

    room = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= 1
        return super().register(fileobj, events, data)


@pytest.mark.parametrize("room", [0, 1, 5])
def test_what_cannot_be_watched_costs_its_dial_or_its_listener(room: int) -> None:
    """It was a KeyError: a dial that was never registered was taken out again."""
    with Full() as selector:
        selector.room = room
        table = Table(selector, False)
        try:
            with contextlib.suppress(LocalError):
                table.begin()
            assert sum(table.dialler.fates().values()) == len(PORTS)
            assert len(selector.get_map()) <= room
            selector.room = 1000
            table.dialler.start_over()
            table.begin()
            assert table.dialler.fates()[Fate.UNUSABLE] == 0
        finally:
            table.dialler.close()
            for sock in table.opened:
                sock.close()
