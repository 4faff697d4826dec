"""The addresses of this machine, and the one it talks to another machine from.

Nothing is sent: a datagram socket that connects only asks the routing table.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import NamedTuple

from punchtunnel.address import is_literal
from punchtunnel.system import tcp

LOOPBACK = "127.0.0.1"
# Scopes of an IPv6 address as the kernel numbers them (include/net/ipv6.h).
_GLOBAL_SCOPE = 0x00
# Means nothing without its interface.
_LINK_SCOPE = 0x20
# The routing table does not look at the port; 9 is "discard".
_SOME_PORT = 9


class Address(NamedTuple):
    """One address of the peer, or this machine itself (`own`)."""

    family: socket.AddressFamily
    host: str
    scope: int = 0
    own: bool = False

    def at(self, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """Return the address that `connect` takes for a port."""
        if self.family == socket.AF_INET6:
            return (self.host, port, 0, self.scope)
        return (self.host, port)


def source_towards(address: Address) -> str | None:
    """Return the own address that this machine dials another address from; None if there is no route."""
    with contextlib.suppress(OSError), socket.socket(address.family, socket.SOCK_DGRAM) as probe:
        tcp.prefer_lasting_source(probe)
        probe.connect(address.at(_SOME_PORT))
        return str(probe.getsockname()[0]).partition("%")[0]
    return None


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


def global_addresses6() -> list[str] | None:
    """Return this machine's IPv6 addresses with global scope; None where Linux does not list them.

    Raises:
        ValueError: The list has another form.
    """
    from punchtunnel.system import proc

    table = proc.read("net/if_inet6")
    if table is None:
        # A kernel without IPv6 has no such file; one without networks has neither.
        return [] if proc.read("net/route") is not None else None
    return [host for host, scope, device in _interfaces6(table) if scope == _GLOBAL_SCOPE and device != "lo"]


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
