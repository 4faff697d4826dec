"""A hole through a command's stdin and stdout (--via): with real processes, which are gone afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest

from punchtunnel.words import peer, reach

from .ends import DEVNULL, End, Lab
from .flows import WAIT, free_port
from .test_sealed import SECRET, knowing

# The end of both programs: copies between stdin and stdout and a socket.
COPY = """
def copy(take, give):
    while data := take():
        while data:
            data = data[give(data):]
    os._exit(0)

threading.Thread(target=copy, args=(lambda: sock.recv(65536), lambda data: os.write(1, data))).start()
copy(lambda: os.read(0, 65536), sock.send)
"""
# Joins stdin and stdout with those of the other one that is given the same path: whoever comes first listens.
# It says who it is, by its process, in a file of its own.
JOIN = """\
import os, socket, sys, threading
path, name = sys.argv[1:]
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(path)
    os.unlink(path)
except OSError:
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(path)
        except OSError:
            sys.exit("taken")
        listener.listen(1)
        sock, _ = listener.accept()
with open(f"{path}.{name}.new", "w") as file:
    file.write(str(os.getpid()))
os.rename(f"{path}.{name}.new", f"{path}.{name}")
"""
# Joins them with a TCP port.
DIAL = """\
import os, socket, sys, threading
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
"""


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: a command needs a sealed link."""
    return []


class Joint:
    """The place where two commands meet."""

    def __init__(self, lab: Lab) -> None:
        self._program = lab.folder / "join.py"
        self._program.write_text(JOIN + COPY)
        self._place = lab.folder / "joint"

    def command(self, name: str) -> str:
        return shlex.join([sys.executable, str(self._program), str(self._place), name])

    def take_process(self, name: str) -> int:
        """Return the process of one side, once the two are joined, and forget it."""
        file = Path(f"{self._place}.{name}")
        deadline = time.monotonic() + WAIT
        while not file.exists():
            assert time.monotonic() < deadline, "the commands were not joined"
            time.sleep(0.01)
        process = int(file.read_text())
        file.unlink()
        return process


def is_gone(process: int) -> bool:
    """Tell whether a process ends: it was told to, and a busy machine may let it do so a little later."""
    deadline = time.monotonic() + WAIT
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not Path(f"/proc/{process}").exists()


def left_of(group: int) -> list[str]:
    """Return what still runs of a process group: what was killed, and has not been reaped by init, does not."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            text = file.read_text()
            state, _, its_group = text.rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(text)
    return found


def start(lab: Lab, *arguments: str) -> End:
    return lab.start("--channel", lab.channel, *arguments, shell=knowing(SECRET))


def joined(lab: Lab, joint: Joint, *options: str) -> tuple[End, End]:
    """Return two ends that have nothing but their commands."""
    ends = start(lab, "--via", joint.command("left"), *options), start(lab, "--via", joint.command("right"), *options)
    for end in ends:
        end.wait_for("link_up")
    return ends


def test_two_commands_alone_carry_a_session_and_end_with_it(lab: Lab) -> None:
    joint = Joint(lab)
    left, right = joined(lab, joint)
    processes = [joint.take_process(name) for name in ("left", "right")]
    (hole,) = left.find("hole")
    name = f"{Path(sys.executable).name} (--via)"
    assert (hole["local"], hole["remote"], hole["dials"]) == ("this machine", name, 0)
    left.send(b"there")
    right.send(b"and back")
    assert (right.receive(5), left.receive(8)) == (b"there", b"and back")
    for end in (left, right):
        end.send_eof()
    assert (left.status(), right.status()) == (0, 0)
    assert all(map(is_gone, processes))


def test_a_peer_that_cannot_be_reached_is_met_by_the_command(lab: Lab) -> None:
    joint = Joint(lab)
    # Nobody is at that address.
    left = lab.start_left("--via", joint.command("left"), shell=knowing(SECRET))
    right = start(lab, "--via", joint.command("right"))
    for end in (left, right):
        end.wait_for("link_up")
    assert left.find("hole")[0]["dials"] > 0
    assert left.find("hole")[0]["waited_s"] >= 2
    for end in (left, right):
        end.send_eof()
    assert (left.status(), right.status()) == (0, 0)


def test_a_direct_hole_is_preferred(lab: Lab) -> None:
    joint = Joint(lab)
    left = lab.start_left("--via", joint.command("left"), shell=knowing(SECRET))
    right = lab.start_right("--via", joint.command("right"), shell=knowing(SECRET))
    for end, host in ((left, lab.right), (right, lab.left)):
        assert end.wait_for("hole")["remote"].startswith(host)
        end.send_eof()
    assert (left.status(), right.status()) == (0, 0)


def test_a_command_of_one_side_leads_to_a_port_of_the_other(lab: Lab) -> None:
    """As a proxy does it."""
    program = lab.folder / "dial.py"
    program.write_text(DIAL + COPY)
    port = free_port()
    # It dials somebody else.
    right = lab.start(
        "127.251.0.9", "--bind", lab.right, "--channel", lab.channel, "--port", str(port), shell=knowing(SECRET)
    )
    left = start(lab, "--via", shlex.join([sys.executable, str(program), lab.right, str(port)]))
    for end in (left, right):
        end.wait_for("link_up")
        end.send_eof()
    assert (left.status(), right.status()) == (0, 0)


def test_a_session_whose_command_is_killed_goes_on_over_the_next_one(lab: Lab) -> None:
    joint = Joint(lab)
    left, right = joined(lab, joint)
    data = [os.urandom(1 << 16) for _ in range(400)]
    flow = left.feed(data)
    assert right.receive(1 << 20) == b"".join(data)[: 1 << 20]
    os.kill(joint.take_process("left"), signal.SIGKILL)
    for end in (left, right):
        end.wait_for("resumed")
    right.send_eof()
    rest = right.receive()
    flow.join(WAIT)
    assert hashlib.sha256(rest).digest() == hashlib.sha256(b"".join(data)[1 << 20 :]).digest()
    assert (left.status(), right.status()) == (0, 0)


@pytest.mark.parametrize("linked", [True, False], ids=["session", "punch"])
def test_a_signal_leaves_no_process(lab: Lab, linked: bool) -> None:
    joint = Joint(lab)
    file = lab.folder / "pid"
    wrapper = f"trap '' HUP INT; echo $$ >{file}.new; mv {file}.new {file}; {joint.command('left')}; true"
    left = start(lab, "--via", wrapper)
    if linked:
        right = start(lab, "--via", joint.command("right"))
        left.wait_for("link_up")
    deadline = time.monotonic() + WAIT
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    shell = int(file.read_text())
    assert os.getpgid(shell) == shell
    left.process.send_signal(signal.SIGTERM)
    assert left.status() == 143
    deadline = time.monotonic() + WAIT
    while left_of(shell):
        assert time.monotonic() < deadline, "processes are left"
        time.sleep(0.01)
    if linked:
        assert right.status() == 1


def test_what_a_command_says_is_an_event(lab: Lab) -> None:
    end = start(lab, "--via", "echo visit https://example.org >&2; exec cat >/dev/null", "-w", "30")
    end.wait_for("via_said", text="visit https://example.org")
    end.process.send_signal(signal.SIGTERM)
    assert end.status() == 143


def test_what_comes_back_from_nobody_is_no_peer(lab: Lab) -> None:
    """Our own hello."""
    end = start(lab, "--via", "cat")
    end.wait_for("via_ended", status=None, reason=reach.via_closed(peer.MYSELF))
    end.process.send_signal(signal.SIGTERM)
    assert end.status() == 143


@pytest.mark.parametrize(
    ("options", "secret", "sentence"),
    [([], "", "--via without a secret"), (["--plain"], "", "--plain contradicts --via")],
)
def test_a_command_needs_a_secret(lab: Lab, options: list[str], secret: str, sentence: str) -> None:
    end = lab.start("--via", "echo started", *options, stdout=DEVNULL, shell=knowing(secret))
    assert end.status() == 2
    assert end.reason.startswith(sentence)
