"""Whole elections among many strangers at the peer's address, in memory and on a clock that only the test moves.

A crowd of strangers has been connected for half a minute, then the peer comes.  How
long until both have the hole?  Without the order of rations.py it was minutes.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import pytest

from punchtunnel.protocol.agreement import MESSAGE_SIZE, TAG_SIZE, Agreement
from punchtunnel.protocol.election import ACCEPT, PICK, Election
from punchtunnel.protocol.hello import Hello, Role
from punchtunnel.punching.callers import PICK_TIMEOUT, Callers, Connection
from punchtunnel.punching.hole import Counts
from punchtunnel.punching.nomination import Nomination
from punchtunnel.punching.puncher import CLOCK_CHECK
from punchtunnel.punching.rations import FREE_TRIES, TRY_EVERY, Rations, Tries
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting.events import unreported
from punchtunnel.system.addresses import Address

TAG = bytes(8)
ADDRESS = "198.51.100.7"
STEP = 0.25
AHEAD = 30.0
CROWD = 70
# The chance of a dial in each step.
REDIAL = 0.2
# Ports below this are what the schedule has.
SCHEDULED = 20
WRONG = b"S" + bytes(32)


class CheapGroup:
    """In the place of SPAKE2: the same for both who know the secret and saw the same two messages."""

    def __init__(self, secret: bytes, message: bytes) -> None:
        self.secret, self.message = secret, message

    def finish(self, message: bytes) -> bytes:
        return sha256(self.secret + b"".join(sorted((self.message, message)))).digest()


def agreement(rng: random.Random) -> Agreement:
    made = Agreement.__new__(Agreement)
    made.message = b"S" + rng.randbytes(32)
    made._spake = CheapGroup(b"tiger", made.message)
    return made


class Wire:
    """One end of a connection: what a nomination uses of a socket, carried by the world's mail."""

    def __init__(self, side: Side, port: int, stranger: int | None = None) -> None:
        self.side = side
        self.port = port
        self.stranger = stranger
        self.other: Wire | None = None
        self.came = b""

    def send(self, data: bytes) -> int:
        self.side.proofs += len(data) in (TAG_SIZE, len(ACCEPT) + MESSAGE_SIZE + TAG_SIZE)
        self.side.world.carry(self, data)
        return len(data)

    def recv(self, size: int) -> bytes:
        data, self.came = self.came[:size], self.came[size:]
        return data

    def getsockname(self) -> tuple[str, int]:
        return ADDRESS, self.port

    def close(self) -> None:
        self.side.world.closed(self)

    def shutdown(self, _: int) -> None: ...

    def setsockopt(self, *_: object) -> None: ...

    def getsockopt(self, *_: object) -> bytes:
        raise OSError("no estimate of the round trip")


class Wires(dict[Wire, Callable[[], None]]):
    """In the place of a selector: calls back when the world delivers something."""

    def register(self, wire: Wire, _: int, data: Callable[[], None]) -> None:
        self[wire] = data

    def unregister(self, wire: Wire) -> None:
        del self[wire]


class NoDialler:
    """The wires of this test are opened by the world."""

    def meet(self, *, known: bool) -> None: ...


class Side:
    """One process: everything between an open connection and a winner, as in a punch."""

    def __init__(self, world: World, nonce: bytes, rng: random.Random) -> None:
        self.world = world
        self.wires = Wires()
        self.callers = Callers(ADDRESS)
        self.callers.addresses = (Address(socket.AF_INET, ADDRESS),)
        tries = Tries(self.callers.who, Rations(lambda: world.now), rng)
        self.election = Election(Hello(nonce, TAG, Role.STDIO), lambda: agreement(rng), strict=True, limits=tries)
        settings = Settings([ADDRESS], role=Role.STDIO, secret=b"tiger")
        dialler: Any = NoDialler()
        selector: Any = self.wires
        self.nomination = Nomination(
            settings, self.election, self.callers, dialler, selector, lambda: world.now, Counts(), unreported
        )
        self.proofs = 0

    def open(self, wire: Wire) -> None:
        sock: Any = wire
        scheduled = wire.port < SCHEDULED
        self.nomination.admit(Connection(sock, f"{ADDRESS}:{wire.port}", ADDRESS, scheduled))

    def receive(self, wire: Wire, data: bytes) -> None:
        if wire in self.wires and self.nomination.winner is None:
            wire.came += data
            self.wires[wire]()

    def tick(self) -> None:
        if self.nomination.winner is None:
            self.nomination.expire(self.world.now)
        if self.nomination.winner is None and self.world.now % CLOCK_CHECK == 0:
            self.nomination.retry()


class World:
    """We, the peer, and strangers who come back as soon as they are turned away."""

    def __init__(self, seed: int, kind: str, peer_leads: bool, crowd: int = CROWD, scheduled: int = 0) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.kind = kind
        # So many of them have taken ports of the schedule, from the last one down.
        self.taken = scheduled
        self.strangers = 0
        self.mail: list[tuple[Wire, bytes]] = []
        # Strangers who were turned away.
        self.returning: list[int] = []
        self.we = Side(self, b"\x80" * 16, self.rng)
        self.peer = Side(self, (b"\x90" if peer_leads else b"\x70") * 16, self.rng)
        for stranger in range(crowd):
            self.connect(stranger)

    def connect(self, stranger: int) -> None:
        """Let a stranger come, with a new nonce and all that it has to say unasked."""
        self.strangers += 1
        port = SCHEDULED - 1 - stranger if stranger < self.taken else 1000 + self.strangers
        wire, nonce = Wire(self.we, port, stranger), self.rng.randbytes(15)
        self.we.open(wire)
        leads = self.kind == "picks and proves wrong"
        said = Hello((b"\xff" if leads else b"\x01") + nonce, TAG, Role.STDIO).encode()
        self.mail.append((wire, said + (PICK + WRONG if leads else b"")))

    def connect_peer(self, port: int) -> None:
        ours, theirs = Wire(self.we, port), Wire(self.peer, port)
        ours.other, theirs.other = theirs, ours
        self.we.open(ours)
        self.peer.open(theirs)

    def carry(self, origin: Wire, data: bytes) -> None:
        if origin.other is not None:
            self.mail.append((origin.other, data))
        elif data.startswith(PICK) and self.kind == "answers and proves wrong":
            self.mail.append((origin, ACCEPT + WRONG + bytes(TAG_SIZE)))
        elif data.startswith(ACCEPT):
            self.mail.append((origin, bytes(TAG_SIZE)))

    def closed(self, wire: Wire) -> None:
        """Tell the other side; a stranger comes back."""
        if wire.stranger is not None:
            self.returning.append(wire.stranger)
        elif wire.other is not None:
            self.mail.append((wire.other, b""))

    def tick(self) -> None:
        self.now += STEP
        self.we.tick()
        self.peer.tick()
        if self.we.nomination.winner is None and self.now % CLOCK_CHECK == 0:
            returning, self.returning = self.returning, []
            for stranger in returning:
                self.connect(stranger)
        while self.mail:
            letters, self.mail = self.mail, []
            for receiver, data in letters:
                receiver.side.receive(receiver, data)

    def seconds_for(self, ports: Sequence[int], limit: float) -> float:
        """Let the peer come after a while, from these ports, and tell when both have the hole."""
        while self.now < AHEAD:
            self.tick()
        while (ours := self.we.nomination.winner) is None or (theirs := self.peer.nomination.winner) is None:
            assert self.now < AHEAD + limit, "the peer was kept out"
            for port in sorted(set(ports) - {wire.port for wire in self.peer.wires}):
                # As after the jittered wait of a dial.  In step with the rations it would miss every turn, or none.
                if self.rng.random() < REDIAL:
                    self.connect_peer(port)
            self.tick()
        assert ours.connection.sock.other is theirs.connection.sock  # type: ignore[attr-defined]
        # The last one was the peer's; the others tested no more secrets than they may.
        assert self.we.proofs <= 1 + FREE_TRIES + self.now / TRY_EVERY
        return self.now - AHEAD


KINDS = ["says hello", "answers and proves wrong", "picks and proves wrong"]
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
ROLES = pytest.mark.parametrize("peer_leads", [True, False], ids=["the peer leads", "we lead"])
ONE_PICK = PICK_TIMEOUT + CLOCK_CHECK


@ROLES
@EACH_KIND
def test_strangers_on_other_ports_delay_the_peer_by_one_pick_at_most(kind: str, peer_leads: bool) -> None:
    """Seventy strangers were served in order of arrival, each for three seconds or ten."""
    for seed in range(2):
        World(seed, kind, peer_leads).seconds_for(range(10), ONE_PICK)


@ROLES
@EACH_KIND
def test_strangers_who_have_taken_half_of_the_ports_delay_the_peer_by_one_turn_for_each(
    kind: str, peer_leads: bool
) -> None:
    for seed in range(2):
        World(seed, kind, peer_leads, scheduled=10).seconds_for(range(10), (10 - FREE_TRIES) * TRY_EVERY)


@ROLES
@EACH_KIND
def test_peer_on_other_ports_draws_lots_with_the_strangers(kind: str, peer_leads: bool) -> None:
    """Its router rewrites ports.  It always had its turn behind all of them, and then had been gone for long."""
    for seed in range(2):
        World(seed, kind, peer_leads, crowd=5).seconds_for(range(100, 104), 20 * TRY_EVERY)


def test_leader_that_was_slow_finds_the_one_connection_that_is_not_dead() -> None:
    """Connections that the peer had given up took the five free tries, and the next came ten seconds later."""
    world = World(1, "says hello", peer_leads=False, crowd=0)
    we, picked = world.we, set()
    wires = [Wire(we, port) for port in range(10)]
    for wire in wires:
        we.open(wire)
        we.receive(wire, world.peer.election.mine.encode())
    for _ in range(10):
        assert we.election.picked is not None
        picked.add(we.election.picked)
        dead: Any = we.callers.connections[we.election.picked].sock
        we.receive(dead, b"")
    assert len(picked) == 10
