"""Two ends of the tool as processes, fed, heard, and gone when the test is over.

    lab.pair([...], [...])   left ──── hole ──── right     two addresses of this
         │                    │ stderr: events     │       test's own on loopback
         └── End ─────────────┘ stdin, stdout      └── End

Rule 1: nobody sleeps; whoever waits, waits for an event, for bytes or for an
        exit, and after WAIT seconds calls it hung.
Rule 2: everything that a test starts belongs to its Lab, which ends it by its
        process id and then looks whether anything is left.
Rule 3: a line on stderr that is no event (a traceback, a ResourceWarning)
        fails the test, whatever else went well.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from .flows import WAIT, Flow, Server, read, sockets

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "punchtunnel"]
PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL

Event = dict[str, Any]
Stdio = int | IO[bytes] | None
T = TypeVar("T")
Closable = TypeVar("Closable", bound=contextlib.AbstractContextManager[Any])

# Events that a failed test need not show.
_NOISE = {"opened", "dial_failed", "rtt", "stream_closed"}


def environment() -> dict[str, str]:
    """Return the environment in which the tool is found and warns of what it forgets to close."""
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default::ResourceWarning", "LC_ALL": "C.UTF-8"}


class End:
    """One process of the tool, started with --json; `events` grows while it runs."""

    def __init__(self, arguments: Sequence[str], stdin: Stdio, stdout: Stdio, shell: str) -> None:
        command = [*COMMAND, "--json", *arguments]
        if shell:
            # The shell closes descriptors and ignores signals, and then becomes the tool.
            command = ["/bin/sh", "-c", f'{shell}; exec "$@"', "sh", *command]
        self.events: list[Event] = []
        self.words: list[str] = []
        self.flows: list[Flow] = []
        self._news = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=PIPE, env=environment(), cwd="/")
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.words.append(line.decode(errors="replace").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    # ---- what it says

    def find(self, event: str, **fields: object) -> list[Event]:
        """Return the events of one name that have these fields."""
        wanted = {"event": event} | fields
        return [one for one in self.events if wanted.items() <= one.items()]

    def wait_for(self, event: str, count: int = 1, **fields: object) -> Event:
        """Wait for the `count`-th event of one name with these fields, and return it."""
        with self._news:
            self._news.wait_for(lambda: self._ended or len(self.find(event, **fields)) >= count, WAIT)
        found = self.find(event, **fields)
        assert len(found) >= count, f"ended or waited {WAIT} s without {count} {event} {fields}: {self}"
        return found[count - 1]

    @property
    def port(self) -> int:
        """The port that the first -L listens on."""
        return int(self.wait_for("listening")["place"].rpartition(":")[2])

    def status(self, wait: float = WAIT) -> int:
        """Wait for the end and return the exit status; negative if a signal killed it."""
        try:
            status = self.process.wait(wait)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {wait} s: {self}") from None
        self._listener.join(WAIT)
        if status >= 0 and self.events:
            assert self.events[-1].get("event") == "exit", f"the last event is not the exit: {self}"
            assert self.events[-1]["status"] == status, f"exit status {status}: {self}"
        return status

    @property
    def reason(self) -> str:
        """The sentence of the exit event; "" if there was nothing to say."""
        return str(self.wait_for("exit")["reason"])

    @property
    def complains(self) -> bool:
        """Tell whether stderr had lines that are no events, as a traceback has."""
        # A signal ends the punch wherever it stands, also with a socket just made.
        by_signal = (self.process.returncode or 0) > 128
        return bool(self.words) and not (by_signal and "ResourceWarning" in self.words[0])

    def __str__(self) -> str:
        told = [f"{one.pop('event')} {one}" for one in map(dict, self.events) if one["event"] not in _NOISE]
        return "\n  ".join([f"pid {self.process.pid}, status {self.process.poll()}", *told, *self.words])

    # ---- its stdin and stdout, where they are pipes

    def send(self, data: bytes) -> None:
        """Write to its stdin what fits into the pipe; `feed` is for more."""
        assert self.process.stdin is not None
        assert len(data) <= select.PIPE_BUF
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def feed(self, chunks: Iterable[bytes]) -> Flow:
        """Write to its stdin from a thread that closes it behind the last chunk."""
        assert self.process.stdin is not None
        flow = Flow(os.dup(self.process.stdin.fileno()), chunks)
        self.flows.append(flow)
        self.process.stdin.close()
        flow.start()
        return flow

    def send_eof(self) -> None:
        """Close its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def receive(self, count: int | None = None) -> bytes:
        """Read `count` bytes from its stdout, or everything up to EOF."""
        assert self.process.stdout is not None
        return read(self.process.stdout.fileno(), count)

    # ---- /proc

    @property
    def peak_memory(self) -> int:
        """The most memory that it ever held, in bytes (VmHWM)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def descriptors(self) -> list[str]:
        """Return what its descriptors above stderr lead to."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        found = []
        for fd in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append((int(fd.name), os.readlink(fd)))
        return [target for number, target in found if number > 2]


class Lab:
    """What one test has started.

    Attributes:
        folder: Empty, and removed with everything in it.
        left, right: Addresses of this test's own, for one end each.
        channel: Nobody else's.
        options: Every end's own.
    """

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.options = options
        self.channel = secrets.token_hex(8)
        net = f"127.{1 + secrets.randbelow(250)}.{secrets.randbelow(256)}"
        self.left, self.right = f"{net}.1", f"{net}.2"
        self._ends: list[End] = []
        self._programs: list[subprocess.Popen[bytes]] = []
        self._servers: list[Server] = []
        self._threads: list[threading.Thread] = []
        self._deferred = contextlib.ExitStack()
        self._cleanups = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        processes = [end.process for end in self._ends] + self._programs
        for program in self._programs:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
        for process in processes:
            _close_pipes(process.stdin)
            if process.poll() is None:
                # A stopped process would not die of anything milder.
                process.kill()
            process.wait(WAIT)
        self._deferred.close()
        self.close_servers()
        self._cleanups.close()
        for thread in self._threads:
            thread.join(WAIT)
            assert not thread.is_alive(), "a thread of this test hangs"
        for process in processes:
            _close_pipes(process.stdout)
        for program in self._programs:
            _close_pipes(program.stderr)
        for end in self._ends:
            for flow in end.flows:
                flow.join(WAIT)
                assert not flow.is_alive(), f"a thread that feeds hangs: {end}"
            end._listener.join(WAIT)
            _close_pipes(end.process.stderr)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not any(end.complains for end in self._ends), "\n".join(map(str, self._ends))
        assert not self.sockets_left(), "sockets left behind"

    def sockets_left(self) -> list[str]:
        """Return the sockets on this test's addresses that listen or are connected."""
        return [line for line in sockets("01", "0A") if line.startswith((f"{self.left}:", f"{self.right}:"))]

    # ---- ends

    def start(self, *arguments: str, stdin: Stdio = PIPE, stdout: Stdio = PIPE, shell: str = "") -> End:
        """Start one end with exactly these arguments, after what `shell` does in its process."""
        end = End(arguments, stdin, stdout, shell)
        self._ends.append(end)
        return end

    def start_left(self, *arguments: str, stdin: Stdio = PIPE, stdout: Stdio = PIPE, shell: str = "") -> End:
        """Start the end at the left address."""
        return self.start(*self.towards_right, *arguments, stdin=stdin, stdout=stdout, shell=shell)

    def start_right(self, *arguments: str, stdin: Stdio = PIPE, stdout: Stdio = PIPE, shell: str = "") -> End:
        """Start the end at the right address."""
        return self.start(*self.towards_left, *arguments, stdin=stdin, stdout=stdout, shell=shell)

    @property
    def towards_right(self) -> list[str]:
        """The arguments that make an end the left one."""
        return [self.right, "--bind", self.left, "--channel", self.channel, *self.options]

    @property
    def towards_left(self) -> list[str]:
        """The arguments that make an end the right one."""
        return [self.left, "--bind", self.right, "--channel", self.channel, *self.options]

    def pair(self, left: Sequence[str] = (), right: Sequence[str] = ()) -> tuple[End, End]:
        """Start both ends, with pipes, and wait until the link is up."""
        ends = self.start_left(*left), self.start_right(*right)
        for end in ends:
            end.wait_for("link_up")
        return ends

    def tunnel(self, target: int | str, *listens: str) -> tuple[End, End]:
        """Start -L (port 0 unless given) at the left and --to `target` at the right."""
        options = [word for place in listens or ("0",) for word in ("-L", place)]
        return self.pair(options, ["--to", str(target)])

    # ---- everything else that runs

    def program(
        self,
        *command: str,
        stdin: Stdio = DEVNULL,
        stdout: Stdio = None,
        stderr: Stdio = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program; if it still runs at the end, it is killed with the processes it has started."""
        process = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, bufsize=0, start_new_session=True
        )
        self._programs.append(process)
        return process

    def serve(self, handle: Callable[[socket.socket], None], backlog: int = 512) -> int:
        """Accept connections and give each to `handle` in a thread; return the port."""
        server = Server(socket.create_server(("127.0.0.1", 0), backlog=backlog), handle)
        self._servers.append(server)
        return server.port

    def serve_on(self, listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        """Accept connections of a listener that is there already, and own it."""
        self._servers.append(Server(listener, handle))

    def close_servers(self) -> None:
        """Stop all servers, and fail if one of them has failed."""
        while self._servers:
            self._servers.pop().close()

    def connect(self, port: int) -> socket.socket:
        """Connect to a local port; the socket is closed with the test at the latest."""
        return self._cleanups.enter_context(socket.create_connection(("127.0.0.1", port), WAIT))

    def in_background(self, action: Callable[[], object]) -> None:
        """Run something in a thread that must have ended when the test ends."""
        thread = threading.Thread(target=action, daemon=True)
        thread.start()
        self._threads.append(thread)

    def defer(self, action: Callable[[], object]) -> None:
        """Do something when the test is over, before servers are closed."""
        self._deferred.callback(action)

    def enter(self, context: contextlib.AbstractContextManager[T]) -> T:
        """Return what a context gives, until the test is over."""
        return self._cleanups.enter_context(context)

    def own(self, thing: Closable) -> Closable:
        """Close something with the test at the latest."""
        self._cleanups.enter_context(thing)
        return thing


def _close_pipes(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):
            pipe.close()
