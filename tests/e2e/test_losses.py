"""The hole is cut at random moments: every byte arrives, once, and both ends know it."""

from __future__ import annotations

import random
import threading

import pytest

from .cuts import Storm, needs_descriptors_of_others
from .ends import End, Lab
from .flows import echo, noise, read, receive

MANY = pytest.mark.exhaustive
CLIENTS = 4
# Bytes that are read between two losses.
STEP = 400_000


@pytest.fixture
def data_path() -> list[str]:
    """Return what both sides add: only a sealed session goes on."""
    needs_descriptors_of_others()
    return ["--no-secret"]


def assert_both_ended_well(*ends: End) -> None:
    told = "\n".join(map(str, ends))
    assert [end.status() for end in ends] == [0, 0], told
    assert all(end.find("resumed") for end in ends), told


@pytest.mark.parametrize(("losses", "seed"), [(8, 1), *(pytest.param(50, seed, marks=MANY) for seed in range(2, 12))])
def test_files_go_both_ways_over_many_holes(lab: Lab, losses: int, seed: int) -> None:
    rng = random.Random(seed)
    files = [lab.folder / "left", lab.folder / "right"]
    data = [noise(losses * STEP, seed + number) for number in range(2)]
    for path, content in zip(files, data, strict=True):
        path.write_bytes(content)
    with files[0].open("rb") as left_in, files[1].open("rb") as right_in:
        left, right = lab.start_left(stdin=left_in), lab.start_right(stdin=right_in)
    for end in (left, right):
        end.wait_for("link_up")
    storm = Storm(lab, (left, right), seed)
    got = [b"", b""]
    outs = [end.process.stdout.fileno() for end in (right, left) if end.process.stdout is not None]
    # Until everything has come, in whatever hole it came.
    while storm.losses < losses and storm.strike_at_random():
        for number, out in enumerate(outs):
            left_over = len(data[number]) - len(got[number])
            got[number] += read(out, min(rng.randrange(STEP), left_over))
    assert storm.losses >= losses // 2
    got = [begin + read(out) for begin, out in zip(got, outs, strict=True)]
    assert got == data
    assert_both_ended_well(left, right)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=MANY) for seed in range(2, 52))])
def test_a_goodbye_that_is_cut_is_said_again(lab: Lab, seed: int) -> None:
    """A follower ended with 0, and the leader looked for it for a minute and ended with 1."""
    left, right = lab.pair()
    storm = Storm(lab, (left, right), seed)
    storm.strike()
    for sender, receiver in ((left, right), (right, left)):
        sender.send(b"all I have to say")
        assert receiver.receive(17) == b"all I have to say"
    for end in (left, right):
        end.send_eof()
    storm.strike_within(0.006)
    assert_both_ended_well(left, right)


@pytest.mark.parametrize(("losses", "seed"), [(8, 1), *(pytest.param(50, seed, marks=MANY) for seed in range(2, 12))])
def test_clients_of_a_port_get_every_byte_back_over_many_holes(lab: Lab, losses: int, seed: int) -> None:
    left, right = lab.tunnel(lab.serve(echo))
    storm = Storm(lab, (left, right), seed)
    over = threading.Event()
    rounds: list[int] = []

    def talk(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        count = 0
        while not over.is_set():
            with lab.connect(left.port) as client:
                for _ in range(rng.randrange(1, 4)):
                    data = rng.randbytes(rng.choice((1, 1000, 100_000)))
                    client.sendall(data)
                    assert receive(client, len(data)) == data
                    count += 1
        rounds.append(count)

    for number in range(CLIENTS):
        lab.in_background(lambda number=number: talk(number))  # type: ignore[misc]
    while storm.losses < losses:
        assert storm.strike_at_random()
        left.wait_for("resumed", len(left.find("resumed")) + 1)
    over.set()
    for thread in lab._threads:
        thread.join()
    assert len(rounds) == CLIENTS
    assert all(rounds)
    assert not left.find("stream_reset")
    assert not right.find("stream_reset")
    for end in (left, right):
        end.wait_for("stream_closed", len(left.find("stream_opened")))
    left.process.terminate()
    assert (left.status(), right.status()) == (143, 0), f"{left}\n{right}"
