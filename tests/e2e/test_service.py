"""The same line as a service: sd_notify, SIGHUP as "try now", a clean restart, and the example unit."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from .ends import COMMAND, PIPE, ROOT, End, Lab, environment
from .flows import WAIT, echo
from .test_life import assert_works

UNIT = ROOT / "docs" / "examples" / "punchtunnel.service"


@pytest.fixture
def data_path() -> list[str]:
    """How bytes travel makes no difference here."""
    return []


def manager(lab: Lab) -> socket.socket:
    sock = lab.own(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    sock.bind(str(lab.folder / "notify"))
    sock.settimeout(WAIT)
    return sock


def start_service(lab: Lab, *arguments: str) -> End:
    return lab.start_left("-k", *arguments, shell=f"export NOTIFY_SOCKET={lab.folder}/notify")


def hear(sock: socket.socket, wanted: str) -> None:
    """Wait for a datagram that begins so; it may be told again what is known."""
    while not sock.recv(4096).decode().startswith(wanted):
        pass


@pytest.mark.usefixtures("without_resuming")
def test_manager_hears_that_it_punches_is_ready_punches_again_and_stops(lab: Lab) -> None:
    sock = manager(lab)
    left = start_service(lab, "--to", str(lab.serve(echo)))
    # As many as the buckets of the moment have between them.
    assert re.fullmatch(rf"STATUS=punching towards {lab.right} on \d+ ports", sock.recv(4096).decode())
    right = lab.start_right("-L", "0")
    hear(sock, f"STATUS=connected, {lab.left}:")
    assert sock.recv(4096) == b"READY=1"
    assert_works(right.port)
    right.process.kill()
    hear(sock, "STATUS=link lost")
    left.process.terminate()
    hear(sock, "STOPPING=1\nSTATUS=")
    assert left.status() == 143


def test_a_checked_path_is_not_ready(lab: Lab) -> None:
    """A unit was "started" for a peer that only looked, and what waits for it as well."""
    sock = manager(lab)
    left = start_service(lab, "--to", str(lab.serve(echo)))
    assert lab.start_right("-z").status() == 0
    left.wait_for("checked")
    right = lab.start_right("-L", "0")
    said: list[str] = []
    while not said or said[-1] != "READY=1":
        said.append(sock.recv(4096).decode())
    assert sum(line.startswith("STATUS=connected") for line in said) == 2
    assert_works(right.port)


def test_hang_up_makes_a_service_dial_at_once_and_leaves_a_good_link_alone(lab: Lab) -> None:
    left = lab.start_left("-k", "--to", str(lab.serve(echo)))
    left.wait_for("punching")
    left.process.send_signal(signal.SIGHUP)
    left.wait_for("trying_now", what="dialling every port anew")
    right = lab.start_right("-L", "0")
    right.wait_for("link_up")
    left.wait_for("link_up")
    answered = len(left.find("rtt"))
    left.process.send_signal(signal.SIGHUP)
    left.wait_for("trying_now", what="asking the peer for a sign of life")
    left.wait_for("rtt", answered + 1)
    assert_works(right.port)
    assert not left.find("link_ended")


@pytest.mark.exhaustive
def test_hang_up_finds_out_that_the_peer_is_gone_long_before_the_heartbeat(lab: Lab) -> None:
    left = lab.start_left("-k", "--to", str(lab.serve(echo)))
    right = lab.start_right("-L", "0")
    left.wait_for("link_up")
    right.wait_for("link_up")
    right.process.send_signal(signal.SIGSTOP)
    left.process.send_signal(signal.SIGHUP)
    assert "nothing heard from the peer" in left.wait_for("lost")["reason"]


def test_hang_up_meets_a_rejected_peer_again_without_the_pause(lab: Lab) -> None:
    """A peer that knows the secret, and was set up wrongly, ends a punch."""
    knowing = "export PUNCHTUNNEL_SECRET=tiger-tiger-burning-bright"
    left = lab.start_left("-k", "--to", str(lab.serve(echo)), shell=knowing)
    assert lab.start_right("--to", "1", shell=knowing).status() == 4
    left.wait_for("punching_again")
    left.process.send_signal(signal.SIGHUP)
    right = lab.start_right("-L", "0", shell=knowing)
    right.wait_for("link_up")
    assert_works(right.port)


def on_a_terminal(lab: Lab, *arguments: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start the tool as the leader of a terminal's session; return it and the other side of the terminal."""
    if shutil.which("setsid") is None:
        pytest.skip("setsid is not installed (util-linux)")
    there, here = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *COMMAND, *lab.towards_right, *arguments],
        stdin=here, stdout=here, stderr=PIPE, env=environment(), cwd="/",
    )  # fmt: skip
    os.close(here)
    lab.defer(process.wait)
    lab.defer(process.kill)
    assert process.stderr is not None
    lab.own(process.stderr)
    return process, there


def test_service_whose_terminal_is_closed_ends(lab: Lab) -> None:
    """SIGHUP means "try now" to a service, but whoever closes a window wants what runs in it to end."""
    process, terminal = on_a_terminal(lab, "-k", "--to", "1", "--json")
    assert process.stderr is not None
    for event in ("punching", "trying_now"):
        while json.loads(process.stderr.readline())["event"] != event:
            pass
        if event == "punching":
            process.send_signal(signal.SIGHUP)
    os.close(terminal)
    assert process.wait(WAIT) == 129


def test_log_of_a_service_has_no_terminal_codes_and_says_when_the_hole_is_up(lab: Lab) -> None:
    log = lab.folder / "log"
    with log.open("wb") as stderr:
        left = lab.program(
            *COMMAND, *lab.towards_right, "-k", "--to", str(lab.serve(echo)), "-v",
            stderr=stderr, env=environment() | {"TERM": "xterm-256color", "FORCE_COLOR": "1"},
        )  # fmt: skip
    right = lab.start_right("-L", "0")
    right.wait_for("link_up")
    assert_works(right.port)
    left.terminate()
    assert left.wait(WAIT) == 143
    text = log.read_text()
    assert re.search(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z punchtunnel: hole open", text, re.MULTILINE)
    assert text.isascii()
    assert all(character.isprintable() or character == "\n" for character in text)


def exec_start() -> list[str]:
    (line,) = (line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart="))
    return shlex.split(line.partition("=")[2])


def test_line_of_the_unit_works_and_restarts_at_once(lab: Lab) -> None:
    secret = lab.folder / "secret"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    places = {
        "${PEER}": lab.right, "${TARGET}": str(lab.serve(echo)), "%d/secret": str(secret),
        "$OPTIONS": shlex.join(lab.towards_right[1:]),
    }  # fmt: skip
    line = shlex.join(places.get(word, word) for word in exec_start()[1:]).replace("'", "")
    right = lab.start_right("-k", "-L", "0", "--secret-file", str(secret))
    for number in range(1, 3):
        left = lab.start(*line.split())
        right.wait_for("link_up", number)
        assert_works(right.port)
        left.process.terminate()
        assert left.status() == 143
        right.wait_for("punching_again", number)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "punchtunnel.service"
    # It must not complain that the tool is not installed on this machine.
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/punchtunnel", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
