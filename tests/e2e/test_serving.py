"""A program that serves many peers at once, and command lines as its peers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from punchtunnel import LinkError, NoHoleError, Tunnel, UsageError, serve_tunnels, words

from .conftest import on_one_path
from .ends import Lab
from .flows import WAIT

SECRET = "correct-horse-battery-staple-17"
pytestmark = on_one_path


@pytest.fixture(autouse=True)
def with_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUNCHTUNNEL_SECRET", SECRET)


def towards_right(lab: Lab) -> dict[str, Any]:
    return {"bind": lab.left, "channel": lab.channel, "secret": SECRET}


async def answer(tunnel: Tunnel) -> None:
    async for reader, writer in tunnel:
        writer.write((await reader.read()).upper())
        writer.close()


@contextlib.asynccontextmanager
async def serving(lab: Lab, handle: Any = answer, sessions: int = 16) -> Any:
    async with asyncio.timeout(WAIT):
        task = asyncio.create_task(serve_tunnels(handle, lab.right, sessions=sessions, **towards_right(lab)))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])


def test_many_peers_are_served_at_once(lab: Lab) -> None:
    async def test() -> None:
        async with serving(lab) as task:
            peers = [await asyncio.to_thread(lab.start_right) for _ in range(3)]
            for number, peer in enumerate(peers):
                await asyncio.to_thread(peer.wait_for, "link_up")
                peer.send(b"caller %d" % number)
            for number, peer in reversed(list(enumerate(peers))):
                peer.send_eof()
                assert await asyncio.to_thread(peer.receive) == b"CALLER %d" % number
                assert await asyncio.to_thread(peer.status) == 0
            assert not task.done()

    asyncio.run(test())


def test_one_peer_more_than_there_may_be_is_told_so(lab: Lab) -> None:
    async def test() -> None:
        async with serving(lab, sessions=1):
            first, second = lab.start_right(), None
            await asyncio.to_thread(first.wait_for, "link_up")
            second = lab.start_right()
            assert await asyncio.to_thread(second.status) == 1
            assert second.reason == words.SERVICE_FULL
            first.send(b"still here")
            first.send_eof()
            assert await asyncio.to_thread(first.receive) == b"STILL HERE"

    asyncio.run(test())


def test_cancelling_the_call_cuts_every_tunnel_and_the_peers_know_it(lab: Lab) -> None:
    async def test() -> None:
        async with serving(lab) as task:
            peers = [lab.start_right() for _ in range(2)]
            for peer in peers:
                await asyncio.to_thread(peer.wait_for, "link_up")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for peer in peers:
                assert await asyncio.to_thread(peer.status) == 1

    asyncio.run(test())


def test_a_bug_of_the_program_ends_the_call_and_a_lost_link_does_not(lab: Lab) -> None:
    met = 0

    async def handle(_: Tunnel) -> None:
        nonlocal met
        met += 1
        if met == 2:
            raise ZeroDivisionError
        raise LinkError("lost")

    async def test() -> None:
        async with serving(lab, handle) as task:
            first = lab.start_right()
            assert await asyncio.to_thread(first.status) == 1
            second = lab.start_right()
            assert await asyncio.to_thread(second.status) == 1
            with pytest.raises(ExceptionGroup) as caught:
                await task
            assert caught.group_contains(ZeroDivisionError)

    asyncio.run(test())


def test_what_cannot_be_served_is_an_error_of_the_call(lab: Lab) -> None:
    async def test() -> None:
        with pytest.raises(NoHoleError):
            await serve_tunnels(answer, lab.right, wait=0.2, **towards_right(lab))
        with pytest.raises(UsageError):
            await serve_tunnels(answer, lab.right, sessions=0, **towards_right(lab))

    asyncio.run(test())
