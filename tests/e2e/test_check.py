"""-z: it finds the path, measures it, and leaves the other side as it was."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.reporting.test_events import check as check_event

from .ends import COMMAND, DEVNULL, PIPE, ROOT, End, Lab, environment
from .flows import WAIT, echo, receive
from .test_sealed import knowing
from .test_terminal import Person

LINE = re.compile(
    rb"connected to \S+ from port \d+, (plain|sealed, (not )?authenticated); "
    rb"round trip [0-9.]+ ms, median [0-9.]+ ms, at most [0-9.]+ ms\n"
)


@pytest.fixture
def data_path() -> list[str]:
    """Return nothing: -z moves no payload, and some of these tests choose --plain themselves."""
    return []


def check(lab: Lab, *options: str, shell: str = "") -> End:
    """Check the path from the right to the left, and return the finished end."""
    end = lab.start_right("-z", *options, stdin=DEVNULL, shell=shell)
    assert end.status() == 0, end
    for event in end.events:
        check_event(event)
    (path,) = end.find("path")
    assert 0 < path["rtt_min_s"] <= path["rtt_median_s"] <= path["rtt_max_s"] < 5
    assert (path["local"], path["remote"]) == (end.find("hole")[0]["local"], end.find("hole")[0]["remote"])
    # Ten that count, one before them and one behind the goodbye.
    assert 11 <= len(end.find("rtt")) <= 12
    return end


@pytest.mark.parametrize(
    "options", [[], *(pytest.param([option], marks=pytest.mark.exhaustive) for option in ("--send-only", "--plain"))]
)
def test_a_pipe_that_waits_is_checked_twice_and_then_still_carries_its_data(lab: Lab, options: Sequence[str]) -> None:
    left = lab.start_left(*options)
    left.send(b"typed before anybody came")
    both = [option for option in options if option == "--plain"]
    for number in (1, 2):
        check(lab, *both)
        check_event(left.wait_for("checked", number))
    right = lab.start_right(*both)
    assert right.receive(25) == b"typed before anybody came"
    for end in (left, right):
        end.send_eof()
    assert (left.status(), right.status()) == (0, 0)


@pytest.mark.parametrize("keep", [pytest.param([], marks=pytest.mark.exhaustive), ["-k"]])
def test_ports_are_checked_and_serve_afterwards(lab: Lab, keep: list[str]) -> None:
    left = lab.start_left("-L", "0", *keep)
    check(lab)
    left.wait_for("checked")
    check(lab, "--to", "22")
    lab.start_right("--to", str(lab.serve(echo)))
    with lab.connect(left.port) as client:
        client.sendall(b"hello")
        assert receive(client, 5) == b"hello"
    # One for each family.
    assert len(left.find("listening")) == 2


def test_two_that_only_check_find_the_same_path(lab: Lab) -> None:
    left = lab.start_left("-z", "-L", "0")
    right = check(lab, "-L", "0")
    assert left.status() == 0
    assert (left.find("path")[0]["local"], left.find("path")[0]["remote"]) == (
        right.find("path")[0]["remote"],
        right.find("path")[0]["local"],
    )
    assert not left.find("listening")
    assert not left.find("checked")


@pytest.mark.parametrize("secret", ["", "tiger tiger burning bright"])
def test_a_person_gets_one_line_on_stdout(lab: Lab, secret: str) -> None:
    left = lab.start_left(shell=knowing(secret))
    right = lab.program(
        *("/bin/sh", "-c", f'{knowing(secret)}; exec "$@"', "sh", *COMMAND, *lab.towards_left, "-z"),
        stdout=PIPE,
        stderr=PIPE,
        env=environment(),
    )
    out, err = right.communicate(timeout=WAIT)
    assert right.returncode == 0
    assert err == b"" if secret else b"not authenticated" in err
    found = LINE.fullmatch(out)
    assert found
    assert found[1] == (b"sealed, authenticated" if secret else b"sealed, not authenticated")
    left.wait_for("checked")
    left.process.terminate()
    assert left.status() == 143


def test_a_person_at_a_terminal_sees_what_was_found_once(lab: Lab) -> None:
    left = lab.start_left()
    person = Person(lab, [*lab.towards_left, "-z"], descriptors=(1, 2))
    assert person.status() == 0
    assert sum("connected to" in row for row in person.rows) == 1
    assert LINE.fullmatch(f"{person.rows[-2]}\n".encode())
    left.wait_for("checked")


def test_stdin_is_left_to_the_next_program(lab: Lab) -> None:
    left = lab.start_left()
    tool = " ".join([*COMMAND, *lab.towards_left, "-z -q >/dev/null"])
    shell = lab.program("/bin/sh", "-c", f"{tool} && cat", stdin=PIPE, stdout=PIPE, env=environment())
    assert shell.communicate(b"all of it\n", timeout=WAIT)[0] == b"all of it\n"
    left.wait_for("checked")


# ---- what fails


def test_nobody_there_is_exit_3(lab: Lab) -> None:
    assert lab.start_right("-z", "-w", "1").status() == 3


@pytest.mark.exhaustive
def test_another_secret_is_exit_4(lab: Lab) -> None:
    lab.start_left(shell=knowing("one")).wait_for("waiting")
    assert lab.start_right("-z", "-w", "3", shell=knowing("other")).status() == 4


@pytest.mark.exhaustive
def test_the_library_is_told_that_it_cannot_be_checked(lab: Lab) -> None:
    code = f"import punchtunnel; punchtunnel.punch({lab.right!r}, bind={lab.left!r}, channel={lab.channel!r}, wait=3)"
    library = lab.program(
        sys.executable, "-c", code, stderr=subprocess.PIPE, env=environment() | {"PYTHONPATH": str(ROOT)}
    )
    assert lab.start_right("-z", "--plain", "-w", "3").status() == 4
    assert b"RejectedError" in library.communicate(timeout=WAIT)[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_peer_that_ends_before_it_is_measured_is_a_lost_link(lab: Lab, number: signal.Signals) -> None:
    left, right = lab.start_left(), lab.start_right("-z")
    right.wait_for("rtt")
    left.process.send_signal(number)
    left.process.wait(WAIT)
    assert right.status() == 1
    assert right.reason
    assert not right.find("path")


def test_a_check_that_is_interrupted_ends_with_its_signal_and_the_other_side_goes_on(lab: Lab) -> None:
    left, right = lab.start_left(), lab.start_right("-z")
    right.wait_for("rtt")
    right.process.terminate()
    assert right.status() == 143
    left.wait_for("checked")
    assert left.process.poll() is None


@pytest.mark.exhaustive
def test_a_check_takes_nothing_from_the_time_to_wait(lab: Lab) -> None:
    left = lab.start_left("-w", "8")
    left.wait_for("waiting")
    check(lab)
    assert left.status() == 3
    # It said "in 2.8 s", what was left, and that the peer was not punching yet.
    assert re.match(rf"no hole to {lab.right} in 8 s: \d+ dials; the peer has checked the path", left.reason)
    (start,), (end,) = left.find("start"), left.find("exit")
    # Not before all of its time is over.
    assert end["time_s"] - start["time_s"] > 7.8
