"""Run a hole as a session until both sides are done with it.

Who opens streams follows from the two roles of the hellos:

    here       there      streams
    --stdio    --stdio    one, opened by the leader
    --stdio    --to       one, opened by stdio, joined to the target
    -L         --stdio    one, opened for the first local client
    -L         --to       one for each local client

A session ends with a goodbye in both directions:

    leader                              other side
      |  GO_AWAY, PING     ---------->    |    sent when all streams are over here;
      |  <----------  PONG, GO_AWAY       |    whoever stops first begins
    closes with RST                     sees the end

Rule 1: GO_AWAY says "everything that I received has left this process".  Only
        after the peer's may a side exit with 0.
Rule 2: the leader closes, and only when the PONG has shown that its own
        GO_AWAY was read.  Then RST can destroy nothing, and no TIME_WAIT
        blocks the port of the next run.
Rule 3: the hole's end without a goodbye is a lost link, whatever the streams
        were doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from punchtunnel import words
from punchtunnel.address import AnyPlace
from punchtunnel.election import Role, Trait
from punchtunnel.ends import SocketEnd, StdioEnd, connect, why_unreachable
from punchtunnel.errors import Exit, LinkError, PunchtunnelError, TargetError
from punchtunnel.link import Link
from punchtunnel.mux import Goodbye, Reason, Reset
from punchtunnel.poller import Poller
from punchtunnel.punch import Hole

# Seconds.  Nothing sent for HEARTBEAT: say something.  Nothing heard for
# DEAD_AFTER: the peer, which does the same, is gone.
HEARTBEAT = 15.0
DEAD_AFTER = 40.0
TICK = 2.0
# Seconds for the target's connect, and for the peer's last word.
TARGET_TIMEOUT = 15.0
GOODBYE_TIMEOUT = 3.0
STOP_TIMEOUT = 1.0
# Seconds before accept() is tried again when no descriptor was free.
ACCEPT_PAUSE = 0.2
ACCEPTS_PER_TURN = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """What this side joins the streams to.

    Attributes:
        role: As sent in the hello.
        listeners: Bound sockets of -L; they stay open for the next session.
        target: Where --to leads.
        stdin: Descriptor, or None for an immediate EOF.
        stdout: Descriptor, or None if it was closed from the start.
        discard: --send-only.
        keep_open: -k: EOF of one session is not EOF of stdout.
        idle: Seconds without payload that end the session; 0: never.
    """

    role: Role
    listeners: Sequence[socket.socket] = ()
    target: AnyPlace | None = None
    stdin: int | None = None
    stdout: int | None = None
    discard: bool = False
    keep_open: bool = False
    idle: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended: the exit status and the sentence for it, or ""."""

    status: Exit
    reason: str


def run(hole: Hole, plan: Plan, report: words.Report, signals: Sequence[int] = ()) -> Outcome:
    """Bridge a hole until the session ends; closes the hole.

    Args:
        hole: The winner of a punch.
        plan: What to join it to.
        report: Where events go.
        signals: Signal numbers that end the session; the second one at once.
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_run(hole, plan, report, signals))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop, or asyncio's own where uvloop does not exist."""
    with contextlib.suppress(ImportError):
        import uvloop  # imported late: it costs 70 ms, and punching does not need it

        return uvloop.new_event_loop
    return asyncio.new_event_loop


async def _run(hole: Hole, plan: Plan, report: words.Report, signals: Sequence[int]) -> Outcome:
    loop = asyncio.get_running_loop()
    session = _Session(loop, hole, plan, report)
    for number in signals:
        loop.add_signal_handler(number, session.stop, number)
    try:
        session.start(hole.unread)
        return await session.ended
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
        await session.close()


class _Session:
    """The policy of one session; the owner of its link."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hole: Hole, plan: Plan, report: words.Report) -> None:
        self._loop = loop
        self._plan = plan
        self._report = report
        self._leads = hole.leads
        self._their_role = hole.role
        self._their_traits = hole.traits
        self._single = Role.STDIO in plan.role | hole.role
        self._poller = Poller(loop)
        self._link = Link(loop, self._poller, hole.sock, hole.leads, self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._stdio: StdioEnd | None = None
        self._single_stream: int | None = None
        self._said_goodbye = self._heard_goodbye = self._goodbye_read = False
        self._stopped: Exit | None = None
        self._failure: PunchtunnelError | None = None
        self._quiet_status: Exit | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._last_tick = time.monotonic()
        self.ended: asyncio.Future[Outcome] = loop.create_future()

    def start(self, unread: bytes) -> None:
        """Open the first stream or the doors to it, and begin."""
        side = "leading" if self._leads else "following"
        self._report("link_up", loop=type(self._loop).__module__.partition(".")[0], side=side)
        self._link.start(unread)
        if self._plan.role == Role.STDIO:
            opens = self._leads if self._their_role == Role.STDIO else Role.TO in self._their_role
            if opens and self._single_stream is None:
                self._single_stream = self._link.open(self._stdio_end())
                self._silence_source()
        for listener in self._plan.listeners:
            listener.setblocking(False)
            self._poller.register(listener.fileno(), self._acceptor(listener))
        self._link.ping()
        self._later(TICK, self._tick)

    async def close(self) -> None:
        """Give everything back but the plan's listeners."""
        for timer in self._timers:
            timer.cancel()
        self._link.close(reset=True)
        self._poller.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self, signal_number: int) -> None:
        """End cleanly for a signal; the second one ends at once."""
        status = Exit(128 + signal_number)
        if self._stopped is not None:
            self._finish(status, "")
            return
        self._stopped = status
        self._link.refuse_all(Reason.CLOSING)
        self._say_goodbye()
        self._later(STOP_TIMEOUT, lambda: self._finish(status, ""))

    # ---- streams: link.Owner

    def stream_opened(self, number: int) -> None:
        """Join the peer's stream to stdio or to the target."""
        if self._said_goodbye:
            self._link.refuse(number, Reason.CLOSING)
        elif self._single and self._single_stream is not None:
            self._link.refuse(number, Reason.NOT_EXPECTED)
        elif self._plan.role == Role.STDIO:
            self._single_stream = number
            self._link.join(number, self._stdio_end())
            self._silence_source()
        elif self._plan.target is not None:
            if self._single:
                self._single_stream = number
            task = self._loop.create_task(self._reach_target(number, self._plan.target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self._link.refuse(number, Reason.NOT_EXPECTED)

    def stream_accepted(self, number: int) -> None:
        """Nothing to do: data may flow before that."""

    def source_ended(self, number: int) -> None:
        """EOF of the peer ends a terminal too: nobody types into a finished transfer."""
        if number == self._single_stream and self._stdio is not None and self._stdio.stdin_is_terminal:
            self._link.end_source(number)

    def stream_ended(self, number: int, failure: Reset | OSError | None) -> None:
        """A stream is over; the session too, if it was the only one."""
        if failure is None:
            self._report("stream_closed", stream=number)
        elif isinstance(failure, Reset):
            self._on_reset(number, failure)
        else:
            self._on_broken_end(number, failure)
        only_one = self._single and number == self._single_stream
        if only_one or (self._heard_goodbye and not self._link.stream_count):
            self._say_goodbye()

    def _on_reset(self, number: int, reset: Reset) -> None:
        reason = words.reset_reason(reset.reason)
        refused = not reset.accepted and reset.reason != Reason.CLOSING and self._is_opener(number)
        self._report("target_refused" if refused and not self._single else "stream_reset", stream=number, reason=reason)
        if self._single and number == self._single_stream:
            self._fail(TargetError(reason) if refused else LinkError(reason))

    def _is_opener(self, number: int) -> bool:
        return (number % 2 == 1) == self._leads

    def _on_broken_end(self, number: int, error: OSError) -> None:
        reason = error.strerror or str(error)
        self._report("stream_reset", stream=number, reason=reason)
        if not (self._single and number == self._single_stream):
            return
        if self._plan.role != Role.STDIO:
            self._fail(LinkError(words.local_reset(reason)))
        elif error.errno in (errno.EPIPE, errno.ECONNRESET):
            self._quiet_status = Exit.BROKEN_PIPE
        else:
            self._fail(LinkError(words.cannot("read stdin or write stdout", error)))

    # ---- ends

    def _stdio_end(self) -> StdioEnd:
        plan = self._plan
        self._stdio = StdioEnd(plan.stdin, plan.stdout, discard=plan.discard, keep_open=plan.keep_open)
        return self._stdio

    def _silence_source(self) -> None:
        """Send EOF at once to a peer that takes nothing."""
        if Trait.NO_RECEIVE in self._their_traits and self._single_stream is not None:
            self._link.end_source(self._single_stream)

    def _acceptor(self, listener: socket.socket) -> Callable[[int], None]:
        def accept(_: int = 0) -> None:
            for _ in range(ACCEPTS_PER_TURN):
                if self._said_goodbye or (self._single and self._single_stream is not None):
                    self._poller.unregister(listener.fileno())
                    return
                try:
                    client, _remote = listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    return
                except OSError as error:
                    self._report("warning", reason=words.cannot("accept a local client", error))
                    self._later(ACCEPT_PAUSE, accept)
                    return
                number = self._link.open(SocketEnd(client))
                self._report("stream_opened", stream=number, what="a local client")
                if self._single:
                    self._single_stream = number
            # Edge-triggered: those that are still waiting are not told again.
            self._loop.call_soon(accept)

        return accept

    async def _reach_target(self, number: int, target: AnyPlace) -> None:
        try:
            async with asyncio.timeout(TARGET_TIMEOUT):
                sock = await connect(self._loop, target)
        except OSError as error:
            reason, code = why_unreachable(error)
            text = words.target_failed(str(target), reason)
            if self._single:
                self._fail(TargetError(text))
            else:
                self._report("target_refused", stream=number, reason=text)
            self._link.refuse(number, code)
            if self._single:
                self._say_goodbye()
            return
        end = SocketEnd(sock)
        self._report("stream_opened", stream=number, what=f"to {target}")
        if not self._link.join(number, end):
            end.abort()

    # ---- the end

    def gone_away(self, code: int) -> None:
        """The peer has said goodbye: say it too, as soon as nothing is left to do."""
        self._heard_goodbye = True
        if code != Goodbye.NORMAL:
            self._fail(LinkError(words.protocol_error(code)))
        if not self._link.stream_count:
            self._say_goodbye()
        self._part()

    def ponged(self, rtt: float) -> None:
        """A ping was answered; behind our goodbye it proves that that was read."""
        self._report("rtt", rtt_s=rtt)
        if self._said_goodbye:
            self._goodbye_read = True
            self._part()

    def link_ended(self, error: LinkError | None) -> None:
        """The hole is closed: well, if both goodbyes were said."""
        if self._said_goodbye and self._heard_goodbye:
            self._finish(Exit.OK, "")
        else:
            self._fail(error or LinkError(words.LINK_CUT))
            self._finish(Exit.LOST, words.LINK_CUT)

    def _say_goodbye(self) -> None:
        if self._said_goodbye:
            return
        self._said_goodbye = True
        self._link.go_away(Goodbye.NORMAL)
        self._link.ping()
        self._part()

    def _part(self) -> None:
        """Close if this side may (rule 2); wait for the other side's close if not."""
        if not (self._said_goodbye and self._heard_goodbye):
            return
        if self._leads and self._goodbye_read:
            self._finish(Exit.OK, "")
        else:
            self._later(GOODBYE_TIMEOUT, lambda: self._finish(Exit.OK, ""))

    def _fail(self, error: PunchtunnelError) -> None:
        """Remember the first failure: later ones are its consequences."""
        if self._failure is None:
            self._failure = error

    def _finish(self, status: Exit, reason: str) -> None:
        if self.ended.done():
            return
        if self._stopped is not None:
            status, reason = self._stopped, ""
        elif self._quiet_status is not None:
            status, reason = self._quiet_status, ""
        elif self._failure is not None:
            status, reason = self._failure.status, str(self._failure)
        bytes_in, bytes_out = self._link.bytes_in, self._link.bytes_out
        self._report("link_ended", reason=reason, bytes_in=bytes_in, bytes_out=bytes_out)
        self.ended.set_result(Outcome(status, reason))

    # ---- time

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers = [timer for timer in self._timers if timer.when() > self._loop.time()]
        self._timers.append(self._loop.call_later(seconds, call))

    def _tick(self) -> None:
        """Keep the link alive, notice its death, and end an idle session."""
        now = time.monotonic()
        if now - self._last_tick > 3 * TICK:
            # This process was stopped; what came meanwhile is not read yet.
            self._link.heard_at = now
        self._last_tick = now
        if now - self._link.heard_at >= DEAD_AFTER:
            self._fail(LinkError(words.dead_link(now - self._link.heard_at)))
            self._finish(Exit.LOST, "")
            return
        if now - self._link.said_at >= HEARTBEAT or now - self._link.heard_at >= HEARTBEAT:
            self._link.ping()
        if self._plan.idle and now - self._link.payload_at >= self._plan.idle and not self._said_goodbye:
            if self._link.stream_count:
                self._fail(LinkError(words.idle_link(self._plan.idle)))
            self._link.refuse_all(Reason.CLOSING)
            self._say_goodbye()
        self._later(min(TICK, self._plan.idle or TICK), self._tick)
