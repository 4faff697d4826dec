"""How much a pipe has moved, for its last line."""

from __future__ import annotations

from punchtunnel.words.quantities import size, span


def delivered(seconds: float, bytes_in: int, bytes_out: int) -> str:
    """Say that everything has arrived, on both sides."""
    received = f"{size(bytes_in)} received"
    if not bytes_out:
        return f"{received} in {span(seconds)}" if bytes_in else f"0 B delivered in {span(seconds)}"
    both = f" and {received}" if bytes_in else ""
    return f"{size(bytes_out)} delivered{both} in {span(seconds)}"


def cut(seconds: float, bytes_in: int, bytes_out: int) -> str:
    """Say how much had arrived when a session was cut; of what was sent, this side does not know it."""
    arrived = f"{size(bytes_in)} had arrived here"
    if not bytes_out:
        return f"cut after {span(seconds)}: {arrived}"
    sent = f"{size(bytes_out)} had been sent, of which not all may have arrived"
    return f"cut after {span(seconds)}: {arrived}, {sent}" if bytes_in else f"cut after {span(seconds)}: {sent}"
