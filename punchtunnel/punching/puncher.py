"""Open a hole: one synchronous loop that joins the dialler to the election.

    names ── resolver ──> addresses ──┐
    clock ── schedule ──> ports ──────┴─> dialler ── connections ──> election
                                                                        │
                                                              hole <── winner

Rule 1: nothing blocks but the loop's own wait, never longer than CLOCK_CHECK.
Rule 2: a connection that says something else, or nothing, costs only itself.
Rule 3: everything but the winner is closed, with RST where it had opened, so
        that no TIME_WAIT blocks the ports of the next run.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from punchtunnel import words
from punchtunnel.errors import NoHoleError, RejectedError, UsageError
from punchtunnel.protocol import schedule
from punchtunnel.protocol.agreement import Agreement, preload, readable
from punchtunnel.protocol.election import Action, Drop, Election, Reject, Send, Why, Won
from punchtunnel.protocol.hello import NONCE_SIZE, Hello, Trait
from punchtunnel.punching import diagnosis
from punchtunnel.punching.dialler import Dial, Dialler
from punchtunnel.punching.hole import Counts, Hole, Settings
from punchtunnel.punching.rations import EVERYBODY_ELSE, Caller, Rations, Tries
from punchtunnel.punching.resolver import MAX_ADDRESSES, REFRESH, Address, Answer, Resolver
from punchtunnel.reporting import events
from punchtunnel.system import tcp
from punchtunnel.system.signals import Wake

# Seconds.  A connection on which the peer says nothing is closed: its hello
# comes within a round trip, and within three more if it is lost once.  One that
# never decides has more time, because it may only wait for another to fail.
HELLO_TIMEOUT = 0.5
HELLO_ROUND_TRIPS = 4
LONGEST_HELLO_TIMEOUT = 5.0
DECISION_TIMEOUT = 5.0
# Seconds for the answer to a PICK: the peer, who is awake, needs a round trip.
PICK_TIMEOUT = 3.0
# Seconds for which a refused peer may still read why.
FAREWELL_TIMEOUT = 1.0
# Seconds.  The wall clock may be stepped while we wait.
CLOCK_CHECK = 1.0
# Connections that are open but not elected; `_worth` says which makes room.
MAX_HALFWAY = 64
# Bytes that are taken from anybody before the election: ten times what it needs.
MOST_UNPROVED = 1024
# Seconds that both sides may compute between two words of the agreement.
COMPUTING = 0.01


@dataclass(slots=True)
class _Candidate:
    """A connection that is open but not yet elected."""

    sock: socket.socket
    remote: str
    host: str
    opened: float
    patience: float
    scheduled: bool
    dial: Dial | None
    picked: float = float("inf")
    # Seconds from our last word of the agreement to the peer's; 0 before our first.
    answered: float = 0.0
    # Bytes.
    taken: int = 0


class Puncher:
    """One punch; `open_hole` in punch.py tells what the arguments are."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        rng: random.Random,
        nonce: bytes | None,
        report: events.Report,
        signals: Wake | None,
        rations: Rations,
        meanwhile: Callable[[], None] | None,
    ) -> None:
        self._settings = settings
        self._signals = signals
        self._meanwhile = meanwhile
        self._clock = clock
        self._monotonic = monotonic
        self._report = report
        self._counts = Counts()
        tag = schedule.channel_tag(settings.channel)
        sealed = Trait.PLAIN not in settings.traits
        # Only whoever proves the secret gets a hole.
        self._proves = sealed and bool(settings.secret)
        # Until the first connection, nobody has heard it.
        self._has_nonce = nonce is not None
        self._election = Election(
            Hello(nonce or bytes(NONCE_SIZE), tag, settings.role, settings.traits),
            agree=self._agree if sealed else None,
            strict=self._proves,
            limits=Tries(self._caller, rations, rng) if sealed else None,
        )
        self._sealed = sealed
        self._loads = False
        self._loading: threading.Thread | None = None
        self._over = False
        # Made by that thread; list.append and pop are atomic.
        self._prepared: list[Agreement] = []
        self._rejection: RejectedError | None = None
        # Kinds of rejections, and sources.
        self._said: set[tuple[str, str]] = set()
        self._selector = selectors.DefaultSelector()
        self._dialler = Dialler(
            self._selector, settings.channel, settings.bind, monotonic, rng, self._counts, report, self._on_open
        )
        # Whoever knows the secret may come from anywhere: some carriers send
        # traffic out of another address than the one that is known.
        self._dialler.open_to_all = self._proves
        self._resolver = Resolver(settings.peers, settings.family, settings.bind)
        self._candidates: dict[int, _Candidate] = {}
        self._addresses: tuple[Address, ...] = ()
        self._failed: tuple[str, ...] = ()
        self._hole: Hole | None = None
        self._started = self._resolved = monotonic()
        self._planned = self._told = float("-inf")
        self._buckets: tuple[int, ...] = ()

    # ---- the loop

    def run(self) -> Hole:
        """Punch until there is a hole; `open_hole` in punch.py tells what is raised."""
        self._selector.register(self._resolver, selectors.EVENT_READ, self._on_resolved)
        if self._signals is not None:
            self._selector.register(self._signals, selectors.EVENT_READ, self._check_signals)
        self._use(self._resolver.literals())
        if self._resolver.has_names:
            self._resolver.start()
        deadline = self._started + self._settings.wait if self._settings.wait else float("inf")
        while self._hole is None:
            self._check_signals()
            now = self._monotonic()
            if now >= deadline:
                raise self._no_hole()
            if now - self._planned >= CLOCK_CHECK:
                self._plan(now)
            self._dialler.start_due()
            if not self._loads and self._addresses and (self._sealed or self._meanwhile):
                # The first SYNs, if it is on us to send any, are under way.  In a thread, because it takes a
                # slow machine a second, in which the peer would wait for our hello in vain.
                self._start_loading()
            if now - self._told >= CLOCK_CHECK:
                self._told = now
                self._report(events.Waiting(waited_s=now - self._started, dials=self._counts.dials))
            self._expire(now)
            due = min(deadline, self._dialler.next_due(), self._next_expiry()) - self._monotonic()
            for key, _ in self._selector.select(max(0.0, min(CLOCK_CHECK, due))):
                # An earlier one of this batch may have closed it, or won.
                if self._hole is None and self._selector.get_map().get(key.fd) is key:
                    key.data()
        return self._hole

    def _start_loading(self) -> None:
        self._loads = True
        thread = threading.Thread(target=self._load, name="preload")
        # Without a thread, or a descriptor, things are loaded when they are needed; then it is told.
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._loading = thread

    def _load(self) -> None:
        with contextlib.suppress(OSError):
            self._load_all()

    def _load_all(self) -> None:
        if self._sealed:
            preload()
        # Once somebody is there, the rest is faster without a thread beside it.
        if self._sealed and not (self._candidates or self._over):
            self._prepared.append(self._new_agreement())
        if self._meanwhile is not None and not (self._candidates or self._over):
            self._meanwhile()

    def _check_signals(self) -> None:
        """Raise SignalError if one has come; if it only asks to try now, forget every wait."""
        if self._signals is None or not self._signals.check():
            return
        self._report(events.TryingNow(what=words.DIAL_ANEW))
        self._dialler.start_over()
        if self._resolver.has_names:
            self._resolved = self._monotonic()
            self._resolver.start()

    def close(self) -> None:
        """Close everything but the winner."""
        self._over = True
        self._election.end()
        for candidate in self._candidates.values():
            if self._hole is None or candidate.sock is not self._hole.sock:
                tcp.close_with_reset(candidate.sock)
        self._dialler.close()
        self._resolver.close()
        self._selector.close()
        if self._loading is not None:
            # Some modules cannot be loaded any more while the interpreter ends.
            self._loading.join()

    def _no_hole(self) -> NoHoleError | RejectedError:
        if self._rejection is not None:
            return self._rejection
        if not self._addresses:
            return NoHoleError("; ".join(self._failed) or words.NAME_UNANSWERED)
        outcomes = self._dialler.outcomes
        return NoHoleError(diagnosis.why_no_hole(self._settings.peers, self._settings.wait, self._counts, outcomes))

    # ---- where to, and when

    def _on_resolved(self) -> None:
        self._use(self._resolver.take())
        self._resolved = self._monotonic()

    def _use(self, answer: Answer) -> None:
        """Punch towards these addresses from now on."""
        self._failed = answer.failed
        for reason in answer.failed:
            self._report(events.Unresolved(reason=reason))
        if not answer.addresses:
            # Without a word from the resolver there is nothing to be final about.
            asked = answer.failed or not self._resolver.has_names
            if asked and answer.lasting and not self._addresses:
                raise UsageError("; ".join(answer.failed) or words.NO_ADDRESS)
            return
        # A name that fails for the moment keeps the addresses it had.
        found = dict.fromkeys(answer.addresses + (self._addresses if answer.failed else ()))
        foreign = tuple(address for address in found if not address.own)
        self._addresses = (foreign or tuple(found))[:MAX_ADDRESSES]
        self._planned = float("-inf")

    def _plan(self, now: float) -> None:
        """Once a second: look at the clock, and at the names' addresses when they are old."""
        self._planned = now
        self._perform(self._election.retry())
        if self._hole is not None:
            return
        if self._resolver.has_names and now - self._resolved >= REFRESH:
            self._resolved = now
            self._resolver.start()
        if not self._addresses:
            return
        wall = self._clock() + self._settings.clock_offset
        self._dialler.plan(self._addresses, wall)
        if (buckets := schedule.current_buckets(wall)) != self._buckets:
            self._buckets = buckets
            ports = self._dialler.ports
            peer = words.peers_text(self._settings.peers)
            self._report(events.Punching(peer=peer, port_count=len(ports), ports=ports))

    # ---- connections

    def _on_open(self, sock: socket.socket, remote: str, host: str, scheduled: bool, dial: Dial | None) -> None:
        """A connection is open, but with whom?  The election finds out."""
        if len(self._candidates) >= MAX_HALFWAY:
            self._drop(min(self._candidates, key=self._worth))
        self._counts.opened += 1
        conn = self._counts.opened
        patience = min(LONGEST_HELLO_TIMEOUT, HELLO_TIMEOUT + HELLO_ROUND_TRIPS * tcp.round_trip(sock))
        self._candidates[conn] = _Candidate(sock, remote, host, self._monotonic(), patience, scheduled, dial)
        self._report(events.Opened(local=tcp.name_of(sock.getsockname()), remote=remote))
        tcp.send_at_once(sock)
        if not self._has_nonce:
            self._has_nonce = True
            self._election.mine = replace(self._election.mine, nonce=_nonce(self._monotonic() - self._started))
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._on_received(conn))
        self._perform(self._election.opened(conn))

    def _worth(self, conn: int) -> tuple[bool, bool, bool, bool, int]:
        """Order connections: first those that are not being tried, of strangers, unexpected, silent, old."""
        caller = self._caller(conn)
        known = caller.source != EVERYBODY_ELSE
        return self._election.engaged(conn), known, caller.scheduled, self._election.has_hello(conn), conn

    def _on_received(self, conn: int) -> None:
        candidate = self._candidates[conn]
        try:
            data = candidate.sock.recv(MOST_UNPROVED - candidate.taken)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        candidate.taken += len(data)
        if data:
            candidate.answered = max(self._monotonic() - candidate.picked, 0.0)
            actions = self._election.received(conn, data)
            if self._election.has_hello(conn):
                # Before our next word: what we dial now must be there before it.
                self._dialler.meet(known=self._is_known(conn))
            self._perform(actions)
        else:
            self._drop(conn)

    def _expire(self, now: float) -> None:
        for conn in list(self._candidates):
            if self._hole is None and conn in self._candidates and self._expiry(conn) <= now:
                self._drop(conn)

    def _expiry(self, conn: int) -> float:
        candidate = self._candidates[conn]
        if candidate.picked < float("inf"):
            return candidate.picked + PICK_TIMEOUT
        return candidate.opened + (DECISION_TIMEOUT if self._election.has_hello(conn) else candidate.patience)

    def _next_expiry(self) -> float:
        if self._hole is not None:
            # Another's end has just made a winner: there is nothing to wait for.
            return float("-inf")
        return min(map(self._expiry, self._candidates), default=float("inf"))

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Send(conn, data):
                    self._send(conn, data)
                case Drop(conn, Why.NOT_PROVED) if conn in self._candidates:
                    self._note_rejection(conn, RejectedError(words.NOT_PROVED))
                case Drop(conn, why) if conn in self._candidates:
                    if why is Why.STRANGER:
                        self._note_capture(conn)
                    if self._is_known(conn):
                        self._counts.strangers += why is Why.STRANGER
                        self._counts.other_channel += why is Why.OTHER_CHANNEL
                    self._report(events.Dropped(remote=self._candidates[conn].remote, reason=why.value))
                    self._forget(conn)
                case Reject(conn, version, hello, proved) if conn in self._candidates:
                    error = RejectedError(self._why_rejected(version, hello))
                    if proved or not self._proves:
                        self._farewell(conn)
                        raise error
                    self._note_rejection(conn, error)
                case Won(conn) if conn in self._candidates:
                    self._win(action)

    def _send(self, conn: int, data: bytes) -> None:
        if conn not in self._candidates:
            return
        try:
            sent = self._candidates[conn].sock.send(data)
        except OSError:
            sent = 0
        if self._election.engaged(conn):
            self._candidates[conn].picked = self._monotonic()
        # A fresh connection takes a handshake whole; one that does not is dying.
        if sent != len(data):
            self._drop(conn)

    def _drop(self, conn: int) -> None:
        """Close a connection that ended or stayed silent, and tell the election."""
        if conn in self._candidates:
            if not self._election.has_hello(conn):
                self._counts.mute += self._is_known(conn)
                self._note_capture(conn)
            self._forget(conn)
            self._perform(self._election.lost(conn))

    # ---- secrets

    def _agree(self) -> Agreement:
        """Return a fresh agreement: the one that was made while nothing else was to do, or a new one."""
        return self._prepared.pop() if self._prepared else self._new_agreement()

    def _new_agreement(self) -> Agreement:
        return Agreement(self._settings.secret, schedule.channel_tag(self._settings.channel), os.urandom)

    def _caller(self, conn: int) -> Caller:
        """Return who is on a connection, as rations.py counts."""
        candidate = self._candidates[conn]
        known = self._is_known(conn)
        source = candidate.host if known else EVERYBODY_ELSE
        return Caller(source, candidate.remote, known and candidate.scheduled)

    def _is_known(self, conn: int) -> bool:
        """Tell whether somebody comes from an address of the peer; what others do says nothing about it."""
        return any(address.host == self._candidates[conn].host for address in self._addresses)

    def _note_rejection(self, conn: int, error: RejectedError) -> None:
        """Drop somebody who may be a stranger, and go on; it is the verdict only if nobody better comes."""
        # Said once of each address of the peer, and once of everybody else, however often it
        # is tried and whatever number a stranger puts into it.
        said = str(error).partition(":")[0], self._caller(conn).source
        event = events.RejectedAgain if said in self._said else events.Rejected
        self._report(event(remote=self._candidates[conn].remote, reason=str(error)))
        self._said.add(said)
        if self._is_known(conn):
            self._rejection = error
        self._forget(conn, politely=True)

    def _why_rejected(self, version: int, hello: Hello | None) -> str:
        return diagnosis.why_rejected(self._settings.role, self._settings.traits, version, hello)

    def _note_capture(self, conn: int) -> None:
        # Whoever dials our listeners says nothing about what happens to our dials.
        if self._candidates[conn].dial is not None:
            self._dialler.capture()

    def _forget(self, conn: int, politely: bool = False) -> None:
        """Close a connection, and let its port be dialled again; `politely` lets the peer read why."""
        candidate = self._candidates.pop(conn)
        self._selector.unregister(candidate.sock)
        if politely:
            candidate.sock.close()
        else:
            tcp.close_with_reset(candidate.sock)
        if candidate.dial is not None:
            self._dialler.redial(candidate.dial, "mute")

    def _farewell(self, conn: int) -> None:
        """Leave the peer the time to read our hello: it must say the same sentence."""
        sock = self._candidates[conn].sock
        sock.settimeout(FAREWELL_TIMEOUT)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            sock.recv(MOST_UNPROVED)

    def _win(self, won: Won) -> None:
        candidate = self._candidates[won.conn]
        sock = candidate.sock
        self._selector.unregister(sock)
        sock.setblocking(True)
        waited = self._monotonic() - self._started
        local = tcp.name_of(sock.getsockname())
        self._hole = Hole(
            sock=sock,
            local=local,
            remote=candidate.remote,
            unread=won.unread,
            leads=won.leads,
            role=won.hello.role,
            traits=won.hello.traits,
            waited=waited,
            counts=self._counts,
            keys=won.keys,
            fast_aes=Trait.FAST_AES in self._settings.traits & won.hello.traits,
        )
        self._report(
            events.HoleOpened(
                local=local,
                remote=candidate.remote,
                rtt_s=_round_trip(candidate) or None,
                role="-z" if Trait.CHECK in won.hello.traits else diagnosis.role_name(won.hello.role),
                leads=won.leads,
                waited_s=waited,
                dials=self._counts.dials,
            )
        )
        if won.keys is not None:
            self._report(events.Sealed(authenticated=self._proves, verifier=readable(won.keys.verifier)))
            if not self._proves:
                self._report(events.Unauthenticated())


def _round_trip(candidate: _Candidate) -> float:
    """Return the round trip of an elected connection in seconds: the kernel's estimate, unless that is too small.

    Where both sides' SYNs have crossed, Linux takes the time from its SYN-ACK,
    which left later than its SYN: what both sides find adds up to one round
    trip.  Then the agreement, which took one too, is nearer to it.  A quarter
    more is jitter.
    """
    measured = tcp.round_trip(candidate.sock)
    return candidate.answered if candidate.answered - COMPUTING > 1.25 * measured else measured


def _nonce(waited: float) -> bytes:
    """Return a nonce with which the side leads that has waited longer, in seconds.

    The other side's hello comes to it half a round trip earlier than its own
    comes there: so its PICK goes out half a round trip earlier.
    """
    milliseconds = min(int(waited * 1000), 0xFFFFFFFF)
    return milliseconds.to_bytes(4, "big") + os.urandom(NONCE_SIZE - 4)
