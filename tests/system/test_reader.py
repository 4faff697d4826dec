"""A thread that reads: only what was asked for, in order, and nobody waits for a read that hangs."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from punchtunnel.system import reader
from punchtunnel.system.reader import Reader

LONG = 30.0


class Tape:
    """Gives these pieces, one for each read; a read hangs until it is let go on."""

    def __init__(self, *pieces: bytes | OSError) -> None:
        self._pieces = list(pieces)
        self.offsets: list[int | None] = []
        self.goes = threading.Semaphore(0)

    def read(self, _: int, view: memoryview, offset: int | None) -> int:
        self.offsets.append(offset)
        assert self.goes.acquire(timeout=LONG)
        piece = self._pieces.pop(0)
        if isinstance(piece, OSError):
            raise piece
        view[: len(piece)] = piece
        return len(piece)


def take(reader: Reader, size: int = 100) -> bytes | None:
    buffer = bytearray(size)
    count = reader.take(memoryview(buffer))
    return None if count is None else bytes(buffer[:count])


def test_pieces_are_read_as_asked_and_taken_in_order() -> None:
    tape, told = Tape(b"one", b"three", b""), threading.Semaphore(0)
    pieces = Reader(-1, told.release, tape.read)
    pieces.offset = 7
    assert take(pieces) is None
    for _ in range(2):
        pieces.ask()
    assert (take(pieces), pieces.coming) == (None, 2)
    for _ in range(2):
        tape.goes.release()
        assert told.acquire(timeout=LONG)
    assert [take(pieces, 2), take(pieces), take(pieces, 3)] == [b"on", b"e", b"thr"]
    assert take(pieces) == b"ee"
    assert pieces.is_empty
    pieces.ask()
    tape.goes.release()
    assert told.acquire(timeout=LONG)
    assert take(pieces) == b""
    assert tape.offsets == [7, 10, 15]
    pieces.close(told.release)
    assert told.acquire(blocking=False), "a thread that does nothing ends at once"


def test_an_error_is_told_in_its_turn() -> None:
    tape, told = Tape(b"one", OSError(errno.EIO, os.strerror(errno.EIO))), threading.Semaphore(2)
    pieces = Reader(-1, told.release, tape.read)
    tape.goes.release(2)
    for _ in range(2):
        pieces.ask()
    for _ in range(4):
        assert told.acquire(timeout=LONG)
    assert take(pieces) == b"one"
    with pytest.raises(OSError, match="Input/output"):
        take(pieces)
    pieces.close(told.release)


def test_a_read_that_hangs_is_left_behind_and_nothing_is_read_after_it() -> None:
    tape, told, gone = Tape(b"one", b"two"), threading.Semaphore(0), threading.Event()
    pieces = Reader(-1, told.release, tape.read)
    for _ in range(2):
        pieces.ask()
    pieces.close(gone.set)
    assert not gone.is_set()
    tape.goes.release(2)
    assert gone.wait(LONG)
    assert len(tape.offsets) <= 1


def test_reading_at_an_offset_leaves_the_position_alone(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "file")
    with open(path, "w+b", buffering=0) as file:
        file.write(b"0123456789")
        file.seek(2)
        view = memoryview(bytearray(3))
        assert (reader.read_at(file.fileno(), view, 5), bytes(view), file.tell()) == (3, b"567", 2)
        assert (reader.read_at(file.fileno(), view, None), bytes(view), file.tell()) == (3, b"234", 5)
