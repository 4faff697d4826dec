"""Entries of docs/TROUBLESHOOTING.md that need no router: what is printed there is what is written there."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from punchtunnel.cli.pairing import Code
from punchtunnel.protocol import schedule
from punchtunnel.protocol.secret import fresh

from ..troubleshooting import ROWS, Row
from .ends import COMMAND, End, Lab, environment
from .flows import WAIT, echo, free_port
from .hostile_relay import HostileRelay, dead_port

SECRET = "correct-horse-battery-staple-17"

Start = Callable[[Lab], "End | Told"]

# A side as it is, but for the seconds after which silence is death.
IMPATIENT = """\
from punchtunnel.session import silence
silence.HEARTBEAT = 1.0
silence.DEAD_AFTER = silence.LOST_AFTER = 3.0
"""
# A side of a later version, of which only the first bytes matter.
LATER = """\
from punchtunnel.protocol import hello
hello.VERSION += 1
"""


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: a sentence is the same on every path."""
    return []


def killed(lab: Lab) -> End:
    left, right = lab.pair(["--resume", "1"])
    right.process.kill()
    return left


def changed(lab: Lab, change: str) -> str:
    """Return what the shell of an end does so that it runs a changed program."""
    program = lab.folder / "changed.py"
    program.write_text(f"{change}from punchtunnel.cli import command\ncommand.main()\n")
    # The first three words are the interpreter, -m and the module.
    return f'shift 3; set -- {shlex.join([sys.executable, str(program)])} "$@"'


def still(lab: Lab) -> End:
    left = lab.start_left("--resume", "1", shell=changed(lab, IMPATIENT))
    right = lab.start_right()
    left.wait_for("link_up")
    right.process.send_signal(signal.SIGSTOP)
    return left


def target(lab: Lab) -> End:
    left, _ = lab.pair([], ["--to", str(free_port())])
    left.send(b"anybody there?")
    return left


def service(asked: str, there: str, *, tells: int) -> Callable[[Lab], End]:
    """Return a play in which one side asks for a service; `tells`: which of the two is looked at."""

    def start(lab: Lab) -> End:
        return lab.pair([asked], ["--to", f"{there}{free_port()}"] if there else [])[tells]

    return start


def ports_busy(lab: Lab) -> End:
    now = schedule.first_bucket(time.time())
    # Those of the next minutes, too: a bucket may begin in between.
    buckets = (schedule.CLOCK_FREE, *range(now, now + 5))
    for port in schedule.ports_of(lab.channel, buckets, schedule.PortCounts()):
        lab.own(socket.create_server((lab.left, port)))
    return lab.start_left()


def descriptors(lab: Lab) -> End:
    """It can listen on some of its ports, and then on no more; it said that nobody came."""
    limit = "ulimit -n 12"
    return lab.start(lab.left, "--channel", lab.channel, "-w", "1", *lab.options, shell=limit)


def alone(lab: Lab) -> End:
    return lab.start(lab.left, "--channel", lab.channel, "-w", "1", *lab.options)


def checked(lab: Lab) -> End:
    left = lab.start_left("-w", "5")
    assert lab.start_right("-z").status() == 0
    return left


def version(lab: Lab) -> End:
    lab.start_right(shell=changed(lab, LATER))
    return lab.start_left("-w", "2")


def send_only(lab: Lab) -> End:
    lab.start_right("--send-only")
    return lab.start_left("--send-only", "-w", "2")


def forwarded(lab: Lab) -> End:
    """On one machine, the port that PEER was given with is refused where nobody listens on it."""
    peer = f"{lab.right}:{free_port()}"
    return lab.start(peer, "--bind", lab.left, "--channel", lab.channel, "-w", "1", *lab.options)


def listen_taken(lab: Lab) -> End:
    return lab.start_left("-L", str(lab.serve(echo)))


def port_taken(lab: Lab) -> End:
    taken = lab.own(socket.create_server((lab.left, 0)))
    return lab.start_left("--port", str(taken.getsockname()[1]))


def secret_readable(lab: Lab) -> End:
    file = lab.folder / "secret"
    file.write_text(SECRET)
    file.chmod(0o644)
    return lab.start_left("--secret-file", str(file))


def ended_early(lab: Lab) -> End:
    left, right = lab.pair()
    right.process.send_signal(signal.SIGINT)
    return left


def disk_full(lab: Lab) -> End:
    left = lab.start_left()
    lab.start_right(shell="exec >/dev/full").wait_for("link_up")
    left.send(b"something")
    return left


def open_stdin(lab: Lab) -> End:
    left, right = lab.pair()
    right.send(b"everything")
    right.send_eof()
    left.wait_for("warning")
    left.send_eof()
    return left


def served(lab: Lab) -> End:
    lab.start_left("-k", "--to", "22", "--no-secret").wait_for("punching")
    return lab.start_left("-k", "--to", "22", "--no-secret")


def restarted(lab: Lab) -> End:
    """Only who proves the secret is believed that the session is over."""
    secret = f"export PUNCHTUNNEL_SECRET={SECRET}"
    left = lab.start_left(shell=secret)
    right = lab.start_right(shell=secret)
    left.wait_for("link_up")
    right.process.kill()
    left.wait_for("lost")
    lab.start_right(shell=secret)
    return left


def full(lab: Lab) -> End:
    lab.start_left("-k", "--to", str(lab.serve(echo)), "--sessions", "2", "--no-secret")
    for _ in range(2):
        peer = lab.start_right()
        peer.send(b"!")
        assert peer.receive(1) == b"!"
    return lab.start_right()


def via(command: str, *peers: str, secret: str = SECRET) -> Callable[[Lab], End]:
    """Return a run whose command leads to no peer."""

    def start(lab: Lab) -> End:
        arguments = [*peers, "--channel", lab.channel, "-w", "4", "--via", command]
        return lab.start(*arguments, shell=f"export PUNCHTUNNEL_SECRET={secret}" if secret else "")

    return start


def relay(*options: str, secret: str = "", other: bool = False, down: bool = False) -> Callable[[Lab], End]:
    """Return a run that names a relay.

    Args:
        options: Of this side.
        secret: Of both; by default a fresh one.
        other: The other side is there, too.
        down: Nothing listens where the relay should be.
    """

    def start(lab: Lab) -> End:
        place = f"127.0.0.1:{lab.enter(dead_port())}" if down else lab.own(HostileRelay()).place
        given = f"export PUNCHTUNNEL_SECRET={secret or fresh(os.urandom)}" if secret != "none" else ""
        arguments = ["--channel", lab.channel, "-w", "3", *options, place]
        if other:
            lab.start(*arguments, "-w", "30", "--bind", lab.right, shell=given)
        return lab.start(*arguments, "--bind", lab.left, shell=given)

    return start


@dataclass(frozen=True, slots=True)
class Told:
    """A run that ends by itself, and that takes no --json: as a person sees it."""

    done: subprocess.CompletedProcess[str]

    @property
    def reason(self) -> str:
        """The last line."""
        return self.done.stderr.splitlines()[-1].removeprefix("punchtunnel: ")

    def status(self) -> int:
        """Return the exit status."""
        return self.done.returncode

    def find(self, _: str) -> list[dict[str, str]]:
        """Return no events."""
        return []


def saved(text: str, *arguments: str, mode: int = 0o600, encoding: str = "utf-8", typed: str = "") -> Start:
    """Return a run with saved peers.

    Args:
        text: Of the peer `home`.
        arguments: Of the run; by default it meets that peer.
        mode, encoding: Of the file.
        typed: Into its stdin.
    """

    def start(lab: Lab) -> Told:
        path = lab.folder / "punchtunnel" / "peers.toml"
        path.parent.mkdir()
        path.write_text(f'[home]\npeers = ["127.0.0.1"]\n{text}\n', encoding=encoding)
        path.chmod(mode)
        return Told(
            subprocess.run(
                [*COMMAND, *(arguments or ["home"])],
                input=typed,
                capture_output=True,
                text=True,
                timeout=WAIT,
                check=False,
                env=environment() | {"XDG_CONFIG_HOME": str(lab.folder)},
            )
        )

    return start


PAIR = ("--pair", "laptop", "192.0.2.1")
PLAYS: dict[str, Start] = {
    "killed": killed, "still": still, "target": target, "ports-busy": ports_busy, "alone": alone,
    "descriptors": descriptors, "checked": checked, "served": served, "restarted": restarted, "full": full,
    "via-ended": via("echo no such host >&2; exit 7"), "via-silent": via("cat >/dev/null"),
    "via-stranger": via("echo Welcome; exec cat >/dev/null"), "no-peer-via": via("cat >/dev/null", "127.0.0.1"),
    "via-no-secret": via("cat", secret=""), "relay-nobody": relay("--relay"),
    "relay-refused": relay("--relay", down=True), "met-only": relay("--meet", other=True),
    "relay-no-secret": relay("--relay", secret="none"), "relay-weak": relay("--meet", secret=SECRET),
    "version": version, "send-only": send_only, "forwarded": forwarded, "listen-taken": listen_taken,
    "port-taken": port_taken, "secret-readable": secret_readable, "ended-early": ended_early,
    "bind-elsewhere": lambda lab: lab.start(lab.right, "--bind", "192.0.2.1"), "disk-full": disk_full,
    "service-there": service("--stdio=web", "ssh=", tells=0), "service-here": service("--stdio=web", "ssh=", tells=1),
    "nameless-here": service("--stdio", "ssh=", tells=1),
    "service-nameless": service("--stdio", "ssh=", tells=0), "service-of-stdio": service("--stdio=ssh", "", tells=0),
    "idle": lambda lab: lab.pair(["-i", "1"])[0], "open-stdin": open_stdin,
    "peers-readable": saved("", mode=0o644), "saved-value": saved('wait = "soon"'), "saved-toml": saved("wait = soon"),
    "saved-option": saved("show = true"), "saved-encoding": saved("# Büro", encoding="latin-1"),
    "saved-alone": saved("", "home", "192.0.2.1"), "pair-taken": saved("", "--pair", "home"),
    "code-mistyped": saved("", *PAIR, typed=f"{Code(bytes(16)).text}0"), "code-none": saved("", *PAIR, typed="soon!"),
    "code-answer": saved("", *PAIR, typed=Code().text),
}  # fmt: skip
E2E_ROWS = [row for row in ROWS if not row.cell and not row.consultation]


def test_every_entry_without_a_cell_is_played_here() -> None:
    assert {row.key for row in E2E_ROWS} == PLAYS.keys()


# These wait for seconds until it is told; the laboratory's rows, and tests of sessions and holes, show the same rules.
SLOW = {"still", "checked", "no-peer-via", "via-silent", "relay-nobody", "relay-refused"}


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[pytest.mark.exhaustive] if row.key in SLOW else [], id=row.key) for row in E2E_ROWS],
)
def test_two_processes_say_the_sentence_of_their_entry(lab: Lab, row: Row) -> None:
    end = PLAYS[row.key](lab)
    assert end.status() in row.statuses
    said = [end.reason, *(one["reason"] for one in end.find("warning"))]
    assert any(map(row.matches, said)), said
