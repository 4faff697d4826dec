"""The kernel refuses to watch a descriptor: it costs that connection, and the sentence names the call."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable

import pytest

from punchtunnel.ends.sockets import SocketEnd
from punchtunnel.link.carrier import Carrier
from punchtunnel.link.stream import Broken
from punchtunnel.system.poller import Poller

from .links import LONG, Case, connect, make_waiting_side, two_sides

SENTENCE = "cannot watch a connection: No space left on device"


def refuse(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    def register(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(poller._kernel, "register", register)


def test_an_end_that_cannot_be_watched_costs_its_stream_alone(
    run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC of one epoll_ctl ended the process: "cannot write: No space left on device"."""

    async def case() -> None:
        async with two_sides() as (left, right):
            near, far = await connect(left, right)
            with near, far:
                with monkeypatch.context() as patch:
                    refuse(left.poller, patch)
                    ours, theirs = socket.socketpair()
                    with theirs:
                        number = left.link.open(SocketEnd(ours))
                        ended, failure = await asyncio.wait_for(left.ended.get(), LONG)
                        assert ended == number
                        assert isinstance(failure, Broken)
                        assert failure.error.strerror == SENTENCE
                near.send(b"the other one lives")
                assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(far, 100), LONG)

    run(case)


def test_a_hole_that_cannot_be_watched_is_lost(run: Callable[[Case], None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def case() -> None:
        here, there = socket.socketpair()
        side = make_waiting_side(True)
        with there:
            refuse(side.poller, monkeypatch)
            side.link.attach(Carrier(here))
            error = await asyncio.wait_for(side.lost.get(), LONG)
            assert error is not None
            assert SENTENCE in str(error)
            side.link.close(reset=True)
            side.poller.close()

    run(case)
