"""One connection to a relay under one token: looked up, dialled, and kept until the peer is there.

    getaddrinfo (a thread) ──> the first address of each family, 0.25 s apart ──> the first that opens
                                                       request ──> ... ok ──> Met

Its methods belong to one thread, which waits for the sockets in a selector; joining.py decides when.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from random import Random

from punchtunnel import words
from punchtunnel.address import Place
from punchtunnel.errors import PeerError
from punchtunnel.punching.callers import MOST_UNPROVED
from punchtunnel.punching.helper import Met
from punchtunnel.punching.ports import sockaddr
from punchtunnel.punching.resolver import GetAddrInfo
from punchtunnel.reach.joining import Event, Joining, State
from punchtunnel.reach.transit import Answer
from punchtunnel.system import tcp
from punchtunnel.words import reach as reach_words

# Seconds after which the other family's address is dialled beside the first one (RFC 8305 §5).
STAGGER = 0.25
# Seconds.  A router may forget a connection that is idle for a few minutes, and a relay that has vanished is to be
# noticed within one.
KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 30, 10, 3
_SILENCE = 60.0
# The answer, and the peer's hello with what may follow it; the rest stays in the socket, for whoever takes the
# meeting reads no more than that before the peer has proved the secret.
_CHUNK = MOST_UNPROVED

Target = tuple[int, tuple[object, ...]]


class LookUp:
    """Asks for the addresses of a relay, in a thread that nobody waits for.

    Args:
        relay: A name or a literal, and the port.
        look_up: `socket.getaddrinfo`, or a stand-in.
        wake: Is called by the thread when there is an answer.
    """

    def __init__(self, relay: Place, look_up: GetAddrInfo, wake: Callable[[], None]) -> None:
        self._relay, self._look_up, self._wake = relay, look_up, wake
        self._asked = False
        self._answer: tuple[list[Target], str] | None = None

    def start(self) -> None:
        """Ask, unless an answer is still awaited.

        Raises:
            OSError: The system refuses another thread.
        """
        if not self._asked:
            try:
                threading.Thread(target=self._run, name="relay look-up", daemon=True).start()
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, words.NO_THREAD) from error
            self._asked = True

    def take(self) -> tuple[list[Target], str] | None:
        """Return the addresses, or why there are none; None while that is not known."""
        answer, self._answer = self._answer, None
        if answer is not None:
            self._asked = False
        return answer

    def _run(self) -> None:
        try:
            answers = self._look_up(self._relay.host, self._relay.port, 0, socket.SOCK_STREAM)
            self._answer = [(family, sockaddr) for family, _, _, _, sockaddr in answers], ""
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "strerror", None) or error)
            self._answer = [], words.unresolved(self._relay.host, reason)
        self._wake()


def first_of_each_family(targets: Sequence[Target], attempt: int) -> list[Target]:
    """Return one address of each family, in the order of the look-up; other ones at the next attempt."""
    families = dict.fromkeys(family for family, _ in targets)
    kinds = [[one for one in targets if one[0] == family] for family in families]
    return [kind[attempt % len(kind)] for kind in kinds]


class Seat:
    """Waits at one relay under one token.

    Args:
        relay: Where to.
        request: The line to send.
        now: The first connection is due then, in seconds.
        selector: Gets the sockets, each with a function of the time that is to be called when it is ready.
        look_up: `socket.getaddrinfo`, or a stand-in.
        wake: Wakes the thread that waits in the selector.
        rng: For pauses.

    Attributes:
        bind: Literal address that the relay is dialled from; "" is any.
        interface: The only one that it is dialled by; "" is any.
        met: What is to be taken.
        trouble: Why there is no connection, as a sentence, or "".
    """

    def __init__(
        self,
        relay: Place,
        request: bytes,
        now: float,
        selector: selectors.BaseSelector,
        look_up: GetAddrInfo,
        wake: Callable[[], None],
        rng: Random,
    ) -> None:
        self._relay, self._request, self._selector = relay, request, selector
        self._look_up = LookUp(relay, look_up, wake)
        self._joining = Joining(now, rng)
        self._attempts = 0
        self._asks = False
        self._left: list[Target] = []
        self._next_dial = float("inf")
        # All that is open: dials, or the one connection.
        self._socks: list[socket.socket] = []
        self._answer = Answer()
        self.bind = self.interface = ""
        self.met: Met | None = None
        self.trouble = ""

    # ---- what the caller does

    @property
    def due(self) -> float:
        """When `step` has something to do."""
        return min(self._joining.until, self._next_dial)

    def step(self, now: float) -> None:
        """Do what is due, or what a look-up has made possible."""
        if self._asks and (found := self._look_up.take()) is not None:
            self._asks = False
            targets, reason = found
            self._left = first_of_each_family(targets, self._attempts)
            self._attempts += 1
            self._dial(now, reason)
        elif now >= self._next_dial:
            self._dial(now, "")
        while now >= self._joining.until:
            self._expire(now)

    def taken(self, now: float) -> None:
        """Take note that somebody has taken what is met, and owns the socket."""
        self.met = None
        self._joining.happens(Event.TAKEN, now)

    def rejoin(self, now: float, *, useless: bool) -> None:
        """Ask for the peer once more, if what was met is taken."""
        if self._joining.state is State.TAKEN:
            self._joining.happens(Event.AGAIN if useless else Event.ANEW, now)

    def close(self) -> None:
        """Close everything but what is taken; a look-up that hangs is left to end by itself."""
        self._drop()
        if self.met is not None:
            self.met.sock.close()
            self.met = None

    # ---- connecting

    def _expire(self, now: float) -> None:
        state = self._joining.state
        if state is State.DIALLING:
            self._fail(now, reach_words.RELAY_SILENT)
            return
        self.close()
        self._joining.happens(Event.DUE, now)
        if state is State.RESTING:
            try:
                self._look_up.start()
                self._asks = True
            except OSError as error:
                self._fail(now, str(error.strerror))

    def _dial(self, now: float, reason: str) -> None:
        """Dial the next address; `reason` is why the one before failed."""
        self._next_dial = float("inf")
        while self._left:
            reason = self._open(*self._left.pop(0))
            if not reason:
                self._next_dial = now + STAGGER if self._left else float("inf")
                return
        if not self._socks:
            self._fail(now, reason)

    def _open(self, family: int, sockaddr: tuple[object, ...]) -> str:
        """Dial one address; return why that is not possible, or ""."""
        try:
            sock = self._socket(family)
        except OSError as error:
            return error.strerror or str(error)
        number = sock.connect_ex(sockaddr)
        if number not in (0, errno.EINPROGRESS):
            sock.close()
            return os.strerror(number)
        self._socks.append(sock)
        self._selector.register(sock, selectors.EVENT_WRITE, lambda now: self._on_connected(sock, now))
        return ""

    def _socket(self, family: int) -> socket.socket:
        """Return a socket that dials from where it shall.

        Raises:
            OSError: There is none.
        """
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            if self.interface:
                tcp.use_interface(sock, self.interface)
            if self.bind:
                sock.bind(sockaddr(socket.AddressFamily(family), self.bind, 0))
        except OSError:
            sock.close()
            raise
        return sock

    def _on_connected(self, sock: socket.socket, now: float) -> None:
        if sock not in self._socks:
            return
        if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._close(sock)
            self._dial(now, os.strerror(number))
            return
        for other in list(self._socks):
            if other is not sock:
                self._close(other)
        self._left, self._next_dial = [], float("inf")
        tcp.keep_alive(sock, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT)
        tcp.limit_silence(sock, _SILENCE)
        tcp.send_at_once(sock)
        self._answer = Answer()
        try:
            # A fresh connection takes so few bytes at once.
            sent = sock.send(self._request)
        except OSError as error:
            self._fail(now, error.strerror or str(error))
            return
        if sent < len(self._request):
            self._fail(now, os.strerror(errno.ENOBUFS))
            return
        self._selector.modify(sock, selectors.EVENT_READ, lambda now: self._on_readable(sock, now))
        self.trouble = ""
        self._joining.happens(Event.CONNECTED, now)

    # ---- waiting for the peer

    def _on_readable(self, sock: socket.socket, now: float) -> None:
        if sock not in self._socks:
            return
        try:
            data = sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            # Also the kernel's word that the relay is silent.
            data = b""
        if not data:
            self._drop()
            self._joining.happens(Event.ENDED, now)
            if self._joining.until > now:
                self.trouble = self._told(reach_words.RELAY_ENDS)
            return
        try:
            unread = self._answer.feed(data)
        except PeerError as error:
            self._fail(now, str(error))
            return
        if unread is not None:
            self._selector.unregister(sock)
            self._socks.remove(sock)
            self.met = Met(sock, unread, self._relay)
            self._joining.happens(Event.MET, now)

    def _fail(self, now: float, reason: str) -> None:
        self._drop()
        self.trouble = self._told(reason)
        self._joining.happens(Event.FAILED, now)

    def _told(self, reason: str) -> str:
        return reach_words.RELAY_FAILS.format(relay=self._relay, reason=reason)

    def _drop(self) -> None:
        self._left, self._next_dial, self._asks = [], float("inf"), False
        for sock in list(self._socks):
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._socks.remove(sock)
        with contextlib.suppress(KeyError):
            self._selector.unregister(sock)
        sock.close()
