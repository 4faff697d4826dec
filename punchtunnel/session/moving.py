"""Leads a session from the relay that carries it to a direct hole, without a pause.

    relayed hole --> offers, tries (arranging.py, in a thread) --> direct hole
                                                                       |
    the relayed carrier is stopped, RESUME on the direct hole both ways, the session goes on there
                                                                       |
                                     the relayed hole is closed <------+

Rule 1: make before break.  The relayed carrier stops when both sides have the direct hole, and for a round trip of
        that one.  What was still on its way through the relay is sent again, as after a loss (protocol/resume.py).
Rule 2: payload waits for a direct hole at first, but not for long (Hole.hold): most that open at all have opened by
        then.
Rule 3: a relay is taken again only where the direct hole is lost, as any other way to come back.
Rule 4: a direct hole is left for another one if this machine's traffic goes another way now, as when a cable was
        plugged in: one try, in the same manner, after a change of addresses or routes.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from punchtunnel import words
from punchtunnel.errors import LinkError, LostError, PunchtunnelError, SignalError
from punchtunnel.link.carrier import Carrier
from punchtunnel.protocol.offers import Flag, Offer, decode_offer
from punchtunnel.protocol.resume import Journal, Ticket
from punchtunnel.punching.hole import Hole
from punchtunnel.reporting import events
from punchtunnel.session.arranging import Arranger
from punchtunnel.session.background import Background
from punchtunnel.session.comeback import Return, come_back
from punchtunnel.session.seeker import Leads
from punchtunnel.system.loop import GuardedLoop, Timers
from punchtunnel.system.signals import Wake
from punchtunnel.words import reach

# Seconds between two looks whether the loop has answered, or the session has ended meanwhile.
LOOK_EVERY = 0.05
NEVER = float("inf")
# Seconds for a try for a better direct hole, with all that is said about it.
ONCE = 30.0
# Offers that wait for the thread; a peer says one at a time, and of more the last ones count.
MOST_HEARD = 8


class Link(Protocol):
    """What is needed of link.link.Link."""

    carrier: Carrier | None

    @property
    def is_open(self) -> bool:
        """See link.link.Link."""

    def offer(self, data: bytes) -> None:
        """See link.link.Link."""

    def detach(self) -> Carrier | None:
        """See link.link.Link."""

    def ping(self, size: int = 0) -> int:
        """See link.link.Link."""


class Host(Protocol):
    """What is needed of session.session.Session."""

    loop: GuardedLoop
    timers: Timers
    report: events.Report

    @property
    def link(self) -> Link:
        """See above."""

    def let_pass(self) -> None:
        """Payload may pass from now on."""

    def lost(self, error: LinkError) -> None:
        """There is no carrier any more: look for another hole, or end."""

    def broke(self, error: BaseException) -> None:
        """A bug."""


class Comes(Protocol):
    """What is needed of session.resuming.Resuming."""

    journal: Journal

    def pause(self) -> None:
        """Seek no other hole any more."""

    def go_on(self, back: Return, event: events.Event) -> None:
        """Let the session go on over a hole by which its peer has come back, and report this event."""


@dataclass(slots=True)
class _Talk:
    """Carries offers in frames of the link (arranging.Talk): the thread says and hears, the loop does the rest."""

    host: Host
    signals: Wake
    heard: deque[Offer]
    round_trip: float
    # The thread waits for an offer: in a try, to be woken would mean to begin it anew.
    waits: bool = False

    def say(self, offer: Offer) -> None:
        """See arranging.Talk."""

        def send() -> None:
            if self.host.link.carrier is not None:
                self.host.link.offer(offer.encode())

        self.host.loop.call_soon_threadsafe(send)

    def hear(self, timeout: float) -> Offer | None:
        """See arranging.Talk."""
        # Before the look, or what comes between the two would wake nobody.
        self.waits = True
        try:
            if not self.heard:
                self.signals.sleep(timeout)
        finally:
            self.waits = False
        return self.heard.popleft() if self.heard else None


class Moving:
    """Of one session.

    Args:
        host: The session.
        ticket: Its own.
        comes: Lets it go on over the direct hole.
        leads: Makes what leads to one.
    """

    def __init__(self, host: Host, ticket: Ticket, comes: Comes, leads: Leads) -> None:
        self._host = host
        self._ticket = ticket
        self._comes = comes
        self._leads = leads
        self._background = Background[Return](host.loop, "move", lambda back: back.hole.sock.close())
        # What carries the session; None before that.
        self._hole: Hole | None = None
        # The peer may speak before this side has begun.
        self._heard: deque[Offer] = deque(maxlen=MOST_HEARD)
        self._talk: _Talk | None = None
        self._round_trip = 0.0
        # The session has no carrier because it moves; the one that was stopped for that, and when.
        self._is_without = False
        self._stopped: Carrier | None = None
        self._stopped_at = 0.0

    def use(self, hole: Hole) -> None:
        """Let payload pass over this hole, which carries the session; if it is relayed, look for a direct one first."""
        self.stop()
        self._hole = hole
        if not hole.relay:
            self._heard.clear()
            self._host.let_pass()
            return
        self._round_trip = 0.0
        self._host.link.ping()
        self._host.timers.later("hold", hole.hold, self._host.let_pass)
        self._begin()

    def _begin(self) -> None:
        # No thread is to be had, or no descriptor: the hole goes on carrying.
        with contextlib.suppress(RuntimeError, OSError):
            self._background.start(self._work, self._done)

    def offered(self, data: bytes) -> None:
        """Take in what the peer says of itself.

        Raises:
            PeerError: It says nonsense.
        """
        offer = decode_offer(data)
        if not self._leads.meets:
            return
        self._heard.append(offer)
        if self._talk is not None and self._talk.waits:
            self._background.hurry()
        # The peer, who leads or asks for it, wants a try for a better one.
        if self._is_direct and self._hole is not None and self._hole.leads is (offer.number == 0):
            self._begin()

    def measured(self, round_trip: float) -> None:
        """Take note of a round trip in seconds."""
        self._round_trip = min(self._round_trip or NEVER, round_trip)
        if self._talk is not None:
            self._talk.round_trip = self._round_trip

    def hurry(self) -> None:
        """Something has changed in this machine's networks: a try may be worth it now."""
        self._background.hurry()
        if self._is_direct and self._hole is not None and self._leads.goes_another_way(self._hole):
            if self._hole.leads:
                self._begin()
            else:
                self._host.link.offer(Offer(0).encode())

    @property
    def _is_direct(self) -> bool:
        """A direct hole carries the session, and no other one is looked for."""
        carried = self._host.link.carrier is not None and self._hole is not None and not self._hole.relay
        return carried and not self._background.is_busy

    def stop(self) -> None:
        """Look for nothing any more."""
        self._background.stop()
        self._hole = self._talk = None
        self._close_stopped()

    def give_up(self, error: LinkError) -> None:
        """Move no more over what was found: the peer does not, and comes back by another hole."""
        was_without = self._is_without
        self._background.stop()
        self._talk = None
        self._close_stopped()
        if was_without:
            self._host.lost(error)

    # ---- in the thread

    def _work(self, signals: Wake) -> Return:
        assert self._hole is not None
        hole = self._hole
        talk = self._talk = _Talk(self._host, signals, self._heard, self._round_trip)
        ways = self._leads.ways(self._ticket, self._report)
        arranger = Arranger(talk, hole.leads, ways, Flag(0), signals, time.monotonic, self._tell)
        direct = arranger.run(NEVER) if hole.relay else arranger.run(time.monotonic() + ONCE, 1)
        try:
            received = self._stop_carrier(signals)
        except BaseException:
            direct.sock.close()
            raise
        return come_back(direct, self._ticket, received, signals)

    def _report(self, event: events.Event) -> None:
        self._host.loop.call_soon_threadsafe(self._host.report, event)

    def _tell(self, why: str, pause: float | None) -> None:
        self._report(events.NotDirect(reason=why, next_s=pause))

    def _stop_carrier(self, signals: Wake) -> int:
        """Have the loop stop the present carrier; return the position of what has come by it.

        Raises:
            LostError: The link has ended, and only writes out what had come.
            SignalError: A signal has come.
        """
        answer: list[int] = []
        is_over, is_done = threading.Event(), threading.Event()

        def stop() -> None:
            if is_over.is_set():
                return
            if self._host.link.carrier is not None:
                self._stopped = self._host.link.detach()
            if self._host.link.is_open:
                # The relayed hole may have been lost meanwhile.
                self._comes.pause()
                self._is_without, self._stopped_at = True, time.monotonic()
                answer.append(self._comes.journal.report())
            is_done.set()

        self._host.loop.call_soon_threadsafe(stop)
        try:
            while not is_done.wait(LOOK_EVERY):
                signals.check()
        except SignalError:
            is_over.set()
            raise
        if not answer:
            raise LostError(words.LINK_CUT)
        return answer[0]

    # ---- in the loop again

    def _done(self, result: Return | Exception) -> None:
        was_without = self._is_without
        self._talk = None
        if isinstance(result, Return):
            paused = time.monotonic() - self._stopped_at
            local, remote = result.hole.local, result.hole.remote
            self._comes.go_on(result, events.Moved(local=local, remote=remote, paused_s=paused))
            self._host.let_pass()
        elif not isinstance(result, PunchtunnelError | OSError):
            self._host.broke(result)
        elif was_without:
            self._host.lost(LostError(reach.MOVE_FAILED.format(reason=result)))
        self._close_stopped()

    def _close_stopped(self) -> None:
        self._is_without = False
        if self._stopped is not None:
            self._stopped.close(reset=True)
            self._stopped = None
