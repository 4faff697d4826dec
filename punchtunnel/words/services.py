"""Services by their names: --to NAME=PORT, and -L PORT=NAME or --stdio=NAME on the other side."""

from __future__ import annotations

from typing import Final

# Of the command line.
NOT_A_LISTEN: Final = (
    "-L {text!r}: {name!r} is no name of a service; -L 2222=ssh asks for what `--to ssh=22` names on the other side, "
    "and -L 2222 for what its --to without a name leads to; a name has up to 63 letters, digits, '.', _ and -, with at "
    "least one letter, and begins with a letter or a digit"
)
NOT_A_TARGET: Final = (
    "--to {text!r}: {name!r} is no name of a service, as in --to ssh=22 or --to web=localhost:8080: up to 63 letters, "
    "digits, '.', _ and -, with at least one letter, beginning with a letter or a digit"
)
NOT_OF_STDIO: Final = (
    "--stdio={name}: that is no name of a service, as in --stdio=ssh for `--to ssh=22` there: up to 63 letters, "
    "digits, '.', _ and -, with at least one letter, beginning with a letter or a digit"
)
NO_SERVICE: Final = "{name!r} is no name of a service, such as ssh"
TARGET_TWICE: Final = "--to is given twice for {name}: each service has one target"
TWO_NAMELESS: Final = "--to is given twice without a name: name the services, as in --to ssh=22 --to web=8080"
# What a side with --stdio=NAME meets.
PEER_HAS_NONE: Final = (
    "the far side has no services: give it --to {name}=PORT, or leave the name out here for a pipe between two stdios"
)


def no_such_there(service: str) -> str:
    """Say on the side that has asked for a service why the far side has refused."""
    return f"the far side has no service {service}: give it --to {service}=PORT, or correct the name here (case counts)"


def no_such_here(service: str) -> str:
    """Say on the side of --to what the peer has asked for."""
    if service:
        return f"the peer asks for a service {service}, which no --to names here: add --to {service}=PORT"
    return "the peer asks for no service by name, and each --to here has one: add a --to without a name"


def local_client(service: str) -> str:
    """Say what a stream leads to on the side of -L."""
    return f"a local client, for {service}" if service else "a local client"


def to_target(target: str, service: str) -> str:
    """Say where a stream leads on the side of --to."""
    return f"to {target}" + (f", for {service}" if service else "")
