"""What concerns this machine alone: its open ports, its log, its process."""

from __future__ import annotations

from collections.abc import Sequence


def open_to_others(places: Sequence[str]) -> str:
    """Say that a -L is for other machines, too."""
    return (
        f"whoever can reach this machine can connect to {' and '.join(places)}, and so to what is behind it; "
        "-L PORT alone is for programs of this machine"
    )


def write_log(path: str) -> str:
    """Return what `words.cannot` says of opening --log."""
    return f"write the log {path}"


def write_pid(path: str) -> str:
    """Return what `words.cannot` says of writing --pid-file."""
    return f"write the file {path} of --pid-file"


def pid_file_is_taken(path: str, process: int) -> str:
    """Say that another run has the file of --pid-file."""
    return f"process {process}, which still runs, is in {path}: end it by `kill {process}`, or give another --pid-file"
