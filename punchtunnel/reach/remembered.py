"""What is remembered of a peer, as values and as the bytes of its file: no file and no clock.

    {"version": 1, "time": 1700000000.0,
     "addresses": {"home.example": {"time": 1700000000.0, "hosts": ["203.0.113.9", "2001:db8::7"]}},
     "way": {"time": 1700000000.0, "kind": "same port", "host": "203.0.113.9", "far_port": 4711,
             "own_port": 4711, "failures": 0}}

These are hints.  An address may belong to somebody else by now, so what is remembered proves nothing
and replaces nothing: it is tried besides what would be tried anyhow.

A file may be damaged, or of another version, and the clock may be wrong.  An entry with anything wrong
in it is left out, and a file that cannot be read has no entries.  Neither is an error.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from typing import Any, NamedTuple, TypeGuard

_VERSION = 1
# A longer file is not one of ours.
MAX_SIZE = 4096
# Seconds: a week, after which most dynamic addresses are others.
LIFETIME = 7 * 24 * 3600.0
# Of one name; more than a home has, and several names of that many still fit into the file.
MAX_HOSTS = 8
# Letters.
MAX_KIND = 32
# In a row, after which a way is forgotten: a single one may be a peer that was switched off.
MAX_FAILURES = 2


class Seen(NamedTuple):
    """What a name led to when a hole opened.

    Attributes:
        name: As `canonical` returns it.
        hosts: Literals, the likeliest first; MAX_HOSTS of them are kept.
        at: Wall time.
    """

    name: str
    hosts: tuple[str, ...]
    at: float


class Way(NamedTuple):
    """How a hole opened.

    Attributes:
        kind: Printable ASCII, MAX_KIND letters at most: "same port", "fixed", "mapped".
        host: Literal of the far end.
        far_port: Of the far end.
        own_port: Of this machine.
        at: Wall time.
        failures: Punches in a row, since then, in which no hole opened.
    """

    kind: str
    host: str
    far_port: int
    own_port: int
    at: float
    failures: int = 0

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET


class Remembered(NamedTuple):
    """All that is known of one peer, on one channel.

    Attributes:
        at: Wall time of the last hole.
        addresses: What the names of the peer led to.
        way: That of the last hole; None if it has failed too often since, or is too old.
    """

    at: float
    addresses: tuple[Seen, ...] = ()
    way: Way | None = None

    def hosts_of(self, peer: str) -> tuple[str, ...]:
        """Return the literals that a name led to; () if none are known."""
        name = canonical(peer)
        return next((seen.hosts for seen in self.addresses if seen.name == name), ())

    def after_failure(self) -> Remembered:
        """Return what is known after a punch in which no hole opened."""
        if self.way is None:
            return self
        way = self.way._replace(failures=self.way.failures + 1)
        return self._replace(way=way if way.failures < MAX_FAILURES else None)


NOTHING = Remembered(0.0)


def canonical(peer: str) -> str:
    """Return the one form of all that mean the same PEER: DNS ignores case (RFC 4343) and a last dot."""
    return peer.lower().removesuffix(".")


def is_loopback(host: str) -> bool:
    """Tell whether a text is a literal that leads to this machine alone."""
    address = _address(host)
    return address is not None and address.is_loopback


def encode(remembered: Remembered, *, local: bool = False) -> bytes:
    """Return the content of a file: of the names, as many as fit into MAX_SIZE bytes.

    Args:
        remembered: Hosts that `decode` would not return are left out.
        local: Addresses of loopback are kept, too.
    """
    # Imported now, as in `decode`: most punches begin without either.
    import json

    names = {}
    for seen in remembered.addresses:
        hosts = [host for host in seen.hosts if _is_usable(host, local)]
        if hosts:
            names[canonical(seen.name)] = {"time": seen.at, "hosts": hosts[:MAX_HOSTS]}
    content = {"version": _VERSION, "time": remembered.at, "addresses": names}
    if remembered.way is not None:
        way = remembered.way._asdict()
        content["way"] = {"time": way.pop("at"), **way}
    while len(data := json.dumps(content, separators=(",", ":")).encode()) > MAX_SIZE and names:
        names.popitem()
    return data


def decode(data: bytes, now: float, names: Collection[str], *, local: bool = False) -> Remembered:
    """Read the content of a file; whatever is wrong with it is as if it were not there.

    Args:
        data: Any bytes.
        now: Wall time.  What is older than LIFETIME, or not yet, is left out.
        names: Those wanted, as `canonical` returns them.
        local: Addresses of loopback are believed, too.
    """
    import json

    if len(data) > MAX_SIZE:
        return NOTHING
    try:
        content = json.loads(data.decode())
    except (ValueError, RecursionError):
        return NOTHING
    found = _dict(content)
    if not (_is_within(found.get("version"), _VERSION, _VERSION) and _is_recent(found.get("time"), now)):
        return NOTHING
    seen = (
        _seen(name, _dict(entry), now, local) for name, entry in _dict(found.get("addresses")).items() if name in names
    )
    return Remembered(found["time"], tuple(filter(None, seen)), _way(_dict(found.get("way")), now, local))


def _seen(name: str, entry: dict[str, Any], now: float, local: bool) -> Seen | None:
    at, hosts = entry.get("time"), entry.get("hosts")
    if not (_is_recent(at, now) and isinstance(hosts, list) and 0 < len(hosts) <= MAX_HOSTS):
        return None
    return Seen(name, tuple(hosts), at) if all(_is_usable(host, local) for host in hosts) else None


def _way(entry: dict[str, Any], now: float, local: bool) -> Way | None:
    kind, host, failures = entry.get("kind"), entry.get("host"), entry.get("failures")
    far_port, own_port, at = entry.get("far_port"), entry.get("own_port"), entry.get("time")
    if not (isinstance(kind, str) and 0 < len(kind) <= MAX_KIND and kind.isascii() and kind.isprintable()):
        return None
    if not (_is_usable(host, local) and _is_within(far_port, 1, 65535) and _is_within(own_port, 1, 65535)):
        return None
    if not (_is_recent(at, now) and _is_within(failures, 0, MAX_FAILURES - 1)):
        return None
    return Way(kind, host, far_port, own_port, at, failures)


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_within(value: object, lowest: int, highest: int) -> TypeGuard[int]:
    # In Python True is an int as well.
    return type(value) is int and lowest <= value <= highest


def _is_recent(at: object, now: float) -> TypeGuard[float]:
    # NaN, which Python's JSON has, compares false.  The bounds come first: the difference of a float
    # and an integer of any size may overflow.
    return isinstance(at, int | float) and 0 <= at <= now and now - at <= LIFETIME


def _is_usable(host: object, local: bool) -> TypeGuard[str]:
    """Tell whether a value is the literal of one machine, in its shortest form, that means the same tomorrow.

    A link-local address means nothing without its interface, whose number changes.
    """
    address = _address(host)
    if address is None or str(address) != host or address.is_multicast or address.is_unspecified:
        return False
    if address.is_link_local or (address.version == 6 and (address.ipv4_mapped is not None or "%" in host)):
        return False
    # 240.0.0.0/4, with the broadcast address.  In IPv6 the property means other things, and is true of a NAT64.
    if address.version == 4 and address.is_reserved:
        return False
    return local or not address.is_loopback


def _address(host: object) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    # Of an int or of bytes ipaddress would make an address, too.
    if not isinstance(host, str):
        return None
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
