"""Wait at one relay for the peer, in a thread, for days if need be; a `Helper`.

    the punch, or a service            thread "meeting"                       the relay
      |  start         ── wake ──>      |  a seat for each token   ─────────>   |
      |                                 |  <──── ok ─────────────────────────   |
      |  <── fileno ── news ─────────   |
      |  take: the socket is theirs     |
      |  again, or start ── wake ──>    |  the same seat once more   ───────>   |
      |  close         ── wake ──>      |  closes what nobody has taken         |

Rule 1: there is no relay by default, and several relays have an object each; nothing is sent to any but its own.
Rule 2: a meeting is no proof of anything.  The relay, and whoever has seen the token on its way, can be met as well;
        what they are let to try is for whoever takes the meeting to ration.
Rule 3: there is one seat for each token, and no second one to spare: the relay closes the other connections of both
        sides when two of them match.  Around midnight there are two, and the peer can be met twice.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from punchtunnel import words
from punchtunnel.address import Place
from punchtunnel.protocol import token
from punchtunnel.protocol.schedule import channel_tag
from punchtunnel.punching.helper import MeetingNews, Met
from punchtunnel.punching.resolver import GetAddrInfo
from punchtunnel.reach import transit
from punchtunnel.reach.seat import Seat

# Seconds after which a wall clock that was set is noticed, and a new day: much less than token.OVERLAP.
CLOCK_CHECK = 60.0


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Who this side is at a relay, which is told only what is made from it; never printed.

    Attributes:
        secret: In its normal form.
        channel: Its name.
        key: Only this user knows it, and it stays the same (`Memory.key`).
        role: Of the hello.
    """

    secret: bytes
    channel: str
    key: bytes
    role: int

    def request(self, day: int) -> bytes:
        """Return the line that asks a relay for the peer on one day.

        Raises:
            UsageError: The secret is too weak for that.
        """
        name = token.token(self.secret, channel_tag(self.channel), day)
        return transit.request(name, transit.side(self.key, name, self.role))


class Meeting:
    """Meets the peer at one relay.

    Whoever takes a meeting calls `again` if the peer's hello is not there within joining.HELLO_WITHIN seconds, or if
    it is not the peer; and `start` to meet somebody else as well.

    Args:
        relay: A literal or a name, and the port.
        identity: What the token and the side are made from.
        wall: Unix time in seconds; decides the tokens.
        monotonic: Any steady time in seconds; decides the waits.
        rng: For pauses.
        look_up: `socket.getaddrinfo`, or a stand-in.
        bind: Literal address that the relay is dialled from; "" is any.
        interface: The only one that it is dialled by; "" is any.

    Raises:
        UsageError: The secret is too weak to meet with.
        OSError: There is no descriptor left.
    """

    def __init__(
        self,
        relay: Place,
        identity: Identity,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        look_up: GetAddrInfo = socket.getaddrinfo,
        bind: str = "",
        interface: str = "",
    ) -> None:
        token.check(identity.secret, sealed=True)
        self._relay, self._identity = relay, identity
        # Two sides that do not fit draw different pauses, also if they are started by one program.
        self._wall, self._monotonic, self._rng = wall, monotonic, rng or random.SystemRandom()
        self._look_up = look_up
        self._bind, self._interface = bind, interface
        with contextlib.ExitStack() as opened:
            self._selector = opened.enter_context(selectors.DefaultSelector())
            self._here, self._there = map(opened.enter_context, socket.socketpair())
            self._awake, self._waker = map(opened.enter_context, socket.socketpair())
            for sock in (self._here, self._there, self._awake, self._waker):
                sock.setblocking(False)
            opened.pop_all()
        self._selector.register(self._awake, selectors.EVENT_READ)
        self._running = False
        # Shared with the thread.
        self._lock = threading.Lock()
        self._closed = False
        self._seats: dict[int, Seat] = {}
        self._owners: dict[socket.socket, Seat] = {}
        self._trouble = ""
        self._told = MeetingNews()

    def fileno(self) -> int:
        """Return the descriptor that turns readable when `take` has news."""
        return self._here.fileno()

    def start(self) -> None:
        """Begin to wait for the peer, or for somebody else after what is taken; waits for nothing itself."""
        with self._lock:
            for seat in self._owners.values():
                seat.rejoin(self._monotonic(), useless=False)
            self._owners.clear()
            if self._closed:
                return
        if not self._running:
            try:
                threading.Thread(target=self._run, name="meeting", daemon=True).start()
            except RuntimeError:
                with self._lock:
                    self._trouble = words.NO_THREAD
                    self._publish()
                return
            self._running = True
        self._wake()

    def take(self) -> MeetingNews:
        """Return what has come of waiting, and give the sockets away."""
        with contextlib.suppress(BlockingIOError):
            while self._here.recv(64):
                pass
        with self._lock:
            now = self._monotonic()
            found = []
            for seat in self._seats.values():
                if seat.met is not None:
                    found.append(seat.met)
                    self._owners[seat.met.sock] = seat
                    seat.taken(now)
            self._told = MeetingNews((), self._trouble)
            return MeetingNews(tuple(found), self._trouble)

    def again(self, met: Met) -> None:
        """Close what was met, which was of no use, and wait for the peer anew after a short pause."""
        with self._lock:
            seat = self._owners.pop(met.sock, None)
            if seat is not None:
                seat.rejoin(self._monotonic(), useless=True)
        met.sock.close()
        self._wake()

    def close(self) -> None:
        """Close what nobody has taken; waits for nothing, and the thread ends by itself."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for seat in self._seats.values():
                seat.close()
            self._seats.clear()
            self._owners.clear()
            self._here.close()
            self._there.close()
        if self._running:
            self._wake()
        else:
            self._end()

    # ---- from other threads

    def _wake(self) -> None:
        # Full: it is awake anyway.  Closed: nobody is there to wake.
        with self._lock, contextlib.suppress(OSError):
            self._waker.send(b"!")

    # ---- the thread

    def _run(self) -> None:
        while True:
            days = token.days(self._wall())
            # A cipher is loaded for the first one, and nobody waits for that.
            requests = {day: self._identity.request(day) for day in days if day not in self._seats}
            with self._lock:
                if self._closed:
                    break
                now = self._monotonic()
                self._attend(days, requests, now)
                for seat in self._seats.values():
                    seat.step(now)
                self._sum_up()
                due = min(now + CLOCK_CHECK, *(seat.due for seat in self._seats.values()))
            ready = self._selector.select(max(0.0, due - self._monotonic()))
            self._handle(key for key, _ in ready)
        self._end()

    def _handle(self, ready: Iterable[selectors.SelectorKey]) -> None:
        """Let the seats read and write; one that is closed meanwhile does neither."""
        with self._lock:
            for key in ready:
                if key.data is not None:
                    key.data(self._monotonic())
                elif not self._closed:
                    with contextlib.suppress(BlockingIOError):
                        self._awake.recv(64)

    def _attend(self, days: tuple[int, ...], requests: dict[int, bytes], now: float) -> None:
        """Have a seat for each of these days, and no other."""
        for day in self._seats.keys() - set(days):
            seat = self._seats.pop(day)
            seat.close()
            self._owners = {sock: owner for sock, owner in self._owners.items() if owner is not seat}
        for day, request in requests.items():
            seat = Seat(self._relay, request, now, self._selector, self._look_up, self._wake, self._rng)
            seat.bind, seat.interface = self._bind, self._interface
            self._seats[day] = seat

    def _sum_up(self) -> None:
        self._trouble = next((seat.trouble for seat in self._seats.values() if seat.trouble), "")
        self._publish()

    def _publish(self) -> None:
        """Make `fileno` readable if there is something new to take."""
        met = tuple(seat.met for seat in self._seats.values() if seat.met is not None)
        news = MeetingNews(met, self._trouble)
        if news != self._told:
            self._told = news
            # Full: it is readable anyway.
            with contextlib.suppress(OSError):
                self._there.send(b"!")

    def _end(self) -> None:
        with self._lock:
            self._selector.close()
            self._awake.close()
            self._waker.close()
