"""Look at this machine without sending anything: what system/ knows of it, and what the firewall's own tools print.

What cannot be read is None: a container or another system shows less, and a
user who is not root sees less; findings.py says so.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from punchtunnel.doctor import rulesets
from punchtunnel.doctor.facts import ANY, Bind, Clock, Facts, Uplink
from punchtunnel.doctor.firewall import Table
from punchtunnel.protocol.schedule import HIGHEST_PORT, LOWEST_PORT
from punchtunnel.punching import ports
from punchtunnel.system import proc
from punchtunnel.system.addresses import (
    LOOPBACK,
    SOMEWHERE,
    global_addresses6,
    interface_of,
    own_addresses,
    source_towards,
)
from punchtunnel.system.clock import error_bound_ms
from punchtunnel.system.routes import Route, default_routes, interfaces_towards
from punchtunnel.words import doctor as words

Seen = TypeVar("Seen")
# Seconds for a tool that prints its rules.
TOOL_PATIENCE = 5.0
# Folders of such tools that an ordinary user's PATH often lacks.
TOOL_PLACES = os.pathsep.join(("/usr/sbin", "/sbin", "/usr/local/sbin"))
# Ports that are tried before none is said to be free.
PORT_TRIES = 20


def clock() -> Clock:
    """Ask the kernel whether something keeps its clock right."""
    error_ms = error_bound_ms()
    now = time.time()
    return Clock(now) if error_ms is None else Clock(now, offset_s=0.0, error_s=error_ms / 1000)


def facts(rng: random.Random, bind: Bind = ANY) -> Facts:
    """Return what this machine tells about itself, or about the part of it that --bind names."""
    tables, reason = _firewall()
    uplinks = _known(lambda: _uplinks(bind))
    return Facts(
        routes=_known(lambda: _routes(bind, uplinks)),
        address4=_address4(bind, uplinks),
        addresses6=_known(lambda: _addresses6(bind)),
        ephemeral=_known(proc.ephemeral_ports),
        taken=_known(lambda: proc.taken_ports(LOWEST_PORT, HIGHEST_PORT)) or 0,
        sharing=_why_not_shared(rng, bind),
        tables=tables,
        tables_unread=reason,
        uplinks=uplinks,
    )


def routes(bind: Bind) -> dict[int, Route] | None:
    """Return the default route of each IP version, 4 and 6, that leads out of what --bind names; None if unknown."""
    return _known(lambda: _routes(bind, _uplinks(bind)))


def _uplinks(bind: Bind) -> list[Uplink] | None:
    """Return the interfaces that lead out, and the addresses that a dial has there.

    Towards IPv4, the kernel names some address for every interface, whether a route goes
    that way or not (`ip_route_output_key_hash_rcu` takes any destination to be on the
    interface's own network then): only the list of routes shows which one leads out.
    A VPN with a table of its own is in no list, but it is what the kernel takes.
    """
    leading = interfaces_towards(SOMEWHERE[0].host)
    if leading is None:
        return None
    taken4, taken6 = (interface_of(source_towards(somewhere) or "") for somewhere in SOMEWHERE)
    found = []
    for _, name in socket.if_nameindex():
        sources4 = [source_towards(SOMEWHERE[0], name)] if name in {taken4, *leading} else []
        sources = [one for one in (*sources4, source_towards(SOMEWHERE[1], name)) if one and bind.host in ("", one)]
        if sources and bind.interface in ("", name):
            found.append(Uplink(name, sources))
    return sorted(found, key=lambda one: one.interface not in (taken4, taken6))


def _source_of(uplinks: Sequence[Uplink], version: int) -> tuple[str, str]:
    """Return the first interface that leads out by an IP version, and the address that a dial has there."""
    pairs = ((one.interface, source) for one in uplinks for source in one.sources)
    return next((pair for pair in pairs if (":" in pair[1]) == (version == 6)), ("", ""))


def _routes(bind: Bind, uplinks: Sequence[Uplink] | None) -> dict[int, Route] | None:
    """Return the default routes that the kernel really takes: a VPN has rules, or tables, of its own."""
    routes = default_routes()
    if routes is not None and bind != ANY:
        ways = {version: _source_of(uplinks or (), version)[0] for version in (4, 6)}
        return {
            version: routes[version] if version in routes and routes[version].device == device else Route(device)
            for version, device in ways.items()
            if device
        }
    for version, somewhere in zip((4, 6), SOMEWHERE, strict=True):
        source = source_towards(somewhere)
        interface = interface_of(source) if source else ""
        if routes is not None and interface and (version not in routes or routes[version].device != interface):
            routes[version] = Route(interface)
    return routes


def _address4(bind: Bind, uplinks: Sequence[Uplink] | None) -> str:
    if bind.host:
        return "" if ":" in bind.host else bind.host
    if bind.interface:
        return _source_of(uplinks or (), 4)[1]
    return source_towards(SOMEWHERE[0]) or _local_address4()


def _local_address4() -> str:
    """Return an address of this machine in a network without a way out; "" if there is none."""
    return next((one for one in own_addresses() if ":" not in one and not one.startswith("127.")), "")


def _addresses6(bind: Bind) -> list[str] | None:
    """Return the IPv6 addresses with global scope, the one that a dial leaves from first."""
    addresses, used = global_addresses6(), bind.host or source_towards(SOMEWHERE[1], bind.interface)
    if addresses and bind != ANY:
        return [one for one in addresses if one == used]
    return addresses and sorted(addresses, key=lambda one: one != used)


def _known(look: Callable[[], Seen | None]) -> Seen | None:
    """Return what is seen, or None if the file has not the form that Linux gives it."""
    with contextlib.suppress(ValueError):
        return look()
    return None


# ---- ports


def on_some_port(rng: random.Random, open_on: Callable[[int], socket.socket]) -> socket.socket:
    """Return what `open_on` has opened on some port of the punch's range.

    Raises:
        OSError: None of PORT_TRIES ports is free.
    """
    for _ in range(PORT_TRIES - 1):
        with contextlib.suppress(OSError):
            return open_on(rng.randint(LOWEST_PORT, HIGHEST_PORT))
    return open_on(rng.randint(LOWEST_PORT, HIGHEST_PORT))


def _why_not_shared(rng: random.Random, bind: Bind) -> str:
    """Open a listener on one port, and then a dial from it, as a punch does; return why that fails, or ""."""
    host = bind.host or LOOPBACK
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
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
    old = bool(proc.read("net/ip_tables_names") or proc.read("net/ip6_tables_names"))
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


def _printed(*command: str) -> tuple[str | None, str]:
    """Return what a command prints, or None and why it fails.

    It runs in English, and with nothing else of our environment: that may hold the secret.
    """
    path = os.environ.get("PATH", os.defpath) + os.pathsep + TOOL_PLACES
    program = shutil.which(command[0], path=path)
    if program is None:
        return None, words.NOT_INSTALLED.format(program=command[0])
    try:
        done = subprocess.run(
            [program, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TOOL_PATIENCE,
            check=True, env={"PATH": path, "LC_ALL": "C"},
        )  # fmt: skip
    except subprocess.CalledProcessError as error:
        if os.geteuid() != 0:
            return None, words.ROOT_ONLY
        reason, _, _ = error.stderr.strip().partition("\n")
        return None, words.TOOL_FAILED.format(program=command[0], reason=reason or error.returncode)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return None, words.TOOL_FAILED.format(program=command[0], reason=error)
    return done.stdout, ""
