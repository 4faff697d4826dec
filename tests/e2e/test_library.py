"""A program with the library at one end, the command line at the other."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from punchtunnel import LinkError, NoHoleError, RejectedError, connect, open_tunnel

from .ends import Lab
from .flows import MIB, WAIT, echo, noise, receive


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: a program's streams are sockets to the link, as those of -L are."""
    return []


def run(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(WAIT):
            await test

    asyncio.run(limited())


def towards_right(lab: Lab) -> dict[str, Any]:
    return {"bind": lab.left, "channel": lab.channel, "plain": "--plain" in lab.options}


def test_connect_meets_stdio(lab: Lab) -> None:
    right = lab.start_right()

    async def test() -> None:
        reader, writer = await connect(lab.right, **towards_right(lab))
        right.send(b"from stdin")
        right.send_eof()
        assert await reader.read() == b"from stdin"
        writer.write(noise(MIB))
        writer.close()
        received, _ = await asyncio.gather(asyncio.to_thread(right.receive), writer.wait_closed())
        assert received == noise(MIB)

    run(test())
    assert right.status() == 0


def test_connect_meets_a_target(lab: Lab) -> None:
    right = lab.start_right("--to", str(lab.serve(echo)))

    async def test() -> None:
        reader, writer = await connect(lab.right, **towards_right(lab))
        writer.write(b"there and back")
        writer.write_eof()
        assert await reader.read() == b"there and back"
        writer.close()
        await writer.wait_closed()

    run(test())
    assert right.status() == 0


def test_connect_meets_the_first_client_of_a_port(lab: Lab) -> None:
    right = lab.start_right("-L", "0")

    async def test() -> None:
        connecting = asyncio.create_task(connect(lab.right, **towards_right(lab)))
        await asyncio.to_thread(right.wait_for, "link_up")
        client = lab.connect(right.port)
        client.sendall(b"from a client")
        reader, writer = await connecting
        assert await reader.readexactly(13) == b"from a client"
        writer.write(b"to it")
        writer.write_eof()
        assert await asyncio.to_thread(receive, client) == b"to it"
        client.close()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    run(test())
    assert right.status() == 0


def test_connect_may_be_cancelled_while_no_client_has_come(lab: Lab) -> None:
    right = lab.start_right("-L", "0")

    async def test() -> None:
        connecting = asyncio.create_task(connect(lab.right, **towards_right(lab)))
        await asyncio.to_thread(right.wait_for, "link_up")
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    run(test())
    assert right.status() == 1


@pytest.mark.parametrize("wait", [0.0, pytest.param(WAIT, marks=pytest.mark.exhaustive)])
def test_peer_that_only_checks_the_path_leaves_the_program_waiting_for_a_real_one(lab: Lab, wait: float) -> None:
    async def test() -> None:
        connecting = asyncio.create_task(connect(lab.right, wait=wait, **towards_right(lab)))
        for _ in range(2):
            end = lab.start_right("-z")
            assert await asyncio.to_thread(end.status) == 0
            assert end.find("path")
        right = lab.start_right()
        right.send_eof()
        reader, writer = await connecting
        assert await reader.read() == b""
        writer.write(b"to the real one")
        writer.close()
        await writer.wait_closed()
        assert await asyncio.to_thread(right.receive) == b"to the real one"

    run(test())


@pytest.mark.exhaustive
def test_check_takes_nothing_but_its_time_from_what_a_program_waits(lab: Lab) -> None:
    async def test() -> None:
        connecting = asyncio.create_task(connect(lab.right, wait=8.0, **towards_right(lab)))
        end = lab.start_right("-z")
        assert await asyncio.to_thread(end.status) == 0
        with pytest.raises(NoHoleError, match=r"in 8 s: \d+ dials; the peer has checked the path"):
            await connecting

    run(test())


def test_program_may_be_cancelled_while_a_peer_checks_the_path(lab: Lab) -> None:
    right = lab.start_right("-z")

    async def test() -> None:
        connecting = asyncio.create_task(connect(lab.right, **towards_right(lab)))
        await asyncio.to_thread(right.wait_for, "rtt")
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    run(test())
    assert right.status() == 1


def test_target_that_refuses_is_told_by_the_reader(lab: Lab) -> None:
    right = lab.start_right("--to", "127.0.0.1:1")

    async def test() -> None:
        reader, writer = await connect(lab.right, **towards_right(lab))
        with pytest.raises(LinkError, match="the far side's target refused the connection"):
            await reader.read()
        writer.close()
        with pytest.raises(LinkError, match="refused"):
            await writer.wait_closed()

    run(test())
    assert right.status() == 6


def test_peer_that_takes_nothing_has_its_eof_already(lab: Lab) -> None:
    right = lab.start_right("--send-only")

    async def test() -> None:
        reader, writer = await connect(lab.right, **towards_right(lab))
        right.send(b"only this")
        right.send_eof()
        assert await reader.read() == b"only this"
        with pytest.raises(LinkError, match="takes nothing"):
            writer.write(b"nobody reads it")
        writer.close()
        await writer.wait_closed()

    run(test())
    assert right.status() == 0


def test_killed_peer_is_a_lost_link_and_no_end_of_file(lab: Lab) -> None:
    right = lab.start_right()

    async def test() -> None:
        reader, writer = await connect(lab.right, **towards_right(lab), resume=1.0)
        right.send(b"some")
        assert await reader.readexactly(4) == b"some"
        right.process.kill()
        with pytest.raises(LinkError, match="link lost"):
            await reader.read()
        writer.close()
        with pytest.raises(LinkError, match="link lost"):
            await writer.wait_closed()

    run(test())


@pytest.mark.parametrize("number", [1, 20])
def test_tunnel_opens_connections_to_the_target_of_the_command_line(lab: Lab, number: int) -> None:
    right = lab.start_right("--to", str(lab.serve(echo)))

    async def ask(data: bytes, tunnel: Any) -> None:
        reader, writer = await tunnel.open()
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data
        writer.close()
        await writer.wait_closed()

    async def test() -> None:
        async with open_tunnel(lab.right, **towards_right(lab)) as tunnel:
            await asyncio.gather(*(ask(noise(100_000, one), tunnel) for one in range(number)))

    run(test())
    assert right.status() == 0


def test_tunnel_serves_the_clients_of_the_command_line(lab: Lab) -> None:
    right = lab.start_right("-L", "0", "-k")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readuntil()).upper())
        writer.close()
        await writer.wait_closed()

    async def talk() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", right.port)
        writer.write(b"hello\n")
        writer.write_eof()
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
        return said

    async def test(number: int) -> None:
        async with open_tunnel(lab.right, **towards_right(lab)) as tunnel:
            clients = [asyncio.create_task(talk()) for _ in range(5)]
            for _ in clients:
                reader, writer = await anext(tunnel)
                await answer(reader, writer)
            assert await asyncio.gather(*clients) == [b"HELLO\n"] * 5
        await asyncio.to_thread(right.wait_for, "punching_again", number)

    # -k: the far side is there for the next one.
    for number in range(1, 3):
        run(test(number))


@pytest.mark.exhaustive
def test_tunnel_and_stdio_do_not_fit(lab: Lab) -> None:
    right = lab.start_right("-w", "3")

    async def test() -> None:
        with pytest.raises(RejectedError, match="roles do not fit"):
            async with open_tunnel(lab.right, wait=3.0, **towards_right(lab)):
                pass

    run(test())
    assert right.status() == 4
