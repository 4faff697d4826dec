"""The addresses of this machine, for completions only: a punch needs none of them.

Read from /proc, where Linux lists them all.  Elsewhere nothing is offered.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

_IPV4 = Path("/proc/net/fib_trie")
_IPV6 = Path("/proc/net/if_inet6")
# include/net/ipv6.h: an address that means nothing without its interface.
_LINK_SCOPE = 0x20


def addresses() -> list[str]:
    """Return every address of every interface, IPv4 first, each as `--bind` takes it."""
    found: list[str] = []
    for path, parse in ((_IPV4, ipv4), (_IPV6, ipv6)):
        with contextlib.suppress(OSError):
            found += parse(path.read_text())
    return list(dict.fromkeys(found))


def ipv4(routes: str) -> Iterator[str]:
    """Yield the addresses in the text of /proc/net/fib_trie: its leaves that are this host's own."""
    leaf = ""
    for line in routes.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            leaf = words[1]
        elif words == ["/32", "host", "LOCAL"]:
            yield leaf


def ipv6(table: str) -> Iterator[str]:
    """Yield the addresses in the text of /proc/net/if_inet6."""
    for line in table.splitlines():
        digits, _, _, scope, _, name = line.split()
        address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
        yield f"{address}%{name}" if int(scope, 16) == _LINK_SCOPE else address
