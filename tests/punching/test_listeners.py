"""The listeners of a punch in a process that is out of descriptors."""

from __future__ import annotations

import errno
import os
import selectors
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from punchtunnel.punching import ports
from punchtunnel.punching.callers import Connection
from punchtunnel.punching.hole import Counts
from punchtunnel.punching.listeners import Listeners
from punchtunnel.reporting.events import unreported
from punchtunnel.system.addresses import Address

HERE = "127.0.0.1"
LONG = 30.0


class Listening(socket.socket):
    """Has no descriptor for what comes, as long as it is starved."""

    starved = True

    def accept(self) -> tuple[socket.socket, Any]:
        if self.starved:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listening]:
    """What the listeners open, whatever port they ask for."""
    with Listening() as sock:
        sock.bind((HERE, 0))
        sock.listen()
        monkeypatch.setattr(ports, "listening_socket", lambda *_, **__: sock)
        yield sock


def test_a_connection_waits_for_a_descriptor_and_is_counted_as_long(listening: Listening) -> None:
    counts = Counts()
    opened: list[Connection] = []
    with selectors.DefaultSelector() as selector:
        listeners = Listeners(selector, counts, unreported, opened.append, open_to_all=False)
        listeners.addresses = [Address(socket.AF_INET, HERE)]

        def take() -> None:
            for key, _ in selector.select(LONG):
                key.data()

        listeners.open(socket.AF_INET, HERE, 1, pair=True)
        with socket.create_connection(listening.getsockname()):
            take()
            assert (counts.untaken, counts.shortage) == (1, errno.EMFILE)
            # Nothing spins on it.
            assert not selector.get_map()
            listeners.resume()
            take()
            assert counts.untaken == 1
            listening.starved = False
            listeners.resume()
            take()
        assert (counts.untaken, len(opened)) == (0, 1)
        opened[0].sock.close()
        listeners.keep(())


def test_a_listener_that_is_no_longer_needed_is_not_waited_for(listening: Listening) -> None:
    counts = Counts()
    with selectors.DefaultSelector() as selector:
        listeners = Listeners(selector, counts, unreported, lambda _: None, open_to_all=False)
        listeners.open(socket.AF_INET, HERE, 1, pair=True)
        with socket.create_connection(listening.getsockname()):
            for key, _ in selector.select(LONG):
                key.data()
        assert counts.untaken == 1
        listeners.keep(())
        assert counts.untaken == 0
