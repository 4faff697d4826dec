"""The line that --show prints is run on the other side as it is, and the two meet."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from punchtunnel.cli.peers import Saved, add
from punchtunnel.protocol.secret import normal

from ..doctor.test_doctor import BAD_SERVERS, seen_at
from ..reach.stunserver import Reply, server
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


def test_the_port_of_a_service_is_shown_as_its_number() -> None:
    """`--port` took numbers only, and PEER:https was neither an address nor a host name."""
    assert shown("203.0.113.9:https", "--port", "https", "--no-map")[1].endswith("<address of this machine>:443")


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


def test_the_other_machine_of_a_pair_uses_its_own_name_of_it(tmp_path: Path) -> None:
    """The command with this machine's address would have ended in "wrong secret" there."""
    secret = normal("39dm-0teb-nmj3-k5sh-t62h-1tra-md").decode()
    saved = Saved("laptop", ("203.0.113.9",), options={"channel": "pair-1", "relay": ["r.example"]})
    add(tmp_path / "punchtunnel" / "peers.toml", saved, secret)
    lines = shown("laptop", "--to", "22", XDG_CONFIG_HOME=str(tmp_path))
    assert lines[1] == "    punchtunnel NAME -L 2222"
    assert "among the saved peers there" in lines[2]
    assert "secret" not in lines[3]


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


def test_the_address_that_a_stun_server_sees_stands_in_the_command() -> None:
    """Without a server that is asked, a machine behind a router had only a placeholder to show."""
    with server(seen_at("198.51.100.7")) as place:
        assert shown("--stun", str(place))[1] == "    punchtunnel 198.51.100.7"
        assert shown("203.0.113.9", "--to", "22", "--stun", str(place))[1] == "    punchtunnel 198.51.100.7 -L 2222"
        # Two sides that have IPv6 only.
        assert shown("2001:db8::9", "--stun", str(place))[1] == "    punchtunnel <address of this machine>"


@pytest.mark.parametrize("reply", [BAD_SERVERS[0][0], seen_at("192.168.1.7")])
def test_a_server_that_knows_no_public_address_is_told_and_the_rest_shown(reply: Reply) -> None:
    with server(reply) as place:
        done = subprocess.run(
            [*COMMAND, "--show", "--stun", str(place)],
            capture_output=True, text=True, stdin=DEVNULL, timeout=30, check=True, env=environment(),
        )  # fmt: skip
    assert "    punchtunnel <address of this machine>" in done.stdout.splitlines()
    assert f"{place} " in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            ["203.0.113.9", "--stun", "stun.example"],
            "--stun is for --doctor, --show, --meet and --relay, and --ntp for --doctor",
        ),
        (
            ["--show", "--ntp", "ntp.example"],
            "--stun is for --doctor, --show, --meet and --relay, and --ntp for --doctor",
        ),
        (["--show", "--stun", "http://stun.example"], "--stun 'http://stun.example'"),
    ],
)
def test_servers_are_named_only_where_they_are_asked(options: list[str], reason: str) -> None:
    done = subprocess.run(
        [*COMMAND, *options], capture_output=True, text=True, env=environment(), stdin=DEVNULL, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr
