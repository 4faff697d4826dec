"""Who is measured: the tool, its peers, and what can be reached at most."""

from __future__ import annotations

from functools import partial

from . import forwarders, pipes
from .forwarders import SOCAT_BUFFER, Start
from .measures import Load, through
from .table import Subject

PLAIN, SEALED = "punchtunnel --plain", "punchtunnel, sealed"
UNRESUMED = "punchtunnel, sealed, --resume 0"
SOCAT, SOCAT_LARGE = "socat", f"socat {SOCAT_BUFFER}"
HAPROXY, HAPROXY_SPLICE, HAPROXY_TUNED = "haproxy", "haproxy, splice", "haproxy, splice, 1 MiB pipes"
SSH, STUNNEL, NCAT = "ssh, aes128-gcm", "stunnel, aes128-gcm", "ncat"
IPERF, DIRECT = "iperf3, no forwarder", "the load, no forwarder"
# What Python can at most; see bare.py and barestreams.py.
BARE = "a bare loop in Python"
BARE_STREAMS, BARE_SEALED = "bare streams in Python", "bare streams, sealed"

# How each is started for -L, and what must be installed.
STARTS: dict[str, tuple[Start, tuple[str, ...]]] = {
    PLAIN: (partial(forwarders.punchtunnel, sealed=False), ()),
    SEALED: (partial(forwarders.punchtunnel, sealed=True), ()),
    UNRESUMED: (partial(forwarders.punchtunnel, sealed=True, options=("--resume", "0")), ()),
    SOCAT: (forwarders.socat, ("socat",)),
    SOCAT_LARGE: (lambda stage, target: forwarders.socat(stage, target, SOCAT_BUFFER), ("socat",)),
    HAPROXY: (partial(forwarders.haproxy, splice=False), ("haproxy",)),
    HAPROXY_SPLICE: (partial(forwarders.haproxy, splice=True), ("haproxy",)),
    HAPROXY_TUNED: (partial(forwarders.haproxy, splice=True, pipe=forwarders.BUFFER), ("haproxy",)),
    SSH: (forwarders.ssh, ("ssh", "sshd")),
    STUNNEL: (forwarders.stunnel, ("stunnel",)),
    IPERF: (forwarders.iperf3, ("iperf3",)),
    BARE: (forwarders.bare, ()),
    BARE_STREAMS: (partial(forwarders.bare_streams, sealed=False), ()),
    BARE_SEALED: (partial(forwarders.bare_streams, sealed=True), ()),
    DIRECT: (forwarders.nothing, ()),
}
PIPES: dict[str, tuple[pipes.Start, tuple[str, ...]]] = {
    PLAIN: (partial(pipes.punchtunnel, sealed=False), ()),
    SEALED: (partial(pipes.punchtunnel, sealed=True), ()),
    SOCAT: (pipes.socat, ("socat",)),
    SOCAT_LARGE: (lambda stage, source, drain: pipes.socat(stage, source, drain, SOCAT_BUFFER), ("socat",)),
    NCAT: (pipes.ncat, ("ncat",)),
    SSH: (pipes.ssh, ("ssh", "sshd")),
}
# Needed like a program: to see packets.
ROOT_RIGHTS = "root"


def forward(label: str, load: Load, kind: str = "work", streams: int = 1) -> Subject:
    """Return what puts a load on a forwarder over loopback; see measures.through."""
    start, needs = STARTS[label]
    return Subject(label, through(start, load, kind, streams), needs)


def slow(label: str, load: Load, kind: str = "work") -> Subject:
    """Return the same over a path that is slow."""
    start, needs = STARTS[label]
    return Subject(label, through(start, load, kind, slow=True), needs)


def piped(*labels: str) -> tuple[Subject, ...]:
    """Return what pours into a pipe at one end; see pipes.py."""
    return tuple(Subject(label, pipes.piped(PIPES[label][0]), PIPES[label][1]) for label in labels)
