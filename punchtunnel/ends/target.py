"""Connect streams to the target of --to: to each of its addresses in turn, until one answers.

No task and no future: a tunnel may carry thousands of connections a second,
and each would cost more than the connection itself.  A name is looked up once
for all that wait for it: the peer opens as many streams as it likes, and
neither our threads nor the name server shall count them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from punchtunnel import words
from punchtunnel.address import AnyPlace, Place, UnixPlace, is_literal
from punchtunnel.ends.stdio import system_reason
from punchtunnel.errors import NO_RESOURCES
from punchtunnel.protocol.frames import Reason
from punchtunnel.system import tcp
from punchtunnel.system.loop import Loop
from punchtunnel.system.poller import WRITE, Poller

# Seconds for all addresses of the target together.
TIMEOUT = 15.0
# Connections that are made at the same time.
MAX_UNDER_WAY = 1024
# Seconds for which the answer of a look-up holds.
KEPT = 2.0
# Seconds before a Unix socket whose queue is full is tried again.
QUEUE_PAUSE = 0.02

# What a second connect(2) means in the words of the first.
_MEANING = {errno.EALREADY: errno.EINPROGRESS, errno.EISCONN: 0}

# Family and address of one way to the target.
_Way = tuple[int, Any]
# Called with the ways to a name, or with the error of the look-up.
Told = Callable[[Sequence[_Way], OSError | None], None]
# Called once, with the connected socket or the last way's error.
Done = Callable[[socket.socket | OSError], None]


class LookUp:
    """The addresses behind a target's name, asked for in a thread.

    Args:
        loop: The running loop.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: dict[Told, None] = {}
        self._is_asking = False
        self._ways: list[_Way] = []
        self._failure: OSError | None = None
        self._told_at = float("-inf")

    def ask(self, target: Place, told: Told) -> None:
        """Have somebody told of the ways to the one target of this session, but not before this returns."""
        if time.monotonic() - self._told_at < KEPT:
            self._loop.call_soon(told, self._ways, self._failure)
            return
        self._waiting[told] = None
        if self._is_asking:
            return
        self._is_asking = True
        try:
            # A thread of its own: ending the loop would wait for the loop's threads.
            threading.Thread(target=self._ask, args=(target,), name="look-up", daemon=True).start()
        except RuntimeError:
            # The system allows no more threads.
            self._loop.call_soon(self._tell, [], OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)))

    def literal(self, target: Place) -> Sequence[_Way]:
        """Return the way to a literal address, which needs no thread.

        Raises:
            OSError: Its interface is gone.
        """
        if time.monotonic() - self._told_at >= KEPT:
            self._ways, self._told_at = _ways(target, socket.AI_NUMERICHOST), time.monotonic()
        return self._ways

    def forget(self, told: Told) -> None:
        """Who has asked does not wait any longer."""
        self._waiting.pop(told, None)

    def _ask(self, target: Place) -> None:
        ways: list[_Way] = []
        failure = None
        try:
            ways = _ways(target, 0)
        except OSError as error:
            failure = error
        # The session may be over, and its loop closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell, ways, failure)

    def _tell(self, ways: list[_Way], failure: OSError | None) -> None:
        self._ways, self._failure, self._told_at, self._is_asking = ways, failure, time.monotonic(), False
        waiting, self._waiting = self._waiting, {}
        for told in waiting:
            told(ways, failure)


class Reach:
    """One connection to the target, being made.

    Args:
        loop: The running loop.
        poller: Watches the socket that connects.
        look_up: Shared with all others of the session.
        target: Where to.
        seconds: For all addresses together; TimeoutError if none answers.
        done: Told how it ends; of success maybe within `start`, of failure never.
    """

    def __init__(
        self, loop: Loop, poller: Poller, look_up: LookUp, target: AnyPlace, seconds: float, done: Done
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._look_up = look_up
        self._target = target
        self._seconds = seconds
        self._done: Done | None = done
        self._is_asking = False
        self._ways: list[_Way] = []
        # The one that is being tried.
        self._way: _Way | None = None
        self._sock: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin."""
        target = self._target
        if isinstance(target, UnixPlace):
            self._try_all([(socket.AF_UNIX, target.path)])
        elif is_literal(target.host):
            try:
                self._try_all(self._look_up.literal(target))
            except OSError as error:
                # Its interface is gone.
                self._loop.call_soon(self._fail, error)
        else:
            self._timer = self._loop.call_later(self._seconds, self._fail, TimeoutError())
            self._is_asking = True
            self._look_up.ask(target, self._try_all)

    def cancel(self) -> None:
        """Give up; nothing is told."""
        self._done = None
        self._stop_waiting()
        if self._sock is not None:
            self._sock.close()

    def _try_all(self, ways: Sequence[_Way], failure: OSError | None = None) -> None:
        self._ways = list(ways)
        self._seconds /= max(len(ways), 1)
        self._try_next(failure)

    def _try_next(self, error: OSError | None) -> None:
        """Try the next way; there may be none after this error, and there may have been none at all."""
        self._stop_waiting()
        if self._sock is not None:
            # One that has connected to itself would keep the target's port in TIME_WAIT, and the target from it.
            tcp.abort(self._sock)
            self._sock = None
        if self._done is None:
            return
        if not self._ways:
            self._fail(error or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)))
            return
        self._try(self._ways.pop(0), time.monotonic() + self._seconds)

    def _try(self, way: _Way, deadline: float) -> None:
        family, address = self._way = way
        try:
            self._sock = sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            code = sock.connect_ex(address)
            if code == errno.EINPROGRESS:
                # On this machine the handshake is mostly over by now, and only a second call tells.
                code = _MEANING.get(again := sock.connect_ex(address), again)
            if not code and _is_itself(sock, way):
                code = errno.ECONNREFUSED
            if code == errno.EINPROGRESS:
                self._poller.register(sock.fileno(), self._on_event)
        except OSError as failure:
            code = failure.errno or errno.EIO
        left = deadline - time.monotonic()
        if not code:
            self._succeed(sock)
        elif code == errno.EINPROGRESS:
            self._timer = self._loop.call_later(left, self._try_next, TimeoutError())
        elif code == errno.EAGAIN and family == socket.AF_UNIX and left > 0:
            # The queue of a Unix socket is full: a connect that may block would wait there.
            sock.close()
            self._sock = None
            self._timer = self._loop.call_later(QUEUE_PAUSE, self._try, way, deadline)
        else:
            # Never from within `start`: whoever asked has not noted yet that it did.
            error = TimeoutError() if code == errno.EAGAIN else OSError(code, os.strerror(code))
            self._loop.call_soon(self._try_next, error)

    def _on_event(self, events: int) -> None:
        if not events & WRITE or self._sock is None or self._way is None or self._done is None:
            return
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code and _is_itself(self._sock, self._way):
            code = errno.ECONNREFUSED
        if code:
            self._try_next(OSError(code, os.strerror(code)))
            return
        self._stop_waiting()
        self._succeed(self._sock)

    def _succeed(self, sock: socket.socket) -> None:
        done, self._done, self._sock = self._done, None, None
        if done is not None:
            done(sock)

    def _fail(self, error: OSError) -> None:
        self._stop_waiting()
        done, self._done = self._done, None
        if done is not None:
            done(error)

    def _stop_waiting(self) -> None:
        if self._is_asking:
            self._is_asking = False
            self._look_up.forget(self._try_all)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sock is not None:
            self._poller.unregister(self._sock.fileno())


class Connects:
    """The connections of a session to its target that are being made: so many at a time, and the others in turn.

    Args:
        loop: The running loop.
        poller: Watches the sockets that connect.
        target: Where to.
        done: Told how each one ends, with the number it was started under; of success maybe within `start`,
            of failure never.
    """

    def __init__(
        self,
        loop: Loop,
        poller: Poller,
        target: AnyPlace,
        done: Callable[[int, socket.socket | OSError], None],
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._target = target
        self._done = done
        self._look_up = LookUp(loop)
        self._under_way: dict[int, Reach] = {}
        self._queue: dict[int, None] = {}
        self._is_starting = False

    def start(self, number: int) -> None:
        """Make a connection, now or when it is its turn."""
        if len(self._under_way) >= MAX_UNDER_WAY:
            self._queue[number] = None
            return

        def done(result: socket.socket | OSError) -> None:
            del self._under_way[number]
            self._done(number, result)
            self._start_queued()

        reach = Reach(self._loop, self._poller, self._look_up, self._target, TIMEOUT, done)
        self._under_way[number] = reach
        reach.start()

    def cancel(self, number: int) -> None:
        """Give one up, if it is still being made; nothing is told."""
        if self._queue:
            self._queue.pop(number, None)
        if (reach := self._under_way.pop(number, None)) is not None:
            reach.cancel()
            self._start_queued()

    def close(self) -> None:
        """Give all up."""
        self._queue.clear()
        for reach in self._under_way.values():
            reach.cancel()

    def _start_queued(self) -> None:
        # What is connected within `start` ends up here again.
        if self._is_starting:
            return
        self._is_starting = True
        while self._queue and len(self._under_way) < MAX_UNDER_WAY:
            number = next(iter(self._queue))
            del self._queue[number]
            self.start(number)
        self._is_starting = False


def _is_itself(sock: socket.socket, way: _Way) -> bool:
    """Tell whether a socket has connected to itself: where nobody listens on a port that it was given as its own."""
    family, address = way
    if family == socket.AF_UNIX:
        return False
    with contextlib.suppress(OSError):
        own = sock.getsockname()
        # Of most the port tells that they have not: one question less.
        return bool(own[1] == address[1] and own == sock.getpeername())
    # The peer has gone again, and reading will tell.
    return False


def _ways(target: Place, flags: int) -> list[_Way]:
    try:
        infos: Sequence[Any] = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError as error:
        # An interface behind "%" that no machine can have.
        raise socket.gaierror(socket.EAI_NONAME, "no such interface") from error
    return [(family, sockaddr) for family, _, _, _, sockaddr in infos]


def why_unreachable(error: OSError) -> tuple[str, Reason]:
    """Return an error of `connect` as words and as a reason for the far side."""
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
