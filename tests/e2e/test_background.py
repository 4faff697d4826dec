"""-f: the shell goes on once the link is up, and what has failed until then is its exit status."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from punchtunnel.errors import Exit

from .conftest import on_one_path
from .ends import COMMAND, PIPE, Lab, environment
from .flows import WAIT, echo
from .test_terminal import Person

SECRET = "correct-horse-battery-staple-17"
pytestmark = on_one_path


def in_background(lab: Lab, *options: str) -> subprocess.Popen[bytes]:
    """Start the left end with -f in the test's folder: relative names stay where they are."""
    return started(lab, *lab.towards_right, "-f", "-L", "unix:sock", "--pid-file", "pid", *options)


def started(lab: Lab, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    command = [*COMMAND, *arguments]
    process = lab.program("/bin/sh", "-c", f'cd {lab.folder}; exec "$@"', "sh", *command,
                          stdout=PIPE, stderr=PIPE, env=environment() | variables)  # fmt: skip
    lab.defer(lambda: kill(lab.folder / "pid"))
    lab.defer(lambda: kill_group(process.pid))
    return process


def kill_group(group: int) -> None:
    """Kill what a test has left running before it was in the background."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def kill(pid_file: Path) -> None:
    """Kill what a test has left running, and wait until it has ended."""
    if pid_file.exists():
        finish(int(pid_file.read_text()), signal.SIGKILL)


def finish(pid: int, number: int = signal.SIGTERM) -> None:
    """End a process that is no child, and wait for its end."""
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        os.kill(pid, number)
        assert select.select([end], [], [], WAIT)[0]
    finally:
        os.close(end)


def text_of(process: subprocess.Popen[bytes]) -> str:
    """Read stderr to its end: until nobody holds it any more."""
    return str(process.communicate(timeout=WAIT)[1].decode())


@pytest.fixture
def service(lab: Lab) -> None:
    lab.start_right("--to", str(lab.serve(echo)))


@pytest.mark.usefixtures("service")
def test_it_goes_on_in_the_background_and_lets_go_of_the_shell(lab: Lab) -> None:
    process = in_background(lab)
    assert process.wait(WAIT) == 0
    # Nobody holds the pipes of the shell: `$(punchtunnel -f ...)` would wait for ever.
    assert text_of(process).startswith("punchtunnel: listening on unix:sock\n")
    pid = int((lab.folder / "pid").read_text())
    assert pid != process.pid
    assert os.getsid(pid) == pid, "a hang-up of the terminal would end it"
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT)
        client.connect(str(lab.folder / "sock"))
        client.sendall(b"through")
        assert client.recv(7) == b"through"
    finish(pid)
    assert list(lab.folder.iterdir()) == []


@pytest.mark.usefixtures("service")
def test_with_v_it_keeps_stderr(lab: Lab) -> None:
    process = in_background(lab, "-v")
    assert process.wait(WAIT) == 0
    os.kill(int((lab.folder / "pid").read_text()), signal.SIGTERM)
    assert "link ended" in text_of(process)


@pytest.mark.usefixtures("service")
def test_its_log_goes_on(lab: Lab) -> None:
    process = in_background(lab, "--log", "log")
    assert process.wait(WAIT) == 0
    pid = int((lab.folder / "pid").read_text())
    finish(pid)
    text = (lab.folder / "log").read_text()
    assert "Z punchtunnel: link up" in text
    assert "Z punchtunnel: link ended" in text


@pytest.mark.usefixtures("service")
def test_all_of_it_may_be_saved_for_a_peer(lab: Lab) -> None:
    """Whether it goes to the background is known only when the file has been read."""
    folder = lab.folder / "punchtunnel"
    folder.mkdir()
    peers = folder / "peers.toml"
    peers.write_text(
        f'[there]\npeers = ["{lab.right}"]\nlisten = ["unix:sock"]\nbackground = true\npid-file = "pid"\nwait = "1h"\n'
    )
    peers.chmod(0o600)
    process = started(lab, "there", *lab.towards_right[1:], XDG_CONFIG_HOME=str(lab.folder))
    assert process.wait(WAIT) == 0, text_of(process)
    pid = int((lab.folder / "pid").read_text())
    assert pid != process.pid
    assert os.getsid(pid) == pid


def test_what_fails_before_is_said_and_is_the_exit_status(lab: Lab) -> None:
    process = in_background(lab, "-w", "0.3")
    assert process.wait(WAIT) == Exit.NO_HOLE
    assert "punchtunnel: no hole to" in text_of(process)
    assert list(lab.folder.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_it_waits_ends_both(number: int, status: int, lab: Lab) -> None:
    """SIGTERM comes to the one that the shell has started; Ctrl-C to both, from the terminal."""
    process = in_background(lab, "-v")
    assert process.stderr is not None
    while b"punching towards" not in (line := process.stderr.readline()):
        assert line, "ended before it punched"
    if number == signal.SIGTERM:
        process.terminate()
    else:
        os.killpg(process.pid, number)
    assert process.wait(WAIT) == status
    text_of(process)
    assert list(lab.folder.iterdir()) == []


def test_without_its_parent_it_ends_as_soon_as_the_link_is_up(lab: Lab) -> None:
    """Nobody would know of a tunnel whose `punchtunnel -f` was killed."""
    process = in_background(lab, "-v")
    assert process.stderr is not None
    while b"punching towards" not in (line := process.stderr.readline()):
        assert line, "ended before it punched"
    process.kill()
    lab.start_right("--to", "9").wait_for("link_up")
    assert "link ended" in text_of(process)
    assert list(lab.folder.iterdir()) == []


def test_a_file_of_the_number_that_cannot_be_written_is_told_at_once(lab: Lab) -> None:
    (lab.folder / "pid").mkdir()
    process = in_background(lab)
    assert process.wait(WAIT) == Exit.LOCAL
    assert "cannot write the file" in text_of(process)
    (lab.folder / "pid").rmdir()
    assert list(lab.folder.iterdir()) == []


@pytest.mark.usefixtures("service")
def test_a_second_run_does_not_take_the_file_of_one_that_runs(lab: Lab) -> None:
    """It put its own number there, and the first one could not be found any more."""
    assert in_background(lab).wait(WAIT) == 0
    path = lab.folder / "pid"
    pid = path.read_text()
    second = in_background(lab)
    assert second.wait(WAIT) == Exit.LOCAL
    assert path.read_text() == pid
    finish(int(pid))
    assert not path.exists()


@pytest.mark.usefixtures("service")
def test_the_number_of_another_run_is_left_alone(lab: Lab) -> None:
    process = in_background(lab)
    assert process.wait(WAIT) == 0
    path = lab.folder / "pid"
    pid = int(path.read_text())
    other = f"{lab.program('cat', stdin=PIPE).pid}\n"
    path.write_text(other)
    finish(pid)
    assert path.read_text() == other
    path.unlink()


def test_it_asks_on_the_terminal_draws_there_until_the_link_is_up_and_leaves_it(lab: Lab) -> None:
    pid_file = lab.folder / "pid"
    lab.defer(lambda: kill(pid_file))
    person = Person(
        lab, [*lab.towards_right, "-f", "-L", "0", "--pid-file", str(pid_file), "--ask-secret"], (0, 1, 2)
    )  # fmt: skip
    person.wait_for("secret: ")
    os.write(person.fd, f"{SECRET}\n".encode())
    person.wait_for("punching towards")
    lab.start_right("--to", str(lab.serve(echo)), shell=f"export PUNCHTUNNEL_SECRET={SECRET}")
    assert person.process.wait(WAIT) == 0
    pid = int(pid_file.read_text())
    assert os.getsid(pid) == pid != os.getsid(0)
    held = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert not [name for name in held if "pts" in name or "tty" in name]
    finish(pid)
