"""A slow reader stops the far writer, nobody else, and memory stays bounded."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

import pytest

from .ends import End, Lab
from .flows import MIB, WAIT, Flow, echo, noise, pattern, receive, wait_until_all_stall

GIGABYTE = 1024 * MIB
# What a process may hold at its worst: the interpreter's 40 MB and the link's bound of 64 MiB.
MEMORY = 120 * 1000 * 1000
# More than all buffers on the way can hold together: what was taken beyond it was not held back.
HELD_BACK = 200 * MIB
DRAINED = 64 * MIB


def assert_small(*ends: End) -> None:
    for end in ends:
        assert end.peak_memory < MEMORY, f"{end.peak_memory} bytes: {end}"


def whole(chunks: Iterator[bytes]) -> bytes:
    return b"".join(chunks)


def test_gigabyte_waits_for_a_reader_of_stdout_in_little_memory(lab: Lab) -> None:
    left, right = lab.pair()
    flow = left.feed(pattern(GIGABYTE))
    assert flow.wait_until_stalled() < HELD_BACK
    assert_small(left, right)
    # Then it flows on, from where it stood.
    assert right.receive(DRAINED) == whole(pattern(DRAINED))
    assert flow.wait_until_stalled() < HELD_BACK + DRAINED
    assert_small(left, right)
    # The reader has seen enough, as `head` has.
    assert right.process.stdout is not None
    right.process.stdout.close()
    assert (right.status(), left.status()) == (141, 1)


@pytest.mark.exhaustive
def test_gigabyte_both_ways_waits_for_both_readers(lab: Lab) -> None:
    left, right = lab.pair()
    flows = [end.feed(pattern(GIGABYTE)) for end in (left, right)]
    assert max(wait_until_all_stall(flows)) < HELD_BACK
    # One direction flows although the other stands still.
    assert right.receive(DRAINED) == whole(pattern(DRAINED))
    assert left.receive(DRAINED) == whole(pattern(DRAINED))
    assert_small(left, right)


@pytest.mark.exhaustive
def test_gigabyte_waits_for_a_server_that_does_not_read(lab: Lab) -> None:
    go, chunk = threading.Event(), whole(pattern(DRAINED))
    results: list[bool] = []

    def sleepy(sock: socket.socket) -> None:
        go.wait(WAIT)
        results.append(receive(sock, DRAINED) == chunk)

    lab.defer(go.set)
    left, right = lab.tunnel(lab.serve(sleepy))
    client = lab.connect(left.port)
    flow = Flow(client.detach(), pattern(GIGABYTE))
    flow.start()
    assert flow.wait_until_stalled() < HELD_BACK
    assert_small(left, right)
    go.set()
    # The server closes with bytes unread, which is RST: the client's writing ends.
    flow.join(WAIT)
    assert not flow.is_alive()
    assert results == [True]
    assert_small(left, right)


@pytest.mark.exhaustive
def test_gigabyte_waits_for_a_client_that_does_not_read(lab: Lab) -> None:
    flows: list[Flow] = []
    begun = threading.Event()

    def talkative(sock: socket.socket) -> None:
        flows.append(Flow(sock.detach(), pattern(GIGABYTE)))
        flows[0].start()
        begun.set()

    left, right = lab.tunnel(lab.serve(talkative))
    with lab.connect(left.port) as client:
        assert begun.wait(WAIT)
        assert flows[0].wait_until_stalled() < HELD_BACK
        assert_small(left, right)
        assert receive(client, DRAINED) == whole(pattern(DRAINED))
    flows[0].join(WAIT)
    assert not flows[0].is_alive()


@pytest.mark.usefixtures("without_resuming")
def test_stalled_connections_stop_nobody_else(lab: Lab) -> None:
    stalled = threading.Event()
    lab.defer(stalled.set)

    def choose(sock: socket.socket) -> None:
        if receive(sock, 1) == b"s":
            stalled.wait()
        else:
            echo(sock)

    left, right = lab.tunnel(lab.serve(choose))
    flows = []
    for _ in range(8):
        client = lab.connect(left.port)
        client.sendall(b"s")
        flows.append(Flow(client.detach(), pattern(GIGABYTE)))
        flows[-1].start()
    wait_until_all_stall(flows)
    with lab.connect(left.port) as witness:
        witness.sendall(b"e" + noise(60_000))
        assert receive(witness, 60_000) == noise(60_000)
    assert_small(left, right)
    assert all(flow.is_alive() for flow in flows), "stalled is not reset"
    right.process.kill()
    for flow in flows:
        flow.join(WAIT)
        assert not flow.is_alive()


def test_500_stalled_connections_stay_within_the_bound_of_the_link(lab: Lab) -> None:
    """256 KiB are allowed to each: together more than the link may hold."""
    # Paths rather than ports: the kernel keeps little of what nobody reads there.
    inside, outside = lab.folder / "inside", lab.folder / "outside"
    listener = lab.own(socket.socket(socket.AF_UNIX))
    listener.settimeout(WAIT)
    listener.bind(str(inside))
    listener.listen(600)
    left, right = lab.tunnel(f"unix:{inside}", f"unix:{outside}")

    def client() -> socket.socket:
        sock = lab.own(socket.socket(socket.AF_UNIX))
        sock.settimeout(WAIT)
        sock.connect(str(outside))
        return sock

    clients = [client() for _ in range(500)]
    for sock in clients:
        sock.setblocking(False)
    # Until nothing has moved for a second: everyone has sent what there is room for.
    while ready := select.select([], clients, [], 1.0)[1]:
        for sock in ready:
            try:
                sock.send(bytes(64 * 1024))
            except (BrokenPipeError, ConnectionResetError):
                clients.remove(sock)
    # Some were given up so that the others can stay, and both sides say so.
    assert 200 < len(clients) < 500
    for end in (left, right):
        assert "64 MiB" in end.wait_for("stream_reset")["reason"]
    assert_small(left, right)
    for _ in range(500):
        listener.accept()[0].close()
    with client() as witness, listener.accept()[0] as server:
        witness.sendall(noise(60_000))
        assert receive(server, 60_000) == noise(60_000)
