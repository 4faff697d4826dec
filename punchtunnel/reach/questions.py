"""Ask STUN servers over TCP how they see our ports: all questions at once.

    own port 1 ──TCP──> server 1     which address and port do you see?
             └────TCP──> server 2
    own port 2 ──TCP──> server 1
             └────TCP──> server 2
    own port 3 ──TCP──> server 1
    own port 4 ──TCP──> server 1

The connections are opened in this order, and all stay open until the last answer, as the
dials of a punch are.  The answers show whether the router keeps ports, or by which rule it
chooses others (portclass.py).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import selectors
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from punchtunnel.address import Place
from punchtunnel.errors import PeerError
from punchtunnel.reach import stun
from punchtunnel.system.addresses import Address
from punchtunnel.words import doctor as words

# The first CROSSED own ports go to every server, because a router also rewrites a port that
# another machine behind it has.
CROSSED = 2
_RECEIVE_SIZE = 2048
# The server's machine has answered, with a refusal.
_REFUSED = {errno.ECONNREFUSED, errno.ECONNRESET}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server is asked; `version` is that of the server's address, which a NAT64 hides."""

    server: str
    address: Address
    port: int
    version: int


@dataclass(slots=True, eq=False)
class Question:
    """One connection, from its SYN to the answer.

    Attributes:
        target: Who is asked.
        own: Our end of the connection; its host is "" where there is none.
        leads: The server's other address is asked after it.
        sock: Of the connection.
        answer: What has come.
        error: Why nothing does.
    """

    target: Target
    own: Place
    leads: bool
    sock: socket.socket | None = None
    answer: stun.Answer | None = None
    error: OSError | PeerError | None = None
    _transaction: bytes = b""
    _received: bytes = b""
    _connected: bool = False

    @property
    def silent(self) -> bool:
        """Nothing at all has come from the server."""
        refused = isinstance(self.error, OSError) and self.error.errno in _REFUSED
        return not (self._connected or refused or isinstance(self.error, PeerError))

    def go_on(self) -> bool:
        """Ask, or read the answer: the connection is open or has failed, or bytes have come; tell whether to read now.

        Raises:
            OSError, PeerError: There will be no answer.
        """
        sock = self.sock
        assert sock is not None
        if not self._connected:
            if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code))
            self._connected = True
            self.own = Place(*sock.getsockname()[:2])
            self._transaction = os.urandom(stun.TRANSACTION_SIZE)
            # 20 bytes: a new connection has room for them.
            sock.sendall(stun.request(self._transaction))
            return True
        received = sock.recv(_RECEIVE_SIZE)
        if not received:
            raise PeerError(words.ENDED_WITHOUT_ANSWER)
        self._received += received
        self.answer = stun.read_answer(self._received, self._transaction)
        return False


class Inquiry:
    """All questions of one time; their sockets belong to the caller, whatever becomes of them.

    Args:
        selector: Gets the sockets, each with its question; only they may be in it with one.
        open_on: Returns a socket that dials as a punch does, from the port of this number, or, of
            0, from the next one of ours.
        targets_of: Returns where a server is asked that another one has named: a literal.

    Attributes:
        questions: In the order in which they were asked.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        open_on: Callable[[socket.AddressFamily, int], socket.socket],
        targets_of: Callable[[Place], Sequence[Target]],
    ) -> None:
        self._selector = selector
        self._open_on = open_on
        self._targets_of = targets_of
        self.questions: list[Question] = []

    @property
    def sockets(self) -> list[socket.socket]:
        """All sockets."""
        return [one.sock for one in self.questions if one.sock is not None]

    @property
    def waits(self) -> bool:
        """Some question has neither an answer nor an error."""
        return any(one.answer is None and one.error is None for one in self.questions)

    def begin(self, targets: Sequence[Target], own_ports: int) -> None:
        """Open all connections to the servers of one IP version, from so many ports of ours."""
        for number in range(own_ports):
            own = 0
            for target in targets if number < CROSSED else targets[:1]:
                own = self._ask(target, own, leads=len(targets) == 1 and number < CROSSED)

    def handle(self, question: Question) -> None:
        """Go on with a question whose socket is ready."""
        assert question.sock is not None
        try:
            if question.go_on():
                self._selector.modify(question.sock, selectors.EVENT_READ, question)
        except (OSError, PeerError) as error:
            question.error = error
        if question.answer is not None or question.error is not None:
            self._selector.unregister(question.sock)
        if question.answer is not None and question.leads and question.answer.other is not None:
            self._follow(question, question.answer.other)

    def end(self) -> None:
        """Wait for no further answer."""
        for question in self.questions:
            if question.answer is None and question.error is None:
                question.error = TimeoutError()

    def _follow(self, question: Question, other: Place) -> None:
        target = question.target
        if not may_lead(target.address.host, other):
            return
        for one in self._targets_of(other):
            # Another port of the same address tells nothing: a router may choose a port for each address.
            if one.version == target.version and one.address.host != target.address.host:
                self._ask(one, question.own.port)

    def _ask(self, target: Target, own: int, *, leads: bool = False) -> int:
        """Open a connection from a port, or from the next one if that is 0; return the port."""
        question = Question(target, Place("", own), leads)
        self.questions.append(question)
        try:
            question.sock = sock = self._open_on(target.address.family, own)
            code = sock.connect_ex(target.address.at(target.port))
            question.own = Place(*sock.getsockname()[:2])
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
            self._selector.register(sock, selectors.EVENT_WRITE, question)
        except OSError as error:
            question.error = error
        return question.own.port


def may_lead(server: str, other: Place) -> bool:
    """Tell whether a server may name another one: a server in the Internet must not name a machine of this network."""
    return ipaddress.ip_address(other.host).is_global or not ipaddress.ip_address(server).is_global
