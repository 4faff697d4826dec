"""Run a hole as a session until both sides are done with it.

Who opens streams follows from the two roles of the hellos:

    here       there      streams
    --stdio    --stdio    one, opened by the leader
    --stdio    --to       one, opened by stdio, joined to the target
    -L         --stdio    one, opened for the first local client
    -L         --to       one for each local client

    -z on either side      none; that side measures the round trip and leaves

The role knows what a stream is joined to (roles.py).  protocol/goodbye.py knows
when the two sides may part.  When this side throws something away (a stream
broke, a signal cut it, or it never came), its goodbye says so, and no sender
takes the bytes for delivered.
"""

from __future__ import annotations

import asyncio
import time

from punchtunnel import words
from punchtunnel.ends.end import End
from punchtunnel.errors import Exit, LinkError, LostError, PeerError, PunchtunnelError, TargetError
from punchtunnel.link.carrier import Carrier
from punchtunnel.link.link import Link
from punchtunnel.link.stream import Broken
from punchtunnel.protocol.events import Reset
from punchtunnel.protocol.frames import Goodbye, Reason
from punchtunnel.protocol.goodbye import Parting, State
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.protocol.records import Opener, Sealer
from punchtunnel.punching.hole import Hole
from punchtunnel.reporting import events
from punchtunnel.session import silence
from punchtunnel.session.check import FULL_PACKET, Check
from punchtunnel.session.outcome import Outcome, RoundTrips
from punchtunnel.session.plan import Plan
from punchtunnel.session.silence import Silence
from punchtunnel.system.loop import GuardedLoop, Timers
from punchtunnel.system.poller import Poller

# Seconds.
TICK = 2.0
SHORTEST_TICK = 0.1
# Seconds for the answer to our last ping, or the peer's close, once both sides have said goodbye or this one failed.
GOODBYE_TIMEOUT = 3.0
# Seconds for a peer's first word on the link: its process may be slow to begin.
MEETING_TIMEOUT = 15.0
STOP_TIMEOUT = 1.0
# Seconds for a sign of life that SIGHUP has asked for: several round trips of the
# longest paths, with a loss.
PROBE_TIMEOUT = 5.0
# Seconds after which a peer that only checks the path must have left.
CHECK_LIMIT = 30.0


class Session:
    """The policy of one session; owns its link, and the hole from now on.

    Args:
        loop: The running loop.
        hole: The winner of a punch.
        plan: What to join it to.
        report: Where events go.
        own_loop: The loop does nothing else, so the poller may spin on it for a moment; a program's loop must not wait.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, hole: Hole, plan: Plan, report: events.Report, *, own_loop: bool = False
    ) -> None:
        self.loop = GuardedLoop(loop, self.broke)
        self.timers = Timers(self.loop)
        self.report = report
        self._loop_name = type(loop).__module__.partition(".")[0]
        self._plan = plan
        self._leads = hole.leads
        self._their_role = hole.role
        self._path = hole.local, hole.remote
        self.peer_takes_nothing = Trait.NO_RECEIVE in hole.traits
        self.is_single = Role.STDIO in plan.role | hole.role
        # The only stream of a session with stdio on one side.
        self._only: int | None = None
        try:
            self.poller = Poller(self.loop, spins=own_loop)
        except OSError:
            hole.sock.close()
            raise
        seals = None
        if hole.keys is not None:
            seals = Sealer(hole.keys.send, hole.fast_aes), Opener(hole.keys.receive, hole.fast_aes)
        self._carrier = Carrier(hole.sock, seals)
        self.link = Link(self.loop, self.poller, hole.leads, self)
        self._ends = plan.ends
        self._ends.attach(self)
        self._parting = Parting(hole.leads)
        # No stream is opened: one of the two sides only checks the path (-z).
        self._is_checked = plan.check or Trait.CHECK in hole.traits
        self._check = Check(self.link.ping, self.timers, self._measured) if plan.check else None
        self._is_certain, self._met = hole.is_certain, False
        # Some bytes of this session were not delivered.
        self._cut = False
        self._stopped: Exit | None = None
        self._failure: PunchtunnelError | None = None
        self._quiet_status: Exit | None = None
        self._silence = Silence(self._carrier, self.link.ping, self.timers.later, self._die)
        self._began = time.monotonic()
        self.ended: asyncio.Future[Outcome] = loop.create_future()

    def start(self, unread: bytes) -> None:
        """Take over the hole; the role begins when the peer is known to be on it, too."""
        self.link.attach(self._carrier, unread)
        if self._is_certain:
            self._meet()
        elif not self._check:
            self.timers.later("meeting", MEETING_TIMEOUT, self._finish_unmet)
        if self._is_checked:
            self.timers.later("check", CHECK_LIMIT, self._give_up_checking)
        self.link.ping(FULL_PACKET if self._check else 0)
        self.timers.later("tick", TICK, self._tick)

    def _meet(self) -> None:
        """Begin: the role opens its first stream, or accepts clients.  Whatever was begun before could be lost."""
        if self._met or self.ended.done():
            return
        self._met = True
        if not self._is_checked:
            self.report(events.LinkUp(self._loop_name, "leading" if self._leads else "following"))
            self._ends.begin()
        if self._plan.traffic_every:
            self._tell_traffic()

    def _finish_unmet(self) -> None:
        if not self._met:
            self._finish()

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

    def stop(self, status: Exit) -> None:
        """Cut every stream, tell the peer, and end with this status; a second call ends at once."""
        if self._stopped is not None:
            self._finish()
            return
        self._stopped = status
        self.timers.later("stop", STOP_TIMEOUT, self._finish)
        self._cut_all()

    def probe(self) -> None:
        """Ask the peer for a sign of life, and end the session if none comes soon, so that -k punches again."""
        self.report(events.TryingNow(words.PROBE_LINK))
        self._silence.expect(PROBE_TIMEOUT)

    def broke(self, error: BaseException) -> None:
        """End with the traceback of a bug: going on with half a state would hang the session."""
        if not self.ended.done():
            self.ended.set_exception(error)

    def close(self) -> None:
        """Give everything back but the listeners of -L."""
        self.timers.cancel()
        self._ends.close()
        self.link.close(reset=True)
        # If it was never attached.
        self._carrier.close(reset=True)
        self.poller.close()

    # ---- what its role may ask for: roles.Host

    @property
    def opens_the_only(self) -> bool:
        """Tell whether this side is to open the only stream of a session with stdio, and has not done so yet."""
        opens = self._leads if self._their_role == Role.STDIO else Role.TO in self._their_role
        return self._plan.role == Role.STDIO and self._only is None and opens

    @property
    def takes_clients(self) -> bool:
        """Tell whether another stream may be opened."""
        over = self._parting.said or not self.link.is_open or self.ended.done()
        return not over and not (self.is_single and self._only is not None)

    def open(self, end: End) -> int:
        """Open a stream that is joined to `end`, and return its number."""
        number = self.link.open(end)
        self.adopt(number)
        return number

    def adopt(self, number: int) -> None:
        """Take note that a stream is in use: it may be the only one."""
        if self.is_single:
            self._only = number

    def give_up(self, error: PunchtunnelError) -> None:
        """End the session: the only stream leads nowhere."""
        self._cut = True
        self._fail(error)
        self._say_goodbye()

    # ---- streams: link.Owner

    def stream_opened(self, number: int) -> None:
        """Let the role join the peer's stream, unless this side is about to end or already has its only stream."""
        if not self._met:
            self._meet()
        if self._is_checked or self._parting.state is not State.OPEN:
            self.link.refuse(number, Reason.CLOSING)
        elif self.is_single and self._only is not None:
            self.link.refuse(number, Reason.NOT_EXPECTED)
        else:
            self._ends.take(number)

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
        if isinstance(failure, Reset):
            self._on_reset(number, failure)
        elif isinstance(failure, Broken):
            self._on_broken(number, failure)
        else:
            self.report(events.StreamClosed(number))
        if number == self._only or (self._parting.is_due and not self.link.stream_count):
            self._say_goodbye()

    def _on_reset(self, number: int, reset: Reset) -> None:
        reason = words.reset_reason(reset.reason)
        ours = (number % 2 == 1) == self._leads
        refused = ours and not reset.accepted and reset.reason != Reason.CLOSING
        event = events.TargetRefused if refused and not self.is_single else events.StreamReset
        self.report(event(stream=number, reason=reason))
        if number == self._only:
            self._cut = True
            self._fail(TargetError(reason) if refused else LinkError(reason))

    def _on_broken(self, number: int, broken: Broken) -> None:
        self.report(events.StreamReset(number, broken.error.strerror or str(broken.error)))
        if number == self._only:
            self._cut = True
            why = self._ends.why_broken(broken)
            if isinstance(why, Exit):
                self._quiet_status = why
            else:
                self._fail(why)

    # ---- the end: link.Owner

    def gone_away(self, code: int) -> None:
        """The peer has said goodbye: this side does too, as soon as no stream and no measurement is left."""
        self._meet()
        if not self._parting.hear(code):
            return
        if code == Goodbye.CUT:
            self._fail(LinkError(words.PEER_QUIT))
        elif code != Goodbye.NORMAL:
            self._fail(LinkError(words.protocol_error(code)))
        elif self.is_single and self._only is None and not self._is_checked:
            self._fail(LinkError(words.PEER_NEVER_CAME))
        if not (self.link.stream_count or (self._is_measuring and code == Goodbye.NORMAL)):
            self._say_goodbye()
        self._part()

    def ponged(self, value: int, rtt: float) -> None:
        """A ping was answered; if it followed our goodbye, the answer proves that the goodbye was read."""
        self._meet()
        self.report(events.RoundTrip(rtt))
        self._parting.pong(value)
        self._part()
        if self._is_measuring and self._check is not None:
            self._check.pong(rtt)

    def link_ended(self, error: LinkError | None) -> None:
        """The hole is closed.  It ended well if the peer has said goodbye and nothing of ours is missing.

        Bytes that are no record or frame of the peer's never end it well: an attacker may have changed them.
        """
        unsaid = self._parting.heard is None or self.link.cut or self._is_measuring
        if unsaid or isinstance(error, PeerError):
            self._fail(self._silence.why(error or LostError(words.LINK_CUT)))
        self._finish()

    @property
    def _is_measuring(self) -> bool:
        return self._check is not None and self._check.found is None

    def _measured(self, found: RoundTrips) -> None:
        self.report(events.PathMeasured(*self._path, found.least, found.median, found.most))
        self._say_goodbye()

    def _give_up_checking(self) -> None:
        # A way that swallows long packets has been found, even if no other hole is.
        self._met = True
        self._die(self._silence.why())

    def _cut_all(self) -> None:
        """Cut the streams that are still open, and tell the peer so in the goodbye."""
        if self.link.stream_count:
            self._cut = True
            self.link.refuse_all(Reason.CLOSING)
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        if self._parting.said:
            return
        self.link.go_away(Goodbye.CUT if self._cut else Goodbye.NORMAL)
        self._parting.say(self.link.ping())
        self._part()

    def _part(self) -> None:
        if self._parting.may_close:
            self._finish()
            return
        # A peer that never says goodbye does not keep a side whose failure is decided.
        failed = self._failure is not None or self._quiet_status is not None
        if (self._parting.state is State.PARTED or (failed and self._parting.said)) and "goodbye" not in self.timers:
            self.timers.later("goodbye", GOODBYE_TIMEOUT, self._finish)

    def _fail(self, error: PunchtunnelError) -> None:
        """Keep the first failure: later ones are its consequences."""
        if self._failure is None:
            self._failure = error

    def _finish(self) -> None:
        if self.ended.done():
            return
        failure = self._failure if self._met else LinkError(words.NEVER_MET)
        status, reason = self._stopped or self._quiet_status or Exit.OK, ""
        if status is Exit.OK and failure is not None:
            again = f"; {self._plan.again}" if self._plan.again and isinstance(failure, LostError) else ""
            status, reason = failure.status, f"{failure}{again}"
        elapsed = time.monotonic() - self._began
        self.report(events.LinkEnded(reason, elapsed, self.link.bytes_in, self.link.bytes_out))
        found = None if self._check is None else self._check.found
        self.ended.set_result(Outcome(status, reason, found, self._met))

    # ---- time

    def _tell_traffic(self) -> None:
        self.timers.later("traffic", self._plan.traffic_every, self._tell_traffic)
        elapsed = time.monotonic() - self._began
        self.report(events.Traffic(elapsed, self.link.bytes_in, self.link.bytes_out, self.link.stream_count))

    def _tick(self) -> None:
        """Keep the link alive, notice when it is dead, and end an idle session."""
        idle = 0.0 if self._is_checked else self._plan.idle
        self.timers.later("tick", max(SHORTEST_TICK, min(TICK, idle or TICK)), self._tick)
        now = time.monotonic()
        if has_slept := self._silence.has_slept(3 * TICK):
            # What has arrived since then is not read yet.
            self._carrier.heard_at = self.link.payload_at = now
        if not self.link.is_open:
            self._hurry_the_rest(now)
        elif has_slept:
            self._silence.expect(silence.WAKE_TIMEOUT)
        else:
            self._silence.look()
        if idle and now - self.link.payload_at >= idle and not self._parting.said:
            if self.link.stream_count or (self.is_single and self._only is None):
                self._fail(LinkError(words.idle_link(idle)))
            self._cut_all()

    def _hurry_the_rest(self, now: float) -> None:
        """After the hole's end, cut what a program here has not read for DEAD_AFTER: others wait for the next hole.

        With stdio there are no others, so the reader of a pipe may take its time.
        """
        if not self.is_single and now - self.link.payload_at >= silence.DEAD_AFTER:
            self._fail(LinkError(words.unread_rest(silence.DEAD_AFTER)))
            self._cut_all()

    def _die(self, error: LinkError) -> None:
        """End the session with a lost link."""
        if self.link.is_open:
            self._fail(error)
            self._finish()
