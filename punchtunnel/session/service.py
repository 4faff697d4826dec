"""Serve many sessions at once, each over a hole of its own, and go on waiting for others.

                                        ┌── new ──────> Session 1, 2, 3 …      one loop for all
    punch, in a thread ── Hole ─────────┤
        ▲        (the next one begins)  ├── full ─────> told so, and left
        ├───────────────────────────────┴── RESUMING ─> the session that has lost its hole
        └─ Hole through a relay ─> settled in a thread of its own, and then one of these

Rule 1: there is one punch at a time, for new peers and for those that come back.  What two sides that have met at
        a relay have to arrange may take minutes, and holds up nobody else.
Rule 2: a session that has lost its hole is kept for the time to resume; it seeks
        nothing itself, its peer comes to the service.
Rule 3: what ends one session ends no other.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import NamedTuple

from punchtunnel import words
from punchtunnel.errors import Exit, LocalError, NoHoleError, PunchtunnelError
from punchtunnel.protocol.hello import Trait
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.hole import Hole
from punchtunnel.reporting import events
from punchtunnel.session.background import Background
from punchtunnel.session.comeback import Return, Taken, take_back
from punchtunnel.session.holes import Holes
from punchtunnel.session.outcome import Outcome
from punchtunnel.session.plan import Plan
from punchtunnel.session.roles import Ends
from punchtunnel.session.seeker import Result, Seekers
from punchtunnel.session.session import Session
from punchtunnel.system.loop import GuardedLoop, Loop, Timers
from punchtunnel.system.signals import TRY_NOW, Wake

# Seconds for the loop to answer a thread; it has nothing to wait for.
RELEASE_TIMEOUT = 5.0
# Seconds before a thread is asked for again, where there was none to be had.
THREAD_PAUSE = 5.0
# What a hole turned out to be: a new peer, one that came back, nobody, or why there is none.
Found = Hole | Taken | None | Exception
Begin = Callable[[Hole, events.Report, Seekers], Session]


class Guest:
    """One session of a service that may be without a hole: the service seeks for it (seeker.Seeks).

    Attributes:
        received: Bytes of the peer's frames that it had when it lost its hole.
    """

    def __init__(self, loop: Loop) -> None:
        self._timers = Timers(loop)
        self._found: Callable[[Result], None] | None = None
        self.received = 0

    def start(self, ticket: Ticket, received: int, seconds: float, found: Callable[[Result], None]) -> None:
        """Wait until the peer comes back, for so many seconds."""
        self.received, self._found = received, found
        self._timers.later("gone", seconds, lambda: self.tell(NoHoleError("")))

    def hurry(self) -> None:
        """The peer comes when it comes."""

    def stop(self) -> None:
        """Wait no more."""
        self._timers.cancel()
        self._found = None

    def tell(self, result: Result) -> None:
        """The peer is back, or too late."""
        found, self._found = self._found, None
        self._timers.cancel()
        if found is not None:
            found(result)
        elif isinstance(result, Return):
            result.hole.sock.close()


class Known(NamedTuple):
    """A session whose peer may come back."""

    ticket: Ticket
    session: Session
    guest: Guest


class Service:
    """The sessions of a `--to` with `-k`.

    Args:
        holes: Where peers come from.
        begin: Begins a session with a new peer: on this hole, with its report and what seeks another hole for it.
        report: Where events go.
        limit: Of sessions at one time.
        wake: What ends a punch of `holes`.

    Attributes:
        ended: How the service ends.
        failure: Why no more peers can come, if that ends it.
    """

    def __init__(self, holes: Holes, begin: Begin, report: events.Report, limit: int, wake: Wake) -> None:
        loop = asyncio.get_running_loop()
        self._loop = GuardedLoop(loop, self._broke)
        self._timers = Timers(self._loop)
        # While a session is up, that others are waited for is no news.
        self._holes = holes.within(wake, self._report_punch)
        self._begin = begin
        self._report = report
        self._limit = limit
        self._wake = wake
        self._thread: threading.Thread | None = None
        # Those that settle relayed holes.
        self._settling: set[Background[Found]] = set()
        self._began = 0
        self._sessions: dict[int, Session] = {}
        # By what both sides call the session.
        self._known: dict[bytes, Known] = {}
        self._status: Exit | None = None
        self.failure: PunchtunnelError | None = None
        self.ended: asyncio.Future[Outcome] = loop.create_future()

    def start(self, hole: Hole) -> None:
        """Begin with the first hole."""
        self._on_found(hole)

    def stop(self, status: Exit) -> None:
        """End every session cleanly, and the service with this status; a second call ends at once."""
        self._status = status
        self._wake.note(signal.SIGINT)
        for one in self._settling:
            one.end_soon()
        for session in list(self._sessions.values()):
            session.stop(status)
        self._end_if_empty()

    def probe(self) -> None:
        """Ask every peer for a sign of life, and dial anew (SIGHUP)."""
        self._wake.note(TRY_NOW)
        for one in self._settling:
            one.hurry()
        for session in self._sessions.values():
            session.probe()

    def close(self) -> None:
        """Give everything back."""
        self._timers.cancel()
        self._wake.note(signal.SIGINT)
        for session in self._sessions.values():
            session.close()
        for one in self._settling:
            one.stop()
        if self._thread is not None:
            self._thread.join()

    # ---- holes

    def _report_punch(self, event: events.Event) -> None:
        """In the thread: pass on what the punch reports."""
        if not (self._sessions and isinstance(event, events.Punching | events.Waiting)):
            self._loop.call_soon_threadsafe(self._report, event)

    def _seek(self) -> None:
        thread = threading.Thread(target=self._punch, name="punch")
        try:
            thread.start()
        except RuntimeError:
            if self._sessions:
                # Their end gives some back.
                self._timers.later("seek", THREAD_PAUSE, self._seek)
            else:
                self._fail(LocalError(words.NO_THREAD))
            return
        self._thread = thread

    def _punch(self) -> None:
        """In a thread: wait for the next peer."""
        found: Found
        try:
            found = hole = self._holes.next()
            if not hole.relay:
                found = self._recognise(hole, self._wake)
        except Exception as error:
            found = error
        self._loop.call_soon_threadsafe(self._on_found, found)

    def _recognise(self, hole: Hole, wake: Wake) -> Found:
        """In a thread: return a hole as one of a new peer's, or of a session that comes back."""
        is_back = Trait.RESUMING in hole.traits
        return take_back(hole, self._ticket_of, self._release, wake) if is_back else hole

    def _settle(self, hole: Hole) -> None:
        """Let a relayed hole be settled."""
        background = Background[Found](self._loop, "settle", _close)

        def settle(wake: Wake) -> Found:
            return self._recognise(self._holes.settle(hole, wake, self._report_punch), wake)

        try:
            if len(self._settling) >= self._limit:
                raise RuntimeError
            background.start(settle, lambda found: self._on_settled(found, background))
        except (RuntimeError, OSError):
            # There are as many as sessions, or nothing to do it with is to be had: this peer comes again.
            hole.sock.close()
        else:
            self._settling.add(background)

    def _on_settled(self, found: Found, background: Background[Found]) -> None:
        self._settling.discard(background)
        if self.ended.done() or self._status is not None:
            _close(found)
            self._end_if_empty()
        elif isinstance(found, PunchtunnelError):
            self._report(events.PunchingAgain(reason=str(found)))
        elif isinstance(found, Exception):
            self._broke(found)
        else:
            self._take(found)

    def _ticket_of(self, session: bytes) -> Ticket | None:
        known = self._known.get(session)
        return None if known is None else known.ticket

    def _release(self, session: bytes) -> int | None:
        """In the thread: have a session give up its hole, if it has not noticed yet that it is lost; see take_back."""
        answer: list[int | None] = []
        is_done = threading.Event()

        def release() -> None:
            known = self._known.get(session)
            if known is not None and known.session.release():
                answer.append(known.guest.received)
            is_done.set()

        self._loop.call_soon_threadsafe(release)
        is_done.wait(RELEASE_TIMEOUT)
        return answer[0] if answer else None

    def _on_found(self, found: Found) -> None:
        if self.ended.done() or self._status is not None:
            _close(found)
            self._end_if_empty()
            return
        if isinstance(found, Exception):
            if not isinstance(found, PunchtunnelError):
                self._broke(found)
                return
            if not (isinstance(found, NoHoleError) and self._sessions):
                self._fail(found)
                return
        elif isinstance(found, Hole) and found.relay:
            self._settle(found)
        else:
            self._take(found)
        self._seek()

    def _take(self, found: Hole | Taken | None) -> None:
        """Begin a session with a new peer, or let one go on."""
        if isinstance(found, Hole):
            self._welcome(found)
        elif isinstance(found, Taken) and (known := self._known.get(found.session)) is not None:
            known.guest.tell(found.back)
        else:
            _close(found)

    def _welcome(self, hole: Hole) -> None:
        """Begin a session with a new peer."""
        self._began += 1
        number = self._began

        def report(event: events.Event) -> None:
            event.belong(number)
            self._report(event)

        guest = Guest(self._loop)
        begin = self._begin if len(self._sessions) < self._limit else _turn_away
        session = begin(hole, report, lambda *_: guest)
        if hole.keys is not None:
            self._known[hole.keys.ticket.session] = Known(hole.keys.ticket, session, guest)
        self._sessions[number] = session
        session.ended.add_done_callback(lambda ended: self._loop.call_soon(self._on_ended, number, hole, ended))

    def _on_ended(self, number: int, hole: Hole, ended: asyncio.Future[Outcome]) -> None:
        session = self._sessions.pop(number)
        if hole.keys is not None:
            self._known.pop(hole.keys.ticket.session, None)
        session.close()
        if (error := ended.exception()) is not None:
            self._broke(error)
            return
        outcome = ended.result()
        if Trait.CHECK in hole.traits and outcome.met:
            self._report(events.Checked(remote=hole.remote))
        else:
            # To a service that is an end like any other: ssh ends its ProxyCommand by a signal.
            reason = words.PEER_WAS_ENDED if outcome.reason == words.PEER_QUIT else outcome.reason
            over = events.SessionOver(reason=reason or words.SESSION_OVER, sessions=len(self._sessions))
            over.belong(number)
            self._report(over)
        self._end_if_empty()

    # ---- the end

    def _end_if_empty(self) -> None:
        if self._status is not None and not self._sessions and not self.ended.done():
            self.ended.set_result(Outcome(self._status, ""))

    def _fail(self, error: PunchtunnelError) -> None:
        """No more peers can come."""
        self.failure = error
        if not self.ended.done():
            self.ended.set_result(Outcome(error.status, str(error)))

    def _broke(self, error: BaseException) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)


def _turn_away(hole: Hole, report: events.Report, seekers: Seekers) -> Session:
    """Begin a session only to end it: there are enough."""
    session = Session(asyncio.get_running_loop(), hole, Plan(hole.role, Ends()), report, seekers)
    session.start(hole.unread)
    session.turn_away()
    return session


def _close(found: Found) -> None:
    """Close a hole that comes too late."""
    if isinstance(found, Hole):
        found.sock.close()
    elif isinstance(found, Taken):
        found.back.hole.sock.close()
