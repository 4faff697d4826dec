"""PEER, [BIND:]PORT and HOST:PORT as people write them, and as frozen values.

    PEER            203.0.113.9   2001:db8::7   [fe80::1%eth0]   home.example
    PEER:PORT       203.0.113.9:5000   [2001:db8::7]:5000   home.example:5000
    -L [BIND:]PORT  2222   0.0.0.0:2222   [::1]:2222   :2222   *:2222   unix:/run/ssh.sock
    --to [HOST:]PORT    22   ssh   nas:445   [::1]:22   unix:/run/app.sock
    --stun HOST[:PORT]  stun.example   192.0.2.1:3478   [2001:db8::1]:3478

A port may be a service, as in /etc/services.

Nothing is resolved here: a name stays a name until an edge looks it up.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from punchtunnel.errors import UsageError
from punchtunnel.words import habits, usage

# RFC 1035 §2.3.4 limits a name to 255 octets on the wire, 253 as text.
MAX_NAME = 253
# Means the loopback of both families, as for ssh, and is looked up nowhere (RFC 6761 §6.3).
LOCALHOST = "localhost"
# Of -L: every address of this machine, of both families, as for ssh.
EVERYWHERE = "*"
# Of one network, shared by a carrier's customers, or of nobody: RFC 1918, RFC 6598, RFC 7335, RFC 3927, RFC 1122,
# RFC 1112.  Python's `is_global` excludes also the addresses that examples and laboratories use as public ones
# (RFC 5737, RFC 3849).
_INSIDE4 = tuple(
    ipaddress.IPv4Network(net)
    for net in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.0.0/29"),
        *("169.254.0.0/16", "127.0.0.0/8", "0.0.0.0/8", "224.0.0.0/3"),
    )
)
# What a router has for an address that is not connected.
NOBODY = "0.0.0.0"
# RFC 4291 §2.4: the only global unicast addresses that are given out.
_OUTSIDE6 = ipaddress.IPv6Network("2000::/3")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
# sockaddr_un has 108 bytes for the path and its final NUL (unix(7)).
MAX_UNIX_PATH = 107
HIGHEST_PORT = 65535
# What people type who mean the program at the far end.
SSH_PORT = 22
# Of a URL that names none; any other scheme is shown as this one.
_URL_PORTS = {"http": 80, "https": 443, "ssh": 22, "ftp": 21, "vnc": 5900, "rdp": 3389}
# Of /etc/services: as RFC 6335 §5.1 wants it, and what is older than that.
_SERVICE = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


@dataclass(frozen=True, slots=True)
class Place:
    """A TCP address: `host` is a literal or a name, `port` is 0–65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


@dataclass(frozen=True, slots=True)
class UnixPlace:
    """A Unix-domain stream socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


AnyPlace = Place | UnixPlace
# Returns the port of a service's name, or None.
Services = Callable[[str], int | None]


def no_services(_: str) -> None:
    """Know no service by its name."""


class Peer(NamedTuple):
    """The other machine: `host` is a literal or a name, `port` one that is forwarded to it, or 0."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        return join_host_port(self.host, self.port) if self.port else self.host


def join_host_port(host: str, port: int) -> str:
    """Return `host:port`, with the brackets that an IPv6 literal needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@functools.lru_cache(maxsize=64)
def is_literal(host: str) -> bool:
    """Tell whether `host` is an IPv4 or IPv6 literal rather than a name; of the target it is asked again and again."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(host: str) -> bool:
    """Tell whether a literal without an interface is an address in the Internet; of a firewall it does not tell."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _INSIDE4)
    return address in _OUTSIDE6


def parse_peer(text: str) -> Peer:
    """Check one PEER and return it without brackets.

    Args:
        text: An IPv4 or IPv6 literal, with or without brackets, or a host name; before ":PORT" an
            IPv6 literal needs them.

    Returns:
        The literal in its shortest form, or the name as given, and the port.

    Raises:
        UsageError: It is neither a literal nor a possible name, or the port is none.
    """
    _check_habits(text)
    host, colon, port = text.rpartition(":")
    if not (colon and port.isascii() and port.isdigit()) or (":" in host and not host.endswith("]")):
        return Peer(_parse_host(text))
    if not host:
        raise UsageError(usage.PEER_IS_PORT.format(text=text))
    if len(port) > 5 or not 1 <= int(port) <= HIGHEST_PORT:
        raise UsageError(usage.PEER_PORT_OUTSIDE.format(text=text, port=port))
    if int(port) == SSH_PORT:
        raise UsageError(usage.PEER_OF_SSH.format(text=text))
    return Peer(_parse_host(host), int(port))


def with_number(text: str, services: Services) -> str:
    """Return HOST[:PORT] with the number of a port that is given as a service; what is neither stays as it is.

    Raises:
        UsageError: There is no such service.
    """
    host, _, name = text.rpartition(":")
    is_host = bool(host) and not host.isdigit() and (":" not in host or host.endswith("]"))
    if not is_host or "@" in text or is_literal(text) or not _SERVICE.fullmatch(name):
        return text
    if (port := services(name)) is None:
        raise UsageError(usage.NO_SERVICE.format(text=text, name=name))
    return f"{host}:{port}"


def _check_habits(text: str) -> None:
    """Check that a PEER is no URL and names no user, as a browser's and ssh's do."""
    scheme, is_url, _ = text.partition("://")
    if is_url:
        port = _URL_PORTS.get(scheme.lower(), _URL_PORTS["http"])
        raise UsageError(habits.PEER_IS_URL.format(text=text, port=port))
    if "@" in text:
        raise UsageError(habits.PEER_HAS_USER.format(text=text))


def _parse_host(text: str) -> str:
    bracketed = text.startswith("[") and text.endswith("]")
    bare = text[1:-1] if bracketed else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address.is_unspecified or address.is_multicast:
            raise UsageError(usage.NOT_ONE_MACHINE.format(text=text))
        if address.version == 4 and address == ipaddress.ip_address("255.255.255.255"):
            raise UsageError(usage.BROADCAST.format(text=text))
        _check_interface(address, text)
        return str(address)
    if text.isdigit():
        raise UsageError(usage.PEER_IS_PORT.format(text=text))
    if bracketed or not _is_name(bare):
        raise UsageError(usage.NOT_A_PEER.format(text=text))
    return bare


def parse_bind(text: str) -> str:
    """Check `--bind ADDR`: a literal address of this machine.

    Raises:
        UsageError: It is no IPv4 or IPv6 literal, or not the address of one machine.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not is_literal(bare):
        raise UsageError(usage.NOT_A_BIND.format(text=text))
    address = ipaddress.ip_address(bare)
    if address.is_unspecified or address.is_multicast:
        raise UsageError(usage.NOT_OURS.format(text=text))
    _check_interface(address, text)
    return str(address)


def _check_interface(address: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str) -> None:
    """Check that a link-local address names the interface that it is reached by (RFC 4007 §6)."""
    if address.version == 6 and address.is_link_local and address.scope_id in (None, "0"):
        raise UsageError(usage.NO_INTERFACE.format(text=text))


def parse_listen(text: str, services: Services = no_services) -> AnyPlace:
    """Parse the value of `-L`: `[BIND:]PORT` or `unix:/path`.

    Without BIND it is LOCALHOST, and EVERYWHERE with an empty one; with port 0 the kernel chooses.

    Raises:
        UsageError: The text has another form.
    """
    if text.startswith(":") and text.count(":") == 1:
        text = f"{EVERYWHERE}{text}"
    return _parse_place("-L", text, default_host=LOCALHOST, lowest_port=0, services=services)


def parse_target(text: str, services: Services = no_services) -> AnyPlace:
    """Parse the value of `--to`: `[HOST:]PORT` or `unix:/path`.

    Without HOST it is LOCALHOST: the machine that runs this side.

    Raises:
        UsageError: The text has another form.
    """
    return _parse_place("--to", text, default_host=LOCALHOST, lowest_port=1, services=services)


def parse_server(option: str, text: str, default_port: int) -> Place:
    """Parse the value of `--stun` or `--ntp`: `HOST[:PORT]`.

    Raises:
        UsageError: The text has another form.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if is_literal(bare):
        return Place(bare, default_port)
    place = _parse_place(option, text if ":" in text else f"{text}:{default_port}", "", lowest_port=1)
    if not isinstance(place, Place):
        raise UsageError(usage.NOT_A_SERVER.format(option=option, text=text))
    return place


def _parse_place(
    option: str, text: str, default_host: str, lowest_port: int, services: Services = no_services
) -> AnyPlace:
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        try:
            size = len(path.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            size = 0
        if not size or "\0" in path:
            raise UsageError(usage.NO_PATH.format(option=option, text=text))
        if size > MAX_UNIX_PATH:
            raise UsageError(usage.LONG_PATH.format(option=option, limit=MAX_UNIX_PATH))
        return UnixPlace(path)
    scheme, is_url, _ = text.partition("://")
    if is_url:
        example = join_host_port(default_host or "host.example", _URL_PORTS.get(scheme.lower(), _URL_PORTS["http"]))
        raise UsageError(habits.PLACE_IS_URL.format(option=option, text=text, example=example))
    if "@" in text:
        raise UsageError(habits.PLACE_HAS_USER.format(option=option, text=text))
    host, colon, port_text = text.rpartition(":")
    if not colon:
        host = default_host
    elif host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        if option == "-L" and host.partition(":")[0].isdigit() and "::" not in text:
            raise UsageError(usage.NOT_LOCAL.format(text=text))
        example = port_text if port_text.isdigit() else "22"
        raise UsageError(usage.NO_BRACKETS.format(option=option, text=text, port=example))
    is_number = port_text.isascii() and port_text.isdigit() and len(port_text) <= 5
    is_service = _SERVICE.fullmatch(port_text) is not None
    port = int(port_text) if is_number else services(port_text) if is_service else None
    if port is None and is_service and colon and services is not no_services:
        raise UsageError(usage.NO_SERVICE.format(text=text, name=port_text))
    if port is None:
        raise UsageError(usage.no_port(option, text))
    if not lowest_port <= port <= HIGHEST_PORT:
        raise UsageError(usage.PORT_OUTSIDE.format(option=option, text=text, port=port, lowest=lowest_port))
    if option == "-L" and host.isdigit():
        raise UsageError(usage.NOT_LOCAL.format(text=text))
    is_everywhere = option == "-L" and host == EVERYWHERE
    if not (is_everywhere or is_literal(host) or _is_name(host)):
        raise UsageError(usage.NOT_A_HOST.format(option=option, text=text, host=host))
    return Place(host, port)


def _is_name(text: str) -> bool:
    """Tell whether `text` can be a host name, and is not a mistyped address."""
    if not text or len(text) > MAX_NAME:
        return False
    try:
        ascii_text = text.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    labels = ascii_text.removesuffix(".").split(".")
    # A last label that is a number makes it a mistyped address (RFC 3696 §2), and
    # the C resolver would read "10.1" as 10.0.0.1 and "0x7f.1" as loopback.
    return not _NUMBER.fullmatch(labels[-1]) and all(_LABEL.fullmatch(label) for label in labels)
