"""The line that --show prints is run on the other side as it is, and the two meet."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

import pytest

from .ends import COMMAND, DEVNULL, Lab, environment
from .flows import echo, receive


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: some of these tests choose --plain themselves, others have a secret."""
    return []


def shown(*arguments: str, **env: str) -> list[str]:
    done = subprocess.run(
        [*COMMAND, *arguments, "--show"],
        capture_output=True,
        text=True,
        stdin=DEVNULL,
        timeout=30,
        check=True,
        env=environment() | env,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    return lines[lines.index("on the other machine:") :]


@pytest.mark.parametrize("options", [[], ["--plain"], ["-4", "--send-only"]])
def test_a_pipe_meets_the_command_that_it_shows(lab: Lab, options: Sequence[str]) -> None:
    line = shown(*lab.towards_right, *options)[1]
    left = lab.start_left(*options)
    right = lab.start(*shlex.split(line)[1:], "--bind", lab.right)
    left.send(b"found you")
    assert right.receive(9) == b"found you"
    for end in (left, right):
        end.send_eof()
    assert (left.status(), right.status()) == (0, 0)


def test_a_target_meets_the_command_that_it_shows(lab: Lab) -> None:
    port = str(lab.serve(echo))
    words = shlex.split(shown(*lab.towards_right, "--to", port)[1])[1:]
    assert words[1:3] == ["-L", port]
    lab.start_left("--to", port)
    words[2] = "0"
    right = lab.start(*words, "--bind", lab.right)
    with lab.connect(right.port) as client:
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"


def test_show_needs_no_peer_asks_for_nothing_and_tells_of_the_secret() -> None:
    lines = shown(PUNCHTUNNEL_SECRET="one")
    assert lines[1] == "    punchtunnel <address of this machine>"
    assert "the same secret" in lines[2]
    # Without a terminal --ask-secret would fail.
    assert "the same secret" in shown("--ask-secret")[2]


@pytest.mark.parametrize("mistake", [["-L", "x"], ["--to", "0"], ["--bind", "nosuch0"], ["-k"], ["256.1.1.1"]])
def test_show_finds_the_mistakes_of_a_run(mistake: list[str]) -> None:
    done = subprocess.run(
        [*COMMAND, *mistake, "--show"], capture_output=True, env=environment(), stdin=DEVNULL, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, b"")


def test_show_binds_no_port(lab: Lab) -> None:
    """It said that a port was taken while the tunnel it was to describe was running."""
    left = lab.start_left("-L", "0")
    assert shown(*lab.towards_right, "-L", str(left.port))[1].endswith("--channel " + lab.channel)
