"""The words of a terminal's line and of --progress, in parts: a narrow terminal gets only the important ones.

The README shows the same words.
"""

from __future__ import annotations

from typing import NamedTuple

from punchtunnel.reporting.state import Flow, State
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
        found.append((part.text, part.tone))
    return found


def punching(state: State, now: float, clock: Part | None) -> list[Part]:
    """Return the line until there is a hole.

    Args:
        state: The run.
        now: Unix time in seconds that chooses the ports.
        clock: How exact it is, if that is known.
    """
    since = f" since {utc(now - state.waited_s)} ({duration(state.waited_s)})"
    if state.peer:
        where = [Part(f"punching towards {state.peer}", 0), Part(f" on {state.ports} ports", 3)]
    else:
        where = [Part(f"waiting for the peer {state.via}" if state.via else "looking up the peer's address", 0)]
    parts = [
        *where,
        Part(since, 2),
        Part(f"it is {utc(now)} UTC here", 1),
    ]
    return parts if clock is None else [*parts, clock]


def clock_check(synchronised: bool | None, error_ms: float | None) -> Part | None:
    """Return what the kernel says about the clock, if anything."""
    if synchronised is None:
        return None
    if not synchronised:
        return Part("clock not synchronised", 1, "bad")
    return Part(f"clock synchronised to {error_ms or 0.0:.0f} ms", 4, "good")


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
    streams = "1 stream" if state.streams == 1 else f"{state.streams} streams"
    parts = [*connected(state), Part(streams, 1)]
    for name, flow in (("in", state.inward), ("out", state.outward)):
        parts += [Part(f"{name} {size(flow.size)}", 2), Part(f" at {rate(flow.rate)}", 4)]
    return parts


def progress(state: State, over: bool) -> list[Part]:
    """Return the line of --progress; `over`: it is the last one."""
    parts = [Part(duration(state.elapsed_s), 2)]
    for name, flow in (("out", state.outward), ("in", state.inward)):
        if flow.size or flow.expected:
            parts += _flow(name, flow, over)
    return parts if len(parts) > 1 else [*parts, Part(size(0), 0)]


def _flow(name: str, flow: Flow, over: bool) -> list[Part]:
    parts = [Part(f"{name} {size(flow.size)}", 0)]
    if not over:
        parts.append(Part(f" at {rate(flow.rate)}", 1))
    parts.append(Part(f"average {rate(flow.average)}", 4))
    if flow.expected:
        parts.append(Part(f"{min(100 * flow.size // flow.expected, 100)} %", 1))
    if not over and (left := flow.seconds_left) is not None:
        parts.append(Part(f"{duration(left)} left", 3))
    return parts


def path(local: str, remote: str, protection: Part, least: float, median: float, most: float) -> str:
    """Return the sentence that -z prints; round trips in seconds."""
    port = f" from port {number}" if (number := _port_of(local)) else ""
    times = f"{milliseconds(least)}, median {milliseconds(median)}, at most {milliseconds(most)}"
    return f"connected to {remote}{port}, {protection.text}; round trip {times}"
