"""Run a hole as a session until both sides are done with it.

plan.py says who opens streams, the role what they are joined to (roles.py), and
protocol/goodbye.py when the two sides may part.  When this side throws something away
(a stream broke, a signal cut it, or it never came), its goodbye says so.
"""

from __future__ import annotations

import asyncio

from punchtunnel import words
from punchtunnel.ends.end import End
from punchtunnel.errors import Exit, LinkError, LostError, PeerError, PunchtunnelError
from punchtunnel.link.carrier import Carrier
from punchtunnel.link.link import Link
from punchtunnel.link.stream import Broken
from punchtunnel.protocol.events import Reset
from punchtunnel.protocol.frames import Goodbye, Reason
from punchtunnel.protocol.goodbye import COMEBACK_TIMEOUT, GOODBYE_TIMEOUT, Parting, State
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.protocol.records import seals_of
from punchtunnel.punching.hole import Hole
from punchtunnel.reporting import events
from punchtunnel.session.check import CHECK_LIMIT, FULL_PACKET, Check
from punchtunnel.session.comeback import ticket_of
from punchtunnel.session.failures import Failures
from punchtunnel.session.outcome import Outcome, RoundTrips
from punchtunnel.session.plan import Plan
from punchtunnel.session.pulse import Pulse
from punchtunnel.session.resuming import Resuming
from punchtunnel.session.seeker import Leads, Seekers
from punchtunnel.session.verdict import Verdict
from punchtunnel.system.loop import GuardedLoop, Timers
from punchtunnel.system.poller import Poller

# Seconds for a peer's first word on the link: its process may be slow to begin.
MEETING_TIMEOUT = 15.0
STOP_TIMEOUT = 1.0


class Session:
    """The policy of one session; owns its link, and the hole from now on.

    Args:
        loop: The running loop.
        hole: The winner of a punch.
        plan: What to join it to.
        report: Where events go.
        seekers: Makes what seeks another hole when one is lost; None: the session ends with it.
        holes: Lead from a relay to a direct hole; None: a relayed hole stays one.
        own_loop: The loop does nothing else, so the poller may spin on it for a moment; a program's loop must not wait.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        hole: Hole,
        plan: Plan,
        report: events.Report,
        seekers: Seekers | None = None,
        holes: Leads | None = None,
        *,
        own_loop: bool = False,
    ) -> None:
        self.loop = GuardedLoop(loop, self.broke)
        self.timers = Timers(self.loop)
        self.report = report
        self._loop_name = type(loop).__module__.partition(".")[0]
        self._plan, self._ends = plan, plan.ends
        self._leads, self._their_role, self._hole = hole.leads, hole.role, hole
        self.peer_takes_nothing, self.peer_connects = Trait.NO_RECEIVE in hole.traits, Role.TO in hole.role
        self.is_single = Role.STDIO in plan.role | hole.role
        self._only: int | None = None  # the stream of a session with stdio on one side
        try:
            self.poller = Poller(self.loop, spins=own_loop)
        except OSError:
            hole.sock.close()
            raise
        self._is_checked = plan.check or Trait.CHECK in hole.traits  # -z on either side: no stream is opened
        ticket = None if self._is_checked else ticket_of(hole, plan.resume)
        self._resuming = None
        if seekers is not None and ticket is not None:
            self._resuming = Resuming(self, ticket, plan.resume, seekers(self.loop, report), holes)
        seals = hole.seals if hole.keys is None or hole.seals else seals_of(hole.keys, fast_aes=hole.fast_aes)
        journal = None if self._resuming is None else self._resuming.journal
        self._carrier = Carrier(hole.sock, seals, journal, relayed=bool(hole.relay))
        self.link = Link(self.loop, self.poller, hole.leads, self)
        self._ends.attach(self)
        self._parting = Parting(hole.leads, resumes=self._resuming is not None)
        self._check = Check(self.link.ping, self.timers, self._measured) if plan.check else None
        self._met = self._begun = False
        self._verdict = Verdict()
        self._failures = Failures(report, self._verdict, plan.ends, leads=hole.leads, is_single=self.is_single)
        idle, patient = 0.0 if self._is_checked else plan.idle, self.is_single
        self._pulse = Pulse(self, idle, patient=patient, resumes=self._resuming is not None)
        self.ended: asyncio.Future[Outcome] = loop.create_future()

    def start(self, unread: bytes) -> None:
        """Take over the hole; the role begins when the peer is known to be on it, too."""
        self._pulse.start(self._carrier)  # tells what is wrong with the first that is read
        self.link.attach(self._carrier, unread)
        if self._hole.is_certain:
            self._meet()
        elif not self._check:
            self.timers.later("meeting", MEETING_TIMEOUT, lambda: None if self._met else self._finish())
        if self._is_checked:
            self.timers.later("check", CHECK_LIMIT, self._give_up_checking)
        self.link.ping(FULL_PACKET if self._check else 0)

    def go_on(self, hole: Hole, carrier: Carrier, unread: bytes) -> None:
        """Another hole carries the session."""
        self._hole = hole
        self._pulse.start(carrier)
        self.link.attach(carrier, unread)
        if self._begun and hole.relay:
            self.report(events.Relayed(relay=hole.relay))
        self._use()
        self._part()

    def _use(self) -> None:
        """Let payload pass; by a relay perhaps a little later."""
        if self._resuming is None:
            self.let_pass()
        else:
            self._resuming.use(self._hole)

    def not_back(self, error: LinkError) -> None:
        """No other hole comes: only the sign may be missing that our goodbye was read."""
        if self._parting.heard is None or self.link.stream_count:
            self._verdict.fail(error)
        self.link.end(error)

    def _meet(self) -> None:
        """Begin: the role opens its first stream, or accepts clients.  Whatever was begun before could be lost."""
        if self._met or self.ended.done():
            return
        self._met = True
        self._use()

    def let_pass(self) -> None:
        """Payload may pass: begin, if that has not been done."""
        if self._begun or self.ended.done():
            return
        self._begun = True
        if self._hole.relay:
            self.report(events.Relayed(relay=self._hole.relay))
        if not self._is_checked:
            self.report(events.LinkUp(self._loop_name, "leading" if self._leads else "following"))
            if self._resuming is None and self._plan.resume:
                why = words.PEER_CANNOT_RESUME if self._hole.keys is not None else words.PLAIN_CANNOT_RESUME
                self.report(events.CannotResume(why))
            self._ends.begin()
        if self._plan.traffic_every:
            self._pulse.tell_traffic(self.report, self._plan.traffic_every)

    # ---- what its owner may ask for

    @property
    def parting(self) -> bool:
        """Tell whether one of the two sides takes no more streams."""
        return self._parting.state is not State.OPEN or not self.link.is_open or self.ended.done()

    def refuse(self, number: int) -> None:
        """Refuse a stream because this side is about to end."""
        self.link.refuse(number, Reason.CLOSING)

    def leave(self) -> None:
        """End well: take no new streams, and say goodbye as soon as all open ones are over."""
        self._parting.leave()
        if not self.link.stream_count:
            self._say_goodbye()

    def turn_away(self) -> None:
        """End at once: this service has enough sessions."""
        self.give_up(LinkError(words.TURNED_AWAY), Goodbye.FULL)

    def release(self) -> bool:
        """Give up the hole, because the peer comes back by another one; False if the session does not wait for it."""
        self.link.lose(error := LostError(words.PEER_COMES_BACK))
        return self._resuming is not None and self._resuming.expect(error)

    def stop(self, status: Exit) -> None:
        """Cut every stream, tell the peer, and end with this status; a second call ends at once."""
        if not self._verdict.stop(status):
            self._finish()
            return
        self.timers.later("stop", STOP_TIMEOUT if self.link.carrier is not None else 0, self._finish)
        self._cut_all()

    def probe(self) -> None:
        """Ask the peer for a sign of life, and end the session if none comes soon, so that -k punches again."""
        self.report(events.TryingNow(words.PROBE_LINK))
        self.ask_now(path_only=False)

    def ask_now(self, *, path_only: bool = True) -> None:
        """See what has become of the hole, or seek another one without waiting."""
        if self._resuming is not None:
            self._resuming.hurry()
        if self._resuming is None or self.link.carrier is not None:
            self._pulse.ask_now(path_only=path_only)

    def broke(self, error: BaseException) -> None:
        """End with the traceback of a bug: going on with half a state would hang the session."""
        if not self.ended.done():
            self.ended.set_exception(error)

    def close(self) -> None:
        """Give everything back but the listeners of -L; a second call does nothing."""
        self.timers.cancel()
        if self._resuming is not None:
            self._resuming.stop()
        self._ends.close()
        self.link.close(reset=True)
        self._carrier.close(reset=True)  # if it was never attached
        self.poller.close()

    # ---- what its role may ask for: roles.Host

    @property
    def opens_the_only(self) -> bool:
        """Tell whether this side is to open the only stream of a session with stdio, and has not done so yet."""
        opens = self._leads if self._their_role == Role.STDIO else self.peer_connects
        return self._plan.role == Role.STDIO and self._only is None and opens

    @property
    def takes_clients(self) -> bool:
        """Tell whether another stream may be opened."""
        over = self._parting.said or not self.link.is_open or self.ended.done()
        return not over and not (self.is_single and self._only is not None)

    def open(self, end: End, service: str = "") -> int:
        """Open a stream that is joined to `end`, for a service or for none, and return its number."""
        number = self.link.open(end, service)
        self.adopt(number)
        return number

    def adopt(self, number: int) -> None:
        """Take note that a stream is in use: it may be the only one."""
        self._only = number if self.is_single else None

    def give_up(self, error: PunchtunnelError, code: Goodbye = Goodbye.CUT) -> None:
        """End the session: as a rule the only stream leads nowhere."""
        self._verdict.fail(error)
        self._say_goodbye(code)

    # ---- streams: link.Owner

    def stream_opened(self, number: int, service: str) -> None:
        """Let the role join the peer's stream, unless this side is about to end or already has its only stream."""
        self._meet()
        if self._is_checked or self._parting.state is not State.OPEN:
            self.link.refuse(number, Reason.CLOSING)
        elif self.is_single and self._only is not None:
            self.link.refuse(number, Reason.NOT_EXPECTED)
        else:
            self._ends.take(number, service)

    def source_ended(self, number: int) -> None:
        """The peer's direction of a stream has ended."""
        if number == self._only:
            self._ends.source_ended(number)

    def sized(self, number: int, size: int) -> None:
        """The peer knows how many bytes it will send on a stream."""
        if number == self._only:
            self._ends.sized(size)

    def stream_ended(self, number: int, failure: Reset | Broken | None) -> None:
        """A stream is over; if it was the only one, so is the session."""
        self._ends.ended(number, given_up=isinstance(failure, Reset) and failure.given_up)
        if failure is None:
            self.report(events.StreamClosed(number))
        else:
            self._failures.take(number, failure, is_only=number == self._only)
        if number == self._only or (self._parting.is_due and not self.link.stream_count):
            self._say_goodbye()

    # ---- the end: link.Owner

    def gone_away(self, code: int) -> None:
        """The peer has said goodbye: this side does too, as soon as no stream and no measurement is left."""
        self._meet()
        if not self._parting.hear(code):
            return
        if code != Goodbye.NORMAL:
            self._verdict.fail(LinkError(words.goodbye(code)))
        elif self.is_single and self._only is None and not self._is_checked:
            self._verdict.fail(LinkError(words.PEER_NEVER_CAME))
        if not (self.link.stream_count or (self._is_measuring and code == Goodbye.NORMAL)):
            self._say_goodbye()
        self._part()

    def ponged(self, value: int, rtt: float) -> None:
        """A ping was answered; if it followed our goodbye, the answer proves that the goodbye was read."""
        self._meet()
        self.report(events.RoundTrip(rtt))
        if self._resuming is not None:
            self._resuming.measured(rtt)
        self._parting.pong(value)
        self._part()
        if self._is_measuring and self._check is not None:
            self._check.pong(rtt)

    def offered(self, data: bytes) -> None:
        """The peer has said how it can be met without the relay."""
        if self._resuming is not None:
            self._resuming.offered(data)

    def lost(self, error: LinkError) -> None:
        """A move has failed when the relayed hole was given up already."""
        if self.link.is_open and not self.awaits_another(error):
            self.link.end(error)

    def awaits_another(self, error: LinkError | None) -> bool:
        """The hole is lost: look for another one, unless the session is as good as over."""
        over = self._verdict.is_final or self._parting.is_over or self.ended.done()
        if over or self._resuming is None or not self._met:
            return False
        self.timers.drop("probe")
        if "goodbye" in self.timers:
            self.timers.later("goodbye", COMEBACK_TIMEOUT, self._finish)
        why = self._pulse.why(error or LostError(words.LINK_CUT))
        return self._resuming.seek(why, self.link.stream_count, self._pulse.until_noticed)

    def link_ended(self, error: LinkError | None) -> None:
        """The last hole is closed.  It ended well if the peer has said goodbye and nothing of ours is missing.

        Bytes that are no record or frame of the peer's never end it well: an attacker may have changed them.
        """
        unsaid = self._parting.heard is None or self.link.cut or self._is_measuring
        self._met = self._met or self._pulse.swallows  # as below, if the peer gives up first
        if unsaid or isinstance(error, PeerError):
            self._verdict.fail(self._pulse.why(error or LostError(words.LINK_CUT)))
        self._finish()

    @property
    def _is_measuring(self) -> bool:
        return self._check is not None and self._check.found is None

    def _measured(self, found: RoundTrips) -> None:
        self.report(events.PathMeasured(self._hole.local, self._hole.remote, found.least, found.median, found.most))
        self._say_goodbye()

    def _give_up_checking(self) -> None:
        self._met = True  # A way that swallows long packets has been found, even if no other hole is.
        self.die(self._pulse.why())

    def _cut_all(self) -> None:
        """Cut the streams that are still open, and tell the peer so in the goodbye."""
        if self.link.stream_count:
            self._verdict.cut = True
            self.link.refuse_all(Reason.CLOSING)
        self._say_goodbye()

    def _say_goodbye(self, code: Goodbye = Goodbye.NORMAL) -> None:
        if self._parting.said:
            return
        self.link.go_away(Goodbye.CUT if self._verdict.cut else code)
        self._parting.say(self.link.ping())
        self._part()

    def _part(self) -> None:
        if self._parting.may_close:
            self._finish()
            return
        # A peer that never says goodbye does not keep a side whose failure is decided.
        failed = self._verdict.has_failed and self._parting.said
        if (self._parting.state is State.PARTED or failed) and "goodbye" not in self.timers:
            self.timers.later("goodbye", GOODBYE_TIMEOUT, self._finish)

    def _finish(self) -> None:
        if self.ended.done():
            return
        status, reason = self._verdict.sum_up(self._plan.again, met=self._met)
        self._pulse.tell_end(self.report, status, reason, of_stdio=self._plan.role == Role.STDIO)
        self.ended.set_result(Outcome(status, reason, self._check.found if self._check else None, self._met))

    def end_idle(self, error: LinkError) -> None:
        """Nothing has passed for too long."""
        if self._parting.said:
            return
        if self.link.stream_count or (self.is_single and self._only is None):
            self._verdict.fail(error)
        self._cut_all()

    def cut_rest(self, error: LinkError) -> None:
        """After the hole's end, cut what a program here has not read: others wait for the next hole."""
        self._verdict.fail(error)
        self._cut_all()

    def die(self, error: LinkError) -> None:
        """Give up the hole; with it ends the session, unless another one may come."""
        if not self.link.is_open:
            return
        if self._resuming is not None:
            self.link.lose(error)
        else:
            self._verdict.fail(error)
            self._finish()
