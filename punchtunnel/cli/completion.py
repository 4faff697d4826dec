"""The completion scripts that --show-completion and --install-completion give to a shell.

typer makes one for each shell from a template.  Those in completions/, which
packages install too, do more: no space behind an address that still needs its
port, and IPv6 in bash.
"""

from __future__ import annotations

import os

import typer.completion
from typer import _completion_shared

# Set by a shell that completes; columns that no description has.
COMPLETE_VARIABLE, WIDE = "_PUNCHTUNNEL_COMPLETE", "10000"
# Of typer: its own script, for a shell that there is no file for.
_made_by_typer = _completion_shared.get_completion_script


def use_own_scripts() -> None:
    """Let typer print and install the files in completions/, and offer each option in one line."""
    if COMPLETE_VARIABLE in os.environ:
        # It would wrap what an option is for at the terminal's width, and each line would be an offer.
        os.environ["COLUMNS"] = WIDE
    # Where --show-completion looks the function up, and where --install-completion does.
    for module in (typer.completion, _completion_shared):
        vars(module)["get_completion_script"] = _script


def _script(*, prog_name: str, complete_var: str, shell: str) -> str:
    """Return the script for a shell, as typer's function of this kind does."""
    # Imported late: few runs need it.
    from importlib.resources import files

    # Not by formatting: typer's names of shells are members of an Enum too.
    file = files("punchtunnel.cli").joinpath("completions", "punchtunnel." + shell)
    if not file.is_file():
        return _made_by_typer(prog_name=prog_name, complete_var=complete_var, shell=shell)
    # Whoever writes it adds the end of the last line.
    return file.read_text(encoding="utf-8").rstrip("\n")
