"""miniupnpc, as far as it is used, and kept quiet.

Where nobody takes its connection it writes so to stderr (perror), which
belongs to our events and to the line of a terminal.  So a connection of our
own is tried before each of its calls.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from punchtunnel.errors import PeerError

# Seconds for a router to take a connection; miniupnpc gives it as many.
_CONNECTING = 3.0


class Igd(Protocol):
    """What is used of miniupnpc.UPnP; every call blocks, and raises Exception with the words of upnperrors.c."""

    @property
    def lanaddr(self) -> str:
        """The own address from which the description was fetched."""

    def selectigd(self, url: str) -> str:
        """Fetch a description, and return the control URL that it names."""

    def externalipaddress(self) -> str:
        """Return the router's address."""

    def getspecificportmapping(self, port: int, protocol: str) -> tuple[str, int, str, bool, int] | None:
        """Return own address, own port, description, whether it is enabled, and the seconds left."""

    def addportmapping(
        self, port: int, protocol: str, own: str, own_port: int, description: str, remote: str, lease: int
    ) -> object:
        """Map a port for `lease` seconds; 0 is for ever."""

    def deleteportmapping(self, port: int, protocol: str) -> object:
        """Take it back."""


class Quiet:
    """An Igd that raises PeerError where the other one would write to stderr.

    Args:
        igd: The other one.
    """

    def __init__(self, igd: Igd) -> None:
        self._igd = igd
        self._control = ""

    @property
    def lanaddr(self) -> str:
        """See Igd."""
        return self._igd.lanaddr

    def selectigd(self, url: str) -> str:
        """See Igd."""
        _connect(url)
        self._control = self._igd.selectigd(url)
        return self._control

    def externalipaddress(self) -> str:
        """See Igd."""
        return self._reached().externalipaddress()

    def getspecificportmapping(self, port: int, protocol: str) -> tuple[str, int, str, bool, int] | None:
        """See Igd."""
        return self._reached().getspecificportmapping(port, protocol)

    def addportmapping(
        self, port: int, protocol: str, own: str, own_port: int, description: str, remote: str, lease: int
    ) -> object:
        """See Igd."""
        return self._reached().addportmapping(port, protocol, own, own_port, description, remote, lease)

    def deleteportmapping(self, port: int, protocol: str) -> object:
        """See Igd."""
        return self._reached().deleteportmapping(port, protocol)

    def _reached(self) -> Igd:
        _connect(self._control)
        return self._igd


def _connect(url: str) -> None:
    place = urlsplit(url)
    try:
        socket.create_connection((place.hostname or "", place.port or 80), _CONNECTING).close()
    except OSError as error:
        raise PeerError(error.strerror or str(error)) from error


def installed() -> Callable[[], Igd] | None:
    """Return what makes an Igd, or None where miniupnpc is not installed."""
    from importlib.util import find_spec

    if find_spec("miniupnpc") is None:
        return None

    def make() -> Igd:
        import miniupnpc

        return Quiet(miniupnpc.UPnP())

    return make
