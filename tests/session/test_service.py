"""A service whose system refuses what it needs; tests/e2e/test_sessions.py plays services with real peers."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import NoReturn

import pytest

from punchtunnel import words
from punchtunnel.errors import Exit
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting import events
from punchtunnel.session import service as module
from punchtunnel.session.holes import Holes
from punchtunnel.session.plan import Plan
from punchtunnel.session.roles import Ends
from punchtunnel.session.seeker import Seekers
from punchtunnel.session.service import Service
from punchtunnel.session.session import Session
from punchtunnel.system.signals import Wake


def test_a_thread_that_is_not_to_be_had_is_asked_for_again_and_ends_the_service_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was a traceback, and took the sessions that were up with it."""
    asked = 0

    def refuse(_: object) -> NoReturn:
        nonlocal asked
        asked += 1
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "THREAD_PAUSE", 0.0)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    here, there = socket.socketpair()

    async def case() -> None:
        loop = asyncio.get_running_loop()
        hole = Hole(here, "here", "there", b"", True, Role.LISTEN, Trait(0), 0.0, Counts())

        def begin(hole: Hole, report: events.Report, seekers: Seekers) -> Session:
            session = Session(loop, hole, Plan(Role.TO, Ends()), report, seekers)
            session.start(hole.unread)
            return session

        with Wake() as wake:
            service = Service(Holes(Settings(["192.0.2.1"]), wake), begin, events.unreported, 16, wake)
            service.start(hole)
            while asked < 3:  # noqa: ASYNC110 - what the service does sets no event
                await asyncio.sleep(0)
            assert not service.ended.done()
            # Its session ends, and nothing is left.
            there.close()
            outcome = await asyncio.wait_for(service.ended, 30)
            service.close()
        assert (outcome.status, outcome.reason) == (Exit.LOCAL, words.NO_THREAD)

    asyncio.run(case())
