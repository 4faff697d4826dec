"""Run one session on an event loop of its own, as the command line does with each hole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from punchtunnel.errors import Exit
from punchtunnel.punching.hole import Hole
from punchtunnel.reporting.events import Report
from punchtunnel.session.holes import Holes
from punchtunnel.session.outcome import Outcome
from punchtunnel.session.plan import Plan
from punchtunnel.session.seeker import Seekers, seekers
from punchtunnel.session.service import Service
from punchtunnel.session.session import Session
from punchtunnel.system.loop import GuardedLoop
from punchtunnel.system.refusals import refused
from punchtunnel.system.signals import Signals, Wake


def run(hole: Hole, plan: Plan, report: Report, signals: Signals | None = None, holes: Holes | None = None) -> Outcome:
    """Join a hole to what the plan says until the session ends, and close the hole.

    Args:
        hole: The winner of a punch.
        plan: What to join it to.
        report: Where events go.
        signals: The first one ends the session cleanly, the second one at once; SIGHUP with -k only probes the peer.
        holes: Where another one comes from when this one is lost, or a direct one when this one is relayed.
    """
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_run(hole, plan, report, signals, holes))
    except OSError as error:
        # It costs this session.  A service (-k) punches again.
        why = refused(error)
        return Outcome(why.status, str(why))


def serve(
    holes: Holes, hole: Hole, make_plan: Callable[[], Plan], report: Report, limit: int, signals: Signals
) -> Outcome:
    """Serve many sessions at once, until a signal ends them or no more peers can come.

    Args:
        holes: Where further peers come from.
        hole: The first one.
        make_plan: What to do with a new session.
        report: Where events go.
        limit: Of sessions at one time.
        signals: The first one ends all sessions cleanly, the second one at once; SIGHUP probes.
    """
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_serve(holes, hole, make_plan, report, limit, signals))
    except OSError as error:
        why = refused(error)
        return Outcome(why.status, str(why))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of uvloop's loops, or of asyncio's where uvloop is not installed."""
    with contextlib.suppress(ImportError):
        import uvloop  # imported late: punching does not need it

        return uvloop.new_event_loop
    return asyncio.new_event_loop


async def _run(hole: Hole, plan: Plan, report: Report, signals: Signals | None, holes: Holes | None) -> Outcome:
    loop = asyncio.get_running_loop()
    session = Session(loop, hole, plan, report, seekers(holes) if holes else None, holes, own_loop=True)
    guarded = GuardedLoop(loop, session.broke)

    def on_signal() -> None:
        while signals is not None and (number := signals.take()) is not None:
            if signals.means_try_now(number):
                session.probe()
            else:
                session.stop(Exit(128 + number))

    if signals is not None:
        guarded.add_reader(signals.fileno(), on_signal)
    try:
        session.start(hole.unread)
        return await session.ended
    finally:
        if signals is not None:
            guarded.remove_reader(signals.fileno())
        session.close()


async def _serve(
    holes: Holes, hole: Hole, make_plan: Callable[[], Plan], report: Report, limit: int, signals: Signals
) -> Outcome:
    loop = asyncio.get_running_loop()

    def begin(hole: Hole, report: Report, seekers: Seekers) -> Session:
        session = Session(loop, hole, make_plan(), report, seekers, holes)
        session.start(hole.unread)
        return session

    with Wake() as wake:
        service = Service(holes, begin, report, limit, wake)

        def on_signal() -> None:
            while (number := signals.take()) is not None:
                if signals.means_try_now(number):
                    service.probe()
                else:
                    service.stop(Exit(128 + number))

        loop.add_reader(signals.fileno(), on_signal)
        try:
            service.start(hole)
            return await service.ended
        finally:
            loop.remove_reader(signals.fileno())
            service.close()
