"""The first words on a hole by which a session comes back: both sides prove that it is theirs.

    RESUME, sealed   ----->           who has lost it says this at once, and waits for the
        <-----   RESUME, sealed       other side's before it says anything else

    an empty one: "I know of no such session": the process there is another one

Blocking, with a limit: a punch blocks, too.  protocol/resume.py has the bytes.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from punchtunnel import words
from punchtunnel.errors import LinkError, LostError, PeerError, PunchtunnelError, SignalError
from punchtunnel.protocol import resume
from punchtunnel.protocol.hello import Trait
from punchtunnel.protocol.records import RESUME, Seals
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.hole import Hole
from punchtunnel.session.rawrecords import ANSWER_TIMEOUT, RawRecords
from punchtunnel.system.signals import Wake


class RestartedError(LostError):
    """The peer knows of no such session: it was ended, or the process was restarted."""


@dataclass(frozen=True, slots=True)
class Return:
    """A hole by which the peer has come back.

    Attributes:
        hole: The hole; its `unread` counts no more.
        seals: They have sealed and opened the first records.
        received: Bytes of our frames that the peer has.
        unread: What came after its first word.
    """

    hole: Hole
    seals: Seals
    received: int
    unread: bytes


def ticket_of(hole: Hole, seconds: float) -> Ticket | None:
    """Return what a session knows its peer by on another hole; None if it ends with this one.

    `seconds` are those for which this side would look for another one; our hello has said so, if there are any.
    """
    return hole.keys.ticket if seconds and hole.keys is not None and Trait.RESUME in hole.traits else None


def come_back(hole: Hole, ticket: Ticket, received: int, signals: Wake) -> Return:
    """Go on with a session over a new hole, which is closed if that fails.

    Args:
        hole: Sealed.
        ticket: Of the session.
        received: Bytes of the peer's frames that this side has.
        signals: What may end the wait.

    Raises:
        SignalError: A signal has come.
        RestartedError: The peer knows of no such session.
        LinkError: It is not the peer of this session, or was lost meanwhile.
    """
    keys = hole.keys
    assert keys is not None
    try:
        if Trait.RESUME not in hole.traits:
            raise RestartedError(words.PEER_RESTARTED)
        records = RawRecords(hole)
        mine = resume.prove(ticket, keys.verifier, hole.leads, received)
        records.say(mine.encode(), RESUME)
        word = _hear(records, signals)
        if word is None:
            raise RestartedError(words.PEER_RESTARTED)
        if not resume.is_proved(word, ticket, keys.verifier, not hole.leads):
            raise PeerError(words.NOT_THIS_SESSION)
    except OSError as error:
        hole.sock.close()
        raise LostError(words.broken_link(error)) from error
    except PunchtunnelError:
        hole.sock.close()
        raise
    return Return(hole, records.seals, word.received, records.unread)


class Taken(NamedTuple):
    """The peer of a session of this service has come back."""

    session: bytes
    back: Return


def take_back(
    hole: Hole, find: Callable[[bytes], Ticket | None], release: Callable[[bytes], int | None], signals: Wake
) -> Taken | None:
    """Hear which session a peer wants to go on with, and answer; None: there is none, and the hole is closed.

    Args:
        hole: Whose hello has said RESUMING.
        find: Returns the ticket of a session, or None.
        release: Has a session give up its hole, and returns the bytes of the peer's frames that it has; None if it
            has ended.  Called when the peer has proved that it is its.
        signals: What may end the wait.

    Raises:
        SignalError: A signal has come.
    """
    keys = hole.keys
    assert keys is not None
    try:
        records = RawRecords(hole)
        word = _hear(records, signals)
        ticket = None if word is None else find(word.session)
        received = None
        if word is not None and ticket is not None:
            if not resume.is_proved(word, ticket, keys.verifier, not hole.leads):
                raise PeerError(words.NOT_THIS_SESSION)
            received = release(word.session)
        if word is None or ticket is None or received is None:
            records.say(b"", RESUME)
            _leave(hole.sock, records, signals)
            return None
        records.say(resume.prove(ticket, keys.verifier, hole.leads, received).encode(), RESUME)
    except (OSError, LinkError):
        hole.sock.close()
        return None
    except SignalError:
        hole.sock.close()
        raise
    return Taken(word.session, Return(hole, records.seals, word.received, records.unread))


def _leave(sock: socket.socket, records: RawRecords, signals: Wake) -> None:
    """Close when the other side has: it learns why by our word, and not by a reset that could destroy it."""
    with sock, contextlib.suppress(OSError, LinkError):
        sock.shutdown(socket.SHUT_WR)
        _hear(records, signals)


def _hear(records: RawRecords, signals: Wake) -> resume.Resume | None:
    return resume.decode_resume(records.hear(RESUME, resume.RESUME_SIZE, ANSWER_TIMEOUT, signals))
