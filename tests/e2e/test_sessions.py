"""A service with many sessions at once, and sessions that outlive their holes, by real processes."""

from __future__ import annotations

import os
import signal
import socket

import pytest

from punchtunnel import words

from .conftest import on_one_path
from .ends import Lab
from .flows import echo, free_port, noise, receive

SECRET = "correct-horse-battery-staple-17"
pytestmark = on_one_path


@pytest.fixture(autouse=True)
def with_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUNCHTUNNEL_SECRET", SECRET)


def test_many_peers_are_served_at_once_and_each_has_its_own_session(lab: Lab) -> None:
    """The second of two ssh with ProxyCommand used to hang until the first was over."""
    service = lab.start_left("-k", "--to", str(lab.serve(echo)))
    peers = [lab.start_right() for _ in range(4)]
    for number, peer in enumerate(peers):
        peer.send(b"caller %d" % number)
    for number, peer in enumerate(peers):
        assert peer.receive(8) == b"caller %d" % number
    # Each of them goes on while the others do.
    for peer in reversed(peers):
        peer.send(b"again")
        assert peer.receive(5) == b"again"
        peer.send_eof()
        assert peer.status() == 0
    service.wait_for("session_over", 4)
    assert {event["session"] for event in service.find("link_ended")} == {1, 2, 3, 4}
    service.process.terminate()
    assert service.status() == 143


def test_one_peers_end_is_no_other_peers(lab: Lab) -> None:
    service = lab.start_left("-k", "--to", str(lab.serve(echo)))
    first, second = lab.start_right(), lab.start_right()
    for peer in (first, second):
        peer.send(b"one")
        assert peer.receive(3) == b"one"
    first.process.terminate()
    assert first.status() == 143
    service.wait_for("session_over")
    second.send(b"two")
    assert second.receive(3) == b"two"
    # SIGTERM ends all that are left, cleanly.
    service.process.terminate()
    assert second.status() == 1
    assert second.reason == words.PEER_QUIT
    assert service.status() == 143


def test_a_service_that_is_full_says_so_to_the_next_peer_and_goes_on(lab: Lab) -> None:
    service = lab.start_left("-k", "--to", str(lab.serve(echo)), "--sessions", "2")
    peers = [lab.start_right() for _ in range(2)]
    for peer in peers:
        peer.send(b"one")
        assert peer.receive(3) == b"one"
    third = lab.start_right()
    assert third.status() == 1
    assert third.reason == words.SERVICE_FULL
    peers[0].send_eof()
    assert peers[0].status() == 0
    service.wait_for("session_over", 2)
    fourth = lab.start_right()
    fourth.send(b"four")
    assert fourth.receive(4) == b"four"


def test_a_service_whose_target_is_not_there_serves_the_next_peer(lab: Lab) -> None:
    port = free_port()
    service = lab.start_left("-k", "--to", str(port))
    first = lab.start_right()
    first.send(b"one")
    assert first.status() == 6
    service.wait_for("session_over")
    with socket.create_server(("127.0.0.1", port)) as listener:
        second = lab.start_right()
        second.send(b"two")
        client, _ = listener.accept()
        with client:
            assert receive(client, 3) == b"two"


def test_a_second_service_for_the_same_peers_says_at_once_who_serves_them(lab: Lab) -> None:
    """It used to wait for ever beside the first, whose ports it could not have."""
    first = lab.start_left("-k", "--to", "22")
    first.wait_for("punching")
    second = lab.start_left("-k", "--to", "22")
    assert second.status(wait=20) == 5
    assert second.reason == words.served_already(first.process.pid)
    first.process.terminate()
    assert first.status() == 143


def test_a_signal_while_reconnecting_ends_at_once(lab: Lab) -> None:
    left, right = lab.pair()
    right.process.kill()
    left.wait_for("lost")
    left.process.send_signal(signal.SIGINT)
    assert left.status(wait=10) == 130


@pytest.mark.parametrize("keep", [[], ["-k"]], ids=["once", "-k"])
def test_a_peer_that_was_started_anew_ends_the_old_session_at_once(lab: Lab, keep: list[str]) -> None:
    left = lab.start_left(*keep, "-L", "0")
    right = lab.start_right("--to", str(lab.serve(echo)))
    left.wait_for("link_up")
    right.process.kill()
    left.wait_for("lost")
    lab.start_right("--to", str(lab.serve(echo)))
    if keep:
        assert left.wait_for("punching_again")["reason"].startswith(words.PEER_RESTARTED)
        left.wait_for("link_up", 2)
        with lab.connect(left.port) as client:
            client.sendall(b"again")
            assert receive(client, 5) == b"again"
    else:
        assert left.status(wait=20) == 1
        assert left.reason.startswith(words.PEER_RESTARTED)


def test_a_peer_that_stands_still_and_comes_back_has_lost_nothing(lab: Lab) -> None:
    """Told to try now, this side gives the hole up; the peer, that has noticed nothing, comes after it."""
    service = lab.start_left("-k", "--to", str(lab.serve(echo)))
    peer = lab.start_right("-L", "0", "-k")
    peer.wait_for("link_up")
    data = noise(300_000, 1)
    with lab.connect(peer.port) as client:
        client.sendall(data[:100_000])
        assert receive(client, 100_000) == data[:100_000]
        os.kill(service.process.pid, signal.SIGSTOP)
        peer.process.send_signal(signal.SIGHUP)
        peer.wait_for("lost")
        client.sendall(data[100_000:])
        os.kill(service.process.pid, signal.SIGCONT)
        peer.wait_for("resumed")
        assert receive(client, 200_000) == data[100_000:]
    service.wait_for("resumed")
    assert service.find("resumed")[0]["session"] == 1
