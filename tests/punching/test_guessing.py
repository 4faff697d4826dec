"""A stranger who guesses the secret gets few answers, whatever it says and however it leaves."""

from __future__ import annotations

import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from punchtunnel.errors import NoHoleError, RejectedError
from punchtunnel.protocol import schedule
from punchtunnel.protocol.agreement import MESSAGE_SIZE, TAG_SIZE, Agreement
from punchtunnel.protocol.election import ACCEPT, PICK
from punchtunnel.protocol.hello import HELLO_SIZE, Hello, Role
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.rations import FREE_TRIES, RESERVED_TRIES, TRY_EVERY, Rations
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting.events import Event, Guessed, Report, unreported

A, B = "127.0.0.1", "127.0.0.2"
WAIT = 3.0
ANSWER_SIZE = HELLO_SIZE + len(ACCEPT) + MESSAGE_SIZE + TAG_SIZE


def guess(channel: str, said: bytes, leave: bool) -> bool:
    """Lead a connection to the puncher on A; tell whether its tag came, which tells whether the guess was right."""
    tag = schedule.channel_tag(channel)
    with socket.socket() as sock:
        sock.settimeout(0.5)
        sock.bind((B, 0))
        try:
            sock.connect((A, schedule.bucket_ports(channel, schedule.CLOCK_FREE, 1)[0]))
            sock.sendall(Hello(b"\xff" * 8 + os.urandom(8), tag, Role.RAW).encode() + said)
            answer = b""
            while len(answer) < ANSWER_SIZE and (data := sock.recv(ANSWER_SIZE)):
                answer += data
            if not leave and len(answer) == ANSWER_SIZE:
                sock.sendall(bytes(TAG_SIZE))
                sock.recv(1)
        except OSError:
            return False
    return len(answer) == ANSWER_SIZE


def answers(
    channel: str,
    wait: float,
    rations: Rations | None = None,
    leave: bool = True,
    report: Report = unreported,
) -> int:
    """Guess during one whole punch; return how many guesses were answered."""
    settings = Settings([B], channel=channel, wait=wait, bind=A, secret=b"tiger")
    count = 0
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(open_hole, settings, rations=rations, report=report)
        message = Agreement(b"a guess", schedule.channel_tag(channel), os.urandom).message
        while not end.done():
            if guess(channel, PICK + message, leave):
                count += 1
            else:
                time.sleep(0.01)  # nothing listens yet, or the puncher lets it wait
        with pytest.raises((NoHoleError, RejectedError)):
            end.result()
    return count


@pytest.fixture
def channel() -> str:
    return f"guess {os.urandom(8).hex()}"


@pytest.mark.parametrize("leave", [False, True], ids=["with a wrong tag", "without a tag"])
def test_a_guesser_gets_five_answers_and_then_one_every_ten_seconds(channel: str, leave: bool) -> None:
    """Whoever closed the connection instead of sending its own tag could guess without end."""
    assert WAIT < TRY_EVERY
    told: list[Event] = []
    assert 0 < answers(channel, WAIT, leave=leave, report=told.append) <= FREE_TRIES
    # One that left had nothing said of it.
    (event,) = (one for one in told if isinstance(one, Guessed))
    assert event.remote.startswith(f"{B}:")


@pytest.mark.exhaustive
def test_punches_with_the_same_rations_answer_no_more_than_one(channel: str) -> None:
    """Each punch of a service gave five fresh tries."""
    # The clock stands still: not one try is added, however long it takes.
    rations = Rations(lambda: 0.0)
    assert 0 < sum(answers(channel, WAIT / 2, rations) for _ in range(3)) <= FREE_TRIES - RESERVED_TRIES
