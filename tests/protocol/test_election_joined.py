"""Machines joined in memory: they agree on one connection in any order of events."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from punchtunnel.protocol.election import Election
from punchtunnel.protocol.hello import HELLO_SIZE, NO_TRAITS, Hello, Role, Trait
from punchtunnel.protocol.verdicts import Action, Drop, Reject, Send, Won

TAG = bytes(8)


@dataclass
class Party:
    """One process: an election, and what puncher.py and the link would do with its actions."""

    election: Election
    won: Won | None = None
    link: bytes = b""
    open: set[int] = field(default_factory=set)


class Net:
    """Parties, connections between them, and bytes under way in each direction."""

    def __init__(self, rng: random.Random, parties: int, connections: int) -> None:
        nonces = rng.sample(range(256), parties)
        # Some come from before there was padding, and some do not want it.
        traits = [rng.choice([NO_TRAITS, Trait.PADS]) for _ in nonces]
        hellos = [Hello(bytes([nonce] * 16), TAG, Role.STDIO, one) for nonce, one in zip(nonces, traits, strict=True)]
        self.rng = rng
        self.parties = [Party(Election(hello)) for hello in hellos]
        for party in self.parties:
            party.election.pads = rng.choice([False, True])
        self.wires: dict[tuple[int, int], bytearray] = {}
        self.partner: dict[tuple[int, int], int] = {}
        self.unopened: list[tuple[int, int]] = []
        self.broken: list[tuple[int, int]] = []
        self.cut_off: set[int] = set()
        conn = 0
        for one, other in combinations(range(parties), 2):
            for _ in range(connections):
                conn += 1
                self.partner |= {(one, conn): other, (other, conn): one}
                self.wires |= {(one, conn): bytearray(), (other, conn): bytearray()}
                self.unopened += [(one, conn), (other, conn)]

    def perform(self, who: int, actions: Sequence[Action]) -> None:
        party = self.parties[who]
        for action in actions:
            match action:
                case Send(conn, data):
                    self.send(who, conn, data)
                case Won(conn, unread):
                    party.won, party.link = action, unread
                    self.send(who, conn, f"link of {who}".encode())
                    for other in party.open - {conn}:
                        self.close(who, other)
                case Drop() | Reject():
                    raise AssertionError(f"{action} among peers")

    def send(self, who: int, conn: int, data: bytes) -> None:
        if conn not in self.cut_off:
            self.wires[self.partner[who, conn], conn] += data

    def cut(self, who: int, conn: int) -> None:
        """Lose a connection with what is under way; each side notices in its own time."""
        self.cut_off.add(conn)
        for place in ((who, conn), (self.partner[who, conn], conn)):
            self.wires[place].clear()
            self.broken.append(place)

    def close(self, who: int, conn: int) -> None:
        self.parties[who].open.discard(conn)
        self.broken.append((self.partner[who, conn], conn))

    def open(self, who: int, conn: int) -> None:
        party = self.parties[who]
        if party.won is not None:
            self.close(who, conn)
        else:
            party.open.add(conn)
            self.perform(who, party.election.opened(conn))

    def deliver(self, who: int, conn: int) -> None:
        wire, party = self.wires[who, conn], self.parties[who]
        count = self.rng.choice([1, 3, HELLO_SIZE, HELLO_SIZE + 4, len(wire)])
        data = bytes(wire[:count])
        del wire[:count]
        if party.won is not None and party.won.conn == conn:
            party.link += data
        elif party.won is None and conn in party.open:
            self.perform(who, party.election.received(conn, data))

    def lose(self, who: int, conn: int) -> None:
        party = self.parties[who]
        if conn in party.open and party.won is None:
            self.perform(who, party.election.lost(conn))
        party.open.discard(conn)

    def run(self, losses: int = 0) -> None:
        """Let everything happen, one thing after another, in a random order."""
        while True:
            opened = [(who, conn) for who, party in enumerate(self.parties) for conn in sorted(party.open)]
            readable = [place for place in opened if self.wires[place]]
            # An end is noticed behind the bytes before it.
            ended = [place for place in self.broken if place not in readable and place not in self.unopened]
            if losses and opened and self.rng.random() < 0.1:
                losses -= 1
                self.cut(*self.rng.choice(opened))
                continue
            events = [(self.open, self.unopened), (self.deliver, readable), (self.lose, ended)]
            possible = [event for event in events if event[1]]
            if not possible:
                return
            happen, places = self.rng.choice(possible)
            place = self.rng.choice(places)
            if happen == self.lose:
                self.broken.remove(place)
            elif happen == self.open:
                self.unopened.remove(place)
            happen(*place)


@settings(max_examples=200)
@given(rng=st.randoms(use_true_random=False), connections=st.integers(1, 5))
def test_without_losses_two_machines_win_the_same_connection_and_lose_no_byte(
    rng: random.Random, connections: int
) -> None:
    net = Net(rng, 2, connections)
    net.run()
    one, other = net.parties
    assert one.won is not None
    assert other.won is not None
    assert one.won.conn == other.won.conn
    assert one.won.leads is not other.won.leads
    assert (one.link, other.link) == (b"link of 1", b"link of 0")


@settings(max_examples=250)
@given(rng=st.randoms(use_true_random=False), connections=st.integers(1, 5), losses=st.integers(1, 8))
def test_with_losses_two_machines_never_both_win_different_connections(
    rng: random.Random, connections: int, losses: int
) -> None:
    net = Net(rng, 2, connections)
    net.run(losses)
    one, other = (party.won for party in net.parties)
    assert one is None or other is None or one.conn == other.conn
    # A leader wins only what its follower has won.
    assert not any(won and won.leads for won in (one, other)) or (one and other)


@settings(max_examples=200)
@given(rng=st.randoms(use_true_random=False), parties=st.integers(3, 5), connections=st.integers(1, 3))
def test_three_and_more_parties_do_not_wait_in_a_circle(rng: random.Random, parties: int, connections: int) -> None:
    net = Net(rng, parties, connections)
    net.run()
    winners = {who: party.won for who, party in enumerate(net.parties) if party.won is not None}
    assert len(winners) >= parties - parties % 2
    for who, won in winners.items():
        partner = winners[net.partner[who, won.conn]]
        assert partner.conn == won.conn
        assert partner.leads is not won.leads
