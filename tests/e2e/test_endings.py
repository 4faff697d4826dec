"""How a connection through -L and --to ends: EOF as EOF, RST as RST, each direction by itself."""

from __future__ import annotations

import errno
import queue
import select
import socket
import threading

import pytest

from .conftest import on_every_path
from .ends import End, Lab
from .flows import MIB, noise, receive, reset


class Joined:
    """A client and a server socket that are joined through a tunnel."""

    def __init__(self, lab: Lab) -> None:
        accepted: queue.Queue[socket.socket] = queue.Queue()
        done = threading.Event()

        def handle(sock: socket.socket) -> None:
            accepted.put(sock)
            done.wait()

        self.left, self.right = lab.tunnel(lab.serve(handle))
        lab.defer(done.set)
        self.client = lab.connect(self.left.port)
        self.client.sendall(b"!")
        self.server = accepted.get(timeout=30)
        assert receive(self.server, 1) == b"!"

    def sides(self, first: str) -> tuple[socket.socket, socket.socket]:
        """Return both sockets, the one that is to act first in front."""
        return (self.client, self.server) if first == "client" else (self.server, self.client)


FIRST = pytest.mark.parametrize("first", ["client", "server"])


def await_reset(sock: socket.socket) -> None:
    """Fail unless the next thing that happens to a socket is RST."""
    ready, _, _ = select.select([sock], [], [], 30)
    assert ready, "neither data nor an end in 30 s"
    with pytest.raises(ConnectionResetError):
        receive(sock)


@FIRST
def test_whoever_shuts_down_writing_first_still_gets_the_whole_answer(lab: Lab, first: str) -> None:
    one, other = Joined(lab).sides(first)
    one.sendall(b"question")
    one.shutdown(socket.SHUT_WR)
    assert receive(other) == b"question"
    # Several turns behind the EOF, so that it cannot have been luck.
    for number in range(3):
        other.sendall(b"part %d" % number)
        assert receive(one, 6) == b"part %d" % number
    other.shutdown(socket.SHUT_WR)
    assert receive(one) == b""


@FIRST
@on_every_path
def test_large_answer_behind_a_half_close_arrives_whole(lab: Lab, first: str) -> None:
    one, other = Joined(lab).sides(first)
    one.shutdown(socket.SHUT_WR)
    assert receive(other) == b""
    other.settimeout(30)
    answer = noise(20 * MIB)

    def send() -> None:
        other.sendall(answer)
        other.shutdown(socket.SHUT_WR)

    lab.in_background(send)
    assert receive(one) == answer


@FIRST
def test_data_that_is_closed_behind_arrives_whole(lab: Lab, first: str) -> None:
    """close() at once behind the last byte, without waiting for anything."""
    one, other = Joined(lab).sides(first)
    one.sendall(noise(100_000))
    one.close()
    assert receive(other) == noise(100_000)


@FIRST
@on_every_path
def test_reset_arrives_as_reset(lab: Lab, first: str) -> None:
    one, other = Joined(lab).sides(first)
    reset(one)
    await_reset(other)


@FIRST
def test_reset_behind_an_own_half_close_arrives_as_reset(lab: Lab, first: str) -> None:
    one, other = Joined(lab).sides(first)
    one.shutdown(socket.SHUT_WR)
    assert receive(other) == b""
    reset(one)
    # The other side learns of it by writing, as it would without a tunnel.
    await_broken(other)


@FIRST
def test_reset_behind_the_other_sides_half_close_arrives_as_reset(lab: Lab, first: str) -> None:
    one, other = Joined(lab).sides(first)
    other.shutdown(socket.SHUT_WR)
    assert receive(one) == b""
    reset(one)
    await_reset(other)


def await_broken(sock: socket.socket) -> None:
    """Fail unless writing to a socket fails after a while."""
    sock.settimeout(30)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        sock.sendall(bytes(100 * MIB))


@FIRST
def test_reset_of_a_stalled_connection_arrives_as_reset_once_it_is_read(lab: Lab, first: str) -> None:
    """The writer goes away while credit is used up: nothing is read from it any more."""
    one, other = Joined(lab).sides(first)
    one.setblocking(False)
    while select.select([], [one], [], 1.0)[1]:
        one.send(bytes(64 * 1024))
    reset(one)
    with pytest.raises(ConnectionResetError):
        receive(other)


@FIRST
def test_reset_leaves_the_tunnel_and_its_other_connections_alone(lab: Lab, first: str) -> None:
    joined = Joined(lab)
    witness = lab.connect(joined.left.port)
    witness.sendall(b"?")
    for end in (joined.left, joined.right):
        end.wait_for("stream_opened", 2)
    reset(joined.sides(first)[0])
    await_reset(joined.sides(first)[1])
    witness.settimeout(0.2)
    with pytest.raises(TimeoutError):
        witness.recv(1)
    assert joined.left.process.poll() is None
    assert joined.right.process.poll() is None


def test_client_that_is_gone_before_its_target_was_reached_harms_nothing(lab: Lab) -> None:
    joined = Joined(lab)
    for _ in range(20):
        reset(socket.create_connection(("127.0.0.1", joined.left.port), 30))
    joined.client.sendall(b"still joined")
    assert receive(joined.server, 12) == b"still joined"


# ---- against stdio


@pytest.mark.parametrize("side", ["-L", "--to"])
def test_reset_of_the_only_connection_ends_both_sides_with_1_and_a_sentence(lab: Lab, side: str) -> None:
    sock, left, right = only_connection(lab, side)
    reset(sock)
    assert (left.status(), right.status()) == (1, 1)
    for end in (left, right):
        assert "reset" in end.reason
        assert "\n" not in end.reason


@pytest.mark.parametrize("side", ["-L", "--to"])
def test_eof_of_the_only_connection_leaves_the_other_direction_open(lab: Lab, side: str) -> None:
    sock, left, right = only_connection(lab, side)
    sock.shutdown(socket.SHUT_WR)
    assert left.receive() == b""
    left.send(b"a late word")
    left.send_eof()
    assert receive(sock) == b"a late word"
    sock.close()
    assert (left.status(), right.status()) == (0, 0)


def only_connection(lab: Lab, side: str) -> tuple[socket.socket, End, End]:
    """Return a socket that is joined to the stdio of the left end, and both ends."""
    if side == "-L":
        left, right = lab.pair([], ["-L", "0"])
        sock = lab.connect(right.port)
    else:
        listener = lab.own(socket.create_server(("127.0.0.1", 0)))
        left, right = lab.pair([], ["--to", str(listener.getsockname()[1])])
        listener.settimeout(30)
        sock = lab.own(listener.accept()[0])
    left.send(b"!")
    assert receive(sock, 1) == b"!"
    return sock, left, right


def test_errors_of_sockets_are_what_this_file_takes_them_for() -> None:
    """Without a tunnel: RST is ECONNRESET, and never EOF."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other = listener.accept()[0]
        with one, other:
            reset(one)
            with pytest.raises(OSError, match="reset") as caught:
                receive(other)
            assert caught.value.errno == errno.ECONNRESET
