"""Cuts the hole of a running process from outside, as a network does: neither side is asked.

pidfd_getfd    a socket of the process, in our hands
    reset      its connection is aborted: RST to the peer, an error here
    shut       it ends: FIN to the peer, an end here
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import socket
import time
from collections.abc import Iterable, Iterator, Sequence

import pytest

from .ends import End, Lab
from .flows import WAIT

# Both have one number on every architecture.
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
_LIBC = ctypes.CDLL(None, use_errno=True)
# Seconds.  An election and the first words on the next hole take so long, and a loss may fall into them.
HANDSHAKE = 0.03


def cut(process: int, hosts: Iterable[str], how: str = "reset") -> int:
    """Cut every connection of a process with one of these hosts; return how many there were."""
    return sum(_break(sock, how) for sock in _connections(process, set(hosts)))


def _break(sock: socket.socket, how: str) -> bool:
    if how == "shut":
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        return True
    # connect() to AF_UNSPEC.
    return bool(_LIBC.connect(sock.fileno(), bytes(16), 16) == 0)


def _connections(process: int, hosts: set[str]) -> Iterator[socket.socket]:
    pidfd = _LIBC.syscall(_PIDFD_OPEN, process, 0)
    if pidfd < 0:
        return
    try:
        for name in os.listdir(f"/proc/{process}/fd"):
            with contextlib.suppress(OSError):
                if not os.readlink(f"/proc/{process}/fd/{name}").startswith("socket:"):
                    continue
                taken = _LIBC.syscall(_PIDFD_GETFD, pidfd, int(name), 0)
                if taken < 0:
                    raise OSError(ctypes.get_errno(), "pidfd_getfd")
                with socket.socket(fileno=taken) as sock:
                    if sock.family == socket.AF_INET and sock.getpeername()[0] in hosts:
                        yield sock
    except FileNotFoundError:
        # The process has ended meanwhile.
        return
    finally:
        os.close(pidfd)


def needs_descriptors_of_others() -> None:
    """Skip where the kernel has no pidfd_getfd, or does not let us use it."""
    pidfd = _LIBC.syscall(_PIDFD_OPEN, os.getpid(), 0)
    with contextlib.suppress(OSError):
        taken = _LIBC.syscall(_PIDFD_GETFD, pidfd, 0, 0)
        os.close(pidfd)
        if taken >= 0:
            os.close(taken)
            return
    pytest.skip("needs pidfd_getfd")


class Storm:
    """Cuts the hole between two ends at random moments.

    Attributes:
        losses: How many times it was cut.
    """

    def __init__(self, lab: Lab, ends: Sequence[End], seed: int) -> None:
        self.losses = 0
        self._hosts = lab.left, lab.right
        self._ends = ends
        self._rng = random.Random(seed)

    def strike(self) -> bool:
        """Cut what connects the two at one of them; wait for it, and return False if one has ended."""
        deadline = time.monotonic() + WAIT
        while all(end.process.poll() is None for end in self._ends):
            end = self._rng.choice(self._ends)
            if cut(end.process.pid, self._hosts, self._rng.choice(("reset", "shut"))):
                self.losses += 1
                return True
            assert time.monotonic() < deadline, f"no hole for {WAIT} s: {self._ends[0]}\n{self._ends[1]}"
            time.sleep(0.001)
        return False

    def strike_at_random(self) -> bool:
        """Cut now, and half of the time again within the next election, or the first words after it."""
        going = self.strike()
        while going and self._rng.random() < 0.5:
            going = self.strike_within(HANDSHAKE)
        return going

    def strike_within(self, seconds: float) -> bool:
        """Cut at a random moment of these seconds."""
        time.sleep(self._rng.random() * seconds)
        return self.strike()
