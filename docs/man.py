"""Print the man page: the options as the command line has them, and the texts below.

    python docs/man.py > docs/punchtunnel.1        `make docs` does it

Options, roles and exit statuses are read from typer, so that the page cannot
differ from --help.  In the texts, `code` becomes bold and *word* italic; a
paragraph that is indented is an example.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import typer.main

import punchtunnel
from punchtunnel.cli import command as cli
from punchtunnel.cli.options import Options

# The day of the last change that a reader of the page would notice.
DATE = "2026-12-01"
# The columns of the source; man wraps what it shows itself.
WIDTH = 78
NAME = "punch a TCP hole between two machines behind home routers"

AFTER_OPTIONS = {
    "SIGNALS": """
`SIGINT`, `SIGTERM`, `SIGHUP`
    End: what is not delivered yet is cut, and the peer is told so. The second signal ends at once.
`SIGHUP` with `-k`
    Try now: while punching, every port is dialled anew at once. A link whose peer is not heard within 5 seconds is
    given up. A service whose terminal is closed still ends.
""",
    "ENVIRONMENT": """
`PUNCHTUNNEL_SECRET`
    The shared secret, unless `--secret-file` or `--ask-secret` is given.
`PUNCHTUNNEL_MEET`, `PUNCHTUNNEL_RELAY`
    Relays, separated by spaces, unless `--meet` or `--relay` is given.
`XDG_CONFIG_HOME`
    Saved peers are in *punchtunnel/peers.toml* below it; below *~/.config* by default.
`NOTIFY_SOCKET`
    Set by *systemd*(1) for a unit of Type=notify: punchtunnel tells it `READY=1` when a link is up, and every change
    of state as `STATUS=`.
`JOURNAL_STREAM`
    Set by *systemd*(1) where stderr leads to the journal, which has times of its own: `-v` adds none then.
`CREDENTIALS_DIRECTORY`
    Set by *systemd*(1) with LoadCredential=: the mode of a secret in that directory does not matter. Elsewhere a file
    that others can read is refused.
""",
    "EXAMPLES": """
A secret first, which both machines get by a way that you trust:

    home$   (umask 077; punchtunnel --new-secret > secret)

A file, or anything else that a pipe can carry:

    home$   punchtunnel 203.0.113.9 --secret-file secret < dump.sql
    laptop$ punchtunnel 198.51.100.7 --secret-file secret > dump.sql

SSH to the machine behind the other router, again and again:

    home$   punchtunnel 203.0.113.9 -k --to 22 --secret-file secret
    laptop$ punchtunnel 198.51.100.7 -L 2222 --secret-file secret
    laptop$ ssh -p 2222 me@localhost

Two machines that are paired, and two services by their names:

    home$   punchtunnel laptop -k --to ssh=22 --to web=nas:8080
    laptop$ punchtunnel home -L 2222=ssh -L 8080=web

The same in the background, until it is ended by its number:

    laptop$ punchtunnel 198.51.100.7 -f -L 2222 --secret-file secret --pid-file pid
    laptop$ kill $(cat pid)

The same without a port, one connection each time:

    laptop$ ssh -o ProxyCommand='punchtunnel 198.51.100.7 --stdio --secret-file secret' me@home

A second tunnel between the same two machines, with the secret in `PUNCHTUNNEL_SECRET`:

    home$   punchtunnel 203.0.113.9 --channel backup -k --to 873
    laptop$ punchtunnel 198.51.100.7 --channel backup -L 8873

On one machine, to try it:

    one$    punchtunnel 127.0.0.2 --bind 127.0.0.1
    other$  punchtunnel 127.0.0.1 --bind 127.0.0.2
""",
    "SECURITY": """
Every link is sealed with AES-256-GCM or ChaCha20-Poly1305 under fresh keys from a SPAKE2 exchange. With the same
secret on both sides, both prove that they know it before a byte of yours moves, and guessing it is slow and told.
Without a secret, the peer is whoever answers at its address (a neighbour behind the same NAT, whoever has that address
today, whoever controls its name), and an attacker on the path could be a man in the middle; every such link says so,
and `-v` shows a verifier that two people can compare. `--to` without a secret needs `--no-secret`, unless PEER is an
address of this machine. A link that is cut is never taken for an end of file, except by a program at a Unix socket,
because a Unix socket has no reset. `--plain`, on both sides, switches encryption and proofs off.

A secret is never an argument, because every user of the machine can list arguments.
""",
    "NOTES": """
No hole can be punched where one router chooses random ports and the other lets in only what it expects, or where
both drop every bare SYN from outside. One side with a public address or mapped ports is enough for either pair, and so
is IPv6 on both. Nothing is relayed unless `--relay` names a relay on both sides: when no hole can be punched, the last
line says why, and the exit status is 3.
""",
    "SEE ALSO": """
*ssh*(1), *ssh_config*(5), *socat*(1), *ncat*(1), *systemd.service*(5)

In the source: README.md, docs/PUNCHING.md (the algorithm), docs/PROTOCOL.md (every byte),
docs/SECURITY.md (who can do what), docs/EVENTS.md (for programs that read `--json`), docs/LIBRARY.md (from Python),
docs/TROUBLESHOOTING.md (every failure and its remedy), docs/RECIPES.md (lines to paste), docs/FAQ.md,
docs/COMPARISON.md (other tools), docs/PERFORMANCE.md (how fast each mode is).
""",
}


def page() -> str:
    """Return the whole page as roff."""
    command = typer.main.get_command(cli.app)
    blocks = dict(epilog_blocks())
    lines = [
        f'.TH PUNCHTUNNEL 1 "{DATE}" "punchtunnel {punchtunnel.__version__}" "User Commands"',
        # Words of code must not be hyphenated, and then straight edges look bad.
        ".nh",
        ".ad l",
        ".SH NAME",
        f"punchtunnel \\- {roff(NAME)}",
        ".SH SYNOPSIS",
        ".B punchtunnel",
        r"[\fIOPTION\fR]... \fIPEER\fR...",
        ".SH DESCRIPTION",
        *paragraphs(inspect.cleandoc(Options.__doc__ or "")),
        ".SH ROLES",
        *roles(blocks["Roles that fit together (run one command on each machine)"]),
        ".SH OPTIONS",
    ]
    for parameter in command.get_params(command.make_context("punchtunnel", [], resilient_parsing=True)):
        lines += [] if getattr(parameter, "hidden", False) else option(parameter)
    lines += [".SH EXIT STATUS", *statuses(blocks["Exit status"])]
    for title, text in AFTER_OPTIONS.items():
        lines += [f".SH {title}", *paragraphs(text)]
    return "\n".join(lines) + "\n"


def option(parameter: Any) -> Iterator[str]:
    """Yield names, value and help of one of typer's options; an argument has a value only."""
    is_option = parameter.param_type_name == "option"
    names = ", ".join(f"\\fB{roff(name)}\\fR" for name in sorted(parameter.opts, key=len) if is_option)
    value = f"\\fI{roff(parameter.metavar)}\\fR" if parameter.metavar else ""
    yield ".TP"
    yield f"{names} {value}".strip()
    yield from sentences(parameter.help or "")


def epilog_blocks() -> Iterator[tuple[str, list[str]]]:
    """Yield title and rows of each table that follows the options."""
    for block in cli.EPILOG.split("\b\n"):
        title, _, rows = block.partition(":\n")
        if rows:
            yield title, [row.strip() for row in rows.splitlines() if row.strip()]


def roles(rows: list[str]) -> Iterator[str]:
    """Yield the pairs of roles, as a table that keeps its columns."""
    yield from sentences("Roles that fit together; run one command on each machine:")
    yield from example([re.sub(r"^stdio  ", "--stdio", row) for row in rows])


def statuses(rows: list[str]) -> Iterator[str]:
    """Yield what each exit status means; a row may have several pairs."""
    for row in rows:
        words = re.split(r"\s{2,}", row)
        for code, meaning in zip(words[::2], words[1::2], strict=True):
            yield ".TP"
            yield f"\\fB{roff(code)}\\fR"
            yield from sentences(meaning.rstrip(";"))


def paragraphs(text: str) -> Iterator[str]:
    """Yield paragraphs, definitions (a term, and indented lines after it) and examples."""
    first = True
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        lines = paragraph.splitlines()
        if lines[0].startswith("    "):
            yield from example([line.removeprefix("    ") for line in lines])
        elif len(lines) > 1 and lines[1].startswith("    "):
            yield from definitions(lines)
        else:
            if not first:
                yield ".PP"
            yield from sentences(" ".join(lines))
        first = False


def definitions(lines: list[str]) -> Iterator[str]:
    """Yield a list of terms, each with the indented text that follows it."""
    for entry in re.split(r"\n(?!    )", "\n".join(lines)):
        term, _, text = entry.partition("\n")
        yield ".TP"
        yield from sentences(term)
        yield from sentences(" ".join(text.split()))


def example(lines: list[str]) -> Iterator[str]:
    """Yield lines that man does not fill."""
    yield from (".PP", ".in +4n", ".nf")
    yield from (roff(line) for line in lines)
    yield from (".fi", ".in")


def sentences(text: str) -> Iterator[str]:
    """Yield a paragraph, each sentence on a line of its own, as roff wants it."""
    for sentence in re.split(r"(?<=[.?])\s+(?=[^a-z])", text.strip()):
        marked = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", roff(sentence))
        marked = re.sub(r"\*([^*]+)\*", r"\\fI\1\\fR", marked)
        yield from textwrap.wrap(marked, WIDTH, break_long_words=False, break_on_hyphens=False)


def roff(text: str) -> str:
    """Return text that roff shows as it is: no command, no character of its own in place of ours."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("–", r"\(en").replace("'", r"\(aq")
    # A line that begins with a full stop would be a command, also where it is wrapped.
    return re.sub(r"(^|\s)\.", r"\1\\&.", escaped)


if __name__ == "__main__":
    sys.stdout.write(page())
