"""Real runs on a real terminal: what a person sees, and what a pipe, ssh or a log must never see."""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator, Sequence
from typing import IO

import pytest

from .ends import COMMAND, DEVNULL, PIPE, Lab, environment
from .flows import MIB, WAIT, echo, noise, receive

CODES = re.compile(rb"\x1b\[[0-9;]*[mK]")


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: what a terminal shows of a link is the same on every path, but for the word sealed."""
    return []


class Person:
    """One end of the tool, on a terminal of its own as a shell would start it.

    Args:
        descriptors: Which of 0, 1 and 2 are the terminal; the others are /dev/null unless given.
    """

    def __init__(
        self,
        lab: Lab,
        arguments: Sequence[str],
        descriptors: Sequence[int] = (2,),
        stdin: int | IO[bytes] = DEVNULL,
        stdout: int | IO[bytes] = DEVNULL,
        env: dict[str, str] | None = None,
    ) -> None:
        self.fd, there = os.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 150, 0, 0))
        lab.defer(lambda: os.close(self.fd))
        self.seen = b""
        # A session whose terminal this is, with the tool in front.
        code = (
            "import fcntl, os, sys, termios\n"
            "fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)\n"
            "os.close(int(sys.argv[1]))\n"
            "os.execv(sys.argv[2], sys.argv[2:])\n"
        )
        ours = {0: stdin, 1: stdout, 2: DEVNULL} | dict.fromkeys(descriptors, there)
        self.process = subprocess.Popen(
            [COMMAND[0], "-c", code, str(there), *COMMAND, *arguments],
            stdin=ours[0],
            stdout=ours[1],
            stderr=ours[2],
            env={name: value for name, value in environment().items() if name != "NO_COLOR"}
            | {"TERM": "xterm-256color"}
            | (env or {}),
            pass_fds=(there,),
            start_new_session=True,
        )
        os.close(there)
        lab.defer(self.end)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(WAIT)

    def wait_for(self, *texts: str) -> bytes:
        """Read until one of them has been shown; return everything so far."""
        while not any(text.encode() in CODES.sub(b"", self.seen) for text in texts):
            assert self._read(), f"ended without {texts}: {self.seen!r}"
        return self.seen

    def status(self) -> int:
        """Read to the end and return the exit status."""
        while self._read():
            pass
        return self.process.wait(WAIT)

    def _read(self) -> bool:
        ready, _, _ = select.select([self.fd], [], [], WAIT)
        assert ready, f"nothing more for {WAIT} s: {self.seen!r}"
        try:
            data = os.read(self.fd, 1 << 16)
        except OSError:
            data = b""
        self.seen += data
        return bool(data)

    @property
    def rows(self) -> list[str]:
        """The rows that stay on the screen."""
        rows = CODES.sub(b"", self.seen).decode().replace("\r\n", "\n").split("\n")
        return [row.rpartition("\r")[2] for row in rows]


@pytest.fixture
def big(lab: Lab) -> Iterator[IO[bytes]]:
    with open(lab.folder / "big", "w+b") as file:
        file.write(noise(3 * MIB))
        file.flush()
        file.seek(MIB)
        yield file


def test_a_tunnel_shows_its_streams_and_what_flows(lab: Lab) -> None:
    person = Person(lab, [*lab.towards_right, "-L", "0"])
    person.wait_for("punching towards")
    lab.start_right("--to", str(lab.serve(echo)))
    seen = person.wait_for(", 0 streams, in 0 B at 0 B/s, out 0 B at 0 B/s")
    found = re.search(rb"listening on 127\.0\.0\.1:(\d+)\r\n", seen)
    assert found
    assert f"connected to {lab.right}:".encode() in seen
    assert b" from port " in seen
    with lab.connect(int(found[1])) as client:
        client.sendall(bytes(2048))
        receive(client, 2048)
        person.wait_for(", 1 stream, in 2.0 KiB at ")
    person.wait_for(", 0 streams, in 2.0 KiB at ")
    os.write(person.fd, b"\x03")
    assert person.status() == 130
    # One line of state, ended, and nothing half-written behind it.
    assert person.rows[-1] == ""
    assert person.rows[-2].startswith("up 0:") or person.rows[-2].startswith("^C")


def test_a_pipe_leaves_the_terminal_to_whoever_is_behind_it(lab: Lab) -> None:
    """ssh through ProxyCommand has the same terminal, and would be written over."""
    person = Person(lab, [*lab.towards_right, "--stdio"], stdin=PIPE, stdout=PIPE)
    right = lab.start_right()
    before = person.wait_for("sealed, not authenticated\r\n")
    right.wait_for("link_up")
    for _ in range(3):
        right.send(b"question")
        assert os.read(person.process.stdout.fileno(), 8) == b"question"  # type: ignore[union-attr]
        person.process.stdin.write(b"answer")  # type: ignore[union-attr]
        person.process.stdin.flush()  # type: ignore[union-attr]
        assert right.receive(6) == b"answer"
    person.process.stdin.close()  # type: ignore[union-attr]
    right.send_eof()
    assert person.process.stdout.read() == b""  # type: ignore[union-attr]
    person.process.stdout.close()  # type: ignore[union-attr]
    assert (person.status(), right.status()) == (0, 0)
    assert person.seen == before
    assert sum("connected to" in row for row in person.rows) == 1


def test_no_hole_is_said_below_the_line(lab: Lab) -> None:
    person = Person(lab, [*lab.towards_right, "-w", "1"])
    assert person.status() == 3
    rows = person.rows
    # As many ports as the buckets of the moment have between them.
    assert re.match(rf"punching towards {lab.right} on \d+ ports, 0:0\d of 0:01", rows[0])
    assert rows[1].startswith(f"punchtunnel: no hole to {lab.right} in 1 s: ")
    assert rows[2:] == [""]


def test_a_person_who_waits_is_told_what_to_run_on_the_other_machine(lab: Lab) -> None:
    person = Person(lab, [*lab.towards_right, "--to", "22"])
    hint = f"punchtunnel: on the other machine: punchtunnel {lab.left} -L 2222 --channel {lab.channel}\r\n"
    person.wait_for(hint)
    # A busy machine may leave a second out.
    person.wait_for(*(f", 0:{seconds:02} of 2:00, all refused" for seconds in range(3, 60)))
    os.write(person.fd, b"\x03")
    assert person.status() == 130
    assert person.seen.count(b"other machine") == 1


def test_ctrl_c_while_punching_ends_the_line(lab: Lab) -> None:
    person = Person(lab, lab.towards_right)
    person.wait_for("punching towards")
    os.write(person.fd, b"\x03")
    assert person.status() == 130
    assert person.seen.endswith(b"\r\n")


def test_a_stopped_and_continued_run_goes_on_with_its_line(lab: Lab) -> None:
    person = Person(lab, [*lab.towards_right, "-L", "0"])
    person.wait_for("punching towards")
    person.process.send_signal(signal.SIGSTOP)
    person.process.send_signal(signal.SIGCONT)
    lab.start_right("--to", str(lab.serve(echo)))
    person.wait_for(", 0 streams, in 0 B")
    person.process.terminate()
    assert person.status() == 143


@pytest.mark.parametrize(
    ("env", "codes"),
    [({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, True), ({}, True)],
    ids=["dumb", "NO_COLOR", "all"],
)
def test_codes_are_those_that_the_terminal_takes(lab: Lab, env: dict[str, str], codes: bool) -> None:
    person = Person(lab, [*lab.towards_right, "-n"], env=env)
    right = lab.start_right("-n")
    assert (person.status(), right.status()) == (0, 0)
    assert (b"\x1b[K" in person.seen) is codes
    assert (b"\x1b[33m" in person.seen) is not bool(env)
    assert any("connected to" in row for row in person.rows)


def test_a_pipe_ends_with_what_was_delivered_and_in_how_long(lab: Lab, big: IO[bytes]) -> None:
    """It ended without a word, as if it had been cut."""
    sender = Person(lab, lab.towards_right, stdin=big)
    receiver = Person(lab, [*lab.towards_left, "-n"], stdout=PIPE)
    assert receiver.process.stdout is not None
    with receiver.process.stdout as stdout:
        assert len(stdout.read()) == 2 * MIB
    assert (sender.status(), receiver.status()) == (0, 0)
    assert re.fullmatch(r"punchtunnel: 2\.0 MiB delivered in [0-9.]+ s", sender.rows[-2])
    assert re.fullmatch(r"punchtunnel: 2\.0 MiB received in [0-9.]+ s", receiver.rows[-2])


def test_a_pipe_that_is_cut_says_how_much_had_arrived(lab: Lab) -> None:
    person = Person(lab, [*lab.towards_right, "-n"], stdout=PIPE)
    right = lab.start_right()
    right.send(bytes(2048))
    assert person.process.stdout is not None
    with person.process.stdout as stdout:
        assert len(stdout.read(2048)) == 2048
        os.write(person.fd, b"\x03")
        assert person.status() == 130
    assert re.fullmatch(r"(\^C)?punchtunnel: cut after [0-9.]+ s: 2\.0 KiB had arrived here", person.rows[-2])
    assert right.status() == 1
    assert any("2.0 KiB had been sent, of which not all may" in str(told["reason"]) for told in right.find("warning"))


def test_a_wrong_secret_says_that_it_goes_on_for_how_long_and_how_to_stop(lab: Lab) -> None:
    """It read as an end, and the run went on for two minutes."""
    person = Person(lab, lab.towards_right, env={"PUNCHTUNNEL_SECRET": "tiger tiger burning bright"})
    other = Person(lab, [*lab.towards_left, "-w", "0"], env={"PUNCHTUNNEL_SECRET": "in the forests of the night"})
    seen = person.wait_for("Ctrl-C ends it").decode()
    found = re.search(r"give both sides the same; still waiting, for another (\d+) s \(-w\); Ctrl-C ends it", seen)
    assert found is not None
    assert 0 < int(found[1]) <= 120
    assert b"give both sides the same; still waiting, without a limit; Ctrl-C or " in other.wait_for("SIGTERM ends it")
    # What to run there is known there.
    person.wait_for(*(f", 0:{seconds:02} of 2:00" for seconds in range(3, 60)))
    for one in (person, other):
        os.write(one.fd, b"\x03")
        assert one.status() == 130
        assert b"on the other machine" not in one.seen


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace needs root")
def test_without_a_network_that_is_the_first_thing_said(lab: Lab) -> None:
    """It was punched for two minutes, and only then said that there is no route."""
    arguments = ["203.0.113.9", "-w", "1", "-n"]
    done = lab.program("unshare", "--net", *COMMAND, *arguments, stdin=DEVNULL, stderr=PIPE, env=environment())
    said = done.communicate(timeout=WAIT)[1].decode().splitlines()
    assert done.returncode == 3
    assert said[0].startswith("punchtunnel: this machine is in no network: ")
    assert "there is no route to that address from here" in said[1]
    assert len(said) == 2


# ---- --progress


def test_progress_of_a_receiver_is_live_while_its_stdin_is_a_terminal(lab: Lab) -> None:
    """A stdin that nobody types into kept it silent until the end."""
    person = Person(lab, [*lab.towards_right, "--progress"], descriptors=(0, 2), stdout=PIPE)
    right = lab.start_right()
    right.send(bytes(2048))
    person.wait_for("in 2.0 KiB at ")
    right.send_eof()
    assert person.process.stdout is not None
    with person.process.stdout as stdout:
        assert len(stdout.read()) == 2048
    assert (person.status(), right.status()) == (0, 0)


def test_progress_of_a_file_ends_with_its_totals_and_100_percent_on_both_sides(lab: Lab, big: IO[bytes]) -> None:
    sender = Person(lab, [*lab.towards_right, "--progress"], stdin=big)
    receiver = Person(lab, [*lab.towards_left, "--progress", "-n"])
    assert (sender.status(), receiver.status()) == (0, 0)
    # The file was read from its second MiB on.
    assert re.fullmatch(r"0:\d\d, out 2\.0 MiB, average [0-9.]+ [KM]iB/s, 100 %", sender.rows[-2])
    assert re.fullmatch(r"0:\d\d, in 2\.0 MiB, average [0-9.]+ [KM]iB/s, 100 %", receiver.rows[-2])
    assert sender.rows[-1] == receiver.rows[-1] == ""


def test_progress_tells_how_long_it_will_take(lab: Lab, big: IO[bytes]) -> None:
    sender = Person(lab, [*lab.towards_right, "--progress"], stdin=big)
    stopped = lab.start_right("-n")
    # Nobody reads its stdout: the pipe and the window fill, and then the sender waits.
    seen = sender.wait_for(" left")
    assert re.search(rb"\d+ %, \d:\d\d left", CODES.sub(b"", seen))
    assert len(stopped.receive()) == 2 * MIB
    assert (sender.status(), stopped.status()) == (0, 0)


def test_progress_in_a_log_has_no_codes(lab: Lab, big: IO[bytes]) -> None:
    path = lab.folder / "log"
    right = lab.start_right("-n")
    with path.open("wb") as log:
        left = lab.program(*COMMAND, *lab.towards_right, "--progress", stdin=big, stderr=log, env=environment())
    assert len(right.receive()) == 2 * MIB
    assert (left.wait(WAIT), right.status()) == (0, 0)
    trusting, *lines = path.read_text().splitlines()
    assert trusting.startswith("punchtunnel: the link is ")
    assert re.fullmatch(r"punchtunnel: 0:\d\d, out 2\.0 MiB, average .*, 100 %", lines[-1])
    assert all(line.startswith("punchtunnel: 0:") and line.isprintable() for line in lines)


def test_progress_gives_way_to_output_on_the_same_terminal(lab: Lab) -> None:
    person = Person(lab, [*lab.towards_right, "--progress", "-n"], descriptors=(1, 2))
    right = lab.start_right()
    person.wait_for(" ms, 0 B")
    right.send(b"what the peer has sent\n")
    person.wait_for("what the peer has sent")
    right.send_eof()
    assert (person.status(), right.status()) == (0, 0)
    rows = person.rows
    assert rows.count("what the peer has sent") == 1
    assert re.fullmatch(r"punchtunnel: 0:\d\d, in 23 B, average .*", rows[-2])


def test_announced_sizes_reach_both_sides_and_a_pipe_announces_none(lab: Lab, big: IO[bytes]) -> None:
    left, right = lab.start_left(stdin=big), lab.start_right("-n")
    assert len(right.receive()) == 2 * MIB
    assert (left.status(), right.status()) == (0, 0)
    assert left.find("announced", direction="out", bytes=2 * MIB)
    assert right.find("announced", direction="in", bytes=2 * MIB)
    assert not left.find("announced", direction="in")
    one, other = lab.pair()
    for end in (one, other):
        end.send_eof()
    assert (one.status(), other.status()) == (0, 0)
    assert not one.find("announced")
    assert not other.find("announced")
