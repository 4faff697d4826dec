"""What it means that no other hole comes: a real end of the session, or none at all."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field

import pytest

from punchtunnel import words
from punchtunnel.errors import Exit
from punchtunnel.protocol.agreement import Keys
from punchtunnel.protocol.frames import Goodbye, Header, Kind
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.protocol.records import Sealer
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.reporting import events
from punchtunnel.session.comeback import RestartedError, Return
from punchtunnel.session.plan import Plan
from punchtunnel.session.roles import Ports
from punchtunnel.session.seeker import seekers
from punchtunnel.session.session import Session
from punchtunnel.system.signals import Wake


@dataclass
class Holes:
    """The peer knows nothing of the session any more."""

    asked: list[int] = field(default_factory=list)

    def again(self, ticket: Ticket, received: int, deadline: float, signals: Wake, report: events.Report) -> Return:
        self.asked.append(received)
        raise RestartedError(words.PEER_RESTARTED)


@pytest.mark.parametrize("said", [True, False])
def test_a_peer_that_has_said_goodbye_may_be_gone(said: bool) -> None:
    """All was delivered, and the leader ended with 1, because only the answer to its own goodbye was lost."""

    async def case() -> None:
        here, there = socket.socketpair()
        keys = Keys(b"u" * 32, b"v" * 32, b"", b"", b"w" * 20, Ticket(bytes(16), bytes(32)))
        hole = Hole(here, "here", "there", b"", True, Role.LISTEN, Trait.RESUME, 0.0, Counts(), keys, fast_aes=True)
        holes = Holes()
        plan = Plan(Role.TO, Ports([]), resume=60.0)
        session = Session(asyncio.get_running_loop(), hole, plan, events.unreported, seekers(holes))
        try:
            session.start(b"")
            frames = Header(Kind.PING, 2, 0, 1).encode()
            if said:
                frames += Header(Kind.GO_AWAY, 0, 0, Goodbye.NORMAL).encode()
            there.sendall(Sealer(b"v" * 32, True).seal(frames))
            there.close()
            outcome = await asyncio.wait_for(session.ended, 30)
        finally:
            session.close()
            there.close()
        assert holes.asked == [len(frames)]
        assert outcome.status == (Exit.OK if said else Exit.LOST)
        assert outcome.reason == ("" if said else words.PEER_RESTARTED)

    asyncio.run(case())
