"""What --show prints, and the hint for the other machine."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from punchtunnel.words.quantities import utc

# Placeholders for what only a person can fill in.
THIS_MACHINE = "<address of this machine>"
ANY_TARGET = "HOST:PORT"
ANY_COMMAND = "COMMAND"
# Of this machine, on a machine that has saved it.
NAME = "NAME"
WITH_NAME = "NAME is what this machine is called among the saved peers there"
WITH_SECRET = "with the same secret there: PUNCHTUNNEL_SECRET, --secret-file or --ask-secret"  # noqa: S105


def command(addresses: Sequence[str], options: Sequence[str] = (), port: int = 0, *, dials: bool = True) -> str:
    """Return the line for a shell of the other machine.

    Args:
        addresses: Of this machine; a placeholder stands for them if there are none.
        options: As the other machine needs them; ANY_TARGET and ANY_COMMAND among them stay placeholders.
        port: For the placeholder; 0 is none.
        dials: The other machine needs an address of this one.
    """
    unknown = f"{THIS_MACHINE}:{port}" if port else THIS_MACHINE
    return " ".join(["punchtunnel", *(addresses or [unknown] * dials), *map(shlex.quote, options)])


def hint(command: str, secret: bool, saved: bool = False) -> str:
    """Return the command for the other machine as one sentence.

    Args:
        command: As it is typed there.
        secret: This side has one.
        saved: It is that of a saved peer, as the other side has one, too.
    """
    return f"on the other machine: {command}" + (
        f", where {WITH_NAME}" if saved else ", with the same secret" if secret else ""
    )


def fresh_secret(secret: str) -> list[str]:
    """Return the lines that put a new secret at the user's disposal."""
    return ["a fresh secret, for PUNCHTUNNEL_SECRET, --secret-file or --ask-secret on both machines:", f"    {secret}"]


def other_machine(command: str, secret: bool, saved: bool = False) -> list[str]:
    """Return the command for the other machine as lines of --show; the arguments are those of `hint`."""
    more = [WITH_NAME] if saved else [WITH_SECRET] if secret else []
    return ["on the other machine:", *(f"    {line}" for line in (command, *more))]


def schedule(now: float, clock: str, ports: Sequence[tuple[int | None, Sequence[int]]], change: float) -> list[str]:
    """Return the lines that two people compare on the phone.

    Args:
        now: Unix time in seconds that chooses the ports.
        clock: How exact it is, or "".
        ports: Each bucket and its ports; None stands for the ports that never change.
        change: Unix time of the next bucket.
    """
    lines = [f"it is {utc(now)} UTC here" + (f", {clock}" if clock else "")]
    for bucket, numbers in ports:
        name = "always" if bucket is None else f"bucket {bucket}"
        lines.append(f"{name}: ports {' '.join(map(str, numbers))}")
    return [*lines, f"the next bucket begins in {change - now:.0f} s, at {utc(change)} UTC"]


def clock(synchronised: bool | None, error_ms: float | None) -> str:
    """Return what the kernel says about the clock, "" if it says nothing."""
    if synchronised is None:
        return ""
    return f"clock synchronised to {error_ms or 0.0:.0f} ms" if synchronised else "clock not synchronised"
