"""Commands of the shell: what goes through them, and that nothing of them is left."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from punchtunnel.system import command
from punchtunnel.system.command import LONGEST_LINE, MOST_LINES, Command, readable

# Seconds after which a test hangs.
WAIT = 30.0


class Runs:
    """Starts commands, and tells when there is news of one."""

    def __init__(self) -> None:
        self.news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._started: list[Command] = []

    def start(self, line: str) -> Command:
        started = Command(line, os.environ, lambda: self.news.put(None))
        self._started.append(started)
        started.sock.settimeout(WAIT)
        return started

    def status(self, one: Command) -> int:
        """Wait for the end of a command."""
        while one.status is None:
            self.news.get(timeout=WAIT)
        return one.status

    def close(self) -> None:
        for one in self._started:
            one.sock.close()
            one.join()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """Start commands that are gone after the test, with all their descriptors; none is given much time to end."""
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(command, "LINGER", 0.01)
    monkeypatch.setattr(command, "STUBBORN", 0.01)
    with contextlib.closing(Runs()) as found:
        yield found
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture(params=["pidfd", "looking"], autouse=True)
def end_is_seen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the end of a process be seen by a descriptor, and as where there is none."""
    if request.param == "looking":
        monkeypatch.setattr(command, "_descriptor_of", lambda _: None)


def is_gone(process: int) -> bool:
    """Tell whether a process has ended; one that nobody reaps here is a zombie."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def wait_until_gone(process: int) -> None:
    deadline = time.monotonic() + WAIT
    while not is_gone(process):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_bytes_go_in_and_out(runs: Runs) -> None:
    one = runs.start("cat")
    one.sock.sendall(b"there and back")
    assert one.sock.recv(100) == b"there and back"


def test_the_end_of_our_direction_leaves_it_the_time_to_answer(runs: Runs) -> None:
    one = runs.start("cat >/dev/null; echo all read")
    one.sock.shutdown(socket.SHUT_WR)
    assert one.sock.recv(100) == b"all read\n"
    assert runs.status(one) == 0
    assert one.unasked


def test_its_end_is_told_with_what_it_said(runs: Runs) -> None:
    one = runs.start("echo lost: no such host >&2; printf 'half a line' >&2; exit 7")
    assert runs.status(one) == 7
    assert one.sock.recv(1) == b""
    assert one.take_lines() == ["lost: no such host", "half a line"]
    assert one.take_lines() == []


def test_a_signal_that_ends_it_is_its_status(runs: Runs) -> None:
    assert runs.status(runs.start("kill -9 $$")) == -signal.SIGKILL


@pytest.mark.parametrize("traps", ["", "trap '' TERM;"])
def test_closing_the_connection_ends_it_however_stubborn_it_is(runs: Runs, traps: str) -> None:
    one = runs.start(f"{traps} echo up; while :; do sleep 1000; done")
    assert one.sock.recv(3) == b"up\n"
    one.sock.close()
    assert runs.status(one) < 0
    assert not one.unasked


def test_what_it_leaves_running_ends_with_it_and_holds_nothing_open(runs: Runs) -> None:
    one = runs.start("sleep 1000 & echo $!")
    process = int(one.sock.recv(100))
    assert one.sock.recv(1) == b""
    assert runs.status(one) == 0
    wait_until_gone(process)


def test_one_that_has_left_the_session_does_not_hold_the_connection_open(runs: Runs) -> None:
    one = runs.start("setsid sleep 1000 & echo $!; sleep 0.2")
    process = int(one.sock.recv(100))
    try:
        assert one.sock.recv(1) == b""
        assert runs.status(one) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_what_it_says_is_bounded(runs: Runs) -> None:
    one = runs.start("i=0; while [ $i -lt 500 ]; do echo $i >&2; i=$((i+1)); done; head -c 1000000 /dev/zero >&2")
    assert runs.status(one) == 0
    assert len(one.take_lines()) <= MOST_LINES


def test_what_it_says_can_be_shown() -> None:
    assert readable(b"\x1b[2J\x07ssh: caf\xc3\xa9 \xff") == "?[2J?ssh: café \ufffd"
    assert len(readable(b"x" * 10_000)) == LONGEST_LINE


def test_a_process_that_is_refused_leaves_nothing(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise BlockingIOError

    monkeypatch.setattr(subprocess, "Popen", refuse)
    with pytest.raises(BlockingIOError):
        runs.start("cat")


def test_a_thread_that_is_refused_leaves_nothing(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> NoReturn:
        raise RuntimeError

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="temporarily unavailable"):
        runs.start("sleep 1000")
