"""A transit relay that does harm as it is told, and keeps all that it was told: a thread of the test, on the loopback.

    first to ask  ─── FORTH ──> Tampering ──> ... ──> second to ask
                  <── ... <──── Tampering <── BACK ───

It pairs as transit_server.py of magic-wormhole-transit-relay does; test_hostile_relay.py compares the two.

Rule 1: harm (harm.py) is chosen by the number of the pair and by the direction.
Rule 2: what waits in the relay is bounded (ROOM for each direction), as in a real one.
Rule 3: nothing is left behind: `close` ends the thread and all connections, and raises what has gone wrong in it.
"""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from .flows import WAIT
from .harm import NONE, Harms, Tampering, released

LINE = re.compile(rb"please relay ([0-9a-f]{64})(?: for side ([0-9a-f]{16}))?\n")
MET = b"ok\n"
ROOM = 1 << 20
_CHUNK = 1 << 16
_LONGEST_LINE = 1024


@dataclass(slots=True)
class Talk:
    """What the relay knows of one connection.

    Attributes:
        token, side: As asked for, in hexadecimal digits.
        said: What came after "ok\n".
        pair: Its number, from 0; None while it waits.
    """

    token: str
    side: str
    said: bytearray = field(default_factory=bytearray)
    pair: int | None = None


class _Conn:
    """One connection: the line that is being read, and then bytes to and from the other one."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.line = b""
        self.talk: Talk | None = None
        self.other: _Conn | None = None
        self.tampering = Tampering(NONE)
        self.harm = NONE
        # What goes to this connection, and when.
        self.out: deque[tuple[float, bytes]] = deque()
        self.waiting = 0
        # The kernel has no room for more of it.
        self.blocked = False
        # Closed once all of `out` is gone.
        self.ends = False


class HostileRelay:
    """Listens from the beginning.

    Args:
        harms: What becomes of the pair of a number.
        ok: Answered in place of "ok\n" to whoever asks, at once, if it is something else; then the connection ends.
        replays: So many of those who ask meet nobody but the relay, which says this to them.
        crosses: Two of one token are not paired, but those of two tokens: the first ones, and then the second ones.
        port: 0: any.

    Attributes:
        port: Where it listens.
        talks: All that have asked, in the order of their lines.
        most_waiting: The most bytes that have waited in here for one connection.
    """

    def __init__(
        self,
        harms: Callable[[int], Harms] = lambda _: (NONE, NONE),
        *,
        ok: bytes = MET,
        replays: tuple[int, bytes] = (0, b""),
        crosses: bool = False,
        port: int = 0,
    ) -> None:
        self._harms, self._ok, self._crosses = harms, ok, crosses
        self._squats, self._replayed = replays
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self.talks: list[Talk] = []
        self.most_waiting = 0
        self._pairs = 0
        self._conns: list[_Conn] = []
        self._queue: list[_Conn] = []
        self._orders: deque[Callable[[], None]] = deque()
        self._news = threading.Condition()
        self._error: BaseException | None = None
        self._selector = selectors.DefaultSelector()
        self._here, self._waker = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._here, selectors.EVENT_READ)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="hostile relay", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    # ---- from the test

    @property
    def place(self) -> str:
        """As --relay and --meet take it."""
        return f"127.0.0.1:{self.port}"

    @property
    def pairs(self) -> int:
        """How many there have been."""
        return self._pairs

    @property
    def heard(self) -> bytes:
        """All bytes of all connections, one connection after the other: the line, and what came after "ok\n"."""
        with self._news:
            return b"".join(f"{one.token} {one.side}\n".encode() + one.said for one in self.talks)

    @property
    def carried(self) -> int:
        """How many bytes came after "ok\n", in all."""
        with self._news:
            return sum(len(one.said) for one in self.talks)

    def wait_until(self, what: Callable[[HostileRelay], object]) -> None:
        """Wait until something is true of what it knows."""
        with self._news:
            assert self._news.wait_for(lambda: what(self) or self._error, WAIT), f"hung: {self.pairs} pairs"
        assert self._error is None, self._error

    def release(self) -> None:
        """Hold no direction any more."""

        def release() -> None:
            self._harms = released(self._harms)
            for one in self._conns:
                one.harm = replace(one.harm, held=False)

        self._order(release)

    def cut(self) -> None:
        """End all connections that are there."""

        def cut() -> None:
            for one in list(self._conns):
                self._end(one)

        self._order(cut)

    def close(self) -> None:
        """End everything, and raise what has gone wrong in the thread."""
        self._closing = True
        self._order(lambda: None)
        self._thread.join(WAIT)
        assert not self._thread.is_alive(), "the relay hangs"
        for sock in (self._listener, self._here, self._waker, *(one.sock for one in self._conns)):
            sock.close()
        self._selector.close()
        if self._error is not None:
            raise self._error

    def _order(self, what: Callable[[], None]) -> None:
        self._orders.append(what)
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    # ---- the thread

    def _run(self) -> None:
        try:
            while not self._closing:
                for key, events in self._selector.select(self._timeout()):
                    self._handle(key, events)
                while self._orders:
                    self._orders.popleft()()
                for one in list(self._conns):
                    self._pass_on(one)
                # After all are written to: room for one is a reason to read from the other.
                for one in self._conns:
                    self._want_what_there_is_room_for(one)
                with self._news:
                    self._news.notify_all()
        except BaseException as error:
            with self._news:
                self._error = error
                self._news.notify_all()

    def _timeout(self) -> float | None:
        dues = [one.out[0][0] for one in self._conns if one.out and not _holds(one)]
        later = [due for due in dues if due > time.monotonic()]
        return max(0.0, min(later) - time.monotonic()) if later else None

    def _handle(self, key: selectors.SelectorKey, events: int) -> None:
        if key.fileobj is self._listener:
            sock, _ = self._listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._conns.append(_Conn(sock))
            self._selector.register(sock, selectors.EVENT_READ, self._conns[-1])
        elif key.fileobj is self._here:
            self._here.recv(4096)
        elif key.data in self._conns and events & selectors.EVENT_READ:
            self._read(key.data)

    def _read(self, one: _Conn) -> None:
        try:
            data = one.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(one)
        elif one.talk is None:
            self._ask(one, data)
        elif one.talk.pair is None:
            self._say_and_end(one, b"impatient\n")
        else:
            with self._news:
                one.talk.said += data
            if one.other is not None:
                self._tamper(one, one.other, data)

    def _tamper(self, one: _Conn, other: _Conn, data: bytes) -> None:
        passed = one.tampering.feed(data)
        if passed:
            other.out.append((time.monotonic() + one.harm.delay_s, passed))
            other.waiting += len(passed)
            self.most_waiting = max(self.most_waiting, other.waiting)
        other.ends = other.ends or one.tampering.is_cut

    def _ask(self, one: _Conn, data: bytes) -> None:
        """Read the line, and more than that is too early."""
        one.line += data
        found = LINE.match(one.line)
        if found is None:
            if b"\n" in one.line or len(one.line) > _LONGEST_LINE:
                self._say_and_end(one, b"bad handshake\n")
            return
        with self._news:
            one.talk = Talk(found[1].decode(), (found[2] or b"").decode())
            self.talks.append(one.talk)
        if found.end() < len(one.line):
            self._say_and_end(one, b"impatient\n")
        elif self._ok != MET:
            self._say_and_end(one, self._ok)
        elif self._squats:
            self._squats -= 1
            one.talk.pair = self._count()
            one.out.append((0.0, MET + self._replayed))
        else:
            self._pair(one)

    def _pair(self, one: _Conn) -> None:
        assert one.talk is not None
        for other in self._queue:
            assert other.talk is not None
            if (other.talk.token != one.talk.token) if self._crosses else _match(other.talk, one.talk):
                break
        else:
            self._queue.append(one)
            return
        self._queue.remove(other)
        for left in [left for left in self._queue if left.talk and left.talk.token == one.talk.token]:
            if not self._crosses:
                self._end(left)
        number = self._count()
        for near, far, harm in zip((other, one), (one, other), self._harms(number), strict=True):
            assert near.talk is not None
            near.talk.pair, near.other, near.harm, near.tampering = number, far, harm, Tampering(harm)
            near.out.append((0.0, MET))
            near.waiting += len(MET)

    def _count(self) -> int:
        with self._news:
            self._pairs += 1
            return self._pairs - 1

    def _say_and_end(self, one: _Conn, words: bytes) -> None:
        if one in self._queue:
            self._queue.remove(one)
        one.out.append((0.0, words))
        one.ends = True

    def _pass_on(self, one: _Conn) -> None:
        """Write what is due to a connection."""
        now = time.monotonic()
        one.blocked = False
        while one.out and not one.blocked and one.out[0][0] <= now and not _holds(one):
            due, data = one.out.popleft()
            try:
                sent = one.sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._end(one)
                return
            one.waiting -= sent
            if sent < len(data):
                one.out.appendleft((due, data[sent:]))
                one.blocked = True
        if one.ends and not one.out:
            self._end(one)

    def _want_what_there_is_room_for(self, one: _Conn) -> None:
        full = one.other is not None and one.other.waiting >= ROOM
        reads = 0 if full or one.ends else selectors.EVENT_READ
        self._want(one, reads | (selectors.EVENT_WRITE if one.blocked else 0))

    def _want(self, one: _Conn, events: int) -> None:
        registered = one.sock in self._selector.get_map()
        if events and registered:
            self._selector.modify(one.sock, events, one)
        elif events:
            self._selector.register(one.sock, events, one)
        elif registered:
            self._selector.unregister(one.sock)

    def _end(self, one: _Conn) -> None:
        """Close a connection, and the other one of its pair once that has got everything."""
        if one not in self._conns:
            return
        self._conns.remove(one)
        if one in self._queue:
            self._queue.remove(one)
        self._want(one, 0)
        one.sock.close()
        if one.other is not None:
            one.other.ends, one.other.other = True, None


def _match(one: Talk, other: Talk) -> bool:
    return one.token == other.token and (one.side != other.side or not one.side)


def _holds(one: _Conn) -> bool:
    """Tell whether what goes to a connection is held: that is the harm of the other one's direction."""
    return one.other is not None and one.other.harm.held and one.talk is not None and one.out[0][1] != MET


@contextlib.contextmanager
def dead_port() -> Iterator[int]:
    """Keep a port on which nothing listens, and that nobody else gets meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield int(sock.getsockname()[1])
