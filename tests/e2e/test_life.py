"""How a run ends, goes on, or waits: lost peers, signals, limits of time, -k."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from .ends import DEVNULL, End, Lab
from .flows import MIB, echo, noise, receive, sockets

SIGNALS = pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: what happens before and around a session has no data path."""
    return []


def stdio(lab: Lab) -> tuple[End, End]:
    return lab.pair()


def listen_and_to(lab: Lab) -> tuple[End, End]:
    return lab.tunnel(lab.serve(echo))


BOTH_KINDS = pytest.mark.parametrize("start", [stdio, listen_and_to], ids=["stdio", "-L and --to"])


def assert_works(port: int, question: bytes = b"does it work?") -> None:
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(question)
        assert receive(sock, len(question)) == question


# ---- the peer is gone


@pytest.mark.usefixtures("without_resuming")
@BOTH_KINDS
@pytest.mark.parametrize("killed", ["left", "right"])
def test_killed_peer_is_a_lost_link_and_exit_1(lab: Lab, start: object, killed: str) -> None:
    assert callable(start)
    left, right = start(lab)
    gone, other = (left, right) if killed == "left" else (right, left)
    gone.process.kill()
    # Far below the 40 s after which silence counts as death: the kernel has told.
    assert other.status(wait=10) == 1
    assert other.reason.startswith("link lost: ")
    assert "\n" not in other.reason


@pytest.mark.usefixtures("without_resuming")
def test_killed_sender_leaves_a_receiver_that_does_not_claim_success(lab: Lab) -> None:
    left, right = lab.pair()
    flow = left.feed(noise(MIB, seed) for seed in range(1000))
    assert right.receive(8 * MIB) == b"".join(noise(MIB, seed) for seed in range(8))
    left.process.kill()
    right.receive()
    assert right.status() == 1
    flow.join(30)


@pytest.mark.usefixtures("without_resuming")
def test_clients_of_a_killed_peer_see_a_reset_and_no_eof(lab: Lab) -> None:
    left, right = lab.tunnel(lab.serve(echo))
    with lab.connect(left.port) as client:
        client.sendall(b"one")
        assert receive(client, 3) == b"one"
        right.process.kill()
        with pytest.raises(ConnectionResetError):
            receive(client)


def test_stopped_peer_that_goes_on_has_lost_nothing(lab: Lab) -> None:
    left, right = lab.pair()
    flow = left.feed(noise(MIB, seed) for seed in range(64))
    assert right.receive(1000) == noise(MIB, 0)[:1000]
    right.process.send_signal(signal.SIGSTOP)
    flow.wait_until_stalled()
    right.process.send_signal(signal.SIGCONT)
    assert right.receive() == b"".join(noise(MIB, seed) for seed in range(64))[1000:]
    right.send_eof()
    assert (left.status(), right.status()) == (0, 0)


# ---- signals


@pytest.mark.parametrize(
    ("start", "number"),
    [(stdio, signal.SIGHUP), (stdio, signal.SIGINT), (stdio, signal.SIGTERM), (listen_and_to, signal.SIGTERM)],
)
def test_signal_ends_cleanly_and_the_peer_knows(lab: Lab, start: object, number: int) -> None:
    assert callable(start)
    left, right = start(lab)
    left.process.send_signal(number)
    assert (left.status(), left.reason) == (128 + number, "")
    if start is stdio:
        assert right.status() == 1
        assert right.reason == "the peer ended before everything was delivered"
    else:
        assert (right.status(), right.reason) == (0, "")


@SIGNALS
def test_signal_ends_the_punch(lab: Lab, number: int) -> None:
    left = lab.start_left()
    left.wait_for("punching")
    left.process.send_signal(number)
    assert (left.status(), left.reason) == (128 + number, "")


@pytest.mark.exhaustive
def test_signal_at_any_moment_of_the_punch_ends_it_without_a_traceback(lab: Lab) -> None:
    """It used to be a KeyError and exit 1 between the making of a dial's socket and its registration."""
    for number in range(12):
        left = lab.start_left()
        left.wait_for("dial_failed", 1 + 3 * number)
        left.process.send_signal(signal.SIGINT)
        assert left.status() == 130


def test_signal_resets_the_open_connections_of_both_sides_and_the_peer_says_so(lab: Lab) -> None:
    ended: list[type[Exception]] = []

    def wait_for_the_end(sock: socket.socket) -> None:
        try:
            receive(sock)
        except ConnectionResetError as error:
            ended.append(type(error))

    left, right = lab.tunnel(lab.serve(wait_for_the_end))
    client = lab.connect(left.port)
    client.sendall(b"!")
    right.wait_for("stream_opened")
    right.process.terminate()
    with pytest.raises(ConnectionResetError):
        receive(client)
    assert (left.status(), right.status()) == (1, 143)
    assert left.reason == "the peer ended before everything was delivered"
    lab.close_servers()
    assert ended == [ConnectionResetError]


def test_second_signal_ends_at_once_although_the_peer_does_not_answer(lab: Lab) -> None:
    left, right = lab.pair()
    right.process.send_signal(signal.SIGSTOP)
    left.process.terminate()
    left.process.terminate()
    assert left.status(wait=10) == 143


def test_one_signal_is_enough_although_the_peer_does_not_answer(lab: Lab) -> None:
    left, right = lab.pair()
    right.process.send_signal(signal.SIGSTOP)
    left.process.terminate()
    assert left.status(wait=10) == 143


def test_signals_that_nohup_ignores_stay_ignored(lab: Lab) -> None:
    left = lab.start_left(shell="trap '' HUP")
    right = lab.start_right()
    left.wait_for("punching")
    left.process.send_signal(signal.SIGHUP)
    left.wait_for("link_up")
    left.process.send_signal(signal.SIGHUP)
    left.send(b"still here")
    assert right.receive(10) == b"still here"
    left.process.send_signal(signal.SIGTERM)
    assert (left.status(), right.status()) == (143, 1)


# ---- -k


@pytest.mark.usefixtures("without_resuming")
def test_k_serves_the_same_port_again_when_the_killed_peer_is_back(lab: Lab) -> None:
    target = str(lab.serve(echo))
    left = lab.start_left("-L", "0", "-k")
    for number in range(1, 4):
        right = lab.start_right("--to", target)
        left.wait_for("link_up", number)
        assert_works(left.port)
        right.process.kill()
        left.wait_for("punching_again", number)
        assert "link lost" in left.find("punching_again")[-1]["reason"]
    # One for each family.
    assert len(left.find("listening")) == 2


@pytest.mark.usefixtures("without_resuming")
def test_k_lets_clients_wait_while_there_is_no_hole(lab: Lab) -> None:
    target = str(lab.serve(echo))
    left = lab.start_left("-L", "0", "-k")
    right = lab.start_right("--to", target)
    left.wait_for("link_up")
    right.process.kill()
    left.wait_for("punching_again")
    client = lab.connect(left.port)
    client.sendall(b"patience")
    lab.start_right("--to", target)
    assert receive(client, 8) == b"patience"


def test_k_on_both_sides_finds_each_other_again_and_a_signal_ends_it(lab: Lab) -> None:
    left, right = lab.pair(["-k", "-L", "0"], ["-k", "--to", str(lab.serve(echo))])
    assert_works(left.port)
    # A session that ends well is followed by another one, too.
    for number in range(2, 4):
        right.process.terminate()
        assert right.status() == 143
        right = lab.start_right("-k", "--to", str(lab.serve(echo)))
        left.wait_for("link_up", number)
        assert_works(left.port)
    left.process.terminate()
    assert left.status() == 143
    right.wait_for("session_over")
    right.process.terminate()
    assert right.status() == 143


def test_k_serves_one_stdio_peer_behind_the_other(lab: Lab) -> None:
    left = lab.start_left("-k", "--to", str(lab.serve(echo)))
    for number in range(3):
        right = lab.start_right()
        right.send(b"caller %d" % number)
        right.send_eof()
        assert right.receive() == b"caller %d" % number
        assert right.status() == 0
        left.wait_for("session_over", number + 1)


def test_k_collects_what_one_sender_after_the_other_sends(lab: Lab) -> None:
    left = lab.start_left("-k", "--recv-only")
    for number in range(3):
        right = lab.start_right()
        right.send(b"part %d" % number)
        right.send_eof()
        assert left.receive(6) == b"part %d" % number
        assert right.status() == 0
    left.process.terminate()
    assert left.status() == 143
    assert left.receive() == b""


@pytest.mark.usefixtures("without_resuming")
def test_k_with_a_signal_while_punching_again_ends(lab: Lab) -> None:
    left, right = lab.pair(["-k", "-L", "0"], ["--to", str(lab.serve(echo))])
    right.process.kill()
    left.wait_for("punching_again")
    left.process.terminate()
    assert left.status() == 143


# ---- limits of time


def test_no_peer_within_w_seconds_is_exit_3_with_a_sentence(lab: Lab) -> None:
    left = lab.start_left("-w", "1")
    assert left.status() == 3
    assert left.reason.startswith(f"no hole to {lab.right} in 1 s: ")
    assert "start both sides" in left.reason
    assert "\n" not in left.reason


def test_idle_session_of_stdio_ends_with_1_on_both_sides(lab: Lab) -> None:
    left, right = lab.pair(["-i", "1"])
    left.send(b"last word")
    assert right.receive(9) == b"last word"
    assert left.status() == 1
    assert left.reason == "nothing was sent or received for 1 s (-i)"
    assert right.status() == 1
    assert right.reason


def test_idle_tunnel_without_connections_ends_well_on_both_sides(lab: Lab) -> None:
    left, right = lab.pair(["-i", "1", "-L", "0"], ["--to", str(lab.serve(echo))])
    assert_works(left.port)
    assert (left.status(), right.status()) == (0, 0)


def test_idle_limit_of_the_far_side_ends_this_side_too(lab: Lab) -> None:
    left, right = lab.pair(["-L", "0"], ["-i", "1", "--to", str(lab.serve(echo))])
    assert (left.status(), right.status()) == (0, 0)


# ---- again and again, and nothing left


@pytest.mark.exhaustive
def test_ten_runs_without_a_pause_all_connect(lab: Lab) -> None:
    for number in range(10):
        left, right = lab.start_left(), lab.start_right(stdin=DEVNULL)
        left.send(b"run %d" % number)
        left.send_eof()
        assert right.receive() == b"run %d" % number
        assert (left.status(), right.status()) == (0, 0)


def test_three_runs_on_one_host_without_a_pause_all_connect(lab: Lab) -> None:
    for number in range(3):
        ends = [lab.start("127.0.0.1", "--channel", lab.channel) for _ in range(2)]
        for end in ends:
            end.send(b"run %d" % number)
            end.send_eof()
        assert [end.receive() for end in ends] == [b"run %d" % number] * 2
        assert [end.status() for end in ends] == [0, 0]


def test_punch_closes_all_its_sockets_but_the_hole(lab: Lab) -> None:
    left, right = lab.pair()
    ours = (lab.left, lab.right)
    held = [line for line in sockets("01", "0A", "02") if line.split()[0].rpartition(":")[0] in ours]
    # One line for each end of the one connection.
    assert len(held) == 2, held
    for end in (left, right):
        end.send_eof()
    assert (left.status(), right.status()) == (0, 0)
    assert not lab.sockets_left()


def test_no_socket_is_left_when_both_have_ended(lab: Lab) -> None:
    left, right = lab.pair(["-L", f"{lab.left}:0"], ["--to", str(lab.serve(echo))])
    with socket.create_connection((lab.left, left.port), 30) as client:
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"
        assert lab.sockets_left()
    for end in (left, right):
        end.wait_for("stream_closed")
    left.process.terminate()
    assert (left.status(), right.status()) == (143, 0)
    assert not lab.sockets_left()


def test_descriptors_do_not_pile_up_over_sessions_and_streams(lab: Lab) -> None:
    target = str(lab.serve(echo))
    left = lab.start_left("-k", "-L", "0")
    counts = []
    for number in range(1, 5):
        right = lab.start_right("--to", target)
        left.wait_for("link_up", number)
        for _ in range(10):
            assert_works(left.port)
        left.wait_for("stream_closed", 10 * number)
        counts.append(len(left.descriptors()))
        right.process.terminate()
        assert right.status() == 143
        left.wait_for("punching_again", number)
    assert len(set(counts)) == 1, counts


def test_processes_hold_nothing_of_the_test(lab: Lab) -> None:
    """Guard of this file: a pipe that a child inherits by mistake would hide a missing EOF."""
    reading, writing = os.pipe()
    try:
        left = lab.start_left()
        left.wait_for("punching")
        assert f"pipe:[{os.fstat(writing).st_ino}]" not in left.descriptors()
    finally:
        os.close(reading)
        os.close(writing)
