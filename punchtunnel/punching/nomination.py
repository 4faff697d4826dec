"""Performs the election over the sockets of the callers, until one connection has won.

    connection opens ──> admit ──> bytes ──> election ──> Send, Drop, Reject ──┐
                                     ▲                                         │
                                     └───────────── sockets <──────────────────┘
                                                    Won: the winner

Every connection that closes is told to the dialler, which may dial its ports again.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from punchtunnel import words
from punchtunnel.errors import RejectedError
from punchtunnel.protocol.contender import PADDING
from punchtunnel.protocol.election import Election
from punchtunnel.protocol.hello import NONCE_SIZE, Trait
from punchtunnel.protocol.verdicts import Action, Drop, Reject, Send, Why, Won
from punchtunnel.punching import diagnosis
from punchtunnel.punching.callers import (
    EVERYBODY_ELSE,
    HELLO_ROUND_TRIPS,
    HELLO_TIMEOUT,
    MOST_UNPROVED,
    PICK_TIMEOUT,
    Callers,
    Connection,
)
from punchtunnel.punching.candidates import FamilyPort, Fate
from punchtunnel.punching.dialler import Dialler
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting import events
from punchtunnel.system import tcp
from punchtunnel.system.addresses import Address
from punchtunnel.words import peer

if TYPE_CHECKING:
    from punchtunnel.punching.helper import Way

# Seconds for which a refused peer may still read why.
FAREWELL_TIMEOUT = 1.0
# Seconds and round trips for which narrow connections are closed, so that another one may
# come: both sides are there, and a dial of theirs takes one and a half round trips.
NARROW_PATIENCE = 1.0
NARROW_ROUND_TRIPS = 4


class Winner(NamedTuple):
    """The elected connection, and what the election says of it."""

    connection: Connection
    won: Won

    @property
    def listening_port(self) -> FamilyPort | None:
        """The port of ours that it came to; None if this side has dialled it, or a command or a relay has it."""
        sock, is_ours = self.connection.sock, self.connection.candidate or self.connection.is_brought
        return None if is_ours else (socket.AddressFamily(sock.family), sock.getsockname()[1])

    def way(self, *, mapped: bool) -> Way:
        """Return how it has opened."""
        # Imported late: nothing before this needs it.
        from punchtunnel.punching.helper import Way

        connection = self.connection
        kind = connection.candidate.kind.value if connection.candidate else "mapped" if mapped else "listener"
        # Not getpeername: the peer may have gone by now, which is for whoever gets the hole to find out.
        far_port = int(connection.remote.rpartition(":")[2])
        return Way(kind, connection.host, far_port, connection.sock.getsockname()[1])

    def hole(self, settings: Settings, waited: float, counts: Counts, *, mapped: bool) -> Hole:
        """Return it as a hole; `waited` is seconds from the start of the punch, for the rest see `Hole`."""
        sock, won = self.connection.sock, self.won
        sock.setblocking(True)
        return Hole(
            sock=sock,
            local=self.connection.local,
            remote=self.connection.remote,
            unread=won.unread,
            leads=won.leads,
            role=won.hello.role,
            traits=won.hello.traits,
            waited=waited,
            counts=counts,
            keys=won.keys,
            fast_aes=Trait.FAST_AES in settings.traits & won.hello.traits,
            mapped=mapped,
            relay=self.connection.relay,
            held=self.connection.held,
        )


class Nomination:
    """Joins callers and election.

    Args:
        settings: Of this side.
        election: Decides.
        callers: The connections; those of them that are closed leave it.
        dialler: Told when the peer is heard, and when a connection that it has dialled is closed.
        selector: Calls `key.data()` for what becomes ready.
        monotonic: Steady time in seconds.
        counts: Where connections are counted.
        report: Where events go.

    Attributes:
        winner: None until there is one.
        rejection: Why the last peer that cannot be linked to was rejected: the verdict if no other one comes.
    """

    def __init__(
        self,
        settings: Settings,
        election: Election,
        callers: Callers,
        dialler: Dialler,
        selector: selectors.BaseSelector,
        monotonic: Callable[[], float],
        counts: Counts,
        report: events.Report,
    ) -> None:
        self._settings = settings
        self._election = election
        self._callers = callers
        self._dialler = dialler
        self._selector = selector
        self._monotonic = monotonic
        self._counts = counts
        self._report = report
        self._began = monotonic()
        self.winner: Winner | None = None
        self.rejection: RejectedError | None = None
        # Until when a narrow connection is closed; None before there was one.
        self._patient_until: float | None = None
        # A way was found to swallow full packets; the next PICK is as short as it can be.
        self._swallowed = False
        # Kinds of rejections that were told, and of whom.
        self._told: set[tuple[str, str]] = set()

    def admit(self, connection: Connection, unread: bytes = b"") -> None:
        """Take in a connection that has just opened; with whom, the election finds out.

        Args:
            connection: It.
            unread: What its other side has said already.

        Raises:
            RejectedError: As `retry`.
        """
        if (least := self._callers.least()) is not None:
            self._drop(least)
        conn, sock = self._counts.opened + 1, connection.sock
        try:
            self._selector.register(sock, selectors.EVENT_READ, lambda: self._on_received(conn))
        except OSError as error:
            self._report(events.Dropped(remote=connection.remote, reason=words.cannot(words.WATCH, error)))
            self._discard(connection, Fate.UNUSABLE)
            return
        self._counts.opened = conn
        self._callers.admit(conn, connection, self._monotonic(), tcp.round_trip(sock))
        self._report(events.Opened(local=connection.local, remote=connection.remote))
        tcp.send_at_once(sock)
        self._perform(self._election.opened(conn, known=self._callers.is_invited(conn)))
        if unread and conn in self._callers.connections:
            self._take_in(conn, connection, unread)

    def expire(self, now: float) -> None:
        """Close the connections whose time is over.

        Raises:
            RejectedError: As `retry`.
        """
        while self.winner is None and (conn := self._callers.expired(now)) is not None:
            if self._election.waits_padded(conn):
                self._judge_way(conn, now)
            else:
                self._drop(conn)

    def compare(self, addresses: Sequence[Address]) -> None:
        """Choose a way by what it carries, if these addresses of the peer are ways of two kinds."""
        self._election.pads = len({address.family for address in addresses}) > 1 and not self._swallowed

    def retry(self) -> None:
        """Go on with what had to wait for its turn.

        Raises:
            RejectedError: A peer that knows the secret cannot be linked to.
        """
        self._perform(self._election.retry())

    def close(self) -> None:
        """Close everything but the winner."""
        self._election.end()
        for connection in self._callers.connections.values():
            tcp.close_with_reset(connection.sock)

    def _on_received(self, conn: int) -> None:
        connection = self._callers.connections[conn]
        try:
            data = connection.sock.recv(MOST_UNPROVED - connection.taken)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hung_up(conn)
            return
        if not connection.taken and self._is_narrow(conn, connection):
            self._close(conn, Fate.LOST)
            self._perform(self._election.lost(conn))
            return
        self._take_in(conn, connection, data)

    def _take_in(self, conn: int, connection: Connection, data: bytes) -> None:
        """Act on what the other side has said."""
        connection.taken += len(data)
        connection.answered = max(self._monotonic() - connection.picked, 0.0)
        actions = self._election.received(conn, data)
        if self._election.has_hello(conn):
            connection.greet(self._monotonic())
            # Before our next word: what we dial now must be there before it.
            self._dialler.meet(known=self._callers.is_known(conn))
        self._perform(actions)

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            connection = self._callers.connections.get(action.conn)
            if connection is None:
                # An earlier action has closed it.
                continue
            match action:
                case Send(conn, data):
                    self._send(conn, connection, data)
                case Drop(conn, Why.NOT_PROVED):
                    self._note_rejection(conn, connection, RejectedError(words.NOT_PROVED))
                case Drop(conn, why):
                    if self._callers.is_known(conn):
                        self._counts.strangers += why is Why.STRANGER
                        self._counts.other_channel += why is Why.OTHER_CHANNEL
                        self._counts.myself += why is Why.MYSELF
                    connection.fault = why.value
                    self._report(events.Dropped(remote=connection.remote, reason=why.value))
                    self._close(conn, Fate.CAPTURED if why is Why.STRANGER else Fate.LOST)
                case Reject(conn, version, hello, proved):
                    mine = self._settings
                    error = RejectedError(diagnosis.why_rejected(mine.role, mine.traits, version, hello))
                    # At a relay another client of the same service may be met.
                    if proved and not connection.relay:
                        _say_farewell(connection.sock)
                        raise error
                    self._note_rejection(conn, connection, error)
                case Won(conn):
                    self._selector.unregister(connection.sock)
                    self.winner = Winner(self._callers.connections.pop(conn), action)

    def _send(self, conn: int, connection: Connection, data: bytes) -> None:
        try:
            sent = connection.sock.send(data)
        except OSError:
            sent = 0
        if self._election.engaged(conn):
            connection.picked = self._monotonic()
            connection.patience = PICK_TIMEOUT
            if self._election.waits_padded(conn):
                # The peer's kernel acknowledges at once, however slow its process is.
                kernel = HELLO_TIMEOUT + HELLO_ROUND_TRIPS * tcp.round_trip(connection.sock)
                connection.patience = min(PICK_TIMEOUT, kernel)
        # A fresh connection takes a handshake whole; one that does not is dying.
        if sent != len(data):
            self._hung_up(conn)

    def _hung_up(self, conn: int) -> None:
        """Take note that the far end has closed a connection.

        A punchtunnel does that at once on the ports that it listens on, where it expects somebody
        else; what takes connections for it does so on all ports.
        """
        connection = self._callers.connections[conn]
        candidate = connection.candidate
        if candidate is not None and not connection.taken and self._callers.is_known(conn):
            self._counts.hung_up += self._dialler.is_listened_on(candidate)
        self._drop(conn)

    def _drop(self, conn: int) -> None:
        """Close a connection that ended or stayed silent, and tell the election."""
        fate = Fate.LOST
        if not self._callers.connections[conn].greeted:
            self._counts.mute += self._callers.is_known(conn)
            fate = Fate.CAPTURED
        self._close(conn, fate)
        self._perform(self._election.lost(conn))

    def _judge_way(self, conn: int, now: float) -> None:
        """A padded PICK was not answered in time: close its way if that has swallowed it, and give it more time if not.

        The other way may be no better, so what follows is not padded.
        """
        connection = self._callers.connections[conn]
        delivery = tcp.delivery(connection.sock)
        is_slow = delivery is None or delivery.acknowledged > len(PADDING)
        if is_slow and now < connection.picked + PICK_TIMEOUT:
            connection.patience = PICK_TIMEOUT
            return
        self._swallowed, self._election.pads = True, False
        # The one that was picked comes last: then another one is.
        same = [other for other, one in self._callers.connections.items() if one.host == connection.host]
        for other in sorted(same, key=lambda one: one == conn):
            self._drop(other)

    def _is_narrow(self, conn: int, connection: Connection) -> bool:
        """Tell whether a connection on which the peer is first heard carries so little that another one is waited for.

        It must be closed for that: the leader, who may not know, has one PICK.
        """
        if not self._callers.is_known(conn) or not (window := tcp.narrow_window(connection.sock)):
            return False
        now = self._monotonic()
        if self._patient_until is None:
            round_trips = NARROW_ROUND_TRIPS * tcp.round_trip(connection.sock)
            self._patient_until = now + NARROW_PATIENCE + round_trips
        if now >= self._patient_until:
            return False
        self._report(events.Dropped(remote=connection.remote, reason=peer.NARROW.format(window=window)))
        return True

    def _note_rejection(self, conn: int, connection: Connection, error: RejectedError) -> None:
        """Drop a peer that may be a stranger, and go on; it is the verdict only if no other one comes."""
        # Told once of each address of the peer, and once of everybody else, however often it
        # is tried and whatever number a stranger puts into it.
        told = str(error).partition(":")[0], connection.host if self._callers.is_known(conn) else EVERYBODY_ELSE
        if told in self._told:
            self._report(events.RejectedAgain(remote=connection.remote, reason=str(error)))
        else:
            self._report(events.Rejected(remote=connection.remote, reason=str(error), goes_on=self._how_long()))
        self._told.add(told)
        if self._callers.is_invited(conn):
            self.rejection = error
        self._close(conn, Fate.LOST, politely=True)

    def _how_long(self) -> str:
        wait = self._settings.wait
        # A session has told for how long it looks for another hole, or a better one.
        if self._settings.resumed or self._settings.appointment:
            return ""
        return f"; {peer.goes_on(self._began + wait - self._monotonic() if wait else None)}"

    def _close(self, conn: int, fate: Fate, *, politely: bool = False) -> None:
        """Close a connection, and let its ports be dialled again; `politely` lets the peer read why."""
        connection = self._callers.connections.pop(conn)
        self._selector.unregister(connection.sock)
        self._discard(connection, fate, politely=politely)

    def _discard(self, connection: Connection, fate: Fate, *, politely: bool = False) -> None:
        if connection.give_back is not None:
            connection.give_back()
        elif politely:
            connection.sock.close()
        else:
            tcp.close_with_reset(connection.sock)
        # What comes to our listeners says nothing about what happens to our dials.
        if connection.candidate is not None:
            self._dialler.ended(connection.candidate, fate)


def _say_farewell(sock: socket.socket) -> None:
    """Leave the peer the time to read our hello: it must say the same sentence."""
    sock.settimeout(FAREWELL_TIMEOUT)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)
        sock.recv(MOST_UNPROVED)


def nonce_after(waited: float) -> bytes:
    """Return a nonce with which the side leads that has waited longer, in seconds.

    The other side's hello comes to it half a round trip earlier than its own
    comes there: so its PICK goes out half a round trip earlier.
    """
    milliseconds = min(int(waited * 1000), 0xFFFFFFFF)
    return milliseconds.to_bytes(4, "big") + os.urandom(NONCE_SIZE - 4)
