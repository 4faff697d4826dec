"""Edge-triggered readiness of many descriptors, as one descriptor of the loop.

A loop's own add_reader is level-triggered: a source that cannot be read now
must be taken out and put back, at two system calls each time, and libuv sets
O_NONBLOCK on every descriptor it is given, which inherited ones must not
suffer.  One epoll (Linux) or kqueue (macOS, BSD) inside the loop does neither
and costs nothing measurable.

Whoever waits for a small message that comes back within microseconds waits
longer for its own wake-up.  So a poller that spins looks again and again for
a moment instead of sleeping, but only while such short waits follow one
another: on one machine, or one fast network.  Measured, 64 bytes there and back
through two hops: a third less time on a fast processor, and less than half on a slow one.

Edge-triggered means: after READ has been told, read until there is nothing
left; only then is it told again.  A socket that gives less than was asked for
has nothing left, unless HANG_UP or URGENT has announced what lies ahead.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from functools import partial

from punchtunnel import words
from punchtunnel.system.loop import Loop

# Each is a mask: `events & READ`.  What a kernel tells is passed on as it is, for
# a translation would cost as much as the call that asks.
if sys.platform == "linux":
    # The connection was reset, or the reader of a pipe has gone.
    ERROR = select.EPOLLERR
    # The peer has ended its half, or everything has: EOF comes after what can be read.
    HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | ERROR
    # TCP's urgent mark lies ahead: a read ends there, and splice(2) does not pass it.
    URGENT = select.EPOLLPRI
    READ = select.EPOLLIN | URGENT | HANG_UP
    WRITE = select.EPOLLOUT | select.EPOLLHUP | ERROR
else:
    READ, WRITE, ERROR, HANG_UP, URGENT = 1, 2, 4, 8, 16
# Events taken in one turn of the loop.
MAX_EVENTS = 256

# Seconds.  What has not come by then is worth sleeping for.  With 100 µs a slow processor hardly ever spun: a message
# there and back took 2.5 × as long (measured).
SHORT_WAIT = 400e-6
# So many short waits in a row show that the next will be as short: at most one spin
# in so many is for nothing.
SHORT_WAITS = 8
# Seconds of spins that found something, until the loop gets its turn: it has timers
# and signals.
LONGEST_SPIN = 0.01

Callback = Callable[[int], None]


class Poller:
    """Tells callbacks which of READ and WRITE has become possible.

    Errors are told as READ, WRITE and ERROR, hang-ups also as READ: the next
    read or write says what happened.

    Args:
        loop: The running loop.
        spins: Wait for what comes within microseconds without sleeping; for a loop that does nothing else.
        monotonic: Any steady time in seconds.

    Attributes:
        may_spin: What passes now are small messages, and the loop has nothing else to do for us. Bulk is not kept
            waiting by a wake-up, and is not spun for.
        after: Called once after all events that have come together, if one of them has set `is_due`.
        is_telling: Events are being told now, or `after` is being called for them.
    """

    def __init__(self, loop: Loop, *, spins: bool = False, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._spins = spins
        self._monotonic = monotonic
        self.may_spin = self._is_closed = False
        # Waits in a row that were short, and when the last one began.
        self._short_waits = 0
        self._left_at = float("-inf")
        self._callbacks: dict[int, Callback] = {}
        self.is_telling = self.is_due = False
        self.after: Callable[[], None] = _nothing
        self._kernel = _Kernel()
        loop.add_reader(self._kernel.fileno(), self._on_events)

    def register(self, fd: int, callback: Callback, *, writing: bool = True) -> None:
        """Watch a descriptor that can be waited for.

        The first event comes at once if it is ready now.

        Args:
            fd: The descriptor.
            callback: Called with what is possible.
            writing: False: WRITE is told only after `watch_writing`. Most sockets take all they get, and an event
                that only says so costs a turn of the loop.

        Raises:
            OSError: The system watches no more descriptors for this user.
        """
        try:
            self._kernel.register(fd)
        except OSError as error:
            raise OSError(error.errno, words.cannot(words.WATCH, error)) from error
        self._callbacks[fd] = callback
        if writing:
            self._kernel.watch_writing(fd)

    def watch_writing(self, fd: int) -> None:
        """Tell WRITE from now on, at once if it is possible now."""
        if fd in self._callbacks:
            self._kernel.watch_writing(fd)

    def unregister(self, fd: int) -> None:
        """Stop watching; call it before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._kernel.unregister(fd)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor of our own that is closed right after this: then the kernel forgets it, too."""
        self._callbacks.pop(fd, None)

    def close(self) -> None:
        """Stop watching everything; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._kernel.fileno())
        self._callbacks.clear()
        self._kernel.close()

    def _on_events(self) -> None:
        if not self._spins:
            self._tell(self._kernel.poll())
            return
        began = self._monotonic()
        self._short_waits = self._short_waits + 1 if began - self._left_at < SHORT_WAIT else 0
        if not self.may_spin:
            # Who is about to write more has its turn first: measured, a twentieth less processor time for bulk.
            try:
                os.sched_yield()
            except OSError:
                self._stop_spinning()
        batch = self._kernel.poll()
        self._tell(batch)
        # Without callbacks it is closed.
        while batch and self.may_spin and self._short_waits >= SHORT_WAITS and self._callbacks:
            if self._monotonic() - began > LONGEST_SPIN:
                break
            batch = self._spin()
            self._tell(batch)
        self._left_at = self._monotonic()

    def _spin(self) -> list[tuple[int, int]]:
        """Wait for events without sleeping, and not for long; other processes that have something to do go first."""
        until = self._monotonic() + SHORT_WAIT
        while self._monotonic() < until:
            if batch := self._kernel.poll():
                return batch
            try:
                os.sched_yield()
            except OSError:
                self._stop_spinning()
                break
        self._short_waits = 0
        return []

    def _stop_spinning(self) -> None:
        """A sandbox refuses to let others run in between: sleep from now on."""
        self._spins = False

    def _tell(self, batch: list[tuple[int, int]]) -> None:
        callbacks = self._callbacks
        self.is_telling = True
        if len(batch) == 1:
            # As it mostly is.
            fd, events = batch[0]
            if (callback := callbacks.get(fd)) is not None:
                callback(events)
        else:
            # Whose events they are, before the first one is told: a callback may close a descriptor, and the next
            # socket gets its number.
            for fd, callback, events in [(fd, callbacks.get(fd), events) for fd, events in batch]:
                if callback is not None and callbacks.get(fd) is callback:
                    callback(events)
        if self.is_due:
            self.after()
            self.is_due = False
        self.is_telling = False


def _nothing() -> None:
    """Nobody waits for the end of a batch."""


if sys.platform == "linux":

    class _Kernel:
        def __init__(self) -> None:
            self._epoll = select.epoll()
            self.fileno = self._epoll.fileno
            self.close = self._epoll.close
            self.unregister = self._epoll.unregister
            self.poll = partial(self._epoll.poll, 0, MAX_EVENTS)

        def register(self, fd: int) -> None:
            self._epoll.register(fd, _READING)

        def watch_writing(self, fd: int) -> None:
            self._epoll.modify(fd, _READING | select.EPOLLOUT)

    _READING = select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLET

else:

    class _Kernel:
        def __init__(self) -> None:
            self._kqueue = select.kqueue()
            self.fileno = self._kqueue.fileno
            self.close = self._kqueue.close

        def register(self, fd: int) -> None:
            self._change(fd, select.KQ_FILTER_READ, select.KQ_EV_ADD | select.KQ_EV_CLEAR)

        def watch_writing(self, fd: int) -> None:
            self._change(fd, select.KQ_FILTER_WRITE, select.KQ_EV_ADD | select.KQ_EV_CLEAR)

        def unregister(self, fd: int) -> None:
            for kind in (select.KQ_FILTER_READ, select.KQ_FILTER_WRITE):
                self._change(fd, kind, select.KQ_EV_DELETE)

        def poll(self) -> list[tuple[int, int]]:
            events = self._kqueue.control(None, MAX_EVENTS, 0)
            return [
                (
                    event.ident,
                    (READ if event.filter == select.KQ_FILTER_READ else WRITE)
                    | (HANG_UP if event.flags & select.KQ_EV_EOF else 0)
                    # With EOF the socket's error is in fflags.
                    | (ERROR if event.flags & select.KQ_EV_EOF and event.fflags else 0),
                )
                for event in events
            ]

        def _change(self, fd: int, kind: int, flags: int) -> None:
            # One end of a pipe knows only one of the two filters.
            try:
                self._kqueue.control([select.kevent(fd, kind, flags)], 0, 0)
            except OSError:
                return
