"""Who is tried in the laboratory: the tool and the baseline, as command lines.

Both write the same JSON events, so nothing else in the laboratory knows which
of them it is looking at.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Call:
    """What one end is told, apart from what both are."""

    own: str
    peers: tuple[str, ...]
    channel: str
    clock_offset_s: float
    wait_s: float
    # Instead of --stdio, for cells about roles.
    role: tuple[str, ...] = ("--stdio",)
    extra: tuple[str, ...] = field(default=())
    secret: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """A punching program; its clock has a border at `border_s` modulo `window_s`."""

    name: str
    window_s: float
    border_s: float
    # Whether its last event is held to name the cause of a failure.
    explains: bool

    def command(self, call: Call) -> list[str]:
        """Return the command line for one end."""
        if self is BASELINE:
            return [
                sys.executable, "-m", "tests.natlab.baseline", call.peers[0], "--own", call.own, "--stdio", "--json",
                f"--clock-offset={call.clock_offset_s}", "-w", str(call.wait_s),
            ]  # fmt: skip
        secret = ["env", f"PUNCHTUNNEL_SECRET={call.secret}"] if call.secret else []
        return [
            *secret, sys.executable, "-m", "punchtunnel", *call.peers, *call.role, "--json", "--channel", call.channel,
            f"--clock-offset={call.clock_offset_s}", "-w", str(call.wait_s), *call.extra,
        ]  # fmt: skip

    def offset_to_border(self, now: float, seconds: float) -> float:
        """Return the clock offset with which this program meets a border in `seconds`."""
        wanted = self.border_s - seconds
        return (wanted - now) % self.window_s


# k0 = floor(t / 50 - 1/2) changes at 25 modulo 50.
TOOL = Subject("punchtunnel", window_s=50.0, border_s=25.0, explains=True)
BASELINE = Subject("baseline", window_s=42.0, border_s=20.0, explains=False)
