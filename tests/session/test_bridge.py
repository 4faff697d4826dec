"""How a session ends that somebody has changed on the way."""

from __future__ import annotations

import socket

import pytest

from punchtunnel.address import parse_target
from punchtunnel.errors import Exit
from punchtunnel.protocol.agreement import Keys
from punchtunnel.protocol.frames import Flag, Goodbye, Header, Kind
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.protocol.records import OVERHEAD, Sealer
from punchtunnel.protocol.resume import Ticket
from punchtunnel.punching.hole import Counts, Hole
from punchtunnel.reporting.events import unreported
from punchtunnel.session import running
from punchtunnel.session.plan import Plan
from punchtunnel.session.roles import Ports

KEY, OTHER = b"k" * 32, b"o" * 32
GOODBYE = Header(Kind.GO_AWAY, Flag(0), 0, Goodbye.NORMAL).encode()
PING = Header(Kind.PING, Flag.SYN, 0, 1).encode()


def sealed(*frames: bytes) -> list[bytes]:
    sealer, records = Sealer(KEY, True), []
    for frame in frames:
        record = memoryview(bytearray(len(frame) + OVERHEAD))
        sealer.seal_into(memoryview(frame), record)
        records.append(bytes(record))
    return records


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


GOODBYE_RECORD, PING_RECORD = sealed(GOODBYE, PING)
# What comes from the leader, and how that ends.
ENDINGS = {
    "its own end": (GOODBYE_RECORD + PING_RECORD, Exit.OK),
    "cut in a record": (GOODBYE_RECORD + PING_RECORD[:-1], Exit.OK),
    "changed": (GOODBYE_RECORD + flipped(PING_RECORD), Exit.LOST),
    "repeated": (GOODBYE_RECORD * 2, Exit.LOST),
    "moved": (PING_RECORD + GOODBYE_RECORD, Exit.LOST),
    "garbage": (GOODBYE_RECORD + b"\xff" * 40, Exit.LOST),
    "cut before it": (b"", Exit.LOST),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_changed_record_is_a_failure_also_behind_the_goodbye(ending: str) -> None:
    """Behind the goodbyes it was taken for the peer's own close, with status 0."""
    data, status = ENDINGS[ending]
    assert run(data, Keys(OTHER, KEY, b"", b"", b"", Ticket(b"", b""))) == status


@pytest.mark.parametrize(("behind", "status"), [(PING, Exit.OK), (b"\xff" * 12, Exit.LOST)])
def test_what_is_no_frame_is_a_failure_also_on_a_plain_link(behind: bytes, status: Exit) -> None:
    assert run(GOODBYE + behind, None) == status


def run(data: bytes, keys: Keys | None) -> Exit:
    """Follow a leader that says this and ends; return the exit status."""
    here, there = socket.socketpair()
    with there:
        there.sendall(data)
        there.shutdown(socket.SHUT_WR)
        hole = Hole(here, "here", "there", b"", False, Role.LISTEN, Trait(0), 0.0, Counts(), keys, True)
        return running.run(hole, Plan(Role.TO, Ports(targets={"": parse_target("9")})), unreported).status
