"""The dialler alone, over loopback, with a clock that stands still and dice that are loaded."""

from __future__ import annotations

import errno
import os
import random
import selectors
import socket
import time
from collections.abc import Iterator

import pytest

from punchtunnel.errors import LocalError
from punchtunnel.protocol import schedule
from punchtunnel.punching.dialler import HOLD_LIFE, MEETING, Dial, Dialler
from punchtunnel.punching.hole import Counts
from punchtunnel.punching.resolver import Address
from punchtunnel.reporting.events import unreported

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

    def __init__(self, selector: selectors.BaseSelector, holds: bool) -> None:
        self.selector = selector
        self.dice = Dice(holds)
        self.counts = Counts()
        self.now = 0.0
        self.opened: list[socket.socket] = []
        self.dialler = Dialler(
            selector, CHANNEL, A, lambda: self.now, self.dice, self.counts, unreported, self._on_open
        )  # fmt: skip

    def _on_open(self, sock: socket.socket, remote: str, host: str, scheduled: bool, dial: Dial | None) -> None:
        self.opened.append(sock)

    def begin(self) -> None:
        """Dial every port once."""
        self.dialler.plan((Address(socket.AF_INET, B),), NOW)
        self.dialler.start_due()

    def settle(self, pending: int) -> None:
        """Let the answers come, until `pending` dials are without one."""
        deadline = time.monotonic() + LONG
        while self.dialler.outcomes["pending"] > pending:
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
    table.dialler.meet()
    assert table.counts.dials == dials + len(PORTS)
    assert table.dice.holds == holds


def test_meeting_dials_a_pending_hold_anew_and_leaves_a_pending_plain_dial_alone(
    table: Table, silent_port: int
) -> None:
    assert silent_port in PORTS
    table.begin()
    table.settle(1)
    holds, dials = table.dice.holds, table.counts.dials
    table.dialler.meet()
    assert table.counts.dials - dials == len(PORTS) - (0 if holds else 1)
    assert table.dice.holds == holds
    table.settle(1)


def test_peer_is_met_only_once(table: Table) -> None:
    """A stranger who says hello again and again must not make us dial."""
    table.begin()
    table.settle(0)
    table.dialler.meet()
    table.settle(0)
    dials = table.counts.dials
    table.dialler.meet()
    assert table.counts.dials == dials


def test_strangers_do_not_use_up_the_meeting(table: Table) -> None:
    table.begin()
    table.settle(0)
    for _ in range(2):
        table.dialler.meet(known=False)
        table.settle(0)
    dials = table.counts.dials
    table.dialler.meet()
    assert table.counts.dials == dials + len(PORTS)


def test_there_are_no_holds_while_a_connection_is_elected_and_then_there_are(table: Table) -> None:
    table.begin()
    table.settle(0)
    table.dialler.meet()
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


def test_refused_dials_wait_where_many_were_made(table: Table) -> None:
    """Two hundred and fifty SYNs in ten seconds are what a router is spared."""
    table.begin()
    table.settle(0)
    table.now = 100.0
    dial = next(iter(table.dialler._dials.values()))
    waits = []
    for first in (80.0, 95.0):
        table.dialler._syns.extend([first] + [99.0] * (schedule.MOST_SYNS - 1))
        dial.failures = 0
        table.dialler.redial(dial)
        waits.append(dial.due - table.now)
    assert 0 < waits[0] < 0.1
    assert 0 < waits[1] - (schedule.SYNS_SPAN - 5.0) < 0.1, "with its jitter, or all would go at once"


@pytest.mark.parametrize("table", [True], indirect=True)
def test_captured_holds_become_patient_like_other_dials(table: Table, silent_port: int) -> None:
    """They were made anew every 0.9 s for as long as the punch lasted: 20 SYNs a second for months."""
    assert silent_port in PORTS
    table.begin()
    table.settle(1)
    (pending,) = (dial for dial in table.dialler._dials.values() if dial.sock is not None)
    table.dialler.capture()
    table.now = HOLD_LIFE
    table.dialler.start_due()
    made_anew: socket.socket | None = pending.sock
    assert made_anew is not None, "at once, at first"
    table.settle(1)
    table.now = schedule.PATIENT_AFTER + LONG
    pending.started = table.now - HOLD_LIFE
    for dial in table.dialler._dials.values():
        dial.due = max(dial.due, table.now + 1)
    table.dialler.start_due()
    assert table.dialler.outcomes["pending"] == 0
    assert schedule.PATIENT_WAIT / 2 <= pending.due - table.now <= schedule.PATIENT_WAIT * 1.5


def test_starting_over_forgets_what_other_routers_did(table: Table) -> None:
    table.begin()
    table.settle(0)
    table.dialler.capture()
    table.dialler._mortal.add(socket.AF_INET)
    table.dialler.start_over()
    assert not table.dialler._captured
    assert not table.dialler._mortal


def dialler_bound_to(bind: str, selector: selectors.BaseSelector) -> Dialler:
    return Dialler(
        selector, CHANNEL, bind, lambda: 0.0, random.Random(1), Counts(), unreported, lambda *_: None
    )  # fmt: skip


def test_a_link_local_address_is_bound_with_its_interface() -> None:
    """Python's bind() takes a scope of 0 where there is none, and the kernel then refuses the address."""
    with selectors.DefaultSelector() as selector:
        dialler = dialler_bound_to("fe80::1%lo", selector)
        assert dialler._place(socket.AF_INET6, 9, own=False) == ("fe80::1", 9, 0, socket.if_nametoindex("lo"))
        assert dialler_bound_to("fe80::1%7", selector)._place(socket.AF_INET6, 9, own=False) == ("fe80::1", 9, 0, 7)


@pytest.mark.parametrize("bind", ["fe80::1%nosuch", "fe80::1%lo"])
def test_an_address_that_is_gone_is_no_other_punchtunnel(bind: str) -> None:
    with selectors.DefaultSelector() as selector:
        dialler = dialler_bound_to(bind, selector)
        with pytest.raises(LocalError, match="not an address of this machine"):
            dialler.plan((Address(socket.AF_INET6, "fe80::2", 1),), NOW)


def test_another_error_than_a_port_in_use_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Dialler, *arguments: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Dialler, "_place", refuse)
    with selectors.DefaultSelector() as selector:
        dialler = dialler_bound_to(A, selector)
        dialler.plan((Address(socket.AF_INET, B),), NOW)
        with pytest.raises(LocalError, match="cannot bind a port: Permission denied"):
            dialler.start_due()
