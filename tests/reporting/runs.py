"""Events of a run, as tests of several modules tell them."""

from __future__ import annotations

from punchtunnel.reporting.events import Event, HoleOpened, Punching, Sealed, Traffic, Waiting
from punchtunnel.reporting.state import State

MIB = 1024 * 1024
# 12:34:56 UTC of some day.
NOON = 1_789_000_000 // 86400 * 86400 + 45296.0
PUNCHING = Punching("203.0.113.7", 20, [10240])
HOLE = HoleOpened("192.0.2.1:10241", "203.0.113.7:10240", 0.0241, "-L", leads=True, waited_s=0.1, dials=3)
SEALED = Sealed(authenticated=True, verifier="aaaa")


def punching(waited: float = 0.0) -> list[Event]:
    return [PUNCHING, Waiting(waited, dials=3, met="silent")]


def traffic(elapsed: float, bytes_in: int, bytes_out: int, streams: int = 1) -> Traffic:
    return Traffic(elapsed, bytes_in, bytes_out, streams)


def told(*happened: Event) -> State:
    state = State()
    for event in happened:
        state.take(event)
    return state
