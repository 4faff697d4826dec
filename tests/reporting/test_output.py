"""Lines to a reader who does not read are lost, and hold nobody up."""

from __future__ import annotations

import errno
import io
import os
import sys
import termios
import threading
from pathlib import Path

import pytest

from punchtunnel.errors import UsageError
from punchtunnel.reporting import output as output_module
from punchtunnel.reporting.output import LAST_PATIENCE, Output, open_descriptor, open_output

from .pipe import Pipe


@pytest.mark.timeout(30)
def test_a_full_pipe_costs_lines_and_never_blocks(pipe: Pipe) -> None:
    """A log reader that had stopped reading stopped the tunnel."""
    output = Output(pipe.stream)
    pipe.fill()
    for count in range(1, 1001):
        output.write("line\n")
        assert output.lost == count


def test_lost_lines_are_counted_until_one_gets_through(pipe: Pipe) -> None:
    output = Output(pipe.stream)
    pipe.fill()
    output.write("lost\n")
    pipe.read()
    output.write("told\n")
    assert (pipe.read(), output.lost) == ("told\n", 0)


def test_the_last_line_waits_longer_for_a_slow_reader(pipe: Pipe) -> None:
    output = Output(pipe.stream)
    pipe.fill()
    output.write("lost\n")
    reader = threading.Timer(LAST_PATIENCE / 5, pipe.read)
    reader.start()
    output.write("last\n", LAST_PATIENCE)
    reader.join()
    assert pipe.read() == "last\n"


@pytest.mark.timeout(30)
def test_a_terminal_that_is_stopped_costs_lines_and_never_blocks() -> None:
    """Ctrl-S in the terminal of a tunnel stopped the tunnel."""
    here, there = os.openpty()
    with open(here, "rb", buffering=0) as person, open(there, "w") as stream:
        output = Output(stream)
        termios.tcflow(there, termios.TCOOFF)
        for _ in range(1000):
            output.write("lost\n")
        termios.tcflow(there, termios.TCOON)
        output.write("told\n")
        assert person.read(1000) == b"told\r\n"


@pytest.mark.timeout(30)
def test_a_terminal_that_nobody_reads_costs_lines_and_never_blocks() -> None:
    """It polls as writable and blocks in the middle of a line: after 109 connections the tunnel stood still."""
    here, there = os.openpty()
    with open(here, "rb", buffering=0) as person, open(there, "w") as stream:
        output = Output(stream)
        for number in range(2000):
            output.write(f"{number:050}\n")
        assert output.lost > 100
        seen = person.read(65536)
        while output.lost:
            output.write("told\n")
        while not seen.endswith(b"told\r\n"):
            seen += person.read(65536)
        *whole, _, _ = seen.split(b"\r\n")
        assert whole == [b"%050d" % number for number in range(len(whole))], "no line is torn"


@pytest.mark.timeout(30)
def test_a_log_on_storage_that_stands_still_costs_lines_and_never_blocks(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full pipe that cannot be opened again stands for the storage: each write to it blocks."""
    monkeypatch.setattr(output_module, "reopened", lambda *_: None)
    output = Output(pipe.stream)
    line = "x" * 1023 + "\n"
    for _ in range(2000):
        output.write(line)
    assert output.lost > 1000
    seen: list[str] = []

    def read() -> None:
        while not seen or not seen[-1].endswith("last\n"):
            seen.append(pipe.read())

    reader = threading.Thread(target=read)
    reader.start()
    output.write("last\n", LAST_PATIENCE)
    assert output.lost == 0
    reader.join()
    assert set("".join(seen).splitlines(keepends=True)) == {line, "last\n"}, "no line is torn"


def test_a_log_file_has_every_line_in_order_when_the_run_ends(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        output = Output(stream)
        for number in range(1000):
            output.write(f"{number}\n")
        output.write("last\n", LAST_PATIENCE)
        assert (tmp_path / "log").read_text().split() == [*map(str, range(1000)), "last"]


def test_a_log_that_was_full_goes_on_when_it_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        output = Output(stream)
        real = os.write

        def full(fd: int, data: memoryview) -> int:
            if fd == stream.fileno():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(fd, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            # A line that is waited for is told of at once.
            with pytest.raises(OSError, match="No space"):
                output.write("never\n", LAST_PATIENCE)
        output.write("last\n", LAST_PATIENCE)
        assert (tmp_path / "log").read_text() == "last\n"


def test_a_stream_that_is_no_descriptor_is_written_without_waiting() -> None:
    stream = io.StringIO()
    Output(stream).write("line\n")
    assert stream.getvalue() == "line\n"


# ---- which descriptor


def test_events_on_stderr_leave_no_room_for_sentences() -> None:
    assert open_output(as_json=True, status_fd=None) is None
    assert open_output(as_json=True, status_fd=3) is not None
    assert open_output(as_json=False, status_fd=None) is not None


def test_a_closed_stderr_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    assert open_output(as_json=False, status_fd=None) is None


def test_a_descriptor_of_no_use_is_a_mistake(pipe: Pipe) -> None:
    for fd in (-1, 10**6, 2**40):
        with pytest.raises(UsageError, match="is not open"):
            open_descriptor(fd, stdio=False)
    with pytest.raises(UsageError, match="for reading only"):
        open_descriptor(pipe.fd, stdio=False)
    with pytest.raises(UsageError, match="mix events"):
        open_descriptor(1, stdio=True)
    open_descriptor(1, stdio=False)


def test_a_descriptor_stays_open_and_gets_each_line_at_once(pipe: Pipe) -> None:
    open_descriptor(pipe.stream.fileno(), stdio=True).write("größer\n")
    assert pipe.read() == "größer\n"
    os.fstat(pipe.stream.fileno())
