"""A run, from options to the exit status: the doctor, --show, or punches and sessions."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import punchtunnel
from punchtunnel import words
from punchtunnel.address import AnyPlace
from punchtunnel.cli import descriptors
from punchtunnel.cli.options import SECRET_VARIABLE, Options
from punchtunnel.cli.pages import examine, forget, print_page, seen_addresses
from punchtunnel.cli.secret import check_secret, find_secret
from punchtunnel.cli.values import (
    listens_of,
    resume_of,
    service_of,
    sessions_of,
    settings_of,
    targets_of,
    wait_of,
    with_numbers,
)
from punchtunnel.errors import Exit, LocalError, PunchtunnelError, SignalError, UsageError
from punchtunnel.protocol.hello import Role
from punchtunnel.punching.hole import Hole
from punchtunnel.punching.settings import Settings
from punchtunnel.reach.gather import Gatherer
from punchtunnel.reporting import events, notify
from punchtunnel.reporting.jsonlines import open_jsonlines
from punchtunnel.reporting.log import needs_times, open_log
from punchtunnel.reporting.output import Output, open_output
from punchtunnel.reporting.status import Status
from punchtunnel.session.holes import Holes
from punchtunnel.session.outcome import Outcome, RoundTrips
from punchtunnel.system.refusals import refused
from punchtunnel.system.signals import Signals
from punchtunnel.words import local, usage

if TYPE_CHECKING:
    from punchtunnel.cli.daemon import Daemon
    from punchtunnel.reporting.display import Display
    from punchtunnel.session.plan import Plan
    from punchtunnel.session.roles import Ends, Listener


def _as_given(options: Options) -> tuple[Options, bytes]:
    """Add nothing: no peer is saved."""
    return options, b""


def run(options: Options, with_saved: Callable[[Options], tuple[Options, bytes]] = _as_given) -> int:
    """Run, and turn every expected failure into its exit status and one sentence.

    Args:
        options: As given.
        with_saved: Adds what is saved for a PEER: the options, and the secret.
    """
    verbosity = -1 if options.quiet else options.verbose
    output = open_output(options.as_json, options.status_fd)
    manager = notify.teller(os.environ.get(notify.VARIABLE))
    status = Status(verbosity, output, manager=manager)
    daemon: Daemon | None = None
    given, is_saved = options, False
    try:
        options, secret = with_saved(given)
        is_saved = options is not given
        # With a secret from elsewhere the other machine's own saved peer is of no use.
        named = given if secret and not (given.secret_file or given.ask_secret) else None
        options = with_numbers(options)
        daemon = _to_background(options)
        programs = open_jsonlines(options.as_json, options.status_fd, stdio=options.is_stdio and not options.send_only)
        display = _display(options, output, named)
        log = open_log(options.log, verbosity) if options.log is not None else None
        if daemon is not None:
            manager = daemon.beside(manager)
        status = Status(verbosity, output, programs, display, manager, log=log, clock=_clock_of(options))
        if daemon is not None:
            daemon.at_leaving(before=status.finish, after=status.leave_terminal)
        begin(status)
        code, reason = _perform(options, status, secret, daemon, named)
    except SignalError as error:
        code, reason = error.status, ""
    except PunchtunnelError as error:
        code, reason = error.status, words.perhaps_mistyped(str(error), () if is_saved else given.peers or ())
    except OSError as error:
        why = refused(error)
        code, reason = why.status, str(why)
    except MemoryError:
        code, reason = Exit.LOCAL, words.NO_MEMORY
    except Exception as error:
        # With a traceback after it.
        status(events.Exited(status=int(Exit.LOST), reason=words.internal_error(error)))
        raise
    finally:
        if daemon is not None:
            daemon.close()
    status(events.Exited(status=int(code), reason=reason))
    return code


def _to_background(options: Options) -> Daemon | None:
    """With -f, return in a process of its own, which is to leave the terminal later; this one waits, and exits."""
    # The others end at once, with a page or an error.
    if not options.background or options.is_stdio or options.check or options.show or options.doctor:
        return None
    # Imported late: few runs need it.
    from punchtunnel.cli import daemon

    return daemon.begin(options)


def _display(options: Options, output: Output | None, named: Options | None) -> Display | None:
    """Return the display that draws a terminal's status line or --progress; None if nothing is to be drawn."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    states = terminal and not (options.quiet or options.verbose)
    if output is None or not (states or options.progress):
        return None
    # Imported late: a log does not need it.
    from punchtunnel.reporting.display import Display, Shows

    shows = Shows(
        states=states,
        streams=not (options.is_stdio or options.check or options.background),
        sums=states and options.is_stdio and not (options.check or _serves_a_program(options)),
        progress=options.progress,
        talks=terminal and options.is_stdio and options.reads_stdin and os.isatty(0) and os.isatty(1),
        wait=wait_of(options),
        hint=lambda: _hint(options, named),
    )
    return Display(output, sys.stderr, shows, lambda: time.time() + options.clock_offset)


def _serves_a_program(options: Options) -> bool:
    """Tell whether another program has both ends of stdio, as ssh has those of its ProxyCommand."""
    return options.reads_stdin and not options.send_only and all(map(_is_pipe, (0, 1)))


def _is_pipe(fd: int) -> bool:
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _clock_of(options: Options) -> Callable[[], float] | None:
    """Return the clock of -v, where nobody else adds times; None: without times."""
    return time.time if options.verbose and not options.quiet and needs_times(os.environ, 2) else None


def _hint(options: Options, named: Options | None) -> str:
    from punchtunnel.cli import show

    return show.hint(show.side_of(options, given=named))


def _page(options: Options, seen: Sequence[str], named: Options | None, *, has_secret: bool) -> str:
    from punchtunnel.cli import show

    side = show.side_of(options, seen, named)
    return show.page(replace(side, secret=side.secret or has_secret), time.time() + options.clock_offset)


def begin(status: Status) -> None:
    """Report that a run begins."""
    status(events.Started(schema=events.SCHEMA, version=punchtunnel.__version__, pid=os.getpid()))


def _plan(options: Options, role: Role, listeners: list[Listener], status: Status) -> Plan:
    """Return what a session is to do with its hole."""
    # Imported late: see `_session`.
    from punchtunnel.session.plan import Plan

    return Plan(
        role=role,
        ends=_ends(options, role, listeners, status),
        idle=options.idle,
        traffic_every=status.traffic_every,
        check=options.check,
        resume=resume_of(options),
        again="" if options.keep else words.PUNCH_AGAIN,
    )


def _ends(options: Options, role: Role, listeners: list[Listener], status: Status) -> Ends:
    """Return the role: what the streams are joined to."""
    from punchtunnel.session.roles import Ports, Stdio

    if role != Role.STDIO:
        return Ports(listeners, targets_of(options))
    shared = options.progress and not options.send_only and os.isatty(1) and os.isatty(2)
    return Stdio(
        stdin=0 if options.reads_stdin and 0 not in descriptors.closed else None,
        stdout=1 if 1 not in descriptors.closed else None,
        stdin_size=descriptors.size_of_stdin() if options.reads_stdin else None,
        discard=options.send_only,
        keep_open=options.keep,
        service=service_of(options),
        # If stdout and stderr are both terminals, they are the same one.
        before_output=status.give_way if shared else None,
    )


def _perform(
    options: Options, status: Status, saved: bytes, daemon: Daemon | None, named: Options | None
) -> tuple[Exit, str]:
    """Check the options, and do what they ask for; return status and reason.

    Args:
        options: As given, and as saved.
        status: Told of everything.
        saved: The secret that is saved for the PEER, or b"".
        daemon: With -f.
        named: As given, if the PEER is a saved one whose secret is used.
    """
    if options.pair is not None or options.list_peers:
        from punchtunnel.cli import paired

        paired.perform(options, print_page)
        return Exit.OK, ""
    if options.forget:
        return forget(options)
    if options.doctor:
        return examine(options)
    if options.ntp or (options.stun and not (options.show or options.meet or options.relay)):
        raise UsageError(usage.FOR_DOCTOR)
    settings = settings_of(options)
    doors = listens_of(options)
    targets_of(options)
    service_of(options)
    if options.show:
        check_secret(options)
        print_page(_page(options, seen_addresses(options, status), named, has_secret=bool(saved)))
        return Exit.OK, ""
    # After all checks: it may ask a person for the secret.
    settings = replace(settings, secret=find_secret(options, status, saved), keep=options.keep)
    if settings.relays:
        from punchtunnel.protocol import token

        token.check(settings.secret, sealed=settings.sealed)
    if settings.via and not settings.secret:
        raise UsageError(usage.VIA_ANYONE.format(variable=SECRET_VARIABLE))
    if settings.serves_anyone and not options.no_secret:
        raise UsageError(usage.SERVES_ANYONE.format(variable=SECRET_VARIABLE))
    descriptors.allow_many()
    if daemon is not None:
        daemon.prepare()
    with Signals(service=options.keep) as signals, _listening([] if options.check else doors, status) as listeners:
        if daemon is not None:
            daemon.at_leaving(after=signals.forget_terminal)
        return _run(options, settings, listeners, status, signals)


def _run(
    options: Options, settings: Settings, listeners: list[Listener], status: Status, signals: Signals
) -> tuple[Exit, str]:
    """Punch and run sessions, again and again with -k; return status and reason."""
    # What is loaded is never garbage: it is looked through no more.
    gc.freeze()
    gc.enable()
    with Gatherer(settings) as gathering:
        holes = Holes(settings, signals, status, meanwhile=_load_session, gathering=gathering)
        return _use(holes, options, settings, listeners, status, signals)


def _use(
    holes: Holes,
    options: Options,
    settings: Settings,
    listeners: list[Listener],
    status: Status,
    signals: Signals,
) -> tuple[Exit, str]:
    if options.serves_many:
        outcome = _serve(holes, options, settings, status, signals)
        return outcome.status, outcome.reason
    while True:
        hole = holes.next()
        outcome = _session(hole, options, settings.role, listeners, status, signals, holes)
        if outcome.round_trips is not None and not options.as_json:
            _print_path(hole, settings, outcome.round_trips)
        if not holes.goes_on(hole, outcome):
            if outcome.status == Exit.OK and options.to and not options.check:
                status(events.Warned(reason=words.OVER_WITHOUT_KEEP))
            return outcome.status, outcome.reason


def _print_path(hole: Hole, settings: Settings, found: RoundTrips) -> None:
    """Print the path and the round trips that -z has measured."""
    from punchtunnel.reporting import line

    protection = line.security(hole.keys is not None, bool(settings.secret))
    print_page(line.path(hole.local, hole.remote, protection, found.least, found.median, found.most))


@functools.cache
def _load_session() -> None:
    """Load asyncio, uvloop and the session, which takes 45 ms, while the punch waits for the peer.

    Once: what is left of a session would be kept for ever by a later call.
    """
    from punchtunnel.session import running

    running.loop_factory()
    gc.freeze()


def _session(
    hole: Hole,
    options: Options,
    role: Role,
    listeners: list[Listener],
    status: Status,
    signals: Signals,
    holes: Holes,
) -> Outcome:
    # Imported late: the first SYN need not wait for it.
    from punchtunnel.session import running

    return running.run(hole, _plan(options, role, listeners, status), status, signals, holes)


def _serve(holes: Holes, options: Options, settings: Settings, status: Status, signals: Signals) -> Outcome:
    """Serve many sessions at once."""
    # A command alone may lead to anybody, whom only its line tells from others.
    # And at a relay the channel and the secret tell services apart.
    peers = sorted(settings.peers) or [settings.via, *sorted(str(relay.place) for relay in settings.relays)]
    with _claimed(repr((peers, settings.channel, settings.bind, settings.interface))):
        return _serve_on(holes, options, settings.role, status, signals)


@contextlib.contextmanager
def _claimed(service: str) -> Iterator[None]:
    """Be the only process of this machine that serves these peers on this channel.

    Raises:
        LocalError: Another one does.
    """
    # Imported late: only a service needs it.
    from punchtunnel.system.claim import claim, holder

    claimed = None
    try:
        claimed = claim(service)
    except OSError as error:
        # Where it may not be claimed at all, it is served without.
        if error.errno == errno.EADDRINUSE:
            raise LocalError(words.served_already(holder(service))) from error
    with claimed or contextlib.nullcontext():
        yield


def _serve_on(holes: Holes, options: Options, role: Role, status: Status, signals: Signals) -> Outcome:
    hole = holes.next()
    # Imported late: the first SYN need not wait for it.
    from punchtunnel.session import running

    def make_plan() -> Plan:
        return _plan(options, role, [], status)

    return running.serve(holes, hole, make_plan, status, sessions_of(options), signals)


@contextlib.contextmanager
def _listening(doors: list[tuple[AnyPlace, str]], status: Status) -> Iterator[list[Listener]]:
    """Bind every -L before the punch begins, and say once if others can reach one; close them at the end."""
    if not doors:
        yield []
        return
    # Imported late: without -L nothing of it is needed before the session.
    from punchtunnel.ends.listening import exposed, listening
    from punchtunnel.session.roles import Listener

    with contextlib.ExitStack() as stack:
        listeners = [
            Listener(sock, service)
            for place, service in doors
            for sock in stack.enter_context(listening([place], lambda name: status(events.Listening(name))))
        ]
        if others := exposed(one.sock for one in listeners):
            status(events.Warned(reason=local.open_to_others(others)))
        yield listeners
