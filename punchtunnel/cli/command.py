"""The command: parse the command line, run what it asks for, and exit with its status."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import typer

from punchtunnel.cli import completion
from punchtunnel.cli.options import Options
from punchtunnel.errors import Exit, UsageError
from punchtunnel.words import habits

if TYPE_CHECKING:
    from punchtunnel.cli.peers import Kind, Parameter, Value

EPILOG = """\
\b
Roles that fit together (run one command on each machine):
  stdio   --stdio    a pipe between the two machines
  stdio   --to       one connection to the target, as for ssh's ProxyCommand
  -L      --to       any number of connections; -L 2222=ssh to --to ssh=22
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

# Parameters that say what a side joins the hole to.
ROLES = {"stdio", "service", "listen", "to"}
# Parameters that -z goes without.
NOT_FOR_CHECK = {"keep", "sessions", "progress", "background", "pid_file"}
# Parameters that print a page, or that no person gives: no options of a saved peer.
_NOT_SAVED = {"version", "new_secret", "pair", "list_peers", "show", "doctor", "forget", "service"}
_NOT_SAVED |= {"install_completion", "show_completion"}
# Before the name of a service.
STDIO_OF = "--stdio="
# Parsing makes Options of a command line; `main` runs them.
app = typer.Typer(
    name="punchtunnel",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=EPILOG)(Options)
completion.use_own_scripts()


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    # Imported late: help and completions do not need it.
    from punchtunnel.cli import descriptors

    descriptors.occupy_closed()
    try:
        given = _parse()
        code: int = _run(given) if isinstance(given, Options) else given
    except typer.TyperException as error:
        code = _tell_mistake(error)
    except typer.Abort:
        code = Exit.INTERRUPTED
    try:
        sys.stdout.flush()
    except OSError as error:
        # Otherwise Python writes the rest once more at exit, complains in two lines, and exits with 120.
        sys.stdout = None
        code = code or _tell_unwritable(error)
    sys.exit(code)


def _parse(defaults: Mapping[str, Value] | None = None) -> Options | int:
    """Return the options, or the status of a run that only had to write help, the version or a secret.

    Args:
        defaults: By parameter, what counts where the command line and the environment say nothing.
    """
    try:
        given = app(_arguments(sys.argv[1:]), prog_name="punchtunnel", standalone_mode=False, default_map=defaults)
    except OSError as error:
        return _tell_unwritable(error)
    except typer.TyperException as error:
        # The parser's word for it: typer has no public name for this kind of error.
        if (option := getattr(error, "option_name", None)) in habits.OPTIONS_OF_OTHERS:
            raise typer.TyperException(habits.OPTIONS_OF_OTHERS[option]) from error
        raise
    except SystemExit as ending:
        # typer takes a reader that has gone for an error, and ends by itself.
        if isinstance(ending.__context__, BrokenPipeError):
            return Exit.BROKEN_PIPE
        raise
    return given if isinstance(given, Options) else int(given or 0)


def _arguments(given: Sequence[str]) -> list[str]:
    """Return the arguments as the parser takes them, to which --stdio is a flag: --stdio=NAME becomes an option."""
    return [f"--stdio-service={one.removeprefix(STDIO_OF)}" if one.startswith(STDIO_OF) else one for one in given]


def _run(options: Options) -> int:
    # A variable may name a relay, and that is enough for a run.
    if len(sys.argv) == 1 and not (options.meet or options.relay):
        return _show_usage()
    # Imported late: see `main`.
    from punchtunnel.cli.run import run

    return run(options, _with_saved)


def _with_saved(options: Options) -> tuple[Options, bytes]:
    """Return the options with those that are saved for the PEER, and its secret, or b"".

    Raises:
        LocalError, UsageError: See `peers.find`.
    """
    # With --pair they are of a peer that is to be saved.  No name has a dot or a colon, and most addresses have one.
    if options.pair is not None or all({".", ":"} & set(one) for one in options.peers or ()):
        return options, b""
    # Imported late: most PEERs are addresses.
    from punchtunnel.cli import peers

    path = peers.path_of(os.environ)
    saved = peers.find(path, options.peers or ())
    if saved is None:
        return options, b""
    parameters = _parameters()
    defaults = peers.defaults_of(saved, parameters, path)
    if not options.is_stdio or options.stdio or options.service is not None:
        # A role on the command line takes the place of the saved one.
        defaults = {name: value for name, value in defaults.items() if name not in ROLES}
    if options.check:
        # It is for one look at what is otherwise a service, say, and no flag can be taken back there.
        defaults = {name: value for name, value in defaults.items() if name not in NOT_FOR_CHECK}
    try:
        again = _parse(defaults)
    except typer.TyperException as error:
        # The command line alone was right.
        wrong = getattr(getattr(error, "param", None), "name", "")
        key = next((key for key in saved.options if parameters[key].name == wrong), "")
        reason = getattr(error, "message", "") or error.format_message()
        raise UsageError(peers.wrong_value(path, saved.name, key, reason)) from error
    assert isinstance(again, Options)
    return replace(again, peers=list(saved.peers)), saved.secret


def _parameters() -> dict[str, Parameter]:
    """Return what a saved peer may have, by its options' names without the dashes."""
    from punchtunnel.cli.peers import Parameter

    found: dict[str, Parameter] = {}
    for one in typer.main.get_command(app).params:
        name = one.name or ""
        kind = _kind_of(one.type.name, {what for what in ("multiple", "is_flag", "count") if getattr(one, what, False)})
        if name not in _NOT_SAVED:
            found |= {opt.lstrip("-"): Parameter(name, kind) for opt in one.opts if opt.startswith("-")}
    return found


def _kind_of(type_name: str, traits: set[str]) -> Kind:
    """Return what a parameter takes in the file of saved peers.

    Args:
        type_name: Of the parser's type.
        traits: Which of "multiple", "is_flag" and "count" it is.
    """
    from punchtunnel.cli.peers import Kind

    for trait, kind in (("multiple", Kind.LIST), ("is_flag", Kind.FLAG), ("count", Kind.COUNT)):
        if trait in traits:
            return kind
    return {"str": Kind.TEXT, "text": Kind.TEXT, "int": Kind.NUMBER, "integer": Kind.NUMBER}.get(type_name, Kind.PARSED)


def _show_usage() -> int:
    """Say how to begin; nobody who reads stderr is no error."""
    with contextlib.suppress(OSError, ValueError):
        typer.echo(habits.NOTHING_GIVEN, err=True, nl=False)
    return Exit.USAGE


def _tell_mistake(error: typer.TyperException) -> int:
    """Report a command line that cannot be parsed: one sentence instead of three lines of usage."""
    from punchtunnel.cli.run import begin
    from punchtunnel.reporting.events import Exited
    from punchtunnel.reporting.status import status_of_a_mistake

    text = error.format_message()
    status = status_of_a_mistake(sys.argv)
    begin(status)
    status(Exited(Exit.USAGE, f"{text[:1].lower()}{text[1:]}"))
    return Exit.USAGE


def _tell_unwritable(error: OSError) -> int:
    """Report that help, or another page, cannot be written; who has closed the pipe has read enough."""
    if isinstance(error, BrokenPipeError):
        return Exit.BROKEN_PIPE
    from punchtunnel import words
    from punchtunnel.reporting.events import Exited
    from punchtunnel.reporting.output import open_output
    from punchtunnel.reporting.status import Status

    Status(0, open_output(False, None))(Exited(Exit.LOST, words.cannot(words.WRITE, error)))
    return Exit.LOST
