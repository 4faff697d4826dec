"""Whole elections among many strangers at the peer's address, in memory and on a clock that only the test moves.

A crowd of strangers has been connected for half a minute, then the peer comes.  How
long until both have the hole?  Without the order of rations.py it was minutes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

import pytest

from punchtunnel.protocol.agreement import MESSAGE_SIZE, TAG_SIZE, Agreement
from punchtunnel.protocol.election import ACCEPT, PICK, Action, Drop, Election, Reject, Send, Won
from punchtunnel.protocol.hello import Hello, Role
from punchtunnel.punching.puncher import CLOCK_CHECK, DECISION_TIMEOUT, PICK_TIMEOUT
from punchtunnel.punching.rations import FREE_TRIES, TRY_EVERY, Caller, Rations, Tries

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


@dataclass
class Connection:
    """One connection as puncher.py sees it."""

    stranger: int | None
    port: int
    opened: float
    picked: float = float("inf")


class Side:
    """What puncher.py does with an election, without sockets: it closes what takes too long, and asks again."""

    def __init__(self, world: World, nonce: bytes, rng: random.Random) -> None:
        self.world = world
        self.connections: dict[int, Connection] = {}
        tries = Tries(self.caller, Rations(lambda: world.now), rng)
        self.election = Election(Hello(nonce, TAG, Role.STDIO), lambda: agreement(rng), strict=True, limits=tries)
        self.won: Won | None = None
        self.proofs = 0

    def caller(self, conn: int) -> Caller:
        port = self.connections[conn].port
        return Caller(ADDRESS, f"{ADDRESS}:{port}", port < SCHEDULED)

    def open(self, conn: int, stranger: int | None, port: int) -> None:
        self.connections[conn] = Connection(stranger, port, self.world.now)
        self.perform(self.election.opened(conn))

    def perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Won):
                self.won = action
            elif isinstance(action, Send):
                self.send(action.conn, action.data)
            elif action.conn in self.connections:
                assert isinstance(action, Drop | Reject)
                self.world.closed(self, action.conn)

    def send(self, conn: int, data: bytes) -> None:
        if conn in self.connections:
            if self.election.engaged(conn):
                self.connections[conn].picked = self.world.now
            self.proofs += len(data) in (TAG_SIZE, len(ACCEPT) + MESSAGE_SIZE + TAG_SIZE)
            self.world.carry(self, conn, data)

    def receive(self, conn: int, data: bytes) -> None:
        if conn in self.connections and self.won is None:
            self.perform(self.election.received(conn, data))

    def tick(self) -> None:
        for conn, one in list(self.connections.items()):
            end = one.opened + DECISION_TIMEOUT if one.picked == float("inf") else one.picked + PICK_TIMEOUT
            if self.won is None and conn in self.connections and end <= self.world.now:
                self.world.closed(self, conn)
        if self.won is None and self.world.now % CLOCK_CHECK == 0:
            self.perform(self.election.retry())


def agreement(rng: random.Random) -> Agreement:
    made = Agreement.__new__(Agreement)
    made.message = b"S" + rng.randbytes(32)
    made._spake = CheapGroup(b"tiger", made.message)
    return made


class World:
    """We, the peer, and strangers who come back as soon as they are turned away."""

    def __init__(self, seed: int, kind: str, peer_leads: bool, crowd: int = CROWD, scheduled: int = 0) -> None:
        self.now = 0.0
        self.rng = random.Random(seed)
        self.kind = kind
        # So many of them have taken ports of the schedule, from the last one down.
        self.taken = scheduled
        self.conns = 0
        self.mail: list[tuple[Side | None, int, bytes]] = []
        self.we = Side(self, b"\x80" * 16, self.rng)
        self.peer = Side(self, (b"\x90" if peer_leads else b"\x70") * 16, self.rng)
        for stranger in range(crowd):
            self.connect(stranger)

    def connect(self, stranger: int) -> None:
        """Let a stranger come, with a new nonce and all that it has to say unasked."""
        self.conns += 1
        conn, nonce = self.conns, self.rng.randbytes(15)
        self.we.open(conn, stranger, SCHEDULED - 1 - stranger if stranger < self.taken else 1000 + conn)
        leads = self.kind == "picks and proves wrong"
        said = Hello((b"\xff" if leads else b"\x01") + nonce, TAG, Role.STDIO).encode()
        self.mail.append((self.we, conn, said + (PICK + WRONG if leads else b"")))

    def connect_peer(self, port: int) -> None:
        self.conns += 1
        for side in (self.we, self.peer):
            side.open(self.conns, None, port)

    def carry(self, origin: Side, conn: int, data: bytes) -> None:
        stranger = origin.connections[conn].stranger
        if stranger is None:
            self.mail.append((self.peer if origin is self.we else self.we, conn, data))
        elif data.startswith(PICK) and self.kind == "answers and proves wrong":
            self.mail.append((self.we, conn, ACCEPT + WRONG + bytes(TAG_SIZE)))
        elif data.startswith(ACCEPT):
            self.mail.append((self.we, conn, bytes(TAG_SIZE)))

    def closed(self, side: Side, conn: int) -> None:
        """Close a connection on both sides; a stranger is back at the next tick."""
        one = side.connections.pop(conn)
        side.perform(side.election.lost(conn))
        other = self.peer if side is self.we else self.we
        if one.stranger is not None:
            self.mail.append((None, one.stranger, b""))
        elif conn in other.connections:
            self.closed(other, conn)

    def tick(self) -> None:
        self.now += STEP
        self.we.tick()
        self.peer.tick()
        while self.mail:
            letters, self.mail = self.mail, []
            for side, conn, data in letters:
                if side is not None:
                    side.receive(conn, data)
                elif self.we.won is None and self.now % CLOCK_CHECK == 0:
                    self.connect(conn)
                else:
                    self.mail.append((None, conn, b""))
            if all(side is None for side, _, _ in self.mail):
                break

    def seconds_for(self, ports: Sequence[int], limit: float) -> float:
        """Let the peer come after a while, from these ports, and tell when both have the hole."""
        while self.now < AHEAD:
            self.tick()
        while self.we.won is None or self.peer.won is None:
            assert self.now < AHEAD + limit, "the peer was kept out"
            for port in sorted(set(ports) - {one.port for one in self.peer.connections.values()}):
                # As after the jittered wait of a dial.  In step with the rations it would miss every turn, or none.
                if self.rng.random() < REDIAL:
                    self.connect_peer(port)
            self.tick()
        assert self.we.won.conn == self.peer.won.conn
        # The last one was the peer's; the others tested no more secrets than they may.
        assert self.we.proofs <= 1 + FREE_TRIES + self.now / TRY_EVERY
        return self.now - AHEAD


KINDS = ["says hello", "answers and proves wrong", "picks and proves wrong"]
EACH_KIND = pytest.mark.parametrize("kind", KINDS)
ROLES = pytest.mark.parametrize("peer_leads", [True, False], ids=["the peer leads", "we lead"])
ONE_TURN = TRY_EVERY + PICK_TIMEOUT + CLOCK_CHECK


@ROLES
@EACH_KIND
def test_strangers_on_other_ports_delay_the_peer_by_one_turn_at_most(kind: str, peer_leads: bool) -> None:
    """Seventy strangers were served in order of arrival, each for three seconds or ten."""
    for seed in range(2):
        World(seed, kind, peer_leads).seconds_for(range(10), ONE_TURN)


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
    for port in range(10):
        world.we.open(port, None, port)
    election, picked = world.we.election, set()
    for conn in range(10):
        election.received(conn, world.peer.election.mine.encode())
    for _ in range(10):
        assert election.picked is not None
        picked.add(election.picked)
        election.lost(election.picked)
    assert len(picked) == 10
