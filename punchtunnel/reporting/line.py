"""The words of a terminal's line and of --progress, in parts: a narrow terminal gets only the important ones.

While the hole is up, 80 columns have room for the time, the round trip, and bytes and rate of both directions,
however large they are, and 40 for the bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from punchtunnel.reporting.state import Flow, State
from punchtunnel.words import reach
from punchtunnel.words.quantities import duration, milliseconds, rate, size, utc


class Part(NamedTuple):
    """One part of the line.

    Attributes:
        text: A comma separates it from the part before, unless it begins with a space.
        rank: The part with the highest rank is left out first; 0 is never left out.
        tone: "good", "bad" or "": becomes a colour.
    """

    text: str
    rank: int
    tone: str = ""


def joined(parts: list[Part]) -> str:
    """Return the whole line."""
    return "".join(text for text, _ in pieces(parts))


def pieces(parts: list[Part]) -> list[tuple[str, str]]:
    """Return the line as (text, tone), with the commas."""
    found: list[tuple[str, str]] = []
    for part in parts:
        if found and not part.text.startswith(" "):
            found.append((", ", ""))
        # What it follows may have been left out.
        found.append((part.text if found else part.text.lstrip(), part.tone))
    return found


# What the dials meet while a wrong clock may be the reason.
_MAY_BE_THE_CLOCK = ("", "silent", "refused", reach.PARTLY_REFUSED)


def punching(state: State, wait: float, now: float, synchronised: bool | None) -> list[Part]:
    """Return the line until there is a hole.

    Args:
        state: The run.
        wait: Seconds to wait in all; 0: for ever.
        now: Unix time in seconds that chooses the ports.
        synchronised: Whether the kernel takes the clock for right; None where it does not tell.
    """
    if state.peer:
        where = [Part("punching towards", 3), Part(f" {state.peer}", 0), Part(f" on {state.ports} ports", 6)]
    else:
        where = [Part(f"waiting for the peer {state.via}" if state.via else "looking up the peer's address", 0)]
    parts = [*where, Part(duration(state.waited_s), 1)]
    if wait:
        parts.append(Part(f" of {duration(wait)}", 4))
    if state.peer and state.met:
        parts.append(Part(reach.MET.get(state.met, state.met), 2, "" if state.met == "silent" else "bad"))
    # One that a time daemon keeps is right enough.
    if state.peer and synchronised is not True and state.met in _MAY_BE_THE_CLOCK:
        if synchronised is False:
            parts.append(Part("clock not synchronised", 5, "bad"))
        parts.append(Part(f"it is {utc(now)} UTC here", 7))
    return parts


def connected(state: State) -> list[Part]:
    """Return the line once there is a hole."""
    parts = [Part(f"connected to {state.remote}", 0)]
    if port := _port_of(state.local):
        parts.append(Part(f" from port {port}", 5))
    if state.rtt_s is not None:
        parts.append(Part(milliseconds(state.rtt_s), 3))
    return [*parts, security(state.sealed, state.authenticated)]


def _port_of(local: str) -> str:
    """Return the port of our end of the hole; "" of a command's, which has none."""
    _, colon, port = local.rpartition(":")
    return port if colon else ""


def security(sealed: bool, authenticated: bool) -> Part:
    """Return how well the link is protected."""
    if not sealed:
        return Part("plain", 2, "bad")
    return Part("sealed, authenticated", 3, "good") if authenticated else Part("sealed, not authenticated", 2, "bad")


def traffic(state: State) -> list[Part]:
    """Return the line while streams come and go."""
    if (lost := state.lost_s) is None:
        parts = [Part(f"up {duration(state.elapsed_s)}", 1), Part(f"connected to {state.remote}", 7)]
        if port := _port_of(state.local):
            parts.append(Part(f" from port {port}", 8))
        if state.rtt_s is not None:
            parts.append(Part(milliseconds(state.rtt_s), 2))
    else:
        parts = [Part(f"reconnecting, {duration(lost)}", 1, "bad")]
    parts.append(security(state.sealed, state.authenticated)._replace(rank=6))
    parts.append(Part("1 stream" if state.streams == 1 else f"{state.streams} streams", 5))
    for name, flow in (("in", state.inward), ("out", state.outward)):
        parts += [Part(f"{name} {size(flow.size)}", 0), Part(f" at {rate(flow.rate)}", 3)]
    return parts


def progress(state: State, over: bool) -> list[Part]:
    """Return the line of --progress; `over`: it is the last one."""
    parts = [Part(duration(state.elapsed_s), 1)]
    if not over and (lost := state.lost_s) is not None:
        parts.append(Part(f"reconnecting, {duration(lost)}", 1, "bad"))
    elif not over and state.rtt_s is not None:
        parts.append(Part(milliseconds(state.rtt_s), 4))
    for name, flow in (("out", state.outward), ("in", state.inward)):
        if flow.is_used:
            parts += _flow(name, flow, over)
    return parts if state.moves else [*parts, Part(size(0), 0)]


def _flow(name: str, flow: Flow, over: bool) -> list[Part]:
    parts = [Part(f"{name} {size(flow.size)}", 0)]
    if not over:
        parts.append(Part(f" at {rate(flow.rate)}", 2))
    parts.append(Part(f"average {rate(flow.average)}", 6))
    if flow.expected:
        parts.append(Part(f"{min(100 * flow.size // flow.expected, 100)} %", 3))
    if not over and (left := flow.seconds_left) is not None:
        parts.append(Part(f"{duration(left)} left", 5))
    return parts


def path(local: str, remote: str, protection: Part, least: float, median: float, most: float) -> str:
    """Return the sentence that -z prints; round trips in seconds."""
    port = f" from port {number}" if (number := _port_of(local)) else ""
    times = f"{milliseconds(least)}, median {milliseconds(median)}, at most {milliseconds(most)}"
    return f"connected to {remote}{port}, {protection.text}; round trip {times}"
