"""What works beside a punch and brings it something: the resolver, a mapper of ports, and a meeting at a relay."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from punchtunnel.address import Place

News = TypeVar("News", covariant=True)


class Helper(Protocol[News]):
    """Works in a thread, or with a socket that never blocks, and never holds up the loop of the punch."""

    def fileno(self) -> int:
        """Return the descriptor that turns readable when there is something to take."""

    def start(self) -> None:
        """Begin to work, unless it does already."""

    def take(self) -> News:
        """Return what made `fileno` readable."""

    def close(self) -> None:
        """Close the descriptors, and wait for nothing."""


class PortMapping(NamedTuple):
    """A port of a router's, or of this machine behind a firewall, that leads to a port of ours.

    Attributes:
        family: AF_INET or AF_INET6.
        own_port: Of this machine; a listener has it.
        external: Where the peer finds it.
        by: The protocol that made it: "PCP", "NAT-PMP" or "UPnP".
    """

    family: socket.AddressFamily
    own_port: int
    external: Place
    by: str


class Way(NamedTuple):
    """How a hole has opened.

    Attributes:
        kind: Where its ports come from (candidates.Kind), or "mapped" or "listener" if it came to a port of ours.
        host: Literal of the far end.
        far_port: Of the far end.
        own_port: Of this machine.
    """

    kind: str
    host: str
    far_port: int
    own_port: int


class RouterNews(NamedTuple):
    """What this machine's routers have said so far; each answer replaces the one before.

    Attributes:
        mappings: Those that stand.
        behind: External addresses of routers that are private or shared themselves: another NAT follows.
        refusals: Why a router maps nothing, as sentences.
        silent: All were asked, and none has answered.
    """

    mappings: tuple[PortMapping, ...] = ()
    behind: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    silent: bool = False

    @property
    def externals(self) -> frozenset[str]:
        """The addresses that the routers have outside."""
        return frozenset({*(one.external.host for one in self.mappings), *self.behind})

    def leads_to(self, family: int, port: int) -> bool:
        """Tell whether a router forwards something to a port of ours."""
        return any((one.family, one.own_port) == (family, port) for one in self.mappings)


class PortMapper(Helper[RouterNews], Protocol):
    """Lets the routers of this machine forward ports; outlives the punch that it works for."""

    def want(self, ports: Mapping[socket.AddressFamily, Sequence[int]]) -> None:
        """Map these listening ports from now on, of each family the first ones that a router gives as they are."""

    def heard(self) -> RouterNews:
        """Return what the routers have said so far, and leave it to be taken."""

    def release(self) -> None:
        """Take every mapping back, and want none; waits for nothing."""


class Met(NamedTuple):
    """A connection through a relay on which the peer is, or somebody else who knows the token.

    A FIN of either side ends both directions.  The kernel ends it after a minute without a sign of the relay's.

    Attributes:
        sock: Does not block; belongs to whoever has taken it.
        unread: What the other side has said already.
        relay: As the user has named it.
    """

    sock: socket.socket
    unread: bytes
    relay: Place


class MeetingNews(NamedTuple):
    """What has come of waiting since the last look.

    Attributes:
        met: Connections on which somebody is; whoever takes them owns the sockets.
        trouble: Why nobody can be met just now, as a sentence, or "".
    """

    met: tuple[Met, ...] = ()
    trouble: str = ""


class Meeting(Helper[MeetingNews], Protocol):
    """Waits at one relay for the peer."""

    def again(self, met: Met) -> None:
        """Close what was met, which was of no use, and wait for the peer anew after a short pause."""


class Gathering(Protocol):
    """What helps every punch of a run, and outlives each of them.

    Attributes:
        told: What was reported, so that the next punch does not repeat it.
    """

    told: set[str]

    def mapper(self) -> PortMapper:
        """Return the one mapper, which is made when it is first asked for."""

    def heard(self) -> RouterNews | None:
        """Return what the routers have said to it, also beside an earlier punch; None if there is no mapper yet."""

    def meeting(self, relay: Place) -> Meeting:
        """Return a new meeting at a relay.

        Raises:
            OSError: There is no descriptor left.
        """

    def recall(self) -> Mapping[str, Sequence[str]]:
        """Return the literal addresses that the names of the peer led to when a hole last opened, the likeliest first.

        Only a peer that proves a secret may be looked for at them: they may be somebody else's by now.
        """

    def remember(self, names: Mapping[str, Sequence[str]], way: Way) -> None:
        """Keep what the names of the peer lead to, and by which of these ways a hole has opened; waits for nothing."""

    def failed(self) -> None:
        """Take note that no hole has opened."""
