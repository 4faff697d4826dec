"""A session through a transit relay, made by hand: what is looked at is what passes, not how the two sides met."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator

from punchtunnel.address import Place
from punchtunnel.protocol.agreement import Keys
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.protocol.resume import Ticket
from punchtunnel.protocol.token import TOKEN_SIZE
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.reach.transit import SIDE_SIZE, request

# A test that waits so long is hung.
HUNG = 30.0
KEYS = b"l" * 32, b"f" * 32


@contextlib.contextmanager
def running_relay(host: str = "127.0.0.1", *, namespace: tuple[str, ...] = ()) -> Iterator[Place]:
    """Run a relay on a port that the system chooses, and its log tells; `namespace` goes before its command."""
    command = [*namespace, "twist3", "--log-format=text", "transitrelay", f"--port=tcp:0:interface={host}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if found := re.search(r"Transit starting on (\d+)", line):
                break
        else:
            raise AssertionError("the relay has not started")
        # Its log is short, but a full pipe would stop it.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        try:
            yield Place(host, int(found[1]))
        finally:
            process.terminate()


def ask(relay: Place, token: bytes = bytes(TOKEN_SIZE)) -> socket.socket:
    """Connect to the relay, and ask it for another side with this token."""
    sock = socket.create_connection((relay.host, relay.port), HUNG)
    sock.sendall(request(token, os.urandom(SIDE_SIZE)))
    return sock


def met(sock: socket.socket, leads: bool, relay: str) -> Hole:
    """Wait until the relay has found the other side, and return what that is to a session."""
    said = b""
    while len(said) < 3 and (more := sock.recv(3 - len(said))):
        said += more
    assert said == b"ok\n", said
    mine, theirs = KEYS if leads else KEYS[::-1]
    keys = Keys(mine, theirs, b"", b"", b"", Ticket(b"s" * 16, b"s" * 32))
    role = Role.TO if leads else Role.LISTEN
    return Hole(sock, "here", "there", b"", leads, role, Trait.RESUME, 0.0, Counts(), keys, True, relay=relay)
