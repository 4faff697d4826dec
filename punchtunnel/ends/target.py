"""Connect streams to the targets of --to: to each address of one in turn, until one answers.

    Connects   all connections of a session: at most MAX_UNDER_WAY at a time
       └─ Attempt   one connection: the target's addresses one after another
             └─ LookUp   the addresses of a name, shared by all connections to that target

Callbacks, neither tasks nor futures: a tunnel may carry thousands of
connections a second, and a task would cost more than the connection.  A name
is looked up once for all streams that wait for it: a peer that opens many
streams must not cost as many threads and questions to the name server.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from punchtunnel.address import LOCALHOST, AnyPlace, Place, UnixPlace, is_literal
from punchtunnel.ends.sockets import notice_absence
from punchtunnel.system import tcp
from punchtunnel.system.loop import Loop
from punchtunnel.system.poller import WRITE, Poller

# Seconds for all addresses of the target together.
TIMEOUT = 15.0
# Connections being made at the same time; each costs a descriptor.
MAX_UNDER_WAY = 1024
# Seconds for which a connection that the peer has opened and given up at once keeps its
# place.  To open and reset costs a peer 24 bytes, and this machine half a millisecond.
GIVEN_UP = 2.0
# Seconds for which the answer of a look-up is used again.
KEPT = 2.0
# Seconds before a Unix socket whose queue is full is tried again, at first and at most:
# a thousand attempts that looked every 20 ms took half a core.
QUEUE_PAUSE = 0.02
LONGEST_QUEUE_PAUSE = 0.64

# What a second connect(2) returns -> what the first would have returned.
_MEANING = {errno.EALREADY: errno.EINPROGRESS, errno.EISCONN: 0}

# This machine lacks the family, or a route: that says nothing about the target.
_NO_WAY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENETUNREACH}

# The family and the socket address of one way to the target.
_Way = tuple[int, Any]
# Called with the ways to a name, or with none and the error of the look-up.
Told = Callable[[Sequence[_Way], OSError | None], None]
# Called once, with the connected socket or with the error of the last way.
Done = Callable[[socket.socket | OSError], None]


class LookUp:
    """Looks up the target's name in a thread, and remembers the answer for KEPT seconds.

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
        """Call `told` with the ways to the target, but not before this returns."""
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
        """Return the ways to a literal address, which need no thread.

        Raises:
            OSError: The interface it names is gone.
        """
        if time.monotonic() - self._told_at >= KEPT:
            self._ways, self._told_at = _ways(target, socket.AI_NUMERICHOST), time.monotonic()
        return self._ways

    def forget(self, told: Told) -> None:
        """Do not call `told` any more."""
        self._waiting.pop(told, None)

    def _ask(self, target: Place) -> None:
        ways: list[_Way] = []
        failure = None
        try:
            ways = _ways(target, 0)
        except OSError as error:
            failure = error
        # The session may have ended in the meantime, and its loop be closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._tell, ways, failure)

    def _tell(self, ways: list[_Way], failure: OSError | None) -> None:
        self._ways, self._failure, self._told_at, self._is_asking = ways, failure, time.monotonic(), False
        waiting, self._waiting = self._waiting, {}
        for told in waiting:
            told(ways, failure)


class Attempt:
    """One connection to the target that is being made.

    Args:
        loop: The running loop.
        poller: Watches the socket that connects.
        look_up: Shared by all attempts of the session.
        target: What to connect to.
        seconds: The time for all addresses together; TimeoutError if none answers.
        done: Called with the result; a success may come within `start`, a failure never does.
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
        self._pause = QUEUE_PAUSE
        self._ways: list[_Way] = []
        self._error: OSError | None = None
        # The way that is being tried.
        self._way: _Way | None = None
        self._sock: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin."""
        target = self._target
        if isinstance(target, UnixPlace):
            self._try_all([(socket.AF_UNIX, target.path)])
        elif target.host == LOCALHOST:
            # A server may listen on one of them only.
            port = target.port
            self._try_all([(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0))])
        elif is_literal(target.host):
            try:
                self._try_all(self._look_up.literal(target))
            except OSError as error:
                # The interface it names is gone.
                self._loop.call_soon(self._fail, error)
        else:
            self._timer = self._loop.call_later(self._seconds, self._fail, TimeoutError())
            self._is_asking = True
            self._look_up.ask(target, self._try_all)

    def cancel(self) -> None:
        """Give up without calling `done`."""
        self._done = None
        self._stop_waiting()
        if self._sock is not None:
            self._sock.close()

    def _try_all(self, ways: Sequence[_Way], failure: OSError | None = None) -> None:
        self._ways = list(ways)
        self._seconds /= max(len(ways), 1)
        self._try_next(failure)

    def _try_next(self, error: OSError | None) -> None:
        """Try the next way; with none left, fail with the error of the last one that this machine has."""
        self._stop_waiting()
        if self._sock is not None:
            # After a connection to itself, a plain close would leave the target's port in TIME_WAIT.
            tcp.abort(self._sock)
            self._sock = None
        if self._done is None:
            return
        if error is not None and (self._error is None or error.errno not in _NO_WAY):
            self._error = error
        if not self._ways:
            self._fail(self._error or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL)))
            return
        self._try(self._ways.pop(0), time.monotonic() + self._seconds)

    def _try(self, way: _Way, deadline: float) -> None:
        family, address = self._way = way
        try:
            self._sock = sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setblocking(False)
            code = sock.connect_ex(address)
            if code == errno.EINPROGRESS:
                # On loopback the handshake is mostly over by now, and a second call tells so.
                code = _MEANING.get(again := sock.connect_ex(address), again)
            if not code and _is_itself(sock, way):
                code = errno.ECONNREFUSED
            if code == errno.EINPROGRESS:
                self._poller.register(sock.fileno(), self._on_event)
        except OSError as failure:
            code = failure.errno or errno.EIO
        if not code:
            self._succeed(sock)
            return
        left = deadline - time.monotonic()
        if code == errno.EINPROGRESS:
            self._timer = self._loop.call_later(left, self._try_next, TimeoutError())
        elif code == errno.EAGAIN and family == socket.AF_UNIX and left > 0:
            # The queue of a Unix socket is full; only a blocking connect(2) could wait for room in it.
            sock.close()
            self._sock = None
            # Timers come up to a millisecond early: what is left then would be spent on one look after another.
            pause = max(min(self._pause, left), QUEUE_PAUSE)
            self._timer = self._loop.call_later(pause, self._try, way, deadline)
            self._pause = min(2 * self._pause, LONGEST_QUEUE_PAUSE)
        else:
            # Not within `start`: the caller has not stored its attempt yet.
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
        assert self._way is not None
        if _may_vanish(self._way):
            notice_absence(sock)
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
    """The connections to targets that a session is making: MAX_UNDER_WAY at a time, the others in turn.

    Args:
        loop: The running loop.
        poller: Watches the sockets that connect.
        targets: What may be connected to, by the names of services.
        done: Called with the number and the service given to `start`, and the result; a success may come within
            `start`, a failure never does.
    """

    def __init__(
        self,
        loop: Loop,
        poller: Poller,
        targets: Mapping[str, AnyPlace],
        done: Callable[[int, str, socket.socket | OSError], None],
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._targets = {service: (target, LookUp(loop)) for service, target in targets.items()}
        self._done = done
        self._under_way: dict[int, Attempt] = {}
        self._queue: dict[int, str] = {}
        # Places of connections that were given up lately.
        self._kept = 0
        self._is_starting = False

    def start(self, number: int, service: str = "") -> None:
        """Make a connection to the target of a service, now or when its turn comes."""
        if len(self._under_way) + self._kept >= MAX_UNDER_WAY:
            self._queue[number] = service
            return

        def done(result: socket.socket | OSError) -> None:
            del self._under_way[number]
            self._done(number, service, result)
            self._start_queued()

        target, look_up = self._targets[service]
        attempt = Attempt(self._loop, self._poller, look_up, target, TIMEOUT, done)
        self._under_way[number] = attempt
        attempt.start()

    def cancel(self, number: int, *, given_up: bool = False) -> None:
        """Give one up without calling `done`, if it is still being made.

        Args:
            number: As given to `start`.
            given_up: The peer did not wait for its first byte: its place stays taken for GIVEN_UP seconds.
        """
        if number in self._queue:
            # It has cost nothing yet.
            del self._queue[number]
            return
        attempt = self._under_way.pop(number, None)
        if attempt is not None:
            attempt.cancel()
        if given_up:
            self._kept += 1
            self._loop.call_later(GIVEN_UP, self._free)
        elif attempt is not None:
            self._start_queued()

    def _free(self) -> None:
        self._kept -= 1
        self._start_queued()

    def close(self) -> None:
        """Give all of them up."""
        self._queue.clear()
        for attempt in self._under_way.values():
            attempt.cancel()

    def _start_queued(self) -> None:
        # A connection that succeeds within `start` calls this again: no recursion.
        if self._is_starting:
            return
        self._is_starting = True
        while self._queue and len(self._under_way) + self._kept < MAX_UNDER_WAY:
            number = next(iter(self._queue))
            self.start(number, self._queue.pop(number))
        self._is_starting = False


def _is_itself(sock: socket.socket, way: _Way) -> bool:
    """Tell whether a socket has connected to itself.

    That happens where no process listens on the target's port and the kernel picks this port as our own one.
    """
    family, address = way
    if family == socket.AF_UNIX:
        return False
    try:
        own = sock.getsockname()
        # The port alone tells it for most: one system call less.
        return bool(own[1] == address[1] and own == sock.getpeername())
    except OSError:
        # The target has closed again already; reading will tell.
        return False


def _may_vanish(way: _Way) -> bool:
    """Tell whether the target can go away without a word; on this machine the kernel speaks for it."""
    family, address = way
    return family != socket.AF_UNIX and not str(address[0]).startswith("127.") and address[0] != "::1"


def _ways(target: Place, flags: int) -> list[_Way]:
    try:
        infos: Sequence[Any] = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, flags=flags)
    except UnicodeError as error:
        # A "%" followed by a name that no interface can have.
        raise socket.gaierror(socket.EAI_NONAME, "no such interface") from error
    return [(family, sockaddr) for family, _, _, _, sockaddr in infos]
