"""What was given on the command line, and what it asks for: checked values for the punch."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from punchtunnel import words
from punchtunnel.address import parse_bind, parse_peer, parse_target
from punchtunnel.errors import SignalError, UsageError
from punchtunnel.protocol import secret
from punchtunnel.protocol.hello import NO_TRAITS, Role, Trait
from punchtunnel.punching.settings import DEFAULT_WAIT, Settings, has_fast_aes, settings_from
from punchtunnel.reporting import events
from punchtunnel.words import usage

if TYPE_CHECKING:
    from punchtunnel.cli.show import Side

# A number of seconds above this is a mistake: three centuries.
LONGEST = 1e10


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
    status_fd: int | None
    progress: bool
    show: bool
    check: bool
    doctor: bool
    stun: list[str] | None
    ntp: str | None

    @property
    def is_stdio(self) -> bool:
        """Neither -L nor --to is given."""
        return not self.listen and self.to is None

    @property
    def reads_stdin(self) -> bool:
        """With stdio: what it reads is sent."""
        return not (self.recv_only or self.no_stdin)


def side_of(options: Options) -> Side:
    """Return what the other side must fit."""
    # Imported now: only --show and a terminal's hint need it.
    from punchtunnel.cli.show import Side

    flags = {"-4": options.ipv4, "-6": options.ipv6, "--plain": options.plain, "-z": options.check}
    return Side(
        peers=[parse_peer(peer) for peer in options.peers or []],
        bind=None if options.bind is None else parse_bind(options.bind),
        channel=options.channel,
        listens=bool(options.listen),
        target=None if options.to is None else parse_target(options.to),
        flags=[flag for flag, given in flags.items() if given],
        secret=bool(options.secret_file or options.ask_secret or os.environ.get(secret.VARIABLE)),
    )


def check_secret(options: Options) -> None:
    """Check that a secret is not given where none can be used.

    Raises:
        UsageError: It is.
    """
    given = options.secret_file or options.ask_secret or options.require_secret or secret.VARIABLE in os.environ
    if options.plain and given:
        raise UsageError(usage.PLAIN_AND_SECRET.format(variable=secret.VARIABLE))


def find_secret(options: Options, report: events.Report) -> bytes:
    """Return the shared secret, or b"" if there is none."""

    def warn(reason: str) -> None:
        report(events.Warned(reason=reason))

    check_secret(options)
    ask = None
    if options.ask_secret:
        ask = _ask
    found = secret.find(os.environ, options.secret_file, ask, warn)
    if options.require_secret and not found:
        raise UsageError(usage.NO_SECRET.format(variable=secret.VARIABLE))
    return found


def _ask() -> str:
    """Ask for the secret on the terminal; stdin and stdout belong to the tunnel."""
    # Imported now: only who asks pays for it.
    import getpass

    # SIGINT must come as an exception: getpass has echo to switch on again.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # Without a terminal getpass would read the tunnel's stdin.
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return getpass.getpass(words.PROMPT)
    except EOFError as error:
        raise UsageError(usage.NOTHING_TYPED) from error
    except OSError as error:
        raise UsageError(usage.NOBODY_TO_ASK) from error
    except KeyboardInterrupt as error:
        raise SignalError(signal.SIGINT) from error
    except UnicodeError:
        # Without the cause: it would show bytes of what was typed.
        raise UsageError(usage.SECRET_NOT_TEXT) from None
    finally:
        signal.signal(signal.SIGINT, before)


def _traits(options: Options) -> Trait:
    return (
        (Trait.NO_RECEIVE if options.send_only else NO_TRAITS)
        | (Trait.PLAIN if options.plain else NO_TRAITS)
        | (Trait.CHECK if options.check else NO_TRAITS)
        | (Trait.FAST_AES if has_fast_aes() else NO_TRAITS)
    )


def settings_of(options: Options) -> Settings:
    """Check what concerns the punch, and return it without the secret.

    Raises:
        UsageError: Something is wrong or contradicts something else.
    """
    _check_contradictions(options)
    waits = {"-w": options.wait or 0.0, "-i": options.idle, "--clock-offset": abs(options.clock_offset)}
    for name, seconds in waits.items():
        if not 0 <= seconds < LONGEST:
            raise UsageError(usage.NOT_SECONDS.format(option=name, seconds=seconds))
    if not options.peers and not options.show:
        raise UsageError(usage.NO_PEER)
    wait = options.wait
    if wait is None:
        wait = 0.0 if options.keep else DEFAULT_WAIT
    return settings_from(
        peers=options.peers or [],
        channel=options.channel,
        wait=wait,
        bind=options.bind,
        family=4 if options.ipv4 else 6 if options.ipv6 else 0,
        clock_offset=options.clock_offset,
        role=_role(options),
        traits=_traits(options),
    )


def _role(options: Options) -> Role:
    """Return the role that the options ask for."""
    role = (Role.LISTEN if options.listen else Role(0)) | (Role.TO if options.to is not None else Role(0))
    return role or Role.STDIO


def _check_contradictions(options: Options) -> None:
    """Check what cannot be meant together.

    Raises:
        UsageError: It is given.
    """
    ports = not options.is_stdio
    sends_nothing = not options.reads_stdin
    if options.ipv4 and options.ipv6:
        raise UsageError(usage.BOTH_FAMILIES)
    if options.check and (options.keep or options.progress):
        raise UsageError(usage.CHECK_ALONE)
    if options.progress and ports:
        raise UsageError(usage.PROGRESS_OF_PORTS)
    if options.progress and options.as_json and options.status_fd is None:
        raise UsageError(usage.PROGRESS_AND_JSON)
    if options.quiet and options.verbose:
        raise UsageError(usage.QUIET_AND_VERBOSE)
    if options.send_only and sends_nothing:
        raise UsageError(usage.NOTHING_TO_DO)
    if ports and options.stdio:
        raise UsageError(usage.STDIO_AND_PORTS)
    if ports and (options.send_only or sends_nothing):
        raise UsageError(usage.STDIO_OPTIONS)
    if not ports and options.keep and not sends_nothing:
        raise UsageError(usage.KEEP_WITH_STDIN)
