"""What a session joins its streams to, by the side's role.

    Stdio     stdin and stdout, one stream
    Ports     -L: each local client opens a stream
              --to: each stream of the peer becomes a connection to the target of its service
    Program   a Python program's own ends (library/tunnel.py)

A role belongs to one session, its Host, from `attach` on.  The session decides
when something happens, and calls `begin` once the link is up, `take` for each
stream of the peer that it lets in, and `ended` for each stream that is over.
The role decides what is joined to a stream.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

from punchtunnel import words
from punchtunnel.address import AnyPlace
from punchtunnel.ends.end import End
from punchtunnel.ends.sockets import ACCEPTED_INHERIT, SocketEnd, system_reason
from punchtunnel.ends.stdio import StdioEnd
from punchtunnel.ends.target import Connects
from punchtunnel.errors import NO_RESOURCES, Exit, LinkError, PunchtunnelError, TargetError
from punchtunnel.link.link import Link
from punchtunnel.link.stream import Broken
from punchtunnel.protocol.frames import Reason
from punchtunnel.reporting import events
from punchtunnel.reporting.events import Report
from punchtunnel.system.loop import GuardedLoop, Timers
from punchtunnel.system.poller import Poller
from punchtunnel.words import services

# Seconds before accept() is tried again when no descriptor was free.
ACCEPT_PAUSE = 0.2
# Seconds after the peer's EOF for the first byte of stdin: a program may be slow to begin.
STDIN_PATIENCE = 3.0
ACCEPTS_PER_TURN = 64
# Seconds before a listener that the system did not watch is tried again.
WATCH_PAUSE = 5.0
NO_TARGETS: Mapping[str, AnyPlace] = MappingProxyType({})


class Listener(NamedTuple):
    """A bound socket of -L, and the service that its clients get; "": what the peer's --to without a name leads to."""

    sock: socket.socket
    service: str = ""


class Host(Protocol):
    """The session, as far as a role needs it.

    Attributes:
        is_single: One of the two sides has stdio, so there is one stream in all.
        peer_takes_nothing: The peer writes nothing to its stdout (--send-only).
        peer_connects: The peer has a --to: nobody else has services.
    """

    loop: GuardedLoop
    poller: Poller
    timers: Timers
    link: Link
    report: Report
    is_single: bool
    peer_takes_nothing: bool
    peer_connects: bool

    @property
    def opens_the_only(self) -> bool:
        """Tell whether this side is to open the only stream, and has not done so yet."""

    @property
    def takes_clients(self) -> bool:
        """Tell whether another stream may be opened."""

    def open(self, end: End, service: str = "") -> int:
        """Open a stream that is joined to `end`, for a service or for none, and return its number."""

    def adopt(self, number: int) -> None:
        """Take note that a stream of the peer is in use."""

    def give_up(self, error: PunchtunnelError) -> None:
        """End the session: its only stream leads nowhere."""


class Ends:
    """What the streams of one session are joined to.  This base joins none: each role overrides what it does."""

    _host: Host

    def attach(self, host: Host) -> None:
        """Take note of the session to which this role belongs from now on."""
        self._host = host

    def begin(self) -> None:
        """The link is up: open the only stream, or accept the clients that open streams."""

    def take(self, number: int, service: str) -> None:
        """Join a stream that the peer has opened, for a service or for none (""), or refuse it."""
        self._host.link.refuse(number, Reason.NO_SUCH_SERVICE if service else Reason.NOT_EXPECTED)

    def source_ended(self, number: int) -> None:
        """The peer will send no more on the only stream."""

    def sized(self, size: int) -> None:
        """The peer will send `size` bytes on the only stream."""

    def ended(self, number: int, *, given_up: bool) -> None:
        """A stream is over, well or not; `given_up`: the peer has opened it and did not wait for the first byte."""

    def why_broken(self, broken: Broken) -> PunchtunnelError | Exit:
        """Return why the session ends when our end of the only stream broke: an error, or a status that needs none."""
        return LinkError(words.local_reset(broken.error))

    def close(self) -> None:
        """The session is over; the link closes the ends of its streams."""


class _StdioEnd(StdioEnd):
    """stdin and stdout; `before_output` is called before each write to stdout."""

    before_output: Callable[[], None] | None = None

    def write(self, data: memoryview) -> int:
        if self.before_output is not None:
            self.before_output()
        return super().write(data)


class Stdio(Ends):
    """Joins the only stream to stdin and stdout.

    Args:
        stdin: Descriptor, or None for an immediate EOF.
        stdout: Descriptor, or None if it was closed from the start.
        stdin_size: Bytes that stdin has, if it is a file.
        discard: --send-only.
        keep_open: -k: stdout stays open when the peer's input of one session ends.
        before_output: Called before each write to stdout.
        service: What the peer is to join the stream to; "": its stdio, or its --to without a name.
    """

    def __init__(
        self,
        stdin: int | None,
        stdout: int | None,
        *,
        service: str = "",
        stdin_size: int | None = None,
        discard: bool = False,
        keep_open: bool = False,
        before_output: Callable[[], None] | None = None,
    ) -> None:
        self._stdin, self._stdout, self._stdin_size = stdin, stdout, stdin_size
        self._discard, self._keep_open = discard, keep_open
        self._before_output = before_output
        self._service = service
        self._end: StdioEnd | None = None

    def begin(self) -> None:
        """Open the only stream, if this side is to open it."""
        if self._service and not self._host.peer_connects:
            self._host.give_up(TargetError(services.PEER_HAS_NONE.format(name=self._service)))
        elif self._host.opens_the_only:
            self._after_joining(self._host.open(self._make_end(), self._service))

    def take(self, number: int, service: str) -> None:
        """Join the peer's stream to stdin and stdout."""
        if service:
            super().take(number, service)
            return
        self._host.adopt(number)
        self._host.link.join(number, self._make_end())
        self._after_joining(number)

    def source_ended(self, number: int) -> None:
        """End a stdin that is a terminal after the peer's EOF: nobody types into a finished transfer.

        A peer that has sent nothing at all only receives: there the typing goes on.  Any other stdin may be the half
        of a talk that comes late, so it is waited for; one that has given nothing is told of.
        """
        link = self._host.link
        if self._end is not None and self._end.stdin_is_terminal and link.bytes_in:
            link.end_source(number, drain=True)
        else:
            self._host.timers.later("stdin", STDIN_PATIENCE, self._say_what_is_waited_for)

    def ended(self, number: int, *, given_up: bool) -> None:
        """Wait for stdin no more."""
        self._end = None

    def sized(self, size: int) -> None:
        """Report how many bytes will come, for --progress: the peer's stdin is a file."""
        if self._end is not None:
            self._host.report(events.Announced("in", size))

    def why_broken(self, broken: Broken) -> PunchtunnelError | Exit:
        """Return why the session ends when stdin or stdout broke: an error, or a status that needs none."""
        if broken.error.errno == errno.EPIPE and not broken.reading:
            return Exit.BROKEN_PIPE
        return LinkError(words.cannot(words.READ_STDIN if broken.reading else words.WRITE_STDOUT, broken.error))

    def _make_end(self) -> StdioEnd:
        self._end = end = _StdioEnd(
            self._stdin, self._stdout, discard=self._discard, keep_open=self._keep_open, unreadable=self._say_unreadable
        )
        end.before_output = self._before_output
        return end

    def _say_what_is_waited_for(self) -> None:
        if self._end is not None and not self._host.link.bytes_out:
            waited_for = words.TYPING_GOES_ON if self._end.stdin_is_terminal else words.WAITING_FOR_STDIN
            self._host.report(events.Warned(waited_for))

    def _say_unreadable(self, error: OSError) -> None:
        self._host.report(events.StdinUnreadable(system_reason(error)))

    def _after_joining(self, number: int) -> None:
        host = self._host
        if host.peer_takes_nothing:
            if self._stdin is not None:
                host.report(events.Warned(words.STDIN_NOT_READ))
            host.link.end_source(number)
        elif self._stdin_size is not None:
            host.link.announce(number, self._stdin_size)
            host.report(events.Announced("out", self._stdin_size))


class Ports(Ends):
    """Joins streams to local clients (-L) and to targets (--to).

    Args:
        listeners: Those of -L; they stay open for the next session.
        targets: Where --to leads, by the names of services; "": without a name.
    """

    def __init__(self, listeners: Sequence[Listener] = (), targets: Mapping[str, AnyPlace] = NO_TARGETS) -> None:
        self._listeners = listeners
        self._targets = targets
        self._connects: Connects | None = None
        # What is told of each stream, made once.
        self._what = {name: services.to_target(str(target), name) for name, target in targets.items()}

    def attach(self, host: Host) -> None:
        """See Ends."""
        super().attach(host)
        if self._targets:
            self._connects = Connects(host.loop, host.poller, self._targets, self._on_reached)

    def begin(self) -> None:
        """Accept clients."""
        for listener in self._listeners:
            listener.sock.setblocking(False)
            self._watch(listener)

    def take(self, number: int, service: str) -> None:
        """Connect the peer's stream to the target of the service that it asks for, and to no other."""
        if self._connects is None:
            super().take(number, service)
        elif service in self._targets:
            self._host.adopt(number)
            self._connects.start(number, service)
        else:
            self._refuse(number, Reason.NO_SUCH_SERVICE, services.no_such_here(service))

    def ended(self, number: int, *, given_up: bool) -> None:
        """Give up the connection to the target, if it is still being made."""
        if self._connects is not None:
            self._connects.cancel(number, given_up=given_up)

    def close(self) -> None:
        """Give up the connections that are still being made."""
        if self._connects is not None:
            self._connects.close()

    # ---- -L

    def _watch(self, listener: Listener) -> None:
        """Accept the clients of a listener; if it cannot be watched now, try again."""
        name = f"watch {listener.sock.fileno()}"
        try:
            self._host.poller.register(listener.sock.fileno(), self._acceptor(listener))
        except OSError as error:
            self._host.report(events.Warned(words.cannot(words.ACCEPT, error)))
            self._host.timers.later(name, WATCH_PAUSE, lambda: self._watch(listener))

    def _acceptor(self, listener: Listener) -> Callable[[int], None]:
        """Return the callback that accepts the clients of one listener when it is ready."""
        host, (sock, service) = self._host, listener
        name, what = f"accept {sock.fileno()}", services.local_client(service)
        told = False

        def accept(_: int = 0) -> None:
            nonlocal told
            for _ in range(ACCEPTS_PER_TURN):
                if not host.takes_clients:
                    return
                try:
                    client, _remote = sock.accept()
                except BlockingIOError:
                    return
                except ConnectionAbortedError:
                    # Edge-triggered: no further event will come for the clients queued after this one.
                    continue
                except OSError as error:
                    if not told:
                        host.report(events.Warned(words.cannot(words.ACCEPT, error)))
                    told = True
                    host.timers.later(name, ACCEPT_PAUSE, accept)
                    return
                told = False
                end = SocketEnd(client, tuned=ACCEPTED_INHERIT, others=host.link.stream_count)
                host.report(events.StreamOpened(host.open(end, service), what))
            # Edge-triggered: no further event will come for the clients that are still queued.
            host.timers.later(name, 0, accept)

        return accept

    # ---- --to

    def _on_reached(self, number: int, service: str, result: socket.socket | OSError) -> None:
        if isinstance(result, OSError):
            target = str(self._targets[service])
            why, reason = why_unreachable(result)
            self._refuse(number, reason, words.target_failed(target, why, local=reason == Reason.NO_RESOURCES))
            return
        self._host.report(events.StreamOpened(number, self._what[service]))
        # Its own stream is one of them.
        end = SocketEnd(result, others=self._host.link.stream_count - 1)
        if not self._host.link.join(number, end):
            end.abort()

    def _refuse(self, number: int, reason: Reason, text: str) -> None:
        self._host.link.refuse(number, reason)
        if self._host.is_single:
            self._host.give_up(TargetError(text))
        else:
            self._host.report(events.TargetRefused(number, text))


class Program(Ends):
    """Joins streams to a program's own ends; the program opens streams itself.

    Args:
        make_end: Returns the end for a stream that the peer has opened, for a service or for none (""), or None to
            refuse it.
    """

    def __init__(self, make_end: Callable[[int, str], End | None]) -> None:
        self._make_end = make_end

    def take(self, number: int, service: str) -> None:
        """Join the peer's stream to an end of the program."""
        end = self._make_end(number, service)
        if end is None:
            self._host.link.refuse(number, Reason.NO_RESOURCES)
            return
        self._host.adopt(number)
        self._host.link.join(number, end)


def why_unreachable(error: OSError) -> tuple[str, Reason]:
    """Return what an error of `connect` means: in words, and as a reason for the far side."""
    if isinstance(error, TimeoutError):
        return words.NO_ANSWER, Reason.TIMED_OUT
    if isinstance(error, socket.gaierror):
        return str(error.strerror), Reason.NO_SUCH_NAME
    reason = Reason.UNREACHABLE
    if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
        reason = Reason.REFUSED
    elif error.errno in NO_RESOURCES:
        reason = Reason.NO_RESOURCES
    return system_reason(error), reason
