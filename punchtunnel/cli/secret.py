"""Where the shared secret comes from: a file, the terminal, or the environment."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
from collections.abc import Callable, Mapping

from punchtunnel import words
from punchtunnel.cli.options import SECRET_VARIABLE, Options
from punchtunnel.errors import LocalError, SignalError, UsageError
from punchtunnel.protocol.secret import MAX_SIZE, WEAK_BELOW, normal, strength
from punchtunnel.reporting import events
from punchtunnel.words import usage

# Names the folder of the files of LoadCredential=, which systemd lets only the service read.
CREDENTIALS = "CREDENTIALS_DIRECTORY"


def check_secret(options: Options) -> None:
    """Check that no secret is given together with --plain or --no-secret.

    Raises:
        UsageError: One is given or required.
    """
    given = options.secret_file or options.ask_secret or options.require_secret or SECRET_VARIABLE in os.environ
    if options.plain and given:
        raise UsageError(usage.PLAIN_AND_SECRET.format(variable=SECRET_VARIABLE))
    if options.no_secret and given:
        raise UsageError(usage.NO_SECRET_AND_SECRET.format(variable=SECRET_VARIABLE))


def find_secret(options: Options, report: events.Report, saved: bytes = b"") -> bytes:
    """Return the shared secret, or b"" if there is none.

    Args:
        options: The command line.
        report: Takes a warning if the secret is weak, or another user can change its file.
        saved: That of a saved peer, which counts before the environment's.

    Raises:
        UsageError: The secret is unusable, given twice, missing, or contradicts --plain.
        LocalError: The file cannot be read, or others can read it.
        SignalError: Ctrl-C was typed instead of a secret.
    """

    def warn(reason: str) -> None:
        report(events.Warned(reason=reason))

    check_secret(options)
    # A core dump would have the secret in it.  A sandbox may forbid the call; then it has its own limit.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if saved and (options.plain or options.no_secret):
        raise UsageError(usage.SAVED_SECRET)
    given = options.secret_file or options.ask_secret
    environment = {**os.environ, SECRET_VARIABLE: saved.decode()} if saved and not given else os.environ
    found = find(environment, options.secret_file, _ask if options.ask_secret else None, warn)
    if options.require_secret and not found:
        raise UsageError(usage.NO_SECRET.format(variable=SECRET_VARIABLE))
    if found and strength(found) < WEAK_BELOW:
        warn(words.WEAK_SECRET)
    return found


def find(
    environment: Mapping[str, str],
    path: str | None,
    ask: Callable[[], str] | None,
    warn: Callable[[str], None],
) -> bytes:
    """Return the secret from the one place that is named, or b"" if none is.

    Args:
        environment: SECRET_VARIABLE counts if neither `path` nor `ask` is given.
        path: --secret-file.
        ask: --ask-secret: returns what was typed.
        warn: Takes a sentence if another user can change the file.

    Raises:
        UsageError: Two places are named, or the secret is unusable.
        LocalError: The file cannot be read, or others can read it.
    """
    if path is not None and ask is not None:
        raise UsageError(usage.FILE_AND_ASK)
    if ask is not None:
        return normal(ask())
    if path is not None:
        # The group bits of a credential are its ACL's mask: the group cannot read it.
        is_credential = os.path.dirname(path) == environment.get(CREDENTIALS)
        return normal(_read(path, None if is_credential else warn))
    given = environment.get(SECRET_VARIABLE)
    if given is not None and not given.strip():
        # As a command leaves it that was to print the secret, and failed.
        raise UsageError(usage.EMPTY_VARIABLE.format(variable=SECRET_VARIABLE))
    return b"" if given is None else normal(given)


def _read(path: str, warn: Callable[[str], None] | None) -> str:
    try:
        with open(path, "rb") as file:
            info = os.fstat(file.fileno())
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise LocalError(words.cannot(words.read_secret(path), error)) from error
    if warn is not None and stat.S_ISREG(info.st_mode):
        if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise LocalError(words.readable_secret(path))
        if info.st_uid not in (0, os.geteuid()):
            warn(words.foreign_secret(path))
    if len(data) > MAX_SIZE:
        raise UsageError(usage.LONG_SECRET_FILE.format(path=path, limit=MAX_SIZE))
    return data.decode("utf-8", "surrogateescape")


def _ask() -> str:
    """Ask for the secret on the terminal; stdin and stdout belong to the tunnel."""
    # Imported late: no other run needs it.
    import getpass

    # Ctrl-C raises an exception, so that getpass switches the terminal's echo on again.
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
        # What comes next has a line of its own.
        with contextlib.suppress(OSError), open("/dev/tty", "w") as terminal:
            terminal.write("\n")
        raise SignalError(signal.SIGINT) from error
    except UnicodeError:
        # `from None`: the cause would show bytes of the secret.
        raise UsageError(usage.SECRET_NOT_TEXT) from None
    finally:
        signal.signal(signal.SIGINT, before)
