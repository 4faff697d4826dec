"""Run a hole as a session until both sides are done with it.

Who opens streams follows from the two roles of the hellos:

    here       there      streams
    --stdio    --stdio    one, opened by the leader
    --stdio    --to       one, opened by stdio, joined to the target
    -L         --stdio    one, opened for the first local client
    -L         --to       one for each local client

    -z on either side      none; that side measures the round trip and leaves

goodbye.py tells how a session ends.  Whatever is thrown away here (a stream
that broke, was refused by a signal, or never came) is told to the peer in the
goodbye, so that no sender takes it for delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable

from punchtunnel import words
from punchtunnel.ends.stdio import ACCEPTED_INHERIT, End, SocketEnd, StdioEnd
from punchtunnel.ends.target import Connects, why_unreachable
from punchtunnel.errors import Exit, LinkError, PeerError, PunchtunnelError, TargetError
from punchtunnel.link.carrier import Carrier
from punchtunnel.link.link import Link
from punchtunnel.link.stream import Broken
from punchtunnel.protocol.events import Reset
from punchtunnel.protocol.frames import Goodbye, Reason
from punchtunnel.protocol.goodbye import Parting
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.protocol.records import Opener, Sealer
from punchtunnel.punching.hole import Hole
from punchtunnel.session.plan import Outcome, Plan, RoundTrips
from punchtunnel.system.loop import GuardedLoop
from punchtunnel.system.poller import Poller
from punchtunnel.system.signals import Signals

# Seconds.  Nothing sent for HEARTBEAT: say something.  Nothing heard for
# DEAD_AFTER: the peer, which does the same, is gone.
HEARTBEAT = 15.0
DEAD_AFTER = 40.0
TICK = 2.0
SHORTEST_TICK = 0.1
# Seconds for the peer's last word.
GOODBYE_TIMEOUT = 3.0
STOP_TIMEOUT = 1.0
# Seconds for a sign of life when somebody has asked for one: several round
# trips of the longest paths, with a loss.
PROBE_TIMEOUT = 5.0
# Seconds before accept() is tried again when no descriptor was free.
ACCEPT_PAUSE = 0.2
ACCEPTS_PER_TURN = 64
# Pings that -z measures, and the seconds between two.  One more goes before
# them, because a peer that is still starting answers late.
PINGS = 10
PING_EVERY = 0.1
# Seconds after which a peer that only checks the path must have gone.
CHECK_LIMIT = 30.0


def run(hole: Hole, plan: Plan, report: words.Report, signals: Signals | None = None) -> Outcome:
    """Bridge a hole until the session ends; closes the hole.

    Args:
        hole: The winner of a punch.
        plan: What to join it to.
        report: Where events go.
        signals: What ends the session; the second one at once.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_run(hole, plan, report, signals))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop, or asyncio's own where uvloop does not exist."""
    with contextlib.suppress(ImportError):
        import uvloop  # imported late: punching does not need it

        return uvloop.new_event_loop
    return asyncio.new_event_loop


async def _run(hole: Hole, plan: Plan, report: words.Report, signals: Signals | None) -> Outcome:
    loop = asyncio.get_running_loop()
    session = Session(loop, hole, plan, report, own_loop=True)
    guarded = GuardedLoop(loop, session.broke)

    def on_signal() -> None:
        while signals is not None and (number := signals.take()) is not None:
            if signals.means_try_now(number):
                session.probe()
            else:
                session.stop(Exit(128 + number))

    if signals is not None:
        guarded.add_reader(signals.fileno(), on_signal)
    try:
        session.start(hole.unread)
        return await session.ended
    finally:
        if signals is not None:
            guarded.remove_reader(signals.fileno())
        session.close()


class _Stdio(StdioEnd):
    """stdin and stdout of the plan, which clears its place on a terminal before it writes."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.stdin, plan.stdout, discard=plan.discard, keep_open=plan.keep_open)
        self._before_output = plan.before_output

    def write(self, data: memoryview) -> int:
        if self._before_output is not None:
            self._before_output()
        return super().write(data)


class Session:
    """The policy of one session; the owner of its link, and of the hole from now on.

    Args:
        loop: The running loop.
        hole: The winner of a punch.
        plan: What to join it to.
        report: Where events go.
        own_loop: The loop does nothing else, so it may be held up for a moment; a program's may not.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, hole: Hole, plan: Plan, report: words.Report, *, own_loop: bool = False
    ) -> None:
        self._loop = GuardedLoop(loop, self.broke)
        self._loop_name = type(loop).__module__.partition(".")[0]
        self._plan = plan
        self._report = report
        self._leads = hole.leads
        self._their_role = hole.role
        self._peer_takes_nothing = Trait.NO_RECEIVE in hole.traits
        self._single = Role.STDIO in plan.role | hole.role
        try:
            self._poller = Poller(self._loop, spins=own_loop)
        except OSError:
            hole.sock.close()
            raise
        seals = None
        if hole.keys is not None:
            seals = Sealer(hole.keys.send, hole.fast_aes), Opener(hole.keys.receive, hole.fast_aes)
        self._carrier = Carrier(hole.sock, seals)
        self._link = Link(self._loop, self._poller, hole.leads, self)
        self._parting = Parting(hole.leads)
        self._connects: Connects | None = None
        self._target = ""
        if plan.target is not None:
            self._connects = Connects(self._loop, self._poller, plan.target, self._on_reached)
            self._target = str(plan.target)
        self._stdio: StdioEnd | None = None
        # The only stream of a session with stdio on one side.
        self._only: int | None = None
        # No stream is opened: one of the two only looks whether there is a way.
        self._checked = plan.check or Trait.CHECK in hole.traits
        self._measuring = plan.check
        self._pongs: list[float] = []
        self._round_trips: RoundTrips | None = None
        self._path = hole.local, hole.remote
        self._cut = False
        self._leaving = False
        self._stopped: Exit | None = None
        self._failure: PunchtunnelError | None = None
        self._quiet_status: Exit | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._began = self._last_tick = time.monotonic()
        self.ended: asyncio.Future[Outcome] = loop.create_future()

    def start(self, unread: bytes) -> None:
        """Open the first stream or the doors to it, and begin."""
        if not self._checked:
            self._report("link_up", loop=self._loop_name, side="leading" if self._leads else "following")
        self._link.attach(self._carrier, unread)
        if self._checked:
            self._later("check", CHECK_LIMIT, self._give_up_checking)
        else:
            self._open_the_doors()
        self._link.ping()
        self._later("tick", TICK, self._tick)
        if self._plan.traffic_every:
            self._tell_traffic()

    def _open_the_doors(self) -> None:
        if self.opens_the_only and self._plan.ends is None:
            self._after_joining_stdio(self.open(self._stdio_end()))
        for listener in self._plan.listeners:
            listener.setblocking(False)
            self._poller.register(listener.fileno(), self._acceptor(listener))

    @property
    def opens_the_only(self) -> bool:
        """It is on us to open the only stream of a session with stdio, and not done yet."""
        opens = self._leads if self._their_role == Role.STDIO else Role.TO in self._their_role
        return self._plan.role == Role.STDIO and self._only is None and opens

    @property
    def parting(self) -> bool:
        """One of the two sides takes no more streams."""
        said = self._leaving or self._parting.said or self._parting.heard is not None
        return said or not self._link.is_open or self.ended.done()

    def open(self, end: End) -> int:
        """Open a stream that is joined to `end`, and return its number."""
        number = self._link.open(end)
        if self._single:
            self._only = number
        return number

    def refuse(self, number: int) -> None:
        """Reset a stream because this side is about to end."""
        self._link.refuse(number, Reason.CLOSING)

    def leave(self) -> None:
        """End well: say goodbye as soon as all streams are over, and take no new ones."""
        self._leaving = True
        if not self._link.stream_count:
            self._say_goodbye()

    def close(self) -> None:
        """Give everything back but the plan's listeners."""
        for timer in self._timers.values():
            timer.cancel()
        if self._connects is not None:
            self._connects.close()
        self._link.close(reset=True)
        # If it was never attached.
        self._carrier.close(reset=True)
        self._poller.close()

    def stop(self, status: Exit) -> None:
        """End cleanly with this status; when asked twice, at once."""
        if self._stopped is not None:
            self._finish()
            return
        self._stopped = status
        self._later("stop", STOP_TIMEOUT, self._finish)
        self._cut_all()

    def probe(self) -> None:
        """End the session soon, so that -k punches again, unless the peer is heard before."""
        self._report("trying_now", what=words.PROBE_LINK)
        self._link.ping()
        asked = time.monotonic()

        def judge() -> None:
            if self._carrier.heard_at < asked:
                self._die(time.monotonic())

        self._later("probe", PROBE_TIMEOUT, judge)

    def broke(self, error: BaseException) -> None:
        """End with the traceback of a bug; a session that goes on with half a state would hang."""
        if not self.ended.done():
            self.ended.set_exception(error)

    # ---- streams: link.Owner

    def stream_opened(self, number: int) -> None:
        """Join the peer's stream to stdio or to the target."""
        if self._parting.said or self._leaving or self._checked:
            self._link.refuse(number, Reason.CLOSING)
        elif self._single and self._only is not None:
            self._link.refuse(number, Reason.NOT_EXPECTED)
        elif self._plan.ends is not None:
            self._join(number, self._plan.ends(number))
        elif self._plan.role == Role.STDIO:
            self._only = number
            self._link.join(number, self._stdio_end())
            self._after_joining_stdio(number)
        elif self._connects is not None:
            if self._single:
                self._only = number
            self._connects.start(number)
        else:
            self._link.refuse(number, Reason.NOT_EXPECTED)

    def source_ended(self, number: int) -> None:
        """EOF of the peer ends a terminal too: nobody types into a finished transfer.

        A peer that has sent nothing at all only listens: there the typing goes on.
        """
        ours = number == self._only and self._stdio is not None and self._stdio.stdin_is_terminal
        if ours and self._link.bytes_in:
            self._link.end_source(number, drain=True)

    def sized(self, number: int, size: int) -> None:
        """The peer's stdin is a file: --progress can tell how much is left."""
        if number == self._only and self._stdio is not None:
            self._report("announced", direction="in", bytes=size)

    def stream_ended(self, number: int, failure: Reset | Broken | None) -> None:
        """A stream is over; the session too, if it was the only one."""
        if self._connects is not None:
            self._connects.cancel(number)
        if isinstance(failure, Reset):
            self._on_reset(number, failure)
        elif isinstance(failure, Broken):
            self._on_broken(number, failure)
        else:
            self._report("stream_closed", stream=number)
        leaves = self._leaving or self._parting.heard is not None
        if number == self._only or (leaves and not self._link.stream_count):
            self._say_goodbye()

    def _join(self, number: int, end: End | None) -> None:
        if end is None:
            self._link.refuse(number, Reason.NO_RESOURCES)
            return
        if self._single:
            self._only = number
        self._link.join(number, end)

    def _on_reset(self, number: int, reset: Reset) -> None:
        reason = words.reset_reason(reset.reason)
        ours = (number % 2 == 1) == self._leads
        refused = ours and not reset.accepted and reset.reason != Reason.CLOSING
        self._report("target_refused" if refused and not self._single else "stream_reset", stream=number, reason=reason)
        if number == self._only:
            self._cut = True
            self._fail(TargetError(reason) if refused else LinkError(reason))

    def _on_broken(self, number: int, broken: Broken) -> None:
        error = broken.error
        self._report("stream_reset", stream=number, reason=error.strerror or str(error))
        if number != self._only:
            return
        self._cut = True
        if self._plan.role != Role.STDIO or self._plan.ends is not None:
            self._fail(LinkError(words.local_reset(error)))
        elif error.errno == errno.EPIPE and not broken.reading:
            self._quiet_status = Exit.BROKEN_PIPE
        else:
            self._fail(LinkError(words.cannot(words.READ_STDIN if broken.reading else words.WRITE_STDOUT, error)))

    # ---- ends

    def _stdio_end(self) -> StdioEnd:
        self._stdio = _Stdio(self._plan)
        return self._stdio

    def _after_joining_stdio(self, number: int) -> None:
        if self._peer_takes_nothing:
            if self._plan.stdin is not None:
                self._report("warning", reason=words.STDIN_NOT_READ)
            self._link.end_source(number)
        elif self._plan.stdin_size is not None:
            self._link.announce(number, self._plan.stdin_size)
            self._report("announced", direction="out", bytes=self._plan.stdin_size)

    def _acceptor(self, listener: socket.socket) -> Callable[[int], None]:
        name = f"accept {listener.fileno()}"
        told = False

        def accept(_: int = 0) -> None:
            nonlocal told
            for _ in range(ACCEPTS_PER_TURN):
                over = self._parting.said or not self._link.is_open or self.ended.done()
                if over or (self._single and self._only is not None):
                    return
                try:
                    client, _remote = listener.accept()
                except BlockingIOError:
                    return
                except ConnectionAbortedError:
                    # Of those behind it nobody is told again.
                    continue
                except OSError as error:
                    if not told:
                        self._report("warning", reason=words.cannot(words.ACCEPT, error))
                    told = True
                    self._later(name, ACCEPT_PAUSE, accept)
                    return
                told = False
                number = self.open(SocketEnd(client, tuned=ACCEPTED_INHERIT))
                self._report("stream_opened", stream=number, what=words.LOCAL_CLIENT)
            # Edge-triggered: those that are still waiting are not told again.
            self._later(name, 0, accept)

        return accept

    def _on_reached(self, number: int, result: socket.socket | OSError) -> None:
        if isinstance(result, OSError):
            self._not_reached(number, result)
            return
        self._report("stream_opened", stream=number, what=words.to_target(self._target))
        end = SocketEnd(result)
        if not self._link.join(number, end):
            end.abort()

    def _not_reached(self, number: int, error: OSError) -> None:
        reason, code = why_unreachable(error)
        text = words.target_failed(self._target, reason, local=code == Reason.NO_RESOURCES)
        self._link.refuse(number, code)
        if self._single:
            self._cut = True
            self._fail(TargetError(text))
            self._say_goodbye()
        else:
            self._report("target_refused", stream=number, reason=text)

    # ---- the end

    def gone_away(self, code: int) -> None:
        """The peer has said goodbye: say it too, as soon as nothing is left to do."""
        if not self._parting.hear(code):
            return
        if code == Goodbye.CUT:
            self._fail(LinkError(words.PEER_QUIT))
        elif code != Goodbye.NORMAL:
            self._fail(LinkError(words.protocol_error(code)))
        elif self._single and self._only is None and not self._checked:
            self._fail(LinkError(words.PEER_NEVER_CAME))
        if not (self._link.stream_count or (self._measuring and code == Goodbye.NORMAL)):
            self._say_goodbye()
        self._part()

    def ponged(self, value: int, rtt: float) -> None:
        """A ping was answered; behind our goodbye it proves that that was read."""
        self._report("rtt", rtt_s=rtt)
        self._parting.pong(value)
        self._part()
        if self._measuring:
            self._measure(rtt)

    def _measure(self, rtt: float) -> None:
        """Take in one round trip of -z, and ask for the next one."""
        self._pongs.append(rtt)
        if len(self._pongs) <= PINGS:
            self._later("ping", PING_EVERY, self._link.ping)
            return
        self._measuring = False
        self._round_trips = found = RoundTrips.of(self._pongs[1:])
        self._report(
            "path",
            local=self._path[0],
            remote=self._path[1],
            rtt_min_s=found.least,
            rtt_median_s=found.median,
            rtt_max_s=found.most,
        )
        self._say_goodbye()

    def _give_up_checking(self) -> None:
        self._fail(LinkError(words.dead_link(CHECK_LIMIT)))
        self._finish()

    def link_ended(self, error: LinkError | None) -> None:
        """The hole is closed: well, if the peer has said goodbye and nothing of ours is missing.

        What is no record or frame of the peer's is never well: somebody has changed it.
        """
        unsaid = self._parting.heard is None or self._link.cut or self._measuring
        if unsaid or isinstance(error, PeerError):
            self._fail(error or LinkError(words.LINK_CUT))
        self._finish()

    def _cut_all(self) -> None:
        """Give up what is not delivered yet, and tell the peer so."""
        if self._link.stream_count:
            self._cut = True
            self._link.refuse_all(Reason.CLOSING)
        self._say_goodbye()

    def _say_goodbye(self) -> None:
        if self._parting.said:
            return
        self._link.go_away(Goodbye.CUT if self._cut else Goodbye.NORMAL)
        self._parting.say(self._link.ping())
        self._part()

    def _part(self) -> None:
        if self._parting.may_close:
            self._finish()
        elif self._parting.over and "goodbye" not in self._timers:
            self._later("goodbye", GOODBYE_TIMEOUT, self._finish)

    def _fail(self, error: PunchtunnelError) -> None:
        """Remember the first failure: later ones are its consequences."""
        if self._failure is None:
            self._failure = error

    def _finish(self) -> None:
        if self.ended.done():
            return
        status, reason = Exit.OK, ""
        if self._stopped is not None:
            status = self._stopped
        elif self._quiet_status is not None:
            status = self._quiet_status
        elif self._failure is not None:
            status, reason = self._failure.status, str(self._failure)
        bytes_in, bytes_out = self._link.bytes_in, self._link.bytes_out
        elapsed = time.monotonic() - self._began
        self._report("link_ended", reason=reason, elapsed_s=elapsed, bytes_in=bytes_in, bytes_out=bytes_out)
        self.ended.set_result(Outcome(status, reason, self._round_trips))

    # ---- time

    def _later(self, name: str, seconds: float, call: Callable[[], object]) -> None:
        """Call once, later; a timer of the same name is replaced."""
        if (timer := self._timers.get(name)) is not None:
            timer.cancel()

        def run() -> None:
            del self._timers[name]
            call()

        self._timers[name] = self._loop.call_later(seconds, run)

    def _tell_traffic(self) -> None:
        self._later("traffic", self._plan.traffic_every, self._tell_traffic)
        self._report(
            "traffic",
            elapsed_s=time.monotonic() - self._began,
            bytes_in=self._link.bytes_in,
            bytes_out=self._link.bytes_out,
            streams=self._link.stream_count,
        )

    def _tick(self) -> None:
        """Keep the link alive, notice its death, and end an idle session."""
        idle = 0.0 if self._checked else self._plan.idle
        self._later("tick", max(SHORTEST_TICK, min(TICK, idle or TICK)), self._tick)
        now = time.monotonic()
        if now - self._last_tick > 3 * TICK:
            # This process was stopped; what came meanwhile is not read yet.
            self._carrier.heard_at = self._link.payload_at = now
        self._last_tick = now
        if not self._link.is_open:
            if not self._single and now - self._link.payload_at >= DEAD_AFTER:
                # Whoever reads nothing must not keep the others from the next hole; a pipe's reader may take its time.
                self._fail(LinkError(words.unread_rest(DEAD_AFTER)))
                self._cut_all()
        elif now - self._carrier.heard_at >= DEAD_AFTER:
            self._die(now)
        elif now - self._carrier.said_at >= HEARTBEAT or now - self._carrier.heard_at >= HEARTBEAT:
            self._link.ping()
        if idle and now - self._link.payload_at >= idle and not self._parting.said:
            if self._link.stream_count or (self._single and self._only is None):
                self._fail(LinkError(words.idle_link(idle)))
            self._cut_all()

    def _die(self, now: float) -> None:
        """The peer is gone: its silence says so."""
        self._fail(LinkError(words.dead_link(now - self._carrier.heard_at)))
        self._finish()
