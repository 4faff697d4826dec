"""The command line: options, then values, then punch, bridge, and the exit status."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

import punchtunnel
from punchtunnel import secret, words
from punchtunnel.address import AnyPlace, UnixPlace, parse_bind, parse_listen, parse_peer, parse_target
from punchtunnel.election import NO_TRAITS, Role, Trait
from punchtunnel.errors import Exit, PunchtunnelError, RejectedError, SignalError, UsageError
from punchtunnel.punch import DEFAULT_WAIT, Hole, Settings, open_hole
from punchtunnel.signals import Signals
from punchtunnel.status import Status
from punchtunnel.tcp import name_of

if TYPE_CHECKING:
    from punchtunnel.bridge import Outcome, Plan

# With these a session is over for good, also under -k.
_FINAL = (Exit.BROKEN_PIPE, Exit.HANGUP, Exit.INTERRUPTED, Exit.TERMINATED)

# A number of seconds above this is a mistake: three centuries.
LONGEST = 1e10
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
  5    local resource: the port is taken, nothing could be bound
  6    the target of --to was refused (with stdio on one side)
  129, 130, 143  ended by SIGHUP, SIGINT, SIGTERM;  141  output closed
"""

app = typer.Typer(
    name="punchtunnel",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass(frozen=True, slots=True)
class Options:
    """What was given on the command line; the names are those of `run`."""

    peers: list[str] | None
    stdio: bool
    listen: list[str] | None
    to: str | None
    channel: str
    wait: float | None
    idle: float
    keep: bool
    no_stdin: bool
    send_only: bool
    recv_only: bool
    ipv4: bool
    ipv6: bool
    bind: str | None
    clock_offset: float
    secret_file: str | None
    ask_secret: bool
    require_secret: bool
    plain: bool
    verbose: int
    quiet: bool
    as_json: bool


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"punchtunnel {punchtunnel.__version__}")
        raise typer.Exit


def _show_new_secret(wanted: bool) -> None:
    if wanted:
        typer.echo(secret.fresh())
        raise typer.Exit


@app.command(epilog=EPILOG)
def run(
    peers: Annotated[
        list[str] | None,
        typer.Argument(metavar="PEER...", help="Address or name of the other machine; all given are tried at once."),
    ] = None,
    stdio: Annotated[bool, typer.Option("--stdio", help="Join the hole to stdin and stdout (the default).")] = False,
    listen: Annotated[
        list[str] | None,
        typer.Option("-L", "--listen", metavar="[BIND:]PORT", help="Local port, or unix:/path; may be repeated."),
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
        str | None, typer.Option("--bind", metavar="ADDR", help="Address of this machine to punch from.")
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
    half_close: Annotated[
        bool, typer.Option("-N", help="Accepted and ignored: EOF always reaches the far side.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> int:
    """Punch a TCP hole to PEER and send any TCP program through it.

    Run one command on each of the two machines, within the same minutes.
    Both must know the other's public address; nothing else is needed.

    The link is encrypted.  With the same secret on both sides, in
    PUNCHTUNNEL_SECRET or by --secret-file or --ask-secret, the two machines
    also prove to each other who they are.
    """
    given = locals()
    return _guarded(Options(**{name: given[name] for name in Options.__slots__}))


def _guarded(options: Options) -> int:
    """Run, and turn every expected failure into its status and one sentence."""
    status = Status(-1 if options.quiet else options.verbose, options.as_json, sys.stderr)
    try:
        code, reason = _perform(options, status)
    except SignalError as error:
        code, reason = error.status, ""
    except PunchtunnelError as error:
        code, reason = error.status, str(error)
    status.close()
    status("exit", status=int(code), reason=reason)
    return code


def _secret(options: Options, status: Status) -> bytes:
    """Return the shared secret, or b"" if there is none."""

    def warn(reason: str) -> None:
        status("warning", reason=reason)

    given = options.secret_file or options.ask_secret or options.require_secret or secret.VARIABLE in os.environ
    if options.plain and given:
        raise UsageError(
            f"--plain contradicts a secret (also in {secret.VARIABLE}): a link that is not sealed proves nothing"
        )
    ask = None
    if options.ask_secret:
        ask = _ask
    found = secret.find(os.environ, options.secret_file, ask, warn)
    if options.require_secret and not found:
        raise UsageError(f"--require-secret, but there is none: give --secret-file, --ask-secret or {secret.VARIABLE}")
    return found


def _ask() -> str:
    """Ask for the secret on the terminal; stdin and stdout belong to the tunnel."""
    # Imported now: only who asks pays for it.
    import getpass

    try:
        # Without a terminal getpass would read the tunnel's stdin.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return getpass.getpass("secret: ")
    except (OSError, EOFError) as error:
        raise UsageError("--ask-secret needs a terminal: give --secret-file FILE") from error


def _has_fast_aes() -> bool:
    """Tell whether the processor has AES instructions; where nothing is known, most have."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as file:
        return b" aes" in file.read(1 << 16)
    return True


def _traits(options: Options) -> Trait:
    return (
        (Trait.NO_RECEIVE if options.send_only else NO_TRAITS)
        | (Trait.PLAIN if options.plain else NO_TRAITS)
        | (Trait.FAST_AES if _has_fast_aes() else NO_TRAITS)
    )


def _settings(options: Options, shared: bytes) -> Settings:
    """Check what concerns the punch.

    Raises:
        UsageError: Something is wrong or contradicts something else.
    """
    if options.ipv4 and options.ipv6:
        raise UsageError("-4 and -6 contradict each other; without them both are tried")
    for name, seconds in (("-w", options.wait or 0.0), ("--clock-offset", abs(options.clock_offset))):
        if not 0 <= seconds < LONGEST:
            raise UsageError(f"{name} needs a number of seconds, not {seconds:g}")
    family = socket.AF_INET if options.ipv4 else socket.AF_INET6 if options.ipv6 else socket.AF_UNSPEC
    bind = None if options.bind is None else parse_bind(options.bind)
    if bind and family == (socket.AF_INET if ":" in bind else socket.AF_INET6):
        raise UsageError(f"--bind {bind} is of the other family than -4 or -6 asks for")
    if not options.peers:
        raise UsageError(words.NO_PEER)
    wait = options.wait
    if wait is None:
        wait = 0.0 if options.keep else DEFAULT_WAIT
    return Settings(
        peers=[parse_peer(peer) for peer in options.peers],
        channel=options.channel,
        wait=wait,
        bind=bind,
        family=family,
        clock_offset=options.clock_offset,
        role=_role(options),
        traits=_traits(options),
        secret=shared,
    )


def _role(options: Options) -> Role:
    """Return the role that the options ask for.

    Raises:
        UsageError: They contradict each other.
    """
    role = (Role.LISTEN if options.listen else Role(0)) | (Role.TO if options.to is not None else Role(0))
    sends_nothing = options.recv_only or options.no_stdin
    if options.quiet and options.verbose:
        raise UsageError("-q and -v contradict each other")
    if options.send_only and sends_nothing:
        raise UsageError("--send-only together with --recv-only or -n leaves nothing to do")
    if role and options.stdio:
        raise UsageError("--stdio contradicts -L and --to: a side has stdio, or connections, not both")
    if role and (options.send_only or sends_nothing):
        raise UsageError("-n, --send-only and --recv-only are for stdio; -L and --to carry both directions")
    if not role and options.keep and not sends_nothing:
        raise UsageError("-k with stdin would lose what was read when a hole is lost: add --recv-only")
    return role or Role.STDIO


def _plan(options: Options, role: Role, listeners: list[socket.socket]) -> Plan:
    """Return what the streams are joined to."""
    from punchtunnel.bridge import Plan

    reads = role == Role.STDIO and not (options.recv_only or options.no_stdin)
    return Plan(
        role=role,
        listeners=listeners,
        target=None if options.to is None else parse_target(options.to),
        stdin=0 if reads and 0 not in _closed_descriptors else None,
        stdout=1 if 1 not in _closed_descriptors else None,
        discard=options.send_only,
        keep_open=options.keep,
        idle=options.idle,
    )


def _perform(options: Options, status: Status) -> tuple[Exit, str]:
    """Bind, punch and bridge, again and again with -k; return status and reason."""
    settings = _settings(options, _secret(options, status))
    places = [parse_listen(text) for text in options.listen or []]
    if options.to is not None:
        parse_target(options.to)
    if not 0 <= options.idle < LONGEST:
        raise UsageError(f"-i needs a number of seconds, not {options.idle:g}")
    _allow_descriptors()
    with Signals() as signals, _listening(places, status) as listeners:
        sessions = 0
        while True:
            try:
                hole = open_hole(settings, report=status, signals=signals)
            except (RejectedError, UsageError) as error:
                # A service outlives a peer that is set up wrongly, and a name that is gone for a
                # while; what was wrong from the start ends it.
                if not options.keep or (isinstance(error, UsageError) and not sessions):
                    raise
                status("punching_again", reason=str(error))
                signals.sleep(REJECTION_PAUSE)
                continue
            sessions += 1
            outcome = _bridge(hole, _plan(options, settings.role, listeners), status, signals)
            if not options.keep or outcome.status in _FINAL:
                return outcome.status, outcome.reason
            status("punching_again", reason=outcome.reason or words.SESSION_OVER)


def _bridge(hole: Hole, plan: Plan, status: Status, signals: Signals) -> Outcome:
    # Imported now: asyncio and uvloop take 130 ms that the first SYN need not wait for.
    from punchtunnel import bridge

    return bridge.run(hole, plan, status, signals)


@contextlib.contextmanager
def _listening(places: list[AnyPlace], status: Status) -> Iterator[list[socket.socket]]:
    """Bind every -L before the punch begins, and clean up behind it."""
    if not places:
        yield []
        return
    # Imported now: it needs asyncio, which is slow to load.
    from punchtunnel.ends import listen

    with contextlib.ExitStack() as stack:
        listeners = []
        for place in places:
            listener = stack.enter_context(contextlib.closing(listen(place)))
            listeners.append(listener)
            name = str(place)
            if isinstance(place, UnixPlace):
                stack.callback(_unlink, place.path)
            else:
                name = name_of(listener.getsockname())
            status("listening", place=name)
        yield listeners


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
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
        status = Status(0, "--json" in sys.argv, sys.stderr)
        status("exit", status=int(Exit.USAGE), reason=f"{text[:1].lower()}{text[1:]}")
        code = Exit.USAGE
    except typer.Abort:
        code = Exit.INTERRUPTED
    except OSError as error:
        # Help that cannot be written; the run itself lets no OSError out.
        Status(0, False, sys.stderr)("exit", status=1, reason=words.cannot("write", error))
        code = Exit.LOST
    sys.exit(int(code or 0))
