"""Two sides meet at the transit relay of Magic Wormhole, as Debian has it."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from random import Random

import pytest

from punchtunnel.address import Place
from punchtunnel.protocol.hello import Role
from punchtunnel.protocol.secret import fresh, normal
from punchtunnel.punching.helper import Met
from punchtunnel.reach.meeting import Identity, Meeting

from ..reach.test_meeting import NOON, Shortest, is_met, news_of
from ..reach.test_seat import HUNG, read


def missing() -> str | None:
    """Return why there is no relay here, or None."""
    # It belongs to the system's Python, and not to the one that runs the tests.
    if shutil.which("twist3") and os.path.isdir("/usr/lib/python3/dist-packages/wormhole_transit_relay"):
        return None
    return "meetings need twist3 transitrelay (Debian package magic-wormhole-transit-relay)"


REASON = missing()
needs_relay = pytest.mark.skipif(REASON is not None, reason=str(REASON))
pytestmark = needs_relay


@pytest.fixture(scope="module")
def relay() -> Iterator[Place]:
    """Run a relay on a port of the loopback that the system chooses, and its log tells."""
    command = ["twist3", "--log-format=text", "transitrelay", "--port=tcp:0:interface=127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"Transit starting on (\d+)", line):
                break
        else:
            pytest.fail("the relay has not started")
        # Its log is short, but a full pipe would stop it.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield Place("127.0.0.1", int(found[1]))
        process.terminate()


class Pair:
    """Two sides with one secret, on different machines."""

    def __init__(self, relay: Place, roles: tuple[Role, Role] = (Role.LISTEN, Role.TO)) -> None:
        self.relay, self.opened = relay, contextlib.ExitStack()
        secret = normal(fresh(os.urandom))
        self.one, self.other = (Identity(secret, "", os.urandom(32), role) for role in roles)

    def meeting(self, identity: Identity, rng: Random | None = None) -> Meeting:
        meeting = Meeting(self.relay, identity, wall=lambda: NOON, rng=rng or Shortest())
        self.opened.callback(meeting.close)
        meeting.start()
        return meeting

    def raw(self, identity: Identity) -> socket.socket:
        """Wait at the relay by hand."""
        sock = self.opened.enter_context(socket.create_connection((self.relay.host, self.relay.port), HUNG))
        sock.sendall(identity.request(20000))
        return sock

    def met(self, meeting: Meeting) -> socket.socket:
        (met,) = news_of(meeting, is_met).met
        self.opened.enter_context(met.sock)
        met.sock.settimeout(HUNG)
        assert met.unread == b""
        return met.sock

    def let_the_relay_catch_up(self) -> None:
        """Wait until the relay has read all that was sent so far.

        It reads whatever is there in each turn of its loop.
        """
        for _ in range(2):
            secret = normal(fresh(os.urandom))
            ends = [self.raw(Identity(secret, "", os.urandom(32), Role.STDIO)) for _ in range(2)]
            assert [read(end, 3) for end in ends] == [b"ok\n", b"ok\n"]

    def close(self) -> None:
        self.opened.close()


@pytest.fixture
def pair(relay: Place) -> Iterator[Pair]:
    with contextlib.closing(Pair(relay)) as pair:
        yield pair


def carries(one: socket.socket, other: socket.socket, size: int = 1 << 20) -> None:
    """Send bytes in both directions at once, and compare them."""
    there, back = os.urandom(size), os.urandom(size)
    senders = [threading.Thread(target=sock.sendall, args=[data]) for sock, data in ((one, there), (other, back))]
    for sender in senders:
        sender.start()
    for sock, data in ((other, there), (one, back)):
        assert read(sock, size) == data
    for sender in senders:
        sender.join(HUNG)


def test_two_sides_meet_and_exchange_a_mebibyte_both_ways(pair: Pair) -> None:
    one, other = pair.meeting(pair.one), pair.meeting(pair.other)
    carries(pair.met(one), pair.met(other))


def test_what_the_other_side_says_at_once_is_handed_over(pair: Pair) -> None:
    meeting = pair.meeting(pair.one)
    raw = pair.raw(pair.other)
    assert read(raw, 3) == b"ok\n"
    raw.sendall(b"hello")
    (met,) = news_of(meeting, is_met).met
    with met.sock:
        met.sock.settimeout(HUNG)
        assert met.unread + read(met.sock, 5 - len(met.unread)) == b"hello"


def test_a_dead_connection_of_the_other_side_costs_one_try(pair: Pair) -> None:
    """The relay takes it for alive for two hours; a machine that was cut off has left it behind."""
    corpse = pair.raw(pair.other)
    one = pair.meeting(pair.one)
    (met,) = news_of(one, is_met).met
    # No hello comes: that is what the five seconds are for.
    one.again(met)
    other = pair.meeting(pair.other)
    carries(pair.met(one), pair.met(other), 1000)
    assert read(corpse, 10) == b"ok\n"


def test_a_side_is_not_matched_with_its_own_dead_connection_and_only_one_of_them_is_kept(pair: Pair) -> None:
    """So a side stays the same, and a service has no spare connection: it asks again after each meeting."""
    mine = [pair.raw(pair.one) for _ in range(2)]
    pair.let_the_relay_catch_up()
    pair.met(pair.meeting(pair.other))
    assert sorted(read(sock, 3) for sock in mine) == [b"", b"ok\n"]


def test_two_clients_of_a_service_that_meet_each_other_meet_the_service_in_the_end(pair: Pair) -> None:
    another = Identity(pair.one.secret, "", os.urandom(32), Role.LISTEN)
    clients = [pair.meeting(pair.one, Random(1)), pair.meeting(another, Random(2))]
    for meeting in clients:
        meeting.again(news_of(meeting, is_met).met[0])
    hellos = {clients[0]: b"C", clients[1]: b"C", pair.meeting(pair.other): b"S"}
    talks: dict[socket.socket, tuple[Meeting, Met]] = {}
    while True:
        waiting: list[Meeting | socket.socket] = [*hellos, *talks]
        ready, _, _ = select.select(waiting, [], [], HUNG)
        assert ready, "hung"
        for one in ready:
            if isinstance(one, Meeting):
                for met in one.take().met:
                    talks[pair.opened.enter_context(met.sock)] = one, met
                    with contextlib.suppress(OSError):
                        met.sock.send(hellos[one])
                continue
            meeting, met = talks.pop(one)
            with contextlib.suppress(OSError):
                heard = met.unread + one.recv(1)
                if heard[:1] not in (b"", hellos[meeting]):
                    return
            meeting.again(met)


def test_a_connection_that_is_closed_ends_both_directions(pair: Pair) -> None:
    one, other = pair.meeting(pair.one), pair.meeting(pair.other)
    near, far = pair.met(one), pair.met(other)
    near.shutdown(socket.SHUT_WR)
    assert far.recv(1) == b""
    assert near.recv(1) == b""


def test_a_relay_that_is_told_something_too_early_says_so_and_closes(pair: Pair) -> None:
    raw = pair.raw(pair.one)
    raw.sendall(b"early")
    assert read(raw, 100) == b"impatient\n"


def test_other_secrets_channels_and_days_meet_somebody_else(pair: Pair) -> None:
    raw = pair.raw(pair.one)
    stranger = Identity(normal(fresh(os.urandom)), "", os.urandom(32), Role.TO)
    elsewhere = Identity(pair.one.secret, "elsewhere", os.urandom(32), Role.TO)
    for identity in (stranger, elsewhere):
        pair.raw(identity)
    pair.raw(pair.other)
    assert read(raw, 3) == b"ok\n"
