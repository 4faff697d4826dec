"""The rows: what is measured, and beside whom.

Ours is compared with each peer that does the same job in the same minute: the
machine cancels out.  Those without a forwarder, and the bare ones, are no peers
but what can be reached at most.  A row of a chart compares nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path as File

from . import measures, startup, whys
from .hole import Path
from .measures import (
    BACK50,
    BACK_MOST,
    BUSY50,
    BUSY99,
    CONNECTIONS,
    CPU,
    CPU_EACH,
    CPU_TIME,
    FIRST50,
    FIRST_MOST,
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
from .stage import Stage
from .subjects import (
    BARE,
    BARE_SEALED,
    BARE_STREAMS,
    DIRECT,
    HAPROXY,
    HAPROXY_SPLICE,
    HAPROXY_TUNED,
    IPERF,
    NCAT,
    PLAIN,
    ROOT_RIGHTS,
    SEALED,
    SOCAT,
    SOCAT_LARGE,
    SSH,
    STARTS,
    STUNNEL,
    UNRESUMED,
    forward,
    piped,
    slow,
)
from .table import BY_PYTHON, Comparison, Metric, Row, Running, Subject

SetUp = Callable[[Stage], Running]

# Where new connections and starts are felt.
ROUND_TRIP_PATH = Path(rate_mbit_s=200, delay_s=0.05, queue_s=0.1)
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


def _beside(
    ours: Sequence[str], peers: Sequence[str], metrics: Sequence[Metric], why: Mapping[str, str] | str = ""
) -> tuple[Comparison, ...]:
    """Return each of ours beside each peer by each metric, peer by peer; `why` may differ by peer."""
    return tuple(
        Comparison(label, metric, peer, why if isinstance(why, str) else why.get(peer, ""))
        for peer in peers
        for label in ours
        for metric in metrics
    )


def _throughput() -> Iterator[Row]:
    """One and many streams: sealed, and in clear."""
    for streams, words in ((1, "one stream"), (16, "16 streams")):
        load = partial(measures.bulk, streams=streams)

        def subjects(*labels: str, load: Load = load, streams: int = streams) -> tuple[Subject, ...]:
            return tuple(forward(label, load, streams=streams) for label in labels)

        yield Row(
            f"plain, -L/--to, {words}",
            subjects(PLAIN, SOCAT_LARGE, HAPROXY_SPLICE, HAPROXY_TUNED, IPERF, DIRECT),
            (RATE, CPU),
            _beside((PLAIN,), (SOCAT_LARGE, HAPROXY_SPLICE, HAPROXY_TUNED), (RATE, CPU), whys.SPLICED),
            chart=(STREAMS, streams),
        )
        yield Row(
            f"sealed, -L/--to, {words}",
            subjects(SEALED, SSH, STUNNEL, SOCAT, HAPROXY, BARE, BARE_SEALED),
            (RATE, CPU),
            _beside((SEALED,), (SSH, STUNNEL, SOCAT, HAPROXY), (RATE, CPU), whys.SEALED),
            chart=(STREAMS, streams),
        )


def _pipes() -> Iterator[Row]:
    peers = (SOCAT_LARGE, SOCAT, NCAT)
    yield Row(
        "plain, --stdio, pipe to pipe", piped(PLAIN, *peers), (RATE,), _beside((PLAIN,), peers, (RATE,)), fresh=True
    )
    yield Row(
        "sealed, --stdio, pipe to pipe", piped(SEALED, SSH), (RATE,), _beside((SEALED,), (SSH,), (RATE,)), fresh=True
    )


def _connections() -> Iterator[Row]:
    peers, floors = (SSH, SOCAT, HAPROXY), (BARE_STREAMS, BARE_SEALED)
    for at_a_time, words in ((1, "one"), (16, "16")):
        load = partial(measures.connections, at_a_time=at_a_time)
        yield Row(
            f"new connections through -L, {words} at a time",
            tuple(forward(label, load, "answer") for label in (PLAIN, SEALED, *peers, *floors, DIRECT)),
            (CONNECTIONS, CPU_EACH),
            _beside((PLAIN, SEALED), peers, (CONNECTIONS,), whys.CONNECTIONS),
            seconds=1.0,
        )
    yield Row(
        "first byte of a new connection over RTT 100 ms",
        tuple(slow(label, measures.first_byte, "answer") for label in (PLAIN, SEALED, SSH, DIRECT)),
        (FIRST50, FIRST_MOST),
        _beside((PLAIN, SEALED), (SSH, DIRECT), (FIRST50,)),
        path=ROUND_TRIP_PATH,
    )


def _echo() -> Iterator[Row]:
    peers = (SSH, SOCAT, HAPROXY)
    yield Row(
        "64 bytes there and back, idle link",
        tuple(forward(label, measures.echo) for label in (PLAIN, SEALED, *peers, DIRECT)),
        (P50, P99),
        _beside((PLAIN, SEALED), peers, (P50, P99), whys.MESSAGES),
        seconds=1.0,
    )
    yield _beside_bulk("100 Mbit/s, 20 ms one way", BUSY_PATH)
    yield _beside_bulk("20 Mbit/s with half a second of queue", HOME_PATH)


def _beside_bulk(words: str, path: Path) -> Row:
    return Row(
        f"64 bytes there and back, beside a stream that fills {words}",
        tuple(slow(label, measures.echo_beside_bulk) for label in (PLAIN, SEALED, SSH)),
        (BUSY50, BUSY99, IDLE99, MORE99, MBITS),
        (
            *_beside((PLAIN, SEALED), (SSH,), (BUSY50, BUSY99)),
            *_beside((PLAIN, SEALED), (SSH,), (MBITS,), whys.PACED),
        ),
        seconds=8 * path.queue_s + 4,
        path=path,
        fresh=True,
        rounds=SLOW_ROUNDS,
    )


def _many_streams() -> Row:
    subjects: list[Subject] = []
    compared: list[Comparison] = []
    # What can be reached at most as well, and what the load itself loses.
    for label in (PLAIN, SEALED, BARE_STREAMS, BARE_SEALED, DIRECT):
        start, needs = STARTS[label]
        few, many = f"{label}, 16 open and active", f"{label}, 1000 open, 100 active"
        subjects += [
            Subject(few, through(start, partial(measures.bulk, streams=16), streams=16), needs),
            Subject(many, through(start, partial(measures.bulk, streams=100, idle=900), streams=100), needs),
        ]
        if label in (PLAIN, SEALED):
            compared += _beside((many,), (few,), (RATE,), whys.MANY_STREAMS)
    return Row("1000 streams", tuple(subjects), (RATE, MEMORY, CPU), tuple(compared))


def _losses() -> Iterator[Row]:
    """What it costs that a session outlives its hole, and how soon it does."""
    both = (SEALED, UNRESUMED)
    one = partial(measures.bulk, streams=1)
    yield Row(
        "cost of being able to resume, one stream",
        tuple(forward(label, one) for label in both),
        (RATE, CPU, MEMORY),
        _beside((SEALED,), (UNRESUMED,), (RATE, CPU, MEMORY), whys.RESUMING),
    )
    yield Row(
        "cost of being able to resume, 64 bytes there and back",
        tuple(forward(label, measures.echo) for label in both),
        (P50, P99),
        _beside((SEALED,), (UNRESUMED,), (P50, P99), whys.RESUMING),
        seconds=1.0,
    )
    start, _ = STARTS[SEALED]
    for path, words in ((None, ""), (ROUND_TRIP_PATH, ", RTT 100 ms")):
        yield Row(
            f"hole lost until bytes flow again{words}",
            (Subject(SEALED, through(start, measures.comeback, slow=bool(path)), (ROOT_RIGHTS,)),),
            (BACK50, BACK_MOST),
            path=path,
        )


def _far() -> Iterator[Row]:
    for path, words in ((FAR_PATH, "no loss"), (FAR_LOSSY_PATH, "0.1 % loss, bbr")):
        ours = (PLAIN, SEALED)
        # Where bytes stay on the way for long, most has to be kept.
        compared = () if path.loss else _beside((SEALED,), (UNRESUMED,), (MBITS, MEMORY), whys.RESUMING)
        yield Row(
            f"one stream over RTT 300 ms, 200 Mbit/s, {words}",
            tuple(slow(label, measures.mbits) for label in (*ours, *(() if path.loss else (UNRESUMED,)), DIRECT)),
            (MBITS, MEMORY),
            (*_beside(ours, (DIRECT,), (MBITS,), whys.LOSSES), *compared),
            seconds=FAR_SECONDS,
            path=path,
            fresh=True,
            rounds=SLOW_ROUNDS,
        )


def _start_up() -> Iterator[Row]:
    yield Row(
        "start-up",
        (
            Subject("punchtunnel --help", startup.helped),
            Subject("punchtunnel, to the first SYN", startup.first_syn, (ROOT_RIGHTS,)),
            Subject("punchtunnel, a hole over loopback from the later start", startup.hole),
        ),
        (CPU_TIME, WALL_TIME),
    )
    for path, words in ((None, "loopback"), (ROUND_TRIP_PATH, "RTT 100 ms")):
        direct = Subject(SSH, startup.ssh(), STARTS[SSH][1])
        yield Row(
            f"from the later start to the first byte, over {words}",
            (*(Subject(ours, startup.tool(ours == SEALED)) for ours in (PLAIN, SEALED)), direct),
            (FIRST50, FIRST_MOST),
            _beside((PLAIN, SEALED), (SSH,), (FIRST50,), whys.STARTS),
            path=path,
            rounds=SLOW_ROUNDS,
        )
        proxied = {f"ssh, ProxyCommand {ours}": ours == SEALED for ours in (PLAIN, SEALED)}
        yield Row(
            f"ssh with --stdio as ProxyCommand, from its start to the first byte, over {words}",
            (
                *(Subject(label, startup.ssh_through_tool(sealed), direct.needs) for label, sealed in proxied.items()),
                direct,
            ),
            (FIRST50, FIRST_MOST),
            _beside(tuple(proxied), (SSH,), (FIRST50,), whys.STARTS),
            path=path,
            rounds=SLOW_ROUNDS,
        )


def _pythons(pythons: Mapping[str, File]) -> Iterator[Row]:
    """The same with the tool run by several interpreters; the first one is what the others are beside."""

    def subjects(set_up: SetUp) -> tuple[Subject, ...]:
        return tuple(Subject(label, _run_by(python, set_up)) for label, python in pythons.items())

    def row(what: str, set_up: SetUp, metrics: tuple[Metric, ...], seconds: float) -> Row:
        first, *others = (*pythons, "")
        compared = tuple(
            Comparison(label, metric, first, whys.PYTHONS) for label in others if label for metric in metrics
        )
        return Row(f"{BY_PYTHON}{what}", subjects(set_up), metrics, compared, seconds=seconds)

    start, _ = STARTS[SEALED]
    at_a_time = partial(measures.connections, at_a_time=16)
    yield row("sealed, one stream", through(start, partial(measures.bulk, streams=1)), (RATE, CPU), 2.0)
    yield row("new connections, 16 at a time", through(start, at_a_time, "answer"), (CONNECTIONS, CPU_EACH), 1.0)
    yield row("64 bytes there and back", through(start, measures.echo), (P50, P99), 1.0)
    yield row("start-up, --help", startup.helped, (CPU_TIME, WALL_TIME), 1.0)


def _run_by(python: File, set_up: SetUp) -> SetUp:
    def other(stage: Stage) -> Running:
        stage.program = (str(python), "-m", "punchtunnel")
        return set_up(stage)

    return other


def _charts() -> Iterator[Row]:
    """Points between those that are compared."""
    for streams in (4, 64):
        load = partial(measures.bulk, streams=streams)
        yield _point(f"{streams} streams", load, (STREAMS, streams))
    for record in (64, 1024, 16384, 1048576):
        load = partial(measures.bulk, streams=1, record=record)
        yield _point(f"one stream, writes of {record} bytes", load, (RECORDS, record))


def _point(title: str, load: Load, chart: tuple[str, int]) -> Row:
    # Beside the load alone: small writes cost the client more than any hop.
    labels = (*CHARTED, DIRECT) if chart[0] == RECORDS else CHARTED
    subjects = tuple(forward(label, load) for label in labels)
    return Row(title, subjects, (RATE, CPU), chart=chart, seconds=CHART_SECONDS, rounds=CHART_ROUNDS)


def rows(pythons: Mapping[str, File] | None = None) -> list[Row]:
    """Return all rows, in the order in which they run; `pythons` are interpreters by label."""
    return [
        *_throughput(), *_pipes(), *_connections(), *_echo(), _many_streams(), *_losses(), *_far(), *_start_up(),
        *_pythons(pythons or {}), *_charts(),
    ]  # fmt: skip
