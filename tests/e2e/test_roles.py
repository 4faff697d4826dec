"""Which roles fit together, and strangers that do not belong at all."""

from __future__ import annotations

import contextlib
import socket

import pytest

from punchtunnel.protocol.hello import Hello, Role

from .ends import End, Lab
from .flows import echo, receive, sockets

LISTEN = ["-L", "0"]
TO = ["--to", "9"]
STDIO: list[str] = []
BOTH = [*LISTEN, *TO]

# The options of both sides, and the options that the sentence must name.
ILLEGAL = [
    pytest.param(LISTEN, LISTEN, ["--to"], id="-L and -L"),
    pytest.param(TO, TO, ["-L"], id="--to and --to"),
    pytest.param(STDIO, BOTH, ["--stdio", "-L", "--to"], id="stdio and both"),
]


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: which roles fit is agreed before there is a data path."""
    return []


@pytest.mark.parametrize(("left", "right", "named"), ILLEGAL)
def test_roles_that_do_not_fit_are_told_at_once_and_end_both_sides_with_4_and_a_sentence(
    lab: Lab, left: list[str], right: list[str], named: list[str]
) -> None:
    ends = lab.start_left("-w", "3", *left), lab.start_right("-w", "3", *right)
    for end in ends:
        # It goes on: this may have been a stranger.
        assert end.wait_for("rejected")["time_s"] < end.wait_for("exit")["time_s"] - 0.5
        assert end.status() == 4
        assert end.reason.startswith("roles do not fit: ")
        assert all(option in end.reason for option in named)
        assert "\n" not in end.reason


@pytest.mark.exhaustive
def test_roles_that_do_not_fit_on_one_host(lab: Lab) -> None:
    ends = [lab.start("127.0.0.1", "--channel", lab.channel, "-w", "3", *LISTEN) for _ in range(2)]
    assert [end.status() for end in ends] == [4, 4]
    assert all("--to" in end.reason for end in ends)


@pytest.mark.exhaustive
def test_side_with_k_outlives_a_peer_that_does_not_fit(lab: Lab) -> None:
    left, wrong = lab.start_left("-k", *LISTEN), lab.start_right("-w", "3", *LISTEN)
    assert wrong.status() == 4
    assert left.wait_for("rejected")["reason"].startswith("roles do not fit: ")
    lab.start_right("--to", str(lab.serve(echo)))
    with socket.create_connection(("127.0.0.1", left.port), 30) as sock:
        sock.sendall(b"the right one")
        assert receive(sock, 13) == b"the right one"


def test_side_with_both_fits_a_side_with_one(lab: Lab) -> None:
    left, _ = lab.pair(LISTEN, ["-L", "0", "--to", str(lab.serve(echo))])
    with socket.create_connection(("127.0.0.1", left.port), 30) as sock:
        sock.sendall(b"one way")
        assert receive(sock, 7) == b"one way"


# ---- strangers


OF_ANOTHER_CHANNEL = Hello(bytes(range(16)), bytes(8), Role.STDIO).encode()
STRANGERS = {
    "nothing": b"",
    "HTTP": b"GET / HTTP/1.1\r\nHost: home\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "half a hello": OF_ANOTHER_CHANNEL[:14],
    "the beginning of a hello and then another": b"\xf0PUNCX\r\n" + bytes(28),
    "hello of another channel": OF_ANOTHER_CHANNEL,
    "64 KiB of zeros": bytes(65536),
}


def listening_ports(lab: Lab, end: End) -> list[int]:
    """Wait until the left end punches, and return the ports that it listens on."""
    end.wait_for("punching")
    places = [line.split()[0].rpartition(":") for line in sockets("0A")]
    ports = [int(port) for host, _, port in places if host == lab.left]
    assert ports
    return ports


def dial(lab: Lab, source: str, port: int) -> socket.socket:
    """Connect to a port of the left end."""
    return lab.own(socket.create_connection((lab.left, port), 30, source_address=(source, 0)))


def assert_meets(lab: Lab, left: End) -> None:
    """Start the true peer and exchange a word with it."""
    right = lab.start_right()
    for one, other in ((left, right), (right, left)):
        one.send(b"it is me")
        assert other.receive(8) == b"it is me"
    for end in (left, right):
        end.send_eof()
    assert (left.status(), right.status()) == (0, 0)


@pytest.mark.parametrize("words", STRANGERS.values(), ids=STRANGERS.keys())
def test_strangers_on_every_port_do_not_disturb(lab: Lab, words: bytes) -> None:
    call_every_port(lab, lab.right, words)


def test_strangers_at_another_address_do_not_disturb(lab: Lab) -> None:
    """They are told by their address, whatever they say."""
    call_every_port(lab, lab.right[:-1] + "3", STRANGERS["hello of another channel"])


def call_every_port(lab: Lab, source: str, words: bytes) -> None:
    left = lab.start_left()
    for port in listening_ports(lab, left):
        # It may be thrown out before it has finished, or even begun.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            dial(lab, source, port).sendall(words)
    assert_meets(lab, left)


def test_100_silent_strangers_do_not_disturb(lab: Lab) -> None:
    left = lab.start_left()
    ports = listening_ports(lab, left)
    for number in range(100):
        dial(lab, lab.right, ports[number % len(ports)])
    assert_meets(lab, left)


def test_echoing_stranger_is_not_taken_for_the_peer(lab: Lab) -> None:
    left = lab.start_left()
    stranger = dial(lab, lab.right, listening_ports(lab, left)[0])
    stranger.sendall(receive(stranger, 36))
    with contextlib.suppress(ConnectionResetError):
        assert receive(stranger) == b""
    assert_meets(lab, left)


def test_stranger_that_keeps_silent_is_thrown_out(lab: Lab) -> None:
    left = lab.start_left()
    stranger = dial(lab, lab.right, listening_ports(lab, left)[0])
    receive(stranger, 36)
    # FIN and RST follow each other closely.
    with contextlib.suppress(ConnectionResetError):
        assert receive(stranger) == b""
    assert left.process.poll() is None
    assert_meets(lab, left)


def test_router_that_accepts_everything_is_named_when_there_is_no_hole(lab: Lab) -> None:

    def say(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    left = lab.start_left("-w", "3")
    for port in left.wait_for("punching")["ports"]:
        lab.serve_on(socket.create_server((lab.right, port)), say)
    assert left.status() == 3
    assert "answered but not by a punchtunnel" in left.reason
