"""The addresses of this machine, and the one it talks to another machine from.

Nothing is sent: a datagram socket that connects only asks the routing table.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator
from typing import NamedTuple

from punchtunnel.address import is_literal
from punchtunnel.system import tcp

LOOPBACK = "127.0.0.1"
# Scopes of an IPv6 address as the kernel numbers them (include/net/ipv6.h).
_GLOBAL_SCOPE = 0x00
# Means nothing without its interface.
_LINK_SCOPE = 0x20
# linux/sockios.h, linux/if.h: struct ifreq has a name and a union, whose size is that of the largest member.
_SIOCGIFCONF = 0x8912
_IFREQ_SIZE = 40 if struct.calcsize("P") == 8 else 32
_MOST_ADDRESSES = 256
# The routing table does not look at the port; 9 is "discard".
_SOME_PORT = 9


class Address(NamedTuple):
    """One address of the peer, or this machine itself (`own`); what is sent there leaves by `interface`.

    An `interface` of "" is the one that the routing table prefers.
    """

    family: socket.AddressFamily
    host: str
    scope: int = 0
    own: bool = False
    interface: str = ""

    def at(self, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return the address that `connect` takes for a port."""
        if self.family == socket.AF_INET6:
            return (self.host, port, 0, self.scope)
        return (self.host, port)


# Documentation addresses stand for the Internet (RFC 5737, RFC 3849), IPv4 and IPv6; they are only looked up in the
# routing table.
SOMEWHERE = Address(socket.AF_INET, "192.0.2.1"), Address(socket.AF_INET6, "2001:db8::1")


def source_towards(address: Address, interface: str = "") -> str | None:
    """Return the own address that this machine dials another address from; None if there is no route.

    Args:
        address: The other one.
        interface: The only one to leave by; "" is that of the address.
    """
    interface = interface or address.interface
    with contextlib.suppress(OSError), socket.socket(address.family, socket.SOCK_DGRAM) as probe:
        tcp.prefer_lasting_source(probe)
        if interface:
            tcp.use_interface(probe, interface)
        probe.connect(address.at(_SOME_PORT))
        return str(probe.getsockname()[0]).partition("%")[0]
    return None


def is_behind_router(address: Address, interface: str = "") -> bool:
    """Tell whether a router is on the way to another address: IPv4 only, of IPv6 this kernel does not tell.

    Args:
        address: The other one.
        interface: The only one to leave by; "" is any.
    """
    if address.family != socket.AF_INET or source_towards(address, interface) is None:
        return False
    with contextlib.suppress(OSError), socket.socket(address.family, socket.SOCK_DGRAM) as probe:
        # Only where the interface's own network has the address.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
        if interface:
            tcp.use_interface(probe, interface)
        probe.connect(address.at(_SOME_PORT))
        return False
    return True


def is_own(address: Address) -> bool:
    """Tell whether an address is this machine's: the kernel talks to an own address from that same address."""
    source = source_towards(address)
    return source is not None and (source == address.host or address.host.startswith("127."))


def is_own_literal(peer: str) -> bool:
    """Tell whether a PEER is a literal address of this machine; a name may lead elsewhere tomorrow."""
    if not is_literal(peer):
        return False
    host = peer.partition("%")[0]
    return is_own(Address(socket.AF_INET6 if ":" in host else socket.AF_INET, host))


def own_addresses() -> list[str]:
    """Return every address of every interface, IPv4 first, each as `--bind` takes it; [] where Linux lists none."""
    # Imported now: a punch does not need it.
    from punchtunnel.system import proc

    found: list[str] = []
    # A container may imitate the files in another form.
    with contextlib.suppress(ValueError, IndexError):
        found += _hosts4(proc.read("net/fib_trie") or "")
        for host, scope, device in _interfaces6(proc.read("net/if_inet6") or ""):
            found.append(f"{host}%{device}" if scope == _LINK_SCOPE else host)
    return list(dict.fromkeys(found))


def global_addresses6(interface: str = "") -> list[str] | None:
    """Return this machine's IPv6 addresses with global scope; None where Linux does not list them.

    Args:
        interface: Only those of this one; "" is any.

    Raises:
        ValueError: The list has another form.
    """
    from punchtunnel.system import proc

    table = proc.read("net/if_inet6")
    if table is None:
        # A kernel without IPv6 has no such file; one without networks has neither.
        return [] if proc.read("net/route") is not None else None
    return [
        host
        for host, scope, device in _interfaces6(table)
        if scope == _GLOBAL_SCOPE and device != "lo" and interface in ("", device)
    ]


def is_interface(name: str) -> bool:
    """Tell whether this machine has an interface of that name."""
    return any(name == one for _, one in socket.if_nameindex())


def interface_of(host: str) -> str:
    """Return the interface that has an address of this machine; "" where the system does not tell."""
    from punchtunnel.system import proc

    host = host.partition("%")[0]
    with contextlib.suppress(OSError, ValueError):
        pairs = _interfaces4() if ":" not in host else (
            (one, device) for one, _, device in _interfaces6(proc.read("net/if_inet6") or "")
        )  # fmt: skip
        return next((device for one, device in pairs if one == host), "")
    return ""


def _interfaces4() -> Iterator[tuple[str, str]]:
    """Yield each IPv4 address and its interface (netdevice(7), SIOCGIFCONF)."""
    if sys.platform != "linux":
        return
    import fcntl
    from array import array

    room = array("B", bytes(_MOST_ADDRESSES * _IFREQ_SIZE))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        asked = struct.pack("iL", len(room), room.buffer_info()[0])
        (size,) = struct.unpack_from("i", fcntl.ioctl(probe, _SIOCGIFCONF, asked))
    for at in range(0, size, _IFREQ_SIZE):
        label, host = struct.unpack_from("16s4x4s", room, at)
        # A second address may have a label like eth0:1.
        yield socket.inet_ntoa(host), label.partition(b"\0")[0].decode().partition(":")[0]


def _hosts4(tries: str) -> Iterator[str]:
    """Yield the IPv4 addresses in the text of /proc/net/fib_trie: the leaves that are this host's own."""
    leaf = ""
    for line in tries.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            leaf = words[1]
        elif words == ["/32", "host", "LOCAL"]:
            yield leaf


def _interfaces6(table: str) -> Iterator[tuple[str, int, str]]:
    """Yield address, scope and interface of each line of /proc/net/if_inet6."""
    for line in table.splitlines():
        digits, _, _, scope, _, device = line.split()
        yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits)), int(scope, 16), device
