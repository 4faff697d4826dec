"""Agree on one connection when a punch opens several.

Both sides dial many ports at once, so several connections can open, and each
side sees them open in its own order.  On every connection both sides say
hello at once; the side with the greater nonce leads and decides:

    leader                                follower
      |  HELLO  --------><--------  HELLO   |    on every connection
      |  PICK, M on connection 2 -------->  |    the first on which the leader
      |  <----  ACCEPT, M, T on connection 2|    heard a hello
    won 2   T ---------------------------->  won 2

M is a message of the key agreement and T the proof that its sender knows the
secret (agreement.py).  On plain links neither is sent, and the follower has won
with its ACCEPT.

Rule 1: at most one PICK is outstanding; the next follows only a loss, and goes
        on a plain link to a party that has not failed before, if there is any.
Rule 2: the follower never picks.  It answers a PICK at once; on a plain link,
        unless a PICK of its own is outstanding with a third party: then that
        one ends first.  Nonces order all parties, so such waiting never
        closes a circle.  On a sealed link only the peer's proof decides, and
        a party that never gives it must not keep the others waiting.
Rule 3: one process uses one nonce on all its connections; hearing it back
        means being connected to oneself.
Rule 4: a stranger's bytes cost the stranger its connection, never the
        election.  What is held for a connection is bounded by what its caller
        receives at once, because anything unexpected drops it.
Rule 5: bytes that follow the last of these messages belong to the link and
        travel with the winner as `unread`.
Rule 6: nothing that a stranger can say ends the punch.  A party that cannot be
        linked to costs its connection: it may be a stranger.  With a secret, one
        that does not know it is dropped too, and only one that has proved that
        it knows it, and cannot be linked to, ends the punch.  `Limits` says
        which party may try, and when (rations.py).
Rule 7: with a secret the peer may come from any address.  One that is not
        known to be the peer's hears nothing, not even that we are here, before
        it has said a hello with the tag of our channel.
Rule 8: where several ways lead to the peer, PICK and ACCEPT fill a packet, so
        that one which swallows those does not win over one which does not.
Rule 9: where both sides want to go on with a session, its secret is part of the
        key agreement: nobody but the two can then win, with a shared secret or
        without.

No sockets and no clock: nomination.py owns both and performs the actions.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable, Mapping

from punchtunnel.errors import PeerError
from punchtunnel.protocol.agreement import MESSAGE_SIZE, TAG_SIZE, Agreement
from punchtunnel.protocol.contender import PADDING, Contender, Input, State
from punchtunnel.protocol.hello import (
    HELLO_SIZE,
    MAGIC,
    VERSION,
    Hello,
    Role,
    Trait,
    decode_hello,
    roles_fit,
)
from punchtunnel.protocol.verdicts import Action, Drop, Reject, Send, Why, Won

# Parties that did not answer a PICK; a flood of them forgets the oldest.
FAILURES_REMEMBERED = 64
PICK = b"PICK"
ACCEPT = b"ACPT"


class Limits:
    """Say which connection may begin a key agreement: here each of them, the oldest first."""

    def choose(self, waiting: Mapping[int, bytes]) -> int | None:
        """Return which connection goes on now; `waiting` has the nonce of the other side by connection."""
        return next(iter(waiting), None)

    def began(self, conn: int, nonce: bytes) -> None:
        """Take note that one begins: it lets the other side test one secret."""

    def showed_nothing(self, conn: int) -> None:
        """Take note that the one on `conn` has ended before that, if there was one."""

    def broken_off(self, conn: int) -> None:
        """Take note that this side has ended the one on `conn` before the other one could prove anything."""

    def ended(self, conn: int, proved: bool) -> None:
        """Take note of what came of the one on `conn`."""


class Election:
    """One side's view of all connections of one punch.

    Args:
        mine: The hello of this process.
        agree: Makes a fresh key agreement; None on a plain link.
        strict: There is a secret (rule 6).
        limits: Say which connection may begin a key agreement now; `retry`
            asks again.
        resumed: The secret of the session that this side wants to go on with;
            empty if there is none (rule 9).
        insists: Another side that does not want that, too, is not the peer.

    Attributes:
        pads: A PICK is padded where the peer takes that, and the ACCEPT is then too (rule 8).
    """

    def __init__(
        self,
        mine: Hello,
        agree: Callable[[], Agreement] | None = None,
        strict: bool = False,
        limits: Limits | None = None,
        resumed: bytes = b"",
        insists: bool = False,
    ) -> None:
        self.mine = mine
        self._agree = agree
        self._strict = strict
        self._resumed = resumed
        self._insists = insists
        self._limits = limits or Limits()
        self._connections: dict[int, Contender] = {}
        # The connection that we picked, or whose PICK we accepted.
        self.picked: int | None = None
        self.pads = False
        self._failed_nonces: deque[bytes] = deque(maxlen=FAILURES_REMEMBERED)

    def opened(self, conn: int, *, known: bool = True) -> list[Action]:
        """Take in a connection that has just opened; `conn` is any fresh number.

        `known` tells that its other side has an address of the peer (rule 7).
        """
        if self._strict and not known:
            self._connections[conn] = Contender(State.LISTENING)
            return []
        self._connections[conn] = Contender()
        return [Send(conn, self.mine.encode())]

    def has_hello(self, conn: int) -> bool:
        """Tell whether the peer has said a valid hello on `conn`."""
        connection = self._connections.get(conn)
        return connection is not None and connection.hello is not None

    def received(self, conn: int, data: bytes) -> list[Action]:
        """Take in bytes from `conn`, any length, and return what to do now, in order."""
        connection = self._connections.get(conn)
        if connection is None or connection.state is State.WON:
            return []
        connection.buffer += data
        actions: list[Action] = []
        if connection.state in (State.OPENED, State.LISTENING):
            actions += self._read_hello(conn, connection)
        if connection.hello is not None:
            actions += self._read_message(conn, connection, connection.hello)
        return actions

    def lost(self, conn: int) -> list[Action]:
        """Forget a connection that was closed; another may be picked in its place."""
        connection = self._connections.pop(conn, None)
        if connection is not None:
            self._close(conn, connection)
        if conn != self.picked:
            return []
        self.picked = None
        if connection is not None and connection.hello is not None:
            self._failed_nonces.append(connection.hello.nonce)
        return self._next_choice()

    def end(self) -> None:
        """Give up what is not decided: that the proof of another peer has not come yet is no failure of its."""
        for conn, connection in self._connections.items():
            self._close(conn, connection, in_time=True)

    def engaged(self, conn: int) -> bool:
        """Tell whether it is the peer's turn to answer on `conn`, at once."""
        connection = self._connections.get(conn)
        return connection is not None and connection.state in (State.PICKED, State.PROVING, State.WON)

    def waits_padded(self, conn: int) -> bool:
        """Tell whether a padded PICK of ours is outstanding on `conn`."""
        connection = self._connections.get(conn)
        return connection is not None and connection.state is State.PICKED and connection.pads

    def _close(self, conn: int, connection: Contender, *, in_time: bool = False) -> None:
        # Nobody can test a guess without the secret of the session (rule 9).
        if connection.keys is None or (connection.hello is not None and self._resumed_with(connection.hello)):
            self._limits.showed_nothing(conn)
        elif in_time:
            self._limits.broken_off(conn)
        else:
            self._limits.ended(conn, proved=False)

    def _read_hello(self, conn: int, connection: Contender) -> list[Action]:
        """Read a hello from the buffer once it is whole; judge it before that if it must fail."""
        buffer = connection.buffer
        if not buffer.startswith(MAGIC[: len(buffer)]):
            return self._drop(conn, Why.STRANGER)
        if len(buffer) <= len(MAGIC):
            return []
        if (version := buffer[len(MAGIC)]) != VERSION:
            return self._reject(conn, Reject(conn, version, None))
        if len(buffer) < HELLO_SIZE:
            return []
        hello = decode_hello(bytes(buffer[:HELLO_SIZE]))
        if hello.nonce == self.mine.nonce:
            return self._drop(conn, Why.MYSELF)
        if hello.channel_tag != self.mine.channel_tag:
            return self._drop(conn, Why.OTHER_CHANNEL)
        if self._insists and Trait.RESUMING not in hello.traits:
            return self._drop(conn, Why.OTHER_SESSION)
        if not self._fits(hello) and not self._strict:
            return self._reject(conn, Reject(conn, VERSION, hello))
        # Rule 7: now it may know that we are here, and why it is rejected.
        greeting: list[Action] = [Send(conn, self.mine.encode())] if connection.state is State.LISTENING else []
        if (self.mine.traits ^ hello.traits) & Trait.PLAIN:
            return greeting + self._reject(conn, Reject(conn, VERSION, hello))
        connection.raw_hello = bytes(buffer[:HELLO_SIZE])
        connection.hello = hello
        connection.move(Input.HELLO)
        del buffer[:HELLO_SIZE]
        return greeting + self._next_choice()

    def _fits(self, hello: Hello) -> bool:
        if Trait.CHECK in self.mine.traits | hello.traits:
            return Role.RAW not in self.mine.role | hello.role
        nobody_receives = Trait.NO_RECEIVE in self.mine.traits & hello.traits
        return roles_fit(self.mine.role, hello.role) and not nobody_receives

    def _read_message(self, conn: int, connection: Contender, hello: Hello) -> list[Action]:
        """Read what follows the hello: PICK or ACCEPT, and the proof that follows those."""
        leads = self._leads(hello.nonce)
        if connection.state is State.PROVING:
            return self._read_proof(conn, connection, hello, b"")
        if self._takes_padding(hello) and not connection.skip_padding(leads):
            return []
        expected, size = (ACCEPT, TAG_SIZE) if leads else (PICK, 0)
        size = len(expected) + (size + MESSAGE_SIZE if self._agree else 0)
        message = bytes(connection.buffer[:size])
        # It may say nothing more before it is picked, or answered.
        too_early = message and connection.state is (State.GREETED if leads else State.ASKED)
        known = message.startswith(expected[: len(message)])
        if too_early or not known:
            return self._drop(conn, Why.STRANGER)
        if len(message) < size:
            return []
        if leads:
            return self._answer(conn, connection, hello)
        connection.move(Input.ASK)
        actions = self._next_choice()
        waits = conn in self._connections and connection.state is State.ASKED
        if waits and len(connection.buffer) > size:
            # Nothing may follow a PICK that is not answered yet.
            actions += self._drop(conn, Why.STRANGER)
        return actions

    def _takes_padding(self, hello: Hello) -> bool:
        return Trait.PADS in self.mine.traits & hello.traits

    def _leads(self, nonce: bytes) -> bool:
        """Tell whether it is on this side to pick, where the other one has this nonce."""
        return self.mine.nonce > nonce

    def _answer(self, conn: int, connection: Contender, hello: Hello) -> list[Action]:
        """Go on from a whole PICK or ACCEPT in the buffer."""
        leads = self._leads(hello.nonce)
        if leads or self._agree is None:
            # If the answer cannot be sent, the connection is lost like any picked one.
            self.picked = conn
        else:
            self._limits.began(conn, hello.nonce)
        del connection.buffer[: len(PICK)]
        if self._agree is None:
            connection.move(Input.AGREE)
            won = Won(conn, bytes(connection.buffer), leads, hello)
            return [won] if leads else [Send(conn, PADDING * connection.pads + ACCEPT), won]
        try:
            reply = self._derive(connection, hello, leads)
        except PeerError:
            return self._drop(conn, Why.STRANGER)
        return self._read_proof(conn, connection, hello, reply) if leads else [Send(conn, reply)]

    def _derive(self, connection: Contender, hello: Hello, leads: bool) -> bytes:
        """Compute the keys from the message in the buffer; return what the peer must have."""
        assert self._agree is not None
        agreement = connection.agreement or self._agree()
        mine, theirs = self.mine.encode(), connection.raw_hello
        hellos = (mine, theirs) if leads else (theirs, mine)
        resumed = self._resumed_with(hello)
        connection.keys = agreement.finish(bytes(connection.buffer[:MESSAGE_SIZE]), leads, *hellos, resumed)
        connection.move(Input.KEYS)
        del connection.buffer[:MESSAGE_SIZE]
        if leads:
            return connection.keys.my_tag
        return PADDING * connection.pads + ACCEPT + agreement.message + connection.keys.my_tag

    def _resumed_with(self, hello: Hello) -> bytes:
        """Return the secret of the session that both sides want to go on with; empty if there is none."""
        return self._resumed if Trait.RESUMING in hello.traits else b""

    def _read_proof(self, conn: int, connection: Contender, hello: Hello, reply: bytes) -> list[Action]:
        """Check the peer's tag once it is whole; ours is sent whatever it says, so that both sides know."""
        keys = connection.keys
        assert keys is not None
        if len(connection.buffer) < TAG_SIZE:
            return []
        proved = hmac.compare_digest(bytes(connection.buffer[:TAG_SIZE]), keys.their_tag)
        del connection.buffer[:TAG_SIZE]
        replies: list[Action] = [Send(conn, reply)] if reply else []
        if not proved:
            return replies + self._drop(conn, Why.NOT_PROVED)
        self._limits.ended(conn, proved=True)
        if not self._fits(hello):
            return replies + self._reject(conn, Reject(conn, VERSION, hello, proved=True))
        connection.move(Input.PROOF)
        leads = self._leads(hello.nonce)
        return [*replies, Won(conn, bytes(connection.buffer), leads, hello, keys)]

    def retry(self) -> list[Action]:
        """Go on with what had to wait for its turn."""
        return self._next_choice()

    def _next_choice(self) -> list[Action]:
        """Answer PICKs and pick, as long as the limits choose a connection."""
        actions: list[Action] = []
        while (conn := self._limits.choose(self._waiting())) is not None:
            connection = self._connections[conn]
            assert connection.hello is not None
            if connection.state is State.ASKED:
                actions += self._answer(conn, connection, connection.hello)
            else:
                connection.pads = self.pads and self._takes_padding(connection.hello)
                actions.append(self._pick(conn, connection, connection.hello.nonce))
        return actions

    def _waiting(self) -> dict[int, bytes]:
        """Return the nonce of the far side by connection, for those on which we could go on, the best first."""
        nonces = {conn: one.hello.nonce for conn, one in self._connections.items() if one.hello is not None}
        # On a plain link an ACCEPT is a promise, so there is one at a time.
        is_free = self.picked is None
        waiting: dict[int, bytes] = {}
        if is_free or self._agree is not None:
            waiting.update((conn, nonces[conn]) for conn in self._all(State.ASKED))
        if is_free:
            # A party that did not answer before comes last: it may never do.
            led = [conn for conn in self._all(State.GREETED) if self._leads(nonces[conn])]
            led.sort(key=lambda conn: nonces[conn] in self._failed_nonces)
            waiting.update((conn, nonces[conn]) for conn in led)
        return waiting

    def _all(self, state: State) -> list[int]:
        return [conn for conn, connection in self._connections.items() if connection.state is state]

    def _pick(self, conn: int, connection: Contender, nonce: bytes) -> Send:
        self.picked = conn
        connection.move(Input.PICK)
        message = b""
        if self._agree is not None:
            self._limits.began(conn, nonce)
            connection.agreement = self._agree()
            message = connection.agreement.message
        return Send(conn, PADDING * connection.pads + PICK + message)

    def _drop(self, conn: int, why: Why) -> list[Action]:
        return [Drop(conn, why), *self.lost(conn)]

    def _reject(self, conn: int, rejection: Reject) -> list[Action]:
        return [rejection, *self.lost(conn)]
