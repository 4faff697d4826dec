"""Callbacks that fail are reported, and timers are known by their names."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from punchtunnel.system.loop import GuardedLoop, Timers

from ..link.links import Case

Run = Callable[[Case], None]


def fail() -> None:
    raise KeyError("a bug")


@pytest.mark.parametrize("way", ["soon", "soon_threadsafe", "later", "reader"])
def test_an_exception_of_a_callback_is_reported_and_not_logged(run: Run, way: str) -> None:
    async def case() -> None:
        loop = asyncio.get_running_loop()
        broken: asyncio.Future[BaseException] = loop.create_future()
        guarded = GuardedLoop(loop, broken.set_result)
        ours, theirs = socket.socketpair()

        def read() -> None:
            # It would be called again.
            guarded.remove_reader(ours.fileno())
            fail()

        with ours, theirs:
            if way == "soon":
                guarded.call_soon(fail)
            elif way == "soon_threadsafe":
                guarded.call_soon_threadsafe(fail)
            elif way == "later":
                guarded.call_later(0, fail)
            else:
                theirs.send(b"!")
                guarded.add_reader(ours.fileno(), read)
            assert isinstance(await broken, KeyError)

    run(case)


def test_a_timer_of_the_same_name_takes_the_place_of_the_first(run: Run) -> None:
    async def case() -> None:
        loop = asyncio.get_running_loop()
        timers, called = Timers(loop), list[str]()
        over = loop.create_future()
        timers.later("one", 0, lambda: called.append("replaced"))
        timers.later("one", 0, lambda: called.append("one"))
        timers.later("two", 0, lambda: over.set_result(None))
        assert "one" in timers
        await over
        assert called == ["one"]
        assert "one" not in timers

    run(case)


def test_a_timer_may_set_itself_again(run: Run) -> None:
    async def case() -> None:
        loop = asyncio.get_running_loop()
        timers, left = Timers(loop), [3]
        over = loop.create_future()

        def tick() -> None:
            left[0] -= 1
            if left[0]:
                timers.later("tick", 0, tick)
            else:
                over.set_result(None)

        timers.later("tick", 0, tick)
        await over
        assert "tick" not in timers

    run(case)


def test_cancelled_timers_call_nothing(run: Run) -> None:
    async def case() -> None:
        loop = asyncio.get_running_loop()
        timers = Timers(loop)
        timers.later("one", 0, fail)
        timers.cancel()
        assert "one" not in timers
        over = loop.create_future()
        loop.call_later(0, over.set_result, None)
        await over

    run(case)
