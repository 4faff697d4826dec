"""Whatever stdin and stdout are: the right bytes, the right status, and the descriptors as they were.

Both ends take every combination of INPUTS and OUTPUTS, and every input meets
every output across the hole.  That takes 42 runs, not 42 × 42: run k gives the
left end input k mod 6 and output k mod 7 (all 42 pairs, for 6 and 7 have no
common factor), and the right end the ones next to those.

How bytes are moved depends on one descriptor at a time, so that every data path
takes only the first seven runs: each kind is in them, and stdin and stdout of
the same kind are together.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import socket
import subprocess
import termios
import tty
from pathlib import Path

import pytest

from .conftest import PATHS
from .ends import DEVNULL, End, Lab
from .flows import Collector, Flow, noise, read

INPUTS = ("file", "pipe", "null", "closed", "terminal", "socket")
OUTPUTS = ("file", "pipe", "null", "closed", "terminal", "socket", "appended file")
RUNS = [(INPUTS[k % 6], OUTPUTS[k % 7], INPUTS[(k + 1) % 6], OUTPUTS[(k + 1) % 7]) for k in range(42)]
RUNS_AND_PATHS = [
    *((*run, path) for run, path in itertools.product(RUNS[:7], PATHS)),
    *(pytest.param(*run, PATHS[0], marks=pytest.mark.exhaustive) for run in RUNS[7:]),
]

BYTES = noise(300_000)
# What a terminal keeps that nobody reads yet; whole lines, or ^D would only end a line.
TYPED = b"".join(b"line %d\n" % number for number in range(300))
BEFORE = b"what was in the file before\n"


class Inherited:
    """One descriptor that the tool inherits; `fd` is None if that is to be closed.

    A duplicate stays here: it shares the status flags with what the tool has.
    """

    def __init__(self, fd: int | None) -> None:
        self.fd = fd
        self.flags = None if fd is None else fcntl.fcntl(fd, fcntl.F_GETFL)
        self.mode = termios.tcgetattr(fd) if fd is not None and os.isatty(fd) else None

    def check(self) -> None:
        """Fail if the tool has changed what it shares with others."""
        if self.fd is not None:
            assert fcntl.fcntl(self.fd, fcntl.F_GETFL) == self.flags
        if self.fd is not None and self.mode is not None:
            assert termios.tcgetattr(self.fd) == self.mode

    def close(self) -> None:
        """Close the duplicate."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None


class Source(Inherited):
    """A stdin of one kind, filled with `data`."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.data = {"null": b"", "closed": b"", "terminal": TYPED}.get(kind, BYTES)
        self._flow: Flow | None = None
        self._master: int | None = None
        super().__init__(self._open(kind, folder / f"in {os.urandom(4).hex()}"))

    def _open(self, kind: str, path: Path) -> int | None:
        if kind == "closed":
            return None
        if kind == "null":
            return os.open(os.devnull, os.O_RDONLY)
        if kind == "file":
            path.write_bytes(self.data)
            return os.open(path, os.O_RDONLY)
        if kind == "terminal":
            self._master, slave = os.openpty()
            mode = termios.tcgetattr(slave)
            mode[3] &= ~termios.ECHO
            termios.tcsetattr(slave, termios.TCSANOW, mode)
            os.write(self._master, self.data + b"\x04")
            return slave
        inner, outer = os.pipe() if kind == "pipe" else [end.detach() for end in socket.socketpair()]
        self._flow = Flow(outer, [self.data])
        self._flow.start()
        return inner

    def close(self) -> None:
        """Close everything; what was not read is lost."""
        super().close()
        if self._flow is not None:
            self._flow.join(30)
        if self._master is not None:
            os.close(self._master)


class Sink(Inherited):
    """A stdout of one kind."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._path = folder / f"out {os.urandom(4).hex()}"
        self._collector: Collector | None = None
        super().__init__(self._open(kind))

    def _open(self, kind: str) -> int | None:
        if kind == "closed":
            return None
        if kind == "null":
            return os.open(os.devnull, os.O_WRONLY)
        if kind == "file":
            return os.open(self._path, os.O_WRONLY | os.O_CREAT)
        if kind == "appended file":
            self._path.write_bytes(BEFORE)
            return os.open(self._path, os.O_WRONLY | os.O_APPEND)
        if kind == "terminal":
            inner, outer = os.openpty()
            tty.setraw(outer)
        elif kind == "pipe":
            inner, outer = os.pipe()
        else:
            inner, outer = (end.detach() for end in socket.socketpair())
        self._collector = Collector(inner)
        return outer

    def result(self) -> bytes | None:
        """Return all bytes that came out, or None where they cannot be known."""
        self.close()
        if self._collector is not None:
            return self._collector.whole()
        if self.kind == "appended file":
            data = self._path.read_bytes()
            assert data.startswith(BEFORE)
            return data[len(BEFORE) :]
        return self._path.read_bytes() if self.kind == "file" else None


def start(lab: Lab, place: list[str], stdin: Inherited, stdout: Inherited) -> End:
    """Start one end with these descriptors, or without them."""
    closed = "; ".join(f"exec {number}<&-" for number, one in enumerate((stdin, stdout)) if one.fd is None)
    fds = [DEVNULL if one.fd is None else one.fd for one in (stdin, stdout)]
    return lab.start(*place, stdin=fds[0], stdout=fds[1], shell=closed)


def watch(end: End, descriptors: list[Inherited]) -> int:
    """Look at the descriptors as long as the end runs, and behind it; return its status."""
    with contextlib.suppress(AssertionError):
        end.wait_for("link_up")
    for _ in range(600):
        for one in descriptors:
            one.check()
        with contextlib.suppress(subprocess.TimeoutExpired):
            end.process.wait(0.05)
            break
    for one in descriptors:
        one.check()
    return end.status()


@pytest.mark.parametrize(
    ("left_in", "left_out", "right_in", "right_out", "data_path"), RUNS_AND_PATHS, indirect=["data_path"]
)
def test_any_stdin_and_stdout(lab: Lab, left_in: str, left_out: str, right_in: str, right_out: str) -> None:
    sources = [Source(left_in, lab.folder), Source(right_in, lab.folder)]
    sinks = [Sink(left_out, lab.folder), Sink(right_out, lab.folder)]
    with contextlib.ExitStack() as stack:
        for one in (*sources, *sinks):
            stack.callback(one.close)
        left = start(lab, lab.towards_right, sources[0], sinks[0])
        right = start(lab, lab.towards_left, sources[1], sinks[1])
        statuses = [watch(left, [*sources, *sinks]), watch(right, [*sources, *sinks])]
        cut = False
        for sink, source, end in zip(sinks, reversed(sources), (left, right), strict=True):
            if sink.kind == "closed" and source.data:
                # As for cat: the first byte that cannot be written is an error.
                assert "stdout" in end.reason
                cut = True
        assert statuses == ([1, 1] if cut else [0, 0])
        for sink, source in zip(sinks, reversed(sources), strict=True):
            result = sink.result()
            if result is not None:
                assert source.data.startswith(result) if cut else source.data == result


def test_one_socket_as_stdin_and_stdout_as_inetd_gives_it(lab: Lab) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stdio = Inherited(theirs.fileno())
        left = lab.start_left(stdin=theirs.fileno(), stdout=theirs.fileno())
        right = lab.start_right()
        for number in range(3):
            ours.sendall(b"to the right %d" % number)
            assert right.receive(14) == b"to the right %d" % number
            right.send(b"to the left %d" % number)
            assert read(ours.fileno(), 13) == b"to the left %d" % number
        stdio.check()
        ours.shutdown(socket.SHUT_WR)
        assert right.receive() == b""
        right.send(b"the last word")
        right.send_eof()
        assert read(ours.fileno()) == b"the last word"
        assert (left.status(), right.status()) == (0, 0)
        stdio.check()


def test_one_terminal_as_stdin_and_stdout_ends_when_the_peer_ends(lab: Lab) -> None:
    master, slave = os.openpty()
    try:
        stdio = Inherited(slave)
        left = lab.start_left(stdin=slave, stdout=slave)
        right = lab.start_right()
        os.write(master, b"typed\n")
        assert right.receive(6) == b"typed\n"
        assert read(master, 7) == b"typed\r\n"
        right.send(b"an answer")
        right.send_eof()
        assert read(master, 9) == b"an answer"
        # Nobody has to press ^D behind a transfer.
        assert (left.status(), right.status()) == (0, 0)
        stdio.check()
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("peer", ["--recv-only", "-n", "/dev/null as stdin"])
def test_terminal_can_be_typed_into_although_the_peer_sends_nothing(lab: Lab, peer: str) -> None:
    master, slave = os.openpty()
    try:
        left = lab.start_left(stdin=slave)
        right = lab.start_right(stdin=DEVNULL) if peer.startswith("/") else lab.start_right(peer)
        for end in (left, right):
            end.wait_for("link_up")
        if peer == "-n":
            # Somebody may wait for a file that was empty.
            assert "Ctrl-D" in left.wait_for("warning")["reason"]
        os.write(master, b"first line\n")
        assert right.receive(11) == b"first line\n"
        os.write(master, b"second line\n\x04")
        assert right.receive() == b"second line\n"
        assert (left.status(), right.status()) == (0, 0)
    finally:
        os.close(master)
        os.close(slave)


def test_terminal_that_hangs_up_is_an_eof_of_stdin(lab: Lab) -> None:
    master, slave = os.openpty()
    left = lab.start_left(stdin=slave)
    os.close(slave)
    right = lab.start_right()
    os.write(master, b"typed\n")
    assert right.receive(6) == b"typed\n"
    os.close(master)
    assert right.receive() == b""
    right.send(b"an answer")
    right.send_eof()
    assert left.receive() == b"an answer"
    assert (left.status(), right.status()) == (0, 0)


def test_file_is_read_from_where_the_shell_left_it(lab: Lab) -> None:
    path = lab.folder / "in"
    path.write_bytes(b"first line\nthe rest")
    with path.open("rb", buffering=0) as stdin:
        assert stdin.read(11) == b"first line\n"
        left = lab.start_left(stdin=stdin)
        right = lab.start_right(stdin=DEVNULL)
        assert right.receive() == b"the rest"
        assert (left.status(), right.status()) == (0, 0)


def test_three_closed_descriptors_do_not_disturb_the_tunnel(lab: Lab) -> None:
    left = lab.start_left("--send-only", shell="exec <&- >&- 2>&-")
    right = lab.start_right(shell="exec <&- 2>&-")
    assert right.receive() == b""
    assert (left.status(), right.status()) == (0, 0)


def test_closed_stderr_changes_neither_the_bytes_nor_the_status(lab: Lab) -> None:
    left = lab.start_left(shell="exec 2>&-")
    right = lab.start_right(shell="exec 2>&-")
    left.send(b"unheard")
    left.send_eof()
    assert right.receive() == b"unheard"
    right.send_eof()
    assert (left.status(), right.status()) == (0, 0)


def test_stdout_that_is_open_for_reading_only_is_an_error_with_a_sentence(lab: Lab) -> None:
    path = lab.folder / "file"
    path.touch()
    with path.open("rb") as readable:
        left = lab.start_left(stdout=readable)
        right = lab.start_right()
        right.send(b"anything")
        assert left.status() == 1
        assert "Bad file descriptor" in left.reason
        assert right.status() == 1


# What becomes of a stdin that nobody meant: nohup's, and that of a background job whose shell has gone.
UNREADABLE = {
    "nohup": "exec 0>/dev/null",
    "background": """exec setsid -cw sh -c 'set -m; trap "" TTIN; "$@" & wait $!' sh "$@\"""",
}


@pytest.mark.parametrize("how", UNREADABLE)
def test_stdin_that_cannot_be_read_does_not_end_what_only_receives(lab: Lab, how: str) -> None:
    """Both sides ended with 1, and the far one read "connection reset"."""
    master, slave = os.openpty()
    try:
        left = lab.start_left(stdin=slave, shell=UNREADABLE[how])
        right = lab.start_right()
        right.send(b"a dump")
        if how == "nohup":
            left.wait_for("stdin_unreadable")
        right.send_eof()
        assert left.receive() == b"a dump"
        assert (left.status(), right.status()) == (0, 0)
        # A terminal need not have been read by then.
        assert len(left.find("stdin_unreadable")) <= 1
    finally:
        os.close(master)
        os.close(slave)
