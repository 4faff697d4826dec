"""Storage that stands still, without a disk: the reads of a file are kept from going on."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from punchtunnel.ends import filesource
from punchtunnel.system import reader

# Seconds: a test that waits so long is hung.
LONG = 30.0


class Storage:
    """Takes the place of the two ways to read a file.

    Args:
        error: What a read without waiting ends with; 0: it is in memory.
        monkeypatch: Puts everything back.

    Attributes:
        goes: It does not stand still.
        reads: How many reads the thread has begun.
        breaks_at: A read that begins there or later ends with EIO.
    """

    def __init__(self, error: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = error
        self.goes = threading.Event()
        self.reads = 0
        self.breaks_at = 1 << 60
        self._begun = threading.Condition()
        self._read_now, self._read_at = filesource.read_now, reader.read_at
        monkeypatch.setattr(filesource, "read_now", self._now)
        monkeypatch.setattr(filesource, "read_at", self._at)

    def _now(self, fd: int, view: memoryview, offset: int = -1) -> int:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        return self._read_now(fd, view, offset)

    def _at(self, fd: int, view: memoryview, offset: int | None) -> int:
        if threading.current_thread().name != "reader":
            return self._read_at(fd, view, offset)
        with self._begun:
            self.reads += 1
            self._begun.notify_all()
        assert self.goes.wait(LONG)
        if offset is not None and offset >= self.breaks_at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._read_at(fd, view, offset)

    def wait_for_reads(self, count: int) -> None:
        """Wait until the thread has begun that many."""
        with self._begun:
            assert self._begun.wait_for(lambda: self.reads >= count, LONG)

    def join(self) -> None:
        """Wait until no thread reads any more."""
        for thread in threading.enumerate():
            if thread.name == "reader":
                thread.join(LONG)
