"""What programs are told by real runs is what docs/EVENTS.md says, from `start` to `exit`."""

from __future__ import annotations

import json
import socket

import pytest

from tests.reporting.test_events import check

from .ends import COMMAND, DEVNULL, PIPE, End, Lab, environment
from .flows import echo, free_port, receive


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: a sealed link tells everything that the others tell, and more."""
    return []


def assert_documented(*ends: End) -> None:
    """Fail unless every event is documented, the first is `start` and the last `exit`."""
    for end in ends:
        end.status()
        for event in end.events:
            check(event)
        names = [event["event"] for event in end.events]
        assert (names[0], names[-1]) == ("start", "exit")
        assert (names.count("start"), names.count("exit")) == (1, 1)


def names(end: End) -> set[str]:
    return {event["event"] for event in end.events}


def test_a_pipe_that_ends_well(lab: Lab) -> None:
    left, right = lab.pair()
    left.send(b"one way")
    assert right.receive(7) == b"one way"
    for end in (left, right):
        end.send_eof()
    assert_documented(left, right)
    assert {"punching", "waiting", "hole", "sealed", "unauthenticated", "link_up", "traffic", "rtt"} <= names(left)
    (ended,) = left.find("link_ended")
    assert (ended["bytes_in"], ended["bytes_out"]) == (0, 7)
    assert ended["elapsed_s"] > 0


def test_ports_with_a_refused_target_and_a_reset(lab: Lab) -> None:
    left, right = lab.tunnel(free_port())
    with lab.connect(left.port) as client:
        client.settimeout(30)
        assert_reset(client)
    for end in (left, right):
        end.wait_for("target_refused")
    left.process.terminate()
    assert_documented(left, right)
    assert left.find("exit")[0]["status"] == 143


def assert_reset(client: socket.socket) -> None:
    try:
        assert client.recv(1) == b""
    except ConnectionResetError:
        return
    raise AssertionError("the refusal came as an end of file")


def test_a_refused_target_of_stdio(lab: Lab) -> None:
    ends = lab.start_left(), lab.start_right("--to", str(free_port()))
    assert_documented(*ends)
    assert [end.find("exit")[0]["status"] for end in ends] == [6, 6]


def test_streams_that_open_and_close(lab: Lab) -> None:
    left, right = lab.tunnel(lab.serve(echo))
    client = lab.connect(left.port)
    client.sendall(b"!")
    assert receive(client, 1) == b"!"
    client.close()
    for end in (left, right):
        end.wait_for("stream_closed")
    left.process.terminate()
    assert_documented(left, right)
    assert {"listening", "stream_opened", "stream_closed", "link_ended"} <= names(left)


def test_a_wrong_secret(lab: Lab) -> None:
    ends = [
        start("-w", "3", shell=f"export PUNCHTUNNEL_SECRET={secret}")
        for start, secret in ((lab.start_left, "one"), (lab.start_right, "other"))
    ]
    assert_documented(*ends)
    for end in ends:
        assert {"rejected", "exit"} <= names(end)
        assert end.find("exit")[0]["status"] == 4


def test_no_hole_and_a_port_that_is_busy(lab: Lab) -> None:
    other = lab.start_left()
    other.wait_for("waiting")
    left = lab.start_left("-w", "1")
    left.wait_for("exit")
    other.process.terminate()
    assert_documented(left, other)
    assert left.find("exit")[0]["status"] in (3, 5)
    assert "port_busy" in names(left)


@pytest.mark.usefixtures("without_resuming")
def test_a_lost_link_and_punching_again(lab: Lab) -> None:
    left, right = lab.pair(["-k", "-L", "0"], ["--to", str(lab.serve(echo))])
    right.process.kill()
    left.wait_for("punching_again")
    right = lab.start_right("--to", str(lab.serve(echo)))
    left.wait_for("link_up", 2)
    left.process.terminate()
    assert_documented(left, right)
    assert len(left.find("link_ended")) == 2
    assert left.find("link_ended")[0]["reason"].startswith("link lost: ")


def test_a_role_that_does_not_fit_and_a_warning(lab: Lab) -> None:
    path = lab.folder / "secret"
    # A weak one is warned of.
    path.write_text("shared\n")
    path.chmod(0o600)
    ends = [start("-L", "0", "--secret-file", str(path), "-w", "20") for start in (lab.start_left, lab.start_right)]
    assert_documented(*ends)
    assert [end.find("exit")[0]["status"] for end in ends] == [4, 4]
    assert all("warning" in names(end) for end in ends)


def test_a_name_without_an_address(lab: Lab) -> None:
    # A scope that no machine has: nothing is asked, and nothing is sent.
    left = lab.start("fe80::1%nowhere", "-w", "1")
    assert_documented(left)
    assert left.find("exit")[0]["status"] == 2
    assert "unresolved" in names(left)


def test_a_service_waits_for_a_name_without_an_address(lab: Lab) -> None:
    """It ended with 2, which its unit does not restart."""
    left = lab.start("fe80::1%nowhere", "-k", "--recv-only", "-w", "1")
    assert_documented(left)
    assert left.find("exit")[0]["status"] == 3
    assert "cannot be resolved" in str(left.find("exit")[0]["reason"])
    assert len(left.find("looking_up_again")) == 1


def test_another_descriptor_gets_the_events_and_stderr_nothing_but_sentences(lab: Lab) -> None:
    where = {"left": lab.towards_right, "right": lab.towards_left}
    paths = {side: lab.folder / side for side in where}
    ends = [
        lab.program(
            *("/bin/sh", "-c", f'exec "$@" 9>{paths[side]}', "sh", *COMMAND, *where[side], "--status-fd", "9"),
            stdout=DEVNULL,
            stderr=PIPE,
            env=environment() | ({} if lab.options else {"PUNCHTUNNEL_SECRET": "tiger tiger burning bright"}),
        )
        for side in where
    ]
    for end in ends:
        said = end.communicate(timeout=30)[1]
        assert b"the link is plain" in said if lab.options else said == b""
        assert end.returncode == 0
    for path in paths.values():
        events = [json.loads(line) for line in path.read_text().splitlines()]
        for event in events:
            check(event)
        assert (events[0]["event"], events[-1]["event"], events[-1]["status"]) == ("start", "exit", 0)
