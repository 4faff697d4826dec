"""Whether this machine's router forwards a port when it is asked to: one is mapped, and given back at once."""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import time
from collections.abc import Callable

from punchtunnel.address import is_public
from punchtunnel.doctor.facts import Bind, Facts
from punchtunnel.doctor.findings import Finding, Level
from punchtunnel.doctor.survey import on_some_port
from punchtunnel.punching.helper import PortMapper, RouterNews
from punchtunnel.system.routes import gateways
from punchtunnel.words import NO_ROUTER_ANSWERS

# Seconds: a router that is there answers within two; then UPnP is tried.
PATIENCE = 5.0
KEY_SIZE = 32


def has_router(facts: Facts) -> bool:
    """Tell whether there is one to ask: a public IPv4 address needs none."""
    translated = bool(facts.address4) and not is_public(facts.address4)
    return bool(gateways()) and (translated or bool(facts.addresses6))


def ask(bind: Bind, make: Callable[[bytes, str, str | None], PortMapper] | None = None) -> RouterNews:
    """Return what the routers say; `make` makes a stand-in of the mapper for tests."""
    if make is None:
        # Imported late: only this needs it.
        from punchtunnel.reach.mapping import Mapper

        make = Mapper
    mapper = make(os.urandom(KEY_SIZE), bind.interface, bind.host or None)
    until, news = time.monotonic() + PATIENCE, RouterNews()
    # It does not listen, and while it has the port nobody else does: what is forwarded leads to no program.
    with contextlib.closing(mapper), on_some_port(random.SystemRandom(), _occupied) as sock:
        port = sock.getsockname()[1]
        mapper.want({socket.AF_INET: [port], socket.AF_INET6: [port]})
        mapper.start()
        while not _is_decided(news) and (left := until - time.monotonic()) > 0:
            if select.select([mapper], [], [], left)[0]:
                news = mapper.take()
    return news


def _occupied(port: int) -> socket.socket:
    """Return a socket that has a port.

    Raises:
        OSError: Another one has it.
    """
    sock = socket.socket()
    try:
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock


def _is_decided(news: RouterNews) -> bool:
    ipv4 = any(one.family == socket.AF_INET for one in news.mappings)
    return ipv4 or news.silent or bool(news.behind or news.refusals)


def of_news(news: RouterNews) -> list[Finding]:
    """Judge it: one finding for each mapping, or why there is none."""
    found = [
        Finding(
            "forwarding",
            Level.OK if mapping.external.port == mapping.own_port else Level.WARN,
            "forwards" if mapping.external.port == mapping.own_port else "forwards_another",
            {
                "external": str(mapping.external),
                "port": mapping.own_port,
                "by": mapping.by,
                "version": 6 if mapping.family == socket.AF_INET6 else 4,
            },
        )
        for mapping in news.mappings
    ]
    found += [Finding("forwarding", Level.WARN, "forwards_inside", {"address": one}) for one in news.behind]
    found += [Finding("forwarding", Level.WARN, "forwards_not", {"reason": one}) for one in news.refusals]
    if not found:
        found.append(Finding("forwarding", Level.UNKNOWN, "forwards_not", {"reason": NO_ROUTER_ANSWERS}))
    return found


def addresses(news: RouterNews) -> list[str]:
    """Return the public addresses that lead here, IPv4 first."""
    hosts = {mapping.external.host for mapping in news.mappings}
    return sorted(hosts, key=lambda host: ":" in host)
