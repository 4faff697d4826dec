"""A connected socket as an end: EOF stays EOF, and an abort is a reset."""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections.abc import Iterator

import pytest

from punchtunnel.address import Place
from punchtunnel.ends.listening import listen
from punchtunnel.ends.sockets import ROOMY, SocketEnd, notice_absence, system_reason

# Bytes: the unsent ones, and the first window of a reader that takes nothing.
MOST = 1024 * 1024


@pytest.fixture
def accepted() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client that a -L has accepted, and its other end."""
    with listen(Place("127.0.0.1", 0)) as listener:
        other = socket.create_connection(listener.getsockname())
        client, _ = listener.accept()
    with client, other:
        yield client, other


def test_eof_is_passed_in_both_directions() -> None:
    ours, theirs = socket.socketpair()
    end = SocketEnd(ours)
    assert end.read_into(memoryview(bytearray(10))) is None
    assert end.write(memoryview(b"x")) == 1
    end.finish_writing()
    assert theirs.recv(10) == b"x"
    assert theirs.recv(10) == b""
    theirs.close()
    assert end.read_into(memoryview(bytearray(10))) == 0
    end.close()


def test_aborted_tcp_connection_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        with client:
            SocketEnd(accepted).abort()
            with pytest.raises(ConnectionResetError):
                client.recv(1)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EADDRINUSE, "[Errno 98] error while attempting to bind"), "Address already in use"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_an_error_is_told_in_the_words_of_the_system(error: OSError, told: str) -> None:
    assert system_reason(error) == told


def held_by(end: SocketEnd, poll: select.poll) -> int:
    """Return how many bytes an end takes while nobody reads."""
    held = 0
    # The kernel moves what was sent before it makes room; a quarter of a second without room is the end.
    while (taken := end.write(memoryview(bytes(65536)))) or poll.poll(250):
        held += taken
        assert held <= MOST, "it takes without end"
    return held


@pytest.mark.parametrize("tuned", [False, True], ids=["target", "client"])
def test_among_many_streams_little_waits_in_the_kernel_for_a_reader_that_takes_nothing(
    accepted: tuple[socket.socket, socket.socket], tuned: bool
) -> None:
    """300 streams to a target that never reads held 1.2 GiB of TCP memory."""
    end = SocketEnd(accepted[0], tuned=tuned, others=ROOMY)
    poll = select.poll()
    poll.register(accepted[0], select.POLLOUT)
    assert 0 < held_by(end, poll) <= MOST


@pytest.mark.skipif(sys.platform != "linux", reason="other systems inherit no options")
def test_a_local_client_that_vanishes_is_noticed_within_two_minutes(
    accepted: tuple[socket.socket, socket.socket],
) -> None:
    """Without FIN it was never noticed: 4096 of them and no stream was left."""
    assert_is_watched_over(accepted[0])


def test_a_connection_to_another_machine_is_probed(tcp_pair: tuple[socket.socket, socket.socket]) -> None:
    assert not tcp_pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    notice_absence(tcp_pair[0])
    assert_is_watched_over(tcp_pair[0])


def assert_is_watched_over(sock: socket.socket) -> None:
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    idle, interval, count = (
        sock.getsockopt(socket.IPPROTO_TCP, option)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    )
    assert count > 1, "one lost probe is no absence"
    assert idle + interval * count <= 120
