"""The command line: options, then values, then punch, bridge, and the exit status."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import punchtunnel
from punchtunnel import words
from punchtunnel.address import AnyPlace, UnixPlace, parse_listen, parse_target
from punchtunnel.cli.options import Options, check_secret, find_secret, settings_of, side_of
from punchtunnel.errors import NO_RESOURCES, Exit, LocalError, PunchtunnelError, RejectedError, SignalError, UsageError
from punchtunnel.protocol import secret
from punchtunnel.protocol.frames import MAX_SIZE
from punchtunnel.protocol.hello import Role, Trait
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.puncher import open_hole
from punchtunnel.punching.rations import Rations
from punchtunnel.punching.settings import Settings
from punchtunnel.reporting import events, notify
from punchtunnel.reporting.jsonlines import open_jsonlines
from punchtunnel.reporting.output import open_output
from punchtunnel.reporting.status import Status, status_of_a_mistake
from punchtunnel.session.plan import Outcome, Plan, RoundTrips
from punchtunnel.system.signals import Signals
from punchtunnel.system.tcp import name_of
from punchtunnel.words import usage

if TYPE_CHECKING:
    from punchtunnel.reporting.display import Display
    from punchtunnel.reporting.output import Output

# With these a session is over for good, also under -k.
_FINAL = (Exit.BROKEN_PIPE, Exit.HANGUP, Exit.INTERRUPTED, Exit.TERMINATED)

# What --doctor takes.
_FOR_DOCTOR = {"doctor", "stun", "ntp", "as_json", "status_fd", "verbose", "quiet"}

# Seconds before a service (-k) meets a rejected peer again.
REJECTION_PAUSE = 5.0
# More than a busy tunnel needs, and less than makes programs slow that close
# every descriptor one by one.
MAX_DESCRIPTORS = 65536

EPILOG = """\
\b
Roles that fit together (run one command on each machine):
  stdio   --stdio    a pipe between the two machines
  stdio   --to       one connection to the target, as for ssh's ProxyCommand
  -L      --to       any number of connections
  -L      --stdio    the first connection to the port
\b
Exit status:
  0    everything was delivered and acknowledged, in both directions
  1    the link was lost, or data was cut
  2    wrong usage
  3    no hole within the time to wait
  4    the peer was rejected: its role, version or secret does not fit
  5    local resource: a port is taken, an address or a file cannot be used
  6    the target of --to was refused (with stdio on one side)
  129, 130, 143  ended by SIGHUP, SIGINT, SIGTERM;  141  output closed
  With --doctor: 0  nothing speaks against punching from here;  1  something does
"""

app = typer.Typer(
    name="punchtunnel",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"punchtunnel {punchtunnel.__version__}")
        raise typer.Exit


def _show_new_secret(wanted: bool) -> None:
    if wanted:
        typer.echo(secret.fresh())
        raise typer.Exit


def _own_addresses(incomplete: str) -> list[str]:
    """Return what completes --bind.  Where nothing completes a word, the shells offer files."""
    # Imported now: only a shell that completes needs it.
    from punchtunnel.system import addresses

    return [address for address in addresses.addresses() if address.startswith(incomplete)]


def _own_places(incomplete: str) -> list[str]:
    """Return what completes -L: an address to which only the port is missing."""
    places = [f"[{address}]:" if ":" in address else f"{address}:" for address in _own_addresses("")]
    return [place for place in places if place.startswith(incomplete)]


@app.command(epilog=EPILOG)
def run(
    peers: Annotated[
        list[str] | None,
        typer.Argument(metavar="PEER...", help="Address or name of the other machine; all given are tried at once."),
    ] = None,
    stdio: Annotated[bool, typer.Option("--stdio", help="Join the hole to stdin and stdout (the default).")] = False,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "-L",
            "--listen",
            metavar="[BIND:]PORT",
            help="Local port, or unix:/path; may be repeated.",
            autocompletion=_own_places,
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="[HOST:]PORT", help="Where connections from the far side lead, or unix:/path."),
    ] = None,
    channel: Annotated[
        str, typer.Option("--channel", metavar="NAME", help="Separates links between the same two machines.")
    ] = "",
    wait: Annotated[
        float | None,
        typer.Option(
            "-w", "--wait", metavar="SECONDS", help="To get a hole; 0: for ever.  [default: 120; with -k: for ever]"
        ),
    ] = None,
    idle: Annotated[
        float, typer.Option("-i", "--idle-timeout", metavar="SECONDS", help="End a session without traffic; 0: never.")
    ] = 0.0,
    keep: Annotated[
        bool, typer.Option("-k", "--keep-open", help="When a session or the hole ends, punch again.")
    ] = False,
    no_stdin: Annotated[bool, typer.Option("-n", "--no-stdin", help="Do not read stdin: send EOF at once.")] = False,
    send_only: Annotated[bool, typer.Option("--send-only", help="Write nothing to stdout.")] = False,
    recv_only: Annotated[bool, typer.Option("--recv-only", help="Send nothing; like -n.")] = False,
    ipv4: Annotated[bool, typer.Option("-4", "--ipv4", help="IPv4 only.")] = False,
    ipv6: Annotated[bool, typer.Option("-6", "--ipv6", help="IPv6 only.")] = False,
    bind: Annotated[
        str | None,
        typer.Option(
            "--bind", metavar="ADDR", help="Address of this machine to punch from.", autocompletion=_own_addresses
        ),
    ] = None,
    clock_offset: Annotated[
        float, typer.Option("--clock-offset", metavar="SECONDS", help="Add to this machine's clock.")
    ] = 0.0,
    secret_file: Annotated[
        str | None, typer.Option("--secret-file", metavar="FILE", help="Read the shared secret from FILE.")
    ] = None,
    ask_secret: Annotated[
        bool, typer.Option("--ask-secret", help="Ask for the shared secret on the terminal.")
    ] = False,
    require_secret: Annotated[bool, typer.Option("--require-secret", help="Refuse to run without a secret.")] = False,
    new_secret: Annotated[
        bool,
        typer.Option("--new-secret", callback=_show_new_secret, is_eager=True, help="Print a fresh secret and exit."),
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Do not seal the link; must be given on both sides.")] = False,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Say what happens; -vv says more.")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say only why it failed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line on stderr for every event.")] = False,
    status_fd: Annotated[
        int | None,
        typer.Option("--status-fd", metavar="N", help="Write what --json tells to descriptor N; stderr is for people."),
    ] = None,
    progress: Annotated[
        bool, typer.Option("--progress", help="With stdio: bytes, rate, average and time, as pv shows them.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print the command for the other machine and the ports; send nothing.")
    ] = False,
    check: Annotated[
        bool, typer.Option("-z", help="Only check the path: meet the peer, measure the round trip, and leave it alone.")
    ] = False,
    doctor: Annotated[
        bool,
        typer.Option("--doctor", help="Look at this machine, without a PEER; sends nothing without --stun or --ntp."),
    ] = False,
    stun: Annotated[
        list[str] | None,
        typer.Option("--stun", metavar="HOST[:PORT]", help="With --doctor: ask this STUN server by TCP; give two."),
    ] = None,
    ntp: Annotated[
        str | None, typer.Option("--ntp", metavar="HOST[:PORT]", help="With --doctor: ask this NTP server the time.")
    ] = None,
    half_close: Annotated[
        bool, typer.Option("-N", help="Accepted and ignored: EOF always reaches the far side.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> int:
    """Punch a TCP hole to PEER and send any TCP program through it.

    Run one command on each of the two machines, within two minutes (-w).
    Both must know the other's public address; nothing else is needed.

    The link is encrypted.  With the same secret on both sides, in
    PUNCHTUNNEL_SECRET or by --secret-file or --ask-secret, the two machines
    also prove to each other who they are.
    """
    given = locals()
    return _guarded(Options(**{name: given[name] for name in Options.__slots__}))


def _guarded(options: Options) -> int:
    """Run, and turn every expected failure into its status and one sentence."""
    verbosity = -1 if options.quiet else options.verbose
    output = open_output(options.as_json, options.status_fd)
    manager = notify.teller(os.environ.get(notify.VARIABLE))
    status = Status(verbosity, output, manager=manager)
    try:
        programs = open_jsonlines(options.as_json, options.status_fd, stdio=options.is_stdio and not options.send_only)
        status = Status(verbosity, output, programs, _display(options, output), manager)
        _begin(status)
        code, reason = _perform(options, status)
    except SignalError as error:
        code, reason = error.status, ""
    except PunchtunnelError as error:
        code, reason = error.status, str(error)
    except OSError as error:
        if error.errno not in NO_RESOURCES:
            raise
        code, reason = Exit.LOCAL, words.no_resources(os.strerror(error.errno))
    status(events.Exited(status=int(code), reason=reason))
    return code


def _display(options: Options, output: Output | None) -> Display | None:
    """Return what draws the line of a terminal, or --progress, if anything is to be drawn."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    states = terminal and not (options.quiet or options.verbose)
    if output is None or not (states or options.progress):
        return None
    # Imported now: a log does not need it.
    from punchtunnel.reporting.display import Display, Shows

    shows = Shows(
        states=states,
        streams=not (options.is_stdio or options.check),
        progress=options.progress,
        typing=terminal and options.is_stdio and options.reads_stdin and os.isatty(0),
        hint=lambda: _hint(options),
    )
    return Display(output, sys.stderr, shows, lambda: time.time() + options.clock_offset)


def _hint(options: Options) -> str:
    from punchtunnel.cli import show

    return show.hint(side_of(options))


def _page(options: Options) -> str:
    from punchtunnel.cli import show

    return show.page(side_of(options), time.time() + options.clock_offset)


def _begin(status: Status) -> None:
    status(events.Started(schema=events.SCHEMA, version=punchtunnel.__version__, pid=os.getpid()))


def _plan(options: Options, role: Role, listeners: list[socket.socket], status: Status) -> Plan:
    """Return what the streams are joined to."""
    reads = role == Role.STDIO and options.reads_stdin
    shared = options.progress and not options.send_only and os.isatty(1) and os.isatty(2)
    return Plan(
        role=role,
        listeners=listeners,
        target=None if options.to is None else parse_target(options.to),
        stdin=0 if reads and 0 not in _closed_descriptors else None,
        stdin_size=_size_of_stdin() if reads else None,
        stdout=1 if 1 not in _closed_descriptors else None,
        discard=options.send_only,
        keep_open=options.keep,
        idle=options.idle,
        traffic_every=status.traffic_every,
        check=options.check,
        # Where both are terminals they are the same one.
        before_output=status.give_way if shared else None,
    )


def _size_of_stdin() -> int | None:
    """Return how many bytes are left to read, if stdin is a file that tells."""
    with contextlib.suppress(OSError):
        info = os.fstat(0)
        # Files of /proc have a size of 0 and a content.
        if stat.S_ISREG(info.st_mode) and 0 < info.st_size <= MAX_SIZE:
            return max(info.st_size - os.lseek(0, 0, os.SEEK_CUR), 0)
    return None


def _examine(options: Options) -> tuple[Exit, str]:
    """Look at this machine instead of punching."""
    # Imported now: only who asks pays for it.
    from punchtunnel import doctor

    if any(getattr(options, name) for name in Options.__slots__ if name not in _FOR_DOCTOR):
        raise UsageError(usage.DOCTOR_ALONE)
    return doctor.examine(options.stun or [], options.ntp, options.as_json), ""


def _perform(options: Options, status: Status) -> tuple[Exit, str]:
    """Check everything, and do what was asked for; return status and reason."""
    if options.doctor:
        return _examine(options)
    if options.stun or options.ntp:
        raise UsageError(usage.FOR_DOCTOR)
    settings = settings_of(options)
    places = [parse_listen(text) for text in options.listen or []]
    if options.to is not None:
        parse_target(options.to)
    if options.show:
        check_secret(options)
        typer.echo(_page(options))
        return Exit.OK, ""
    # Last: it may ask a person.
    settings = replace(settings, secret=find_secret(options, status))
    _allow_descriptors()
    with Signals(service=options.keep) as signals, _listening([] if options.check else places, status) as listeners:
        return _run(options, settings, listeners, status, signals)


def _run(
    options: Options, settings: Settings, listeners: list[socket.socket], status: Status, signals: Signals
) -> tuple[Exit, str]:
    """Punch and bridge, again and again with -k; return status and reason."""
    sessions = 0
    current, began = settings, time.monotonic()
    rations = Rations(time.monotonic)
    while True:
        try:
            hole = open_hole(current, report=status, signals=signals, rations=rations, meanwhile=_load_bridge)
        except (RejectedError, UsageError, LocalError) as error:
            # A service outlives a peer that is set up wrongly, and a name or an address of its
            # own that is gone for a while; what was wrong from the start ends it.
            if not options.keep or (not isinstance(error, RejectedError) and not sessions):
                raise
            status(events.PunchingAgain(reason=str(error)))
            signals.sleep(REJECTION_PAUSE)
            continue
        sessions += 1
        outcome = _bridge(hole, _plan(options, settings.role, listeners, status), status, signals)
        if outcome.status in _FINAL:
            return outcome.status, outcome.reason
        if Trait.CHECK in hole.traits and not options.check:
            # Whoever only looks takes nothing from this side's time to wait, and leaves it some.
            current = settings.after(time.monotonic() - began)
            status(events.Checked(remote=hole.remote))
            continue
        if outcome.round_trips is not None and not options.as_json:
            _print_path(hole, settings, outcome.round_trips)
        if not options.keep:
            return outcome.status, outcome.reason
        status(events.PunchingAgain(reason=outcome.reason or words.SESSION_OVER))
        current, began = settings, time.monotonic()


def _print_path(hole: Hole, settings: Settings, found: RoundTrips) -> None:
    """Print what -z has found."""
    from punchtunnel.reporting import line

    protection = line.security(hole.keys is not None, bool(settings.secret))
    typer.echo(line.path(hole.local, hole.remote, protection, found.least, found.median, found.most))


def _load_bridge() -> None:
    """Load asyncio, uvloop and the bridge, 45 ms, while something else is being waited for."""
    from punchtunnel.session import session

    session.loop_factory()


def _bridge(hole: Hole, plan: Plan, status: Status, signals: Signals) -> Outcome:
    # Imported now: the first SYN need not wait for it.
    from punchtunnel.session import session

    return session.run(hole, plan, status, signals)


@contextlib.contextmanager
def _listening(places: list[AnyPlace], status: Status) -> Iterator[list[socket.socket]]:
    """Bind every -L before the punch begins, and clean up behind it."""
    if not places:
        yield []
        return
    # Imported now: without -L nothing of it is needed before the bridge.
    from punchtunnel.ends.stdio import listen

    with contextlib.ExitStack() as stack:
        listeners = []
        for place in places:
            listener = stack.enter_context(contextlib.closing(listen(place)))
            listeners.append(listener)
            name = str(place)
            if isinstance(place, UnixPlace):
                stack.callback(_unlink, place.path, _identity(place.path))
            else:
                name = name_of(listener.getsockname())
            status(events.Listening(place=name))
        yield listeners


def _identity(path: str) -> tuple[int, int]:
    info = os.lstat(path)
    return info.st_dev, info.st_ino


def _unlink(path: str, ours: tuple[int, int]) -> None:
    """Remove our socket, if it is still what is there."""
    with contextlib.suppress(OSError):
        if _identity(path) == ours:
            os.unlink(path)


def _allow_descriptors() -> None:
    """Use as many descriptors as the administrator allows: each stream costs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, MAX_DESCRIPTORS)), hard))


# Which of stdin, stdout and stderr the caller had closed.
_closed_descriptors: set[int] = set()


def _occupy_closed_descriptors() -> None:
    """Put /dev/null where a standard descriptor is closed, so that no socket takes its number."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            _closed_descriptors.add(fd)
            os.open(os.devnull, os.O_RDWR)


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    _occupy_closed_descriptors()
    try:
        code = app(prog_name="punchtunnel", standalone_mode=False)
    except typer.TyperException as error:
        # One sentence instead of three lines of usage.
        text = error.format_message()
        status = status_of_a_mistake(sys.argv)
        _begin(status)
        status(events.Exited(status=int(Exit.USAGE), reason=f"{text[:1].lower()}{text[1:]}"))
        code = Exit.USAGE
    except typer.Abort:
        code = Exit.INTERRUPTED
    except OSError as error:
        # Help that cannot be written.
        Status(0, open_output(False, None))(events.Exited(1, words.cannot(words.WRITE, error)))
        code = Exit.LOST
    sys.exit(int(code or 0))
