"""A pipe between two machines: bytes, EOF, and exit statuses of stdio against stdio."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .conftest import PATHS, on_every_path, on_one_path
from .ends import COMMAND, DEVNULL, PIPE, End, Lab, environment
from .flows import MIB, digest, noise

SAME_HOST = "both on 127.0.0.1"
TWO_HOSTS = "127.0.0.1 and 127.0.0.2"


def two_files(lab: Lab, size: int) -> tuple[Path, Path]:
    """Return two files of different random bytes."""
    paths = lab.folder / "left.in", lab.folder / "right.in"
    for path in paths:
        path.write_bytes(os.urandom(size))
    return paths


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("where", "data_path"),
    [*((TWO_HOSTS, path) for path in PATHS), (SAME_HOST, PATHS[0])],
    indirect=["data_path"],
)
def test_100_mb_go_both_ways_at_the_same_time_and_both_ends_exit_with_0(lab: Lab, where: str) -> None:
    sources = two_files(lab, 100 * MIB)
    results = lab.folder / "left.out", lab.folder / "right.out"
    places: list[list[str]] = [["127.0.0.2", "--bind", "127.0.0.1"], ["127.0.0.1", "--bind", "127.0.0.2"]]
    if where == SAME_HOST:
        places = [["127.0.0.1"], ["127.0.0.1"]]
    ends = []
    for place, source, result in zip(places, sources, results, strict=True):
        with source.open("rb") as stdin, result.open("wb") as stdout:
            ends.append(lab.start(*place, "--channel", lab.channel, stdin=stdin, stdout=stdout))
    assert [end.status(60) for end in ends] == [0, 0]
    assert digest(results[0]) == digest(sources[1])
    assert digest(results[1]) == digest(sources[0])


@on_every_path
def test_10_mb_go_both_ways_through_pipes(lab: Lab) -> None:
    left, right = lab.pair()
    data = {left: noise(10 * MIB, seed=1), right: noise(10 * MIB, seed=2)}
    for end, whole in data.items():
        end.feed([whole])
    received: dict[End, bytes] = {}
    # One after the other: what is not read yet must wait without harm.
    for end in (right, left):
        received[end] = end.receive()
    assert received == {right: data[left], left: data[right]}
    assert (left.status(), right.status()) == (0, 0)


@on_every_path
def test_early_eof_of_one_side_arrives_while_the_other_still_sends(lab: Lab) -> None:
    left, right = lab.pair()
    left.send(b"all I have to say")
    left.send_eof()
    assert right.receive() == b"all I have to say"
    # The first direction is over for good; the second one lives.
    for number in range(3):
        right.send(b"still here %d\n" % number)
        assert left.receive(13) == b"still here %d\n" % number
    right.send_eof()
    assert left.receive() == b""
    assert (left.status(), right.status()) == (0, 0)


def test_late_eof_in_the_other_order(lab: Lab) -> None:
    left, right = lab.pair()
    right.send_eof()
    assert left.receive() == b""
    left.feed([noise(MIB)])
    assert right.receive() == noise(MIB)
    assert (left.status(), right.status()) == (0, 0)


@pytest.mark.exhaustive
@on_one_path
def test_reply_that_comes_5_s_after_eof_arrives(lab: Lab) -> None:
    left = lab.start_left()
    # A program that answers late, between the two pipes of the other end.
    answer = "import sys, time; data = sys.stdin.buffer.read(); time.sleep(5); sys.stdout.buffer.write(data[::-1])"
    there, back = os.pipe(), os.pipe()
    right = lab.start_right(stdin=back[0], stdout=there[1])
    lab.program("python3", "-c", answer, stdin=there[0], stdout=back[1])
    for fd in (*there, *back):
        os.close(fd)
    left.send(b"question")
    left.send_eof()
    assert left.receive() == b"noitseuq"
    assert (left.status(), right.status()) == (0, 0)


@pytest.mark.parametrize("data", [b"", b"q", b"\x00", b"\xff" * 65537], ids=["nothing", "q", "zero", "65537 bytes"])
def test_short_inputs_both_ways_arrive_whole(lab: Lab, data: bytes) -> None:
    left, right = lab.pair()
    for end in (left, right):
        end.feed([data])
    assert left.receive() == right.receive() == data
    assert (left.status(), right.status()) == (0, 0)


def test_input_that_is_ready_before_the_peer_starts_is_not_lost(lab: Lab) -> None:
    left = lab.start_left()
    left.send(b"early")
    left.send_eof()
    left.wait_for("punching")
    right = lab.start_right(stdin=DEVNULL)
    assert right.receive() == b"early"
    assert (left.status(), right.status()) == (0, 0)


# ---- options


@pytest.mark.parametrize("option", ["-n", "--recv-only"])
def test_without_stdin_nothing_of_it_is_read_and_the_far_side_sees_eof(lab: Lab, option: str) -> None:
    left, right = lab.pair([option])
    left.send(b"not for you")
    assert right.receive() == b""
    right.send(b"for you")
    right.send_eof()
    assert left.receive() == b"for you"
    assert (left.status(), right.status()) == (0, 0)


def test_no_stdin_leaves_the_input_of_a_script_to_the_script(lab: Lab) -> None:
    source = lab.folder / "script.in"
    source.write_bytes(b"lines of the script")
    with source.open("rb") as stdin:
        left = lab.start_left("-n", stdin=stdin)
        right = lab.start_right(stdin=DEVNULL)
        assert (left.status(), right.status()) == (0, 0)
        assert stdin.read() == b"lines of the script"


def test_a_stdin_that_a_parent_keeps_open_is_named_and_never_cut(lab: Lab) -> None:
    """`ssh host 'punchtunnel PEER > f'` had all bytes, and both sides stayed without a word."""
    left, right = lab.pair()
    left.send(b"everything")
    left.send_eof()
    assert right.receive(10) == b"everything"
    assert "give --recv-only" in right.wait_for("warning")["reason"]
    right.send(b"a late answer")
    right.send_eof()
    assert left.receive() == b"a late answer"
    assert (left.status(), right.status()) == (0, 0)
    assert not left.find("warning")


@pytest.mark.exhaustive
def test_a_stdin_that_has_spoken_is_waited_for_without_a_word(lab: Lab) -> None:
    left, right = lab.pair()
    right.send(b"a question")
    assert left.receive(10) == b"a question"
    left.send_eof()
    assert right.receive() == b""
    # The warning would come 3 s after the EOF.
    right.wait_for("traffic", count=2)
    right.send_eof()
    assert (left.status(), right.status()) == (0, 0)
    assert not right.find("warning")


def test_send_only_writes_nothing_and_ends_the_far_sides_sending(lab: Lab) -> None:
    left, right = lab.pair(["--send-only"])
    left.send(b"take this")
    left.send_eof()
    # The far side's stdin stays open: it must not keep the session alive.
    assert right.receive() == b"take this"
    assert (left.status(), right.status()) == (0, 0)
    assert left.receive() == b""


def test_send_only_against_recv_only_is_a_one_way_pipe(lab: Lab) -> None:
    left, right = lab.pair(["--send-only"], ["--recv-only"])
    left.feed([noise(MIB)])
    assert right.receive() == noise(MIB)
    assert (left.status(), right.status()) == (0, 0)


def test_capital_n_is_accepted_and_changes_nothing(lab: Lab) -> None:
    left, right = lab.pair(["-N"], ["-N"])
    left.send(b"one way")
    left.send_eof()
    assert right.receive() == b"one way"
    right.send(b"and back")
    right.send_eof()
    assert left.receive() == b"and back"
    assert (left.status(), right.status()) == (0, 0)


# ---- outputs that end


@on_every_path
def test_head_ends_the_receiver_quietly_with_141_and_the_sender_with_1_and_a_sentence(lab: Lab) -> None:
    inner, outer = os.pipe()
    head = lab.program("head", "-1", stdin=inner, stdout=PIPE)
    right = lab.start_right(stdout=outer)
    os.close(inner)
    os.close(outer)
    left = lab.start_left()
    left.feed(b"line\n" * 20_000 for _ in range(1000))
    assert head.communicate(timeout=30)[0] == b"line\n"
    assert (right.status(), right.reason) == (141, "")
    assert left.status() == 1
    assert left.reason == "the program at the far side has ended, or takes no more"


def test_full_disk_ends_both_sides_with_1_and_says_so(lab: Lab) -> None:
    with Path("/dev/full").open("wb") as full:
        right = lab.start_right(stdout=full)
    left = lab.start_left()
    left.send(b"too much")
    assert right.status() == 1
    assert "No space left on device" in right.reason
    assert left.status() == 1
    # It heard "connection reset by the far side".
    assert left.reason == "the far side's disk is full: not everything was written there"


def test_stderr_has_one_line_and_stdout_nothing_but_the_tunnels_bytes_without_json(lab: Lab) -> None:
    """As a person sees it: silence while it works, but for a link without a secret; one sentence when it fails."""
    command = [*COMMAND, *lab.towards_right, "--resume", "1"]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=environment()) as process:
        right = lab.start_right()
        right.send(b"!")
        assert process.stdout is not None
        assert process.stdout.read(1) == b"!"
        right.process.kill()
        out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert out == b""
    trusting, *lost, over = err.splitlines()
    assert trusting.startswith(b"punchtunnel: the link is ")
    # A plain link does not come back.
    told = [] if "--plain" in lab.options else [b"punchtunnel: connection lost"]
    assert lost.pop().endswith(b" s: 1 B had arrived here")
    assert [line.partition(b" (")[0] for line in lost] == told
    assert over.startswith(b"punchtunnel: link lost: ")
