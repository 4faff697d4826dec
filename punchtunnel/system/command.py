"""A command of the shell whose stdin and stdout are one end of a connection; the other end is ours.

    sock ═══ Unix socket pair ═══ stdin, stdout of `sh -c COMMAND` ── wherever that leads
                                  stderr ──> lines

    running ── it ends by itself ──────────────────────────────────┐
       └── sock is closed ── LINGER ──> SIGTERM ── STUBBORN ──> SIGKILL ──> ended

Rule 1: a thread of its own waits for the end of the command, so that no zombie is left; the interpreter
        waits for that thread when it exits, so that no process is left either.
Rule 2: who has the socket needs to know nothing of the command: closing the one ends the other.
Rule 3: what a command leaves running behind its shell is killed with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

# Seconds for a command whose stdin has ended to deliver what it has read, and to end by itself.
LINGER = 0.5
# Seconds for a command that was told to end.
STUBBORN = 1.0
# Seconds between two looks at a process, where the system has no descriptor for it.
LOOK_EVERY = 0.25
# Lines of stderr that are kept until somebody takes them, and characters of each.
MOST_LINES = 20
LONGEST_LINE = 200
# Bytes.
PIPE_SIZE = 1 << 16
NEVER = float("inf")


class Command:
    """One run of a command, which begins at once.

    Args:
        line: For /bin/sh.  It runs in a session of its own: a Ctrl-C that is meant for this process does not
            reach it, and it has no terminal to ask anything on.
        environment: Of the command.
        tell: Called by a thread when it has written a line to stderr, and when it has ended.

    Attributes:
        sock: Our end of the connection; its owner closes it.
        status: Of the shell, once the command has ended: the exit status, or minus the signal; None before that.
        unasked: It has ended while our end was open.

    Raises:
        OSError: The system refuses a process or a descriptor.
    """

    def __init__(self, line: str, environment: Mapping[str, str], tell: Callable[[], None]) -> None:
        self.status: int | None = None
        self.unasked = True
        self._tell = tell
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._partial = b""
        self.sock, self._far = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", line],
                stdin=self._far.fileno(),
                stdout=self._far.fileno(),
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            self.sock.close()
            self._far.close()
            raise
        assert self._process.stderr is not None
        self._stderr = self._process.stderr
        os.set_blocking(self._stderr.fileno(), False)
        self._thread = threading.Thread(target=self._watch, name="command")
        try:
            self._thread.start()
        except RuntimeError as error:
            self._kill(signal.SIGKILL)
            self.sock.close()
            self._finish()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error

    def take_lines(self) -> list[str]:
        """Return what was written to stderr since the last call, the last MOST_LINES lines of it."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._lines.popleft())
        return taken

    def join(self) -> None:
        """Wait until it has ended; its socket must be closed."""
        self._thread.join()

    # ---- in the thread

    def _watch(self) -> None:
        process = _descriptor_of(self._process.pid)
        poll = select.poll()
        # A full close is reported whatever is asked for, and a half-close is not: then bytes may still come back.
        poll.register(self._far, 0)
        poll.register(self._stderr, select.POLLIN)
        if process is not None:
            poll.register(process, select.POLLIN)
        try:
            self._attend(poll, process)
        finally:
            # Before it is reaped, where there is a descriptor for it: until then nobody else can have its number.
            self._kill(signal.SIGKILL)
            if process is not None:
                os.close(process)
            self._finish()
            self._tell()

    def _attend(self, poll: select.poll, process: int | None) -> None:
        """Serve a command until its shell has ended, and leave it to be reaped."""
        due, next_signal, ended = NEVER, signal.SIGTERM, False
        while not ended:
            now = time.monotonic()
            if now >= due:
                self._kill(next_signal)
                due, next_signal = now + STUBBORN, signal.SIGKILL
            pause = min(due - now, NEVER if process is not None else LOOK_EVERY)
            for fd, what in poll.poll(None if pause == NEVER else max(1, int(pause * 1000))):
                if fd == self._far.fileno():
                    poll.unregister(fd)
                    due = now + LINGER
                elif fd == process:
                    ended = True
                elif not (what & select.POLLIN and self._read()):
                    poll.unregister(fd)
            ended = ended or (process is None and self._process.poll() is not None)

    def _kill(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self._process.pid, number)

    def _finish(self) -> None:
        """Take what is left of a command that has ended."""
        # It may have ended so soon after our end was closed that both were seen at once.
        poll = select.poll()
        poll.register(self._far, 0)
        self.unasked = not poll.poll(0)
        self._read()
        if last := readable(self._partial):
            self._lines.append(last)
        self._stderr.close()
        # A process that has left the session may still have the other copies.
        with contextlib.suppress(OSError):
            self._far.shutdown(socket.SHUT_RDWR)
        self._far.close()
        self.status = self._process.wait()

    def _read(self) -> bool:
        """Take whole lines of stderr; return False at its end."""
        try:
            data = os.read(self._stderr.fileno(), PIPE_SIZE)
        except OSError:
            return True
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._partial = self._partial[: 4 * LONGEST_LINE]
        if told := [text for line in lines if (text := readable(line))]:
            self._lines.extend(told)
            self._tell()
        return bool(data)


def readable(line: bytes) -> str:
    """Return a line as a terminal can show it: no control characters, and LONGEST_LINE characters at most."""
    text = line[: 4 * LONGEST_LINE].decode(errors="replace").strip()
    return "".join(one if one.isprintable() else "?" for one in text)[:LONGEST_LINE]


def _descriptor_of(process: int) -> int | None:
    """Return a descriptor that is readable when a process has ended; None where there is none (Linux from 5.3 on)."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return os.pidfd_open(process)
    return None
