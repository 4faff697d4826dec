"""Runs that print a page and end: the doctor, what is forgotten, and what servers see."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import fields

import typer

from punchtunnel import words
from punchtunnel.cli.options import Options
from punchtunnel.cli.values import bind_of
from punchtunnel.errors import Exit, PunchtunnelError, SignalError, UsageError
from punchtunnel.reporting import events
from punchtunnel.reporting.status import Status
from punchtunnel.words import usage

# The options that go with --doctor; half_close is ignored everywhere.
_FOR_DOCTOR = {"doctor", "stun", "ntp", "bind", "no_map", "as_json", "status_fd", "verbose", "quiet", "half_close"}
# They may come from the environment.
_FOR_DOCTOR |= {"meet", "relay"}
_FOR_FORGETTING = {"doctor", "forget", "as_json", "status_fd", "verbose", "quiet", "meet", "relay"}


def print_page(text: str) -> None:
    """Print a page; only errors of this are told as "cannot write", and a reader that has gone is none."""
    try:
        typer.echo(text)
    except BrokenPipeError as error:
        raise SignalError(signal.SIGPIPE) from error
    except OSError as error:
        raise PunchtunnelError(words.cannot(words.WRITE, error)) from error


def examine(options: Options) -> tuple[Exit, str]:
    """Look at this machine instead of punching."""
    # Imported late: no other run needs it.
    from punchtunnel import doctor

    if any(getattr(options, one.name) for one in fields(options) if one.name not in _FOR_DOCTOR):
        raise UsageError(usage.DOCTOR_ALONE)
    code = doctor.examine(
        options.stun or [],
        options.ntp,
        options.as_json,
        quiet=options.quiet,
        bind=bind_of(options),
        maps=not options.no_map,
    )
    return code, ""


def forget(options: Options) -> tuple[Exit, str]:
    """Delete what is remembered."""
    from punchtunnel.reach.memory import Memory, state_directory

    if any(getattr(options, one.name) for one in fields(options) if one.name not in _FOR_FORGETTING):
        raise UsageError(usage.FORGET_ALONE)
    count = Memory(state_directory(os.environ), time.time).forget()
    print_page(f'{{"forgotten": {count}}}' if options.as_json else words.forgotten(count))
    return Exit.OK, ""


def seen_addresses(options: Options, status: Status) -> list[str]:
    """Return the public addresses of this machine as STUN servers see it; [] if none is named or none tells."""
    if not options.stun:
        return []
    # Imported late: as above.
    from punchtunnel import doctor

    found, sentences = doctor.public_addresses(doctor.stun_places(options.stun), bind_of(options))
    if not found:
        for sentence in sentences:
            status(events.Warned(reason=sentence))
    return found
