"""Look at this machine without sending anything: /proc, the kernel's clock, and the firewall's own tools.

Whatever cannot be read stays None: a container, another system, or a user who
is not root see less, and findings.py says so.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from punchtunnel.doctor import rulesets
from punchtunnel.doctor.facts import Clock, Facts, Route
from punchtunnel.doctor.firewall import Table
from punchtunnel.protocol import secret
from punchtunnel.protocol.schedule import HIGHEST_PORT, LOWEST_PORT
from punchtunnel.punching import ports
from punchtunnel.system.clock import error_bound_ms
from punchtunnel.words import doctor as words

PROC = Path("/proc")
Seen = TypeVar("Seen")
# Seconds for a tool that prints its rules.
TOOL_PATIENCE = 5.0
# Where such tools are, though an ordinary user's PATH often does not say so.
TOOL_PLACES = os.pathsep.join(("/usr/sbin", "/sbin", "/usr/local/sbin"))
# Ports that are tried before none is said to be free.
PORT_TRIES = 20
# A documentation address stands for the internet (RFC 5737): connecting a
# datagram socket only asks the routing table.
SOMEWHERE = ("192.0.2.1", 9)
# linux/route.h, and an IPv6 scope of 0: global.
_RTF_UP, _RTF_REJECT = 0x0001, 0x0200
_GLOBAL_SCOPE = "00"


def clock() -> Clock:
    """Ask the kernel whether something keeps its clock right."""
    error_ms = error_bound_ms()
    now = time.time()
    return Clock(now) if error_ms is None else Clock(now, offset_s=0.0, error_s=error_ms / 1000)


def facts(rng: random.Random) -> Facts:
    """Return what this machine says about itself."""
    tables, reason = _firewall()
    return Facts(
        routes=_known(_routes),
        address4=_address4(),
        addresses6=_known(_addresses6),
        ephemeral=_known(_ephemeral),
        taken=_known(_taken) or 0,
        sharing=_why_not_shared(rng),
        tables=tables,
        tables_unread=reason,
    )


def on_some_port(rng: random.Random, open_on: Callable[[int], socket.socket]) -> socket.socket:
    """Return the socket that is opened on some port of the punch's range.

    Raises:
        OSError: None of a few is free.
    """
    for _ in range(PORT_TRIES - 1):
        with contextlib.suppress(OSError):
            return open_on(rng.randint(LOWEST_PORT, HIGHEST_PORT))
    return open_on(rng.randint(LOWEST_PORT, HIGHEST_PORT))


def _known(look: Callable[[], Seen | None]) -> Seen | None:
    """Return what is seen, or None if the file is not as Linux writes it: containers imitate some."""
    with contextlib.suppress(ValueError):
        return look()
    return None


def _read(*names: str) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return PROC.joinpath(*names).read_text()
    return None


# ---- addresses and routes


def _routes() -> dict[int, Route] | None:
    table4, table6 = _read("net", "route"), _read("net", "ipv6_route")
    if table4 is None and table6 is None:
        return None
    routes: dict[int, Route] = {}
    for version, found in ((4, _default4(table4 or "")), (6, _default6(table6 or ""))):
        if best := min(found, key=lambda one: one[0], default=None):
            routes[version] = best[1]
    return routes


def _default4(table: str) -> Iterator[tuple[int, Route]]:
    """Yield the metric and the route of each default route in /proc/net/route."""
    for line in table.splitlines()[1:]:
        device, target, gateway, flags, _, _, metric, mask, *_ = line.split()
        if int(target, 16) == int(mask, 16) == 0 and int(flags, 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP:
            # The kernel prints the word as it lies in memory.
            address = socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
            yield int(metric), Route(device, "" if address == "0.0.0.0" else address)


def _default6(table: str) -> Iterator[tuple[int, Route]]:
    """Yield the same for /proc/net/ipv6_route."""
    for line in table.splitlines():
        target, size, _, _, gateway, metric, _, _, flags, device = line.split()
        if int(target, 16) == int(size, 16) == 0 and int(flags, 16) & (_RTF_UP | _RTF_REJECT) == _RTF_UP:
            address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(gateway))
            yield int(metric, 16), Route(device, "" if address == "::" else address)


def _address4() -> str:
    """Return the address that this machine would punch from, or ""."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(SOMEWHERE)
        return str(probe.getsockname()[0])
    return ""


def _addresses6() -> list[str] | None:
    table = _read("net", "if_inet6")
    if table is None:
        # Without IPv6 in the kernel there is no such file.
        return [] if _read("net", "route") is not None else None
    lines = [line.split() for line in table.splitlines()]
    return [
        socket.inet_ntop(socket.AF_INET6, bytes.fromhex(address))
        for address, _, _, scope, _, device in lines
        if scope == _GLOBAL_SCOPE and device != "lo"
    ]


# ---- ports


def _ephemeral() -> list[tuple[int, int]] | None:
    """Return the ranges from which outgoing connections get their ports."""
    text = _read("sys", "net", "ipv4", "ip_local_port_range")
    if text is None:
        return None
    low, high = map(int, text.split())
    ranges: list[tuple[int, int]] = []
    for first, last in sorted(_reserved()):
        if first > low:
            ranges.append((low, min(high, first - 1)))
        low = max(low, last + 1)
    return [one for one in (*ranges, (low, high)) if one[0] <= one[1]]


def _reserved() -> Iterator[tuple[int, int]]:
    text = (_read("sys", "net", "ipv4", "ip_local_reserved_ports") or "").strip()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        yield int(first), int(last or first)


def _taken() -> int:
    """Count the ports of the punch's range that some TCP socket has."""
    taken: set[int] = set()
    for name in ("tcp", "tcp6"):
        for line in (_read("net", name) or "").splitlines()[1:]:
            taken.add(int(line.split()[1].rpartition(":")[2], 16))
    return sum(LOWEST_PORT <= port <= HIGHEST_PORT for port in taken)


def _why_not_shared(rng: random.Random) -> str:
    """Open a listener on one port, and then a dial from it, as a punch does; return why that fails, or ""."""
    family, host = socket.AF_INET, "127.0.0.1"
    try:
        with on_some_port(rng, lambda port: ports.listening_socket(family, host, port, shared=True)) as listener:
            ports.dialling_socket(family, host, listener.getsockname()[1]).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


# ---- the firewall


def _firewall() -> tuple[Sequence[Table] | None, str]:
    """Return all rules that this user may read, or None and why there are none."""
    shown, reason = _printed("nft", "-j", "list", "ruleset")
    old = bool(_read("net", "ip_tables_names") or _read("net", "ip6_tables_names"))
    try:
        tables = rulesets.parse_nft(shown) if shown is not None else []
        if shown is None or old or any(map(rulesets.is_of_iptables, tables)):
            tables = [table for table in tables if not rulesets.is_of_iptables(table)]
            for version, program in ((4, "iptables"), (6, "ip6tables")):
                shown, reason = _printed(f"{program}-legacy-save" if old else f"{program}-save")
                if shown is None:
                    return None, reason
                tables += rulesets.parse_iptables(shown, version)
    except ValueError:
        return None, words.NOT_UNDERSTOOD
    return tables, ""


def _environment() -> dict[str, str]:
    """Return what another program gets: English, and not the secret."""
    return {name: value for name, value in os.environ.items() if name != secret.VARIABLE} | {"LC_ALL": "C"}


def _printed(*command: str) -> tuple[str | None, str]:
    """Return what a command prints, or None and why it fails."""
    program = shutil.which(command[0], path=os.environ.get("PATH", os.defpath) + os.pathsep + TOOL_PLACES)
    if program is None:
        return None, words.NOT_INSTALLED.format(program=command[0])
    try:
        done = subprocess.run(
            [program, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOOL_PATIENCE,
            check=True, env=_environment(),
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        if os.geteuid() != 0:
            return None, words.ROOT_ONLY
        reason, _, _ = error.stderr.strip().partition("\n")
        return None, words.TOOL_FAILED.format(program=command[0], reason=reason or error.returncode)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return None, words.TOOL_FAILED.format(program=command[0], reason=error)
    return done.stdout, ""
