"""What a punch is told: one checked form of what a command line or a program gives."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import TYPE_CHECKING, NamedTuple

from punchtunnel import words
from punchtunnel.address import HIGHEST_PORT, SSH_PORT, Peer, Place, is_literal, parse_bind, parse_peer
from punchtunnel.errors import UsageError
from punchtunnel.protocol.hello import NO_TRAITS, Role, Trait
from punchtunnel.system.addresses import SOMEWHERE, interface_of, is_interface, is_own_literal, source_towards
from punchtunnel.words import usage

if TYPE_CHECKING:
    from punchtunnel.punching.appointed import Appointment

DEFAULT_WAIT = 120.0
# Seconds to look for another hole when a session has lost one: the longest silence until the
# other side has noticed it, too, and some more.
DEFAULT_RESUME = 60.0
# Sessions that a service has at one time.
DEFAULT_SESSIONS = 16
# Seconds that are left to wait, at least, when a peer has only checked the path, and the
# seconds by which that may make the whole longer: a peer that checks again and again ends it.
SHORTEST_WAIT = 1.0
LONGEST_EXTENSION = 10.0
LAST_WAIT = 0.1

# Loopback and one more.
_USUAL_INTERFACES = 2
_FAMILIES = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}


class Relay(NamedTuple):
    """A relay that the user has named.

    Attributes:
        place: Where it is.
        carries: It may carry payload (--relay); otherwise the two sides only meet there (--meet).
    """

    place: Place
    carries: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """How to punch; `settings_from` makes it of unchecked values.

    Attributes:
        peers: Literals and names, as `parse_peer` returns them, without their ports.
        channel: Its name; can be encoded in UTF-8.
        wait: Seconds to keep trying; 0 is for ever.
        bind: Literal address to punch from, or None for any.
        family: The only one to use, or AF_UNSPEC for both.
        clock_offset: Seconds to add to this machine's clock.
        role: Ours.
        traits: Ours.
        secret: Empty if there is none.  Seals, and decides nothing about the ports.
        keep: A service (-k), which waits for what is not there yet.
        spent: Seconds of the whole time to wait that were over when this punch began; `wait` is what was left.
        checked: In these a peer has checked the path (-z), and found it good.
        interface: The only one to punch by, or "" for any.
        resumed: The secret of a session that has lost its hole; empty if there is none.
        insists: Only a side that wants to go on with that session, too, gets the hole.
        forwarded: The PEERs that were given with a port.
        port: One to listen on besides those of the schedule, which leads here from outside; or 0.
        maps: Routers of this machine are asked to forward ports.
        remembers: What worked may be written down, and what worked before is tried, too.
        via: A command whose stdin and stdout are one more connection; "" if there is none.
        relays: Where the peer can be met as well.
        stun: Servers that are asked at which ports they see this machine, for a peer that was met at a relay.
        birthday: Holds or dials that the user allows where a router's ports are guessed; 0 is as few as are polite.
        appointment: What the two sides have told each other where they have met; `peers` may be empty then.
    """

    peers: Sequence[str]
    channel: str = ""
    wait: float = DEFAULT_WAIT
    bind: str | None = None
    family: socket.AddressFamily = socket.AF_UNSPEC
    clock_offset: float = 0.0
    role: Role = Role.RAW
    traits: Trait = NO_TRAITS
    secret: bytes = field(default=b"", repr=False)
    keep: bool = False
    spent: float = 0.0
    checked: bool = False
    interface: str = ""
    resumed: bytes = field(default=b"", repr=False)
    insists: bool = False
    forwarded: Sequence[Peer] = ()
    port: int = 0
    maps: bool = False
    remembers: bool = False
    via: str = field(default="", repr=False)
    relays: Sequence[Relay] = ()
    stun: Sequence[Place] = ()
    birthday: int = 0
    appointment: Appointment | None = None

    @property
    def sealed(self) -> bool:
        """The link is to be sealed."""
        return Trait.PLAIN not in self.traits

    @property
    def proves(self) -> bool:
        """Only a peer that proves the secret, or that of a session, gets a hole."""
        return self.sealed and bool(self.secret or self.insists)

    @property
    def trusts_anyone(self) -> bool:
        """Whoever answers at an address of the peer is taken for it; at its own only this machine can answer."""
        return not self.proves and not all(map(is_own_literal, self.peers))

    @property
    def serves_anyone(self) -> bool:
        """Such a peer reaches what this side serves; a side that only checks the path serves nothing."""
        return Role.TO in self.role and Trait.CHECK not in self.traits and self.trusts_anyone

    @property
    def takes_any_way(self) -> bool:
        """Dials may leave by every interface, and this machine has several."""
        with contextlib.suppress(OSError):
            return self.bind is None and not self.interface and len(socket.if_nameindex()) > _USUAL_INTERFACES
        return False

    def resuming(self, secret: bytes, wait: float, *, anyone: bool) -> Settings:
        """Return the same for the next hole of a session.

        Args:
            secret: Of the session.
            wait: Seconds.
            anyone: The peer serves many sessions, and does not know which of them we come back to.
        """
        insists = not (anyone or self.secret)
        traits = self.traits | Trait.RESUMING
        return replace(self, wait=wait, traits=traits, resumed=secret, insists=insists, spent=0.0, checked=False)

    def moving(self, secret: bytes, channel: str, wait: float) -> Settings:
        """Return the same for a direct hole of a session that a relay carries, without PEERs.

        Args:
            secret: Of the session.
            channel: Decides the ports.
            wait: Seconds.
        """
        again = self.resuming(secret, wait, anyone=False)
        return replace(
            again, insists=True, peers=(), channel=channel, forwarded=(), port=0, via="", relays=(), keep=False,
            remembers=False,
        )  # fmt: skip

    def after(self, spent: float, *, checked: bool = False) -> Settings:
        """Return the same with as many seconds less to wait, unless that is for ever."""
        least = SHORTEST_WAIT if spent < self.wait + LONGEST_EXTENSION else LAST_WAIT
        return replace(self, wait=self.wait and max(round(self.wait - spent, 1), least), spent=spent, checked=checked)


def settings_from(
    peers: Sequence[str],
    channel: str,
    wait: float,
    bind: str | None,
    family: int,
    clock_offset: float,
    role: Role,
    traits: Trait,
    secret: bytes = b"",
    port: int = 0,
) -> Settings:
    """Check what a command line or a program has given.

    Args:
        peers: As people write them; may be empty where nothing is to be sent.
        channel: Any text.
        wait: Seconds.
        bind: Literal address, or the name of an interface, or None.
        family: 4 or 6 to use only that; 0 for both.
        clock_offset: Seconds.
        role: Of this side.
        traits: Of this side.
        secret: In its normal form, or empty.
        port: To listen on besides; 0 is none.

    Raises:
        UsageError: One of them is wrong, or contradicts another one.
    """
    _check_types(
        ("channel", channel, str),
        ("wait", wait, (int, float)),
        ("bind", bind, (str, NoneType)),
        ("family", family, int),
        ("clock_offset", clock_offset, (int, float)),
        ("secret", secret, bytes),
        ("port", port, int),
        *(("a peer", peer, str) for peer in peers),
    )
    if family not in _FAMILIES:
        raise UsageError(usage.NOT_A_FAMILY.format(family=family))
    bind, interface, family = _bound(bind, family)
    given = [parse_peer(peer) for peer in peers]
    hosts = list(dict.fromkeys(peer.host for peer in given))
    if family and hosts and all(is_literal(host) and (":" in host) != (family == 6) for host in hosts):
        raise UsageError(words.NO_ADDRESS)
    if not 0 <= wait < float("inf"):
        raise UsageError(usage.CANNOT_WAIT.format(seconds=wait))
    try:
        channel.encode()
    except UnicodeEncodeError as error:
        raise UsageError(usage.NOT_A_CHANNEL) from error
    if secret and Trait.PLAIN in traits:
        raise UsageError(usage.PLAIN_WITH_SECRET)
    _check_port(port)
    settings = Settings(hosts, channel, wait, bind, _FAMILIES[family], clock_offset, role, traits, secret)
    forwarded = tuple(peer for peer in given if peer.port)
    return replace(settings, interface=interface, forwarded=forwarded, port=port)


def _check_port(port: int) -> None:
    if port == SSH_PORT:
        raise UsageError(usage.LISTEN_PORT_OF_SSH)
    if not 0 <= port <= HIGHEST_PORT:
        raise UsageError(usage.LISTEN_PORT_OUTSIDE.format(port=port))


def _bound(bind: str | None, family: int) -> tuple[str | None, str, int]:
    """Return the address to punch from, its interface, and the family that is left; each as in Settings.

    Raises:
        UsageError: It is of the other family, or neither an address nor an interface.
    """
    if bind is None:
        return None, "", family
    if is_interface(bind):
        return None, bind, family
    bind = parse_bind(bind)
    bound = 6 if ":" in bind else 4
    if family not in (0, bound):
        raise UsageError(usage.OTHER_FAMILY.format(bind=bind))
    return bind, _way_of(bind), bound


def _way_of(bind: str) -> str:
    """Return the interface of an own address if it leads anywhere, or "".

    The address alone decides the source of what is sent, and the routes the way: beside a
    VPN that has taken the default route, that would be the VPN's.  Addresses of interfaces
    that lead nowhere (loopback, dummy) are meant for the source alone.
    """
    interface = interface_of(bind)
    return interface if interface and source_towards(SOMEWHERE[":" in bind], interface) is not None else ""


def _check_types(*given: tuple[str, object, type | tuple[type, ...]]) -> None:
    """Check what a program without a type checker may give: names, values and types."""
    for name, value, kind in given:
        if not isinstance(value, kind):
            raise UsageError(usage.WRONG_TYPE.format(name=name, kind=type(value).__name__))


def has_fast_aes() -> bool:
    """Tell whether the processor has AES instructions; where nothing is known, most have."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as file:
        return b" aes" in file.read(1 << 16)
    return True
