"""Who has answered in this machine's own networks; the laboratory plays an address that nobody has."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from punchtunnel.system.addresses import Address
from punchtunnel.system.neighbours import nobody_has

ABSENT, PRESENT = "192.168.1.77", "192.168.1.3"


def entry(host: str, state: int) -> bytes:
    """Return one message as the kernel sends it: an attribute before the address, one after it."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    attributes = struct.pack("=HHI", 8, 4, 3) + struct.pack("=HH", 4 + len(packed), 1) + packed
    attributes += struct.pack("=HH6s2x", 10, 2, b"abcdef")
    body = struct.pack("=BBHiHBB", 2, 0, 0, 2, state, 0, 1) + attributes
    return struct.pack("=IHHII", 16 + len(body), 28, 2, 1, 0) + body


class Kernel:
    """A netlink socket that answers with these datagrams."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = [*answers, struct.pack("=IHHIII", 20, 3, 2, 1, 0, 0)]

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def send(self, question: bytes) -> None:
        """Check what is asked."""
        assert struct.unpack_from("=IHH", question) == (len(question), 30, 0x301)

    def recv(self, _: int) -> bytes:
        """Return the next datagram."""
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("host", "state", "absent"),
    [(ABSENT, 0x01, True), (ABSENT, 0x20, True), (PRESENT, 0x02, False), ("fe80::77", 0x20, True), (ABSENT, 0, False)],
)
def test_an_address_that_was_asked_for_in_vain_is_nobodys(
    host: str, state: int, absent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel: Any = Kernel(entry("192.168.1.1", 0x20) + entry(host, state), entry("192.168.1.9", 0x20))
    monkeypatch.setattr(socket, "socket", lambda *_: kernel)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    assert nobody_has(Address(family, host)) is absent


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_kernel_of_this_machine_answers(family: socket.AddressFamily) -> None:
    assert not nobody_has(Address(family, "::1" if family == socket.AF_INET6 else "127.0.0.1"))


def test_nothing_is_known_where_the_table_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuse)
    assert not nobody_has(Address(socket.AF_INET, ABSENT))
