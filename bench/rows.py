"""The rows: what is measured, beside whom, and what must come out.

Targets are ratios to a peer that does the same job in the same minute: the
machine cancels out.  A row of a chart has no target of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from . import forwarders, measures, pipes, startup
from .forwarders import SOCAT_BUFFER, Start
from .hole import Path
from .measures import (
    BACK50,
    BACK_MOST,
    BUSY50,
    BUSY99,
    CONNECTIONS,
    CPU,
    CPU_TIME,
    IDLE99,
    MBITS,
    MEMORY,
    MORE99,
    P50,
    P99,
    RATE,
    WALL_TIME,
    Load,
    through,
)
from .table import Row, Subject, Target

PLAIN, SEALED = "punchtunnel --plain", "punchtunnel, sealed"
UNRESUMED = "punchtunnel, sealed, --resume 0"
SOCAT, SOCAT_LARGE = "socat", f"socat {SOCAT_BUFFER}"
HAPROXY, HAPROXY_SPLICE, HAPROXY_TUNED = "haproxy", "haproxy, splice", "haproxy, splice, 1 MiB pipes"
SSH, STUNNEL, NCAT = "ssh, aes128-gcm", "stunnel, aes128-gcm", "ncat"
IPERF, DIRECT = "iperf3, no forwarder", "the load, no forwarder"
# What Python can at most; see bare.py.
BARE = "a bare loop in Python"

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

STREAMS, RECORDS = "streams", "records"
CHARTED = (PLAIN, SEALED, SOCAT_LARGE, HAPROXY_SPLICE, SSH, STUNNEL)
CHART_SECONDS, CHART_ROUNDS = 1.0, 2

# A queue of one round trip is what a router's is made for.
BUSY_PATH = Path(rate_mbit_s=100, delay_s=0.02, queue_s=0.04)
# A home's uplink: its modem keeps packets for as long as it can.
HOME_PATH = Path(rate_mbit_s=20, delay_s=0.02, queue_s=0.5)
FAR_PATH = Path(rate_mbit_s=200, delay_s=0.15, queue_s=0.3)
# TCP needs three seconds to fill it, and an overfull queue at the end of the
# measurement costs one more: so long that neither decides.
FAR_SECONDS = 20.0
# Here cubic's rate is a matter of when the losses fall: 1 to 9 Mbit/s for plain TCP.
FAR_LOSSY_PATH = Path(rate_mbit_s=200, delay_s=0.15, queue_s=0.3, loss=0.001, congestion_control="bbr")
SLOW_ROUNDS = 3


def _forward(label: str, load: Load, kind: str = "work", streams: int = 1) -> Subject:
    start, needs = STARTS[label]
    return Subject(label, through(start, load, kind, streams), needs)


def _piped(*labels: str) -> tuple[Subject, ...]:
    return tuple(Subject(label, pipes.piped(PIPES[label][0]), PIPES[label][1]) for label in labels)


def _throughput() -> Iterator[Row]:
    """One and many streams: sealed, and in clear."""
    for streams, words in ((1, "one stream"), (16, "16 streams")):
        load = partial(measures.bulk, streams=streams)

        def subjects(*labels: str, load: Load = load, streams: int = streams) -> tuple[Subject, ...]:
            return tuple(_forward(label, load, streams=streams) for label in labels)

        yield Row(
            f"plain, -L/--to, {words}",
            subjects(PLAIN, SOCAT_LARGE, HAPROXY_SPLICE, HAPROXY_TUNED, IPERF, DIRECT),
            (RATE, CPU),
            (
                Target(PLAIN, RATE, 1.1, SOCAT_LARGE),
                Target(PLAIN, RATE, 1.1, HAPROXY_SPLICE),
                Target(PLAIN, RATE, 1.1, HAPROXY_TUNED),
                Target(PLAIN, RATE, 0.70, IPERF),
                Target(PLAIN, CPU, 1.0, SOCAT_LARGE),
            ),
            chart=(STREAMS, streams),
        )
        yield Row(
            f"sealed, -L/--to, {words}",
            subjects(SEALED, SSH, STUNNEL, SOCAT, HAPROXY, BARE),
            (RATE, CPU),
            (
                Target(SEALED, RATE, 2.0, SSH),
                Target(SEALED, RATE, 3.0, STUNNEL),
                Target(SEALED, RATE, 3.5, SOCAT),
                Target(SEALED, RATE, 1.5, HAPROXY),
                Target(SEALED, CPU, 1.0, SSH),
            ),
            chart=(STREAMS, streams),
        )


def _pipes() -> Iterator[Row]:
    yield Row(
        "plain, --stdio, pipe to pipe",
        _piped(PLAIN, SOCAT_LARGE, SOCAT, NCAT),
        (RATE,),
        (Target(PLAIN, RATE, 1.5, SOCAT_LARGE), Target(PLAIN, RATE, 3.0, SOCAT)),
        fresh=True,
    )
    yield Row(
        "sealed, --stdio, pipe to pipe", _piped(SEALED, SSH), (RATE,), (Target(SEALED, RATE, 1.5, SSH),), fresh=True
    )


def _connections() -> Iterator[Row]:
    for at_a_time, words, ssh, socat in ((1, "one", 1.1, 3.0), (16, "16", 1.4, 5.0)):
        load = partial(measures.connections, at_a_time=at_a_time)
        labels = (PLAIN, SEALED, SSH, SOCAT, HAPROXY, DIRECT)
        targets = tuple(
            Target(ours, CONNECTIONS, factor, peer)
            for ours in (PLAIN, SEALED)
            for peer, factor in ((SSH, ssh), (SOCAT, socat))
        )
        subjects = tuple(_forward(label, load, "answer") for label in labels)
        yield Row(f"new connections through -L, {words} at a time", subjects, (CONNECTIONS,), targets, seconds=1.0)


def _echo() -> Iterator[Row]:
    labels = (PLAIN, SEALED, SSH, SOCAT, HAPROXY, DIRECT)
    targets = tuple(Target(ours, metric, 1.0, SSH) for ours in (PLAIN, SEALED) for metric in (P50, P99))
    subjects = tuple(_forward(label, measures.echo) for label in labels)
    yield Row("64 bytes there and back, idle link", subjects, (P50, P99), targets, seconds=1.0)
    more = 1.5 * 2 * BUSY_PATH.delay_s * 1000
    targets = tuple(Target(ours, MORE99, more) for ours in (PLAIN, SEALED))
    yield _beside_bulk("100 Mbit/s, 20 ms one way", BUSY_PATH, targets)
    # Of most of the time: to empty such a queue takes two to three seconds.
    targets = tuple(Target(ours, BUSY50, 0.25, SSH) for ours in (PLAIN, SEALED))
    yield _beside_bulk("20 Mbit/s with half a second of queue", HOME_PATH, targets)


def _beside_bulk(words: str, path: Path, targets: tuple[Target, ...]) -> Row:
    return Row(
        f"64 bytes there and back, beside a stream that fills {words}",
        tuple(_slow(label, measures.echo_beside_bulk) for label in (PLAIN, SEALED, SSH)),
        (BUSY50, BUSY99, IDLE99, MORE99, MBITS),
        (*targets, *(Target(ours, BUSY99, 1.0, SSH) for ours in (PLAIN, SEALED))),
        seconds=8 * path.queue_s + 4,
        path=path,
        fresh=True,
        rounds=SLOW_ROUNDS,
    )


def _slow(label: str, load: Load) -> Subject:
    start, needs = STARTS[label]
    return Subject(label, through(start, load, slow=True), needs)


def _many_streams() -> Row:
    subjects, targets = [], []
    for ours in (PLAIN, SEALED):
        start, needs = STARTS[ours]
        few, many = f"{ours}, 16 open and active", f"{ours}, 1000 open, 100 active"
        subjects += [
            Subject(few, through(start, partial(measures.bulk, streams=16), streams=16), needs),
            Subject(many, through(start, partial(measures.bulk, streams=100, idle=900), streams=100), needs),
        ]
        targets += [Target(many, RATE, 0.8, few), Target(many, MEMORY, 150)]
    return Row("1000 streams", tuple(subjects), (RATE, MEMORY, CPU), tuple(targets))


def _losses() -> Iterator[Row]:
    """What it costs that a session outlives its hole, and how soon it does."""
    one = partial(measures.bulk, streams=1)
    yield Row(
        "cost of being able to resume, one stream",
        (_forward(SEALED, one), _forward(UNRESUMED, one)),
        (RATE, CPU),
        (Target(SEALED, RATE, 0.97, UNRESUMED),),
    )
    yield Row(
        "cost of being able to resume, 64 bytes there and back",
        (_forward(SEALED, measures.echo), _forward(UNRESUMED, measures.echo)),
        (P50, P99),
        (Target(SEALED, P50, 1.03, UNRESUMED),),
        seconds=1.0,
    )
    start, _ = STARTS[SEALED]
    yield Row(
        "hole lost until bytes flow again",
        (Subject(SEALED, through(start, measures.comeback), (ROOT_RIGHTS,)),),
        (BACK50, BACK_MOST),
        (),
    )


def _far() -> Iterator[Row]:
    for path, words in ((FAR_PATH, "no loss"), (FAR_LOSSY_PATH, "0.1 % loss, bbr")):
        yield Row(
            f"one stream over RTT 300 ms, 200 Mbit/s, {words}",
            tuple(_slow(label, measures.mbits) for label in (PLAIN, SEALED, DIRECT)),
            (MBITS,),
            tuple(Target(ours, MBITS, 0.95, DIRECT) for ours in (PLAIN, SEALED)),
            seconds=FAR_SECONDS,
            path=path,
            fresh=True,
            rounds=SLOW_ROUNDS,
        )


def _start_up() -> Row:
    shown, syn = "punchtunnel --help", "punchtunnel, to the first SYN"
    return Row(
        "start-up",
        (
            Subject(shown, startup.helped),
            Subject(syn, startup.first_syn, (ROOT_RIGHTS,)),
            Subject("punchtunnel, a hole over loopback from the later start", startup.hole),
        ),
        (CPU_TIME, WALL_TIME),
        (Target(shown, CPU_TIME, 0.15), Target(syn, CPU_TIME, 0.20)),
    )


def _charts() -> Iterator[Row]:
    """Points between those that have targets."""
    for streams in (4, 64):
        load = partial(measures.bulk, streams=streams)
        yield _point(f"{streams} streams", load, (STREAMS, streams))
    for record in (64, 1024, 16384, 1048576):
        load = partial(measures.bulk, streams=1, record=record)
        yield _point(f"one stream, writes of {record} bytes", load, (RECORDS, record))


def _point(title: str, load: Load, chart: tuple[str, int]) -> Row:
    # Beside the load alone: small writes cost the client more than any hop.
    labels = (*CHARTED, DIRECT) if chart[0] == RECORDS else CHARTED
    subjects = tuple(_forward(label, load) for label in labels)
    return Row(title, subjects, (RATE, CPU), chart=chart, seconds=CHART_SECONDS, rounds=CHART_ROUNDS)


def rows() -> list[Row]:
    """Return all rows, in the order in which they run."""
    return [
        *_throughput(), *_pipes(), *_connections(), *_echo(), _many_streams(), *_losses(), *_far(), _start_up(),
        *_charts(),
    ]  # fmt: skip
