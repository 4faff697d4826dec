"""A reader who does not read."""

from __future__ import annotations

import contextlib
import io
import os


class Pipe:
    """A pipe whose writing end is a stream; nobody reads unless asked to."""

    def __init__(self) -> None:
        self.fd, there = os.pipe()
        self.stream = io.TextIOWrapper(io.FileIO(there, "w"), write_through=True)

    def fill(self) -> None:
        os.set_blocking(self.stream.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.stream.fileno(), b"x" * 512)
        os.set_blocking(self.stream.fileno(), True)

    def read(self) -> str:
        return os.read(self.fd, 1 << 20).decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self.fd)
